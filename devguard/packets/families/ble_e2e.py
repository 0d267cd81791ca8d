"""Records of the Bluetooth CGM and Insulin Delivery services that may end (or begin) with an E2E-CRC.

    body ... | crc16 little endian            CGM characteristics, where the feature says E2E is supported
    FF FF | 00 | ...                          Insulin Delivery feature: CRC not used

Checksum: CRC-16 0x1021 from FFFF. A record does not say whether it carries one, and FFFF in its place means unused, so
a checksum is reported only where the last two bytes are the right one; otherwise `crc_present` is false and nothing
was checked. With the name `e2e=required` (`--with e2e=required`) a record without a right checksum is not valid. The
E2E-CRC finds accidents; it authenticates nothing. A record alone names no characteristic, so its body is kept as bytes
and counts as patient data; commands of the Insulin Delivery control point cannot be told from readings here, so give
`--with characteristic=command-control-point` where the capture says it: then it is therapy-affecting.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc16_ccitt_false
from devguard.packets.family import Family
from devguard.packets.layout import Damaged, Layout, Swift, rest
from devguard.packets.packet import Context, Effect, Packet, unreadable

NAME: Final = "ble_e2e"
SHORTEST: Final = 3
LONGEST: Final = 512  # the longest attribute value, Core Specification volume 3 part F section 3.2.9
_ACTS: Final = frozenset({"command-control-point", "idd-command-control-point"})

LAYOUT: Final = Layout(c.Struct(rest("body", 2)), c.Int16ul, crc16_ccitt_false)

SWIFT: Final = Swift(LAYOUT, "<", "", "<H", crc16_ccitt_false, inner="body", usual=lambda _: True)


def decode(data: bytes, context: Context) -> Packet:
    """One characteristic value."""
    return _decoded(data, context, LAYOUT)


def bulk(data: bytes, context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, context, SWIFT)


def _decoded(data: bytes, context: Context, layout: Layout | Swift) -> Packet:
    try:
        if not SHORTEST <= len(data) <= LONGEST:
            raise Damaged("packet.length", f"a record has {SHORTEST} to {LONGEST} bytes, there are {len(data)}")
        body, found, expected = layout.read(data)
    except Damaged as error:
        return unreadable(NAME, data, error)
    present = found == expected
    required = context.names.get("e2e") == "required"
    wrong = required and not present
    fields: dict[str, Any] = {
        "length": len(data),
        "e2e_crc": found if present or required else None,
        "crc_present": present,
        "body": (body.body if present else data).hex(),
    }
    characteristic = context.names.get("characteristic", "record")
    return Packet(
        NAME,
        characteristic,
        data,
        fields,
        present if present or required else None,
        characteristic in _ACTS,
        code="packet.crc" if wrong else None,
        detail=f"checksum {found:#06x} found, the bytes give {expected:#06x}" if wrong else "",
        patient=frozenset({"body"}),
        told=None if "characteristic" in context.names else Effect.UNKNOWN,
    )


FAMILIES: Final = (Family(NAME, "Bluetooth CGM and Insulin Delivery records with E2E-CRC", decode, bulk=bulk),)

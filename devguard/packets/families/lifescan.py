"""LifeScan binary (OneTouch UltraEasy, UltraMini, Verio): the packets of the meter's serial line.

    02 | length (of the whole packet) | link control | message ... | 03 | crc16 little endian

9600 baud, 8N1. Link control: bit 4 more, bit 3 disconnect, bit 2 acknowledge, bit 1 E (expect), bit 0 S (sequence).
Checksum: CRC-16 0x1021 from FFFF over everything before it. Nothing is authenticated. Message bytes are kept as they
are: their meaning differs by meter. The write of the meter's clock (`05 20 01`) is therapy-affecting; readings and
serial numbers in messages are patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc16_ccitt_false
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, Layout, Swift
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable
from devguard.packets.stream import LengthFramer

NAME: Final = "lifescan_binary"
SHORTEST: Final = 6
LONGEST: Final = 255
_SET_CLOCK: Final = b"\x05\x20\x01"
_MESSAGES: Final = {
    _SET_CLOCK: "write clock",
    b"\x05\x20\x02": "read clock",
    b"\x05\x0d\x02": "read version",
    b"\x05\x0b\x02": "read serial number",
    b"\x05\x09\x02": "read unit",
    b"\x05\x1f": "read record",
    b"\x05\x1a": "erase records",
    b"\x05\x06": "answer",
    b"\x05\x0f": "answer, no such record",
}

LAYOUT: Final = Layout(
    c.Struct(
        "start" / c.Const(b"\x02"),
        "length" / c.Rebuild(c.Int8ub, lambda this: SHORTEST + len(this.message)),
        "link_control" / c.Int8ub,
        "message" / c.Bytes(lambda this: this.length - SHORTEST),
        "end" / c.Const(b"\x03"),
    ),
    c.Int16ul,
    crc16_ccitt_false,
)

SWIFT: Final = Swift(
    LAYOUT,
    ">BBB",
    "start length link_control",
    "<H",
    crc16_ccitt_false,
    inner="message",
    mark=b"\x03",
    usual=lambda body: body.start == 0x02,
)


def decode(data: bytes, _context: Context) -> Packet:
    """One packet, its mark first."""
    return _decoded(data, LAYOUT)


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, SWIFT)


def _decoded(data: bytes, layout: Layout | Swift) -> Packet:
    try:
        length = data[1] if len(data) > 1 else len(data)
        if length < SHORTEST or length != len(data):
            raise Damaged("packet.length", f"the packet says {length} bytes, there are {len(data)}")
        body, found, expected = layout.read(data)
    except Damaged as error:
        return unreadable(NAME, data, error)
    known = _MESSAGES.get(body.message[:3]) or _MESSAGES.get(body.message[:2])
    fields = {
        "length": body.length,
        "link_control": _link_control(body.link_control),
        "message": body.message.hex(),
        "crc16": found,
    }
    return checked(
        NAME,
        known or _name(body.link_control, body.message),
        data,
        fields,
        (found, expected),
        therapy=body.message.startswith(_SET_CLOCK),
        patient={"message"} if len(body.message) > len(_SET_CLOCK) else (),
        told=None if known or not body.message else Effect.UNKNOWN,
    )


def _link_control(value: int) -> dict[str, Any]:
    return {
        "raw": value,
        "more": bool(value & 0x10),
        "disconnect": bool(value & 0x08),
        "acknowledge": bool(value & 0x04),
        "expect_receive": bool(value & 0x02),
        "sequence": value & 0x01,
    }


def _name(control: int, message: bytes) -> str:
    if message:
        return "message"
    if control & 0x08:
        return "disconnect"
    return "acknowledge" if control & 0x04 else "empty"


def _size(head: bytes) -> int | None:
    if len(head) < 2:
        return None
    if head[1] < SHORTEST:
        raise ValueError("shorter than any packet")
    return head[1]


def framer(read: Read, _context: Context) -> LengthFramer:
    """Packets in a serial stream."""
    return LengthFramer(b"\x02", _size, LONGEST, read)


FAMILIES: Final = (Family(NAME, "LifeScan OneTouch meters, binary protocol", decode, framer, bulk, baud=9600),)

"""MiniMed Paradigm pumps on the air: frames, and frames as the 4b6b symbols that a radio brings.

    minimed_rf:       type | address (3, decimal digits) | message | body ... | crc8          sensors: crc16 big endian
                      A6 | remote id (3) | button | sequence | crc8
    minimed_rf_4b6b:  each half byte as one of sixteen six-bit symbols, ended by twelve zero bits

Types: A2 mysentry, A5 meter, A6 remote, A7 carelink (pump and programmer), A8, AA and AB sensors. Checksums: CRC-8
0x9B, sensors CRC-16 0x1021 from FFFF. Zero bytes that an encoder leaves behind the checksum cannot be told from a
longer body (this CRC of a packet and its CRC is zero): the frame stays valid, its body longer. Nothing is
authenticated: the six digits of the address, the pump's serial number, are all there is. Therapy-affecting: every
button of a remote, and the CareLink commands from 40 to 6F (bolus, temporary basal, suspend, profiles, limits, clock,
remote ids). Bodies are patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc8_minimed, crc16_ccitt_false
from devguard.packets.families import _minimed as minimed
from devguard.packets.family import Family
from devguard.packets.layout import Damaged, Layout, Swift, rest
from devguard.packets.packet import Context, Packet, checked, unreadable

FRAME: Final = "minimed_rf"
SYMBOLS_FAMILY: Final = "minimed_rf_4b6b"
TYPES: Final = {
    0xA2: "mysentry",
    0xA5: "meter",
    0xA6: "remote",
    0xA7: "carelink",
    0xA8: "sensor",
    0xAA: "sensor",
    0xAB: "sensor",
}
REMOTE: Final = 0xA6
CARELINK: Final = 0xA7
_SENSORS: Final = frozenset({0xA8, 0xAA, 0xAB})
_BUTTONS: Final = {0x81: "S", 0x86: "ACT", 0x88: "B"}
SHORTEST: Final = 6
LONGEST: Final = 110
SYMBOLS: Final = (21, 49, 50, 35, 52, 37, 38, 22, 26, 25, 42, 11, 44, 13, 14, 28)
_NIBBLES: Final = {symbol: nibble for nibble, symbol in enumerate(SYMBOLS)}
LONGEST_SYMBOLS: Final = 2 * LONGEST

HEAD: Final = ("type" / c.Int8ub, "address" / c.Bytes(3), "message" / c.Int8ub)
LAYOUT: Final = Layout(c.Struct(*HEAD, rest("body", SHORTEST)), c.Int8ub, crc8_minimed)
SENSOR: Final = Layout(c.Struct(*HEAD, rest("body", SHORTEST + 1)), c.Int16ub, crc16_ccitt_false)

SWIFT: Final = Swift(LAYOUT, ">B3sB", "type address message", ">B", crc8_minimed, inner="body", usual=lambda _: True)


def decode(data: bytes, _context: Context) -> Packet:
    """One frame."""
    return _frame(FRAME, data, data, {}, LAYOUT)


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _frame(FRAME, data, data, {}, SWIFT)


def _frame(family: str, raw: bytes, data: bytes, extra: dict[str, Any], layout: Layout | Swift) -> Packet:
    try:
        if not SHORTEST <= len(data) <= LONGEST:
            raise Damaged("packet.length", f"a frame has {SHORTEST} to {LONGEST} bytes, there are {len(data)}")
        if data[0] not in TYPES:
            raise Damaged("packet.unknown", f"no frame begins with {data[0]:#04x}")
        got, found, expected = (SENSOR if data[0] in _SENSORS else layout).read(data)
    except Damaged as error:
        failed = unreadable(family, raw, error, crc_ok=None)
        return failed._replace(fields=extra)
    fields: dict[str, Any] = {"packet_type": got.type, "packet_type_name": TYPES[got.type]}
    name, therapy, told = TYPES[got.type], False, None
    if got.type == REMOTE:
        sequence = got.body[0] if got.body else None
        button = _BUTTONS.get(got.message, f"{got.message:#04x}")
        fields |= {"remote_id": got.address.hex(), "button": button, "sequence": sequence}
        name, therapy = f"remote button {button}", True
    else:
        fields |= {"address": got.address.hex(), "message_type": got.message, "body": got.body.hex()}
        if got.type == CARELINK:
            name, therapy = minimed.MESSAGES.get(got.message, f"unknown {got.message:#04x}"), minimed.acts(got.message)
            told = minimed.effect(got.message)
    fields |= {"crc16" if got.type in _SENSORS else "crc8": found}
    if found != expected:
        fields |= {"crc8_expected": expected, "crc8_found": found}
    return checked(
        family,
        name,
        raw,
        {**fields, **extra},
        (found, expected),
        therapy=therapy,
        patient={"address", "remote_id", "body", "decoded"},
        told=told,
    )


def decode_symbols(data: bytes, _context: Context) -> Packet:
    """One frame as symbols, its tail of zeros with it or cut off."""
    if len(data) > LONGEST_SYMBOLS:
        error = Damaged("packet.length", f"symbols of a frame have at most {LONGEST_SYMBOLS} bytes, not {len(data)}")
        return unreadable(SYMBOLS_FAMILY, data, error)
    decoded, errors = from_symbols(data)
    if not decoded and not errors:
        fields = {
            "coding_errors": 0,
            "reject": True,
            "reason": "first six bits are zero, i.e. terminator before any symbol: empty packet",
        }
        detail = "the symbols end before the first: an empty packet"
        return Packet(SYMBOLS_FAMILY, "unreadable", data, fields, False, False, code="packet.unknown", detail=detail)
    if errors:
        fields = {"coding_errors": errors, "decoded": decoded.hex()}
        detail = f"no symbol of 4b6b after {len(decoded)} bytes"
        return Packet(
            SYMBOLS_FAMILY,
            "unreadable",
            data,
            fields,
            False,
            False,
            code="packet.unknown",
            detail=detail,
            patient=frozenset({"decoded"}),
        )
    return _frame(SYMBOLS_FAMILY, data, decoded, {"decoded": decoded.hex(), "coding_errors": 0}, LAYOUT)


def from_symbols(data: bytes) -> tuple[bytes, int]:
    """(bytes up to the zero tail or the last whole pair of symbols, coding errors: 0, or 1 where it had to stop)."""
    bits, width = int.from_bytes(data, "big"), 8 * len(data)
    out = bytearray()
    for at in range(0, width - 11, 12):
        high, low = bits >> width - at - 6 & 63, bits >> width - at - 12 & 63
        if high == 0:
            return bytes(out), 0
        if high not in _NIBBLES or low not in _NIBBLES:
            return bytes(out), 1
        out.append(_NIBBLES[high] << 4 | _NIBBLES[low])
    return bytes(out), 0


def to_symbols(data: bytes) -> bytes:
    """The symbols of a frame with a tail of at least twelve zero bits, for tests and made vectors."""
    bits = "".join(f"{SYMBOLS[nibble]:06b}" for byte in data for nibble in (byte >> 4, byte & 15)) + "0" * 12
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


FAMILIES: Final = (
    Family(FRAME, "MiniMed Paradigm on the air, decoded frames", decode, bulk=bulk),
    Family(SYMBOLS_FAMILY, "MiniMed Paradigm on the air, 4b6b symbols", decode_symbols),
)

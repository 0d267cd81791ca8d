"""Dexcom G5 and G6 transmitters: the messages of their Bluetooth characteristics, one a record.

    opcode | body ... | crc16 little endian

Checksum: CRC-16 0x1021 from 0 over everything before it. Authentication messages (opcodes 01 to 07) and the short
commands (09, and requests of one byte) carry none on some transmitters; what is read here has one. Nothing shows from
the bytes whether the link was authenticated. Calibration (34) and reset (42) are therapy-affecting: what they change
is what a pump or a person doses by. Bodies of answers hold glucose, times and serial numbers: patient data. Bodies
are kept as bytes; firmware versions are read.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc16_xmodem
from devguard.packets.family import Family
from devguard.packets.layout import Damaged, Layout, Swift, rest
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable

NAME: Final = "dexcom_g5g6_ble"
SHORTEST: Final = 3
LONGEST: Final = 247  # the largest Bluetooth record
_OPCODES: Final = {
    0x01: "authentication request",
    0x03: "authentication answer",
    0x04: "authentication challenge",
    0x05: "authentication status",
    0x06: "keep alive",
    0x07: "bond request",
    0x09: "disconnect",
    0x20: "firmware version request",
    0x21: "firmware version",
    0x22: "battery status request",
    0x23: "battery status",
    0x24: "transmitter time request",
    0x25: "transmitter time",
    0x26: "session start request",
    0x27: "session start",
    0x28: "session stop request",
    0x29: "session stop",
    0x2E: "glucose request (G6, EGV)",
    0x2F: "glucose (G6)",
    0x30: "glucose request",
    0x31: "glucose",
    0x32: "calibration data request",
    0x33: "calibration data",
    0x34: "calibrate request",
    0x35: "calibrate",
    0x3E: "glucose history request",
    0x42: "reset request",
    0x43: "reset",
    0x4A: "transmitter version request",
    0x4B: "transmitter version",
    0x50: "glucose backfill request",
    0x51: "glucose backfill",
}
_ACTS: Final = frozenset({0x34, 0x42})
_FIRMWARE: Final = 0x21
_FIRMWARE_LAYOUT: Final = c.Struct("status" / c.Int8ub, "version" / c.Int8ub[4])

LAYOUT: Final = Layout(c.Struct("opcode" / c.Int8ub, rest("body", SHORTEST)), c.Int16ul, crc16_xmodem)

SWIFT: Final = Swift(LAYOUT, "<B", "opcode", "<H", crc16_xmodem, inner="body", usual=lambda _: True)


def decode(data: bytes, _context: Context) -> Packet:
    """One message with its checksum."""
    return _decoded(data, LAYOUT)


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, SWIFT)


def _decoded(data: bytes, layout: Layout | Swift) -> Packet:
    try:
        if not SHORTEST <= len(data) <= LONGEST:
            raise Damaged("packet.length", f"a message has {SHORTEST} to {LONGEST} bytes, there are {len(data)}")
        body, found, expected = layout.read(data)
    except Damaged as error:
        return unreadable(NAME, data, error)
    fields: dict[str, Any] = {"opcode": body.opcode, "length": len(data), "crc16": found, "body": body.body.hex()}
    if body.opcode == _FIRMWARE and len(body.body) >= _FIRMWARE_LAYOUT.sizeof():
        fields["firmware_version"] = ".".join(map(str, _FIRMWARE_LAYOUT.parse(body.body).version))
    return checked(
        NAME,
        _OPCODES.get(body.opcode, f"unknown {body.opcode:#04x}"),
        data,
        fields,
        (found, expected),
        therapy=body.opcode in _ACTS,
        patient={"body"},
        told=None if body.opcode in _OPCODES else Effect.UNKNOWN,
    )


FAMILIES: Final = (Family(NAME, "Dexcom G5 and G6 transmitters, Bluetooth", decode, bulk=bulk),)

"""Dana R pumps: packets of the serial profile.

    7E 7E | length (type, command, parameters) | F1 | command (16 bit) | parameters ... | crc16 big endian | 2E 2E

Checksum: CRC-16 0x1021 from 0 over type to parameters. Bytes that begin with no mark are read as a bare piece and get
its CRC as a field, which is how the checksum's own vector comes. No cryptography: a password is checked by the
program, not by the pump's line. Therapy-affecting: 0101 bolus stop, 0102 and 0104 bolus start, 0401 and 0403 temporary
basal, 0406 and 0407 extended bolus, 3302, 3306 and 330C profiles, 330A clock, and every other command of 33xx that
writes. Parameters of answers are patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc16_xmodem
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, Layout, Swift
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable
from devguard.packets.stream import LengthFramer

NAME: Final = "dana_r_serial"
MARK: Final = b"\x7e\x7e"
END: Final = b"\x2e\x2e"
HEAD: Final = 3
AROUND: Final = HEAD + 2 + len(END)
_MINIMUM: Final = 3  # type and command
_COMMANDS: Final = {
    0x0101: "bolus stop",
    0x0102: "bolus start",
    0x0104: "bolus start with speed",
    0x0401: "temporary basal start",
    0x0403: "temporary basal stop",
    0x0406: "extended bolus stop",
    0x0407: "extended bolus start",
    0x3302: "set active basal profile",
    0x3306: "set basal profile",
    0x330A: "set clock",
    0x330C: "set profile number",
}
_WRITES: Final = 0x33  # the high byte of the pump's settings that are written
_READS: Final = frozenset({0x02, 0x30, 0x31, 0x32})  # of status, connection, history and settings that are read

LAYOUT: Final = Layout(
    c.Struct(
        "start" / c.Const(MARK),
        "length" / c.Rebuild(c.Int8ub, lambda this: len(this.params) + _MINIMUM),
        "type" / c.Const(b"\xf1"),
        "command" / c.Int16ub,
        "params" / c.Bytes(lambda this: this.length - _MINIMUM),
    ),
    c.Int16ub,
    crc16_xmodem,
    cover=lambda body: body[HEAD:],
)

SWIFT: Final = Swift(
    LAYOUT,
    ">2sBBH",
    "start length type command",
    ">H",
    crc16_xmodem,
    inner="params",
    start=HEAD,
    usual=lambda body: body.start == MARK and body.type == 0xF1,
)


def decode(data: bytes, _context: Context) -> Packet:
    """One packet with its marks, or a bare piece of one."""
    return _decoded(data, LAYOUT)


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, SWIFT)


def _decoded(data: bytes, layout: Layout | Swift) -> Packet:
    if data and not data.startswith(MARK):
        crc = crc16_xmodem(data)
        piece: dict[str, Any] = {"crc16": crc, "crc16_hex": f"{crc:04x}"}
        detail = "bytes without marks: nothing was checked, their CRC is computed"
        return Packet(NAME, "bare piece", data, piece, True, False, detail=detail, told=Effect.UNKNOWN)
    try:
        if len(data) < HEAD + _MINIMUM or data[2] < _MINIMUM or len(data) != AROUND + data[2]:
            said = f"the packet says {AROUND + data[2]}" if len(data) >= HEAD else f"the shortest has {AROUND + 3}"
            raise Damaged("packet.length", f"{said} bytes, there are {len(data)}")
        if not data.endswith(END):
            raise Damaged("packet.unknown", f"the packet ends in {data[-2:].hex()}, expected {END.hex()}")
        body, found, expected = layout.read(data[: -len(END)])
    except Damaged as error:
        return unreadable(NAME, data, error)
    fields: dict[str, Any] = {
        "length": body.length,
        "command": body.command,
        "params": body.params.hex(),
        "crc16": found,
        "crc16_hex": f"{found:04x}",
    }
    acts = body.command in _COMMANDS or body.command >> 8 == _WRITES
    return checked(
        NAME,
        _COMMANDS.get(body.command, f"unknown {body.command:#06x}"),
        data,
        fields,
        (found, expected),
        therapy=acts,
        patient={"params"},
        told=None if acts or body.command >> 8 in _READS else Effect.UNKNOWN,
    )


def _size(head: bytes) -> int | None:
    if len(head) < HEAD:
        return None
    if head[2] < _MINIMUM:
        raise ValueError("shorter than any packet")
    return AROUND + head[2]


def framer(read: Read, _context: Context) -> LengthFramer:
    """Packets in a serial stream."""
    return LengthFramer(MARK, _size, AROUND + 255, read)


FAMILIES: Final = (Family(NAME, "Dana R pumps, serial profile", decode, framer, bulk, baud=115200),)

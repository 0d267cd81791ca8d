"""Dexcom G4 receiver: packets of its USB serial port.

    01 | length (of the whole packet, 16 bit little endian) | command | payload ... | crc16 little endian

Checksum: CRC-16 0x1021 from 0 over everything before it. Nothing is authenticated. In requests the command says what
is asked (10 ping, 16 page range, 17 pages); in answers it is the result (1 is ack). Every write is therapy-affecting:
26 transmitter id, 28 language, 30 display time, 32 reset, 36 system time, 38 glucose unit, 40 blinded mode, 42 clock
mode, 45 erase, 46 shutdown, 47 parameters. Payloads other than the page numbers of a request are patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc16_xmodem
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, Layout, Swift
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable
from devguard.packets.stream import LengthFramer

NAME: Final = "dexcom_g4_serial"
SHORTEST: Final = 6
LONGEST: Final = 6 + 4 * 528 + 64  # an answer holds four database pages at most
_COMMANDS: Final = {
    1: "ack",
    2: "nak",
    3: "invalid command",
    4: "invalid parameter",
    5: "incomplete packet",
    6: "receiver error",
    7: "invalid mode",
    10: "ping",
    11: "read firmware header",
    15: "read database partition info",
    16: "read database page range",
    17: "read database pages",
    18: "read database page header",
    25: "read transmitter id",
    26: "write transmitter id",
    27: "read language",
    28: "write language",
    29: "read display time offset",
    30: "write display time offset",
    31: "read rtc",
    32: "reset receiver",
    33: "read battery level",
    34: "read system time",
    35: "read system time offset",
    36: "write system time",
    37: "read glucose unit",
    38: "write glucose unit",
    39: "read blinded mode",
    40: "write blinded mode",
    41: "read clock mode",
    42: "write clock mode",
    43: "read device mode",
    45: "erase database",
    46: "shutdown receiver",
    47: "write pc parameters",
    48: "read battery state",
    49: "read hardware board id",
    54: "read firmware settings",
    55: "read enable setup wizard flag",
    57: "read setup wizard state",
}
_ACTS: Final = frozenset({26, 28, 30, 32, 36, 38, 40, 42, 45, 46, 47})
_RANGE, _PAGES = 16, 17

LAYOUT: Final = Layout(
    c.Struct(
        "start" / c.Const(b"\x01"),
        "length" / c.Rebuild(c.Int16ul, lambda this: SHORTEST + len(this.payload)),
        "command" / c.Int8ub,
        "payload" / c.Bytes(lambda this: this.length - SHORTEST),
    ),
    c.Int16ul,
    crc16_xmodem,
)

SWIFT: Final = Swift(
    LAYOUT,
    "<BHB",
    "start length command",
    "<H",
    crc16_xmodem,
    inner="payload",
    usual=lambda body: body.start == 0x01,
)


def decode(data: bytes, _context: Context) -> Packet:
    """One packet, its mark first."""
    return _decoded(data, LAYOUT)


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, SWIFT)


def _decoded(data: bytes, layout: Layout | Swift) -> Packet:
    try:
        length = int.from_bytes(data[1:3], "little") if len(data) > 2 else 0
        if not SHORTEST <= length <= LONGEST or length != len(data):
            raise Damaged("packet.length", f"the packet says {length} bytes, there are {len(data)}")
        body, found, expected = layout.read(data)
    except Damaged as error:
        return unreadable(NAME, data, error)
    fields: dict[str, Any] = {"command": body.command, "length": body.length, "crc16": found}
    fields |= _asked(body.command, body.payload)
    return checked(
        NAME,
        _COMMANDS.get(body.command, f"unknown {body.command:#04x}"),
        data,
        fields,
        (found, expected),
        therapy=body.command in _ACTS,
        patient={"payload"},
        told=None if body.command in _COMMANDS else Effect.UNKNOWN,
    )


def _asked(command: int, payload: bytes) -> dict[str, Any]:
    """The page numbers of a request, or the payload as it is."""
    if command == _RANGE and len(payload) == 1:
        return {"page_type": payload[0]}
    if command == _PAGES and len(payload) == 6:
        return {"page_type": payload[0], "page": int.from_bytes(payload[1:5], "little"), "count": payload[5]}
    return {"payload": payload.hex()} if payload else {}


def _size(head: bytes) -> int | None:
    if len(head) < 3:
        return None
    size = int.from_bytes(head[1:3], "little")
    if size < SHORTEST:
        raise ValueError("shorter than any packet")
    return size


def framer(read: Read, _context: Context) -> LengthFramer:
    """Packets in a serial stream."""
    return LengthFramer(b"\x01", _size, LONGEST, read)


FAMILIES: Final = (Family(NAME, "Dexcom G4 receiver, USB serial", decode, framer, bulk, baud=115200),)

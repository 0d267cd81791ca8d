"""TaiDoc TD-42xx meters: eight-byte packets of a serial line.

    51 | command | data (4) | A3 out, A5 in | sum8

19200 baud, 8N1. Checksum: the sum of the seven bytes before it, modulo 256. Nothing is authenticated. `out` is what
the host asks, `in` what the meter answers. Setting the clock (`33` out) is therapy-affecting; answers that carry a
reading or a serial number are patient data.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import construct as c

from devguard.packets.checksums import sum8
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, Layout, Swift
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable
from devguard.packets.stream import LengthFramer

NAME: Final = "taidoc_td42xx"
SIZE: Final = 8
_DIRECTIONS: Final = {0xA3: "out", 0xA5: "in"}
_COMMANDS: Final = {
    0x22: "connect",
    0x23: "read clock",
    0x24: "read model",
    0x25: "read reading, part 1",
    0x26: "read reading, part 2",
    0x27: "read serial number, part 1",
    0x28: "read serial number, part 2",
    0x2B: "count readings",
    0x33: "write clock",
    0x50: "turn off",
    0x52: "clear memory",
}
_SET_CLOCK: Final = 0x33
_PATIENT: Final = (0x25, 0x26, 0x27, 0x28)

LAYOUT: Final = Layout(
    c.Struct(
        "start" / c.Const(b"\x51"),
        "command" / c.Int8ub,
        "message" / c.Bytes(4),
        "direction" / c.OneOf(c.Int8ub, list(_DIRECTIONS)),
    ),
    c.Int8ub,
    sum8,
)

SWIFT: Final = Swift(
    LAYOUT,
    ">BB4sB",
    "start command message direction",
    ">B",
    sum8,
    usual=lambda body: body.start == 0x51 and body.direction in _DIRECTIONS and not body.inner,
)


def decode(data: bytes, _context: Context) -> Packet:
    """One packet of eight bytes."""
    return _decoded(data, LAYOUT)


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, SWIFT)


def _decoded(data: bytes, layout: Layout | Swift) -> Packet:
    try:
        if len(data) != SIZE:
            raise Damaged("packet.length", f"a packet has {SIZE} bytes, there are {len(data)}")
        body, found, expected = layout.read(data)
    except Damaged as error:
        return unreadable(NAME, data, error)
    fields: dict[str, Any] = {
        "command": body.command,
        "message": body.message.hex(),
        "direction": _DIRECTIONS[body.direction],
        "checksum": found,
    }
    held = body.command in _PATIENT and fields["direction"] == "in"
    return checked(
        NAME,
        _name(body.command, fields["direction"]),
        data,
        fields,
        (found, expected),
        therapy=body.command == _SET_CLOCK,
        patient={"message"} if held else (),
        told=None if body.command in _COMMANDS else Effect.UNKNOWN,
    )


@functools.cache
def _name(command: int, direction: str) -> str:
    return f"{_COMMANDS.get(command, f'unknown {command:#04x}')}, {direction}"


def _size(head: bytes) -> int | None:
    if len(head) < SIZE - 1:
        return None
    if head[SIZE - 2] not in _DIRECTIONS:
        raise ValueError("no packet goes that way")
    return SIZE


def framer(read: Read, _context: Context) -> LengthFramer:
    """Packets in a serial stream."""
    return LengthFramer(b"\x51", _size, SIZE, read)


FAMILIES: Final = (Family(NAME, "TaiDoc TD-42xx meters", decode, framer, bulk, baud=19200),)

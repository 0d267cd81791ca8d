"""SD CodeFree meters: packets of a serial line.

    53 | direction | length (message, checksum, end) | message ... | xor8 | AA

38400 baud, 8N1. Checksum: exclusive or of the message bytes. Directions: 20 in (from the meter), 10 out. Nothing is
authenticated. Short messages are the challenge (`10 30`), its answer (`10 40`), fetch or disconnect (`10 60`).
Setting the clock is text (out, `ADATE` and digits) and therapy-affecting; messages from the meter longer than a
challenge carry readings: patient data.
"""

from __future__ import annotations

from typing import Final

import construct as c

from devguard.packets.checksums import xor8
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, Layout, Swift
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable
from devguard.packets.stream import LengthFramer

NAME: Final = "sd_codefree"
HEAD: Final = 3
_TAIL: Final = 2
_DIRECTIONS: Final = {0x20: "in", 0x10: "out"}
_ASKING: Final = (b"\x10\x30", b"\x10\x40", b"\x10\x60")
_SET_CLOCK: Final = b"ADATE"
_CHALLENGE: Final = 2

LAYOUT: Final = Layout(
    c.Struct(
        "start" / c.Const(b"\x53"),
        "direction" / c.OneOf(c.Int8ub, list(_DIRECTIONS)),
        "length" / c.Rebuild(c.Int8ub, lambda this: len(this.message) + _TAIL),
        "message" / c.Bytes(lambda this: this.length - _TAIL),
    ),
    c.Int8ub,
    xor8,
    cover=lambda body: body[HEAD:],
)

SWIFT: Final = Swift(
    LAYOUT,
    ">BBB",
    "start direction length",
    ">B",
    xor8,
    inner="message",
    start=HEAD,
    usual=lambda body: body.start == 0x53 and body.direction in _DIRECTIONS,
)


def decode(data: bytes, _context: Context) -> Packet:
    """One packet, its end mark last."""
    return _decoded(data, LAYOUT)


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, SWIFT)


def _decoded(data: bytes, layout: Layout | Swift) -> Packet:
    try:
        if len(data) < HEAD + _TAIL or data[2] < _TAIL or len(data) != HEAD + data[2]:
            said = f"the packet says {HEAD + data[2]}" if len(data) >= HEAD else "the shortest packet has 5"
            raise Damaged("packet.length", f"{said} bytes, there are {len(data)}")
        if data[-1] != 0xAA:
            raise Damaged("packet.unknown", f"the last byte is {data[-1]:#04x}, expected 0xaa")
        body, found, expected = layout.read(data[:-1])
    except Damaged as error:
        return unreadable(NAME, data, error)
    direction = _DIRECTIONS[body.direction]
    fields = {
        "direction": direction,
        "length": body.length,
        "message": body.message.hex(),
        "checksum_xor": found,
    }
    kind = f"message {body.message[0]:#04x}" if body.message else "empty"
    sets = direction == "out" and body.message.startswith(_SET_CLOCK)
    read = direction == "in" or not body.message or body.message in _ASKING
    return checked(
        NAME,
        "set clock, out" if sets else f"{kind}, {direction}",
        data,
        fields,
        (found, expected),
        therapy=sets,
        patient={"message"} if direction == "in" and len(body.message) > _CHALLENGE else (),
        told=None if sets or read else Effect.UNKNOWN,
    )


def _size(head: bytes) -> int | None:
    if len(head) < HEAD:
        return None
    if head[1] not in _DIRECTIONS or head[2] < _TAIL:
        raise ValueError("no packet begins so")
    return HEAD + head[2]


def framer(read: Read, _context: Context) -> LengthFramer:
    """Packets in a serial stream."""
    return LengthFramer(b"\x53", _size, HEAD + 255, read)


FAMILIES: Final = (Family(NAME, "SD CodeFree meters", decode, framer, bulk, baud=38400),)

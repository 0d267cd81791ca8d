"""pcapng, block by block: which interface each packet came from, and that interface's link type.

After the PCAP Next Generation specification (draft-ietf-opsawg-pcapng): section header, interface description,
enhanced, simple and old packet blocks; options other than a packet's direction, and all other blocks, are passed over.
Every length is compared with what is there. dpkt reads pcapng too, but by the first interface's link type only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from devguard.errors import Malformed

SECTION, INTERFACE, OLD_PACKET, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
MAX_INTERFACES: Final = 256
_BYTE_ORDER: Final = 0x1A2B3C4D
_FLAGS_OPTION: Final = 2
_DIRECTIONS: Final = {1: 2, 2: 1}  # inbound: received; outbound: sent
_CODE: Final = "capture.malformed"


class Blocks(Protocol):
    """A reader that hands out exactly what is asked for, nothing at the end, or raises `Malformed`."""

    def read(self, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Captured:
    """One packet: the number of its interface in its section, all link types of that section so far, the bytes, and
    their direction where an option says it (1: sent, 2: received, else 0)."""

    interface: int
    links: tuple[int, ...]
    data: bytes
    direction: int


def captured(reader: Blocks) -> Iterator[Captured]:
    """Every packet of the capture, in file order. Raises `Malformed("capture.malformed")`."""
    order = ""
    links: tuple[int, ...] = ()
    snap: list[int] = []
    while head := reader.read(8):
        if head[:4] == SECTION.to_bytes(4, "big"):
            order, links, snap = _order(mark := reader.read(4)), (), []
            _rest(reader, head + mark, order)
            continue
        kind, _ = struct.unpack(f"{order}II", head) if order else _wrong("it begins with no section header")
        body = _rest(reader, head, order)
        if kind == INTERFACE:
            if len(links) >= MAX_INTERFACES:
                _wrong(f"more than {MAX_INTERFACES} interfaces")
            link, _, most = struct.unpack_from(f"{order}HHI", _least(body, 8))
            links, snap = (*links, link), [*snap, most]
        elif kind in (ENHANCED, OLD_PACKET, SIMPLE):
            number, data, direction = _packet(kind, body, order, snap)
            if number >= len(links):
                _wrong(f"a packet of interface {number}, {len(links)} are described")
            yield Captured(number, links, data, direction)


def _order(mark: bytes) -> str:
    orders = {struct.pack(f"{order}I", _BYTE_ORDER): order for order in "<>"}
    return orders.get(mark) or _wrong(f"no byte order is {mark.hex()}")


def _rest(reader: Blocks, begun: bytes, order: str) -> bytes:
    """What is left of a block between its first length and its second, which must be the same."""
    total = struct.unpack_from(f"{order}I", begun, 4)[0]
    if total % 4 or total < len(begun) + 4:
        _wrong(f"a block claims {total} bytes")
    rest = reader.read(total - len(begun))
    if len(rest) != total - len(begun) or struct.unpack_from(f"{order}I", rest, len(rest) - 4)[0] != total:
        _wrong(f"the two lengths of a block of {total} bytes differ")
    return rest[:-4]


def _packet(kind: int, body: bytes, order: str, snap: list[int]) -> tuple[int, bytes, int]:
    """(interface, bytes, direction) of a packet block."""
    if kind == SIMPLE:
        size = min(struct.unpack_from(f"{order}I", _least(body, 4))[0], snap[0] if snap and snap[0] else 1 << 32)
        number, at, options = 0, 4, b""
    else:
        layout = f"{order}IIIII" if kind == ENHANCED else f"{order}HHIIII"
        number, *_, size, _ = struct.unpack_from(layout, _least(body, 20))
        at = 20
        options = body[at + size + -size % 4 :]
    if at + size > len(body):
        _wrong(f"a packet of {size} bytes in a block of {len(body)}")
    return number, body[at : at + size], _direction(options, order)


def _direction(options: bytes, order: str) -> int:
    at = 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from(f"{order}HH", options, at)
        if code == 0:
            break
        if code == _FLAGS_OPTION and size == 4 and at + 8 <= len(options):
            return _DIRECTIONS.get(struct.unpack_from(f"{order}I", options, at + 4)[0] & 3, 0)
        at += 4 + size + -size % 4
    return 0


def _least(body: bytes, size: int) -> bytes:
    return body if len(body) >= size else _wrong(f"a block of {len(body)} bytes, at least {size} are needed")


def _wrong(what: str) -> NoReturn:
    raise Malformed(_CODE, f"the pcapng capture cannot be read: {what}")

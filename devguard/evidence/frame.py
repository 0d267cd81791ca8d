"""How entries lie in a segment file: frames of length, CRC-32 and body. Pure.

A segment starts with a header frame (name and version of the format, segment number, index of its first entry and the
tree's frontier there); every further frame is one entry. CRC-32 (zlib's) finds accidents and names the record; against
intent stands the tree. The frontier in the header lets the log open at its last segment alone: if it was changed,
the root it leads to is not the signed one.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from devguard import wire
from devguard.errors import Malformed
from devguard.evidence.record import MAX_ENTRY
from devguard.evidence.tree import Frontier

HEAD: Final = struct.Struct(">II")
MAX_FRAME: Final = HEAD.size + MAX_ENTRY
MAX_LEFTOVER: Final = 2 * MAX_FRAME  # one append: a header frame and an entry frame
SEGMENT_SIZE: Final = 4 * 1024 * 1024
FORMAT_NAME: Final = "devguard-evidence"
FORMAT_VERSION: Final = 1
_CODE: Final = "log.tampered"
_SEGMENT: Final = re.compile(r"segment-([0-9]{6})\.log")


class Incomplete(Exception):
    """The file ends inside a frame. Never leaves the room."""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """First frame of a segment: its number (from 1), index of its first entry, tree frontier before that entry."""

    number: int
    first: int
    frontier: tuple[bytes, ...]


def segment_name(number: int) -> str:
    """File name of segment `number`."""
    return f"segment-{number:06d}.log"


def segment_number(name: str) -> int | None:
    """Number of the segment with that file name, None for any other file."""
    match = _SEGMENT.fullmatch(name)
    return int(match[1]) if match else None


def frame(body: bytes) -> bytes:
    """`body` behind its length (4 bytes) and CRC-32 over length and body (4 bytes), big endian."""
    length = len(body).to_bytes(4, "big")
    return length + zlib.crc32(length + body).to_bytes(4, "big") + body


def read_frame(reader: BinaryIO, room: int) -> bytes | None:
    """Body of the next frame, None at the end of the file.

    `room` is how many bytes of the file may still be read. Raises `Incomplete` when the file ends inside the frame,
    `Malformed("log.tampered")` when length or checksum cannot be right. Never reads more than a frame may hold.
    """
    head = reader.read(min(HEAD.size, room))
    if not head:
        return None
    if len(head) < HEAD.size:
        raise Incomplete
    length, checksum = HEAD.unpack(head)
    if length > MAX_ENTRY:
        raise Malformed(_CODE, f"a length of {length} bytes, more than a record may have")
    body = reader.read(min(length, room - HEAD.size))
    if len(body) < length:
        raise Incomplete
    if zlib.crc32(head[:4] + body) != checksum:
        raise Malformed(_CODE, "its checksum is wrong")
    return body


def frames(reader: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """(offset after the frame, body) of every frame in the first `size` bytes; errors as `read_frame`."""
    at = 0
    while (body := read_frame(reader, size - at)) is not None:
        at += HEAD.size + len(body)
        yield at, body


def encode_header(number: int, frontier: Frontier) -> bytes:
    """The header frame of a segment that starts where `frontier` ends."""
    return frame(wire.encode([FORMAT_NAME, FORMAT_VERSION, number, frontier.size, list(frontier.hashes)]))


def decode_header(body: bytes) -> SegmentHeader:
    """The header a frame body says; `Malformed("log.tampered")` otherwise."""
    value = wire.decode(body, code=_CODE)
    if not isinstance(value, list) or len(value) < 2 or value[0] != FORMAT_NAME:
        raise Malformed(_CODE, "the file is not a segment of an evidence log")
    if value[1] != FORMAT_VERSION or isinstance(value[1], bool):
        raise Malformed(
            _CODE, f"segment format {str(value[1])[:24]}; this devguard reads {FORMAT_VERSION}", "update devguard"
        )
    shaped = len(value) == 5 and isinstance(value[4], list) and all(isinstance(item, bytes) for item in value[4])
    if not shaped or any(not isinstance(item, int) or isinstance(item, bool) for item in value[2:4]):
        raise Malformed(_CODE, "a segment header is not number, first index and frontier")
    Frontier(value[3], value[4])
    return SegmentHeader(value[2], value[3], tuple(value[4]))

"""How entries lie in a segment file: a lead of three pages, then frames of length, CRC-32 and body. Pure.

The first page of the lead holds the segment's header in a frame (name and version of the format, segment number, index
of its first entry, the tree's frontier and the newest time there); the other two are for the log's signed head, see
`heads`. Every frame behind the lead is one entry. CRC-32 (zlib's) finds accidents and names the record; against intent
stands the tree. The header lets the log open at its last segment alone: if it was changed, the root it leads to is not
the signed one. Format 1 had no lead, only the header's frame, and its head in a file of its own: see `legacy`.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from devguard import wire
from devguard.errors import Malformed, Refused
from devguard.evidence.record import MAX_ENTRY, MAX_TIME
from devguard.evidence.tree import Frontier

HEAD: Final = struct.Struct(">II")
MAX_FRAME: Final = HEAD.size + MAX_ENTRY
SEGMENT_SIZE: Final = 1024 * 1024  # what every command reads of a log to open it, at most
PAGE: Final = 4096
LEAD: Final = 3 * PAGE
FORMAT_NAME: Final = "devguard-evidence"
FORMAT_1: Final = 1
FORMAT_2: Final = 2
_FIELDS: Final = {FORMAT_1: 5, FORMAT_2: 6}
_CODE: Final = "log.tampered"
_SEGMENT: Final = re.compile(r"segment-([0-9]{6})\.log")


class Incomplete(Exception):
    """The file ends inside a frame. Never leaves the room."""


class Broken(Refused):
    """The files stop making sense at a record. `index` is that record's."""

    def __init__(self, code: str, index: int, reason: str) -> None:
        super().__init__(code, f"record {index}: {reason}")
        self.index = index
        self.reason = reason


class NoHead(Broken):
    """No signed head says how many records there are."""

    def __init__(self, reason: str) -> None:
        super().__init__("log.tampered", 0, f"no head proves the records: {reason}")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """First frame of a segment: its format, its number (from 1), index of its first entry, tree frontier and newest
    time (epoch seconds) before that entry; format 1 knew no time."""

    version: int
    number: int
    first: int
    frontier: tuple[bytes, ...]
    latest: int = 0

    @property
    def start(self) -> int | None:
        """Offset of the first entry; None where the entries follow the header's frame at once."""
        return LEAD if self.version == FORMAT_2 else None


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
    if zlib.crc32(body, zlib.crc32(head[:4])) != checksum:
        raise Malformed(_CODE, "its checksum is wrong")
    return body


def frames(reader: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """(offset after the frame, body) of every frame in the first `size` bytes; errors as `read_frame`."""
    at = 0
    while (body := read_frame(reader, size - at)) is not None:
        at += HEAD.size + len(body)
        yield at, body


def encode_header(number: int, frontier: Frontier, latest: int) -> bytes:
    """The first page of a segment that starts where `frontier` ends."""
    fields = [FORMAT_NAME, FORMAT_2, number, frontier.size, list(frontier.hashes), latest]
    return frame(wire.encode(fields)).ljust(PAGE, b"\x00")


def decode_header(body: bytes) -> SegmentHeader:
    """The header a frame body says; `Malformed("log.tampered")` otherwise."""
    value = wire.decode(body, code=_CODE)
    if not isinstance(value, list) or len(value) < 2 or value[0] != FORMAT_NAME:
        raise Malformed(_CODE, "the file is not a segment of an evidence log")
    if type(value[1]) is not int or value[1] not in _FIELDS:
        raise Malformed(
            _CODE, f"segment format {str(value[1])[:24]}; this devguard reads 1 and {FORMAT_2}", "update devguard"
        )
    shaped = len(value) == _FIELDS[value[1]] and isinstance(value[4], list)
    if not shaped or any(type(item) is not int for item in (*value[2:4], *value[5:])):
        raise Malformed(_CODE, "a segment header is not number, first index, frontier and newest time")
    header = SegmentHeader(value[1], value[2], value[3], tuple(value[4]), *value[5:])
    if any(not isinstance(item, bytes) for item in header.frontier) or not 0 <= header.latest < MAX_TIME:
        raise Malformed(_CODE, "a segment header holds what is no hash, or no time")
    Frontier(header.first, header.frontier)
    return header


def read_header(reader: BinaryIO, size: int) -> SegmentHeader:
    """The header of a segment of `size` bytes, the reader left at its first entry.

    Raises `Incomplete` where the file ends before that, `Malformed("log.tampered")` for anything else.
    """
    body = read_frame(reader, size)
    if body is None:
        raise Incomplete
    header = decode_header(body)
    if header.start is not None:
        rest = reader.read(min(PAGE, size) - HEAD.size - len(body))
        if rest.strip(b"\x00"):
            raise Malformed(_CODE, "bytes lie between the header of a segment and its end")
        if size < LEAD:
            raise Incomplete
        reader.seek(LEAD)
    return header

"""Intel HEX, read line by line: record types 00 to 05, nothing repaired, nothing skipped in silence.

Follows Intel's "Hexadecimal Object File Format Specification", revision A (1988). `decode_ihex` makes the flat
image of a flash range; `describe_ihex` reports on any file without building one. Address arithmetic that
would wrap (past 64 KiB in a segment, past 4 GiB in linear mode) is refused: the specification lets it wrap,
and no firmware means it.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from devguard.errors import Malformed, Refused
from devguard.image.flat import FlashRange
from devguard.image.places import Place, place
from devguard.image.problem import ImageReport, Problem
from devguard.image.runs import Runs

MAX_LINE: Final = 1 + 2 * (1 + 2 + 1 + 255 + 1) + 2  # colon, the longest record in hex, CR LF
_LENGTHS: Final = {1: 0, 2: 2, 3: 4, 4: 2, 5: 4}
_MEANINGS: Final = {
    0: ("data", "bytes for their address; the first of the data records"),
    1: ("end-of-file", "nothing follows"),
    2: ("segment", "paragraph that the addresses of what follows count from"),
    3: ("start-segment", "where it starts: CS and IP"),
    4: ("linear", "upper half of the addresses of what follows"),
    5: ("start-linear", "where it starts"),
}
_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class DataRecord:
    """One data record: absolute address, its bytes, and the line it stands on (from 1)."""

    address: int
    data: bytes
    line: int


class IhexParser:
    """Iterates the data records of `reader`; afterwards `start` holds the start address, if one was given.

    Raises `Malformed` image.format or image.trailing, `Refused` file.unreadable; `offset` and `line` then
    say where.
    """

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader
        self._base = 0
        self._segmented = False
        self._next = 0
        self.start: int | None = None
        self.records: list[Place] = []
        self.data_records = 0
        self.offset = 0
        self.line = 0

    def __iter__(self) -> Iterator[DataRecord]:
        while True:
            text = self._read_line()
            if not text:
                raise self.error("the file ends without an end-of-file record")
            body = text.rstrip(b"\r\n")
            if not body:
                continue
            kind, address, data = self._record(text, body)
            self._keep(kind, body, data)
            if kind == 1:
                self._finish()
                return
            if kind == 0:
                yield DataRecord(self._place(address, len(data)), data, self.line)
            else:
                self._control(kind, address, data)

    def _keep(self, kind: int, body: bytes, data: bytes) -> None:
        """The place of every record that is not data, and of the first that is."""
        self.data_records += kind == 0
        if len(self.records) < _KEPT and (kind or self.data_records == 1):
            name, meaning = _MEANINGS[kind]
            self.records.append(place(self.offset, len(body), name, data, meaning))

    def error(self, what: str, code: str = "image.format") -> Malformed:
        """The error to raise for the current line."""
        return Malformed(code, f"Intel HEX line {self.line}: {what}")

    def _read_line(self) -> bytes:
        self.offset = self._next
        self.line += 1
        try:
            text = self._reader.readline(MAX_LINE)
        except OSError as error:
            raise Refused("file.unreadable", f"reading failed: {error.strerror or error}") from error
        self._next += len(text)
        return text

    def _record(self, text: bytes, body: bytes) -> tuple[int, int, bytes]:
        ending = text[len(body) :]
        if body[:1] != b":" or ending not in (b"\n", b"\r\n", b""):
            raise self.error("not a record: expected ':', hexadecimal digits and a line end")
        try:
            raw = binascii.unhexlify(body[1:])
        except binascii.Error as error:
            raise self.error("not a record: an odd number of digits, or no hexadecimal digits") from error
        if len(raw) < 5 or len(raw) != raw[0] + 5:
            raise self.error(f"the record has {len(raw)} bytes, its length field says {(raw[0] if raw else 0) + 5}")
        if sum(raw) & 0xFF:
            raise self.error(f"checksum is 0x{raw[-1]:02x}, expected 0x{-sum(raw[:-1]) & 0xFF:02x}")
        kind = raw[3]
        if kind > 5:
            raise self.error(f"record type {kind:02x} is not one of 00 to 05")
        if kind and raw[0] != _LENGTHS[kind]:
            raise self.error(f"a record of type {kind:02x} has {_LENGTHS[kind]} data bytes, found {raw[0]}")
        return kind, int.from_bytes(raw[1:3], "big"), raw[4:-1]

    def _control(self, kind: int, address: int, data: bytes) -> None:
        if address:
            raise self.error(f"a record of type {kind:02x} has load offset 0000, found {address:04x}")
        value = int.from_bytes(data, "big")
        if kind in (3, 5):
            if self.start is not None:
                raise self.error("a second start address")
            self.start = (value >> 16 << 4) + (value & 0xFFFF) if kind == 3 else value
            return
        self._segmented = kind == 2
        self._base = value << (4 if kind == 2 else 16)

    def _place(self, address: int, length: int) -> int:
        if self._segmented and address + length > 1 << 16:
            raise self.error("the record wraps around the end of its 64 KiB segment")
        absolute = self._base + address
        if absolute + length > 1 << 32:
            raise self.error("the record wraps around the end of the 4 GiB address space")
        return absolute

    def _finish(self) -> None:
        while text := self._read_line():
            if text.strip(b"\r\n"):
                raise self.error("data after the end-of-file record", "image.trailing")


def decode_ihex(
    reader: BinaryIO, flash: FlashRange, ignore: Sequence[tuple[int, int]] = ()
) -> tuple[bytes, tuple[str, ...]]:
    """(flat image, notes): from `flash.base` to the highest byte written, gaps 0xff.

    Needs a small multiple of the image's size in memory, bounded by `flash.size`. Raises `Malformed`
    image.range for a record that is not wholly inside the flash range, unless it is wholly outside and inside
    one half-open `ignore` range; image.format for overlaps (equal bytes included) and for a file without data
    in the range; and what `IhexParser` raises.
    """
    image, written = bytearray(), bytearray()
    skipped: dict[tuple[int, int], int] = {}
    parser = IhexParser(reader)
    for record in parser:
        low = record.address - flash.base
        high = low + len(record.data)
        if not record.data:
            continue
        if low < 0 or high > flash.size:
            # A record that reaches into the flash is firmware: no ignore range may drop a part of it.
            span = _ignoring(record, ignore) if high <= 0 or low >= flash.size else None
            if span is None:
                limits = f"0x{flash.base:08x} to 0x{flash.base + flash.size:08x}"
                what = f"{len(record.data)} bytes at 0x{record.address:08x} lie outside the flash range {limits}"
                raise parser.error(what, "image.range")
            skipped[span] = skipped.get(span, 0) + len(record.data)
            continue
        if high > len(image):
            image.extend(b"\xff" * (high - len(image)))
            written.extend(bytes(high - len(written)))
        if written.find(1, low, high) >= 0:
            raise parser.error(f"the bytes at 0x{record.address:08x} overlap an earlier record")
        image[low:high] = record.data
        written[low:high] = b"\x01" * len(record.data)
    if not image:
        raise Malformed("image.format", "the Intel HEX file has no data in the flash range")
    return bytes(image), _notes(parser.start, written.count(0), skipped)


def _ignoring(record: DataRecord, ignore: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    end = record.address + len(record.data)
    return next((span for span in ignore if span[0] <= record.address and end <= span[1]), None)


def _notes(start: int | None, gaps: int, skipped: dict[tuple[int, int], int]) -> tuple[str, ...]:
    notes = [f"start address 0x{start:08x}"] if start is not None else []
    if gaps:
        notes.append(f"{gaps} bytes of gaps filled with 0xff")
    for (low, high), count in sorted(skipped.items()):
        notes.append(f"{count} bytes ignored in 0x{low:08x} to 0x{high:08x}: the description lists that range")
    return tuple(notes)


def describe_ihex(reader: BinaryIO) -> ImageReport:
    """Report on a whole file without building an image; problems instead of errors, file.unreadable apart.

    `segments` in the fields are half-open.
    """
    parser = IhexParser(reader)
    problems: list[Problem] = []
    runs = Runs()
    try:
        for record in parser:
            runs.add(record.address, record.address + len(record.data), parser.offset)
    except Malformed as error:
        problems.append(Problem(error.code, error.message, parser.offset))
    fields = runs.fields()
    if runs.overlap is not None:
        problems.append(Problem("image.format", f"records overlap at 0x{runs.overlap:08x}", runs.overlap_offset))
    fields |= {"start_address": parser.start, "data_records": parser.data_records, "places": parser.records}
    return ImageReport(fields, tuple(problems))

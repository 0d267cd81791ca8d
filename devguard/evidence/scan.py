"""Walking the entries of segment files in order, as verification and opening both need it.

Every segment header is compared with what the walk has computed; a walk stops where the files stop making sense
and says at which record. It holds one frame and one frontier, however long the log is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

from devguard.errors import DevguardError, Malformed
from devguard.evidence import files
from devguard.evidence.frame import (
    FORMAT_1,
    LEAD,
    MAX_FRAME,
    PAGE,
    Broken,
    Incomplete,
    SegmentHeader,
    frames,
    read_header,
)
from devguard.evidence.record import SET_BACK, TIME_TOLERANCE, Entry, decode_entry, time_of
from devguard.evidence.tree import Frontier, leaf_hash

_CODE: Final = "log.tampered"


@dataclass(slots=True)
class Walk:
    """A position in the log: segment number (0: before the first), byte offset in it, tree so far, last leaf read.

    carriers: segments whose lead may hold the log's head; of all others it has to be empty. format: of the segment.
    latest: newest time so far, in a log of format 1 that of the segment; first, last: times of the first and the last
    entry read.
    """

    folder: Path
    sizes: Mapping[int, int]
    number: int = 0
    offset: int = 0
    frontier: Frontier = field(default_factory=Frontier)
    leaf: bytes = b""
    carriers: frozenset[int] = frozenset()
    format: int = FORMAT_1
    latest: int = 0
    first: int | None = None
    last: int | None = None

    @classmethod
    def at(cls, folder: Path, sizes: Mapping[int, int], header: SegmentHeader, offset: int) -> Walk:
        """Before the first entry of a segment, on the word of its header: whoever reads on compares the root."""
        edge = Frontier(header.first, header.frontier)
        return cls(folder, sizes, header.number, offset, edge, format=header.version, latest=header.latest)

    def copy(self) -> Walk:
        """The same position, to walk on from without moving this one."""
        return replace(self, frontier=self.frontier.copy())

    def entries(self, end: int) -> Iterator[Entry]:
        """Every entry from here to record `end` (exclusive), the position moving along.

        Raises `Broken` with `log.truncated` where the files end too early and with `log.tampered` otherwise.
        """
        while self.frontier.size < end:
            if self.number == 0 or self.offset >= self.sizes.get(self.number, 0):
                self._next_segment()
            yield from self._segment(end)

    def enter(self, number: int) -> None:
        """Go into segment `number`, which has no entry yet, when it follows; elsewhere nothing moves."""
        if self.number == number - 1 and self.offset >= self.sizes.get(self.number, 0):
            self._next_segment()
            for _ in self._segment(self.frontier.size):
                pass

    def _next_segment(self) -> None:
        later = [number for number in self.sizes if number > self.number]
        if not later:
            raise Broken("log.truncated", self.frontier.size, "it is missing, and so is everything after it")
        if min(later) != self.number + 1:
            raise self._tampered(f"segment {self.number + 1} is missing")
        self.number, self.offset = self.number + 1, 0

    def _segment(self, end: int) -> Iterator[Entry]:
        with files.open_segment(self.folder, self.number) as reader:
            try:
                if self.offset == 0:
                    self._header(reader)
                start = self.offset
                reader.seek(start)
                parts = frames(reader, self.sizes[self.number] - start)
                while self.frontier.size < end and (part := next(parts, None)) is not None:
                    entry = self._entry(part[1])
                    self.offset = start + part[0]
                    yield entry
            except Incomplete:
                last = self.number == max(self.sizes)
                raise Broken(
                    "log.truncated" if last else _CODE, self.frontier.size, f"segment {self.number} ends inside it"
                ) from None
            except Malformed as error:
                raise self._tampered(error.message) from None

    def _header(self, reader: BinaryIO) -> None:
        header = read_header(reader, self.sizes[self.number])
        if header.version == FORMAT_1:
            self.latest = 0
        mine = (self.number, self.frontier.size, self.frontier.hashes, self.latest)
        if (header.number, header.first, header.frontier, header.latest) != mine or header.version < self.format:
            raise self._tampered(f"the head of segment {self.number} does not continue the records before it")
        self.format, self.offset = header.version, reader.tell()
        if header.start is not None and self.number not in self.carriers:
            reader.seek(PAGE)
            if reader.read(LEAD - PAGE).strip(b"\x00"):
                raise self._tampered(f"the lead of segment {self.number} holds bytes that no record explains")

    def _entry(self, body: bytes) -> Entry:
        entry = decode_entry(body)
        if entry.index != self.frontier.size:
            raise self._tampered(f"record {entry.index} stands in its place")
        if entry.version != self.format:
            raise self._tampered(f"it is of format {entry.version}, its segment of format {self.format}")
        time = time_of(entry.body)
        if time + TIME_TOLERANCE < self.latest and self.format != FORMAT_1:
            self._check_set_back(entry, time)
        self.latest = max(self.latest, time)
        self.first = time if self.first is None else self.first
        self.last = time
        self.leaf = body
        self.frontier.append(leaf_hash(body))
        return entry

    def _check_set_back(self, entry: Entry, time: int) -> None:
        """A record that says by itself that the clock was set back starts time anew; any other is back-dated."""
        if SET_BACK not in entry.record.details:
            raise self._tampered(f"it is dated {self.latest - time} s before a record that stands before it")
        self.latest = 0

    def _tampered(self, reason: str) -> Broken:
        return Broken(_CODE, self.frontier.size, reason)

    def leftover(self) -> int:
        """How many bytes lie behind this position, in this segment and in later ones; an empty file counts as one."""
        here = self.sizes.get(self.number, 0) - self.offset
        return here + sum(max(size, 1) for number, size in self.sizes.items() if number > self.number)

    def remains(self) -> bytes:
        """The bytes behind this position in its segment, at most one more than a frame may have."""
        with files.open_segment(self.folder, self.number) as reader:
            reader.seek(self.offset)
            return reader.read(min(self.sizes[self.number] - self.offset, MAX_FRAME + 1))


def entry_in(remains: bytes, index: int) -> Entry | None:
    """Entry `index` where `remains` are its frame, whole, and nothing else."""
    try:
        parts = list(frames(io.BytesIO(remains), len(remains)))
        entry = decode_entry(parts[0][1]) if len(parts) == 1 else None
        return entry if entry is not None and entry.index == index and entry.record is not None else None
    except (Incomplete, DevguardError):
        return None

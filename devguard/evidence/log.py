"""The append-only log on disk. `append` returns only when the record and the signed head over it are durable.

An append writes the record's frame and the new head into the last segment, makes both durable with one fsync, and
wipes the head before it; `heads` says why that is enough. A crash at any point leaves the old log or the new one; the
next append or open settles which and records what it removed. Appending is O(log n), opening reads the last segment
only; `verify` reads everything. Several processes may append.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from devguard.cose.signer import Signer
from devguard.errors import Malformed, Refused
from devguard.evidence import files
from devguard.evidence.checkpoint import Checkpoint, check_station_key, origin_of, sign_checkpoint
from devguard.evidence.ending import Ending, Rest, advance, find_end, opener
from devguard.evidence.frame import (
    FORMAT_1,
    FORMAT_2,
    LEAD,
    SEGMENT_SIZE,
    Broken,
    Incomplete,
    encode_header,
    frame,
    read_header,
    segment_name,
)
from devguard.evidence.heads import HEAD_SIZE, Head, Snapshot, encode_head, encode_lead, place_of
from devguard.evidence.record import SET_BACK, TIME_TOLERANCE, Entry, Record, encode_entry, encode_record, seal_text
from devguard.evidence.scan import Walk
from devguard.evidence.standing import Standing, resolve
from devguard.evidence.tree import leaf_hash

_CODE: Final = "log.tampered"


def _system_clock() -> int:
    return int(time.time())


class EvidenceLog:
    """An evidence log open for appending, by `EvidenceLog.open`. Safe for several processes, not for threads."""

    def __init__(self, folder: Path, signer: Signer, clock: Callable[[], int], segment_size: int) -> None:
        self._folder = folder
        self._segment_size = segment_size
        self._signer = signer
        self._clock = clock
        self._origin = origin_of(signer.key)
        self._note = b""
        self._walk = Walk(folder, {})

    @classmethod
    def open(
        cls,
        folder: Path,
        signer: Signer,
        clock: Callable[[], int] = _system_clock,
        *,
        segment_size: int = SEGMENT_SIZE,
    ) -> EvidenceLog:
        """The log in `folder`, made when there is none; a crash of an earlier writer is settled.

        `signer` is the station's Ed25519 key; `clock` (seconds since the epoch) dates the record of a recovery;
        a record that would make the entries of its segment longer than `segment_size` bytes starts the next one.
        Raises `Refused`/`Malformed` `log.tampered` or `log.truncated` when the end of the log is not what was signed,
        `Refused("signature.algorithm")` for another kind of key, `LinkError` `log.full` or `file.unreadable`.
        """
        check_station_key(signer.key)
        files.create_folder(folder)
        log = cls(folder, signer, clock, segment_size)
        with files.locked(folder, exclusive=True) as at:
            log._settle(at)
        return log

    @property
    def size(self) -> int:
        """Number of records, as of the last append or open here."""
        return self._walk.frontier.size

    @property
    def latest(self) -> int:
        """The newest time in the log (epoch seconds), as of the last append or open here; 0 in an empty one."""
        return self._walk.latest

    @property
    def checkpoint(self) -> Checkpoint:
        """The signed head, as of the last append or open here."""
        return Checkpoint(self._origin, self.size, self._walk.frontier.root())

    @property
    def checkpoint_note(self) -> bytes:
        """The signed note over `checkpoint`, to be kept elsewhere as a witness of this log."""
        return self._note

    def append(self, record: Record) -> int:
        """Append one record and sign the new head; returns the record's index. Durable on return.

        Raises `LinkError("log.full")` when it cannot be written: nothing of it is kept then, and what it was to record
        must not be done. `Refused("clock.rollback")` for a record dated more than `TIME_TOLERANCE` before the newest,
        unless it says that the clock was set back. Raises as `open` when somebody changed the log meanwhile.
        """
        with files.locked(self._folder, exclusive=True) as at:
            self._settle(at)
            self._check_time(record)
            return self._append(at, record)

    def reserve(self) -> None:
        """Make sure there is room on the disk for the records of what is about to begin; see `files.keep_reserve`.

        Raises `LinkError("log.full")` when there is none.
        """
        with files.locked(self._folder, exclusive=True):
            try:
                files.keep_reserve(self._folder)
            except OSError as error:
                raise files.full(error) from error

    def __iter__(self) -> Iterator[Record]:
        """Every record up to `size`, oldest first; raises as `read_records`."""
        return (entry.record for entry in read_entries(self._folder, self.size))

    def _check_time(self, record: Record) -> None:
        late = self._walk.latest - record.time
        if late > TIME_TOLERANCE and SET_BACK not in record.details:
            raise Refused("clock.rollback", f"a record dated {late} s before the newest one in the log")

    # writing

    def _append(self, at: int, record: Record) -> int:
        body, index = encode_record(record), self._walk.frontier.size
        seal = self._signer.sign(seal_text(self._origin, index, self._walk.frontier.root(), body))
        leaf = encode_entry(Entry(index, seal, body))
        data = frame(leaf)
        try:
            self._write(at, leaf, data)
        except OSError as error:
            if not files.is_full(error) or not files.give_up_reserve(self._folder):
                raise files.full(error) from error
            try:
                self._write(at, leaf, data)
            except OSError as again:
                raise files.full(again) from again
        late = self._walk.latest - record.time > TIME_TOLERANCE
        self._walk.latest = record.time if late else max(self._walk.latest, record.time)
        return index

    def _write(self, at: int, leaf: bytes, data: bytes) -> None:
        """One entry and the head over it, durable. Raises OSError, as much as possible taken back."""
        if self._walk.offset > LEAD and self._walk.offset - LEAD + len(data) > self._segment_size:
            self._next_segment(at)
        walk, name = self._walk, segment_name(self._walk.number)
        frontier = walk.frontier.copy()
        frontier.append(leaf_hash(leaf))
        note = sign_checkpoint(Checkpoint(self._origin, frontier.size, frontier.root()), self._signer)
        place = place_of(frontier.size)
        try:
            files.extend(at, name, ((walk.offset, data), (place, encode_head(note))), place_of(walk.frontier.size))
        except OSError:
            with contextlib.suppress(OSError):  # else the next `_settle` does it
                files.restore(at, name, walk.offset, (place,))
            raise
        offset = walk.offset + len(data)
        self._note = note
        self._walk = replace(walk, sizes={**walk.sizes, walk.number: offset}, offset=offset, frontier=frontier)

    def _next_segment(self, at: int) -> None:
        """Begin a segment that takes over the head. Raises OSError."""
        walk, head = self._walk, Head(self._note, self.checkpoint)
        number = walk.number + 1
        lead = encode_lead(encode_header(number, walk.frontier, walk.latest), head)
        try:
            files.create(at, segment_name(number), lead)
        except OSError:
            with contextlib.suppress(OSError):
                files.remove(at, segment_name(number))
            raise
        if walk.format == FORMAT_2 and walk.number:
            files.restore(at, segment_name(walk.number), walk.offset, _PLACES)
        self._walk = replace(
            walk, sizes={**walk.sizes, number: LEAD}, number=number, offset=LEAD, format=FORMAT_2, last=None
        )

    # finding out where the log stands

    def _settle(self, at: int) -> None:
        """Bring this object to what is on disk, finishing or undoing what a crash left; holds the lock."""
        if self._note and self._unmoved(at):
            return
        found = files.snapshot(at)
        standing = resolve(found, opener(self._signer.key))
        if standing is None:
            self._begin(at, found)
            return
        if self._note:
            standing = self._not_behind(standing)
        # The position moves only once it is proven: a failed look must not leave unproven records in the tree.
        ending = find_end(self._walked(standing), standing, found, self._signer.key)
        self._walk, self._note = ending.walk, ending.head.note
        try:
            recovery = self._tidy(at, standing, ending)
            if standing.legacy:
                self._migrate(at)
        except OSError as error:
            raise files.full(error) from error
        for record in (recovery, self._migrated()):
            if record is not None:
                self._append(at, record)

    def _unmoved(self, at: int) -> bool:
        """Whether the last segment is as this object left it; a log that went on elsewhere has no head there."""
        size = self.size
        seen = files.look(at, segment_name(self._walk.number), (place_of(size), place_of(size + 1)))
        return seen == (self._walk.offset, (encode_head(self._note), bytes(HEAD_SIZE)))

    def _not_behind(self, standing: Standing) -> Standing:
        """The same with the heads alone that may be the log's after what this object has seen of it."""
        heads = tuple(head for head in standing.heads if head.size >= self.size)
        if not heads:
            size = standing.heads[-1].size
            raise Refused("log.truncated", f"record {size}: the log had {self.size} and was set back")
        return replace(standing, heads=heads)

    def _walked(self, standing: Standing) -> Walk:
        """The position at the first possible head, from where this object was or from the last segment."""
        head = standing.heads[0]
        if not self._note:
            walk = self._last_segment(standing)
        else:
            walk = replace(self._walk.copy(), sizes=standing.sizes, carriers=standing.carriers)
        if walk.sizes.get(walk.number, 0) < walk.offset:
            raise Broken("log.truncated", max(head.size - 1, 0), f"segment {walk.number} was cut")
        advance(walk, head)
        return walk

    def _last_segment(self, standing: Standing) -> Walk:
        """A position at the start of the last segment that holds signed records, taken from its header.

        The header is not trusted: `advance` compares the root it leads to with the signed one.
        """
        for number in sorted(standing.sizes, reverse=True)[:2]:
            if number - 1 not in standing.sizes and number != 1:
                raise Broken(_CODE, 0, f"segment {number - 1} is missing")
            with files.open_segment(self._folder, number) as reader:
                try:
                    header = read_header(reader, standing.sizes[number])
                except (Incomplete, Malformed):
                    continue  # a segment whose first append was interrupted, or damage that the walk will meet
                if header.number == number and header.first <= standing.heads[0].size:
                    walk = Walk.at(self._folder, standing.sizes, header, reader.tell())
                    return replace(walk, carriers=standing.carriers)
        return Walk(self._folder, standing.sizes, carriers=standing.carriers)

    def _begin(self, at: int, found: Snapshot) -> None:
        if self._note:
            raise Refused("log.truncated", "record 0: the evidence log was removed while it was in use")
        self._walk = Walk(self._folder, {})
        self._note = sign_checkpoint(self.checkpoint, self._signer)
        try:
            if found.pending is not None:
                files.remove(at, files.PENDING)
            self._next_segment(at)
        except OSError as error:
            self._note = b""
            raise files.full(error) from error

    # settling what a crash left

    def _tidy(self, at: int, standing: Standing, ending: Ending) -> Record | None:
        """Finish an interrupted append when all of it is there, else remove its remains; the record of that."""
        walk, removed = self._walk, b""
        if standing.started is not None:
            files.remove(at, segment_name(standing.started))
        if standing.legacy:
            removed = self._cut_legacy(at)
        elif ending.rest is Rest.WHOLE:
            self._finish(at)
        elif standing.untidy or ending.rest is not Rest.NOTHING:
            removed = walk.remains()
            files.restore(at, segment_name(walk.number), walk.offset, (place_of(self.size + 1),))
        for number in standing.carriers - {standing.number}:
            if number:
                files.restore(at, segment_name(number), walk.sizes[number], _PLACES)
            else:
                files.remove(at, files.CHECKPOINT)
        if not standing.legacy:
            self._walk = replace(self._walk, sizes={**walk.sizes, self._walk.number: self._walk.offset})
        return self._recovery(removed) if removed else None

    def _finish(self, at: int) -> None:
        """Sign the head over a record that was sealed and written whole, and not acknowledged."""
        for _ in self._walk.entries(self.size + 1):
            pass
        place, name = place_of(self.size), segment_name(self._walk.number)
        self._note = sign_checkpoint(self.checkpoint, self._signer)
        files.extend(at, name, ((place, encode_head(self._note)),), place_of(self.size + 1))

    def _cut_legacy(self, at: int) -> bytes:
        """Cut a log of format 1 back to its last signed record; returns the bytes that were removed."""
        walk, removed, sizes = self._walk, b"", dict(self._walk.sizes)
        for number in sorted(n for n in sizes if n >= max(walk.number, 1)):
            start = walk.offset if number == walk.number else 0
            with files.open_segment(self._folder, number) as reader:
                reader.seek(start)
                removed += reader.read()
            if start == 0:
                files.remove(at, segment_name(number))
                del sizes[number]
            elif sizes[number] > start:
                files.restore(at, segment_name(number), start, ())
                sizes[number] = start
        self._walk = replace(walk, sizes=sizes)
        return removed

    def _migrate(self, at: int) -> None:
        """Let a segment of the present format take over the head of a log of format 1."""
        files.remove(at, files.PENDING)
        self._next_segment(at)
        files.remove(at, files.CHECKPOINT)

    def _migrated(self) -> Record | None:
        """The record of the change of format, where it is still due: before the first entry of format 2."""
        walk = self._walk
        if walk.offset != LEAD or walk.number < 2:
            return None
        with files.open_segment(self._folder, walk.number - 1) as reader:
            if read_header(reader, walk.sizes[walk.number - 1]).version != FORMAT_1:
                return None
        return self._own("evidence.format", {"from": str(FORMAT_1), "to": str(FORMAT_2), "records": str(self.size)})

    def _recovery(self, removed: bytes) -> Record:
        digest = hashlib.sha256(removed).hexdigest()
        return self._own("evidence.recover", {"removed-bytes": str(len(removed)), "removed-sha256": digest})

    def _own(self, action: str, details: dict[str, str]) -> Record:
        """A record of the log's own doing. A clock that was set back does not keep it from being written."""
        now = max(self._clock(), self.latest)
        return Record.make(time=now, actor="devguard", action=action, request=f"log-{os.getpid()}", details=details)


_PLACES: Final = (place_of(0), place_of(1))


def read_entries(folder: Path, end: int | None = None) -> Iterator[Entry]:
    """Every entry of a log up to `end`, oldest first; form is checked, signatures are not. Raises as `read_records`."""
    with files.locked(folder, exclusive=False) as at:
        found = files.snapshot(at)
    standing = resolve(found, opener(None))
    if standing is None:
        if end:
            raise Broken("log.truncated", 0, "it is missing, and so is everything after it")
        if end is None:
            raise Refused("log.missing", f"there is no evidence log in {folder}")
        return
    walk = Walk(folder, standing.sizes, carriers=standing.carriers)
    yield from walk.entries(standing.heads[0].size if end is None else end)


def read_records(folder: Path) -> Iterator[Record]:
    """Every record of a log, oldest first, for display: form is checked, signatures are not (`verify_log` does that).

    Raises `Refused("log.missing")`, and `log.tampered` or `log.truncated` where the files stop making sense.
    """
    return (entry.record for entry in read_entries(folder))

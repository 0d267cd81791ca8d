"""The append-only log on disk. `append` returns only when the record and the checkpoint over it are durable.

An append writes, each step durable before the next: `checkpoint.next` (the signed head with the new record), the
record's frame, then `checkpoint.next` becomes `checkpoint`. A crash at any point leaves either the old log with a
signed announcement beside it, or the new one; the next append or open settles which and records what it removed.
Appending is O(log n), opening reads the last segment only; `verify` reads everything. Several processes may append.
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
from devguard.evidence.checkpoint import (
    Checkpoint,
    check_station_key,
    open_checkpoint,
    origin_of,
    parse_text,
    read_note,
    sign_checkpoint,
)
from devguard.evidence.frame import (
    MAX_FRAME,
    SEGMENT_SIZE,
    Incomplete,
    decode_header,
    encode_header,
    frame,
    read_frame,
    segment_name,
)
from devguard.evidence.record import Entry, Record, encode_entry, encode_record, seal_text
from devguard.evidence.scan import Broken, Walk, interrupted_append
from devguard.evidence.tree import Frontier, leaf_hash

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
        a record that would make its segment longer than `segment_size` bytes starts the next one.
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
        must not be done. Raises as `open` when somebody changed the log meanwhile.
        """
        with files.locked(self._folder, exclusive=True) as at:
            self._settle(at)
            return self._append(at, record)

    def __iter__(self) -> Iterator[Record]:
        """Every record up to `size`, oldest first; raises as `read_records`."""
        return (entry.record for entry in _entries(self._folder, self.size))

    def _append(self, at: int, record: Record) -> int:
        walk = self._walk
        index = walk.frontier.size
        seal = self._signer.sign(seal_text(self._origin, index, walk.frontier.root()))
        body = encode_entry(Entry(index, seal, encode_record(record)))
        data, number, offset = frame(body), walk.number, walk.offset
        if number == 0 or offset + len(data) > self._segment_size:
            data, number, offset = encode_header(number + 1, walk.frontier) + data, number + 1, 0
        frontier = walk.frontier.copy()
        frontier.append(leaf_hash(body))
        note = sign_checkpoint(Checkpoint(self._origin, frontier.size, frontier.root()), self._signer)
        try:
            files.write_file(at, files.PENDING, note)
            files.write_at(at, segment_name(number), offset, data)
            files.replace(at, files.PENDING, files.CHECKPOINT)
        except OSError as error:
            self._undo(at, number, offset)
            raise files.full(error) from error
        sizes = {**walk.sizes, number: offset + len(data)}
        self._note = note
        self._walk = Walk(self._folder, sizes, number, offset + len(data), frontier)
        return index

    def _undo(self, at: int, number: int, offset: int) -> None:
        """Take back a failed append as far as the disk lets us; the next `_settle` does the rest."""
        with contextlib.suppress(OSError):
            if files.read_note_file(at, files.CHECKPOINT) == self._note:
                files.cut(at, segment_name(number), offset)
                files.cut(at, files.PENDING, 0)

    def _settle(self, at: int) -> None:
        """Bring this object to what is on disk, finishing or undoing what a crash left; holds the lock."""
        found = files.snapshot(at)
        if found.checkpoint is None:
            self._begin(at, found)
            return
        # The position moves only once it is proven: a failed look must not leave unproven records in the tree.
        if found.checkpoint == self._note:
            head, walk = self.checkpoint, replace(self._walk, sizes=dict(found.sizes))
        else:
            head, walk = self._catch_up(found, open_checkpoint(found.checkpoint, self._signer.key, alone=True))
        if walk.sizes.get(walk.number, 0) < walk.offset:
            raise Broken("log.truncated", max(head.size - 1, 0), f"segment {walk.number} was cut")
        self._walk, self._note = walk, found.checkpoint
        leftover = walk.leftover()
        if leftover or found.pending is not None:
            self._recover(at, found, leftover, head)

    def _catch_up(self, found: files.Snapshot, head: Checkpoint) -> tuple[Checkpoint, Walk]:
        """The position at `head`, walked to from where this object was or from the last segment."""
        if not self._note:
            walk = self._last_segment(found, head)
        elif head.size < self.size:
            raise Refused("log.truncated", f"record {head.size}: the log had {self.size} and was set back")
        else:
            walk = replace(self._walk, sizes=dict(found.sizes), frontier=self._walk.frontier.copy())
        self._advance(walk, head)
        return head, walk

    def _begin(self, at: int, found: files.Snapshot) -> None:
        if found.sizes or self._note:
            raise Malformed(_CODE, "the checkpoint of the evidence log is missing")
        self._walk = Walk(self._folder, {})
        note = sign_checkpoint(self.checkpoint, self._signer)
        try:
            files.write_file(at, files.PENDING, note)
            files.replace(at, files.PENDING, files.CHECKPOINT)
        except OSError as error:
            raise files.full(error) from error
        self._note = note

    def _last_segment(self, found: files.Snapshot, head: Checkpoint) -> Walk:
        """A position at the start of the last segment that holds signed records, taken from its header.

        The header is not trusted: `_advance` compares the root it leads to with the signed one.
        """
        for number in sorted(found.sizes, reverse=True)[:2]:
            if number - 1 not in found.sizes and number != 1:
                raise Broken(_CODE, 0, f"segment {number - 1} is missing")
            with files.open_segment(self._folder, number) as reader:
                try:
                    header = decode_header(read_frame(reader, MAX_FRAME) or b"")
                except (Incomplete, Malformed):
                    continue  # a segment whose first append was interrupted, or damage that `_advance` will meet
                if header.number == number and header.first < head.size:
                    edge = Frontier(header.first, header.frontier)
                    return Walk(self._folder, found.sizes, number, reader.tell(), edge)
        return Walk(self._folder, found.sizes)

    @staticmethod
    def _advance(walk: Walk, head: Checkpoint) -> None:
        for _ in walk.entries(head.size):
            pass
        if walk.frontier.root() != head.root:
            raise Refused(_CODE, "the records are not the ones that were signed; `evidence verify` names the first")

    def _recover(self, at: int, found: files.Snapshot, leftover: int, head: Checkpoint) -> None:
        """Finish an interrupted append when all of it is there, else remove its remains and record that."""
        following = interrupted_append(found.pending, leftover, head, self._signer.key)
        try:
            ahead = self._completed(following) if following is not None and leftover else None
            if ahead is not None:
                files.replace(at, files.PENDING, files.CHECKPOINT)
                self._walk, self._note = ahead, found.pending or b""
                return
            remains = self._remove_leftover(at)
            files.cut(at, files.PENDING, 0)
        except OSError as error:
            raise files.full(error) from error
        if remains:
            self._append(at, self._recovery(remains))

    def _completed(self, following: Checkpoint) -> Walk | None:
        """The position behind the record of the interrupted append, None unless all of it is there."""
        ahead = replace(self._walk, frontier=self._walk.frontier.copy())
        try:
            self._advance(ahead, following)
        except Refused:
            return None
        return None if ahead.leftover() else ahead

    def _remove_leftover(self, at: int) -> bytes:
        """Cut the log back to its last signed record; returns the bytes that were removed. Raises OSError."""
        walk, remains = self._walk, b""
        for number in sorted(n for n in walk.sizes if n >= max(walk.number, 1)):
            start = walk.offset if number == walk.number else 0
            with files.open_segment(self._folder, number) as reader:
                reader.seek(start)
                remains += reader.read()
            files.cut(at, segment_name(number), start)
            if start == 0:
                del walk.sizes[number]
            else:
                walk.sizes[number] = start
        return remains

    def _recovery(self, remains: bytes) -> Record:
        return Record.make(
            time=self._clock(),
            actor="devguard",
            action="evidence.recover",
            request=f"recover-{os.getpid()}",
            details={"removed-bytes": str(len(remains)), "removed-sha256": hashlib.sha256(remains).hexdigest()},
        )


def _entries(folder: Path, end: int | None) -> Iterator[Entry]:
    with files.locked(folder, exclusive=False) as at:
        found = files.snapshot(at)
    walk = Walk(folder, found.sizes)
    if end is not None:
        yield from walk.entries(end)
        return
    if found.checkpoint is None:
        raise Refused("log.missing", f"there is no evidence log in {folder}")
    yield from walk.entries(parse_text(read_note(found.checkpoint).text).size)


def read_records(folder: Path) -> Iterator[Record]:
    """Every record of a log, oldest first, for display: form is checked, signatures are not (`verify_log` does that).

    Raises `Refused("log.missing")`, and `log.tampered` or `log.truncated` where the files stop making sense.
    """
    return (entry.record for entry in _entries(folder, None))

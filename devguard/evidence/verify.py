"""Verification of a whole log with the station's public key alone. Writes nothing.

Every byte of every file in the folder is covered: frames by checksum and form, records by the RFC 6962 root in the
signed checkpoint, segment heads by the computed frontier, the notes by their signature. When something does not
hold, the seals inside the records say which record is the first that the station did not sign as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Refused
from devguard.evidence import files
from devguard.evidence.checkpoint import (
    Checkpoint,
    check_station_key,
    open_checkpoint,
    parse_text,
    read_note,
    verify_ed25519,
)
from devguard.evidence.record import Entry, Record, seal_text
from devguard.evidence.scan import Broken, Walk, interrupted_append
from devguard.evidence.tree import inclusion_proof, leaf_hash, verify_inclusion

_CODE: Final = "log.tampered"
_WINDOW: Final = 256


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a log that holds is: its signed head, how many segments, times of the first and last record.

    `interrupted` tells that a writer was cut off before its record counted; the next append cleans that up.
    """

    checkpoint: Checkpoint
    segments: int
    first_time: int | None
    last_time: int | None
    interrupted: bool

    @property
    def records(self) -> int:
        """Number of records."""
        return self.checkpoint.size


@dataclass(frozen=True, slots=True)
class RecordProof:
    """A record, its place, and the audit path to the root of a signed checkpoint."""

    index: int
    leaf: bytes
    record: Record
    path: tuple[bytes, ...]
    checkpoint_note: bytes

    def verify(self, key: CoseKey) -> Checkpoint:
        """The checkpoint that covers the record, after note and path held; raises `log.tampered`."""
        checkpoint = open_checkpoint(self.checkpoint_note, key)
        verify_inclusion(leaf_hash(self.leaf), self.index, checkpoint.size, self.path, checkpoint.root)
        return checkpoint


def verify_log(folder: Path, key: CoseKey, *, earlier: Checkpoint | None = None) -> LogReport:
    """Check every file of the log in `folder` against the station's public key.

    `earlier` is a checkpoint kept elsewhere; the log must continue it. Raises `log.tampered` or `log.truncated`
    (`Refused` or `Malformed`) naming the first bad record, `Refused("log.missing")`, `LinkError("file.unreadable")`.
    """
    check_station_key(key)
    found = _snapshot(folder)
    head = open_checkpoint(found.checkpoint or b"", key, alone=True)
    _check_longer(head, earlier)
    walk = Walk(folder, found.sizes)
    ends: list[Entry] = []
    try:
        for entry in walk.entries(head.size):
            ends = [ends[0] if ends else entry, entry]
            _check_earlier(walk, earlier)
        if walk.frontier.root() != head.root:
            raise Broken(_CODE, max(head.size - 1, 0), "it is not the one that was signed")
    except Broken as error:
        raise _first_bad(folder, found, head, key, error) from None
    following = interrupted_append(found.pending, walk.leftover(), head, key)
    times = (ends[0].record.time, ends[1].record.time) if ends else (None, None)
    return LogReport(head, len(found.sizes), times[0], times[1], following is not None or found.pending is not None)


def claimed_origin(folder: Path) -> str:
    """Whose log the one in `folder` says it is: for finding the key to verify it with. Nothing is judged by it.

    Raises as `verify_log` for a checkpoint that is missing or none.
    """
    return parse_text(read_note(_snapshot(folder).checkpoint or b"").text).origin


def _snapshot(folder: Path) -> files.Snapshot:
    with files.locked(folder, exclusive=False) as at:
        found = files.snapshot(at)
    if found.checkpoint is None:
        if found.sizes:
            raise Broken(_CODE, 0, "the checkpoint is missing, so no record is proven")
        raise Refused("log.missing", f"there is no evidence log in {folder}")
    return found


def _check_earlier(walk: Walk, earlier: Checkpoint | None) -> None:
    if earlier is not None and walk.frontier.size == earlier.size and walk.frontier.root() != earlier.root:
        raise Refused(_CODE, f"the first {earlier.size} records are not those of the earlier checkpoint")


def _check_longer(head: Checkpoint, earlier: Checkpoint | None) -> None:
    if earlier is None:
        return
    if earlier.origin != head.origin:
        raise Refused(_CODE, f"the earlier checkpoint is of the log {earlier.origin!r}, not of {head.origin!r}")
    if earlier.size > head.size:
        raise Refused("log.truncated", f"record {head.size}: an earlier checkpoint had {earlier.size} records")


def _first_bad(folder: Path, found: files.Snapshot, head: Checkpoint, key: CoseKey, error: Broken) -> Broken:
    """`error`, or the same for an earlier record when a seal shows that one was changed."""
    window: list[tuple[int, bytes, bytes]] = []
    for seal in _seals(Walk(folder, found.sizes), head.size):
        window.append(seal)
        if len(window) == _WINDOW:
            if not _holds(key, head.origin, window[-1]):
                break
            window.clear()
    for index, signature, root in window:
        if not _holds(key, head.origin, (index, signature, root)):
            # The seal of a record covers those before it: the last of them is the first that is not proven.
            return Broken(_CODE, max(index - 1, 0), "it is not the one that was signed")
    return error


def _seals(walk: Walk, end: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(index, seal, root of the records before it) of every entry that can be read."""
    root = walk.frontier.root()
    try:
        for entry in walk.entries(end):
            yield entry.index, entry.seal, root
            root = walk.frontier.root()
    except Broken:
        return


def _holds(key: CoseKey, origin: str, sealed: tuple[int, bytes, bytes]) -> bool:
    index, signature, root = sealed
    try:
        verify_ed25519(key, seal_text(origin, index, root), signature, "seal")
    except Refused:
        return False
    return True


def prove_record(folder: Path, key: CoseKey, index: int) -> RecordProof:
    """Proof that record `index` is in the log, to be checked elsewhere with the public key alone.

    Verifies the whole log first and raises as `verify_log`; `Refused("log.truncated")` for an index beyond its end.
    """
    size = verify_log(folder, key).records
    found = _snapshot(folder)
    if not 0 <= index < size:
        raise Refused("log.truncated", f"record {index} was asked for, the log has {size}")
    head = open_checkpoint(found.checkpoint or b"", key, alone=True)
    walk = Walk(folder, found.sizes)
    leaves: list[bytes] = []
    for entry in walk.entries(head.size):
        leaves.append(leaf_hash(walk.leaf))
        if entry.index == index:
            leaf, record = walk.leaf, entry.record
    return RecordProof(index, leaf, record, inclusion_proof(leaves, index), found.checkpoint or b"")

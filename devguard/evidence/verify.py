"""Verification of a whole log with the station's public key alone. Writes nothing.

Every byte of every file in the folder is covered: frames by checksum and form, records by the RFC 6962 root in the
signed head, segment headers by the computed frontier, the head by its signature, what lies around it by what a crash
can leave. When something does not hold, the seals inside the records say which record is the first that the station
did not sign as it stands. One signature is checked where all is well; the rest is hashing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Refused
from devguard.evidence import files
from devguard.evidence.checkpoint import Checkpoint, check_station_key, origin_of
from devguard.evidence.ending import Ending, Rest, Visit, find_end, holds, opener, start
from devguard.evidence.frame import Broken, NoHead
from devguard.evidence.heads import Snapshot
from devguard.evidence.record import FORMAT_2, sealed_text
from devguard.evidence.scan import Walk
from devguard.evidence.standing import Standing, resolve
from devguard.evidence.tree import MAX_SIZE

_CODE: Final = "log.tampered"
_CHANGED: Final = "it is not the one that was signed"
_WINDOW: Final = 256


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a log that holds is: its signed head, how many segments, times of the first and last record.

    `interrupted` tells that a writer was cut off before its record counted; the next append cleans that up.
    """

    checkpoint: Checkpoint
    note: bytes
    segments: int
    first_time: int | None
    last_time: int | None
    interrupted: bool

    @property
    def records(self) -> int:
        """Number of records."""
        return self.checkpoint.size


def verify_log(
    folder: Path, key: CoseKey, *, earlier: tuple[Checkpoint, ...] = (), visit: Visit | None = None
) -> LogReport:
    """Check every file of the log in `folder` against the station's public key.

    `earlier`: checkpoints kept elsewhere; the log must continue each. `visit` is shown every entry, which is not proven
    until this returns. Raises `log.tampered` or `log.truncated`
    (`Refused` or `Malformed`) naming the first bad record, `Refused("log.missing")`, `LinkError("file.unreadable")`.
    """
    check_station_key(key)
    found, standing = _stand(folder, key)
    try:
        ending = _walked(folder, found, standing, key, earlier, visit)
    except Broken as error:
        raise _first_bad(folder, standing, key, error) from None
    interrupted = standing.untidy or standing.started is not None or ending.rest is not Rest.NOTHING
    walk, head = ending.walk, ending.head
    return LogReport(head.checkpoint, head.note, len(standing.sizes), walk.first, walk.last, interrupted)


def claimed_origin(folder: Path) -> str:
    """Whose log the one in `folder` says it is: for finding the key to verify it with. Nothing is judged by it.

    Raises as `verify_log` for a head that is missing or none.
    """
    return _stand(folder, None)[1].heads[0].checkpoint.origin


def _stand(folder: Path, key: CoseKey | None) -> tuple[Snapshot, Standing]:
    with files.locked(folder, exclusive=False) as at:
        found = files.snapshot(at)
    try:
        standing = resolve(found, opener(key))
    except NoHead as error:
        raise error if key is None else _headless(folder, found, key, error) from None
    if standing is None and found.sizes:
        raise Broken("log.truncated", 0, "the log was cut off before it, or the making of it was")
    if standing is None:
        raise Refused("log.missing", f"there is no evidence log in {folder}")
    return found, standing


def _walked(
    folder: Path,
    found: Snapshot,
    standing: Standing,
    key: CoseKey,
    earlier: tuple[Checkpoint, ...],
    visit: Visit | None,
) -> Ending:
    """The end of the log, everything before it compared with the head and with what was kept elsewhere."""
    walk, head = start(folder, standing), standing.heads[0]
    roots = _roots_wanted(head.checkpoint, earlier)
    _compare(walk, roots)
    for entry in walk.entries(head.size):
        _compare(walk, roots)
        if visit is not None:
            visit(entry, walk.frontier)
    if walk.frontier.root() != head.checkpoint.root:
        raise Broken(_CODE, max(head.size - 1, 0), _CHANGED)
    ending = find_end(walk, standing, found, key, visit)
    if ending.head is not head:
        _compare(ending.walk, roots)
    if (short := max(roots, default=0)) > ending.head.size:
        size = ending.head.size
        raise Refused("log.truncated", f"record {size}: an earlier checkpoint had {short} records")
    return ending


def _roots_wanted(head: Checkpoint, earlier: tuple[Checkpoint, ...]) -> dict[int, bytes]:
    """Root by size, of the checkpoints kept elsewhere."""
    roots: dict[int, bytes] = {}
    for one in earlier:
        if one.origin != head.origin:
            raise Refused(_CODE, f"the earlier checkpoint is of the log {one.origin!r}, not of {head.origin!r}")
        if roots.setdefault(one.size, one.root) != one.root:
            raise Refused(_CODE, f"two of the earlier checkpoints are of {one.size} records and differ")
    return roots


def _compare(walk: Walk, roots: dict[int, bytes]) -> None:
    wanted = roots.get(walk.frontier.size)
    if wanted is not None and walk.frontier.root() != wanted:
        size = walk.frontier.size
        raise Refused(_CODE, f"the first {size} records are not those of the earlier checkpoint")


def _first_bad(folder: Path, standing: Standing, key: CoseKey, error: Broken) -> Broken:
    """`error`, or the same for an earlier record when a seal shows that one was changed."""
    head = standing.heads[0].checkpoint
    index = _first_unsealed(start(folder, standing), head.origin, head.size, key)[0]
    return error if index is None or index >= error.index else Broken(_CODE, index, _CHANGED)


def _headless(folder: Path, found: Snapshot, key: CoseKey, error: NoHead) -> Broken:
    """`error`, at the first record that the seals do not vouch for either."""
    walk = Walk(folder, found.sizes, carriers=frozenset(found.sizes))
    index, seen = _first_unsealed(walk, origin_of(key), MAX_SIZE, key)
    return Broken(_CODE, seen, error.reason) if index is None else Broken(_CODE, index, _CHANGED)


def _first_unsealed(walk: Walk, origin: str, end: int, key: CoseKey) -> tuple[int | None, int]:
    """(the first record that a seal proves changed, None where all hold; how many records can be read)."""
    window: list[tuple[int, bytes, bytes]] = []
    for seal in _seals(walk, origin, end):
        window.append(seal)
        if len(window) == _WINDOW:
            if not holds(key, *window[-1][1:]):
                break
            window.clear()
    for index, text, seal_bytes in window:
        if not holds(key, text, seal_bytes):
            return index, walk.frontier.size
    return None, walk.frontier.size


def _seals(walk: Walk, origin: str, end: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(first record it proves wrong, what it is over, seal) of every entry that can be read."""
    root = walk.frontier.root()
    try:
        for entry in walk.entries(end):
            # In format 1 the seal covers the records before it: the last of them is the first that is not proven.
            index = entry.index if entry.version == FORMAT_2 else max(entry.index - 1, 0)
            yield index, sealed_text(origin, entry, root), entry.seal
            root = walk.frontier.root()
    except Broken:
        return

"""Records of the evidence log for people and programs: filtered, newest first, a page at a time, in bounded time.

Read from the end; a page ends with its rows or after `Wish.search` records, and says where the next begins. Form is
checked, signatures are not: `console.standing` says whether the log holds. Of a damaged log the records before the
first bad one are read, and no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.errors import DevguardError
from devguard.evidence import files
from devguard.evidence.frame import Broken
from devguard.evidence.incident import Incident, gather
from devguard.evidence.log import read_entries
from devguard.evidence.newest import backwards
from devguard.evidence.record import Entry, Record, time_of
from devguard.evidence.scan import Walk

PAGE: Final = 50
SEARCH: Final = 20_000
Row = tuple[int, Record]


@dataclass(frozen=True, slots=True)
class Wish:
    """Which records: texts are whole, but for `action` and `release`, whose beginning is enough. since, until: epoch
    seconds, both inclusive. before: records below that number only. refused: only refusals."""

    device: str = ""
    release: str = ""
    actor: str = ""
    action: str = ""
    code: str = ""
    refused: bool = False
    since: int | None = None
    until: int | None = None
    before: int | None = None
    limit: int = PAGE
    search: int = SEARCH

    @property
    def needles(self) -> tuple[bytes, ...]:
        """What an encoded record has in it when it is wanted: a text stands in it as it is."""
        texts = (self.device, self.release, self.actor, self.action, self.code)
        return tuple(one.encode(errors="replace") for one in texts if one)

    def may_have(self, body: bytes, needles: tuple[bytes, ...]) -> bool:
        """Whether an encoded record can be wanted, without decoding it; of some that are not it says yes."""
        if not all(one in body for one in needles):
            return False
        if self.since is None and self.until is None:
            return True
        time = time_of(body)
        return (self.since is None or time >= self.since) and (self.until is None or time <= self.until)

    def has(self, record: Record) -> bool:
        """Whether a record is wanted."""
        return (
            (not self.device or record.device == self.device)
            and (not self.release or (record.release or "").startswith(self.release))
            and (not self.actor or record.actor == self.actor)
            and (not self.action or record.action.startswith(self.action))
            and (not self.code or record.code == self.code)
            and (not self.refused or record.code is not None)
            and (self.since is None or record.time >= self.since)
            and (self.until is None or record.time <= self.until)
        )


@dataclass(frozen=True, slots=True)
class Page:
    """rows: newest first. older: `before` of the next page, None where nothing is left. searched: how many records
    were looked at. error: why not all that lies there could be read."""

    rows: tuple[Row, ...] = ()
    older: int | None = None
    searched: int = 0
    error: DevguardError | None = None


def read(folder: Path, wish: Wish, good: int | None = None) -> Page:
    """One page. `good`: how many records of a log that does not hold stand before the first bad one."""
    rows: list[Row] = []
    searched, last, needles = 0, None, wish.needles
    try:
        with closing(_entries(folder, good)) as entries:  # the log's lock goes with them
            for entry in entries:
                if wish.before is not None and entry.index >= wish.before:
                    continue
                if len(rows) == wish.limit or searched == wish.search:
                    return Page(tuple(rows), last, searched)
                searched, last = searched + 1, entry.index
                if wish.may_have(entry.body, needles) and wish.has(record := entry.record):
                    rows.append((entry.index, record))
    except DevguardError as error:
        return Page(tuple(rows), None, searched, error)
    return Page(tuple(rows), None, searched)


def _entries(folder: Path, good: int | None) -> Generator[Entry]:
    if good is not None:
        yield from _before(folder, good)
        return
    with closing(backwards(folder)) as entries:
        yield from (entry for entry, _ in entries)


def _before(folder: Path, good: int) -> list[Entry]:
    """The newest of the first `good` entries of a damaged log, newest first: read from its beginning, for its end is
    what may not be readable."""
    kept: deque[Entry] = deque(maxlen=SEARCH)
    with files.locked(folder, exclusive=False) as at:
        found = files.snapshot(at)
    # Whatever head there is, it need not be readable: the segments alone say what stands in them.
    with suppress(Broken):
        kept.extend(Walk(folder, found.sizes, carriers=frozenset(found.sizes)).entries(good))
    return list(reversed(kept))


def one(folder: Path, index: int, good: int | None = None) -> Record | None:
    """The record of that number; None where there is none."""
    found = read(folder, Wish(before=index + 1, limit=1, search=1), good)
    if found.error is not None and not found.rows:
        raise found.error
    return found.rows[0][1] if found.rows and found.rows[0][0] == index else None


def incidents(folder: Path, good: int | None = None) -> dict[str, Incident]:
    """Every incident, by its id, oldest first; of a damaged log those that stand before the first bad record."""
    entries = read_entries(folder) if good is None else reversed(_before(folder, good))
    # An action stands in a record as it is: most of a long log is not decoded.
    return gather((entry.index, entry.record) for entry in entries if b"incident." in entry.body)

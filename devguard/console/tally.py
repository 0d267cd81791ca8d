"""What the records of a log add up to: pushes and refusals by code and by week, grants used. Read once, then only what
is new. Memory grows with weeks, codes and open grants, never with records."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from devguard.errors import CODES, DevguardError
from devguard.evidence.issued import issued
from devguard.evidence.log import read_entries
from devguard.evidence.newest import backwards
from devguard.evidence.record import DigestOf, Entry, Record

WEEK: Final = 7 * 86_400
MONDAY: Final = 4 * 86_400  # 1970-01-05, the first Monday of the epoch
PUSH: Final = "release.push"
BEGUN: Final = "release.push-begun"
OTHER: Final = "other"
_MOST_WEEKS: Final = 520
_MOST_GRANTS: Final = 10_000
_MOST_NEW: Final = 10_000
_LATEST: Final = 253_402_300_799  # the last second that a date can say


def week_of(time: int) -> int:
    """The Monday, 00:00 UTC, of the week of a time; epoch seconds."""
    time = min(time, _LATEST)
    return time - (time - MONDAY) % WEEK


def known(code: str) -> str:
    """A refusal code as a label: one of the table's, or `other`. What a log says is no label without an end."""
    return code if code in CODES else OTHER


@dataclass(slots=True)
class Tally:
    """The figures. pushes, refusals: by code, `ok` for a push that was done; weeks: by Monday, of pushes that were done
    and of refusals of whatever; uses: by digest of the grant, what was begun under it, each device and release once;
    named: digests of grants that were issued here, by their token id; counting: newer figures are being made."""

    records: int = 0
    latest: int | None = None
    pushes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    done_weeks: Counter[int] = field(default_factory=Counter)
    refused_weeks: Counter[int] = field(default_factory=Counter)
    uses: dict[bytes, set[tuple[str, bytes]]] = field(default_factory=dict)
    named: dict[str, bytes] = field(default_factory=dict)
    counting: bool = False
    error: DevguardError | None = None

    def take(self, record: Record) -> None:
        """One more record."""
        self.records += 1
        self.latest = record.time if self.latest is None else max(self.latest, record.time)
        if record.code is not None:
            self.refusals[known(record.code)] += 1
            _bounded(self.refused_weeks, week_of(record.time))
        if record.action == PUSH and "dry-run" not in record.details:
            self.pushes["ok" if record.code is None else known(record.code)] += 1
            if record.code is None:
                _bounded(self.done_weeks, week_of(record.time))
        grant = record.digests.get(DigestOf.GRANT)
        if grant is not None and (made := issued(record)) is not None and len(self.named) < _MOST_GRANTS:
            self.named[made.cti.hex()] = grant
        if record.action == BEGUN and grant is not None and (grant in self.uses or len(self.uses) < _MOST_GRANTS):
            use = (record.device or "", record.digests.get(DigestOf.MANIFEST, b""))
            self.uses.setdefault(grant, set()).add(use)

    def copy(self) -> Tally:
        """The figures of this moment, which stay as they are."""
        return replace(
            self,
            pushes=Counter(self.pushes),
            refusals=Counter(self.refusals),
            done_weeks=Counter(self.done_weeks),
            refused_weeks=Counter(self.refused_weeks),
            uses=dict(self.uses),
            named=dict(self.named),
        )

    def used(self, cti: str) -> int:
        """How many uses of a grant that was issued here are on record."""
        return len(self.uses.get(self.named.get(cti, b""), ()))


def _bounded(weeks: Counter[int], week: int) -> None:
    weeks[week] += 1
    if len(weeks) > _MOST_WEEKS:
        del weeks[min(weeks)]


@dataclass(slots=True)
class Tallier:
    """Keeps the tally of one log. Safe for threads. A log that was set back or changed is counted anew. `shown`: the
    figures of the last time that all was counted; nobody changes them."""

    folder: Path
    shown: Tally = field(default_factory=lambda: Tally(counting=True))
    _tally: Tally = field(default_factory=Tally)
    _last: tuple[int, bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> Tally:
        """The figures as of now. `error` says why they are not of the whole log; they are of what could be read.

        While another thread counts they are those of before, with `counting`: nobody waits twice for a long log.
        """
        if not self._lock.acquire(blocking=False):
            return replace(self.shown, counting=True)
        try:
            self._count()
            self.shown = self._tally.copy()
            return self.shown
        finally:
            self._lock.release()

    def _count(self) -> None:
        try:
            new = self._new()
            if new is None:
                self._tally, self._last = Tally(), None
                new = read_entries(self.folder)
            for entry in new:
                self._tally.take(entry.record)
                self._last = entry.index, entry.seal
            self._tally.error = None
        except DevguardError as error:
            if error.code == "log.missing":
                self._tally, self._last = Tally(), None
            self._tally.error = error

    def _new(self) -> Iterable[Entry] | None:
        """The entries that were not counted yet, oldest first; None where all have to be counted."""
        if self._last is None:
            return None
        found: list[Entry] = []
        with closing(backwards(self.folder)) as entries:
            for entry, _ in entries:
                if entry.index <= self._last[0]:
                    return reversed(found) if (entry.index, entry.seal) == self._last else None
                if len(found) == _MOST_NEW:
                    return None
                found.append(entry)
        return None

"""Maintenance windows: hours and days by the wall clock of a named zone. Pure; the moment is an argument.

A window says what the clock on the wall says. Where that clock is set forward, hours that do not exist are not waited
for; where it is set back, an hour that comes twice is open twice. Source: the IANA zones, through `zoneinfo`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 1440
_AHEAD: Final = 9  # local days to look at for the next opening: a week, and the day a clock change may swallow


@dataclass(frozen=True, slots=True)
class Hours:
    """Minutes after midnight, start in, end out; an end that is not after the start is on the next day."""

    start: int
    end: int

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02d}:{minute % 60:02d}" for minute in (self.start, self.end))


@dataclass(frozen=True, slots=True)
class Window:
    """When pushes may begin. days: 0 is Monday, of the hours' start."""

    zone: ZoneInfo
    days: frozenset[int]
    hours: tuple[Hours, ...]

    def is_open(self, now: int) -> bool:
        """Whether the window is open at `now`, epoch seconds."""
        local = datetime.datetime.fromtimestamp(now, self.zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        yesterday = (today - 1) % 7
        return any(_within(one, minute, today in self.days, yesterday in self.days) for one in self.hours)

    def next_open(self, now: int) -> int | None:
        """The first moment from `now` on at which it is open; None where none comes within nine days."""
        if self.is_open(now):
            return now
        found = [moment for moment in self._starts(now) if moment >= now and self.is_open(moment)]
        return min(found, default=None)

    def _starts(self, now: int) -> Iterator[int]:
        """Moments at which it may open, from yesterday on."""
        first = datetime.datetime.fromtimestamp(now, self.zone).date() - datetime.timedelta(days=1)
        for offset in range(_AHEAD):
            day = first + datetime.timedelta(days=offset)
            for one in self.hours:
                wall = datetime.datetime.combine(day, datetime.time(one.start // 60, one.start % 60), self.zone)
                moments = sorted(int(wall.replace(fold=fold).timestamp()) for fold in (0, 1))
                # One moment, or two an hour or so apart where the clock is set: in a gap it opens between them.
                yield from range(moments[0], moments[1] + 1, 60)

    def __str__(self) -> str:
        days = ", ".join(DAYS[day] for day in sorted(self.days))
        return f"{', '.join(map(str, self.hours))} on {days}, {self.zone.key}"


def _within(hours: Hours, minute: int, today: bool, yesterday: bool) -> bool:
    if hours.start < hours.end:
        return today and hours.start <= minute < hours.end
    return (today and minute >= hours.start) or (yesterday and minute < hours.end)

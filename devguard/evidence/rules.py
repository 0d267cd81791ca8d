"""Rules over records: what happens at a station that somebody ought to look into. Pure: records in, findings out.

A rule looks at the newest record and what went before it within a day. What it finds has a kind and a subject; the same
kind and subject is found once in a window, however many records follow: a storm is one incident. Nothing is decided
here, and a rule that is quiet proves nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from devguard.evidence.record import DigestOf, Record

OPEN: Final = "incident.open"
ASKED: Final = "asked"  # the detail with the serial number that a visit was to, where no device has proven one
LOOK_BACK: Final = 86_400  # seconds of records that rules are given
MOST: Final = 20_000  # records that rules are given at most
BURST: Final = 5
BURST_WINDOW: Final = 600
MANY: Final = 10
MANY_WINDOW: Final = 1200
WINDOW: Final = 3600
SHOWN: Final = 32  # records that an incident names
_BEGUN: Final = "-begun"
_HARMLESS: Final = ("link.", "file.", "internal.", "incident.", "config.", "log.full", "key.passphrase", "key.exists")
"""Refusals of cables, paths and typing errors, and of incidents themselves, make no burst."""
_ELSEWHERE: Final = ("grant.", "device.identity")


class Kind(enum.StrEnum):
    """What an incident is of."""

    BURST = "burst"
    OUTSIDE = "outside"
    SECOND_DEVICE = "second-device"
    UNKNOWN_KEY = "unknown-key"
    VANISHED = "vanished"
    MANY_DEVICES = "many-devices"
    NIGHT = "night"
    MANUAL = "manual"


MEANING: Final[dict[str, str]] = {
    Kind.BURST: f"{BURST} refusals within {BURST_WINDOW // 60} minutes, by one person or on one device",
    Kind.OUTSIDE: "a technician where or when the grant does not reach: device, site, release or hours",
    Kind.SECOND_DEVICE: "a grant that was used on one device was refused on another",
    Kind.UNKNOWN_KEY: "something signed by a key that nobody here knows",
    Kind.VANISHED: "a device fell silent in the middle of an update",
    Kind.MANY_DEVICES: f"one technician at {MANY} devices within {MANY_WINDOW // 60} minutes",
    Kind.NIGHT: "a push at hours that are unusual here",
    Kind.MANUAL: "somebody noticed something, and says so",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found. subject: whom or what it is about; records: indexes, the newest last; window: seconds."""

    kind: Kind
    subject: str
    records: tuple[int, ...]
    device: str | None = None
    window: int = WINDOW

    @property
    def id(self) -> str:
        """The incident's id: kind, and the record that made it one."""
        return f"{self.kind}-{self.records[-1]}"

    def record(self, time: int) -> Record:
        """The incident as a record, dated as what raised it."""
        return Record.make(
            time=time,
            actor="devguard",
            action=OPEN,
            request=self.id,
            device=self.device,
            details={
                "kind": self.kind.value,
                "subject": self.subject,
                "records": " ".join(map(str, self.records[-SHOWN:])),
                "window": str(self.window),
            },
        )


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of the day at which nobody pushes as a rule, minutes after midnight; they may go over it. `minute` gives
    the minute of the day, where the station stands, of epoch seconds."""

    start: int
    end: int
    minute: Callable[[int], int] = field(compare=False)

    def has(self, time: int) -> bool:
        """Whether a moment lies in them."""
        at = self.minute(time)
        return self.start <= at < self.end if self.start <= self.end else at >= self.start or at < self.end


Recent = Sequence[tuple[int, Record]]
"""(index, record) from the oldest to the one that rules look at."""


def may_matter(record: Record) -> bool:
    """Whether any rule looks at such a record; most records need no look back."""
    return not record.action.startswith("incident.") and (record.code is not None or record.action.endswith(_BEGUN))


def find(recent: Recent, night: Hours | None = None) -> tuple[Finding, ...]:
    """What the last of these records makes an incident, less what was raised within its window already."""
    if not recent or not may_matter(recent[-1][1]):
        return ()
    rules: tuple[Iterator[Finding], ...] = (
        _burst(recent),
        _outside(recent),
        _second_device(recent),
        _unknown_key(recent),
        _vanished(recent),
        _many_devices(recent),
        _night(recent, night),
    )
    return tuple(one for rule in rules for one in rule if not _raised(recent, one))


def _raised(recent: Recent, finding: Finding) -> bool:
    since = recent[-1][1].time - finding.window
    return any(
        record.action == OPEN
        and record.time > since
        and record.details.get("kind") == finding.kind
        and record.details.get("subject") == finding.subject
        for _, record in recent
    )


def _within(recent: Recent, seconds: int) -> Recent:
    since = recent[-1][1].time - seconds
    return [one for one in recent if one[1].time >= since]


def _device(record: Record) -> str | None:
    return record.device or record.details.get(ASKED)


def _burst(recent: Recent) -> Iterator[Finding]:
    newest = recent[-1][1]
    if not _suspicious(newest):
        return
    refusals = [one for one in _within(recent, BURST_WINDOW) if _suspicious(one[1])]
    mine = tuple(index for index, record in refusals if record.actor == newest.actor)
    device = _device(newest)
    if len(mine) >= BURST:
        yield Finding(Kind.BURST, newest.actor, mine, device, BURST_WINDOW)
    elif device is not None:
        here = tuple(index for index, record in refusals if _device(record) == device)
        if len(here) >= BURST:
            yield Finding(Kind.BURST, device, here, device, BURST_WINDOW)


def _suspicious(record: Record) -> bool:
    return record.code is not None and not record.code.startswith(_HARMLESS)


def _outside(recent: Recent) -> Iterator[Finding]:
    index, newest = recent[-1]
    if newest.code == "grant.scope" and DigestOf.GRANT in newest.digests:
        yield Finding(Kind.OUTSIDE, newest.actor, (index,), _device(newest))


def _second_device(recent: Recent) -> Iterator[Finding]:
    index, newest = recent[-1]
    grant, device = newest.digests.get(DigestOf.GRANT), _device(newest)
    if grant is None or device is None or newest.code is None or not newest.code.startswith(_ELSEWHERE):
        return
    others = tuple(
        at
        for at, record in recent[:-1]
        if record.digests.get(DigestOf.GRANT) == grant and _device(record) not in (None, device)
    )
    if others:
        yield Finding(Kind.SECOND_DEVICE, newest.actor, (*others, index), device, LOOK_BACK)


def _unknown_key(recent: Recent) -> Iterator[Finding]:
    index, newest = recent[-1]
    if newest.code == "key.unknown":
        yield Finding(Kind.UNKNOWN_KEY, _device(newest) or newest.actor, (index,), _device(newest))


def _vanished(recent: Recent) -> Iterator[Finding]:
    index, newest = recent[-1]
    if newest.code is None or not newest.code.startswith(("link.", "session.timeout")):
        return
    begun = [at for at, record in recent if record.request == newest.request and record.action.endswith(_BEGUN)]
    if begun:
        device = _device(newest) or "a device"
        yield Finding(Kind.VANISHED, device, (*begun, index), newest.device)


def _many_devices(recent: Recent) -> Iterator[Finding]:
    newest = recent[-1][1]
    first: dict[str, int] = {}
    for index, record in _within(recent, MANY_WINDOW):
        device = _device(record)
        if record.actor == newest.actor and device is not None and not record.action.startswith("incident."):
            first.setdefault(device, index)
    if len(first) >= MANY and _device(newest) is not None:
        records = tuple(sorted({*first.values(), recent[-1][0]}))
        yield Finding(Kind.MANY_DEVICES, newest.actor, records, None, MANY_WINDOW)


def _night(recent: Recent, night: Hours | None) -> Iterator[Finding]:
    index, newest = recent[-1]
    if night is not None and newest.action.startswith("release.push") and night.has(newest.time):
        yield Finding(Kind.NIGHT, newest.actor, (index,), _device(newest))

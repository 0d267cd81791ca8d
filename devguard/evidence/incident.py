"""Incidents as the log tells them: raised by a rule or a person, decided, released by an officer. Pure.

An incident is no file of its own: it is what the records with its id say, in their order. Regulatory clocks run from
its first record, for a risk that is uncontrolled or not decided yet; whether it is controlled is a person's decision
(exploitability against harm to a patient), never devguard's.
Source: FDA, "Postmarket Management of Cybersecurity in Medical Devices" (30 and 60 days).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from devguard.evidence.export import rfc3339
from devguard.evidence.record import Record
from devguard.evidence.rules import OPEN, Kind

NEW: Final = "incident.new"
RELEASE: Final = "incident.release"
EXPORT: Final = "incident.export"
DECISIONS: Final = ("controlled", "uncontrolled")
UNDECIDED: Final = "undecided"
_DAY: Final = 86_400
DUTIES: Final = (
    (30, "customers and users told, with what protects them meanwhile"),
    (60, "fixed, validated and distributed"),
)


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident. index, time: of the record that raised it; subject: whom or what it is about; records: indexes of
    what it concerns; own: indexes of its own records; released: (index, officer, time)."""

    id: str
    kind: str
    subject: str
    index: int
    time: int
    device: str | None
    records: tuple[int, ...]
    own: tuple[int, ...]
    decision: str = UNDECIDED
    released: tuple[int, str, int] | None = None

    @property
    def open(self) -> bool:
        """Whether no officer has released it."""
        return self.released is None

    def to_json(self, now: int) -> dict[str, Any]:
        """Plain values; `now` is what the clocks are read at."""
        released = self.released
        return {
            "id": self.id,
            "kind": self.kind,
            "subject": self.subject,
            "record": self.index,
            "time": rfc3339(self.time),
            "device": self.device,
            "records": list(self.records),
            "open": self.open,
            "decision": self.decision,
            "released": None
            if released is None
            else {"record": released[0], "officer": released[1], "time": rfc3339(released[2])},
            "clocks": [one.to_json() for one in clocks(self, now)],
        }


@dataclass(frozen=True, slots=True)
class Clock:
    """A duty and the day it is due. state: `stopped` for a controlled risk, else `running`, `soon` in the last five
    days, or `overdue`."""

    days: int
    duty: str
    due: int
    state: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"days": self.days, "duty": self.duty, "due": rfc3339(self.due), "state": self.state}


def clocks(incident: Incident, now: int) -> tuple[Clock, ...]:
    """The clocks of an incident at `now` (epoch seconds)."""
    return tuple(_clock(incident, now, days, duty) for days, duty in DUTIES)


def _clock(incident: Incident, now: int, days: int, duty: str) -> Clock:
    due = incident.time + days * _DAY
    state = "overdue" if now > due else "soon" if now > due - 5 * _DAY else "running"
    return Clock(days, duty, due, "stopped" if incident.decision == "controlled" else state)


def gather(records: Iterable[tuple[int, Record]]) -> dict[str, Incident]:
    """Every incident, by its id, oldest first. A record that claims an id already taken or unknown adds nothing new."""
    found: dict[str, Incident] = {}
    for index, record in records:
        if record.action.startswith("incident.") and record.code is None:
            take(found, index, record, record.request)
    return found


def take(found: dict[str, Incident], index: int, record: Record, name: str) -> None:
    """What one more record says of the incident `name`, into those that are known by their ids."""
    known = found.get(name)
    if record.action in (OPEN, NEW) and known is None:
        found[name] = Incident(
            id=name,
            kind=record.details.get("kind", Kind.MANUAL),
            subject=record.details.get("subject", record.actor),
            index=index,
            time=record.time,
            device=record.device,
            records=_numbers(record.details.get("records", ""), index),
            own=(index,),
            decision=_decision(record, UNDECIDED),
        )
    elif known is not None:
        released = (index, record.actor, record.time) if record.action == RELEASE else known.released
        found[name] = replace(
            known, own=(*known.own, index), decision=_decision(record, known.decision), released=released
        )


def _decision(record: Record, before: str) -> str:
    said = record.details.get("decision", before)
    return said if said in DECISIONS else before


def _numbers(text: str, below: int) -> tuple[int, ...]:
    """Record numbers of a detail; what is none, or lies ahead of its own record, is left out."""
    numbers = []
    for word in text.split():
        with contextlib.suppress(ValueError):
            numbers.append(int(word))
    return tuple(sorted({one for one in numbers if 0 <= one < below}))

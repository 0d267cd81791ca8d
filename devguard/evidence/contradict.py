"""Whether a station's log and a device's own log tell the same story; where they do not, since when. Pure.

The device's chain is in an order of its own that nobody can change, and names every session by an id that only its two
ends know. So of the station's records about the device the heads have to lie in the chain, in the same order, and every
session in the chain has to be on record. What the device noted before the first session that is on record is not asked
for, unless it is dated later than the station's first record; nor is the end of a session whose beginning is on record
and which was cut off. A log that knows none of the sessions at all contradicts the device from its beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from devguard.evidence.device_log import DeviceEvent, DeviceLog
from devguard.evidence.record import DigestOf, Record

SESSIONS: Final = "sessions"
"""The detail of a record that names further sessions of the same command: ids in hexadecimal, a space between."""
_CUT_OFF: Final = ("link.", "session.", "internal.")
_BEGINNINGS: Final = ("device.info",)
_SESSIONS_OF_ONE: Final = 3  # a push holds three: before, the update, after; what was cut off explains no more


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What does not fit. since: index of the last record that still fits, None where none does; code: `log.truncated`
    when records are missing at the end, `log.tampered` otherwise; time: the device's, of what is missing, or None."""

    code: str
    serial: str
    since: int | None
    message: str
    time: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a station's log."""

    index: int
    record: Record

    @property
    def sessions(self) -> frozenset[bytes]:
        """Ids of the sessions it names."""
        named = self.record.details.get(SESSIONS, "").split()
        ids = {bytes.fromhex(one) for one in named if len(one) == 64 and set(one) <= set("0123456789abcdef")}
        digest = self.record.digests.get(DigestOf.SESSION)
        return frozenset(ids if digest is None else {*ids, digest})


@dataclass(frozen=True, slots=True)
class About:
    """What a station's log says of one device: its rows, and the time of the log's first record (epoch seconds)."""

    rows: tuple[Row, ...]
    first_time: int | None


def about(records: Iterable[Record], serial: str) -> About:
    """The records of a whole log that concern one device; a command's records are kept together by its request id."""
    first, rows = None, []
    for index, record in enumerate(records):
        first = record.time if first is None else first
        if record.device == serial:
            rows.append(Row(index, record))
    return About(tuple(rows), first)


def contradictions(mine: About, log: DeviceLog, others: Sequence[About] = ()) -> tuple[Contradiction, ...]:
    """What the device's log says against the station's; nothing when they agree. `others`: logs of further stations
    that the device may have met."""
    return (*_heads(mine, log), *_sessions(mine, log, others))


def _heads(mine: About, log: DeviceLog) -> list[Contradiction]:
    """Heads on record that lie between two which the device's log has, and that it does not have or has elsewhere.

    One after the last that it has may be of later, and one before the first is forgotten unless the log is whole.
    """
    places = {head: at for at, head in enumerate(log.heads)}
    rows = [(row, row.record.digests[DigestOf.DEVICE_HEAD]) for row in mine.rows if _has_head(row)]
    end = max((number for number, (_, head) in enumerate(rows, start=1) if head in places), default=0)
    found: list[Contradiction] = []
    last: tuple[int, int] | None = None
    for row, head in rows[:end]:
        at, since = places.get(head), None if last is None else last[1]
        if at is not None and (last is None or at >= last[0]):
            last = (at, row.index)
            continue
        if at is None and last is None and not log.whole:
            continue
        what = "that its own log does not have" if at is None else f"older than the one record {since} names"
        said = f"record {row.index} names a state of device {log.serial} {what}"
        found.append(Contradiction("log.tampered", log.serial, since, said))
    return found


def _has_head(row: Row) -> bool:
    return DigestOf.DEVICE_HEAD in row.record.digests


def _sessions(mine: About, log: DeviceLog, others: Sequence[About]) -> list[Contradiction]:
    rows = {session: row for row in mine.rows for session in row.sessions}
    elsewhere = {session for one in others for row in one.rows for session in row.sessions}
    unfinished = Counter(grant for one in (mine, *others) for grant in _unfinished(one))
    budget = {grant: commands * _SESSIONS_OF_ONE for grant, commands in unfinished.items()}
    stranger = not any(event.session in rows or event.session in elsewhere for event in log.events)
    known: Row | None = None
    missing: list[tuple[DeviceEvent, Row | None]] = []
    followed = 0  # how many of the missing lie before a session that is on record
    for event in log.events:
        if event.session is None:
            continue
        if event.session in rows:
            known, followed = rows[event.session], len(missing)
        elif event.session in elsewhere:
            continue
        elif event.grant is not None and budget.get(event.grant, 0) > 0:
            budget[event.grant] -= 1
        elif known is not None or stranger or (mine.first_time is not None and event.time >= mine.first_time):
            missing.append((event, known))
    found = []
    for code, part in (("log.tampered", missing[:followed]), ("log.truncated", missing[followed:])):
        if part:
            event, before = part[0]
            where = "" if before is None else f"after record {before.index} "
            said = f"{where}this log has no record of {len(part)} session{'s' * (len(part) > 1)} of device {log.serial}"
            found.append(Contradiction(code, log.serial, None if before is None else before.index, said, event.time))
    return found


def _unfinished(one: About) -> Iterable[bytes]:
    """Grants of commands that were begun and cut off: of their sessions nobody could note the end."""
    ends: dict[str, str | None] = {}
    begun: dict[str, bytes] = {}
    for row in one.rows:
        record = row.record
        grant = record.digests.get(DigestOf.GRANT)
        only_begun = record.action.endswith("-begun") or record.action in _BEGINNINGS
        ends[record.request] = "internal." if only_begun else record.code
        if grant is not None:
            begun[record.request] = grant
    for request, grant in begun.items():
        end = ends[request]
        if end is not None and end.startswith(_CUT_OFF):
            yield grant

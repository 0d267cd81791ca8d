"""Incidents at a station: rules asked after every record, and the policy of what an open one blocks.

    [incidents]
    block = ["burst", "unknown-key"]
    night = "22:00-06:00"

The section of config.toml says which kinds hold up `push` until an officer releases them, and which hours, by this
machine's own time, are unusual here; without it incidents are raised, no hours are unusual, and nothing is blocked.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devguard.cli.notices import KEYS
from devguard.errors import LinkError, Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devguard.cli.home import Home
    from devguard.cli.record import Note
    from devguard.evidence.incident import Incident
    from devguard.evidence.log import EvidenceLog
    from devguard.evidence.record import Record
    from devguard.evidence.rules import Hours

SECTION = "incidents"
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Policy:
    """What config.toml says of incidents. block: kinds."""

    block: frozenset[str] = frozenset()
    night: Hours | None = None


def policy_of(home: Home) -> Policy:
    """The policy of a home; `Malformed("config.malformed")` for anything that is none."""
    from devguard.evidence.rules import Kind

    section = home.config().get(SECTION, {})
    where = f"{home.config_file}: [{SECTION}]"
    known = {"block", "night", *KEYS}
    if not isinstance(section, dict) or not section.keys() <= known:
        raise Malformed("config.malformed", f"{where} has {', '.join(sorted(known))}, nothing else")
    block = section.get("block", [])
    kinds = [kind.value for kind in Kind]
    if not isinstance(block, list) or any(one not in kinds for one in block):
        raise Malformed("config.malformed", f"{where} block is a list of {', '.join(kinds)}")
    return Policy(frozenset(block), _night(where, section.get("night")))


def _night(where: str, text: Any) -> Hours | None:
    from devguard.evidence.rules import Hours

    if text is None:
        return None
    match = _HOURS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Malformed("config.malformed", f'{where} night is hours such as "22:00-06:00"')
    start_hour, start, end_hour, end = map(int, match.groups())
    return Hours(start_hour * 60 + start, end_hour * 60 + end, _minute)


def _minute(time: int) -> int:
    from datetime import datetime

    at = datetime.fromtimestamp(time).astimezone()
    return at.hour * 60 + at.minute


def watch(home: Home, log: EvidenceLog, written: Record) -> list[int]:
    """Ask the rules about a record that was just written; what they find stands in the log on return: the indexes of
    those records, and of `written` itself where it raises an incident.

    A disk that took the record and has no room for the incident costs the incident alone; the record is there.
    """
    from devguard.evidence.incident import NEW
    from devguard.evidence.rules import find, may_matter

    if written.action == NEW and written.ok:
        return [log.size - 1]
    if not may_matter(written):
        return []
    night = None
    with contextlib.suppress(Malformed):  # a policy that does not parse stops a push, never a record
        night = policy_of(home).night
    raised = []
    for finding in find(_recent(home.evidence_folder, written), night):
        with contextlib.suppress(LinkError):
            raised.append(log.append(finding.record(max(written.time, log.latest))))
    return raised


def _recent(folder: Path, written: Record) -> list[tuple[int, Record]]:
    """The records before `written`, oldest first, and that one last."""
    from devguard.evidence.newest import backwards
    from devguard.evidence.rules import LOOK_BACK, MOST

    found: list[tuple[int, Record]] = []
    for entry, _ in backwards(folder):
        record = entry.record
        if not found and record != written:
            continue  # another process wrote after us; it asks about its own
        if record.time < written.time - LOOK_BACK or len(found) == MOST:
            break
        found.append((entry.index, record))
    return found[::-1]


def all_incidents(folder: Path) -> dict[str, Incident]:
    """Every incident of a log, by id. Form is checked, signatures are not."""
    from devguard.evidence.incident import gather

    return gather(_own(folder))


def _own(folder: Path) -> Iterator[tuple[int, Record]]:
    from devguard.evidence.log import read_entries

    # Most of a long log is not decoded: an action stands in a record as it is.
    return ((entry.index, entry.record) for entry in read_entries(folder) if b"incident." in entry.body)


def check_blocked(note: Note) -> None:
    """`Refused("incident.open")` while an incident of a kind that the policy names waits for an officer."""
    block = policy_of(note.home).block
    if not block or note.log is None:
        return
    waiting = [one for one in all_incidents(note.home.evidence_folder).values() if one.open and one.kind in block]
    if waiting:
        first = waiting[0]
        more = f", and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        raise Refused(
            "incident.open",
            f"incident {first.id} waits for an officer: {first.kind}, {first.subject}{more}",
            f"`devguard evidence incident show {first.id}`; an officer releases it by name and reason",
        )

"""What became of a campaign, added up, and whether it adds up. Pure: rows in, figures and faults out.

Every device has exactly one phase and, once its campaign is over, exactly one end; what is counted by ring, by phase
and by outcome comes to the same sums. A figure that does not is named, and nobody is to trust the others then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from devguard.campaign.state import ENDS, Outcome, Phase, State

_ENDING = {Phase.FAILED: Outcome.FAILED, Phase.REFUSED: Outcome.REFUSED}


@dataclass(frozen=True, slots=True)
class Member:
    """A device's row. leased: whether a lease runs; ended: epoch seconds."""

    serial: str
    ring: int
    site: str | None
    phase: Phase
    tries: int
    leased: bool
    code: str | None
    ended: int | None
    evidence: bytes | None


@dataclass(frozen=True, slots=True)
class Said:
    """An outcome that a bench delivered."""

    lease: str
    serial: str
    outcome: Outcome
    code: str | None
    by: str
    time: int
    counted: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The figures. codes: why devices failed, were refused or left out; faults: what does not add up."""

    devices: int
    phases: dict[Phase, int]
    rings: dict[int, dict[Phase, int]]
    codes: dict[str, int]
    outcomes: int
    late: int
    faults: tuple[str, ...]

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values; `names`: of the rings."""
        return {
            "devices": self.devices,
            "phases": {phase.value: self.phases.get(phase, 0) for phase in Phase},
            "rings": [
                {"name": name, **{phase.value: self.rings.get(at, {}).get(phase, 0) for phase in Phase}}
                for at, name in enumerate(names)
            ],
            "codes": dict(sorted(self.codes.items())),
            "outcomes": {"counted": self.outcomes, "late": self.late},
            "adds_up": not self.faults,
            "faults": list(self.faults),
        }


def add_up(state: State, members: Sequence[Member], said: Sequence[Said], expected: int) -> Report:
    """The report over all rows of a campaign. expected: how many devices it began with."""
    phases = Counter(one.phase for one in members)
    rings: dict[int, dict[Phase, int]] = {}
    for one in members:
        row = rings.setdefault(one.ring, {})
        row[one.phase] = row.get(one.phase, 0) + 1
    faults = [*_sums(state, members, expected), *_each(members, said)]
    return Report(
        devices=len(members),
        phases=dict(phases),
        rings=rings,
        codes=dict(Counter(one.code for one in members if one.code is not None)),
        outcomes=sum(one.counted for one in said),
        late=sum(not one.counted for one in said),
        faults=tuple(faults),
    )


def _sums(state: State, members: Sequence[Member], expected: int) -> list[str]:
    found = []
    serials = Counter(one.serial for one in members)
    if len(members) != expected:
        found.append(f"{len(members)} devices, it began with {expected}")
    found += [f"device {serial} is counted {count} times" for serial, count in serials.items() if count > 1]
    over = state is State.FINISHED
    found += [f"device {one.serial} is {one.phase} after the end" for one in members if over and one.phase not in ENDS]
    return found


def _each(members: Sequence[Member], said: Sequence[Said]) -> list[str]:
    """What is wrong with single devices: an end without its reason, a reason without its end, an outcome twice."""
    found = [f"lease {lease[:8]} has {count} outcomes" for lease, count in _leases(said).items() if count > 1]
    counted: dict[str, list[Said]] = {}
    for one in said:
        if one.counted:
            counted.setdefault(one.serial, []).append(one)
    for device in members:
        outcomes = counted.get(device.serial, [])
        if (device.phase is Phase.DONE) != (device.evidence is not None):
            found.append(f"device {device.serial} is {device.phase}, and evidence says otherwise")
        if (device.phase in ENDS) != (device.ended is not None):
            found.append(f"device {device.serial} is {device.phase}, and its time says otherwise")
        if device.leased != (device.phase is Phase.CLAIMED):
            found.append(f"device {device.serial} is {device.phase}, and its lease says otherwise")
        if len(outcomes) > device.tries:
            found.append(f"device {device.serial} has {len(outcomes)} outcomes of {device.tries} leases")
        asked = _ENDING.get(device.phase)
        if asked is not None and asked not in [one.outcome for one in outcomes]:
            found.append(f"device {device.serial} is {device.phase}, and no bench said so")
    return found


def _leases(said: Sequence[Said]) -> Counter[str]:
    return Counter(one.lease for one in said)

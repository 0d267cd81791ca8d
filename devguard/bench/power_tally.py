"""Which cuts a power-cut sweep makes, and what it counts."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final

_BLOCK: Final = 64
_SHOWN: Final = 12
MADE: Final = ("runs", "pairs")  # counted where they are made, and never again


@dataclass(frozen=True, slots=True)
class Plan:
    """Which cuts are made: of first cuts one in `first`, of second ones one in `second` (0: none), chosen by `seed`,
    the second ones anew for each recovery that is run; of the first ones those of one `part` of `parts`. After a first
    cut the next release is always pushed, and after one recovery in `resumed` the one that was under way too."""

    first: int = 1
    second: int = 0
    seed: int = 1
    part: int = 0
    parts: int = 1
    resumed: int = 1
    shortcut: bool = True

    def takes(self, depth: int, step: int, salt: int = 0) -> bool:
        """Whether the cut number `step` of a scene (depth 0) or of a recovery (depth 1) is made. `salt`: of this
        recovery."""
        if depth == 0 and step // _BLOCK % self.parts != self.part:
            return False
        every = self.second if depth else self.first
        return every == 1 or (every > 0 and zlib.crc32(f"{self.seed}/{depth}/{salt}/{step}".encode()) % every == 0)


@dataclass(slots=True)
class Tally:
    """What became of the device, over any number of cuts. `second_cuts`: how many of `cuts` were in a recovery, each
    with every first cut that leads to that recovery; `pairs`: those in recoveries that differ. `runs`: recoveries that
    were really run."""

    operations: int = 0
    cuts: int = 0
    second_cuts: int = 0
    pairs: int = 0
    booted_old: int = 0
    booted_new: int = 0
    bricked: int = 0
    settings_changed: int = 0
    counter_regressed: int = 0
    audit_broken: int = 0
    push_failed: int = 0
    runs: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally, how: str, times: int = 1) -> None:
        """Count what `other` counted as well, save for what is counted where it is made. `how` it came to that."""
        for name in COUNTED:
            more = getattr(other, name)
            if more:
                setattr(self, name, getattr(self, name) + more * times)
        self.faults += [how + fault for fault in other.faults[: max(0, _SHOWN - len(self.faults))]]

    def blame(self, name: str, fault: str) -> None:
        """Count one harm of that name, and say what it is."""
        setattr(self, name, getattr(self, name) + 1)
        self.faults.append(fault)

    @property
    def held(self) -> bool:
        """Whether every device came back whole, with what it had, and took the next push."""
        return not any(getattr(self, name) for name in HARM)


HARM: Final = ("bricked", "settings_changed", "counter_regressed", "audit_broken", "push_failed")
COUNTED: Final = tuple(name for name in Tally.__dataclass_fields__ if name not in ("faults", *MADE))

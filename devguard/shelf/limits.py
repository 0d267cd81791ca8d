"""Every limit of the shelf in one place: what a reader takes, and how long what a vendor signs lives.

A reader's limits bound what a hostile repository can cost: bytes, seconds, steps. Lifetimes are TUF's `expires`:
root and targets are signed by people with offline keys, snapshot and timestamp by a machine every few days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader takes from a repository. Sizes in bytes, times in seconds, rate in bytes a second."""

    root_rotations: int = 256
    delegations: int = 32
    root_size: int = 512_000
    timestamp_size: int = 16_384
    snapshot_size: int = 2_000_000
    targets_size: int = 5_000_000
    metadata_size: int = 1 << 27
    state_size: int = 1 << 29
    trust_size: int = 64 * 1024
    trust_documents: int = 256
    release_size: int = (1 << 32) + (1 << 20)
    lines: int = 256
    name_length: int = 200
    chunk: int = 1 << 16
    framing: int = 1 << 18
    silence: float = 15.0
    grace: float = 10.0
    slowest: int = 1024
    clock_leeway: int = DAY


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long what is signed lives, in seconds, and how long before its end `renew` signs it again."""

    root: int = 365 * DAY
    targets: int = 180 * DAY
    line: int = 180 * DAY
    snapshot: int = 30 * DAY
    timestamp: int = 14 * DAY

    def of(self, kind: str) -> int:
        """The lifetime of `root`, `targets`, `snapshot`, `timestamp`, or of a product line (any other name)."""
        known = {"root": self.root, "targets": self.targets, "snapshot": self.snapshot, "timestamp": self.timestamp}
        return known.get(kind, self.line)


LIMITS: Final = Limits()
LIFETIMES: Final = Lifetimes()

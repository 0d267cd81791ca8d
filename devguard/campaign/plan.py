"""The plan of a campaign: which release, which devices, in which rings and hours, and what stops it. Pure values.

`plan_file` reads one from TOML, `state` decides by it, `store` keeps it beside the rows. Nothing here has a clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from devguard.campaign.windows import Window
from devguard.errors import Refused

PERSON: Final = "person"
MAX_RINGS: Final = 16
LEASE: Final = 30 * 60
TRIES: Final = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device as the inventory has it. sites: none where nobody knows; version, sequence and digest (of the manifest)
    are those of its last signed report, None without one."""

    serial: str
    model: str
    sites: frozenset[str] = frozenset()
    version: str | None = None
    sequence: int | None = None
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """When a ring opens by itself: so many devices of the ring before confirmed, and so many seconds since then."""

    confirmed: int
    wait: int


@dataclass(frozen=True, slots=True)
class Ring:
    """One step of a campaign. A device is of the first ring that takes it.

    sites, serials: only these, empty for any. share: percent of all devices of the campaign, chosen by their names.
    opening: None where a person opens it.
    """

    name: str
    sites: frozenset[str] = frozenset()
    serials: frozenset[str] = frozenset()
    share: int = 100
    opening: Opening | None = None

    def takes(self, device: Candidate) -> bool:
        """Whether the device is one of those this ring is for; the share is counted elsewhere."""
        return (not self.sites or bool(device.sites & self.sites)) and (
            not self.serials or device.serial in self.serials
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """How many are too many: a count, or a percentage of the devices in the open rings."""

    count: int | None = None
    percent: int | None = None

    def reached(self, found: int, devices: int) -> bool:
        """Whether `found` of `devices` are too many; none never are."""
        if found <= 0:
            return False
        if self.count is not None:
            return found >= self.count
        return self.percent is not None and found * 100 >= self.percent * devices

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{self.percent}%"


@dataclass(frozen=True, slots=True)
class StopRule:
    """What stops a campaign for good. kinds: of incidents, one of which, open anywhere, is enough."""

    failures: Limit | None = None
    refusals: Limit | None = None
    incidents: Limit | None = None
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which devices a campaign is for: of the model, and of these sites, serials and versions; empty for any."""

    model: str
    sites: frozenset[str] = frozenset()
    serials: frozenset[str] = frozenset()
    versions: frozenset[str] = frozenset()

    def has(self, device: Candidate, sequence: int, digest: bytes) -> bool:
        """Whether a device is chosen for the release of that sequence number; one that runs it, or a newer one, is
        not. A device that nobody has a report of is chosen where no version is asked for."""
        if device.model != self.model or device.digest == digest:
            return False
        if device.sequence is not None and device.sequence >= sequence:
            return False
        return (
            (not self.sites or bool(device.sites & self.sites))
            and (not self.serials or device.serial in self.serials)
            and (not self.versions or device.version in self.versions)
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """The release that a campaign brings, by its manifest digest. file: where it lay when the campaign was made."""

    model: str
    version: str
    sequence: int
    digest: bytes
    file: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole plan. release: the file that its TOML names. lease: seconds that a bench has for one device; tries: how
    often the push of one device fails before that counts."""

    name: str
    chosen: Chosen
    rings: tuple[Ring, ...]
    stop: StopRule = field(default_factory=StopRule)
    window: Window | None = None
    lease: int = LEASE
    tries: int = TRIES
    release: str = "release.suit"


def assign(plan: Plan, devices: Iterable[Candidate]) -> dict[str, int]:
    """The ring, by its number, of every device, by its serial.

    Raises `Refused("campaign.rings")` where a device is in no ring: one that is chosen is not forgotten in silence.
    """
    waiting = sorted(devices, key=lambda one: _place(plan.name, one))
    total = len(waiting)
    found: dict[str, int] = {}
    for number, ring in enumerate(plan.rings):
        most = -(-total * ring.share // 100)
        taken = [one for one in waiting if ring.takes(one)][:most]
        found |= {one.serial: number for one in taken}
        waiting = [one for one in waiting if one.serial not in found]
    if waiting:
        named = ", ".join(one.serial for one in waiting[:3])
        more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
        raise Refused("campaign.rings", f"no ring takes {named}{more}")
    return found


def _place(name: str, device: Candidate) -> bytes:
    """An order that nobody chose and everybody can make again: a share is no one's favourites."""
    return hashlib.sha256(f"{name}/{device.serial}".encode()).digest()


def choose(plan: Plan, goal: Goal, inventory: Sequence[Candidate]) -> list[Candidate]:
    """The devices of the campaign, by serial. Raises `Refused("campaign.empty")` where there is none, and
    `Refused("campaign.release")` where the release is for another model than the plan."""
    if goal.model != plan.chosen.model:
        raise Refused("campaign.release", f"the plan is for {plan.chosen.model}, the release for {goal.model}")
    found = [one for one in inventory if plan.chosen.has(one, goal.sequence, goal.digest)]
    if not found:
        raise Refused("campaign.empty", f"none of {len(inventory)} devices in the inventory is chosen")
    return sorted(found, key=lambda one: one.serial)

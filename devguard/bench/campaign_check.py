"""What has to hold of a simulated campaign when it is over. Pure: what the devices say, what the database says, and
what workers said they had committed, against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard.campaign.report import Member, Said, add_up
from devguard.campaign.state import Outcome, Phase, State

SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One rule. why: what breaks it, empty where it held."""

    name: str
    why: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether nothing breaks it."""
        return not self.why

    def to_json(self) -> dict[str, Any]:
        """Plain values, the first faults alone."""
        return {"name": self.name, "held": self.held, "faults": len(self.why), "why": list(self.why[:SHOWN])}


@dataclass(frozen=True, slots=True)
class Books:
    """What the database holds at the end. uses: (grant, serial) of every use of a grant; reports: digests; pushes:
    serials of pushes that are done."""

    state: State
    members: Sequence[Member]
    said: Sequence[Said]
    uses: Sequence[tuple[str, str]]
    reports: frozenset[str]
    pushed: frozenset[str]


def check(
    ends: Sequence[Mapping[str, Any]], committed: Sequence[Sequence[str]], books: Books, goal: str
) -> list[Check]:
    """All rules.

    ends: `LightDevice.end` of every device; committed: (lease, digest of its report or "") as workers said once the
    database had said so; goal: the manifest digest in hexadecimal.
    """
    return [
        Check("every device runs exactly the one release, confirmed", tuple(_release(ends, goal))),
        Check("no grant is spent twice", tuple(_spent(ends, books))),
        Check("no record is lost", tuple(_lost(ends, committed, books))),
        Check("the report adds up", tuple(_adds_up(ends, books))),
    ]


def _release(ends: Sequence[Mapping[str, Any]], goal: str) -> Iterator[str]:
    for one in ends:
        if one["digest"] != goal or not one["confirmed"]:
            yield f"device {one['serial']} is not confirmed on the release"
        elif one["installs"] != 1:
            yield f"device {one['serial']} was installed {one['installs']} times"


def _spent(ends: Sequence[Mapping[str, Any]], books: Books) -> Iterator[str]:
    spends = Counter(cti for one in ends for cti in one["spends"])
    yield from (f"grant {cti[:8]} was spent {count} times" for cti, count in spends.items() if count > 1)
    yield from (f"device {one['serial']} spent {len(one['spends'])} grants" for one in ends if len(one["spends"]) != 1)
    used = [f"device {one['serial']} counts {uses} uses" for one in ends for uses in one["uses"].values() if uses > 1]
    yield from used
    grants = Counter(grant for grant, _ in books.uses)
    yield from (f"grant {grant[:8]} has {count} uses on record" for grant, count in grants.items() if count > 1)


def _lost(ends: Sequence[Mapping[str, Any]], committed: Sequence[Sequence[str]], books: Books) -> Iterator[str]:
    leases = {one.lease for one in books.said}
    for lease, report in committed:
        if lease not in leases:
            yield f"the outcome of lease {lease[:8]} was committed and is gone"
        if report and report not in books.reports:
            yield f"the report {report[:8]} was committed and is gone"
    serials = {one["serial"] for one in ends}
    on_record = {serial for _, serial in books.uses}
    yield from (f"the use of the grant for {serial} is on no record" for serial in sorted(serials - on_record))
    yield from (f"no push of {serial} is on record as done" for serial in sorted(serials - books.pushed))


def _adds_up(ends: Sequence[Mapping[str, Any]], books: Books) -> Iterator[str]:
    if books.state is not State.FINISHED:
        yield f"the campaign is {books.state}"
    yield from add_up(books.state, books.members, books.said, len(ends)).faults
    yield from (f"device {one.serial} is {one.phase}" for one in books.members if one.phase is not Phase.DONE)
    good = Counter(one.serial for one in books.said if one.counted and one.outcome is Outcome.CONFIRMED)
    yield from (f"device {serial} was counted {count} times" for serial, count in good.items() if count > 1)
    strange = {one["serial"] for one in ends} ^ {one.serial for one in books.members}
    yield from (f"device {serial} is in one of the two alone" for serial in sorted(strange))

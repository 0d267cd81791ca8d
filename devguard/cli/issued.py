"""The grants that were issued here, as the evidence log tells: what a suspension has to wait for, or to outrun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devguard.cli.times import iso, left
from devguard.evidence.issued import Issued, issued
from devguard.trust.model import EPOCH_STEP, same_person

if TYPE_CHECKING:
    from devguard.cli.home import Home
    from devguard.cli.record import Note
    from devguard.evidence.record import Record
    from devguard.grant.technicians import Roster


def as_dict(one: Issued) -> dict[str, Any]:
    """One of them as plain values."""
    return {
        "technician": one.technician,
        "issuer": one.issuer,
        "serials": one.serials.split(", "),
        "cti": one.cti.hex(),
        "epoch": one.epoch,
        "expires": iso(one.expires),
    }


def issued_here(home: Home, now: int) -> list[Issued]:
    """Every grant on record here that has not expired at `now`, the newest first, each once.

    The whole log is read: a grant may be dated ahead.
    """
    from devguard.evidence.newest import newest

    found: dict[bytes, Issued] = {}

    def seen(record: Record) -> bool:
        one = issued(record)
        if one is not None and one.expires > now:
            found.setdefault(one.cti, one)
        return False

    if home.evidence_folder.is_dir():
        newest(home.evidence_folder, seen)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Latency:
    """How long what was taken back can still be used where nobody has heard of it.

    last: when the last grant known here ends, None when none is open; latest: when one that is not known here ends;
    epoch: of the next grants issued here; raised: whether that is higher than before; spent: whether it is as high as
    devices follow from the trust document's."""

    last: int | None
    latest: int
    epoch: int
    raised: bool
    spent: bool

    @property
    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "last_grant_ends": None if self.last is None else iso(self.last),
            "latest_possible": iso(self.latest),
            "epoch": self.epoch,
            "epoch_raised": self.raised,
        }

    def lines(self, whose: str, now: int) -> list[str]:
        """For people: when it is over everywhere, and what makes it quicker."""
        if self.last is None:
            found = f"  no open grant of {whose} is known here"
        else:
            found = f"  the last grant of {whose} known here ends at {iso(self.last)} ({left(self.last - now)})"
        lines = [f"{found}; one issued elsewhere ends at {iso(self.latest)} at the latest"]
        if self.raised:
            lines += [
                f"  devices that see a grant of epoch {self.epoch} before then refuse older ones at once: every grant "
                "issued here from now on carries it",
                "  colleagues' grants of older epochs are refused by such a device too: issue theirs anew",
            ]
        elif self.spent:
            lines.append(
                f"  the epoch stays {self.epoch}: devices follow no further before the root raises it in the trust "
                "document (devguard trust revoke --grant-epoch)"
            )
        else:
            lines.append(f"  the next grants issued here are of epoch {self.epoch}, as before")
        lines.append(
            "  stations elsewhere: devguard technician export --authority KEY -o list.suspensions, and there "
            "devguard technician import list.suspensions"
        )
        return lines


def latency_of(
    note: Note, before: Roster, after: Roster, now: int, trust_epoch: int | None, wanted: Callable[[Issued], bool]
) -> Latency:
    """What the list `after` means for the grants that are `wanted`. Delegations end with the grant they come from."""
    from devguard.grant.claims import MAX_LIFE

    ends = [one.expires for one in (*issued_here(note.home, now), *_kept(note.home, now)) if wanted(one)]
    last = max(ends, default=None)
    epoch = after.in_force(trust_epoch)
    latest = max(now + MAX_LIFE, last or 0)
    spent = trust_epoch is not None and epoch >= trust_epoch + EPOCH_STEP
    return Latency(last, latest, epoch, epoch > before.in_force(trust_epoch), spent)


def _kept(home: Home, now: int) -> list[Issued]:
    """The grants that lie in the home, wherever they were issued; one for each person in a chain."""
    from devguard.cli.files import read_grant_file
    from devguard.errors import DevguardError
    from devguard.grant.chain import read_chain

    found: list[Issued] = []
    for path in home.grant_files():
        try:
            chain = read_chain(read_grant_file(path))
        except DevguardError:
            continue  # what is no grant opens nothing
        found += [
            Issued(link.subject, link.issuer, "", link.cti, link.scope.epoch, link.expires)
            for link in chain
            if link.expires > now
        ]
    return found


def of_person(person: str) -> Callable[[Issued], bool]:
    """Whether a grant is that person's."""
    folded = same_person(person)
    return lambda one: same_person(one.technician) == folded

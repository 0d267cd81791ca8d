"""The trust documents of a shelf against this home's: followed one by one from the one in use, or not at all.

A shelf is authentic by its own keys, and that is no reason to believe a trust document it lists: version N+1 counts
only with the signatures of the root thresholds of N and N+1. Only a home that has no trust document, and remembers
none, takes its first one from a shelf, on the word of the pinned root; that is said, and on record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devguard.cli.context import Invocation

if TYPE_CHECKING:
    from devguard.cli.record import Note
    from devguard.shelf.client import Offer
    from devguard.trust.document import TrustDocument


@dataclass(slots=True)
class Following:
    """What `Shelf.refresh` asks before it keeps anything. `first`: a first trust document may be taken, and every
    refresh is recorded, not only one that changes what this home trusts."""

    invocation: Invocation
    note: Note
    first: bool = False
    kept: int = 0
    followed: tuple[int, ...] = ()

    def __call__(self, offer: Offer) -> None:
        """Keep the offer, and what its trust documents make of this home's; nothing unless all of them hold.

        Raises `Refused`: `trust.gap`, `trust.rollback`, `trust.signature`, `trust.expired`, `trust.not-yet`, and what
        else `devguard.trust.chain.follow` raises.
        """
        home = self.invocation.home
        chain = [offer.documents[version] for version in sorted(offer.documents)]
        if home.trust_file.is_file() and chain:
            held = home.trust(None).version
            home.follow_trust(chain, self.invocation.now(), lambda newest: self._keep(offer, newest, held))
        elif self.first and chain:
            self._begin(offer, chain)
        else:
            self._keep(offer, None, 0)
        if self.kept or self.followed:
            self.note.details["effect"] = "in use here"
            self.note.commit(action="shelf.refresh")
            del self.note.details["effect"]

    def lines(self) -> list[str]:
        """What a person must know of it."""
        if self.kept:
            return [f"kept as this home's first trust document, on the word of the pinned root: version {self.kept}"]
        if self.followed:
            passed = ", ".join(map(str, self.followed))
            return [f"this home's trust document is version {self.followed[-1]} now; followed one by one: {passed}"]
        return []

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"trust_kept": bool(self.kept), "trust_followed": list(self.followed)}

    def _begin(self, offer: Offer, chain: list[bytes]) -> None:
        from devguard.trust.chain import follow
        from devguard.trust.document import read_trust

        home = self.invocation.home
        newest = follow(read_trust(chain[0]), chain, self.invocation.now()).newest
        home.remembers(newest, chain[-1], None)
        self._keep(offer, newest, 0)
        if home.keep_trust(chain[-1]):
            self.kept = newest.version

    def _keep(self, offer: Offer, newest: TrustDocument | None, held: int) -> None:
        """Record, then keep: what follows can fail only at the disk, and then the shelf's step is taken back."""
        fresh, changed = offer.found.freshness, newest is not None and newest.version > held
        if newest is not None and changed:
            self.note.document(newest)
        if self.first or changed:
            self.note.details["shelf"] = f"version {fresh.version}, root {fresh.root_version}"
            self.note.commit(action="shelf.refresh")
        offer.keep()
        if newest is not None and held:
            self.followed = tuple(range(held + 1, newest.version + 1))

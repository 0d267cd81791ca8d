"""From one trust document to a newer one: a chain of versions, walked one by one, judged by root rules alone.

Version N+1 carries the signatures of the root thresholds of N and of N+1, so a root can be replaced, key by key or
algorithm by algorithm, without touching whoever holds N. Nobody can be locked out by time: of N's root only
revocation by N counts, never the validity of its keys, and only the last document's expiry is asked.
Source: devguard formats, "Trust document"; compare TUF 1.0.34 section 5.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from devguard.cose.sign import SignMany
from devguard.errors import Refused
from devguard.trust.document import check_time, parse_trust, read_trust, root_quorum
from devguard.trust.model import TrustDocument
from devguard.trust.quorum import Quorum


def predecessor_quorum(previous: TrustDocument, sign: SignMany) -> Quorum:
    """Who of `previous`' root vouches for its successor. Revocation by `previous` counts, validity windows do not.

    A window would buy nothing against a thief, who writes the date, and would lock out whoever was switched off
    while it passed. A key that the successor itself revokes counts here: its owner still has it, and a root that has
    no key to spare could else never revoke one.
    """
    return root_quorum(previous, sign, lambda _entry: True)


def check_successor(previous: TrustDocument, data: bytes) -> TrustDocument:
    """The document in `data`, when it is the next version after `previous` and both roots vouch for it.

    Raises as `read_trust`, and `Refused`: `trust.rollback` for a lower version or another document of the same,
    `trust.gap` when a version between is missing, `trust.signature` without `previous`' root threshold,
    `key.development` when it would turn a production chain into one for benches, or the other way round.
    """
    candidate, sign = parse_trust(data)
    _check_version(previous, candidate)
    doc = read_trust(data)
    if doc.development != previous.development:
        raise Refused("key.development", f"version {doc.version} changes between production and development")
    quorum = predecessor_quorum(previous, sign)
    if not quorum:
        raise Refused(
            "trust.signature", f"version {previous.version} does not vouch for its successor: {quorum.explanation}"
        )
    return doc


def _check_version(previous: TrustDocument, candidate: TrustDocument) -> None:
    if candidate.version < previous.version:
        raise Refused("trust.rollback", f"version {candidate.version} is older than version {previous.version}")
    if candidate.version == previous.version:
        raise Refused("trust.rollback", f"another version {candidate.version}: the chain of documents was forked")
    if candidate.version != previous.version + 1:
        raise Refused("trust.gap", f"version {candidate.version} follows version {previous.version}")


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a walk stands that began at the document `held`. A value: a step that refuses leaves it as it was.

    newest: the document reached, vouched for; data: its bytes, None while it is still `held`; seen: the version given
    last. Nothing may be stored or believed before `finish` has said so.
    """

    held: TrustDocument
    newest: TrustDocument
    data: bytes | None = None
    seen: int | None = None

    @classmethod
    def start(cls, held: TrustDocument) -> Walk:
        """A walk from a document that is already trusted."""
        return cls(held, held)

    def step(self, data: bytes) -> Walk:
        """One document further. Documents before `held` are passed over unjudged, `held` itself is recognised.

        Raises as `check_successor`; also for a chain whose own versions have a gap or go back.
        """
        candidate, _ = parse_trust(data)
        version = candidate.version
        if self.seen is not None and version <= self.seen:
            raise Refused("trust.rollback", f"version {version} follows version {self.seen} in the chain")
        if self.seen is not None and version != self.seen + 1:
            raise Refused("trust.gap", f"version {version} follows version {self.seen} in the chain")
        if version < self.held.version or candidate.digest == self.held.digest:
            return replace(self, seen=version)
        return replace(self, newest=check_successor(self.newest, data), data=data, seen=version)

    def finish(self, now: int, *, clock: bool = True) -> TrustDocument:
        """The document to hold from here on, at `now` (epoch seconds UTC); `held` itself when nothing newer came.

        clock: False where `now` is only a floor that lags behind; then no document counts as from the future.
        Raises `Refused`: `trust.rollback` for a chain that ends before `held`, `trust.expired`, `trust.not-yet`.
        """
        if self.seen is None or self.seen < self.held.version:
            raise Refused("trust.rollback", f"the chain ends before version {self.held.version}, which is held")
        check_time(self.newest, now if clock else max(now, self.newest.issued))
        return self.newest


def follow(held: TrustDocument, chain: Iterable[bytes], now: int, *, clock: bool = True) -> Walk:
    """The finished walk from `held` along `chain`, oldest document first. Raises as `Walk.step` and `Walk.finish`."""
    walk = Walk.start(held)
    for data in chain:
        walk = walk.step(data)
    walk.finish(now, clock=clock)
    return walk

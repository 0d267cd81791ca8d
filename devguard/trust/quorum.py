"""Counting persons toward a threshold.

A person counts once however many keys they hold, a key counts once however often it signed, a revoked key and
a key outside its validity window count for nothing, and a key counts only for the role that lists it. What is
counted here are signatures that somebody else has verified already: this module sees no signature bytes.
Source: devguard formats, "Trust document"; compare TUF 1.0.34 section 5 on unique keys per threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from devguard.cose.algorithms import POST_QUANTUM
from devguard.cose.roles import RoleName
from devguard.trust.model import KeyEntry, TrustDocument, same_person


@dataclass(frozen=True, slots=True)
class Counted:
    """One verified signature that counts: whose, with which key, by which COSE algorithm number."""

    person: str
    thumbprint: bytes
    algorithm: int

    @property
    def post_quantum(self) -> bool:
        """Whether the signature is an ML-DSA one."""
        return self.algorithm in POST_QUANTUM


@dataclass(frozen=True, slots=True)
class Quorum:
    """What a role has and what it lacks. True when `threshold` different persons have signed.

    `persons` are display names in order of first signature; `ignored` says of each signature that did not
    count why it did not; `threshold` 0 means that the document has no such role, and then nothing suffices.
    """

    role: RoleName
    threshold: int
    signatures: tuple[Counted, ...]
    ignored: tuple[str, ...]

    @property
    def persons(self) -> tuple[str, ...]:
        """The different persons who count, each once."""
        names: dict[str, str] = {}
        for one in self.signatures:
            names.setdefault(same_person(one.person), one.person)
        return tuple(names.values())

    @property
    def missing(self) -> int:
        """How many more persons are needed; at least 1 when the document has no such role."""
        return max(self.threshold - len(self.persons), 0) if self.threshold else 1

    def __bool__(self) -> bool:
        return self.missing == 0

    @property
    def explanation(self) -> str:
        """One line for people: who counts, what is missing, what was ignored and why."""
        if not self.threshold:
            return f"the trust document has no role {self.role}"
        text = f"{self.role}: {len(self.persons)} of {self.threshold}"
        if self.persons:
            text += f" ({', '.join(self.persons)})"
        if self.missing:
            text += f", {self.missing} more needed"
        return "; ".join((text, *self.ignored))


def count(
    doc: TrustDocument, role: RoleName, signatures: Iterable[tuple[bytes, int]], now: int, *, kept: bool = False
) -> Quorum:
    """Who counts toward `role` at `now`, of verified signatures given as (key thumbprint, COSE algorithm).

    `kept` is for a release the document lists as one to keep: revoked and expired keys count for it.
    """
    return count_where(doc, role, signatures, lambda entry: entry.valid_at(now), kept=kept)


def count_where(
    doc: TrustDocument,
    role: RoleName,
    signatures: Iterable[tuple[bytes, int]],
    valid: Callable[[KeyEntry], bool],
    *,
    kept: bool = False,
) -> Quorum:
    """`count` with another idea of when a key is valid (the root judges the document's whole life)."""
    held = doc.role(role)
    if held is None:
        return Quorum(role, 0, (), ())
    counted: dict[bytes, Counted] = {}
    ignored: list[str] = []
    for thumbprint, algorithm in signatures:
        entry = held.entry(thumbprint)
        if entry is None:
            continue
        if not entry.key.allows(algorithm):
            ignored.append(f"{entry.person}'s key does not sign by algorithm {algorithm}")
        elif doc.is_revoked(thumbprint) and not kept:
            ignored.append(f"{entry.person}'s key is revoked")
        elif not valid(entry) and not kept:
            ignored.append(f"{entry.person}'s key is outside its validity")
        else:
            counted[thumbprint] = Counted(entry.person, thumbprint, algorithm)
    return Quorum(role, held.threshold, tuple(counted.values()), tuple(ignored))


@dataclass(frozen=True, slots=True)
class ReleaseQuorum:
    """Whether a release has its signers: enough for release, enough for quality, all of them different persons.

    `assigned` gives one way to seat the persons when there is one. `classical` and `post_quantum` say whether
    the union of what counts holds a signature of that kind. True only when all of it holds.
    """

    release: Quorum
    quality: Quorum
    assigned: tuple[tuple[RoleName, str], ...]
    classical: bool
    post_quantum: bool

    @property
    def hybrid(self) -> bool:
        """At least one classical and at least one post-quantum signature."""
        return self.classical and self.post_quantum

    @property
    def seated(self) -> bool:
        """Both thresholds are met by different persons."""
        return bool(self.assigned)

    def __bool__(self) -> bool:
        return self.hybrid and self.seated

    @property
    def explanation(self) -> str:
        """One line for people: both roles, and whether one person would have to sit on both chairs."""
        text = f"{self.release.explanation}; {self.quality.explanation}"
        if self.release and self.quality and not self.seated:
            text += "; the same person cannot count for both roles"
        return text


def count_release(
    doc: TrustDocument, signatures: Iterable[tuple[bytes, int]], now: int, *, kept: bool = False
) -> ReleaseQuorum:
    """The quorum of a release over its verified signatures, as in `count`."""
    listed = tuple(signatures)
    release = count(doc, RoleName.RELEASE, listed, now, kept=kept)
    quality = count(doc, RoleName.QUALITY, listed, now, kept=kept)
    union = (*release.signatures, *quality.signatures)
    return ReleaseQuorum(
        release,
        quality,
        seat(release, quality),
        classical=any(not one.post_quantum for one in union),
        post_quantum=any(one.post_quantum for one in union),
    )


def seat(first: Quorum, second: Quorum) -> tuple[tuple[RoleName, str], ...]:
    """One assignment of different persons to the chairs of both roles, or () when there is none.

    With two roles Hall's condition is exact: each role alone has enough persons and so has their union.
    Whoever can sit for one role only is seated first, so a person of both roles goes where they are needed.
    """
    if not first or not second:
        return ()
    one = {same_person(person): person for person in first.persons}
    two = {same_person(person): person for person in second.persons}
    names = one | two
    if len(names) < first.threshold + second.threshold:
        return ()
    seated_one = sorted(one, key=lambda person: person in two)[: first.threshold]
    free = [person for person in two if person not in seated_one]
    seated_two = free[: second.threshold]
    return tuple((first.role, names[person]) for person in seated_one) + tuple(
        (second.role, names[person]) for person in seated_two
    )

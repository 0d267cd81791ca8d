"""The technicians an authority knows, and who may not: records, changes, and what stands against a grant.

A `Roster` is what one station keeps. Suspensions are statements about a person or a key, each with its time, and the
latest about one subject counts; so lists of them may arrive in any order, and an old one played back changes nothing.
A person is suspended with all keys they have here; a key that was suspended stays so when its owner is reinstated with
another one. Pure: the bytes are kept by whoever calls. Source: devguard formats, "Grant".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Refused
from devguard.grant.chain import read_chain
from devguard.grant.claims import Grant
from devguard.grant.scope import ANY
from devguard.trust.model import EPOCH_STEP, MAX_EPOCH, same_person

Subject = str | bytes
_HINT: Final = "a suspended technician's grants open nothing here; `devguard technician list` shows since when"


@dataclass(frozen=True, slots=True)
class Technician:
    """One technician. `name`: what the list calls them; `sites`: where they may work, `*` anywhere; `training`: model
    name, or `*`, to the epoch second at which it lapses. What is absent denies."""

    name: str
    person: str
    key: CoseKey
    sites: frozenset[str]
    training: Mapping[str, int]

    def trained_until(self, models: Iterable[str]) -> int:
        """When the first training for these models lapses; `grant.training` when there is none for one of them."""
        found: list[int] = []
        for model in models:
            until = self.training.get(model, self.training.get(ANY))
            if until is None:
                what = "every model" if model == ANY else model
                raise Refused("grant.training", f"no training of {self.person} for {what} is on the list")
            found.append(until)
        return min(found, default=0)

    def check(self, models: Iterable[str], sites: Iterable[str], now: int) -> int:
        """When the training for these models lapses, where they may work there; `grant.scope`, `grant.training`."""
        for site in sites:
            if ANY not in self.sites and site not in self.sites:
                allowed = ", ".join(sorted(self.sites)) or "nowhere"
                raise Refused("grant.scope", f"{self.person} may work at {allowed}, not at {site}")
        until = self.trained_until(models)
        if now >= until:
            raise Refused("grant.training", f"the training of {self.person} lapsed {now - until} s ago")
        return until


@dataclass(frozen=True, slots=True)
class Statement:
    """That a person (`subject`: the name as `same_person` folds it) or a key (its thumbprint) is suspended, or is no
    longer, as of `at` (epoch seconds). `by`: who signed the list it came in, "" when it was said at this station."""

    subject: Subject
    person: str
    at: int
    suspended: bool
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Roster:
    """What one station keeps. `revoked`: token ids of single grants that were taken back, and when each expires;
    `epoch`: the grant epoch of the next grant issued here, where the trust document asks for no higher one."""

    technicians: Mapping[str, Technician] = field(default_factory=dict)
    statements: Mapping[Subject, Statement] = field(default_factory=dict)
    revoked: Mapping[bytes, int] = field(default_factory=dict)
    epoch: int = 0

    # who is there

    def named(self, name: str) -> Technician:
        """The technician of that name; `grant.technician`."""
        if name not in self.technicians:
            raise Refused("grant.technician", f"no technician {name!r} is on the list here")
        return self.technicians[name]

    def of_key(self, key: CoseKey) -> Technician | None:
        """The technician who holds the key."""
        return next((one for one in self.technicians.values() if one.key.thumbprint == key.thumbprint), None)

    def keys_of(self, person: str) -> list[CoseKey]:
        """The keys a person has on the list."""
        folded = same_person(person)
        return [one.key for one in self.technicians.values() if same_person(one.person) == folded]

    # changes

    def with_technician(self, new: Technician) -> Roster:
        """With one technician more; `grant.technician` when the name or the key is somebody's already."""
        if new.name in self.technicians:
            raise Refused("grant.technician", f"{new.name!r} is {self.technicians[new.name].person}'s name on the list")
        return self.with_changed(new)

    def with_changed(self, new: Technician) -> Roster:
        """With what is new of a technician on the list. A key is one technician's, a name one person's for ever."""
        holder = self.of_key(new.key)
        if holder is not None and holder.name != new.name:
            raise Refused("grant.technician", f"that key is {holder.person}'s on the list, as {holder.name!r}")
        before = self.technicians.get(new.name)
        if before is not None and same_person(before.person) != same_person(new.person):
            raise Refused("grant.technician", f"{new.name!r} is {before.person} on the list, and stays that person")
        return replace(self, technicians={**self.technicians, new.name: new})

    def suspended(self, person: str, keys: Iterable[CoseKey], *, now: int, reason: str) -> Roster:
        """With a person suspended, and every key known of them: those given, and those on the list."""
        known = [*keys, *self.keys_of(person)]
        return self._said(person, [same_person(person), *(key.thumbprint for key in known)], True, now, reason)

    def reinstated(self, person: str, keys: Iterable[CoseKey], *, now: int, reason: str) -> Roster:
        """With a person suspended no longer, nor the keys given, nor those they have on the list now.

        `Refused("grant.revoked")` when a signed list suspended them: a newer one has to take that back.
        """
        known = [*keys, *self.keys_of(person)]
        subjects: list[Subject] = [same_person(person), *(key.thumbprint for key in known)]
        for subject in subjects:
            said = self.statements.get(subject)
            if said is not None and said.suspended and said.by:
                raise Refused("grant.revoked", f"{person} was suspended in a list signed by {said.by}; so it is lifted")
        return self._said(person, subjects, False, now, reason)

    def _said(self, person: str, subjects: list[Subject], suspended: bool, now: int, reason: str) -> Roster:
        changed = dict(self.statements)
        for subject in subjects:
            before = changed.get(subject)
            # Never before what was said last: a clock that was ahead must not make the next word count for nothing.
            at = max(now, before.at + 1) if before is not None else now
            changed[subject] = Statement(subject, person, at, suspended, reason)
        return replace(self, statements=changed)

    def merged(self, statements: Iterable[Statement], revoked: Mapping[bytes, int]) -> Roster:
        """With what a signed list says: of each subject the latest word counts, of two at one time the suspension."""
        changed = dict(self.statements)
        for one in statements:
            before = changed.get(one.subject)
            if before is None or (one.at, one.suspended) > (before.at, before.suspended):
                changed[one.subject] = one
        return replace(self, statements=changed, revoked={**self.revoked, **revoked})

    def in_force(self, trust_epoch: int | None) -> int:
        """The epoch of the next grants issued here, at most as far above the trust document's as any device follows:
        the root may have set that back. None: no document is known here."""
        if trust_epoch is None:
            return self.epoch
        return min(max(self.epoch, trust_epoch), trust_epoch + EPOCH_STEP, MAX_EPOCH)

    def raised(self, trust_epoch: int | None) -> Roster:
        """With the next grants one epoch up, where devices follow."""
        return replace(self, epoch=replace(self, epoch=self.in_force(trust_epoch) + 1).in_force(trust_epoch))

    def without_expired(self, now: int) -> Roster:
        """Without the revoked grants that have expired for good."""
        return replace(self, revoked={cti: expires for cti, expires in self.revoked.items() if expires > now})

    # what stands against somebody

    def against(self, person: str, key: CoseKey) -> Statement | None:
        """The suspension of a person or of their key."""
        for subject in (same_person(person), key.thumbprint):
            said = self.statements.get(subject)
            if said is not None and said.suspended:
                return said
        return None

    def suspends(self, person: str) -> bool:
        """Whether a person is suspended, whatever key they hold."""
        said = self.statements.get(same_person(person))
        return said is not None and said.suspended

    def check_person(self, person: str, key: CoseKey) -> None:
        """Return when neither a person nor their key is suspended; `grant.revoked`."""
        said = self.against(person, key)
        if said is not None:
            why = f": {said.reason}" if said.reason else ""
            source = f" by a list of {said.by}" if said.by else ""
            raise Refused("grant.revoked", f"{said.person} is suspended{source}{why}", _HINT)

    def check_grant(self, grant: Grant) -> None:
        """Return when nobody in a grant's chain is suspended and none of its links was taken back; `grant.revoked`."""
        for link in read_chain(grant):
            self.check_person(link.subject, link.holder)
            if link.cti in self.revoked:
                raise Refused("grant.revoked", f"this grant of {link.subject} was taken back")

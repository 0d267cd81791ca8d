"""What a grant allows: the scope, its private claims, and the rule for a narrower one.

Every dimension that is absent denies; "any" is the explicit value `*`. Source: devguard formats, "Grant".
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from devguard.errors import Malformed
from devguard.grant.cwt import MAX_TIME, number, text
from devguard.trust.model import MAX_EPOCH as MAX_EPOCH

ANY: Final = "*"
CODE: Final = "grant.malformed"
MAX_NAMES: Final = 64
MAX_USES: Final = 65_535
MINUTES: Final = 24 * 60
NONCE_SIZES: Final = range(8, 65)
_DIGEST_SIZES: Final = (32, 48, 64)
NO_HOURS: Final = (0, 0)


class Action(enum.StrEnum):
    """What a technician may do under a grant."""

    UPDATE = "update"
    RECOVER = "recover"
    READ_LOG = "read-log"
    DECOMMISSION = "decommission"


class Claim(enum.IntEnum):
    """Private claim keys (below -65536, RFC 8392 section 9.1)."""

    FORMAT = -65537
    MODELS = -65538
    SERIALS = -65539
    SITES = -65540
    ACTIONS = -65541
    RELEASE = -65542
    HOURS = -65543
    USES = -65544
    TRAINED_UNTIL = -65545
    EPOCH = -65546
    NONCE = -65547
    PARENT = -65548


@dataclass(frozen=True, slots=True)
class Scope:
    """What is allowed. A set that holds `*` allows any name, an empty set none.

    release_digest (of the manifest), sequences (inclusive) and any_release are three ways to say which release; none
    of them allows none. hours: minutes of the day UTC, from (inclusive) to (exclusive), over midnight when from > to;
    None is `*`, (0, 0) never. max_uses: None is `*`, 0 never. trained_until: epoch seconds; None is `*`, 0 never.
    """

    models: frozenset[str]
    serials: frozenset[str]
    sites: frozenset[str]
    actions: frozenset[str]
    epoch: int
    release_digest: bytes | None = None
    sequences: tuple[int, int] | None = None
    any_release: bool = False
    hours: tuple[int, int] | None = None
    max_uses: int | None = None
    trained_until: int | None = None
    device_nonce: bytes | None = None

    @property
    def wide(self) -> tuple[str, ...]:
        """The dimensions that allow anything, to be shown loudly."""
        sets = {"model": self.models, "serial": self.serials, "site": self.sites, "action": self.actions}
        names = [name for name, members in sets.items() if ANY in members]
        rest = {"release": self.any_release, "hours": self.hours is None, "uses": self.max_uses is None}
        rest["training"] = self.trained_until is None
        return (*names, *(name for name, unlimited in rest.items() if unlimited))

    def allows_release(self, sequence: int, manifest_digest: bytes) -> bool:
        """Whether the release with that sequence number and manifest digest is covered."""
        if self.any_release:
            return True
        if self.release_digest is not None:
            return self.release_digest == manifest_digest
        return self.sequences is not None and self.sequences[0] <= sequence <= self.sequences[1]

    def allows_minute(self, minute: int) -> bool:
        """Whether a minute of the day (0 to 1439, UTC) lies in the daily window."""
        if self.hours is None:
            return True
        start, end = self.hours
        return start <= minute < end if start <= end else minute >= start or minute < end

    def widens(self, parent: Scope) -> str | None:
        """The first dimension in which this scope allows more than `parent`, None when there is none."""
        for name in ("models", "serials", "sites", "actions"):
            if not _within(getattr(self, name), getattr(parent, name)):
                return name
        if not self._release_within(parent):
            return "release"
        if parent.hours is not None and not self._hours_within(parent):
            return "hours"
        if parent.max_uses is not None and (self.max_uses is None or self.max_uses > parent.max_uses):
            return "uses"
        if parent.trained_until is not None and (
            self.trained_until is None or self.trained_until > parent.trained_until
        ):
            return "training"
        if parent.device_nonce is not None and self.device_nonce != parent.device_nonce:
            return "device nonce"
        return "epoch" if self.epoch != parent.epoch else None

    def _release_within(self, parent: Scope) -> bool:
        if parent.any_release or not (self.any_release or self.release_digest or self.sequences):
            return True
        if parent.release_digest is not None:
            return self.release_digest == parent.release_digest
        if parent.sequences is None or self.sequences is None:
            return False
        return parent.sequences[0] <= self.sequences[0] and self.sequences[1] <= parent.sequences[1]

    def _hours_within(self, parent: Scope) -> bool:
        return all(parent.allows_minute(minute) for minute in range(MINUTES) if self.allows_minute(minute))


def allows(members: frozenset[str], name: str | None) -> bool:
    """Whether a set of the scope allows `name`; a name that is not known is allowed by `*` only."""
    return ANY in members or (name is not None and name in members)


def _within(child: frozenset[str], parent: frozenset[str]) -> bool:
    return ANY in parent or (ANY not in child and child <= parent)


def encode_scope(scope: Scope) -> dict[int, object]:
    """The private claims of a scope; what denies is left out."""
    claims: dict[int, object] = {int(Claim.EPOCH): scope.epoch}
    sets = (scope.models, scope.serials, scope.sites, scope.actions)
    for label, members in zip((Claim.MODELS, Claim.SERIALS, Claim.SITES, Claim.ACTIONS), sets, strict=True):
        if members:
            claims[int(label)] = sorted(str(name) for name in members)
    ways: list[object] = [ANY] if scope.any_release else []
    ways += [way for way in (scope.release_digest, scope.sequences) if way is not None]
    if len(ways) > 1:
        raise Malformed(CODE, "a grant names its releases in one way: any, a digest or a range of sequence numbers")
    if ways:
        claims[int(Claim.RELEASE)] = ways[0]
    if scope.hours != NO_HOURS:
        claims[int(Claim.HOURS)] = ANY if scope.hours is None else scope.hours
    for label, limit in ((Claim.USES, scope.max_uses), (Claim.TRAINED_UNTIL, scope.trained_until)):
        if limit != 0:
            claims[int(label)] = ANY if limit is None else limit
    if scope.device_nonce is not None:
        claims[int(Claim.NONCE)] = scope.device_nonce
    return claims


def decode_scope(claims: dict[int, Any]) -> Scope:
    """The scope in `claims`, whose members are removed as they are understood; `Malformed("grant.malformed")`."""
    if Claim.EPOCH not in claims:
        raise Malformed(CODE, "the grant carries no epoch")
    epoch = number(claims.pop(Claim.EPOCH), "the epoch", CODE, most=MAX_EPOCH)
    models, serials, sites = (_names(claims, label) for label in (Claim.MODELS, Claim.SERIALS, Claim.SITES))
    actions = _names(claims, Claim.ACTIONS, {ANY, *Action})
    digest, sequences, every = _release(claims)
    uses = _limit(claims, Claim.USES, "max uses", MAX_USES)
    if uses is not None and uses > 0 and (len(serials) != 1 or ANY in serials):
        raise Malformed(CODE, "a counted grant names exactly one serial: uses are counted by the device")
    return Scope(
        models=models,
        serials=serials,
        sites=sites,
        actions=actions,
        epoch=epoch,
        release_digest=digest,
        sequences=sequences,
        any_release=every,
        hours=_hours(claims),
        max_uses=uses,
        trained_until=_limit(claims, Claim.TRAINED_UNTIL, "trained until", MAX_TIME),
        device_nonce=_nonce(claims),
    )


def _names(claims: dict[int, Any], label: Claim, known: Collection[str] | None = None) -> frozenset[str]:
    if label not in claims:
        return frozenset()
    value, what = claims.pop(label), label.name.lower()
    if not isinstance(value, list) or not 0 < len(value) <= MAX_NAMES:
        raise Malformed(CODE, f"{what} are not a list of 1 to {MAX_NAMES} names")
    names = [text(name, f"a name in {what}", CODE) for name in value]
    if names != sorted(set(names)) or (ANY in names and len(names) > 1):
        raise Malformed(CODE, f"{what} are not in order, repeat, or name others beside *")
    if known is not None and not set(names) <= set(known):
        raise Malformed(CODE, f"unknown {what}: {', '.join(sorted(set(names) - set(known)))}")
    return frozenset(names)


def _release(claims: dict[int, Any]) -> tuple[bytes | None, tuple[int, int] | None, bool]:
    value = claims.pop(Claim.RELEASE, None)
    if value is None or value == ANY:
        return None, None, value == ANY
    if isinstance(value, bytes):
        if len(value) not in _DIGEST_SIZES:
            raise Malformed(CODE, f"a release digest of {len(value)} bytes")
        return value, None, False
    return None, _pair(value, "sequence range", 2**64 - 1), False


def _hours(claims: dict[int, Any]) -> tuple[int, int] | None:
    if Claim.HOURS not in claims:
        return NO_HOURS
    value = claims.pop(Claim.HOURS)
    if value == ANY:
        return None
    start, end = _pair(value, "daily window", MINUTES, ordered=False)
    if start in (end, MINUTES):
        raise Malformed(CODE, "the daily window is empty")
    return start, end


def _pair(value: object, what: str, most: int, *, ordered: bool = True) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise Malformed(CODE, f"the {what} is not two numbers")
    low, high = (number(item, f"the {what}", CODE, most=most) for item in value)
    if ordered and low > high:
        raise Malformed(CODE, f"the {what} ends before it begins")
    return low, high


def _limit(claims: dict[int, Any], label: Claim, what: str, most: int) -> int | None:
    if label not in claims:
        return 0
    value = claims.pop(label)
    return None if value == ANY else number(value, what, CODE, least=1, most=most)


def _nonce(claims: dict[int, Any]) -> bytes | None:
    if Claim.NONCE not in claims:
        return None
    value = claims.pop(Claim.NONCE)
    if not isinstance(value, bytes) or len(value) not in NONCE_SIZES:
        raise Malformed(CODE, "the device nonce is not 8 to 64 bytes")
    return value

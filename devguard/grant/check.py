"""May this technician do this, on this device, now? The same code on the bench and in the device.

`check_grant` runs every check and refuses on the first that fails, in the order below; only when all others hold
does it say `key.unknown` or `trust.expired`, because then a newer trust document may still help (devguard
formats, "Session"). The proof of a pass is a `CheckedGrant`, which nothing else can make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from itertools import pairwise
from typing import Final, NoReturn

from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_GRANT
from devguard.errors import LocalProtocolError, Refused
from devguard.grant.chain import check_link, read_chain
from devguard.grant.claims import Action, Grant
from devguard.grant.cwt import judge_signers
from devguard.grant.scope import Scope, allows
from devguard.grant.uses import Spent, check_use, spend_use, use_id, use_of
from devguard.manifest.model import Clock
from devguard.trust.document import check_time
from devguard.trust.model import EPOCH_STEP, TrustDocument, same_person
from devguard.trust.published import PUBLISHED_TEST_KEYS
from devguard.verdict.release import Release

_PROOF: Final = object()
_AUTHORITY: Final = RoleName.TECHNICIAN_AUTHORITY


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What the judging side knows of the device.

    site: None when unknown. epoch: the device's grant epoch. nonces: those it issued and has not seen used; None
    where the judging side cannot know them (the bench), which leaves that check to the device. spent: by token id.
    """

    model: str
    serial: str
    site: str | None
    clock: Clock
    epoch: int
    nonces: frozenset[bytes] | None
    spent: Mapping[bytes, Spent] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckedGrant:
    """Proof that a grant was checked for one action on one device. Made by `check_grant` alone.

    chain: the grant and those it was delegated from, the authority's last. trust_digest: of the document it was
    judged by.
    """

    grant: Grant
    action: Action
    chain: tuple[Grant, ...]
    device: DeviceView
    trust_digest: bytes
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF or type(self) is not CheckedGrant:
            raise LocalProtocolError("session.order", "only check_grant() makes a CheckedGrant")

    def __init_subclass__(cls, **_: object) -> None:
        raise LocalProtocolError("session.order", "a CheckedGrant has no kinds")

    def __getstate__(self) -> NoReturn:
        raise LocalProtocolError("session.order", "a CheckedGrant is not copied or stored; check the grant again")

    def __setstate__(self, state: object) -> NoReturn:
        raise LocalProtocolError("session.order", "a CheckedGrant is not copied or stored; check the grant again")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise LocalProtocolError("session.order", "a CheckedGrant is not copied or stored; check the grant again")

    @property
    def holder(self) -> CoseKey:
        """The technician's key, which must sign the session or the approval."""
        return self.grant.holder

    @property
    def moves(self) -> bool:
        """Whether the grant may move the device's epoch and clock floor: an authority signed it directly."""
        return len(self.chain) == 1

    def still_valid(self, now: int) -> None:
        """Return when no grant of the chain has expired at `now`, as `check_grant` takes it; `grant.expired`."""
        for link in self.chain:
            _check_expiry(link, now)

    @property
    def actions(self) -> frozenset[Action]:
        """Every action that all grants of the chain allow."""
        return frozenset(one for one in Action if all(allows(link.scope.actions, one) for link in self.chain))

    def under(self, action: Action) -> CheckedGrant:
        """The proof for another action of the same grant, where every grant of the chain allows it; `grant.action`."""
        for link in self.chain:
            _check_action(link.scope, action)
        return CheckedGrant(self.grant, action, self.chain, self.device, self.trust_digest, proof=_PROOF)

    def covers(self, release: Release) -> None:
        """Return when the grant covers the release and a use for it is left or already bound to it.

        Raises `Refused`: `grant.scope` for another model or release, `grant.action` when the action installs nothing,
        `grant.replay` when the uses are spent on something else.
        """
        if self.action not in (Action.UPDATE, Action.RECOVER):
            raise Refused("grant.action", f"the grant was checked for {self.action}, which installs nothing")
        for at, link in enumerate(self.chain):
            if release.model != self.device.model or not allows(link.scope.models, release.model):
                raise Refused("grant.scope", f"the release is for model {release.model!r}, which is not covered")
            if not link.scope.allows_release(release.sequence, release.manifest_digest):
                raise Refused("grant.scope", f"release {release.sequence} is not one the grant covers")
            use = use_of(self.action, release.manifest_digest)
            check_use(link, self.device.spent, use, use_id(self.chain[at:]))

    def spend(self, release: Release, floor: int) -> dict[bytes, Spent]:
        """The spent uses the device must store durably before it accepts `release`; raises as `covers`."""
        self.covers(release)
        return spend_use(self.chain, self.device.spent, use_of(self.action, release.manifest_digest), floor)


def check_grant(
    grant: Grant, *, trust: TrustDocument, now: int, device: DeviceView, action: Action, holder: CoseKey | None
) -> CheckedGrant:
    """The proof that `grant` allows `action` on `device` at `now` to whoever proves `holder` (None: proved elsewhere).

    `now` (epoch seconds) is a bench's clock, or max(clock, floor) of a device with a clock, or the floor of one
    without; for that one the time at which the authority signed counts where it is later. Raises `Refused`, in this
    order: `key.purpose`, `key.revoked`, `signature.algorithm`, `grant.signature`; `grant.not-yet`, `grant.expired`;
    `grant.revoked`; `grant.scope`; `grant.action`; `grant.training`; `grant.holder`; `grant.replay`; last
    `key.unknown`, `trust.not-yet` or `trust.expired`. `Malformed("grant.malformed")` for a broken chain of delegations.
    """
    chain = read_chain(grant)
    time = life = now
    if device.clock is Clock.NONE and device.nonces is not None:  # a bench has a clock of its own
        # The floor is only a bound from below, and what an authority signed just now is later. Judging by that
        # moves nothing: how far the stored floor follows is `advanced_floor`'s rule, so no far date can brick it.
        time = max(now, chain[-1].issued)
        life = max(time, *(link.issued for link in chain))
    unknown = _check_authority(chain, trust, time)
    for child, parent in pairwise(chain):
        check_link(child, parent)
    for link in chain:
        if trust.is_revoked(link.holder.thumbprint):
            raise Refused("key.revoked", f"the key of {link.subject} is revoked")
        origin = PUBLISHED_TEST_KEYS.get(link.holder.thumbprint)
        if origin is not None and not trust.development:
            raise Refused("key.development", f"the key of {link.subject} is a published test key ({origin})")
        _check_life(link, life)
        _check_epoch(link, trust, device)
        _check_scope(link.scope, device, action, time)
    _check_holder(grant, holder)
    for link in chain:
        _check_nonce(link, trust, device)
    if unknown is not None:
        raise unknown
    check_time(trust, time)
    return CheckedGrant(grant, action, chain, device, trust.digest, proof=_PROOF)


def check_pair(first: CheckedGrant, second: CheckedGrant) -> None:
    """Return when two checked grants are two technicians: different persons with different keys, for the same act,
    and neither grant delegated from the other's hand.

    Raises `Refused("grant.quorum")`.
    """
    if same_person(first.grant.subject) == same_person(second.grant.subject):
        raise Refused("grant.quorum", f"both approvals are by {first.grant.subject}")
    if first.holder.thumbprint == second.holder.thumbprint:
        raise Refused("grant.quorum", "both approvals are by the same key")
    # Whoever may delegate could else invent the second technician, with a name and a key of their own.
    people, others = ({same_person(link.subject) for link in one.chain} for one in (first, second))
    keys, other_keys = ({link.holder.thumbprint for link in one.chain} for one in (first, second))
    if people & others or keys & other_keys:
        raise Refused("grant.quorum", "both grants come from the same technician's hand")
    one, other = first.device, second.device
    if first.action is not second.action or (one.model, one.serial) != (other.model, other.serial):
        raise Refused("grant.quorum", "the two approvals are not for the same act on the same device")


def _check_authority(chain: tuple[Grant, ...], trust: TrustDocument, now: int) -> Refused | None:
    """The refusal `key.unknown`, to be raised when nothing else is wrong; every other one is raised here."""
    root = chain[-1]
    try:
        signers = judge_signers(
            root.token,
            typ=TYP_GRANT,
            role=_AUTHORITY,
            trust=trust,
            now=now,
            invalid="grant.signature",
            lacking="grant.signature",
        )
    except Refused as error:
        if error.code != "key.unknown":
            raise
        return error
    # Nor through somebody else's hands: a puppet could hand it straight back.
    people, keys = {same_person(link.subject) for link in chain}, {link.holder.thumbprint for link in chain}
    for entry in signers:
        if same_person(entry.person) in people or entry.thumbprint in keys:
            raise Refused("grant.signature", f"{entry.person} signed a grant for themselves")
    return None


def _check_life(grant: Grant, now: int) -> None:
    if now < grant.not_before:
        raise Refused("grant.not-yet", f"valid in {grant.not_before - now} s")
    _check_expiry(grant, now)


def _check_expiry(grant: Grant, now: int) -> None:
    if now >= grant.expires:
        raise Refused("grant.expired", f"expired {now - grant.expires} s ago")


def _check_epoch(grant: Grant, trust: TrustDocument, device: DeviceView) -> None:
    current = max(device.epoch, trust.grant_epoch)
    if grant.scope.epoch < current:
        raise Refused("grant.revoked", f"grant epoch {grant.scope.epoch}; {current} is in force")
    if grant.scope.epoch > current + EPOCH_STEP:
        # A stolen authority key must not be able to shut out every honest grant with one far epoch.
        raise Refused("grant.revoked", f"grant epoch {grant.scope.epoch} is more than {EPOCH_STEP} ahead of {current}")


def _check_scope(scope: Scope, device: DeviceView, action: Action, now: int) -> None:
    for what, members, name in (
        ("model", scope.models, device.model),
        ("serial", scope.serials, device.serial),
        ("site", scope.sites, device.site),
    ):
        if not allows(members, name):
            raise Refused("grant.scope", f"the grant does not cover {what} {name or 'unknown'}")
    if not scope.allows_minute(now // 60 % 1440):
        raise Refused("grant.scope", "outside the grant's daily hours (UTC)")
    _check_action(scope, action)
    if scope.max_uses == 0:
        raise Refused("grant.scope", "the grant does not say how often it may be used")
    if scope.trained_until is not None and now >= scope.trained_until:
        raise Refused("grant.training", "the technician's training has lapsed or is not stated")


def _check_action(scope: Scope, action: Action) -> None:
    if not allows(scope.actions, action):
        raise Refused("grant.action", f"the grant does not allow {action}")


def _check_holder(grant: Grant, holder: CoseKey | None) -> None:
    if holder is not None and holder.thumbprint != grant.holder.thumbprint:
        raise Refused("grant.holder", f"the key is not the one the grant of {grant.subject} names")


def _check_nonce(grant: Grant, trust: TrustDocument, device: DeviceView) -> None:
    nonce = grant.scope.device_nonce
    if nonce is None:
        if trust.require_device_nonce and device.clock is Clock.NONE:
            raise Refused("grant.replay", "a device without a clock asks for a grant that carries its nonce")
    elif device.nonces is not None and nonce not in device.nonces:
        raise Refused("grant.replay", "the grant carries a nonce this device did not issue or has seen already")

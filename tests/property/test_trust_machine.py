"""No order of key expiry, revocation and rotation locks a device out.

Invariant: whatever the vendor does with its root (rotate it, revoke keys, let keys and documents expire, change
algorithms) and however long a device is away, the chain that the vendor keeps brings the device to the newest document;
a thief who holds every key that was ever revoked or removed, fewer than a threshold of the root in force, never does.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from builders import DAY, NOW, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.errors import DevguardError
from devguard.trust.chain import follow
from devguard.trust.document import build_trust, read_trust, trust_payload
from devguard.trust.model import KeyEntry, Role
from devguard.trust.rotate import Change, sign_successor, successor

POOL = [make_signer((Algorithm.ESP256, Algorithm.ED25519)[at % 2], f"machine/{at}") for at in range(7)]
CHOICE = st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=4, unique=True)


def entry(at: int, not_after: int | None = None) -> KeyEntry:
    return KeyEntry(POOL[at].key, f"Person {at}", not_after=not_after)


class Vendor(RuleBasedStateMachine):
    """A vendor that never loses a key, a thief who has those it gave up, and a device that is away now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.root, self.threshold = [0, 1], 2
        self.revoked: set[int] = set()
        roles = {RoleName.ROOT: Role(2, (entry(0), entry(1)))}
        first = trust_payload(version=1, issued=NOW, expires=NOW + 300 * DAY, roles=roles)
        self.chain = [build_trust(first, [POOL[0], POOL[1]])]
        self.newest = self.device = read_trust(self.chain[0])

    def _next(self, change: Change, days: int, *, new: list[int] | None = None) -> bool:
        """Whether the vendor's next version could be made; then every root key there is signs it."""
        try:
            doc = successor(self.newest, change, issued=self.now, expires=self.now + days * DAY, clock_is_right=True)
        except DevguardError:
            return False
        signers = sorted({*self.root, *(new or [])})
        data = sign_successor(self.newest, doc, [POOL[at] for at in signers])
        self.chain.append(data)
        self.newest = read_trust(data)
        return True

    @rule(keys=CHOICE, threshold=st.integers(1, 3), days=st.integers(1, 400), key_days=st.integers(0, 500))
    def rotate(self, keys: list[int], threshold: int, days: int, key_days: int) -> None:
        """Another root, whose keys may outlive the document by little or by nothing."""
        wanted = [at for at in keys if at not in self.revoked]
        ends = self.now + key_days * DAY if key_days else None
        if threshold <= len(wanted):
            role = Role(threshold, tuple(entry(at, ends) for at in wanted))
            if self._next(Change(roles={RoleName.ROOT: role}), days, new=wanted):
                self.root, self.threshold = wanted, threshold

    @rule(at=st.integers(0, len(POOL) - 1), days=st.integers(1, 400))
    def revoke(self, at: int, days: int) -> None:
        """Any key, in the root or not; refused where no root could act afterwards."""
        if self._next(Change(revoke=frozenset({POOL[at].key.thumbprint})), days):
            self.revoked.add(at)

    @rule(days=st.integers(1, 900))
    def wait(self, days: int) -> None:
        """Keys and documents expire."""
        self.now += days * DAY

    @rule(days=st.integers(1, 400))
    def renew(self, days: int) -> None:
        """Nothing but a new date."""
        self._next(Change(), days)

    @rule(clock=st.booleans())
    def update(self, clock: bool) -> None:
        """The device comes back: it takes the chain, unless the vendor itself let the newest document expire."""
        if self.now < self.newest.expires:
            self.device = follow(self.device, self.chain, self.now, clock=clock).newest
            assert self.device.digest == self.newest.digest

    @invariant()
    def never_locked_out(self) -> None:
        """Were the device to come back now, and the vendor to renew its document, it would be let in."""
        held, chain = self.device, list(self.chain)
        root = self.newest.roles[RoleName.ROOT]
        role = Role(root.threshold, tuple(KeyEntry(one.key, one.person) for one in root.keys))
        doc = successor(
            self.newest,
            Change(roles={RoleName.ROOT: role}),
            issued=self.now,
            expires=self.now + DAY,
            clock_is_right=True,
        )
        chain.append(sign_successor(self.newest, doc, [POOL[at] for at in self.root]))
        assert follow(held, chain, self.now).newest.version == doc.version

    @invariant()
    def the_thief_stays_outside(self) -> None:
        """Every key that is not in the root in force, and one that is where one is too few."""
        alive = [at for at in self.root if at not in self.revoked]
        stolen = [at for at in range(len(POOL)) if at not in alive] + alive[: self.threshold - 1]
        role = Role(1, (entry(stolen[0]),)) if stolen else None
        if role is None or POOL[stolen[0]].key.thumbprint in self.newest.revoked:
            return
        doc = successor(
            self.newest,
            Change(roles={RoleName.ROOT: role}),
            issued=self.now,
            expires=self.now + DAY,
            clock_is_right=True,
        )
        known = {at for at in (*self.root, stolen[0]) if at in stolen}
        data = sign_successor(self.newest, doc, [POOL[at] for at in sorted(known)])
        with pytest.raises(DevguardError) as refused:
            follow(self.newest, [data], self.now)
        assert refused.value.code == "trust.signature"


Vendor.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestVendor = Vendor.TestCase

"""Delegation: only the holder, only narrower, at most twice; every link is checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW, changed, judge_bytes, make_release, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import TYP_GRANT
from devguard.errors import DevguardError
from devguard.grant.chain import check_link, delegate_grant, read_chain
from devguard.grant.claims import ANY, Action, Grant, grant_claims, read_grant
from devguard.grant.cwt import make_token
from devguard.grant.scope import CODE, Scope
from devguard.grant.uses import use_id
from devguard.manifest.model import Clock
from grant_support import AUTHORITY, DEVICE, HOUR, NONCE, TESS, TOM, VENDOR, check, make_grant, scoped

PARENT_SCOPE = scoped(
    serials=frozenset({"IP-0001", "IP-0002"}),
    sites=frozenset({"ward-4", "ward-5"}),
    actions=frozenset({Action.UPDATE, Action.READ_LOG}),
    any_release=False,
    sequences=(1, 5),
    hours=(0, 1000),
)
CHILD_SCOPE = replace(PARENT_SCOPE, serials=frozenset({"IP-0001"}), sequences=(2, 3), hours=(400, 900))
PARENT = make_grant(PARENT_SCOPE)
TINA = make_signer(Algorithm.ESP256, "tina")


def delegate(parent: Grant = PARENT, signer: Any = TESS, scope: Scope = CHILD_SCOPE, **fields: Any) -> Grant:
    given: dict[str, Any] = {
        "subject": "Tom Technician",
        "holder": TOM.key,
        "now": NOW,
        "expires": NOW + HOUR,
        "cti": b"d" * 16,
        **fields,
    }
    return read_grant(delegate_grant(parent, signer, scope=scope, **given))


def test_a_delegated_grant_is_checked_down_to_the_authority() -> None:
    child = delegate()
    checked = check(child, holder=TOM.key)
    assert [link.subject for link in checked.chain] == ["Tom Technician", "Tess Technician"]
    assert not checked.moves
    release = judge_bytes(make_release(VENDOR), VENDOR).require()
    checked.covers(release)
    grandchild = delegate(child, TOM, subject="Tina Trainee", holder=TINA.key, cti=b"e" * 16)
    check(grandchild, holder=TINA.key).covers(release)


def test_two_delegations_are_the_most() -> None:
    grandchild = delegate(delegate(), TOM, subject="Tina Trainee", holder=TINA.key, cti=b"e" * 16)
    last = make_signer(Algorithm.ESP256, "last")
    with pytest.raises(DevguardError, match=r"grant\.malformed"):
        delegate(grandchild, TINA, subject="Last", holder=last.key, cti=b"f" * 16)


@pytest.mark.parametrize(
    "wider",
    [
        {"models": frozenset({ANY})},
        {"serials": frozenset({"IP-0003"})},
        {"serials": frozenset({ANY})},
        {"sites": frozenset({"ward-4", "ward-6"})},
        {"actions": frozenset({Action.RECOVER})},
        {"actions": frozenset({ANY})},
        {"sequences": (1, 6)},
        {"sequences": (0, 2)},
        {"sequences": None, "any_release": True},
        {"sequences": None, "release_digest": b"d" * 32},
        {"hours": None},
        {"hours": (0, 1001)},
        {"hours": (900, 100)},
        {"epoch": 4},
    ],
)
def test_nothing_widens(wider: dict[str, Any]) -> None:
    with pytest.raises(DevguardError, match=r"grant\.scope"):
        delegate(scope=replace(CHILD_SCOPE, **wider))


def test_counts_and_nonces_do_not_widen() -> None:
    one = scoped(max_uses=2, device_nonce=NONCE)
    parent = make_grant(one)
    delegate(parent, scope=replace(one, max_uses=1))
    for wider in ({"max_uses": None}, {"max_uses": 3}, {"device_nonce": None}, {"device_nonce": b"x" * 8}):
        with pytest.raises(DevguardError, match=r"grant\.scope"):
            delegate(parent, scope=replace(one, **wider))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"subject": "tess technician"}, "grant.scope"),
        ({"holder": TESS.key}, "grant.scope"),
        ({"expires": NOW + 9 * HOUR}, "grant.scope"),
        ({"cti": PARENT.cti}, "grant.scope"),
        ({"now": NOW - 1}, "grant.scope"),
        ({"signer": TINA}, "grant.signature"),
        ({"signer": AUTHORITY}, "grant.signature"),
    ],
)
def test_links_that_do_not_hold(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(DevguardError) as caught:
        delegate(**fields)
    assert caught.value.code == code


def forged(above: Grant, signers: list[Any], scope: Scope, **changes: Any) -> Grant:
    """A delegated grant made without asking `delegate_grant`."""
    fields: dict[str, Any] = {
        "issuer": above.subject, "subject": "Tom Technician", "holder": TOM.key, "scope": scope, "issued": NOW,
        "not_before": NOW, "expires": NOW + HOUR, "cti": b"d" * 16, "parent": above.untagged, **changes,
    }  # fmt: skip
    return read_grant(make_token(signers, grant_claims(**fields), TYP_GRANT, CODE).tagged)


def code_of(grant: Grant, **arguments: Any) -> str:
    with pytest.raises(DevguardError) as caught:
        check(grant, holder=TOM.key, **arguments)
    return caught.value.code


def test_the_check_itself_refuses_forged_links() -> None:
    assert code_of(forged(PARENT, [TESS], replace(CHILD_SCOPE, serials=frozenset({ANY})))) == "grant.scope"
    assert code_of(forged(PARENT, [TINA], CHILD_SCOPE)) == "grant.signature"
    assert code_of(forged(PARENT, [TESS, TINA], CHILD_SCOPE)) == "grant.signature"
    assert code_of(forged(PARENT, [TESS], CHILD_SCOPE, issuer="Somebody")) == "grant.scope"
    assert code_of(forged(PARENT, [TESS], CHILD_SCOPE, parent=PARENT.tagged)) == "grant.malformed"
    assert code_of(forged(PARENT, [TESS], CHILD_SCOPE, parent=b"junk")) == "grant.malformed"
    good = forged(PARENT, [TESS], CHILD_SCOPE)
    bad = read_grant(good.tagged[:-1] + bytes([good.tagged[-1] ^ 1]))
    assert code_of(bad) == "grant.signature"


def test_what_becomes_of_the_parent_becomes_of_the_child() -> None:
    child = delegate()
    assert code_of(child, now=NOW + HOUR) == "grant.expired"
    assert code_of(child, device=replace(DEVICE, epoch=4)) == "grant.revoked"
    assert code_of(child, device=replace(DEVICE, serial="IP-0002")) == "grant.scope"
    revoked = changed(VENDOR, grant_epoch=3, revoked=[TESS.key.thumbprint]).trust
    assert code_of(child, trust=revoked) == "key.revoked"
    stranger = make_grant(PARENT_SCOPE, signers=[make_signer(seed="stranger")])
    assert code_of(delegate(stranger)) == "key.unknown"


def test_a_parents_uses_are_spent_by_its_children() -> None:
    one = scoped(max_uses=1)
    parent = make_grant(one)
    first = judge_bytes(make_release(VENDOR), VENDOR).require()
    second = judge_bytes(make_release(VENDOR, version="1.2.0", sequence=3), VENDOR).require()
    spent = check(delegate(parent, scope=one), holder=TOM.key).spend(first, NOW)
    assert set(spent) == {parent.cti, use_id((delegate(parent, scope=one), parent))}
    sibling = delegate(parent, scope=one, cti=b"s" * 16)
    device = replace(DEVICE, spent=spent)
    with pytest.raises(DevguardError, match=r"grant\.replay"):
        check(sibling, holder=TOM.key, device=device).covers(second)


def test_without_a_clock_a_delegated_grant_lives_by_the_authoritys_time_and_never_longer() -> None:
    no_clock = replace(DEVICE, clock=Clock.NONE)
    trust = changed(VENDOR, grant_epoch=3, issued=NOW - 1).trust
    assert not check(delegate(), holder=TOM.key, device=no_clock, now=NOW - 60, trust=trust).moves
    check(delegate(), holder=TOM.key, device=no_clock, now=NOW, trust=trust)
    assert code_of(delegate(), device=no_clock, now=NOW + 12 * HOUR, trust=trust) == "grant.expired"


def test_reading_a_chain_trusts_nothing_and_a_link_needs_its_parent() -> None:
    child = delegate()
    assert [link.cti for link in read_chain(child)] == [child.cti, PARENT.cti]
    with pytest.raises(DevguardError, match=r"grant\.signature"):
        check_link(PARENT, child)

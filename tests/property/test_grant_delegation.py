"""Invariant: whatever a chain of delegations says, what it allows anywhere its parent allows there too.

Not asked of `widens`, which is what is tried, but of the grants themselves: at a random device, site, hour, release and
time, whoever passes the check with the child passes it with the parent. And a chain has an end, however it was made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders import NOW, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.sign import TYP_GRANT
from devguard.errors import DevguardError
from devguard.grant import chain
from devguard.grant.chain import MAX_DELEGATIONS, check_link, delegate_grant, read_chain
from devguard.grant.claims import ANY, Action, Grant, grant_claims, read_grant
from devguard.grant.cwt import MAX_CWT, make_token
from devguard.grant.scope import CODE, NO_HOURS, Scope, allows
from grant_support import HOUR, TESS, TOM, check, make_grant

NAMES = ("a", "b", "c")
SETS = st.frozensets(st.sampled_from(NAMES), max_size=3) | st.just(frozenset({ANY}))
ACTIONS = st.frozensets(st.sampled_from([str(one) for one in Action]), max_size=3) | st.just(frozenset({ANY}))
HOURS = (
    st.none()
    | st.just(NO_HOURS)
    | st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda pair: pair[0] != pair[1])
)
DIGESTS = (b"d" * 32, b"e" * 32)
RELEASES = st.one_of(
    st.just({"any_release": True}),
    st.just({}),
    st.sampled_from(DIGESTS).map(lambda digest: {"release_digest": digest}),
    st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda pair: {"sequences": (min(pair), max(pair))}),
)
LIMITS = st.none() | st.just(0) | st.integers(1, 3)


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    return Scope(
        models=draw(SETS),
        serials=draw(SETS),
        sites=draw(SETS),
        actions=draw(ACTIONS),
        epoch=draw(st.integers(3, 4)),
        hours=draw(HOURS),
        max_uses=draw(LIMITS),
        trained_until=draw(st.none() | st.just(0) | st.integers(NOW, NOW + 3)),
        device_nonce=draw(st.none() | st.sampled_from([b"n" * 8, b"m" * 8])),
        **draw(RELEASES),
    )


WAYS = ("any_release", "release_digest", "sequences")
FIELDS = {
    **{name: (name,) for name in ("models", "serials", "sites", "actions", "hours", "max_uses", "trained_until")},
    "device_nonce": ("device_nonce",),
    "epoch": ("epoch",),
    "release": WAYS,
}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Scope, Scope]:
    """A scope, and one that differs from it in one dimension or two."""
    parent, other = draw(scopes()), draw(scopes())
    changed = draw(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=2))
    return parent, replace(parent, **{name: getattr(other, name) for one in changed for name in FIELDS[one]})


# What `check_grant` and `covers` ask of one link's scope, by the words of formats.md, over all that can be asked.
DIMENSIONS: dict[str, tuple[list[Any], Callable[[Scope, Any], bool]]] = {
    "models": ([*NAMES, "d", None], lambda scope, name: allows(scope.models, name)),
    "serials": ([*NAMES, "d", None], lambda scope, name: allows(scope.serials, name)),
    "sites": ([*NAMES, "d", None], lambda scope, name: allows(scope.sites, name)),
    "actions": ([*Action, "other"], lambda scope, name: allows(scope.actions, name)),
    "hours": (list(range(1440)), Scope.allows_minute),
    "release": (
        [(number, digest) for number in range(6) for digest in (*DIGESTS, b"f" * 32)],
        lambda scope, one: scope.allows_release(*one),
    ),
    "uses": (list(range(5)), lambda scope, used: scope.max_uses is None or used < scope.max_uses),
    "training": (
        list(range(NOW - 1, NOW + 5)),
        lambda scope, now: scope.trained_until is None or now < scope.trained_until,
    ),
    "nonce": ([b"n" * 8, b"m" * 8, b""], lambda scope, nonce: scope.device_nonce in (None, nonce)),
    "epoch": ([2, 3, 4, 5], lambda scope, epoch: scope.epoch == epoch),
}


@settings(max_examples=400)
@given(pairs())
def test_nothing_is_allowed_by_a_child_that_its_parent_denies(pair: tuple[Scope, Scope]) -> None:
    parent, child = pair
    if child.widens(parent) is not None:
        return
    for name, (values, allowed) in DIMENSIONS.items():
        more = [value for value in values if allowed(child, value) and not allowed(parent, value)]
        assert not more, name


@given(scopes())
def test_what_is_the_same_is_not_wider(scope: Scope) -> None:
    assert scope.widens(scope) is None


BASE = Scope(
    models=frozenset({"insulin-pump"}),
    serials=frozenset({"IP-0001"}),
    sites=frozenset({ANY}),
    actions=frozenset({Action.UPDATE}),
    epoch=3,
    any_release=True,
)


@given(st.integers(-60, 9 * HOUR), st.integers(-60, 9 * HOUR), st.integers(-60, 60))
@example(0, 8 * HOUR, 0)
def test_no_time_is_allowed_by_a_child_that_its_parent_denies(begins: int, ends: int, issued: int) -> None:
    parent = make_grant(BASE)
    claims = grant_claims(
        issuer=parent.subject, subject="Tom Technician", holder=TOM.key, scope=BASE, issued=NOW + issued,
        not_before=NOW + begins, expires=NOW + ends, cti=b"d" * 16, parent=parent.untagged,
    )  # fmt: skip
    try:
        child = read_grant(make_token([TESS], claims, TYP_GRANT, CODE).tagged)
        check_link(child, parent)
    except DevguardError:
        return
    assert parent.not_before <= child.not_before < child.expires <= parent.expires
    assert child.issued >= parent.issued


def deep(levels: int) -> bytes:
    """A grant delegated so often, signed by every holder in turn, past every check of `delegate_grant`."""
    signers = [make_signer(Algorithm.ESP256, f"deep{number % 2}") for number in range(2)]
    names = ("Ada", "Bob")
    link = make_grant(BASE, subject=names[0], holder=signers[0].key)
    data = link.untagged
    for number in range(levels):
        claims = grant_claims(
            issuer=names[number % 2], subject=names[(number + 1) % 2], holder=signers[(number + 1) % 2].key,
            scope=BASE, issued=NOW, not_before=NOW, expires=NOW + HOUR, cti=number.to_bytes(16, "big"), parent=data,
        )  # fmt: skip
        data = make_token([signers[number % 2]], claims, TYP_GRANT, CODE, limit=1 << 20).untagged
    return data


@pytest.mark.parametrize("levels", [MAX_DELEGATIONS + 1, 12, 100])
def test_a_deep_chain_refuses_before_it_costs_anything(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = deep(levels), []
    monkeypatch.setattr(chain, "read_grant", lambda parent: read.append(parent) or read_grant(parent))
    monkeypatch.setattr(CoseKey, "verify", lambda *_: pytest.fail("a signature was looked at"))
    with pytest.raises(DevguardError) as caught:
        check(read_grant(data), holder=None)
    assert caught.value.code == "grant.malformed"
    assert len(read) <= MAX_DELEGATIONS
    assert (len(data) > MAX_CWT) is (levels == 100)


def test_as_deep_as_is_allowed_is_read() -> None:
    assert len(read_chain(read_grant(deep(MAX_DELEGATIONS)))) == MAX_DELEGATIONS + 1


def test_the_maker_of_a_delegation_refuses_what_the_device_would() -> None:
    parent: Grant = make_grant(replace(BASE, trained_until=NOW + HOUR))
    wide = replace(BASE, trained_until=NOW + 2 * HOUR)
    for scope in (wide, replace(wide, trained_until=None)):
        with pytest.raises(DevguardError, match=r"grant\.scope"):
            delegate_grant(
                parent, TESS, subject="Tom Technician", holder=TOM.key, scope=scope, now=NOW, expires=NOW + HOUR,
                cti=b"d" * 16,
            )  # fmt: skip

"""Requests for a grant: they prove a key, ask for no more than they say, and one request is one grant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAY, NOW, make_signer
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import TYP_GRANT, TYP_REQUEST
from devguard.errors import DevguardError
from devguard.grant import cwt
from devguard.grant.claims import ANY, MAX_LIFE, read_grant
from devguard.grant.cwt import make_token
from devguard.grant.request import NO_WISH, Claim, GrantRequest, make_request, read_request
from devguard.grant.scope import NO_HOURS, Scope
from devguard.grant.scope import Claim as ScopeClaim
from grant_support import HOUR, SCOPE, TESS, TOM, make_grant

NONCE = b"n" * 16
WISH = replace(
    NO_WISH,
    models=frozenset({"insulin-pump"}),
    serials=frozenset({"IP-1", "IP-2"}),
    actions=frozenset({"update"}),
    hours=(360, 1080),
    sequences=(2, 5),
)


def a_request(wish: Scope = WISH, signer: Any = TESS, **fields: Any) -> GrantRequest:
    given = {"person": "Tess Technician", "life": 4 * HOUR, "reason": "field action 7", "now": NOW, "nonce": NONCE}
    return read_request(make_request(signer, wish=wish, **{**given, **fields}))


def code_of(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **named)
    return caught.value.code


def test_what_is_asked_comes_back() -> None:
    one = a_request()
    assert (one.person, one.holder, one.issued, one.life, one.reason) == (
        "Tess Technician", TESS.key, NOW, 4 * HOUR, "field action 7"
    )  # fmt: skip
    assert one.wish == WISH
    bare = a_request(NO_WISH, TOM, life=None, reason="")
    assert (bare.wish, bare.life, bare.reason) == (NO_WISH, None, "")


def test_one_request_is_one_grant_and_two_are_two() -> None:
    assert len(a_request().cti) == 16
    again = read_request(a_request().token.tagged)
    assert again.cti == read_request(again.token.untagged).cti
    assert a_request(signer=TOM).cti == a_request(signer=TOM).cti  # Ed25519 signs one thing in one way
    assert a_request(signer=TOM).cti != a_request(signer=TOM, nonce=b"m" * 16).cti


ISSUED = replace(SCOPE, serials=frozenset({"IP-1"}), hours=(400, 500), any_release=False, sequences=(2, 3), max_uses=2)


@pytest.mark.parametrize(
    ("change", "life", "fits"),
    [
        ({}, 4 * HOUR, True),
        ({"sites": frozenset({ANY})}, HOUR, True),  # not asked for: the authority's to say
        ({"max_uses": None, "trained_until": None, "device_nonce": b"n" * 8}, HOUR, True),
        ({"serials": frozenset({"IP-1", "IP-3"})}, HOUR, False),
        ({"serials": frozenset({ANY})}, HOUR, False),
        ({"models": frozenset({"pacemaker-programmer"})}, HOUR, False),
        ({"actions": frozenset({"update", "recover"})}, HOUR, False),
        ({"hours": None}, HOUR, False),
        ({"hours": (300, 500)}, HOUR, False),
        ({"sequences": (1, 3)}, HOUR, False),
        ({"sequences": None, "any_release": True}, HOUR, False),
        ({}, 4 * HOUR + 1, False),
    ],
)
def test_a_grant_is_never_more_than_was_asked_for(change: dict[str, Any], life: int, fits: bool) -> None:
    scope = replace(ISSUED, **change)
    if fits:
        a_request().check_narrower(scope, life)
    else:
        assert code_of(a_request().check_narrower, scope, life) == "grant.scope"


def test_who_asks_for_nothing_leaves_all_to_the_authority() -> None:
    wide = replace(SCOPE, models=frozenset({ANY}), serials=frozenset({ANY}), actions=frozenset({ANY}))
    a_request(NO_WISH, life=None).check_narrower(wide, MAX_LIFE)
    assert a_request(NO_WISH).wish.hours == NO_HOURS


def test_a_request_is_good_for_a_day() -> None:
    one = a_request()
    for now in (NOW - 600, NOW, NOW + DAY):
        one.check_age(now)
    assert code_of(one.check_age, NOW + DAY + 1) == "grant.expired"
    assert code_of(one.check_age, NOW - 601) == "grant.not-yet"


# proof of possession


def claims_of(one: GrantRequest) -> dict[int, Any]:
    return dict(wire.decode(one.token.payload))


def test_only_the_key_that_is_asked_for_may_sign() -> None:
    claims = claims_of(a_request())
    stolen = make_token([TOM], claims, TYP_REQUEST, "grant.malformed")  # Tess' key, by somebody else
    assert code_of(read_request, stolen.tagged) == "grant.signature"
    both = make_token([TESS, TOM], claims, TYP_REQUEST, "grant.malformed")
    assert code_of(read_request, both.tagged) == "grant.signature"
    typed = make_token([TESS], claims, TYP_GRANT, "grant.malformed")
    assert code_of(read_request, typed.tagged) == "key.purpose"
    data = a_request().token.tagged
    assert code_of(read_request, data[:-1] + bytes([data[-1] ^ 1])) == "grant.signature"


def test_a_grant_is_no_request_nor_a_request_a_grant() -> None:
    assert code_of(read_request, make_grant().tagged) == "grant.malformed"
    assert code_of(read_grant, a_request().token.tagged) == "grant.malformed"


@pytest.mark.parametrize("algorithm", [Algorithm.ESP384, Algorithm.ML_DSA_44])
def test_a_key_no_technician_may_have_asks_for_nothing(algorithm: Algorithm) -> None:
    assert code_of(a_request, signer=make_signer(algorithm, "t")) == "signature.algorithm"


@pytest.mark.parametrize(
    "more",
    [
        {cwt.SUB: ""},
        {cwt.SUB: "a\x1b[2J"},
        {cwt.SUB: "../../etc/passwd\0"},
        {cwt.SUB: 5},
        {cwt.IAT: -1},
        {cwt.CTI: b"short"},
        {cwt.CNF: {1: {1: 2}}},
        {cwt.EXP: NOW},
        {Claim.FORMAT: 2},
        {Claim.LIFE: 0},
        {Claim.LIFE: MAX_LIFE + 1},
        {Claim.LIFE: "8h"},
        {Claim.REASON: ""},
        {Claim.REASON: "x" * 129},
        {Claim.REASON: "a\nb"},
        {ScopeClaim.EPOCH: 3},
        {ScopeClaim.PARENT: b"x"},
        {ScopeClaim.TRAINED_UNTIL: NOW},
        {ScopeClaim.MODELS: []},
        {ScopeClaim.ACTIONS: ["format-disk"]},
        {ScopeClaim.USES: 1},  # counted, and two serials
        {-70_000: 1},
    ],
    ids=str,
)
def test_claims_that_make_no_request(more: dict[int, Any]) -> None:
    token = make_token([TESS], {**claims_of(a_request()), **more}, TYP_REQUEST, "grant.malformed")
    assert code_of(read_request, token.tagged) == "grant.malformed"


def test_every_truncation_and_flipped_byte_refuses() -> None:
    data = a_request().token.tagged
    for end in range(len(data)):
        assert code_of(read_request, data[:end]) == "grant.malformed"
    for at in range(len(data)):
        assert code_of(read_request, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])


@given(st.binary(max_size=200))
def test_garbage_is_no_request(data: bytes) -> None:
    with pytest.raises(DevguardError):
        read_request(data)

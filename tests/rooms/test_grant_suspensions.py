"""Signed lists of suspensions: who may sign one, what one signature is enough for, and what is no list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import CAST, NOW, Seat, changed, make_signer, make_vendor
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_GRANT, TYP_SUSPENSIONS
from devguard.errors import DevguardError
from devguard.grant import cwt
from devguard.grant.cwt import make_token
from devguard.grant.suspensions import MAX_LIST, Claim, Suspensions, make_list, read_list, sign_list
from devguard.grant.take import take_list
from devguard.grant.technicians import Roster
from devguard.trust.model import EPOCH_STEP, same_person
from grant_support import AUTHORITY, TESS, TOM, VENDOR, make_grant

ROLE = RoleName.TECHNICIAN_AUTHORITY
GONE = Roster().suspended("Tess Technician", [TESS.key], now=NOW, reason="private")
BACK = GONE.suspended("Tom Technician", [TOM.key], now=NOW, reason="").reinstated(
    "Tess Technician", [TESS.key], now=NOW + 5, reason=""
)
TWO = make_vendor(
    "two authorities",
    cast=[*(seat for seat in CAST if seat.role is not ROLE), Seat(ROLE, "Thea Authority"), Seat(ROLE, "Theo Authority"),
          Seat(ROLE, "Thea Authority", Algorithm.ED25519)],
    thresholds={RoleName.ROOT: 2, ROLE: 2},
    grant_epoch=3,
)  # fmt: skip


def a_list(roster: Roster = GONE, signers: Any = None, *, now: int = NOW, many: bool = False) -> Suspensions:
    return make_list(roster, signers or [AUTHORITY], issuer="Thea Authority", now=now, many=many)


def code_of(call: Any, *args: Any) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args)
    return caught.value.code


def test_what_an_authority_said_counts_elsewhere() -> None:
    one = read_list(a_list().tagged)
    after, whole = take_list(Roster(), one, VENDOR.trust, NOW)
    assert whole
    assert code_of(after.check_grant, make_grant()) == "grant.revoked"
    said = after.against("Somebody", TESS.key)
    assert said is not None
    assert (said.by, said.reason) == ("Thea Authority", "")  # why is nobody's business elsewhere
    assert take_list(after, one, VENDOR.trust, NOW + 9) == (after, True)  # twice is once


def test_an_older_list_played_back_changes_nothing() -> None:
    newer, older = a_list(BACK, now=NOW + 9), a_list(GONE)
    after, _ = take_list(Roster(), newer, VENDOR.trust, NOW + 9)
    after, _ = take_list(after, older, VENDOR.trust, NOW + 10)
    assert after.against("Tess Technician", TESS.key) is None
    assert after.against("Tom Technician", TOM.key) is not None


def test_only_authorities_in_the_document_are_heard() -> None:
    for signer, code in (
        (VENDOR.signer(RoleName.RELEASE), "key.purpose"),
        (make_signer(seed="stranger"), "key.unknown"),
        (TESS, "key.unknown"),
    ):
        assert code_of(take_list, Roster(), a_list(signers=[signer]), VENDOR.trust, NOW) == code
    revoked = changed(VENDOR, revoked=[AUTHORITY.key.thumbprint], grant_epoch=3).trust
    assert code_of(take_list, Roster(), a_list(), revoked, NOW) == "key.revoked"


def test_a_grant_is_no_list_nor_a_list_a_grant() -> None:
    claims = a_list().token.payload
    from devguard.grant.claims import read_grant

    assert code_of(read_grant, a_list().tagged) == "grant.malformed"
    assert code_of(read_list, make_grant().tagged) == "grant.malformed"
    from devguard import wire

    retyped = read_list(make_token([AUTHORITY], wire.decode(claims), TYP_GRANT, "grant.malformed").tagged)
    assert code_of(take_list, Roster(), retyped, VENDOR.trust, NOW) == "key.purpose"


def test_every_flipped_byte_refuses() -> None:
    data = a_list().tagged
    for at in range(len(data)):
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(DevguardError):
            take_list(Roster(), read_list(bad), VENDOR.trust, NOW)
    for end in range(len(data)):
        assert code_of(read_list, data[:end]) == "grant.malformed"


def test_one_authority_is_enough_to_take_away_and_two_to_give_back() -> None:
    thea, theo = TWO.signer(ROLE, "Thea Authority"), TWO.signer(ROLE, "Theo Authority")
    gone, whole = take_list(Roster(), a_list(GONE, [thea], many=True), TWO.trust, NOW)
    assert not whole
    assert gone.against("Tess Technician", TESS.key) is not None
    half = a_list(BACK, [thea], now=NOW + 9, many=True)
    for few in (half, sign_list(half, TWO.signer(ROLE, "Thea Authority", Algorithm.ED25519))):
        still, whole = take_list(gone, few, TWO.trust, NOW + 9)
        assert not whole
        assert still.against("Tess Technician", TESS.key) is not None
        assert still.against("Tom Technician", TOM.key) is not None
    free, whole = take_list(gone, sign_list(half, theo), TWO.trust, NOW + 9)
    assert whole
    assert free.against("Tess Technician", TESS.key) is None
    assert code_of(sign_list, half, thea) == "grant.signature"
    assert code_of(sign_list, a_list(), theo) == "grant.signature"  # made for one signer alone


def test_a_list_from_ahead_refuses_and_its_epoch_goes_no_further_than_devices() -> None:
    assert code_of(take_list, Roster(), a_list(now=NOW + 3600), VENDOR.trust, NOW) == "grant.not-yet"
    far = Roster(epoch=2**32 - 1)
    assert take_list(Roster(), a_list(far), VENDOR.trust, NOW)[0].epoch == 3 + EPOCH_STEP
    assert take_list(Roster(epoch=50), a_list(far), VENDOR.trust, NOW)[0].epoch == 50


def test_what_came_in_a_list_is_not_said_again_as_ones_own() -> None:
    after, _ = take_list(Roster(), a_list(), VENDOR.trust, NOW)
    assert a_list(after).statements == ()


ROW = [same_person("Tess Technician"), "Tess Technician", NOW, True]
CLAIMS: dict[int, Any] = {
    cwt.ISS: "Thea Authority",
    cwt.IAT: NOW,
    Claim.FORMAT: 1,
    Claim.EPOCH: 0,
    Claim.STATEMENTS: [ROW],
    Claim.REVOKED: {},
}


@pytest.mark.parametrize(
    "more",
    [
        {cwt.ISS: ""},
        {cwt.IAT: -1},
        {cwt.EXP: NOW},
        {Claim.FORMAT: 2},
        {Claim.EPOCH: 2**32},
        {Claim.STATEMENTS: [ROW, ROW]},
        {Claim.STATEMENTS: [[*ROW, ""]]},
        {Claim.STATEMENTS: [["tom", *ROW[1:]]]},
        {Claim.STATEMENTS: [[*ROW[:2], NOW + 1, True]]},
        {Claim.STATEMENTS: "x"},
        {Claim.REVOKED: []},
        {Claim.REVOKED: {b"x": 1}},
        {-70_000: 1},
    ],
    ids=str,
)
def test_claims_that_make_no_list(more: dict[int, Any]) -> None:
    read_list(make_token([AUTHORITY], CLAIMS, TYP_SUSPENSIONS, "grant.malformed").tagged)
    token = make_token([AUTHORITY], {**CLAIMS, **more}, TYP_SUSPENSIONS, "grant.malformed")
    assert code_of(read_list, token.tagged) == "grant.malformed"


@pytest.mark.parametrize("label", sorted(CLAIMS))
def test_every_claim_is_mandatory(label: int) -> None:
    without = {key: value for key, value in CLAIMS.items() if key != label}
    token = make_token([AUTHORITY], without, TYP_SUSPENSIONS, "grant.malformed")
    assert code_of(read_list, token.tagged) == "grant.malformed"


@given(st.binary(max_size=200))
def test_garbage_is_no_list(data: bytes) -> None:
    with pytest.raises(DevguardError):
        read_list(data)


def test_a_list_too_long_is_neither_made_nor_read() -> None:
    roster = Roster()
    for number in range(1200):
        roster = roster.suspended(f"Person {number:05d} " + "x" * 60, [], now=NOW, reason="")
    assert code_of(a_list, roster) == "grant.malformed"
    assert code_of(read_list, bytes(MAX_LIST + 1)) == "grant.malformed"

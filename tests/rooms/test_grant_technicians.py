"""Technicians and suspensions: what is absent denies, the latest word counts, nobody slips by under another name."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAY, NOW, make_signer
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.errors import DevguardError, Malformed, Refused
from devguard.grant.chain import delegate_grant
from devguard.grant.claims import read_grant
from devguard.grant.roster import decode_roster, encode_roster, make_technician
from devguard.grant.technicians import Roster, Statement, Technician
from devguard.trust.model import EPOCH_STEP, same_person
from grant_support import HOUR, SCOPE, TESS, TOM, make_grant

TINA = make_signer(Algorithm.ESP256, "tina")


def technician(name: str = "tess", person: str = "Tess Technician", **fields: object) -> Technician:
    given = {"key": TESS.key, "sites": ["ward-4"], "training": {"insulin-pump": NOW + DAY}, **fields}
    return make_technician(name, person, **given)  # type: ignore[arg-type]


def code_of(call: object, *args: object, **named: object) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **named)  # type: ignore[operator]
    return caught.value.code


LISTED = Roster().with_technician(technician())


# who may be granted what


@pytest.mark.parametrize(
    ("models", "sites", "now", "code"),
    [
        (["insulin-pump"], ["ward-4"], NOW + DAY - 1, None),
        (["insulin-pump"], ["ward-4"], NOW + DAY, "grant.training"),
        (["pacemaker-programmer"], ["ward-4"], NOW, "grant.training"),
        (["insulin-pump", "pacemaker-programmer"], ["ward-4"], NOW, "grant.training"),
        (["*"], ["ward-4"], NOW, "grant.training"),
        (["insulin-pump"], ["ward-5"], NOW, "grant.scope"),
        (["insulin-pump"], ["ward-4", "ward-5"], NOW, "grant.scope"),
        (["insulin-pump"], ["*"], NOW, "grant.scope"),
    ],
)
def test_what_the_list_does_not_say_is_denied(models: list[str], sites: list[str], now: int, code: str | None) -> None:
    if code is None:
        assert technician().check(models, sites, now) == NOW + DAY
    else:
        assert code_of(technician().check, models, sites, now) == code


def test_anywhere_and_every_model_are_said_with_a_star() -> None:
    wide = technician(sites=["*"], training={"*": NOW + 9 * DAY, "insulin-pump": NOW + DAY})
    assert wide.check(["insulin-pump"], ["ward-9", "*"], NOW) == NOW + DAY  # a model's own date before that of all
    assert wide.check(["*"], ["*"], NOW) == NOW + 9 * DAY
    assert code_of(technician(sites=[]).check, ["insulin-pump"], ["ward-4"], NOW) == "grant.scope"


def test_a_name_and_a_key_are_one_technicians_for_ever() -> None:
    assert code_of(LISTED.with_technician, technician(key=TOM.key)) == "grant.technician"
    assert code_of(LISTED.with_technician, technician("other", "Tom Technician")) == "grant.technician"
    assert code_of(LISTED.with_changed, technician(person="Tom Technician", key=TOM.key)) == "grant.technician"
    second_key = technician("tess-card", key=TOM.key)  # one person may hold two keys
    both = LISTED.with_technician(second_key)
    assert both.of_key(TOM.key) == second_key
    assert code_of(LISTED.with_changed(technician(key=TINA.key)).named, "nobody") == "grant.technician"


# suspensions


SPELLINGS = ["Tess Technician", "TESS  technician", "Tess\u200b Technician", "\uff34ess Technician"]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_a_suspended_person_is_found_under_every_spelling_and_key(spelling: str) -> None:
    gone = LISTED.suspended(spelling, [], now=NOW, reason="left")
    for person, key in (("Tess Technician", TOM.key), ("Somebody Else", TESS.key), (spelling, TESS.key)):
        assert code_of(gone.check_person, person, key) == "grant.revoked"
    gone.check_person("Tom Technician", TOM.key)
    assert code_of(gone.check_grant, make_grant()) == "grant.revoked"
    assert code_of(gone.check_grant, make_grant(subject="Somebody Else")) == "grant.revoked"  # the same card


def test_whoever_is_not_on_the_list_is_suspended_by_key() -> None:
    gone = Roster().suspended("Tess Technician", [TESS.key], now=NOW, reason="")
    assert code_of(gone.check_person, "Another Name", TESS.key) == "grant.revoked"


def test_what_a_suspended_technician_handed_on_is_dead_too() -> None:
    child = delegate_grant(
        make_grant(), TESS, subject="Tom Technician", holder=TOM.key, scope=SCOPE, now=NOW, expires=NOW + HOUR,
        cti=b"d" * 16,
    )  # fmt: skip
    assert code_of(LISTED.suspended("Tess Technician", [], now=NOW, reason="").check_grant, read_grant(child)) == (
        "grant.revoked"
    )


def test_a_lost_key_stays_suspended_when_its_owner_comes_back_with_another() -> None:
    lost = LISTED.suspended("Tess Technician", [], now=NOW, reason="card lost")
    replaced = lost.with_changed(technician(key=TINA.key)).reinstated(
        "Tess Technician", [], now=NOW + 5, reason="new card"
    )
    replaced.check_person("Tess Technician", TINA.key)
    assert code_of(replaced.check_person, "Tess Technician", TESS.key) == "grant.revoked"


def test_a_clock_that_was_ahead_does_not_make_a_suspension_stick() -> None:
    far = LISTED.suspended("Tess Technician", [], now=NOW + 9999 * DAY, reason="")
    assert far.reinstated("Tess Technician", [], now=NOW, reason="").against("Tess Technician", TESS.key) is None
    again = far.reinstated("Tess Technician", [], now=NOW, reason="").suspended(
        "Tess Technician", [], now=NOW, reason=""
    )
    assert code_of(again.check_person, "Tess Technician", TESS.key) == "grant.revoked"


def statement(at: int, suspended: bool, by: str = "Thea Authority") -> Statement:
    return Statement(same_person("Tess Technician"), "Tess Technician", at, suspended, by=by)


def test_lists_taken_in_any_order_come_to_the_same() -> None:
    said = [statement(NOW, True), statement(NOW + 5, False), statement(NOW + 9, True), statement(NOW + 9, False)]
    results = {
        tuple(one.suspended for one in order_of(order).statements.values()) for order in permutations(said)
    }  # fmt: skip
    assert results == {(True,)}  # of two words at one time the suspension
    lifted = order_of([said[1], said[0], said[1]])
    assert lifted.against("Tess Technician", TESS.key) is None


def order_of(order: object) -> Roster:
    roster = Roster()
    for one in order:  # type: ignore[attr-defined]
        roster = roster.merged([one], {})
    return roster


def test_what_a_signed_list_suspended_only_a_signed_list_lifts() -> None:
    there = LISTED.merged([statement(NOW, True)], {})
    assert code_of(there.reinstated, "Tess Technician", [], now=NOW + 9, reason="") == "grant.revoked"
    assert there.merged([statement(NOW + 9, False)], {}).against("Tess Technician", TESS.key) is None


def test_a_grant_that_was_taken_back_is_refused_until_it_expires() -> None:
    one = make_grant()
    taken = Roster().merged((), {one.cti: one.expires})
    assert code_of(taken.check_grant, one) == "grant.revoked"
    taken.check_grant(make_grant(cti=b"o" * 16))
    assert taken.without_expired(one.expires - 1).revoked == {one.cti: one.expires}
    assert taken.without_expired(one.expires).revoked == {}


def test_the_epoch_rises_by_one_and_no_further_than_devices_follow() -> None:
    roster = Roster()
    seen = []
    for _ in range(EPOCH_STEP + 3):
        roster = roster.raised(5)
        seen.append(roster.epoch)
    assert seen[:2] == [6, 7]
    assert seen[-1] == 5 + EPOCH_STEP
    assert roster.raised(40).epoch == 41
    assert roster.in_force(1) == roster.raised(1).epoch == 1 + EPOCH_STEP  # the root set its own back
    assert Roster().raised(None).epoch == 1  # no document is known: nothing says how far
    assert Roster(epoch=2**32 - 1).raised(2**32 - 1).epoch == 2**32 - 1


# the file

FULL = (
    LISTED.with_technician(technician("tom", "Tom Technician", key=TOM.key, sites=["*"], training={"*": NOW}))
    .suspended("Tess Technician", [], now=NOW, reason="left the house")
    .merged([statement(NOW + 9, True)], {b"c" * 16: NOW + HOUR})
    .raised(3)
)


def test_a_list_comes_back_from_its_file() -> None:
    assert decode_roster(encode_roster(FULL)) == FULL
    assert decode_roster(encode_roster(Roster())) == Roster()


def test_every_truncation_and_every_flipped_byte_is_another_list_or_none() -> None:
    data = encode_roster(FULL)
    for end in range(len(data)):
        assert code_of(decode_roster, data[:end]) == "grant.malformed"
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x11
        with contextlib.suppress(Malformed):
            assert decode_roster(bytes(changed)) != FULL


@given(st.binary(max_size=200))
def test_garbage_is_no_list(data: bytes) -> None:
    assert code_of(decode_roster, data) == "grant.malformed"


TECHNICIAN_ROW = ["tess", "Tess Technician", TESS.key.to_map(), ["ward-4"], {"*": NOW}]
STATEMENT_ROW = [same_person("Tess Technician"), "Tess Technician", NOW, True, "", ""]


@pytest.mark.parametrize(
    "value",
    [
        [],
        ["devguard-technicians"],
        ["devguard-technicians", 2, 0, [], [], {}],
        ["devguard-technicians", 1, 0, [], []],
        ["devguard-technicians", 1, -1, [], [], {}],
        ["devguard-technicians", 1, 2**32, [], [], {}],
        ["devguard-technicians", 1, 0, {}, [], {}],
        ["devguard-technicians", 1, 0, [TECHNICIAN_ROW, TECHNICIAN_ROW], [], {}],
        ["devguard-technicians", 1, 0, [TECHNICIAN_ROW, ["tom", *TECHNICIAN_ROW[1:]]], [], {}],
        ["devguard-technicians", 1, 0, [["../tess", *TECHNICIAN_ROW[1:]]], [], {}],
        ["devguard-technicians", 1, 0, [["tess", "a\x1b[0m", *TECHNICIAN_ROW[2:]]], [], {}],
        ["devguard-technicians", 1, 0, [["tess", "Tess", {1: 2}, ["w"], {}]], [], {}],
        ["devguard-technicians", 1, 0, [[*TECHNICIAN_ROW[:3], ["*", "w"], {}]], [], {}],
        ["devguard-technicians", 1, 0, [[*TECHNICIAN_ROW[:3], ["w"], {"*": -1}]], [], {}],
        ["devguard-technicians", 1, 0, [[*TECHNICIAN_ROW[:3], ["w"], []]], [], {}],
        ["devguard-technicians", 1, 0, [], [["tom", *STATEMENT_ROW[1:]]], {}],
        ["devguard-technicians", 1, 0, [], [[b"short", *STATEMENT_ROW[1:]]], {}],
        ["devguard-technicians", 1, 0, [], [[*STATEMENT_ROW[:3], 1, "", ""]], {}],
        ["devguard-technicians", 1, 0, [], [STATEMENT_ROW, STATEMENT_ROW], {}],
        ["devguard-technicians", 1, 0, [], [], {b"short": NOW}],
        ["devguard-technicians", 1, 0, [], [], {b"c" * 16: "soon"}],
        ["devguard-technicians", 1, 0, [], [STATEMENT_ROW] * 5000, {}],
    ],
    ids=str,
)
def test_lists_that_are_none(value: object) -> None:
    assert code_of(decode_roster, wire.encode(value)) == "grant.malformed"


def test_a_list_too_long_is_not_read() -> None:
    assert code_of(decode_roster, bytes(2 << 20)) == "grant.malformed"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "Tess"}, "grant.malformed"),
        ({"name": ""}, "grant.malformed"),
        ({"person": ""}, "grant.malformed"),
        ({"sites": ["*", "ward-4"]}, "grant.malformed"),
        ({"sites": ["\x07"]}, "grant.malformed"),
        ({"training": {"": NOW}}, "grant.malformed"),
        ({"training": {"*": 1 << 50}}, "grant.malformed"),
        ({"key": make_signer(Algorithm.ML_DSA_44, "t").key}, "signature.algorithm"),
        ({"key": make_signer(Algorithm.ESP384, "t").key}, "signature.algorithm"),
    ],
)
def test_technicians_that_are_none(fields: dict[str, object], code: str) -> None:
    assert code_of(technician, **fields) == code


def test_a_statement_is_a_value() -> None:
    assert replace(statement(NOW, True), at=NOW) == statement(NOW, True)
    with pytest.raises(Refused):
        FULL.check_person("Tess Technician", TESS.key)

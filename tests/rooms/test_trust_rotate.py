"""What the maker of the next trust document refuses: numbers beyond what grants can carry, far steps, wild clocks.

Who reads a chain judges it by root rules alone (`test_trust_lockout`); these are the rules for whoever makes it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import DAY, NOW, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.errors import DevguardError
from devguard.grant.scope import MAX_EPOCH
from devguard.trust import codec
from devguard.trust.chain import follow
from devguard.trust.document import build_trust, read_trust, trust_payload
from devguard.trust.model import KeyEntry, Role, TrustDocument
from devguard.trust.rotate import LEAST_LIFE, Change, sign_successor, successor

A, B = (make_signer(Algorithm.ESP256, f"rotate/{name}") for name in "ab")
YEAR = 365 * DAY


def first(**fields: Any) -> TrustDocument:
    given = {"issued": NOW, "expires": NOW + YEAR, **fields}
    role = Role(1, (KeyEntry(A.key, "Ada"),))
    return read_trust(build_trust(trust_payload(version=1, roles={RoleName.ROOT: role}, **given), [A]))


def code_of(call: Any, *args: Any, **fields: Any) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **fields)
    return caught.value.code


def after(held: TrustDocument, issued: int = NOW + DAY, **change: Any) -> TrustDocument:
    options = {name: change.pop(name) for name in ("known", "latest", "clock_is_right", "expires") if name in change}
    return successor(held, Change(**change), issued=issued, **options)


# grant epochs


def test_no_document_holds_an_epoch_that_no_grant_can_carry() -> None:
    held = first()
    codec.decode_payload(codec.encode_payload(replace(held, grant_epoch=MAX_EPOCH)))
    for epoch in (MAX_EPOCH + 1, 2**63 - 1):
        beyond = codec.encode_payload(replace(held, grant_epoch=epoch))
        assert code_of(codec.decode_payload, beyond) == "trust.malformed"
        assert code_of(after, held, grant_epoch=epoch, jump=True) == "trust.malformed"


@pytest.mark.parametrize(("step", "taken"), [(0, True), (16, True), (17, False), (100_000, False)])
def test_an_epoch_goes_as_far_as_devices_follow_in_one_step(step: int, taken: bool) -> None:
    held = first(grant_epoch=3)
    if taken:
        assert after(held, grant_epoch=3 + step).grant_epoch == 3 + step
    else:
        assert code_of(after, held, grant_epoch=3 + step) == "trust.step"
        assert after(held, grant_epoch=3 + step, jump=True).grant_epoch == 3 + step


def test_an_epoch_is_lowered_on_purpose_and_devices_take_it() -> None:
    held = first(grant_epoch=MAX_EPOCH)
    assert code_of(after, held, grant_epoch=4) == "trust.rollback"
    assert code_of(after, held, lowered_epoch=MAX_EPOCH) == "trust.step"
    back = after(held, lowered_epoch=4)
    assert follow(held, [sign_successor(held, back, [A])], NOW + DAY).newest.grant_epoch == 4


# floors


@pytest.mark.parametrize(
    ("floor", "known", "taken"),
    [(23, 0, True), (24, 0, False), (50, 34, True), (51, 34, False), (2**32, 0, False), (2**64 - 1, 2**32, False)],
)
def test_a_floor_goes_no_further_than_a_device_can_reach(floor: int, known: int, taken: bool) -> None:
    """What lies more than `max_step` above all that is known could be installed by nobody."""
    held = first(floors={"pump": 7})
    wish = {"floors": {"pump": floor}, "known": {"pump": known, "other": 2**40}}
    if taken:
        assert after(held, **wish).floors == {"pump": floor}
    else:
        assert code_of(after, held, **wish) == "trust.step"
        assert after(held, **wish, jump=True).floors == {"pump": floor}


def test_a_wider_step_in_the_same_document_counts() -> None:
    assert after(first(), floors={"pump": 100}, max_step=100).floors == {"pump": 100}


def test_a_floor_is_lowered_on_purpose_and_devices_take_it() -> None:
    held = first(floors={"pump": 2**64 - 1, "other": 5})
    assert code_of(after, held, floors={"pump": 5}) == "trust.rollback"
    for wrong in ({"pump": 2**64 - 1}, {"nobody": 0}, {"other": 6}):
        assert code_of(after, held, lowered_floors=wrong) == "trust.step"
    back = after(held, lowered_floors={"pump": 5, "other": 0})
    assert dict(follow(held, [sign_successor(held, back, [A])], NOW + DAY).newest.floors) == {"pump": 5}


# clocks


def test_a_clock_years_ahead_makes_no_document() -> None:
    held = first()
    assert code_of(after, held, NOW + 80 * YEAR) == "clock.ahead"
    assert code_of(after, held, NOW + 2 * YEAR + 1) == "clock.ahead"
    assert after(held, NOW + 2 * YEAR).version == 2  # lapsed a year ago: late, and nothing to wonder at
    assert after(held, NOW + 80 * YEAR, clock_is_right=True).version == 2


def test_a_document_that_lives_long_says_little_and_a_time_seen_here_more() -> None:
    held = first(expires=NOW + 90 * YEAR)
    assert after(held, NOW + 80 * YEAR).version == 2  # nothing here knows better
    assert code_of(after, held, NOW + 80 * YEAR, latest=NOW) == "clock.ahead"
    assert code_of(after, held, NOW + 3 * YEAR, latest=NOW + YEAR - 1) == "clock.ahead"
    assert after(held, NOW + 3 * YEAR, latest=NOW + YEAR).version == 2


def test_what_a_wild_clock_made_is_followed_on_somebody_s_word() -> None:
    """Devices take it (`test_trust_lockout`), so it must be possible to make it."""
    wild = first(issued=NOW + 80 * YEAR, expires=NOW + 81 * YEAR)
    assert code_of(after, wild, NOW + DAY) == "trust.not-yet"
    honest = after(wild, NOW + DAY, clock_is_right=True)
    assert (honest.version, honest.issued) == (2, NOW + DAY)


# lives


def test_a_short_life_is_not_inherited() -> None:
    held = first(expires=NOW + 60)
    assert after(held).expires == NOW + DAY + LEAST_LIFE
    assert after(held, expires=NOW + 2 * DAY).expires == NOW + 2 * DAY
    assert after(first()).expires == NOW + DAY + YEAR


# names


@pytest.mark.parametrize("char", ["\ufe0f", "\u034f", "\u3164", "\u2800"])
def test_two_that_look_like_one_are_not_two_persons(char: str) -> None:
    two = Role(2, (KeyEntry(A.key, "Remy Release"), KeyEntry(B.key, f"Remy{char} Release")))
    fields = {"version": 1, "issued": NOW, "expires": NOW + YEAR}
    assert code_of(trust_payload, roles={RoleName.ROOT: two}, **fields) == "trust.malformed"
    assert code_of(trust_payload, roles={RoleName.ROOT: replace(two, threshold=1)}, **fields) == "trust.malformed"
    one = Role(2, (KeyEntry(A.key, "\u0390"), KeyEntry(B.key, "\u0399\u0308\u0301")))
    assert len(one.persons()) == 1

"""Spent uses, clock floor and epoch: never back, never too far, never forgotten early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAY, NOW
from devguard.errors import Refused
from devguard.grant.uses import (
    EPOCH_STEP,
    FLOOR_STEP,
    SPENT_LIMIT,
    Spent,
    advanced_epoch,
    advanced_floor,
    check_use,
    spend_use,
    uses_left,
)
from grant_support import CTI, HOUR, make_grant, scoped

ONE, TWO = b"1" * 32, b"2" * 32
TIMES = st.integers(0, 2**40)


@given(TIMES, TIMES)
def test_the_floor_never_moves_back_nor_far(floor: int, seen: int) -> None:
    moved = advanced_floor(floor, seen)
    assert floor <= moved <= floor + FLOOR_STEP
    assert moved == seen or moved in (floor, floor + FLOOR_STEP)
    assert advanced_floor(moved, seen) >= moved


@given(st.integers(0, 2**33), st.integers(0, 2**33))
def test_the_epoch_never_moves_back_nor_far(epoch: int, seen: int) -> None:
    moved = advanced_epoch(epoch, seen)
    assert epoch <= moved <= epoch + EPOCH_STEP
    assert moved == seen or moved in (epoch, epoch + EPOCH_STEP)


def test_steps() -> None:
    assert advanced_floor(NOW, NOW + DAY) == NOW + DAY
    assert advanced_floor(NOW, NOW + 31 * DAY) == NOW + 30 * DAY
    assert advanced_floor(NOW, NOW - 1) == NOW
    assert advanced_epoch(3, 19) == 19
    assert advanced_epoch(3, 2**32 - 1) == 19


def test_two_uses_serve_two_releases_and_resuming_is_free() -> None:
    grant = make_grant(scoped(max_uses=2))
    assert uses_left(grant, {}) == 2
    spent = spend_use((grant,), {}, ONE, NOW)
    spent = spend_use((grant,), spent, ONE, NOW)
    assert (uses_left(grant, spent), spent[CTI]) == (1, Spent(ONE, 1, NOW + 8 * HOUR))
    spent = spend_use((grant,), spent, TWO, NOW)
    assert uses_left(grant, spent) == 0
    check_use(grant, spent, TWO)
    for refused in (lambda: check_use(grant, spent, ONE), lambda: spend_use((grant,), spent, ONE, NOW)):
        with pytest.raises(Refused, match=r"grant\.replay"):
            refused()


def test_uncounted_grants_are_not_remembered() -> None:
    grant = make_grant()
    assert uses_left(grant, {}) is None
    assert spend_use((grant,), {}, ONE, NOW) == {}


def test_more_uses_than_allowed_never_resume() -> None:
    grant = make_grant(scoped(max_uses=1))
    with pytest.raises(Refused, match=r"grant\.replay"):
        check_use(grant, {CTI: Spent(ONE, 2, NOW)}, ONE)


def test_memory_is_bounded_and_forgets_only_what_the_floor_has_passed() -> None:
    grant = make_grant(scoped(max_uses=1))
    full = {number.to_bytes(16, "big"): Spent(ONE, 1, NOW + HOUR) for number in range(SPENT_LIMIT)}
    with pytest.raises(Refused, match=r"grant\.replay"):
        spend_use((grant,), full, ONE, NOW)
    with pytest.raises(Refused, match=r"grant\.replay"):
        spend_use((grant,), full, ONE, NOW + HOUR - 1)
    assert set(spend_use((grant,), full, ONE, NOW + HOUR)) == {CTI}
    known = {**dict(list(full.items())[1:]), CTI: Spent(ONE, 1, NOW + 8 * HOUR)}
    assert spend_use((grant,), known, ONE, NOW) == known
    assert len(full) == SPENT_LIMIT

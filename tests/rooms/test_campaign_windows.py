"""Hours by the clock on the wall, over midnight and over the nights on which that clock is set."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.campaign.windows import Hours, Window

BERLIN, NEW_YORK, UTC = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("UTC")
EVERY = frozenset(range(7))


def at(text: str) -> int:
    """Epoch seconds of a moment with its offset."""
    return int(datetime.datetime.fromisoformat(text).timestamp())


def window(start: str, end: str, zone: ZoneInfo = BERLIN, days: frozenset[int] = EVERY) -> Window:
    minutes = [int(text[:2]) * 60 + int(text[3:]) for text in (start, end)]
    return Window(zone, days, (Hours(*minutes),))


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-06-01T21:59:59+02:00", False),
        ("2026-06-01T22:00:00+02:00", True),
        ("2026-06-02T04:59:59+02:00", True),
        ("2026-06-02T05:00:00+02:00", False),
        ("2026-12-01T22:00:00+01:00", True),
        ("2026-12-01T21:00:00+00:00", True),
    ],
)
def test_edges_over_midnight(moment: str, is_open: bool) -> None:
    assert window("22:00", "05:00").is_open(at(moment)) is is_open


def test_a_day_is_that_of_the_start() -> None:
    monday = window("22:00", "05:00", days=frozenset({0}))
    assert monday.is_open(at("2026-06-01T23:00:00+02:00"))  # a Monday
    assert monday.is_open(at("2026-06-02T04:00:00+02:00"))
    assert not monday.is_open(at("2026-06-01T04:00:00+02:00"))
    assert not monday.is_open(at("2026-06-02T23:00:00+02:00"))
    assert monday.next_open(at("2026-06-02T05:00:00+02:00")) == at("2026-06-08T22:00:00+02:00")


def test_when_the_clock_is_set_forward_the_missing_hour_is_not_waited_for() -> None:
    # Berlin, 2026-03-29: 02:00 becomes 03:00
    early = window("02:30", "04:00")
    assert early.next_open(at("2026-03-29T00:00:00+01:00")) == at("2026-03-29T03:00:00+02:00")
    gone = window("02:10", "02:50")
    assert gone.next_open(at("2026-03-29T00:00:00+01:00")) == at("2026-03-30T02:10:00+02:00")


def test_when_the_clock_is_set_back_an_hour_that_comes_twice_is_open_twice() -> None:
    # Berlin, 2026-10-25: 03:00 becomes 02:00
    night = window("02:15", "02:45")
    moments = ["02:20:00+02:00", "02:50:00+02:00", "02:10:00+01:00", "02:20:00+01:00", "02:50:00+01:00"]
    assert [night.is_open(at(f"2026-10-25T{one}")) for one in moments] == [True, False, False, True, False]
    assert night.next_open(at("2026-10-25T02:45:00+02:00")) == at("2026-10-25T02:15:00+01:00")


def test_a_window_round_the_clock() -> None:
    assert window("00:00", "00:00").is_open(at("2026-06-01T12:00:00+02:00"))


MOMENTS = st.integers(at("2026-01-01T00:00:00+00:00"), at("2027-01-01T00:00:00+00:00"))
WINDOWS = st.builds(
    Window,
    st.sampled_from([BERLIN, NEW_YORK, UTC, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")]),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.lists(st.builds(Hours, st.integers(0, 1439), st.integers(0, 1439)), min_size=1, max_size=2).map(tuple),
)


@given(WINDOWS, MOMENTS)
def test_the_next_opening_is_open_and_nothing_before_it_is(one: Window, now: int) -> None:
    found = one.next_open(now)
    assert found is not None
    assert found >= now
    assert one.is_open(found)
    span = found - now
    assert not any(one.is_open(now + span * part // 97) for part in range(97) if span * part // 97 < span)
    assert found == now or not one.is_open(found - 1)


@given(WINDOWS, MOMENTS)
def test_it_says_what_the_wall_clock_says(one: Window, now: int) -> None:
    wall = datetime.datetime.fromtimestamp(now, one.zone)
    minute, day = wall.hour * 60 + wall.minute, wall.weekday()
    said = False
    for hours in one.hours:
        length = (hours.end - hours.start) % 1440 or 1440
        said |= day in one.days and 0 <= minute - hours.start < length
        said |= (day - 1) % 7 in one.days and 0 <= minute + 1440 - hours.start < length
    assert one.is_open(now) is said

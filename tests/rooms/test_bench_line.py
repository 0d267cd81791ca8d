"""The virtual line: bytes arrive when their last bit has, in order, counted, as the shape says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.bench.impair import Damage
from devguard.bench.line import VirtualClock, VirtualLine
from devguard.bench.way import ADAPTER_PACKET, Shape, Way
from devguard.errors import LocalProtocolError


def arrivals(way: Way, end: float = 1e6) -> list[tuple[float, bytes]]:
    """(time, bytes) of everything that arrives, taken at the moments the way itself names."""
    found = []
    while (at := way.due()) is not None and at <= end:
        found += [(round(at, 9), data) for data in way.take(at)]
    return found


def test_ten_bits_a_byte_and_the_latency() -> None:
    way = Way(Shape(baud=1000, latency=0.5), "s")
    way.put(b"abc\x00de", 10.0)
    way.put(b"f\x00", 10.0)
    way.put(b"late\x00", 20.0)
    assert arrivals(way) == [(10.54, b"abc\x00"), (10.56, b"de"), (10.58, b"f\x00"), (20.55, b"late\x00")]
    assert (way.sent, way.arrived) == (13, 13)


def test_a_line_without_speed_takes_no_time() -> None:
    way = Way(Shape(baud=0), "s")
    way.put(b"x" * 10_000, 3.0)
    assert arrivals(way) == [(3.0, b"x" * 10_000)]


def test_nothing_arrives_before_its_time() -> None:
    way = Way(Shape(baud=1000), "s")
    way.put(b"a\x00", 0.0)
    assert way.take(0.0199) == []
    assert way.take(0.0201) == [b"a\x00"]
    assert way.due() is None


def test_a_pulled_cable_loses_the_bytes_that_leave_meanwhile_and_no_others() -> None:
    way = Way(Shape(baud=1000, cuts=((0.03, 0.05), (0.08, 0.09))), "s")
    way.put(b"0123456789", 0.0)
    assert arrivals(way) == [(0.1, b"0125679")]
    assert (way.sent, way.arrived) == (10, 7)


def test_on_a_virtual_clock_cuts_count_from_the_lines_first_moment() -> None:
    line = VirtualLine.of(Shape(baud=1000, cuts=((0.03, 0.05),)), 1, VirtualClock(500.0))
    line.forward.put(b"012345", 500.0)
    assert arrivals(line.forward) == [(500.06, b"0125")]
    assert VirtualLine.of(Shape(baud=1000), 1).forward.shape == Shape(baud=1000)


def test_an_adapter_keeps_bytes_back_until_its_timer_ends_or_a_packet_is_full() -> None:
    way = Way(Shape(baud=1_000_000, latency=0.001), "s", return_timer=0.016)
    way.put(b"x" * 10, 0.100)  # the timer runs from 0: 0.112 is the seventh time it ends
    way.put(b"y" * 5, 0.105)
    way.put(b"z" * 100, 0.120)
    way.put(b"w", 0.200)
    got = arrivals(way)
    assert got[0] == (0.113, b"x" * 10 + b"y" * 5)
    assert got[1] == (round(0.120 + ADAPTER_PACKET * 1e-5 + 0.001, 9), b"z" * ADAPTER_PACKET)
    assert got[2] == (round(0.120 + ADAPTER_PACKET * 1e-5 + 0.016 + 0.001, 9), b"z" * (100 - ADAPTER_PACKET))
    assert got[3][1] == b"w"
    assert 0.201 <= got[3][0] <= 0.2175


@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.binary(max_size=200)), max_size=12),
    st.sampled_from([0.0, 0.001, 0.016]),
    st.sampled_from([0, 9600, 3_000_000]),
)
def test_every_byte_arrives_once_in_order_and_no_later_than_the_timer_lets_it(
    writes: list[tuple[float, bytes]], timer: float, baud: int
) -> None:
    way, now, got, latest = Way(Shape(baud, 0.002), "s", return_timer=timer), 0.0, [], 0.0
    for pause, data in writes:
        now += pause
        got += arrivals(way, now)
        way.put(data, now)
        latest = max(latest, now) + len(data) * way.shape.byte_time
    got += arrivals(way)
    assert b"".join(data for _, data in got) == b"".join(data for _, data in writes)
    times = [at for at, _ in got]
    assert times == sorted(times)
    assert not times or times[-1] <= latest + 0.002 + timer + 1e-6


def test_damage_is_done_to_both_directions_each_in_its_own_places() -> None:
    line, sent = VirtualLine.of(Shape(baud=0, damage=Damage(ber=1e-3)), 7), b"\x55" * 100_000
    for way in (line.forward, line.back):
        way.put(sent, 0.0)
    forward, back = (b"".join(data for _, data in arrivals(way)) for way in (line.forward, line.back))
    assert forward != back
    for got in (forward, back):
        assert 600 < sum((one ^ other).bit_count() for one, other in zip(got, sent, strict=True)) < 1000


def test_a_busy_device_is_busy_for_the_sum_of_its_work() -> None:
    clock = VirtualClock(10.0)
    clock.spend(0.5)
    clock.spend(0.25)
    assert clock.busy == 10.75
    clock.now = 20.0
    clock.spend(1.0)
    assert clock.busy == 21.0


@pytest.mark.parametrize(
    "wrong",
    [{"baud": -1}, {"latency": -0.1}, {"return_timer": -0.1}, {"cuts": ((2.0, 1.0),)}, {"cuts": ((-1.0, 1.0),)}],
)
def test_a_line_has_no_negative_numbers(wrong: dict[str, float]) -> None:
    with pytest.raises(LocalProtocolError):
        Shape(**wrong)  # type: ignore[arg-type]

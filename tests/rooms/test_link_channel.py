"""Timers, segment sizes, sender and receiver, each alone."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import pytest

from devguard.errors import LocalProtocolError, RemoteProtocolError
from devguard.link.channel import Receiver, Segment, Sender, nearest
from devguard.link.frames import Acknowledgement, Kind
from devguard.link.parameters import LinkParameters, PeerLimits
from devguard.link.timing import LineClock, RoundTrip, SegmentSizer

FAST = LinkParameters(baud=0, segment_start=128, segment_max=128, window_bytes=1024)


def sender(parameters: LinkParameters = FAST) -> Sender:
    return Sender(parameters, RoundTrip(parameters), PeerLimits(parameters.window_bytes, parameters.segment_max))


def receiver(parameters: LinkParameters = FAST) -> Receiver:
    return Receiver(parameters, RoundTrip(parameters))


def transmit(source: Sender, now: float) -> list[Segment]:
    sent = []
    while source.ready():
        segment = source.take()
        source.sent(segment, now)
        sent.append(segment)
    return sent


def ack(cumulative: int, *later: int, credit: int = 16) -> Acknowledgement:
    bits = sum(1 << (number - cumulative - 1) for number in later)
    return Acknowledgement(cumulative & 0xFFFF, credit, bits.to_bytes((bits.bit_length() + 7) // 8, "little"))


@pytest.mark.parametrize(
    "change",
    [{"segment_min": 0}, {"segment_max": 100}, {"window_bytes": 64}, {"rto_min": 9.0}, {"give_up": 0},
     {"segments_in_flight": 257}, {"baud": -1}, {"later_acked": 0}, {"window_bytes": 1 << 30},
     {"send_ahead": -0.01}, {"segment_seconds": 0}, {"losses_remembered": 1}],
)  # fmt: skip
def test_contradicting_parameters_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError):
        LinkParameters(**change)


def test_nearest_rebuilds_whole_numbers_across_the_wrap() -> None:
    for whole in (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x12345):
        for offset in (-300, -1, 0, 1, 300):
            if whole + offset >= 0:
                assert nearest(whole, (whole + offset) & 0xFFFF) == whole + offset


def test_round_trip_follows_rfc_6298() -> None:
    measured = RoundTrip(LinkParameters(rto_min=0.001, rto_initial=1.0))
    assert measured.timeout == 1.0
    measured.sample(0.1)
    assert measured.timeout == pytest.approx(0.1 + 4 * 0.05)
    measured.sample(0.2)
    assert measured.smoothed == pytest.approx(0.1125)
    assert measured.timeout == pytest.approx(0.1125 + 4 * 0.0625)
    measured.backoff = 2
    assert measured.timeout == pytest.approx(4 * (0.1125 + 4 * 0.0625))
    measured.backoff = 60
    assert measured.timeout == measured._parameters.rto_max
    measured.sample(0.1)
    assert measured.backoff == 0
    assert measured.least == pytest.approx(0.1)


def test_a_slow_line_waits_longer_at_least() -> None:
    for baud, floor in ((921_600, 0.05), (9600, 0.05 + 128 / 960)):
        measured = RoundTrip(LinkParameters(baud=baud))
        measured.sample(0.0)
        assert measured.timeout == pytest.approx(floor, rel=0.05)


def test_segment_size_grows_on_a_clean_line_and_shrinks_with_loss() -> None:
    limits = LinkParameters()
    sizer = SegmentSizer(limits)
    assert sizer.size(4096) == limits.segment_start
    for _ in range(100):
        sizer.arrived(sizer.size(4096))
    assert sizer.size(4096) == limits.segment_max
    assert sizer.size(512) == 512
    for _ in range(30):
        sizer.lost(256)
    assert sizer.size(4096) == limits.segment_min  # a line that turns bad is found out within a few frames
    for _ in range(20_000):
        sizer.arrived(1024)
    assert sizer.size(4096) == limits.segment_max  # old losses fade


@pytest.mark.parametrize("rate", [1e-3, 1e-4, 1e-5])
def test_segment_size_settles_near_the_best_for_the_loss(rate: float) -> None:
    limits, source = LinkParameters(), random.Random(1)
    sizer, sizes = SegmentSizer(limits), []
    for _ in range(4000):
        size = sizer.size(4096)
        sizes.append(size)
        if source.random() < 1 - (1 - rate) ** (size + limits.overhead):
            sizer.lost(size)
        else:
            sizer.arrived(size)
    best = min(max((limits.overhead / rate) ** 0.5, limits.segment_min), limits.segment_max)
    assert 0.75 < statistics.median(sizes[1000:]) / best < 1.35


def test_no_segment_holds_a_slow_line_for_long() -> None:
    sizer = SegmentSizer(LinkParameters(baud=9600))
    for _ in range(1000):
        sizer.arrived(4096)
    assert sizer.size(4096) == 9600 // 10 * 5 // 2
    assert SegmentSizer(LinkParameters(baud=300)).limit(4096) == LinkParameters().segment_min


def test_line_clock_counts_what_has_left_and_opens_a_little_before() -> None:
    clock = LineClock(LinkParameters(baud=10_000, send_ahead=0.02))
    assert clock.depart(100, 5.0) == pytest.approx(5.1)
    assert clock.depart(100, 5.0) == pytest.approx(5.2)
    assert clock.opens_at == pytest.approx(5.18)
    assert clock.depart(100, 7.0) == pytest.approx(7.1)
    clock.outrun(7.0)
    assert clock.depart(100, 7.0) == pytest.approx(7.05)
    assert LineClock(LinkParameters(baud=0)).depart(10**6, 7.0) == 7.0


def test_message_is_cut_and_fin_marks_the_last_segment() -> None:
    source = sender()
    source.queue(Kind.DATA, b"a" * 300, 0.0)
    source.queue(Kind.DATA, b"", 0.0)
    parts = transmit(source, 0.0)
    assert [(len(p.body), p.fin, p.sequence) for p in parts] == [
        (100, False, 0), (100, False, 1), (100, True, 2), (0, True, 3)]  # fmt: skip
    assert source.pending_bytes == 300
    source.acknowledge(ack(4), 0.1)
    assert source.pending_bytes == 0
    assert not source.outstanding


def test_window_in_bytes_holds_the_sender_back() -> None:
    source = sender()
    source.queue(Kind.DATA, b"a" * 5120, 0.0)
    assert len(transmit(source, 0.0)) == 1024 // 128
    source.acknowledge(ack(1, 2, 3), 0.1)  # what is SACKed still occupies the peer's buffer
    assert [s.sequence for s in transmit(source, 0.1)] == [1, 8]
    source.acknowledge(ack(4, credit=0), 0.15)
    assert transmit(source, 0.15) == []
    source.acknowledge(ack(9, credit=0), 0.3)
    assert len(transmit(source, 0.3)) == 1  # a closed window never stops the last segment in flight


def test_no_more_segments_travel_than_a_bitmap_can_tell_of() -> None:
    source = sender(replace(FAST, segments_in_flight=3))
    source.queue(Kind.DATA, b"a" * 5120, 0.0)
    assert [s.sequence for s in transmit(source, 0.0)] == [0, 1, 2]
    source.acknowledge(ack(1, 2), 0.1)  # 2 has arrived early: its number is still in the bitmap
    assert [s.sequence for s in transmit(source, 0.1)] == [1, 3]


@pytest.mark.parametrize("needed", [1, 3])
def test_later_acknowledgements_retransmit(needed: int) -> None:
    source = sender(replace(FAST, later_acked=needed))
    source.queue(Kind.DATA, b"a" * 5120, 0.0)
    transmit(source, 0.0)
    for later in range(1, needed):
        source.acknowledge(ack(0, *range(1, later + 1)), 0.01)
        assert not source.ready()
    source.acknowledge(ack(0, *range(1, needed + 1)), 0.01)
    again = transmit(source, 0.01)
    assert [(s.sequence, s.transmissions) for s in again] == [(0, 2)]


def test_a_segment_lost_twice_is_sent_a_third_time_on_the_same_evidence() -> None:
    source = sender()
    source.queue(Kind.DATA, b"a" * 5120, 0.0)
    transmit(source, 0.0)
    source.acknowledge(ack(0, 1), 0.01)
    assert [s.sequence for s in transmit(source, 0.01)] == [0]
    source.acknowledge(ack(0, 1, 2, 3), 0.02)  # left before the second transmission of 0
    assert not source.ready()
    source.acknowledge(ack(0, 1, 2, 3, 4, 5, 6, 7), 0.02)
    assert transmit(source, 0.02) == []
    source.queue(Kind.DATA, b"b" * 128, 0.02)
    source._window = 4096
    assert [s.sequence for s in transmit(source, 0.03)][:1] == [8]
    source.acknowledge(ack(0, 1, 2, 3, 4, 5, 6, 7, 8), 0.04)
    assert [s.sequence for s in transmit(source, 0.04)][:1] == [0]


def test_karn_no_sample_from_a_segment_that_was_lost_and_sent_again() -> None:
    source = sender()
    source.queue(Kind.DATA, b"x" * 256, 0.0)
    transmit(source, 0.0)
    source.acknowledge(ack(0, 1), 0.1)
    assert source.round_trip.smoothed == pytest.approx(0.1)
    transmit(source, 0.1)
    source.acknowledge(ack(2), 5.0)
    assert source.round_trip.smoothed == pytest.approx(0.1)


def test_an_answer_slower_than_the_time_out_makes_the_time_out_longer() -> None:
    source, now = sender(), 0.0
    for _ in range(6):  # each answer takes 0.4 s, and no segment would ever be sent only once
        source.queue(Kind.DATA, b"x", now)
        transmit(source, now)
        answered = now + 0.4
        source.round_trip.sample(0.01) if now == 0.0 else None
        while (due := source.deadline()) is not None and due < answered:
            source.expire(due)
            transmit(source, due)
            source.pinged(due)
        now = answered
        source.acknowledge(ack(source._next), now)
    assert source.round_trip.timeout > 0.4
    assert source.timeouts < 8


def test_a_silent_line_is_probed_once_with_a_segment_then_with_pings_ever_more_slowly() -> None:
    source = sender()
    source.queue(Kind.DATA, b"a" * 5120, 0.0)
    assert len(transmit(source, 0.0)) == 8
    now, gaps, again = 0.0, [], []
    for _ in range(6):
        due = source.deadline()
        assert due is not None
        gaps.append(due - now)
        now = due
        source.expire(now)
        again += transmit(source, now)
        assert source.ping_due
        source.pinged(now)
        assert not source.ping_due
    assert gaps == [1.0, 2.0, 4.0, 4.0, 4.0, 4.0]
    assert [s.sequence for s in again] == [0]
    source.acknowledge(ack(1), now)  # the answer to the last PING: all that left before it and is not in it is lost
    assert [s.sequence for s in transmit(source, now)][:7] == [1, 2, 3, 4, 5, 6, 7]


def test_a_peer_that_answers_is_not_gone_and_is_asked_on() -> None:
    source, now, gaps = sender(), 0.0, []
    source.queue(Kind.DATA, b"a" * 128, 0.0)
    transmit(source, 0.0)
    for _ in range(6):  # the one long segment is damaged each time, and each short PING gets through
        due = source.deadline()
        assert due is not None
        gaps.append(due - now)
        now = due
        source.expire(now)
        transmit(source, now)
        source.pinged(now)
        source.acknowledge(ack(0), now + 0.001)
        transmit(source, now + 0.001)
        now += 0.001
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 4.0, 4.0, 4.0])
    assert source.round_trip.backoff == 2


def test_the_answer_to_a_ping_tells_what_is_lost_and_an_earlier_word_does_not() -> None:
    source = sender()
    source.round_trip.sample(0.2)
    source.queue(Kind.DATA, b"a" * 512, 0.0)
    transmit(source, 0.0)
    due = source.deadline()
    assert due is not None
    source.expire(due)
    assert [s.sequence for s in transmit(source, due)] == [0]
    source.pinged(due)
    source.acknowledge(ack(1), due + 0.1)  # sooner than any round trip: it was on its way already
    assert not source.ready()
    source.acknowledge(ack(1), due + 0.2)
    assert [s.sequence for s in transmit(source, due + 0.2)] == [1, 2, 3]


def test_a_ping_follows_a_segment_sent_again_when_nothing_else_does() -> None:
    source = sender()
    source.queue(Kind.DATA, b"a" * 384, 0.0)
    transmit(source, 0.0)
    assert not source.ping_due
    source.acknowledge(ack(1, 2), 0.01)
    assert [s.sequence for s in transmit(source, 0.01)] == [1]
    assert source.ping_due
    source.pinged(0.01)
    source.acknowledge(ack(1, 2), 0.03)  # its answer: lost again, and known at once
    source.queue(Kind.DATA, b"b", 0.03)
    assert [s.sequence for s in transmit(source, 0.03)] == [1, 3]
    assert not source.ping_due
    assert source.timeouts == 0


def test_an_answer_before_half_of_its_question_can_have_left_outruns_the_line() -> None:
    for answered, early in ((1.04, True), (1.06, False)):
        source = sender()
        source.queue(Kind.DATA, b"x", 1.0)
        source.sent(source.take(), 1.1, 0.1)
        source.acknowledge(ack(1), answered)
        assert source.outrun() is early
        assert not source.outrun()


def test_what_still_queues_for_the_line_is_not_overdue() -> None:
    source = sender()
    source.queue(Kind.DATA, b"a" * 256, 0.0)
    for departed in (1.0, 50.0):
        source.sent(source.take(), departed)
    source.expire(10.0)
    assert [s.sequence for s in transmit(source, 10.0)] == [0]


@pytest.mark.parametrize("forged", [ack(9), ack(0, 8), ack(8, 9), ack(0x7000)])
def test_acknowledging_the_unsent_is_a_broken_rule(forged: Acknowledgement) -> None:
    source = sender()
    source.queue(Kind.DATA, b"a" * 5000, 0.0)
    transmit(source, 0.0)
    with pytest.raises(RemoteProtocolError):
        source.acknowledge(forged, 0.1)
    source.acknowledge(ack(8), 0.1)
    source.acknowledge(ack(3, 5), 0.1)  # an old acknowledgement that the line kept is harmless
    assert source.outstanding


def test_receiver_orders_joins_and_acknowledges_gaps_at_once() -> None:
    sink = receiver()
    assert sink.accept(Kind.DATA, 0, False, b"a", 1.0) == []
    assert sink.ack_at == pytest.approx(1.0 + FAST.ack_delay_max)
    assert sink.take_ack(1.0) is None
    assert sink.accept(Kind.DATA, 3, True, b"d", 1.0) == []
    assert sink.take_ack(1.0) == ack(1, 3)
    assert sink.accept(Kind.DATA, 2, False, b"c", 1.0) == []
    assert sink.take_ack(1.0) == ack(1, 2, 3)
    assert sink.accept(Kind.DATA, 1, True, b"b", 1.0) == [b"ab", b"cd"]
    assert sink.take_ack(1.0) == ack(4)
    assert sink.early_bytes == 0


def test_receiver_acknowledges_a_long_segment_by_itself() -> None:
    sink = receiver(LinkParameters())
    sink.accept(Kind.DATA, 0, False, bytes(511), 1.0)
    assert sink.take_ack(1.0) is None
    sink = receiver(LinkParameters())
    sink.accept(Kind.DATA, 0, False, bytes(512), 1.0)
    assert sink.take_ack(1.0) == ack(1, credit=256)


def test_receiver_coalesces_every_second_segment_and_drops_doubles() -> None:
    sink = receiver()
    sink.accept(Kind.DATA, 0, True, b"a", 1.0)
    assert sink.take_ack(1.0) is None
    sink.accept(Kind.DATA, 1, True, b"b", 1.0)
    assert sink.take_ack(1.0) == ack(2)
    assert sink.accept(Kind.DATA, 0, True, b"a", 2.0) == []
    assert sink.duplicates == 1
    assert sink.take_ack(2.0) == ack(2)  # the peer missed an acknowledgement


def test_receiver_holds_what_comes_early_once() -> None:
    sink = receiver()
    for _ in range(3):
        assert sink.accept(Kind.DATA, 1, True, b"b" * 100, 1.0) == []
    assert (sink.early_bytes, sink.duplicates) == (100, 2)
    assert sink.accept(Kind.DATA, 0, True, b"a", 1.0) == [b"a", b"b" * 100]
    assert sink.early_bytes == 0


def test_receiver_buffer_stays_inside_its_window() -> None:
    sink = receiver()
    for number in range(1, 400):
        sink.accept(Kind.DATA, number, True, b"x" * 128, 1.0)
        assert sink.early_bytes <= FAST.window_bytes
    small = receiver()
    for number in range(1, 400):
        small.accept(Kind.DATA, number, True, b"", 1.0)
    answer = small.take_ack(1.0)
    assert answer is not None
    assert len(answer.bitmap) == 32


@pytest.mark.parametrize("size", [129, 4096])
def test_receiver_refuses_longer_segments_than_announced(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        receiver().accept(Kind.DATA, 0, True, b"x" * size, 0.0)


def test_receiver_refuses_endless_messages_and_empty_middles() -> None:
    sink = receiver(LinkParameters(max_message=1000))
    sink.accept(Kind.DATA, 0, False, b"x" * 1000, 0.0)
    with pytest.raises(RemoteProtocolError):
        sink.accept(Kind.DATA, 1, True, b"x", 0.0)
    with pytest.raises(RemoteProtocolError):
        receiver().accept(Kind.DATA, 0, False, b"", 0.0)


def test_close_comes_last_and_once() -> None:
    sink = receiver()
    sink.accept(Kind.CLOSE, 1, False, b"", 0.0)
    assert not sink.closed
    assert sink.accept(Kind.DATA, 0, True, b"a", 0.0) == [b"a"]
    assert sink.closed
    with pytest.raises(RemoteProtocolError):
        sink.accept(Kind.DATA, 2, True, b"late", 0.0)
    torn = receiver()
    torn.accept(Kind.DATA, 0, False, b"a", 0.0)
    with pytest.raises(RemoteProtocolError):
        torn.accept(Kind.CLOSE, 1, False, b"", 0.0)

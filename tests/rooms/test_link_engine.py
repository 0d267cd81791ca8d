"""Two engines on one line. Invariant: a message arrives once, in order, or its sender's engine says Failed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devguard.bench.impair import Damage
from devguard.bench.way import Shape
from devguard.errors import LinkError, LocalProtocolError, Refused
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Closed, Failed, Message, Opened, PlainLost, Role
from devguard.link.frames import Acknowledgement, FrameReader, Kind, decode_frame, encode_frame, encode_header
from devguard.link.parameters import LinkParameters
from link_support import Bench, CcmProtector, Faults, check_line, seeded

PLAIN, SEALED = Channel.PLAIN, Channel.SEALED


def texts(seed: int, count: int, largest: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(source.randrange(largest)) for _ in range(count)]


def converse(bench: Bench, forth: list[bytes], back: list[bytes], channel: Channel = SEALED) -> bool:
    for message in forth:
        bench.host.send(channel, message, bench.now)
    for message in back:
        bench.device.send(channel, message, bench.now)
    return bench.run(lambda: bench.host.idle and bench.device.idle)


def frames(wire: bytes) -> list:
    return [decode_frame(raw) for raw in FrameReader(10_000).feed(bytes(wire))]


def test_open_then_plain_messages_both_ways() -> None:
    bench = Bench().opened()
    assert [type(e) for e in bench.events[bench.host]] == [Opened]
    assert bench.events[bench.host] == bench.events[bench.device]
    assert converse(bench, [b"hello", b""], [b"y" * 3000], PLAIN)
    assert bench.messages(bench.device, PLAIN) == [b"hello", b""]
    assert bench.messages(bench.host, PLAIN) == [b"y" * 3000]
    assert bench.host.next_timeout(bench.now) is None


def test_messages_queued_before_the_device_answers_arrive() -> None:
    bench = Bench()
    bench.host.open(bench.now)
    bench.host.send(PLAIN, b"early", bench.now)
    assert bench.run(lambda: bench.messages(bench.device, PLAIN) == [b"early"])


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(loss=0.2), id="loss"),
        pytest.param(Faults(double=0.5), id="duplication"),
        pytest.param(Faults(flip=1e-4), id="bit flips"),
        pytest.param(Faults(noise=0.3), id="noise bursts"),
        pytest.param(Faults(delay=0.2), id="reordering"),
        pytest.param(Faults(chunk=1), id="single bytes"),
        pytest.param(Faults(baud=9600, latency=0.3, loss=0.02), id="slow and far"),
        pytest.param(Faults(0.05, 0.05, 0.05, 1e-5, 0.05, chunk=7), id="everything"),
    ],
)
@pytest.mark.parametrize("channel", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_everything_arrives_once_and_in_order(faults: Faults, channel: Channel) -> None:
    bench = Bench(seed=7, faults=faults, parameters=LinkParameters(baud=faults.baud)).opened()
    bench.attach(per_epoch=50)
    forth, back = texts(1, 6, 9000), texts(2, 6, 9000)
    assert converse(bench, forth, back, channel)
    assert bench.messages(bench.device, channel) == forth
    assert bench.messages(bench.host, channel) == back
    assert not bench.failures(bench.host) + bench.failures(bench.device)


@settings(max_examples=40)
@given(
    st.integers(0, 2**32),
    st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0, 0.3), st.floats(0, 2e-4), st.floats(0, 0.4),
    st.integers(0, 40),
    st.booleans(),
    st.lists(st.integers(0, 6000), max_size=6),
)  # fmt: skip
def test_never_silent(seed, loss, double, delay, flip, noise, chunk, sealed, sizes) -> None:
    faults = Faults(loss, double, delay, flip, noise, chunk=chunk)
    bench = Bench(seed, faults, LinkParameters(give_up=30.0))
    bench.host.open(bench.now)
    channel = SEALED if sealed else PLAIN
    bench.run(lambda: bool(bench.events[bench.host]) and bool(bench.events[bench.device]))
    if bench.failures(bench.host):
        return
    bench.attach(per_epoch=64)
    forth = [random.Random(seed + at).randbytes(size) for at, size in enumerate(sizes)]
    back = [message[::-1] for message in forth]
    for message, answer in zip(forth, back, strict=True):
        bench.host.send(channel, message, bench.now)
        bench.device.send(channel, answer, bench.now)
    bench.run(lambda: (bench.host.idle or bench.host.failed) and (bench.device.idle or bench.device.failed))
    arrived, answered = bench.messages(bench.device, channel), bench.messages(bench.host, channel)
    assert arrived == forth[: len(arrived)]
    assert answered == back[: len(answered)]
    told = [e for end in (bench.host, bench.device) for e in bench.events[end] if isinstance(e, (Failed, PlainLost))]
    assert (arrived, answered) == (forth, back) or told
    assert all(event.code == "link.timeout" for event in told)


def test_every_transmission_takes_a_fresh_counter() -> None:
    bench = Bench(seed=3, faults=Faults(loss=0.3, double=0.1)).opened()
    protectors = bench.attach(per_epoch=40)
    assert converse(bench, texts(4, 8, 8000), texts(5, 8, 8000))
    assert bench.host.statistics.retransmits > 5
    for protector, engine in zip(protectors, (bench.host, bench.device), strict=True):
        sealed = [frame for frame in frames(bench.wire[engine]) if frame.nonce is None]
        assert len(set(protector.used)) == len(protector.used) == len(sealed)
        assert [(f.epoch, f.counter) for f in sealed] == [(e & 3, c & 0xFFFF) for e, c in protector.used]
        assert max(protector.used)[0] >= 2
    bodies = [(f.sequence, f.body) for f in frames(bench.wire[bench.host]) if f.nonce is None and f.kind is Kind.DATA]
    assert len({sequence for sequence, _ in bodies}) < len(bodies) == len({body for _, body in bodies})


def test_sequence_numbers_survive_the_wrap() -> None:
    limits = LinkParameters(baud=0, segment_min=64, segment_start=64, segment_max=64, give_up=1e9)
    bench = Bench(parameters=limits, faults=Faults(baud=0, latency=0.0)).opened()
    bench.attach()
    for engine, other in ((bench.host, bench.device), (bench.device, bench.host)):
        engine._sealed.sender._next = other._sealed.receiver._next = 0xFFF0  # type: ignore[union-attr]
    bench.faults = Faults(loss=0.1, delay=0.1, baud=0)
    forth = texts(6, 4, 4000)
    assert converse(bench, forth, forth)
    assert bench.messages(bench.device) == bench.messages(bench.host) == forth


def test_a_new_open_resets_only_the_plain_channel_and_an_old_one_nothing() -> None:
    bench = Bench().opened()
    bench.attach()
    first = bytes(bench.wire[bench.host])
    bench.device.send(SEALED, b"kept", bench.now)
    bench.host._random = seeded(99)
    newcomer = LinkEngine(Role.HOST, bench.parameters, seeded(5))
    newcomer.open(bench.now)
    bench.inject(bench.device, newcomer.data_to_send(bench.now))
    assert len([e for e in bench.events[bench.device] if isinstance(e, Opened)]) == 2
    assert bench.device.pending_bytes(SEALED) == 4
    bench.inject(bench.device, first)  # the first OPEN, kept by the line
    assert len([e for e in bench.events[bench.device] if isinstance(e, Opened)]) == 2
    newcomer.send(PLAIN, b"hello", bench.now)
    newcomer.receive_bytes(bench.device.data_to_send(bench.now), bench.now)
    bench.inject(bench.device, newcomer.data_to_send(bench.now))
    assert bench.messages(bench.device, PLAIN) == [b"hello"]


def test_a_new_attach_replaces_the_old_channel() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.faults = Faults(loss=1.0)
    converse_until = bench.now + 3
    bench.host.send(SEALED, b"lost with the old keys", bench.now)
    bench.run(lambda: bench.now > converse_until, 4.0)
    bench.faults = Faults()
    bench.attach(seed=b"n")
    assert converse(bench, [b"new"], [b"keys"])
    assert bench.messages(bench.device) == [b"new"]


def test_opening_again_gives_up_the_hosts_sealed_channel() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.host.open(bench.now)
    with pytest.raises(LocalProtocolError):
        bench.host.send(SEALED, b"x", bench.now)
    assert bench.run(lambda: len(bench.events[bench.host]) == 2)


def test_cable_pulled_for_a_minute_fails_by_default() -> None:
    bench = Bench(parameters=LinkParameters(ack_delay_max=0.01)).opened()
    bench.attach()
    start = bench.now
    bench.faults = Faults(cuts=((start + 0.5, start + 70.0),))
    bench.host.send(SEALED, bytes(20_000), start)
    bench.run(lambda: bench.host.failed is not None)
    assert bench.failures(bench.host) == ["link.timeout"]
    assert 60.0 <= bench.now - start <= 62.0
    assert isinstance(bench.host.failed.error(), LinkError)


def test_cable_pulled_for_a_minute_is_survived_with_patience() -> None:
    bench = Bench(parameters=LinkParameters(give_up=90.0)).opened()
    bench.attach()
    start = bench.now
    bench.faults = Faults(cuts=((start + 0.5, start + 60.5),))
    forth, back = texts(8, 5, 20_000), texts(9, 5, 20_000)
    before = bench.host.statistics.bytes_sent
    assert converse(bench, forth, back)
    assert bench.messages(bench.device) == forth
    assert bench.messages(bench.host) == back
    assert bench.host.statistics.bytes_sent - before < 2 * sum(map(len, forth))  # a dead line is only probed
    assert bench.now - start < 80


def test_no_device_at_all() -> None:
    bench = Bench(faults=Faults(loss=1.0), parameters=LinkParameters(give_up=5.0))
    bench.host.open(bench.now)
    start = bench.now
    assert bench.run(lambda: bench.failures(bench.host) == ["link.timeout"])
    assert bench.now - start == pytest.approx(5.0, abs=0.1)
    assert [frame.kind for frame in frames(bench.wire[bench.host])] == [Kind.OPEN] * 3  # at 0, 1 and 3 s


def test_more_than_the_peer_may_leave_unacknowledged_is_refused_and_not_queued() -> None:
    bench = Bench(parameters=LinkParameters(max_pending=1000)).opened()
    bench.attach()
    bench.host.send(SEALED, bytes(600), bench.now)
    bench.host.send(SEALED, bytes(600), bench.now)
    with pytest.raises(LinkError, match="1200 bytes unacknowledged"):
        bench.host.send(SEALED, b"more", bench.now)
    assert bench.run(lambda: bench.host.idle)
    assert bench.messages(bench.device) == [bytes(600)] * 2
    bench.host.send(SEALED, b"more", bench.now)


def test_a_peer_that_acknowledges_what_was_never_sent() -> None:
    bench = Bench().opened()
    _, device = bench.attach()
    record = device.next()
    header = encode_header(Kind.ACK, record=record, ack=Acknowledgement(1, 256))
    bench.inject(bench.host, encode_frame(header, device.seal(*record, header, b"")))
    assert bench.failures(bench.host) == ["link.protocol"]


def test_sealed_acknowledgement_with_a_body_is_a_broken_rule() -> None:
    bench = Bench().opened()
    _, device = bench.attach()
    record = device.next()
    header = encode_header(Kind.PING, record=record)
    bench.inject(bench.host, encode_frame(header, device.seal(*record, header, b"body")))
    assert bench.failures(bench.host) == ["link.protocol"]


def test_endless_messages_end_the_link() -> None:
    small, large = LinkParameters(max_message=1000), LinkParameters()
    bench = Bench(parameters=large, other_device=LinkEngine(Role.DEVICE, small, seeded(2)))
    bench.opened().attach()
    bench.host.send(SEALED, bytes(1001), bench.now)
    bench.run(lambda: bool(bench.failures(bench.device)))
    assert bench.failures(bench.device) == ["link.protocol"]


def test_the_answer_to_an_open_that_was_repeated_says_nothing_about_the_round_trip() -> None:
    bench = Bench(faults=Faults(loss=1.0))
    bench.host.open(bench.now)
    start = bench.now
    bench.run(lambda: bench.now > start + 0.5, 0.9)
    bench.faults = Faults()
    assert bench.run(lambda: bool(bench.events[bench.host]))
    assert bench.host._plain.round_trip.smoothed is None  # type: ignore[union-attr]
    once = Bench().opened()
    assert once.host._plain.round_trip.smoothed == pytest.approx(0.007, abs=0.004)  # type: ignore[union-attr]


def test_another_link_version_is_named() -> None:
    bench = Bench()
    bench.host.open(bench.now)
    nonce = frames(bench.host.data_to_send(bench.now))[0].nonce
    bench.inject(bench.host, encode_frame(encode_header(Kind.OPEN_ACK, nonce=nonce), b"\x09future"))
    assert bench.failures(bench.host) == ["link.protocol"]
    assert "version 9" in bench.host.failed.message
    device = bench.device
    device.receive_bytes(encode_frame(encode_header(Kind.OPEN, nonce=b"newr"), b"\x09future"), bench.now)
    answer = frames(device.data_to_send(bench.now))
    assert [(f.kind, f.nonce, f.body[0]) for f in answer] == [(Kind.OPEN_ACK, b"newr", 1)]


def test_the_peers_limits_are_kept() -> None:
    tiny = LinkParameters(segment_start=128, segment_max=192, window_bytes=512)
    bench = Bench(other_device=LinkEngine(Role.DEVICE, tiny, seeded(2)))
    bench.opened().attach()
    bench.faults = Faults(loss=0.1)
    message = random.Random(1).randbytes(20_000)
    bench.host.send(SEALED, message, bench.now)
    burst = frames(bench.host.data_to_send(bench.now))
    assert sum(len(f.body) - 16 for f in burst) <= 512
    assert bench.run(lambda: bench.messages(bench.device) == [message])
    sealed = [f for f in frames(bench.wire[bench.host]) if f.nonce is None and f.kind is Kind.DATA]
    assert max(len(f.body) - 16 for f in sealed) <= 192


def test_close_arrives_after_everything_and_both_ends_know() -> None:
    bench = Bench(seed=11, faults=Faults(loss=0.3)).opened()
    bench.attach()
    bench.host.send(SEALED, b"last words" * 500, bench.now)
    bench.host.close(bench.now)
    bench.host.close(bench.now)
    with pytest.raises(LocalProtocolError):
        bench.host.send(SEALED, b"no", bench.now)
    assert bench.run(lambda: bench.host.idle and bench.device.idle)
    for engine in (bench.host, bench.device):
        assert len([e for e in bench.events[engine] if isinstance(e, Closed)]) == 1
    assert isinstance(bench.events[bench.device][-2], Message)


def test_ping_is_answered_or_the_link_fails() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.host.ping(bench.now)
    assert not bench.host.idle
    assert bench.run(lambda: bench.host.idle)
    bench.faults = Faults(loss=1.0)
    bench.host.ping(bench.now)
    start = bench.now
    assert bench.run(lambda: bench.failures(bench.host) == ["link.timeout"])
    assert bench.now - start == pytest.approx(60.0, abs=0.5)


def test_a_protector_that_refuses_to_seal_ends_the_link() -> None:
    class Spent(CcmProtector):
        def next(self) -> tuple[int, int]:
            raise Refused("session.timeout", "no counters left")

    bench = Bench().opened()
    bench.host.attach(Spent(b"a" * 16, b"b" * 16), bench.now)
    bench.host.send(SEALED, b"x", bench.now)
    assert bench.host.data_to_send(bench.now) == b""
    assert [type(e) for e in bench.host.receive_bytes(b"", bench.now)] == [Failed]
    assert bench.host.failed.code == "session.timeout"


def test_wrong_calls_are_local_errors() -> None:
    bench = Bench()
    with pytest.raises(LocalProtocolError):
        bench.device.open(0.0)
    for channel in Channel:
        with pytest.raises(LocalProtocolError):
            bench.host.send(channel, b"x", 0.0)
    bench.opened()
    with pytest.raises(LocalProtocolError):
        bench.host.send(PLAIN, bytes(64 * 1024 + 1), bench.now)
    bench.host.detach()
    assert bench.host.pending_bytes(SEALED) == 0


def test_pending_bytes_fall_as_the_peer_acknowledges() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.host.send(SEALED, bytes(40_000), bench.now)
    assert bench.host.pending_bytes(SEALED) == 40_000
    assert bench.run(lambda: bench.host.pending_bytes(SEALED) <= 20_000)
    assert bench.host.pending_bytes(SEALED) > 0
    assert bench.run(lambda: bench.host.pending_bytes(SEALED) == 0)


def test_clean_line_efficiency_and_a_noisy_one() -> None:
    for flip, at_least in ((0.0, 0.98), (1e-5, 0.85), (1e-4, 0.6)):
        bench = Bench(seed=2, faults=Faults(flip=flip)).opened()
        bench.attach()
        start, payload = bench.now, [bytes(16_384)] * 8
        for message in payload:
            bench.host.send(SEALED, message, bench.now)
        assert bench.run(lambda b=bench, p=payload: b.messages(b.device) == p)
        assert sum(map(len, payload)) * 10 / 115_200 / (bench.now - start) > at_least


chances = st.one_of(st.just(0.0), st.floats(0.0, 2e-3))
shapes = st.builds(
    Shape,
    baud=st.sampled_from([2400, 9600, 115_200, 921_600, 3_000_000]),
    latency=st.sampled_from([0.0, 0.002, 0.016, 0.3]),
    return_timer=st.sampled_from([0.0, 0.001, 0.016]),
    damage=st.builds(Damage, ber=chances, drop=chances, double=chances, noise=chances),
    cuts=st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 20)).map(lambda one: (one[0], sum(one))), max_size=2)
    .map(tuple),
)  # fmt: skip


@settings(max_examples=20)
@given(st.integers(0, 2**32), shapes, st.lists(st.integers(0, 4000), min_size=1, max_size=4))
def test_whatever_happens_to_the_bytes_a_message_comes_once_whole_in_order_or_the_link_fails(
    seed, shape, sizes
) -> None:
    check_line(seed, shape, sizes)


@pytest.mark.slow
@settings(max_examples=100)
@given(st.integers(0, 2**32), shapes, st.lists(st.integers(0, 20_000), min_size=1, max_size=6))
def test_whatever_happens_to_the_bytes_sweep(seed, shape, sizes) -> None:
    check_line(seed, shape, sizes)


def test_a_sealed_frame_is_handed_over_only_as_the_line_has_room() -> None:
    bench = Bench(parameters=LinkParameters(baud=115_200)).opened()
    bench.attach()
    bench.host.send(SEALED, bytes(60_000), bench.now)
    handed = len(bench.host.data_to_send(bench.now))
    assert 0 < handed < 115_200 / 10 * 0.02 + 1100  # what 20 ms carry, and one frame; not the window of 16 KiB
    due = bench.host.next_timeout(bench.now)
    assert due is not None
    assert bench.now < due
    bench.host.ping(bench.now)
    assert 0 < len(bench.host.data_to_send(bench.now)) < 40  # what is short and urgent does not wait


def test_a_line_faster_than_its_stated_speed_is_used_in_full() -> None:
    taken = []
    for real in (115_200, 3_000_000):
        bench = Bench(faults=Faults(baud=real, latency=0.0001), parameters=LinkParameters(baud=115_200)).opened()
        bench.attach()
        start = bench.now
        for _ in range(40):
            bench.host.send(SEALED, bytes(16_000), start)
        assert bench.run(lambda b=bench: b.host.idle)
        taken.append(640_000 * 10 / real / (bench.now - start))
    assert taken[0] > 0.985
    assert taken[1] > 0.8


def test_the_last_segment_lost_costs_one_round_trip_not_a_second() -> None:
    bench = Bench(faults=Faults(latency=0.005)).opened()
    bench.attach()
    assert converse(bench, [bytes(20_000)], [])
    bench.faults = Faults(latency=0.005, loss=1.0)
    start = bench.now
    bench.host.send(SEALED, b"last", start)
    bench.run(lambda: bench.now > start + 0.01, 0.02)
    bench.faults = Faults(latency=0.005)
    assert bench.run(lambda: bench.host.idle)
    assert bench.messages(bench.device)[-1] == b"last"
    assert bench.now - start < 0.15


def test_acknowledged_bytes_count_what_arrived_without_a_gap() -> None:
    bench = Bench(seed=5, faults=Faults(loss=0.1)).opened()
    assert bench.host.acknowledged_bytes(SEALED) == 0
    bench.attach()
    bench.host.send(SEALED, bytes(30_000), bench.now)
    seen = [0]
    while not bench.host.idle:
        bench.run(lambda: bench.host.idle or bench.host.acknowledged_bytes(SEALED) != seen[-1])
        seen.append(bench.host.acknowledged_bytes(SEALED))
    assert seen == sorted(seen)
    assert seen[-1] == 30_000
    assert len(seen) > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_everything_arrives_sweep(seed: int) -> None:
    source = random.Random(seed)
    faults = Faults(source.random() * 0.3, source.random() * 0.3, source.random() * 0.3, source.random() * 1e-4,
                    source.random() * 0.3, chunk=source.randrange(30))  # fmt: skip
    bench = Bench(seed, faults, LinkParameters(give_up=300.0)).opened()
    bench.attach(per_epoch=64)
    forth, back = texts(seed, 10, 20_000), texts(seed + 1, 10, 20_000)
    assert converse(bench, forth, back)
    assert (bench.messages(bench.device), bench.messages(bench.host)) == (forth, back)

"""An attacker or mere noise on the line: what kills an engine, what is dropped, and that channels stay apart."""

from __future__ import annotations

import math
import random

import pytest

from devguard.errors import Refused
from devguard.link.events import Channel, Closed, PlainLost
from devguard.link.frames import Acknowledgement, Kind, encode_frame, encode_header
from link_support import Bench, CcmProtector

PLAIN, SEALED = Channel.PLAIN, Channel.SEALED


def converse(bench: Bench, forth: list[bytes], back: list[bytes], channel: Channel = SEALED) -> bool:
    for message in forth:
        bench.host.send(channel, message, bench.now)
    for message in back:
        bench.device.send(channel, message, bench.now)
    return bench.run(lambda: bench.host.idle and bench.device.idle)


def test_a_wrong_tag_under_a_right_checksum_kills_the_engine() -> None:
    bench = Bench().opened()
    host, _ = bench.attach()
    epoch, counter = host.next()
    header = encode_header(Kind.DATA, record=(epoch, counter), sequence=0, fin=True)
    good = host.seal(epoch, counter, header, b"data")
    bench.device.send(SEALED, b"mine", bench.now)
    bench.inject(bench.device, encode_frame(header, bytes((good[0] ^ 1,)) + good[1:]))
    assert bench.failures(bench.device) == ["session.tampered"]
    assert bench.device.data_to_send(bench.now + 5) == b""
    assert bench.device.next_timeout(bench.now) is None
    bench.inject(bench.device, encode_frame(header, good))
    assert bench.messages(bench.device) == []
    with pytest.raises(Refused) as refused:
        bench.device.send(SEALED, b"more", bench.now)
    assert refused.value.code == "session.tampered"


@pytest.mark.parametrize("byte", range(5))
def test_every_header_byte_of_a_sealed_frame_is_bound(byte: int) -> None:
    bench = Bench().opened()
    host, _ = bench.attach()
    header = encode_header(Kind.DATA, record=host.next(), sequence=0, fin=True)
    body = host.seal(0, 0, header, b"data")
    other = bytearray(header)
    other[byte] ^= 0x02
    bench.inject(bench.device, encode_frame(bytes(other), body))
    assert bench.failures(bench.device) == ["session.tampered"]


def test_a_replayed_record_is_dropped_and_counted() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.host.send(SEALED, b"once", bench.now)
    recorded = bench.host.data_to_send(bench.now)
    for _ in range(3):
        bench.inject(bench.device, recorded)
    assert bench.messages(bench.device) == [b"once"]
    assert bench.device.statistics.replayed == 2
    assert not bench.failures(bench.device)


def test_only_what_is_genuine_and_new_counts_as_a_sign_of_life() -> None:
    bench = Bench().opened()
    assert bench.device.sealed_heard == -math.inf
    bench.attach()
    bench.host.send(SEALED, b"once", bench.now)
    recorded = bench.host.data_to_send(bench.now)
    bench.inject(bench.device, recorded)
    heard = bench.device.sealed_heard
    assert heard == bench.now
    assert bench.run(lambda: bench.host.idle and bench.device.idle)
    bench.line.clock.now += 20
    bench.inject(bench.device, recorded)
    bench.host.send(PLAIN, b"chatter", bench.now)
    bench.inject(bench.device, bench.host.data_to_send(bench.now))
    assert bench.messages(bench.device, PLAIN) == [b"chatter"]
    assert bench.device.statistics.replayed == 1
    assert bench.device.sealed_heard == heard


def test_reflected_sealed_frames_are_tampering() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.host.send(SEALED, b"echo", bench.now)
    bench.inject(bench.host, bench.host.data_to_send(bench.now))
    assert bench.failures(bench.host) == ["session.tampered"]


def test_noise_alone_changes_nothing() -> None:
    bench = Bench().opened()
    bench.attach()
    source = random.Random(9)
    for _ in range(200):
        bench.inject(bench.device, source.randbytes(source.randrange(1, 2000)))
    bench.inject(bench.device, b"\x00")
    statistics = bench.device.statistics
    assert statistics.crc_errors > 100
    assert not bench.failures(bench.device)
    assert bench.device.idle
    assert converse(bench, [b"still here"], [])
    assert bench.messages(bench.device) == [b"still here"]


def test_garbage_before_the_first_frame() -> None:
    bench = Bench()
    bench.inject(bench.device, b"U-Boot 2031\r\n=> \xff\xfe login:")
    bench.inject(bench.host, b"\x00\x00\x01\x02garbage")
    start = bench.now
    bench.opened()
    assert bench.now - start < 0.1  # the opening delimiter kept the noise apart, or OPEN would have been lost
    assert converse(bench, [b"hello"], [b"hi"], PLAIN)
    assert bench.host.statistics.retransmits == 0


def test_plain_frames_never_reach_the_sealed_channel() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.host.send(SEALED, b"x" * 5000, bench.now)
    burst = bench.host.data_to_send(bench.now)
    nonce = bench.events[bench.host][0].nonce
    forged = encode_header(Kind.ACK, nonce=nonce, ack=Acknowledgement(5, 256))
    bench.inject(bench.host, encode_frame(forged))
    assert bench.host.pending_bytes(SEALED) == 5000
    assert [e for e in bench.events[bench.host] if isinstance(e, PlainLost)]
    bench.inject(bench.device, encode_frame(encode_header(Kind.OPEN, nonce=b"evil"), b"\x01\x01\x00\x00\x40"))
    bench.inject(bench.device, encode_frame(encode_header(Kind.DATA, nonce=b"evil", sequence=0, fin=True), b"boo"))
    bench.inject(bench.device, encode_frame(encode_header(Kind.CLOSE, nonce=b"evil", sequence=1)))
    bench.inject(bench.device, burst)
    assert bench.run(lambda: bench.host.idle and bench.device.idle)
    assert bench.messages(bench.device) == [b"x" * 5000]
    assert not bench.failures(bench.device) + bench.failures(bench.host)
    assert not [e for e in bench.events[bench.device] if isinstance(e, Closed)]


def test_sealed_frames_never_reach_the_plain_channel() -> None:
    bench = Bench().opened()
    host, _ = CcmProtector.pair()
    bench.host.attach(host, bench.now)
    bench.host.send(SEALED, b"secret", bench.now)
    bench.inject(bench.device, bench.host.data_to_send(bench.now))
    assert bench.messages(bench.device, PLAIN) == bench.messages(bench.device) == []
    assert bench.device.statistics.stray == 1
    assert bench.device.idle


def test_plain_silence_does_not_end_a_sealed_session() -> None:
    bench = Bench().opened()
    bench.attach()
    bench.device.send(PLAIN, b"nobody", bench.now)
    bench.host._plain = None  # a host that has forgotten its plain channel
    bench.run(lambda: bench.device.idle, 100.0)
    assert [e.code for e in bench.events[bench.device] if isinstance(e, PlainLost)] == ["link.timeout"]
    assert converse(bench, [b"goes on"], [b"yes"])
    assert bench.messages(bench.device) == [b"goes on"]

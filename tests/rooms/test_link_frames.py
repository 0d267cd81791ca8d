"""Frames and the frame reader. Invariant: any bytes decode to a frame that encodes to the same bytes, or raise
Malformed; the reader never holds more than one frame."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest
from cobs import cobs
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import LocalProtocolError, Malformed
from devguard.link.frames import (
    Acknowledgement,
    FrameReader,
    Kind,
    decode_announcement,
    decode_frame,
    encode_announcement,
    encode_frame,
    encode_header,
    frame_limit,
)
from devguard.link.parameters import PeerLimits

acks = st.builds(
    Acknowledgement,
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.one_of(st.just(b""), st.builds(lambda b, last: b + bytes((last,)), st.binary(max_size=31), st.integers(1, 255))),
)


def stuffed(content: bytes) -> bytes:
    return cobs.encode(content + zlib.crc32(content).to_bytes(4, "big"))


@given(st.sampled_from(Kind), st.booleans(), st.integers(0, 0xFFFF), st.booleans(), acks, st.binary(max_size=600))
def test_frames_round_trip(kind, sealed, sequence, fin, ack, body) -> None:
    sealed = sealed and kind not in (Kind.OPEN, Kind.OPEN_ACK)
    if not sealed and kind in (Kind.ACK, Kind.CLOSE, Kind.PING):
        body = b""
    seal = {"record": (sequence >> 3, sequence * 7)} if sealed else {"nonce": sequence.to_bytes(4, "big")}
    fin = fin and kind is Kind.DATA
    header = encode_header(kind, sequence=sequence, fin=fin, ack=ack if kind is Kind.ACK else None, **seal)
    wire = encode_frame(header, body)
    assert wire.count(b"\x00") == 1
    frame = decode_frame(wire[:-1])
    assert (frame.kind, frame.fin, frame.header, frame.body) == (kind, fin, header, body)
    assert frame.ack == (ack if kind is Kind.ACK else None)
    assert (frame.nonce is None) == sealed
    if kind in (Kind.DATA, Kind.CLOSE):
        assert frame.sequence == sequence
    if sealed:
        assert (frame.epoch, frame.counter) == ((sequence >> 3) & 3, sequence * 7 & 0xFFFF)


@given(st.binary(max_size=80))
def test_any_content_with_a_right_checksum_is_a_frame_or_malformed(content: bytes) -> None:
    try:
        frame = decode_frame(stuffed(content))
    except Malformed:
        return
    assert frame.header + frame.body == content


def test_every_flipped_bit_and_every_truncation_is_noise() -> None:
    wire = encode_frame(encode_header(Kind.DATA, nonce=b"nonc", sequence=5, fin=True), b"pay\x00load")[:-1]
    for bit in range(8 * len(wire)):
        damaged = bytearray(wire)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Malformed, match=r"packet\.crc"):
            decode_frame(bytes(damaged))
    for end in range(len(wire)):
        with pytest.raises(Malformed, match=r"packet\.crc"):
            decode_frame(wire[:end])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xc0" + b"nonc", id="unknown kind"),
        pytest.param(b"\x01" + b"\x00\x00nonc", id="reserved bit"),
        pytest.param(b"\xa2" + b"nonc", id="fin on ping"),
        pytest.param(b"\x04" + b"\x00\x00nonc", id="epoch on plain"),
        pytest.param(b"\x50" + b"\x00\x00" + b"T" * 16, id="sealed open"),
        pytest.param(b"\x00" + b"\x00\x00non", id="nonce cut off"),
        pytest.param(b"\x10" + b"\x00\x00\x01", id="counter cut off"),
        pytest.param(b"\xa0" + b"nonc!", id="ping with body"),
        pytest.param(b"\x20" + b"\x00\x00\x00\x10\x21" + b"\x01" * 33 + b"nonc", id="bitmap too long"),
        pytest.param(b"\x20" + b"\x00\x00\x00\x10\x20" + b"\x01" * 8, id="bitmap cut off"),
        pytest.param(b"\x20" + b"\x00\x00\x00\x10\x02\x01\x00" + b"nonc", id="bitmap padded"),
    ],
)
def test_wrong_layouts_are_refused(content: bytes) -> None:
    with pytest.raises(Malformed, match=r"link\.protocol"):
        decode_frame(stuffed(content))


def test_sealed_data_overhead_is_at_most_27_bytes_and_one_per_254() -> None:
    for size in (0, 1, 128, 200, 1024, 4096):
        header = encode_header(Kind.DATA, record=(0, 9), sequence=1, fin=True)
        wire = b"\x00" + encode_frame(header, b"c" * size + b"T" * 16)
        assert len(wire) <= size + 27 + 1 + (size + 25) // 254  # the opening delimiter is the burst's, once
        assert len(wire) - 1 <= size + 27 + (size + 25) // 254


def test_a_frame_is_plain_or_sealed() -> None:
    with pytest.raises(LocalProtocolError):
        encode_header(Kind.DATA)
    with pytest.raises(LocalProtocolError):
        encode_header(Kind.DATA, nonce=b"nonc", record=(0, 0))


def test_announcements() -> None:
    assert decode_announcement(encode_announcement(16384, 4096)) == PeerLimits(16384, 4096)
    assert decode_announcement(b"\x07whatever comes") == 7
    for body in (b"", b"\x01", b"\x01\x01\x00\x00\x40\x00", b"\x01\x00\x01\x00\x02", b"\x01\x00\x01\x00\x00"):
        with pytest.raises(Malformed, match=r"link\.protocol"):
            decode_announcement(body)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(1, 50), st.binary(max_size=50))
def test_reader_finds_every_frame_in_any_chunks(bodies: list[bytes], chunk: int, noise: bytes) -> None:
    frames = [encode_frame(encode_header(Kind.DATA, nonce=b"nonc"), body) for body in bodies]
    stream = noise.replace(b"\x00", b"") + b"\x00" + b"".join(frames)
    reader = FrameReader(frame_limit(4096))
    found = [raw for at in range(0, len(stream), chunk) for raw in reader.feed(stream[at : at + chunk])]
    good = [frame[:-1] for frame in frames]
    assert found[len(found) - len(good) :] == good
    assert reader.held == 0


def test_longest_frames_fit_the_reader() -> None:
    ack = Acknowledgement(1, 2, b"\x01" * 32)
    for segment in (64, 128, 4096):
        reader = FrameReader(frame_limit(segment))
        data = encode_frame(encode_header(Kind.DATA, record=(0, 0)), b"c" * (segment + 16))
        long_ack = encode_frame(encode_header(Kind.ACK, record=(0, 0), ack=ack), b"T" * 16)
        assert len(reader.feed(data + long_ack)) == 2


def test_reader_memory_is_bounded_under_garbage_without_delimiter() -> None:
    garbage = random.Random(3).randbytes(1 << 20).replace(b"\x00", b"\x01")
    limit = frame_limit(4096)
    reader = FrameReader(limit)
    tracemalloc.start()
    for _ in range(10):
        assert reader.feed(garbage) == []
        assert reader.held <= limit
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000
    assert reader.noise_bytes == 10 * len(garbage)
    good = encode_frame(encode_header(Kind.PING, nonce=b"nonc"))
    assert reader.feed(b"\x00" + good) == [good[:-1]]


def test_reader_memory_is_bounded_under_zeros() -> None:
    reader = FrameReader(frame_limit(4096))
    zeros = bytes(4 << 20)
    tracemalloc.start()
    assert reader.feed(zeros) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_overlong_pieces_between_delimiters_are_noise() -> None:
    good = encode_frame(encode_header(Kind.PING, nonce=b"nonc"))
    for chunk in (1, 700, 100_000):
        reader = FrameReader(500)
        stream = b"\x00" + b"x" * 501 + b"\x00" + good + b"y" * 2000 + b"\x00" + good
        found = [raw for at in range(0, len(stream), chunk) for raw in reader.feed(stream[at : at + chunk])]
        assert found == [good[:-1]] * 2
        assert reader.noise_bytes == 2501

"""Packets are found in noise, at any split, in bounded memory.

Invariant: a framer is a function of the bytes alone; every byte is a packet's, skipped, or still waiting.
"""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import LocalProtocolError
from devguard.packets.checksums import sum8
from devguard.packets.family import Framer
from devguard.packets.packet import Packet
from devguard.packets.stream import DelimitedFramer, LengthFramer


def summed(data: bytes) -> Packet:
    """A packet whose last byte is the sum of the others."""
    good = sum8(data[:-1]) == data[-1]
    return Packet("made", "", data, {}, good, False, code=None if good else "packet.crc")


def any_bytes(data: bytes) -> Packet:
    """Whatever stands between two marks."""
    return Packet("made", "", data, {}, None, False)


def by_length() -> LengthFramer:
    """mark 5A, length of the rest, that many bytes, the last of them the sum of the others."""

    def size(head: bytes) -> int | None:
        if len(head) < 2:
            return None
        if head[1] == 0:
            raise ValueError("nothing follows")
        return 2 + head[1]

    return LengthFramer(b"\x5a", size, 40, summed)


def packet(body: bytes) -> bytes:
    whole = bytes((0x5A, len(body) + 1)) + body
    return whole + bytes((sum8(whole),))


def run(framer: Framer, data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    found = []
    for begin, end in itertools.pairwise(edges):
        found += framer.feed(data[begin:end])
    return raw(found + framer.finish())


def raw(found: list[tuple[int, Packet]]) -> list[tuple[int, bytes]]:
    return [(place, packet.raw) for place, packet in found]


marks = st.lists(st.sampled_from([0x5A, 1, 2, 3, 4]), max_size=60).map(bytes)
noise = st.binary(max_size=30) | marks
bodies = st.lists(st.tuples(noise, st.binary(max_size=30)), max_size=8)


@given(bodies, noise, st.lists(st.integers(0, 400), max_size=20))
def test_any_split_gives_the_same_packets(parts: list[tuple[bytes, bytes]], tail: bytes, cuts: list[int]) -> None:
    data = b"".join(before + packet(body) for before, body in parts) + tail
    for make in (
        by_length,
        lambda: DelimitedFramer(b"\x5a", b"\x5a", 40, any_bytes),
        lambda: DelimitedFramer(b"\x01", b"\x02\x03", 40, any_bytes),
    ):
        whole, cut, single = make(), make(), make()
        expected = run(whole, data, [])
        assert run(cut, data, cuts) == expected
        assert run(single, data, list(range(len(data)))) == expected
        assert whole.skipped == cut.skipped == single.skipped
        assert whole.skipped + sum(len(found) for _, found in expected) == len(data)
        assert all(data[at : at + len(found)] == found for at, found in expected)


@given(bodies)
def test_packets_in_clean_company_are_all_found(parts: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(b"\x00\x11" + packet(body) for _, body in parts)
    assert [found for _, found in run(by_length(), data, [])] == [packet(body) for _, body in parts]


def test_a_damaged_packet_costs_no_other() -> None:
    bad = bytearray(packet(b"damaged"))
    bad[4] ^= 1
    framer = by_length()
    assert [found for _, found in run(framer, bytes(bad) + packet(b"whole"), [])] == [packet(b"whole")]
    assert framer.damaged == 1
    assert framer.skipped == len(bad)


def test_a_packet_inside_a_false_one_is_found() -> None:
    """A candidate that proves unsound costs its first byte, never what it claimed."""
    framer = by_length()
    inside = packet(b"inside")
    assert raw(framer.feed(b"\x5a\x0c" + inside + bytes(9))) == [(2, inside)]
    assert (framer.damaged, framer.skipped) == (1, 11)


def test_a_false_mark_that_claims_much_delays_but_never_loses() -> None:
    framer = by_length()
    assert framer.feed(b"\x5a\x25" + packet(b"inside")) == []  # 0x25 claims more than has come
    assert raw(framer.finish()) == [(2, packet(b"inside"))]


def test_a_claim_beyond_the_longest_is_no_packet() -> None:
    framer = by_length()
    assert raw(framer.feed(b"\x5a\xff" + packet(b"after"))) == [(2, packet(b"after"))]


def test_endless_noise_is_held_in_bounded_memory() -> None:
    chance = random.Random(3)
    for framer in (by_length(), DelimitedFramer(b"\x5a", b"\xa5", 64, any_bytes)):
        for _ in range(200):
            framer.feed(chance.randbytes(1024))
            assert len(framer._buffer) <= 64
        for _ in range(200):
            framer.feed(b"\x5a" * 1024)
            assert len(framer._buffer) <= 64


def test_delimiters_shared_and_lost() -> None:
    framer = DelimitedFramer(b"\xcc", b"\xcc", 16, any_bytes)
    assert raw(framer.feed(b"\x00\xcc\x01\xcc\xcc\x02\xcc")) == [(1, b"\xcc\x01\xcc"), (4, b"\xcc\x02\xcc")]
    framer = DelimitedFramer(b"\x01", b"\x02", 16, any_bytes)
    assert raw(framer.feed(b"\x01lost\x01kept\x02")) == [(5, b"\x01kept\x02")]
    assert framer.damaged == 1


def test_a_framer_without_marks_cannot_be_made() -> None:
    with pytest.raises(LocalProtocolError):
        DelimitedFramer(b"", b"\x02", 9, any_bytes)
    with pytest.raises(LocalProtocolError):
        LengthFramer((b"\x01", b"\x02\x03"), lambda _: 1, 9, any_bytes)

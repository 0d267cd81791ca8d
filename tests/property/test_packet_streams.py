"""A capture is read the same however it was cut, in noise or without, for every family.

Invariant: the packets are a function of the bytes (of a family with marks) or of the records (of one without); every
byte is a packet's or skipped; a sound packet between bytes that cannot begin one is always found.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devguard.packets.decoder import Decoder
from devguard.packets.families.smp import FIRST, MORE
from devguard.packets.family import Family
from devguard.packets.packet import Packet
from devguard.packets.registry import MODULES, family_named
from fuzz_packets import SEEDS, context_of

SHARE = settings(max_examples=settings.default.max_examples // 3)  # each family has its own run
STREAMED = [name for name in MODULES if family_named(name).framer is not None]
RECORDED = [name for name in MODULES if family_named(name).framer is None]
# What begins none of their packets, and no packet around it can take for its own: bytes to put between them.
QUIET = {"smp_serial": b"a line of the console\r\n", "combo_frame": b"", "combo_transport": b"", "devguard_link": b""}


def read(family: Family, pieces: list[bytes]) -> tuple[list[tuple[int, Packet]], int]:
    decoder = Decoder(family, context_of(family.name))
    found = [one for piece in pieces for one in decoder.feed(piece)]
    return found + decoder.finish(), decoder.skipped


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def marks(name: str) -> bytes:
    """Bytes that packets of the family begin with or are marked by: noise of the worst kind."""
    return bytes({one[0] for one in SEEDS[name]()} | {one[-1] for one in SEEDS[name]()}) + FIRST + MORE + b"\n\x00"


@pytest.mark.parametrize("name", STREAMED)
@SHARE
@given(data=st.data())
def test_any_split_gives_the_same_packets(name: str, data: st.DataObject) -> None:
    family, good = family_named(name), SEEDS[name]()
    noise = st.binary(max_size=12) | st.lists(st.sampled_from(marks(name)), max_size=12).map(bytes)
    parts = data.draw(st.lists(st.tuples(noise, st.sampled_from(good) | noise), max_size=6))
    stream = b"".join(itertools.chain.from_iterable(parts))
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    whole, skipped = read(family, [stream])
    assert read(family, cut(stream, places)) == (whole, skipped)
    assert read(family, [stream[at : at + 1] for at in range(len(stream))]) == (whole, skipped)
    assert skipped + sum(len(packet.raw) for _, packet in whole) == len(stream)
    ends = [0, *(place + len(packet.raw) for place, packet in whole)]
    assert all(place >= end for (place, _), end in zip(whole, ends[:-1], strict=True))


@pytest.mark.parametrize("name", STREAMED)
@SHARE
@given(data=st.data())
def test_every_sound_packet_is_found_in_quiet(name: str, data: st.DataObject) -> None:
    family, context = family_named(name), context_of(name)
    quiet = QUIET.get(name, b"\x00\x00")
    found = [one for one in SEEDS[name]() if _streamable(name, one)]
    chosen = data.draw(st.lists(st.sampled_from(found), max_size=6))
    places = data.draw(st.lists(st.integers(0, 200), max_size=6))
    stream = quiet + b"".join(one + quiet for one in chosen)
    packets = [packet for _, packet in read(family, cut(stream, places))[0]]
    assert packets == [family.decode(one, context) for one in chosen]


def _streamable(name: str, packet: bytes) -> bool:
    """Whether a packet shows itself in a stream: of the pacemakers' variants those with a checksum and a length, of
    the Combo's those in a frame."""
    if name == "combo_transport":
        return packet[:1] == b"\xcc"
    return name != "pacemaker_3k04" or (packet[:1] == b"\x16" and len(packet) in (4, 16))


@pytest.mark.parametrize("name", RECORDED)
@SHARE
@given(data=st.data())
def test_every_record_is_told_once(name: str, data: st.DataObject) -> None:
    family, good = family_named(name), SEEDS[name]()
    records = data.draw(st.lists(st.sampled_from(good) | st.binary(min_size=1, max_size=40), max_size=8))
    found, skipped = read(family, records)
    assert b"".join(packet.raw for _, packet in found) == b"".join(records)
    assert skipped == 0
    assert [place for place, _ in found] == sorted({place for place, _ in found})
    if all(record in good for record in records) and family.gather is None:
        assert [packet for _, packet in found] == [family.decode(one, context_of(name)) for one in records]


def test_pacemaker_variants_in_a_stream() -> None:
    """A head of variant A does not say how much data follows; C and D carry nothing that proves them."""
    from devguard.errors import DevguardError
    from devguard.packets.packet import NOTHING, Context

    family = family_named("pacemaker_3k04")
    a, start, b, c, d, commit, _ = SEEDS["pacemaker_3k04"]()
    stream = b"\x00" + a + b"\x00" + start + b + c + d + commit

    def raws(stream: bytes = stream, **names: str) -> list[bytes]:
        decoder = Decoder(family, Context(names=names))
        return [packet.raw for _, packet in decoder.feed(stream) + decoder.finish()]

    assert raws() == [a[:4], start, b]
    assert raws(data="20") == [a, start, b]
    assert raws(variant="A", data="20") == [a, start]
    assert raws(variant="B") == [b]
    assert raws(b"\x00" + c + b"\x00" + c, variant="C") == [c, c]
    assert raws(variant="D") == [d, commit]
    for names in ({"variant": "E"}, {"data": "0"}, {"data": "99"}, {"data": "x"}):
        with pytest.raises(DevguardError) as caught:
            raws(**names)
        assert caught.value.code == "packet.unknown"
    alone = Decoder(family, NOTHING, edges=True)
    assert [packet.raw for record in (a, c, d) for _, packet in alone.feed(record)] == [a, c, d]

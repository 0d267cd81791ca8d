"""Invariant: `decode` gives back exactly what `encode` was given, and refuses every other spelling of it."""

from __future__ import annotations

import enum
import tracemalloc
from types import MappingProxyType
from typing import Any

import cbor2
import construct
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.errors import DevguardError, LocalProtocolError, Malformed

SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20)
KEYS = st.integers(-(2**32), 2**32) | st.text(max_size=6) | st.binary(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    assert wire.decode(wire.encode(value)) == value


def by_a_peer(value: Any) -> bytes:
    """What cbor2 writes when every map is handed to it in bytewise order of its encoded keys."""

    def ordered(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: ordered(one[key]) for key in sorted(one, key=cbor2.dumps)}
        return [ordered(item) for item in one] if isinstance(one, (list, tuple)) else one

    return cbor2.dumps(ordered(value))


@given(VALUES | st.integers(-(2**200), 2**200))
def test_a_peer_writes_the_same_bytes(value: object) -> None:
    assert wire.encode(value) == by_a_peer(value)


@pytest.mark.parametrize("edge", [0, 23, 24, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**64 - 1])
def test_heads_at_every_edge(edge: int) -> None:
    assert wire.encode(edge) == cbor2.dumps(edge) == wire.head(0, edge)
    assert wire.encode(-1 - edge) == cbor2.dumps(-1 - edge) == wire.head(1, edge)
    assert wire.encode(cbor2.CBORTag(edge, 0)) == cbor2.dumps(cbor2.CBORTag(edge, 0))
    if edge <= 2**8:
        for value in (bytes(edge), "x" * edge, [None] * edge, dict.fromkeys(range(edge))):
            assert wire.encode(value) == by_a_peer(value)


def test_no_head_beyond_64_bits() -> None:
    for major in range(7):
        with pytest.raises(OverflowError):
            wire.head(major, 2**64)
    assert wire.encode(2**64) == cbor2.dumps(2**64)
    assert wire.encode(-(2**64) - 1) == cbor2.dumps(-(2**64) - 1)


def test_relatives_of_the_plain_types() -> None:
    number = enum.IntEnum("number", {"ONE": 1}).ONE  # type: ignore[attr-defined]  # made here
    text = enum.StrEnum("text", {"A": "a"}).A  # type: ignore[attr-defined]  # made here
    assert wire.encode({number: text}) == wire.encode({1: "a"}) == b"\xa1\x01\x61a"
    assert wire.encode(MappingProxyType({1: (2, 3)})) == wire.encode({1: [2, 3]})
    assert wire.encode([True, False, None]) == b"\x83\xf5\xf4\xf6"
    for stranger in (1.5, object(), {1, 2}, bytearray(b"x"), memoryview(b"x"), 1j):
        with pytest.raises(LocalProtocolError):
            wire.encode([stranger])


@pytest.mark.parametrize("head", [b"\x81", b"\xa1\x00", b"\xd8\x6b"], ids=["array", "map", "tag"])
@pytest.mark.parametrize("leaf", [b"\x00", b"\x80", b"\x43abc"], ids=["integer", "empty array", "string"])
def test_depth_to_the_very_level(head: bytes, leaf: bytes) -> None:
    wire.decode(head * 3 + leaf, max_depth=3, tags=(107,))
    with pytest.raises(Malformed):
        wire.decode(head * 4 + leaf, max_depth=3, tags=(107,))


def test_items_are_counted_wherever_they_stand() -> None:
    most, item = wire.MAX_ITEMS, b"\x00"
    half = wire.head(4, most // 2 - 1) + item * (most // 2 - 1)
    full = wire.head(4, most // 2) + item * (most // 2)
    assert len(wire.decode(wire.head(4, most) + item * most)) == most
    assert len(wire.decode(b"\x82" + half + half)) == 2
    assert len(wire.decode_sequence(item * most)) == most
    for data in (wire.head(4, most + 1) + item * (most + 1), b"\x82" + full + half):
        with pytest.raises(Malformed):
            wire.decode(data)
    for data in (item * (most + 1), full + half + item):
        with pytest.raises(Malformed):
            wire.decode_sequence(data)


@given(VALUES, st.binary(min_size=1, max_size=4))
def test_trailing_bytes_refuse(value: object, tail: bytes) -> None:
    with pytest.raises(Malformed):
        wire.decode(wire.encode(value) + tail)


@given(VALUES)
def test_every_truncation_refuses(value: object) -> None:
    data = wire.encode(value)
    for cut in range(len(data)):
        with pytest.raises(Malformed):
            wire.decode(data[:cut])


@given(st.binary(max_size=200))
def test_garbage_parses_or_raises_our_own_error(data: bytes) -> None:
    try:
        value = wire.decode(data)
    except DevguardError:
        return
    assert wire.encode(value) == data


def test_key_order_is_bytewise_of_the_encoding() -> None:
    # RFC 8949 s4.2.1, not the length-first order of RFC 7049
    assert wire.encode({-1: 0, 24: 0}) == bytes.fromhex("a2181800" + "2000")


@pytest.mark.parametrize(
    "data",
    [
        "1800",  # 0 in two bytes
        "190001",  # 1 in three bytes
        "1b0000000000000001",
        "5801ff",  # length in two bytes
        "9fff",  # indefinite array
        "5f4100ff",  # indefinite string
        "a2020001 00",  # keys out of order
        "a201000100",  # duplicate keys
        "a2 01 00 1801 00",
        "a20100f500",  # true as a key is 1 in Python
        "a1f500",
        "a281010081f500",  # [1] and [true] as keys
        "a1f600",
        "f97e00",  # half NaN
        "fb3ff0000000000000",
        "f7",  # undefined
        "f820",
        "c100",  # a tag nobody asked for
        "62fffe",  # not UTF-8
        "1c",
        "ff",
        "",
    ],
)
def test_other_spellings_refuse(data: str) -> None:
    with pytest.raises(Malformed):
        wire.decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    "head", ["5affffffff", "5b8000000000000000", "9affffffff", "9bffffffffffffffff", "baffffffff", "7b7fffffffffffffff"]
)
def test_huge_lengths_refuse_in_flat_memory(head: str) -> None:
    tracemalloc.start()
    with pytest.raises(Malformed):
        wire.decode(bytes.fromhex(head) + b"\x00" * 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00", b"\xc1"])
def test_nesting_ten_thousand_deep_refuses(opening: bytes) -> None:
    with pytest.raises(Malformed):
        wire.decode(opening * 10_000 + b"\x00", tags=None)


def test_envelope_code_tells_form_from_spelling() -> None:
    with pytest.raises(Malformed) as caught:
        wire.decode(bytes.fromhex("1800"), code="envelope.malformed")
    assert caught.value.code == "envelope.not-deterministic"
    with pytest.raises(Malformed) as caught:
        wire.decode(bytes.fromhex("a201000100"), code="envelope.malformed")
    assert caught.value.code == "envelope.malformed"


def test_floats_are_not_encoded() -> None:
    with pytest.raises(LocalProtocolError):
        wire.encode({1: 1.5})


def test_a_peer_reads_what_we_write() -> None:
    value = {1: [b"x", "y", None, True], -70000: {2: 2**63}}
    assert cbor2.loads(wire.encode(value)) == value


def test_sequences() -> None:
    data = wire.encode(1) + wire.encode(b"two") + wire.encode([3])
    assert wire.decode_sequence(data) == [1, b"two", [3]]
    with pytest.raises(Malformed):
        wire.decode_sequence(data + b"\x18\x00")


def test_parse_exact_refuses_short_long_and_wrong() -> None:
    layout = construct.Struct("magic" / construct.Const(b"DG"), "size" / construct.Int16ub)
    assert wire.parse_exact(layout, b"DG\x00\x05", "packet.length").size == 5
    for bad in (b"", b"DG", b"DG\x00", b"XX\x00\x05", b"DG\x00\x05\x00"):
        with pytest.raises(Malformed) as caught:
            wire.parse_exact(layout, bad, "packet.length")
        assert caught.value.code == "packet.length"

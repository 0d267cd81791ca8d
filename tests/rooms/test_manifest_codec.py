"""The manifest map, command sequences, severed members, text and versions as values and back."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.errors import Malformed
from devguard.manifest.codec import (
    MAX_NESTING,
    Common,
    Manifest,
    decode_manifest,
    decode_sequence,
    encode_manifest,
    encode_sequence,
    read_manifest,
    resolve,
)
from devguard.manifest.suit import Command, Comparison, Digest, Section, strict
from devguard.manifest.text import TextFacts, decode_text, encode_text
from devguard.manifest.version import VersionMatch, to_array, to_text

COMMON = wire.encode({2: [[b"\x00"]]})
RUN, TRY = Command.DIRECTIVE_RUN_SEQUENCE.value, Command.DIRECTIVE_TRY_EACH.value


def manifest(**changes: object) -> bytes:
    """An encoded manifest; keyword k3 replaces member 3, None drops it."""
    value: dict[int, object] = {1: 1, 2: 7, 3: COMMON}
    value.update({int(key[1:]): item for key, item in changes.items()})
    return wire.encode({key: item for key, item in value.items() if item is not None})


def test_unknown_commands_parameters_and_members_are_kept_as_values() -> None:
    sequence = wire.encode([99, {"what": [1, None]}, -300, None, 20, {77: b"x", -900: "y"}, 12, [0, 1]])
    data = manifest(k20=sequence, k14=b"coswid", k5=[b"id"], k300=True)
    found = decode_manifest(data)
    assert found.section(Section.INSTALL) == decode_sequence(sequence)
    assert found.extensions == {5: [b"id"], 14: b"coswid", 300: True}
    assert encode_manifest(found) == data


def test_nested_sequences_decode_to_their_commands() -> None:
    inner = ((1, 15), (2, 15))
    sequence = ((TRY, (inner, inner, None)), (RUN, inner))
    assert decode_sequence(encode_sequence(sequence)) == sequence


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x80", "envelope.malformed"),
        (b"\xa0", "envelope.version"),
        (manifest(k1=2), "envelope.version"),
        (manifest(k1=None), "envelope.version"),
        (manifest(k1=True), "envelope.version"),
        (manifest(k2=None), "envelope.malformed"),
        (manifest(k2=-1), "envelope.malformed"),
        (manifest(k2=b""), "envelope.malformed"),
        (manifest(k2=True), "envelope.malformed"),
        (manifest(k3=None), "envelope.malformed"),
        (manifest(k3={}), "envelope.malformed"),
        (manifest(k3=b"\x80"), "envelope.malformed"),
        (manifest(k3=wire.encode({2: b""})), "envelope.malformed"),
        (manifest(k3=wire.encode({2: []})), "envelope.malformed"),
        (manifest(k3=wire.encode({2: [[1]]})), "envelope.malformed"),
        (manifest(k3=wire.encode({2: [[b"a"], [b"a"]]})), "envelope.malformed"),
        (manifest(k3=wire.encode({2: [[bytes([n])] for n in range(65)]})), "envelope.malformed"),
        (manifest(k3=wire.encode({2: [[b"a"]], 4: [1, 15]})), "envelope.malformed"),
        (manifest(k3=wire.encode({"a": 1})), "envelope.malformed"),
        (manifest(k4=b"uri"), "envelope.malformed"),
        (manifest(k7=[-16, bytes(32)]), "envelope.malformed"),
        (manifest(k20=[-16, bytes(31)]), "envelope.malformed"),
        (manifest(k20=7), "envelope.malformed"),
        (manifest(k23="text"), "envelope.malformed"),
        (manifest(k20=b"\x80"), "envelope.malformed"),
        (manifest(k20=wire.encode([1])), "envelope.malformed"),
        (manifest(k20=wire.encode([True, 15])), "envelope.malformed"),
        (manifest(k20=wire.encode(["fetch", 15])), "envelope.malformed"),
        (manifest(k20=wire.encode([20, []])), "envelope.malformed"),
        (manifest(k20=wire.encode([20, {}])), "envelope.malformed"),
        (manifest(k20=wire.encode([20, {"a": 1}])), "envelope.malformed"),
        (manifest(k20=wire.encode([15, []])), "envelope.malformed"),
        (manifest(k20=wire.encode([15, [None, wire.encode([1, 15])]])), "envelope.malformed"),
        (manifest(k20=wire.encode([32, [1, 15]])), "envelope.malformed"),
        (manifest(k20=wire.encode([1, 15] * 4097)), "envelope.malformed"),
        (manifest(k20=b"\x82\x18\x01\x0f"), "envelope.not-deterministic"),
        (manifest(k20=wire.encode([1, 15]) + b"\x00"), "envelope.malformed"),
        (manifest() + b"\x00", "envelope.malformed"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_code(data: bytes, code: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode_manifest(data)
    assert caught.value.code == code


def test_keys_that_one_dictionary_cannot_hold_apart_are_refused() -> None:
    with pytest.raises(Malformed, match="map key"):
        strict(b"\xa2\x81\x01\x02\x81\xf5\x03")
    with pytest.raises(Malformed):
        strict(b"\xa2\x01\x02\xf5\x03")
    with pytest.raises(Malformed):
        decode_sequence(b"\x82\x14" + b"\xa2\x01\x40\xf5\x41\x00")


def nested(levels: int) -> bytes:
    data = wire.encode([1, 15])
    for _ in range(levels):
        data = wire.encode([RUN, data])
    return data


def test_nesting_is_bounded_however_deep_the_bytes_go() -> None:
    assert decode_sequence(nested(MAX_NESTING))
    for levels in (MAX_NESTING + 1, 10_000):
        with pytest.raises(Malformed, match="nested deeper"):
            decode_sequence(nested(levels))
    with pytest.raises(Malformed):
        decode_manifest(b"\xa1\x01" + b"\x81" * 10_000 + b"\x00")


def test_a_manifest_that_stands_alone_has_its_tag() -> None:
    assert read_manifest(b"\xd9\x04\x2e" + manifest()).sequence_number == 7
    for data in (manifest(), b"\xd8\x6b" + manifest(), b"\xd9\x04\x2e"):
        with pytest.raises(Malformed):
            read_manifest(data)


INSTALL, TEXT, FETCH = wire.encode([21, 2]), b"\xa0", wire.encode([3, 15])
SEVERED = Manifest(
    7,
    Common(((b"\x00",),)),
    sections={Section.INSTALL: Digest.of_member(INSTALL), Section.VALIDATE: ((3, 15),)},
    text=Digest.of_member(TEXT, -43),
    extensions={14: [-16, Digest.of_member(b"coswid").value]},
)


def test_severed_members_come_back_when_their_digest_holds() -> None:
    whole = resolve(SEVERED, {20: INSTALL, 23: TEXT, 14: b"coswid"})
    assert whole.section(Section.INSTALL) == ((21, 2),)
    assert (whole.text, whole.extensions) == (TEXT, {14: b"coswid"})
    assert resolve(SEVERED, {}) == SEVERED


@pytest.mark.parametrize(
    "members",
    [{20: FETCH}, {23: b"\xa1\x01\x02"}, {14: b"other"}, {16: FETCH}, {7: FETCH}, {99: b""}, {4: b""}, {-1: b""}],
)
def test_members_nobody_signed_are_refused(members: dict[int, bytes]) -> None:
    with pytest.raises(Malformed):
        resolve(SEVERED, members)


def test_a_member_beside_an_unsevered_one_is_refused() -> None:
    plain = replace(SEVERED, sections={Section.INSTALL: ((21, 2),)}, text=TEXT)
    for members in ({20: INSTALL}, {23: TEXT}):
        with pytest.raises(Malformed, match="not in the signed manifest"):
            resolve(plain, members)


ABOUT = TextFacts("devices.example", "pump", "1.2.3", "better", ("revA", "revB"))


def test_text_round_trips_and_nothing_else_does() -> None:
    ids = [(b"main",), (b"radio",)]
    data = encode_text(ABOUT, ids)
    assert decode_text(data, ids) == ABOUT
    for wrong in (b"\xa0", b"\x80", wire.encode({"en": {}}), wire.encode({"fr": strict(data)["en"]})):  # type: ignore[index]  # a map by construction
        with pytest.raises(Malformed):
            decode_text(wrong, ids)
    with pytest.raises(Malformed):
        decode_text(data, ids[:1])
    extra = strict(data)
    assert isinstance(extra, dict)
    extra["en"][1] = "more"
    with pytest.raises(Malformed, match="form devguard writes"):
        decode_text(wire.encode(extra), ids)


@pytest.mark.parametrize(
    ("version", "array"),
    [
        ("1.2.3", (1, 2, 3)),
        ("1.2.3-rc.4", (1, 2, 3, -1, 4)),
        ("1.2.3-beta", (1, 2, 3, -2)),
        ("0.0.0-alpha.0.1", (0, 0, 0, -3, 0, 1)),
        ("1.2.3-nightly", None),
        ("1.2.3+build", None),
        ("1.2.3-rc.01", None),
        ("1.2", None),
    ],
)
def test_versions_become_arrays_only_without_loss(version: str, array: tuple[int, ...] | None) -> None:
    assert to_array(version) == array
    if array is not None:
        assert to_text(array) == version


@pytest.mark.parametrize("array", [(1,), (1, 2), (1, 2, 3, 4), (1, 2, 3, -4), (-1, 2, 3), (1, 2, 3, -1, -1)])
def test_other_arrays_are_no_version(array: tuple[int, ...]) -> None:
    with pytest.raises(Malformed):
        to_text(array)


def test_releases_order_as_the_draft_says() -> None:
    ordered = ["1.9.9", "2.0.0-alpha.1", "2.0.0-beta", "2.0.0-rc.1", "2.0.0-rc.2", "2.0.1", "10.0.0"]
    arrays = [to_array(one) or () for one in ordered]
    for lower, higher in itertools.pairwise(arrays):
        assert VersionMatch(Comparison.GREATER, lower).holds(higher)
        assert VersionMatch(Comparison.LESSER, higher).holds(lower)
        assert not VersionMatch(Comparison.GREATER_EQUAL, higher).holds(lower)
    # A match is a prefix: numbers after it are not looked at.
    assert VersionMatch(Comparison.EQUAL, (2, 0, 0)).holds((2, 0, 0, -1, 1))


@pytest.mark.parametrize(
    ("comparison", "passes"),
    [
        (Comparison.GREATER, [False, False, True]),
        (Comparison.GREATER_EQUAL, [False, True, True]),
        (Comparison.EQUAL, [False, True, False]),
        (Comparison.LESSER_EQUAL, [True, True, False]),
        (Comparison.LESSER, [True, False, False]),
    ],
)
def test_comparison_operators(comparison: Comparison, passes: list[bool]) -> None:
    match = VersionMatch(comparison, (1, 2))
    assert [match.holds(one) for one in ((1, 1, 9), (1, 2, 9), (1, 3))] == passes
    assert VersionMatch.decode(match.encode()) == match


@pytest.mark.parametrize("value", [b"", b"\x80", [1, [1]], wire.encode([6, [1]]), wire.encode([1, []]), 5, None])
def test_what_is_no_version_match_is_refused(value: object) -> None:
    with pytest.raises(Malformed):
        VersionMatch.decode(value)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(-300, 300), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.integers(-300, 300).filter(lambda n: n not in (15, 20, 32)), values), min_size=1))
def test_any_sequence_of_values_round_trips(commands: list[tuple[int, object]]) -> None:
    data = encode_sequence(tuple(commands))
    assert encode_sequence(decode_sequence(data)) == data

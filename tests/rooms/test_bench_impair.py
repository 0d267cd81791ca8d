"""What a bad cable does to bytes: from a seed, by position, never by how the bytes come in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.bench.impair import NOISE_MOST, UNHARMED, Damage, Impairer
from devguard.errors import LocalProtocolError

ZEROS = bytes(200_000)
chance = st.one_of(st.just(0.0), st.floats(0.0, 1.0), st.sampled_from([1.0, 5e-324, 1e-300]))
damages = st.builds(Damage, ber=chance, drop=chance, double=chance, noise=chance)


def of(seed: str = "s", **chances: float) -> Impairer:
    return Impairer(Damage(**chances), seed)


@given(damages, st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_the_same_seed_does_the_same_however_the_bytes_are_cut(damage: Damage, data: bytes, cuts: list[int]) -> None:
    whole, pieces = Impairer(damage, "s"), Impairer(damage, "s")
    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert whole.damage(data) == b"".join(map(pieces.damage, parts))


def test_an_unharmed_line_gives_back_the_very_bytes() -> None:
    assert Impairer(UNHARMED, "s").damage(ZEROS) is ZEROS


def test_bits_flip_at_their_rate_and_in_all_eight_places() -> None:
    got = of(ber=1e-3).damage(ZEROS)
    assert len(got) == len(ZEROS)
    flips = [sum(byte >> bit & 1 for byte in got) for bit in range(8)]
    expected = len(ZEROS) * 1e-3
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in flips)
    assert of("t", ber=1e-3).damage(ZEROS) != got


def test_a_high_rate_is_kept_too_and_neighbours_are_hit() -> None:
    data = ZEROS[:20_000]
    bits = len(data) * 8
    for chance in (0.1, 0.5, 0.9):
        flipped = sum(byte.bit_count() for byte in of(ber=chance).damage(data))
        assert abs(flipped - bits * chance) < 5 * math.sqrt(bits * chance * (1 - chance))


def test_bytes_are_dropped_doubled_and_preceded_by_noise_at_their_rates() -> None:
    rate, counted = 1e-3, bytes(range(1, 251)) * 800
    expected = len(counted) * rate
    off = 5 * math.sqrt(expected)
    assert abs(len(counted) - len(of(drop=rate).damage(counted)) - expected) < off
    assert abs(len(of(double=rate).damage(counted)) - len(counted) - expected) < off
    noisy = of(noise=rate).damage(ZEROS)
    bursts = [run for run in noisy.split(b"\x00") if run]
    assert abs(len(noisy) - len(ZEROS) - expected * (1 + NOISE_MOST) / 2) < off * NOISE_MOST / 2
    assert all(len(run) <= NOISE_MOST for run in bursts)


def test_what_is_dropped_is_gone_and_what_is_doubled_stands_twice_in_a_row() -> None:
    data = bytes(range(256)) * 4
    assert of(drop=1.0).damage(data) == b""
    assert of(double=1.0).damage(b"abc") == b"aabbcc"
    assert of(ber=1.0).damage(b"\x00\xff\x0f") == b"\xff\x00\xf0"
    assert len(of(noise=1.0).damage(b"ab")) > 3


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["ber", "drop", "double", "noise"])
def test_a_chance_lies_between_0_and_1(kind: str, wrong: float) -> None:
    with pytest.raises(LocalProtocolError):
        Damage(**{kind: wrong})

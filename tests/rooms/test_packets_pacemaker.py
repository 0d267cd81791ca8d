"""The open pacemaker projects' variants and the pinned parameter profile."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.packets.checksums import xor8
from devguard.packets.families import pacemaker
from devguard.packets.packet import NOTHING
from devguard.packets.profile import PARAMETERS, outside
from devguard.packets.registry import family_named
from packets_support import check_row, flips, rows

FAMILY = family_named("pacemaker_3k04")


def variant_a(function: int = 0x47, data: bytes = b"") -> bytes:
    head = bytes((0x16, 0x01, function))
    return head + bytes((xor8(head),)) + (data + bytes((xor8(data),)) if data else b"")


def variant_b(function: int = 0x55) -> bytes:
    data = bytes((0, 6, 0)) + bytes(10)
    return bytes((0x16, function)) + data + bytes((xor8(data),))


def variant_c(lrl: int = 60, amplitude: int = 3500) -> bytes:
    return struct.pack(
        "<BBBBBHHBBHHHHHBB", 0x16, 0x55, 1, lrl, 120, amplitude, 3500, 4, 4, 750, 2500, 250, 320, 150, 0, 8
    )


GOOD = [variant_a(), variant_a(0x55, bytes(range(1, 20))), variant_b(), variant_c(), b"\xfe" * 16, b"\x55" + bytes(33)]


def test_the_vectors(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        check_row(row)


def test_damage_is_answered_with_a_code() -> None:
    for bad in flips(variant_a()):
        assert not FAMILY.decode(bad, NOTHING).valid
    for bad in (one for one in flips(variant_b()) if one[:2] == b"\x16\x55"):
        assert FAMILY.decode(bad, NOTHING).code == "packet.crc"


def test_setting_parameters_and_committing_act() -> None:
    acting = [variant_a(0x55, b"\x01\x02"), variant_b(), variant_c(), b"\xfe\x01" + bytes(14), b"\xff" * 16, bytes(34)]
    assert all(FAMILY.decode(data, NOTHING).therapy_affecting for data in acting)
    asking = [variant_a(0x47), variant_a(0x62), b"\xfe" * 16, b"\x55" + bytes(33), b"\x16\x22" + bytes(21)]
    assert not any(FAMILY.decode(data, NOTHING).therapy_affecting for data in asking)


def test_parameters_nobody_can_program_are_named() -> None:
    packet = FAMILY.decode(variant_c(lrl=92, amplitude=3300), NOTHING)
    assert packet.fields["outside_profile"] == ["lower_rate_limit 92 ppm", "atrial_amplitude 3300 mV"]
    assert FAMILY.decode(variant_c(), NOTHING).fields["outside_profile"] == []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("lower_rate_limit", [30, 35, 50, 51, 90, 95, 175], [29, 31, 91, 176]),
        ("upper_rate_limit", [50, 175], [49, 52, 180]),
        ("fixed_av_delay", [70, 300], [75, 310]),
        ("atrial_amplitude", [500, 3200, 3500, 7000], [400, 3300, 3600, 7500]),
        ("atrial_pulse_width", [50, 100, 1900], [0, 51, 150, 2000]),
        ("ventricular_sensitivity", [250, 500, 750, 1000, 10_000], [300, 800, 10_500]),
        ("ventricular_refractory_period", [150, 500], [140, 155]),
        ("rate_smoothing", [3, 21, 25], [24, 2]),
        ("atr_duration", [10, 20, 80, 100, 2000], [30, 90, 150]),
    ],
)
def test_the_published_ranges(name: str, good: list[int], bad: list[int]) -> None:
    assert [value for value in good if not PARAMETERS[name].holds(value)] == []
    assert [value for value in bad if PARAMETERS[name].holds(value)] == []


def test_nominal_values_can_be_programmed_and_off_is_a_value() -> None:
    assert all(one.nominal is None or one.holds(one.nominal) for one in PARAMETERS.values())
    assert outside({"atrial_amplitude": 0, "hysteresis_rate_limit": 0}) == []
    assert outside({"lower_rate_limit": 0}) == ["lower_rate_limit 0 ppm"]


@given(st.binary(max_size=70))
def test_anything_is_answered(data: bytes) -> None:
    packet = pacemaker.decode(data, NOTHING)
    assert packet.valid or packet.code

"""LifeScan binary: the vectors, damage, streams."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from devguard.packets.decoder import decode_stream
from devguard.packets.families.lifescan import LAYOUT
from devguard.packets.packet import NOTHING
from devguard.packets.registry import family_named
from packets_support import check_flips, check_row, rows

FAMILY = family_named("lifescan_binary")


def made(control: int = 3, message: bytes = b"\x05\x0d\x02") -> bytes:
    return LAYOUT.write(link_control=control, message=message)


def test_the_vectors(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        check_row(row)


@given(st.integers(0, 255), st.binary(max_size=249))
def test_what_is_built_is_read(control: int, message: bytes) -> None:
    packet = FAMILY.decode(made(control, message), NOTHING)
    assert packet.valid
    assert packet.fields["message"] == message.hex()
    assert packet.fields["link_control"]["raw"] == control


def test_damage_is_answered_with_a_code() -> None:
    good = [made(), made(8, b""), made(1, bytes(range(200)))]
    check_flips(FAMILY, good[:2])
    assert FAMILY.decode(made()[:-1], NOTHING).code == "packet.length"
    assert FAMILY.decode(made() + b"\x00", NOTHING).code == "packet.length"


def test_setting_the_clock_is_therapy_affecting() -> None:
    assert FAMILY.decode(made(3, b"\x05\x20\x01\x00\x00\x00\x00"), NOTHING).therapy_affecting
    assert not FAMILY.decode(made(3, b"\x05\x20\x02\x00\x00\x00\x00"), NOTHING).therapy_affecting


def test_packets_in_a_noisy_stream() -> None:
    stream = b"\xff\x02\x00" + made() + b"\x02\x09" + made(8, b"") + b"\x02"
    assert [packet.raw for _, packet in decode_stream(FAMILY, [stream[:5], stream[5:]])] == [made(), made(8, b"")]

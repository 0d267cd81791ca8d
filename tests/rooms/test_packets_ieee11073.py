"""IEEE 11073-20601 units: vectors, what sets a clock, damage."""

from __future__ import annotations

from pathlib import Path

from devguard.packets.decoder import decode_stream
from devguard.packets.families.ieee11073 import UNIT
from devguard.packets.packet import NOTHING
from devguard.packets.registry import family_named
from packets_support import check_row, rows

FAMILY = family_named("ieee11073_20601")


def unit(choice: int, body: bytes) -> bytes:
    built = UNIT.build({"choice": choice, "body": body})
    assert isinstance(built, bytes)
    return built


def presented(choice: int, inside: bytes) -> bytes:
    body = b"\x00\x01" + choice.to_bytes(2, "big") + len(inside).to_bytes(2, "big") + inside
    return unit(0xE700, len(body).to_bytes(2, "big") + body)


SET_TIME = presented(0x0107, b"\x00\x00\x0c\x17" + bytes(8))
GOOD = [SET_TIME, presented(0x0101, bytes(40)), unit(0xE500, b"\x00\x00"), unit(0xE300, bytes(44))]


def test_the_vectors(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        check_row(row)


def test_setting_the_clock_is_therapy_affecting() -> None:
    assert FAMILY.decode(SET_TIME, NOTHING).therapy_affecting
    assert not FAMILY.decode(presented(0x0107, b"\x00\x00\x0c\x18" + bytes(8)), NOTHING).therapy_affecting


def test_damage_is_answered_with_a_code() -> None:
    for data in GOOD:
        for size in range(len(data)):
            assert FAMILY.decode(data[:size], NOTHING).code is not None
        assert FAMILY.decode(data + b"\x00", NOTHING).code == "packet.length"
    assert FAMILY.decode(unit(0xE800, b"\x00"), NOTHING).code == "packet.unknown"
    assert FAMILY.decode(bytes(1 << 17), NOTHING).code == "packet.length"


def test_units_in_a_stream() -> None:
    stream = b"\x00\x01" + GOOD[0] + GOOD[2]
    assert [packet.raw for _, packet in decode_stream(FAMILY, [stream[:9], stream[9:]])] == [GOOD[0], GOOD[2]]

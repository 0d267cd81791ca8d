"""Meters and sensors with one layout each: TaiDoc, SD CodeFree, Dexcom G4 and G5/G6; vectors, damage, streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.packets.decoder import decode_stream
from devguard.packets.families import codefree, dexcom_ble, dexcom_g4, taidoc
from devguard.packets.family import Family
from devguard.packets.packet import NOTHING
from packets_support import check_flips, check_row, rows


@dataclass(frozen=True)
class Case:
    family: Family
    made: Callable[..., bytes]
    body: str  # the layout's field that carries `message`
    plain: dict[str, Any]  # the other fields of a packet that does nothing
    act: dict[str, Any]  # what makes it therapy-affecting
    largest: int

    def build(self, message: bytes, **values: Any) -> bytes:
        return self.made(**{**self.plain, self.body: message, **values})


CASES = [
    Case(
        taidoc.FAMILIES[0],
        taidoc.LAYOUT.write,
        "message",
        {"command": 0x22, "direction": 0xA3},
        {"command": 0x33, "message": bytes(4)},
        4,
    ),
    Case(
        codefree.FAMILIES[0],
        lambda **values: codefree.LAYOUT.write(**values) + b"\xaa",
        "message",
        {"direction": 0x10},
        {"message": b"ADATE202611221200"},
        200,
    ),
    Case(dexcom_g4.FAMILIES[0], dexcom_g4.LAYOUT.write, "payload", {"command": 10}, {"command": 36}, 2000),
    Case(dexcom_ble.FAMILIES[0], dexcom_ble.LAYOUT.write, "body", {"opcode": 0x30}, {"opcode": 0x34}, 240),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.family.name)


@each
def test_the_vectors(case: Case, vectors: Path) -> None:
    for row in rows(vectors, case.family.name):
        check_row(row)


@each
@given(message=st.binary(max_size=60))
def test_what_is_built_is_read(case: Case, message: bytes) -> None:
    message = message[: case.largest].ljust(4 if case.largest == 4 else 0, b"\x00")
    packet = case.family.decode(case.build(message), NOTHING)
    assert packet.valid, packet.detail
    assert packet.therapy_affecting == (case.family.name == "sd_codefree" and message.startswith(b"ADATE"))
    assert packet.fields.get(case.body, "") == message.hex()


@each
def test_damage_is_answered_with_a_code(case: Case) -> None:
    good = [case.build(bytes(4)), case.build(bytes(range(min(case.largest, 64))))]
    check_flips(case.family, good)
    for data in good:
        assert case.family.decode(data[:-1], NOTHING).code is not None
        assert case.family.decode(data + b"\x00", NOTHING).code is not None
    assert case.family.decode(b"", NOTHING).code == "packet.length"
    assert case.family.decode(bytes(1 << 20), NOTHING).code == "packet.length"


@each
def test_what_acts_is_said(case: Case) -> None:
    acting = case.made(**{**case.plain, case.body: bytes(4), **case.act})
    assert case.family.decode(acting, NOTHING).therapy_affecting


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.family.name)
def test_packets_in_a_noisy_stream(case: Case) -> None:
    one, two = case.build(bytes(4)), case.build(b"\x01\x02\x03\x04")
    damaged = bytearray(one)
    damaged[-2] ^= 0x40
    stream = b"\x00\xff" + one + bytes(damaged) + two + one[:3]
    for cut in range(1, len(stream)):
        found = [packet.raw for _, packet in decode_stream(case.family, [stream[:cut], stream[cut:]])]
        assert found == [one, two]

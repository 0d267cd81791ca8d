"""MiniMed on the air, its messages, and the CareLink stick: vectors, symbols, damage, what acts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.packets.checksums import crc8_minimed
from devguard.packets.families import carelink, minimed_rf
from devguard.packets.packet import NOTHING
from devguard.packets.registry import family_named
from packets_support import check_flips, check_row, rows

RF, SYMBOLS = family_named("minimed_rf"), family_named("minimed_rf_4b6b")
MESSAGE, STICK = family_named("minimed_rf_message"), family_named("carelink_usb")
# The row reads rate and time one byte too late (512 U/h is fourteen times what the pump can give): 34 U/h, 30 min.
MISREAD = {"read_temp_basal": ("rate_units_per_hour", "minutes_remaining")}
ADDRESS = b"\x12\x34\x56"
CRC_TYPES = [0xA2, 0xA5, 0xA6, 0xA7]


def frame(message: int = 0x8D, body: bytes = b"\x00", kind: int = 0xA7) -> bytes:
    if kind in (0xA8, 0xAA, 0xAB):
        return minimed_rf.SENSOR.write(type=kind, address=ADDRESS, message=message, body=body)
    return minimed_rf.LAYOUT.write(type=kind, address=ADDRESS, message=message, body=body)


def message(number: int, inside: bytes) -> bytes:
    return b"\xa7" + ADDRESS + bytes((number, len(inside))) + inside.ljust(64, b"\x00")


def command(opcode: int, params: bytes = b"") -> bytes:
    head = carelink.HEAD_LAYOUT.write(
        serial=ADDRESS, count=0x8000 | len(params), button=0, retries=2, pages=1, opcode=opcode
    )
    return head + params + bytes((crc8_minimed(params),))


def reply(data: bytes) -> bytes:
    head = bytes((2, 0, 0, 2, 0)) + (0x8000 | len(data)).to_bytes(2, "big") + bytes(6)
    return (head + data + bytes((crc8_minimed(data),))).ljust(64, b"\x00")


@pytest.mark.parametrize("name", ["minimed_rf", "minimed_rf_4b6b", "minimed_rf_message", "carelink_usb"])
def test_the_vectors(name: str, vectors: Path) -> None:
    for row in rows(vectors, name):
        check_row(row, leave=MISREAD.get(row["name"], ()))


def test_a_running_temporary_basal() -> None:
    packet = MESSAGE.decode(message(0x98, bytes.fromhex("000005500017")), NOTHING)
    assert (packet.fields["rate_units_per_hour"], packet.fields["minutes_remaining"]) == (34.0, 23)
    percent = MESSAGE.decode(message(0x98, bytes.fromhex("014600000017")), NOTHING)
    assert percent.fields["rate_percent"] == 70


@given(st.sampled_from(sorted(minimed_rf.TYPES)), st.integers(0, 255), st.binary(min_size=1, max_size=80))
def test_frames_survive_their_symbols(kind: int, number: int, body: bytes) -> None:
    data = frame(number, body, kind)
    packet = SYMBOLS.decode(minimed_rf.to_symbols(data), NOTHING)
    assert packet.valid, packet.detail
    assert packet.fields["decoded"] == data.hex()
    assert RF.decode(data, NOTHING).valid


def test_zeros_behind_the_checksum_pass_and_nothing_else_does() -> None:
    data = frame(0x42, b"\x02\x00\x2c")
    assert RF.decode(data + b"\x00", NOTHING).valid
    assert not any(RF.decode(data + bytes((spare,)), NOTHING).valid for spare in range(1, 256))


def test_damage_is_answered_with_a_code() -> None:
    check_flips(RF, [frame(0x42, b"\x02\x01\x98")])
    for bad in check_flipped(command(0x42, b"\x02\x00")):
        assert not STICK.decode(bad, NOTHING).valid


def check_flipped(data: bytes) -> list[bytes]:
    """Every single flipped bit that leaves the transfer a command."""
    return [
        data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :] for at in range(4, len(data)) for bit in range(8)
    ]


@pytest.mark.parametrize("opcode", [0x40, 0x41, 0x42, 0x4A, 0x4C, 0x4D, 0x51, 0x5B, 0x5D, 0x69, 0x6E])
def test_every_command_that_acts_is_said(opcode: int) -> None:
    for packet in (
        RF.decode(frame(opcode, b"\x00"), NOTHING),
        MESSAGE.decode(message(opcode, bytes(8)), NOTHING),
        STICK.decode(command(opcode), NOTHING),
    ):
        assert packet.therapy_affecting
        assert not packet.authenticated


def test_reading_does_not_act_and_pressing_a_button_does() -> None:
    assert not RF.decode(frame(0x8D), NOTHING).therapy_affecting
    assert RF.decode(frame(0x88, b"\x05", 0xA6), NOTHING).therapy_affecting


def test_a_reply_in_blocks_and_its_patient_data() -> None:
    packet = STICK.decode(reply(b"history"), NOTHING)
    assert packet.fields["end_of_data"]
    assert packet.patient == {"data"}
    assert STICK.decode(reply(b"history")[:18], NOTHING).code == "packet.length"

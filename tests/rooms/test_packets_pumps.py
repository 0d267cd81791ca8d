"""Medtrum, Dana R, Combo, MiniMed 700 and Bluetooth E2E records: vectors, damage, streams."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.packets.checksums import crc16_ccitt_false, crc16_mcrf4xx
from devguard.packets.decoder import decode_stream
from devguard.packets.families import ble_e2e, combo, dana_r, medtrum, minimed700
from devguard.packets.packet import NOTHING, Context
from devguard.packets.registry import family_named
from packets_support import check_flips, check_row, flips, mutations, rows, sound

NAMES = ["medtrum_ble", "medtrum_payload", "dana_r_serial", "combo_frame", "combo_transport", "ble_e2e"]


@pytest.mark.parametrize("name", NAMES)
def test_the_vectors(name: str, vectors: Path) -> None:
    for row in rows(vectors, name):
        check_row(row)


def test_the_vectors_of_the_handshake(vectors: Path) -> None:
    for row in rows(vectors, "minimed700_sake"):
        check_row(row, Context(names={"index": str(row["fields"]["index"])}))
        alone = minimed700.decode(bytes.fromhex(row["hex"]), NOTHING)
        assert alone.fields["index"] in (None, row["fields"]["index"])
        sound(alone)


def paired(command: int = 0x09, payload: bytes | None = None) -> bytes:
    head = bytes((0x10, command, 2, 0, 0xF0)) + bytes(13)
    return head + (payload or crc16_mcrf4xx(head).to_bytes(2, "little")) + bytes(8)


def data_packet(service: int) -> bytes:
    payload = bytes((0x10, service, 0x65, 0x05)) + b"\x01\x02"
    return bytes((0x10, 0x23, len(payload), 0, 1)) + bytes(13) + payload + b"\x01" * 8


GOOD = {
    "medtrum_ble": [medtrum.chunked(19, 1, b"\x01\x2f\x00\x00"), medtrum.chunked(21, 7, bytes(range(60)))],
    "medtrum_payload": [b"\x13\x01\x2f\x00\x00", b"\x1f"],
    "dana_r_serial": [dana_r.LAYOUT.write(command=0x0102, params=b"\x00\x64") + dana_r.END],
    "combo_frame": [combo.stuffed(bytes(range(256)))],
    "combo_transport": [paired(), data_packet(0x48), combo.stuffed(paired())],
    "ble_e2e": [b"\x0e\xc3\x8d" + crc16_ccitt_false(b"\x0e\xc3\x8d").to_bytes(2, "little")],
    "minimed700_sake": [bytes(range(20)), bytes(17) + b"\x00\x01\x02"],
}


@pytest.mark.parametrize("name", GOOD)
def test_damage_is_answered_with_a_code(name: str) -> None:
    for data in (b"", b"\x00", bytes(1 << 16), b"\xff" * 300):
        sound(family_named(name).decode(data, NOTHING))


def test_no_flipped_bit_of_a_checksummed_packet_passes() -> None:
    check_flips(family_named("medtrum_ble"), GOOD["medtrum_ble"])
    required = Context(names={"e2e": "required"})
    check_flips(family_named("ble_e2e"), GOOD["ble_e2e"], required)
    for bad in flips(GOOD["dana_r_serial"][0]):
        assert bad[:2] != dana_r.MARK or not dana_r.decode(bad, NOTHING).valid


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=200))
def test_medtrum_messages_are_joined(opcode: int, sequence: int, body: bytes) -> None:
    packet = medtrum.decode_chunks(medtrum.chunked(opcode, sequence, body), NOTHING)
    assert packet.valid, packet.detail
    assert packet.fields["data"] == body.hex()


def test_medtrum_chunks_out_of_order_are_not_a_message() -> None:
    data = medtrum.chunked(19, 1, bytes(50))
    parts = [data[at : at + 20] for at in range(0, len(data), 20)]
    swapped = medtrum.decode_chunks(b"".join([parts[1], parts[0], *parts[2:]]), NOTHING)
    assert (swapped.code, swapped.therapy_affecting) == ("packet.unknown", True)
    other = medtrum.chunked(19, 2, bytes(50))
    mixed = medtrum.decode_chunks(parts[0] + other[20:40] + b"".join(parts[2:]), NOTHING)
    assert mixed.code == "packet.unknown"


@given(st.binary(max_size=300))
def test_stuffing_is_undone(data: bytes) -> None:
    frame = combo.stuffed(data)
    assert frame.count(b"\xcc") == 2
    assert combo.unstuffed(frame) == data


def test_combo_tells_keys_pressed_from_the_rest() -> None:
    assert combo.decode_transport(data_packet(0x48), NOTHING).therapy_affecting
    assert combo.decode_transport(data_packet(0xB7), NOTHING).therapy_affecting
    assert not combo.decode_transport(data_packet(0x00), NOTHING).therapy_affecting
    assert combo.decode_transport(paired(payload=b"\x00\x00"), NOTHING).code == "packet.crc"


def test_streams() -> None:
    one, two = combo.stuffed(paired()), combo.stuffed(data_packet(0x48))
    found = [packet.raw for _, packet in decode_stream(family_named("combo_transport"), [b"\x00\xcc\x01" + one + two])]
    assert found[-2:] == [one, two]
    bolus = GOOD["dana_r_serial"][0]
    cut = [packet for _, packet in decode_stream(family_named("dana_r_serial"), [b"\x7e" + bolus + bolus[:4]])]
    assert [packet.raw for packet in cut] == [bolus]
    assert cut[0].therapy_affecting


def test_an_e2e_checksum_is_only_claimed_where_it_is_right() -> None:
    record = GOOD["ble_e2e"][0]
    assert ble_e2e.decode(record, NOTHING).crc_ok is True
    for bad in mutations(record, 3, 50):
        packet = ble_e2e.decode(bad, Context(names={"e2e": "required"}))
        assert packet.valid == (packet.crc_ok is True)
    command = ble_e2e.decode(record, Context(names={"characteristic": "idd-command-control-point"}))
    assert command.therapy_affecting


def test_every_command_that_moves_insulin_is_said() -> None:
    for command in (0x0101, 0x0102, 0x0104, 0x0401, 0x0403, 0x0406, 0x0407, 0x3302, 0x3306, 0x330A, 0x330C):
        data = dana_r.LAYOUT.write(command=command, params=b"") + dana_r.END
        assert dana_r.decode(data, NOTHING).therapy_affecting
    for opcode in (16, 18, 19, 20, 21, 24, 25, 29, 31):
        assert medtrum.decode_payload(bytes((opcode, 0, 0, 0)), NOTHING).therapy_affecting
    assert not medtrum.decode_payload(b"\x0b", NOTHING).therapy_affecting

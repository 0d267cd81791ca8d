"""Omnipod: Eros packets, whole messages, DASH fragments and encrypted messages; vectors, commands, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import Malformed
from devguard.packets.families.omnipod import ANSWERS, BLOCKS, HARMLESS, MESSAGE_LAYOUT, STATUS
from devguard.packets.families.omnipod_ble import FRAGMENT, MESSAGE, fragmented, sealed
from devguard.packets.families.omnipod_eros import PACKET_LAYOUT
from devguard.packets.packet import NOTHING, Context
from devguard.packets.registry import family_named
from packets_support import check_damage, check_flips, check_row, flips, rows, sound, truncations

EROS, WHOLE, DASH, BLE = map(family_named, ("omnipod_eros", "omnipod_message", "omnipod_dash", "omnipod_dash_ble"))
PDM, POD, ACK, CON = 5, 7, 2, 4
ADDRESS = 0x1F0A0B0C
CK, PREFIX = bytes(range(16)), bytes(range(100, 108))
KEYS = {"ck": CK, "nonce_prefix": PREFIX}
SEALED = Context(keys=KEYS)
CANCEL = b"\x1f\x05" + b"\x01\x02\x03\x04" + b"\x07"
GET_STATUS = b"\x0e\x01\x00"
STATUS_ANSWER = bytes.fromhex("1d180012340000004bff")
EARLIER = {"ck", "nonce_prefix"}  # what the caller knows: keys are never fields


def message(body: bytes, address: int = ADDRESS, sequence: int = 3) -> bytes:
    return MESSAGE_LAYOUT.write(address=address, flags=sequence, body=body)


def radio(kind: int, payload: bytes, sequence: int = 9) -> bytes:
    return PACKET_LAYOUT.write(address=ADDRESS, head=kind << 5 | sequence, payload=payload)


def schedule(table: int, entries: bytes, start: bytes = bytes(5), wrong: int = 0) -> bytes:
    """A 1A block whose entries all have one segment, so that their sum is their pulses."""
    total = sum(start) + sum(low + (high & 3) for high, low in zip(entries[::2], entries[1::2], strict=True)) + wrong
    data = b"INS." + bytes((table,)) + total.to_bytes(2, "big") + start + entries
    return bytes((0x1A, len(data))) + data


@pytest.mark.parametrize("family", [EROS, WHOLE, DASH], ids=lambda family: family.name)
def test_the_vectors(family: Any, vectors: Path) -> None:
    for row in rows(vectors, family.name):
        packet = check_row(row)
        if family is not EROS:
            assert packet.name == row["name"]


def test_the_vectors_of_fragments_and_encryption(vectors: Path) -> None:
    last, first, encrypted = rows(vectors, BLE.name)
    check_row(last, Context(names={"earlier": first["hex"]}))
    check_row(first, leave={"joined"})  # its end is in the other fragment
    keys = {name: encrypted["fields"][name].encode() for name in EARLIER}
    for names in ({}, {"nonce_seq": str(encrypted["fields"]["nonce_seq"])}):
        packet = check_row(encrypted, Context(keys, names), leave=EARLIER)
        assert packet.authenticated
        assert packet.name == "status_response"
    alone = BLE.decode(bytes.fromhex(encrypted["hex"]), NOTHING)
    assert alone.valid
    assert alone.crc_ok is None
    assert not alone.authenticated
    assert alone.name == "encrypted"
    whole = BLE.decode(bytes.fromhex(first["hex"] + last["hex"]), NOTHING)
    assert whole.valid
    assert whole.fields["joined"] == last["fields"]["joined"]


@pytest.mark.parametrize("family", [EROS, WHOLE, DASH, BLE], ids=lambda family: family.name)
def test_damage_to_the_vectors(family: Any, vectors: Path) -> None:
    for number, row in enumerate(rows(vectors, family.name)):
        whole = bytes.fromhex(row["hex"])
        check_damage(family, [whole])
        over = family is EROS and len(whole) > 37  # cut to 37 bytes it is the packet before the noise
        assert over or not any(family.decode(bad, NOTHING).valid for bad in truncations(whole))
        if row["valid_crc"] and family is not BLE and number % 5 == 0:
            check_flips(family, [whole])


@pytest.mark.slow
@pytest.mark.parametrize("family", [EROS, WHOLE, DASH, BLE], ids=lambda family: family.name)
def test_damage_to_the_vectors_at_length(family: Any, vectors: Path) -> None:
    found = rows(vectors, family.name)
    check_damage(family, [bytes.fromhex(row["hex"]) for row in found], count=10_000)
    if family is not BLE:
        check_flips(family, [bytes.fromhex(row["hex"]) for row in found if row["valid_crc"]])


@given(st.binary(max_size=400))
def test_any_bytes_are_answered(data: bytes) -> None:
    for family in (EROS, WHOLE, DASH):
        sound(family.decode(data, NOTHING))
    for bad in (data, b"TW" + data, b"\x00\x01" + data):
        sound(BLE.decode(bad, SEALED))


@given(
    st.sampled_from(sorted(set(BLOCKS) - {STATUS, 0x07, 0x17, 0x1A, 0x1C, 0x1F})),
    st.binary(max_size=200),
    st.integers(0, 15),
)
def test_messages_round_trip(kind: int, data: bytes, sequence: int) -> None:
    body = bytes((kind, len(data))) + data
    for family in (WHOLE, DASH):
        packet = family.decode(message(body, sequence=sequence), NOTHING)
        assert packet.valid, packet.detail
        assert (packet.fields["blocks"], packet.fields["sequence"]) == ([kind], sequence)
        assert packet.fields["details"] == [{"block": BLOCKS[kind], "data": data.hex()}]
        assert packet.therapy_affecting == (kind not in HARMLESS)
        assert ("details" in packet.patient) == (kind in ANSWERS)


@given(st.binary(min_size=1, max_size=600), st.sampled_from((POD, PDM)))
def test_the_first_packet_of_any_message(data: bytes, kind: int) -> None:
    whole = message(b"\x02\xff" + data)
    packet = EROS.decode(radio(kind, whole[:31]), NOTHING)
    assert packet.valid, packet.detail
    assert packet.fields["message_complete"] == (len(whole) <= 31)
    assert packet.fields["body_len"] == len(data) + 2


def test_several_blocks_and_a_long_body() -> None:
    body = CANCEL + GET_STATUS + b"\x02\xff" + bytes(255) + b"\x02\xff" + bytes(255)
    packet = WHOLE.decode(message(body), NOTHING)
    assert packet.valid
    assert packet.name == "cancel_delivery+get_status+pod_info+pod_info"
    assert packet.fields["body_len"] == len(body) > 511
    assert packet.fields["details"][0]["cancels"] == ["basal", "temp_basal", "bolus"]


@pytest.mark.parametrize(
    "body",
    [
        schedule(0, b"\x00\x10\x01\x20"),
        b"\x13\x01\x00",
        b"\x16\x01\x00",
        b"\x17\x0d\x00\x03\xe8" + bytes(10),
        b"\x1c\x04INS.",
        CANCEL,
        b"\x07\x04\x01\x02\x03\x04",
        b"\x03\x01\x00",
        b"\x08\x01\x00",
        b"\x55\x01\x00",
        GET_STATUS + CANCEL,
    ],
    ids=lambda body: body[:1].hex(),
)
def test_commands_that_act(body: bytes) -> None:
    assert WHOLE.decode(message(body), NOTHING).therapy_affecting
    whole = message(body)[:31]
    assert EROS.decode(radio(PDM, whole), NOTHING).therapy_affecting
    assert not EROS.decode(radio(POD, whole), NOTHING).therapy_affecting


def test_what_blocks_say() -> None:
    def details(body: bytes) -> dict[str, Any]:
        packet = DASH.decode(message(body), NOTHING)
        assert packet.valid, packet.detail
        return dict(packet.fields["details"][0])

    assert details(b"\x17\x0d\x00\x03\xe8" + bytes(10))["bolus_units"] == 5.0
    assert details(b"\x07\x04\x01\x02\x03\x04")["assigned_address"] == "01020304"
    assert details(schedule(2, b"\x00\x64"))["table"] == "bolus"
    status = details(STATUS_ANSWER)
    assert status["delivery_status"] == 1
    assert status["pod_progress"] == 8
    assert status["reservoir_units"] is None
    assert status["delivered_units"] == round(0x24 * 0.05, 2)


def test_an_insulin_schedule_has_a_checksum_of_its_own() -> None:
    packet = WHOLE.decode(message(schedule(1, b"\x00\x10", wrong=1)), NOTHING)
    assert (packet.code, packet.crc_ok, packet.therapy_affecting) == ("packet.crc", False, True)
    assert packet.fields["details"][0]["checksum_ok"] is False
    odd = WHOLE.decode(message(b"\x1a\x08INS.\x00\x00\x00\x00"), NOTHING)
    assert odd.code == "packet.length"
    assert odd.therapy_affecting


def test_blocks_that_do_not_fit_their_body() -> None:
    for body in (b"", b"\x0e", b"\x0e\x05\x00", b"\x1d" + bytes(8), CANCEL + b"\x19\xff"):
        packet = WHOLE.decode(message(body), NOTHING)
        assert (packet.code, packet.crc_ok) == ("packet.length", True)
    assert WHOLE.decode(message(CANCEL + b"\x19\xff"), NOTHING).therapy_affecting


def test_lengths_at_their_extremes() -> None:
    for family, good in ((EROS, radio(PDM, message(GET_STATUS))), (WHOLE, message(GET_STATUS))):
        for bad in (b"", good[:-1], good + b"\x00", bytes(1 << 20), good[:4] + b"\xff\xff" + good[6:]):
            assert family.decode(bad, NOTHING).code is not None
    assert EROS.decode(radio(ACK, b"\x01\x02\x03"), NOTHING).code == "packet.length"
    assert EROS.decode(radio(ACK, b"\x01\x02\x03\x04"), NOTHING).valid
    assert EROS.decode(radio(CON, bytes(31)), NOTHING).valid
    assert EROS.decode(radio(CON, bytes(32)), NOTHING).code == "packet.length"
    assert EROS.decode(radio(3, b"\x01"), NOTHING).fields["packet_type"] == "unknown 0x3"


def test_noise_behind_a_packet_is_seen() -> None:
    good = radio(PDM, message(schedule(0, b"\x00\x10" * 9) + b"\x13\x02\x00\x00")[:31])
    assert len(good) == 37
    packet = EROS.decode(good + b"\x12\x34", NOTHING)
    assert packet.fields["first_37_bytes_crc8_ok"] is True
    assert packet.fields["reject"] is True
    assert not packet.valid


@given(st.binary(min_size=1, max_size=240))
def test_fragments_round_trip(payload: bytes) -> None:
    payload = MESSAGE.build(clear(payload))
    data = fragmented(payload)
    packet = BLE.decode(data, NOTHING)
    assert packet.crc_ok is True, packet.detail
    assert packet.fields["joined"] == payload.hex()
    parts = [data[at : at + FRAGMENT] for at in range(0, len(data), FRAGMENT)]
    last = BLE.decode(parts[-1], Context(names={"earlier": b"".join(parts[:-1]).hex()}))
    assert last.crc_ok
    assert last.fields["joined"] == payload.hex()
    for count in range(1, len(parts)):
        part = BLE.decode(b"".join(parts[:count]), NOTHING)
        assert part.valid
        assert part.crc_ok is None
        assert part.fields["complete"] is False


def clear(payload: bytes) -> dict[str, Any]:
    names = ("sas", "tfs", "ack", "priority", "last_message", "gateway")
    flags = dict.fromkeys(names, False) | {"version": 0, "eqos": 0, "type": 3}
    ids = {"sequence": 1, "ack_number": 2, "source": 1, "destination": 2}
    return ids | {"flags": flags, "size": {"zero": 0}, "payload": payload}


def test_fragments_out_of_order_missing_or_false() -> None:
    data = fragmented(MESSAGE.build(clear(bytes(range(80)))))
    parts = [data[at : at + FRAGMENT] for at in range(0, len(data), FRAGMENT)]
    for bad in (parts[0] + parts[2], parts[1] + parts[0], data + parts[-1], data + bytes(FRAGMENT)):
        assert BLE.decode(bad, NOTHING).code in ("packet.unknown", "packet.length")
    false = bytearray(data)
    false[30] ^= 1
    assert (BLE.decode(bytes(false), NOTHING).code, BLE.decode(bytes(false), NOTHING).crc_ok) == ("packet.crc", False)
    for count in (15, 127, 255):
        assert BLE.decode(bytes((0, count)) + bytes(18), NOTHING).code == "packet.unknown"
    assert BLE.decode(bytes((0, 0, 0, 0, 0, 0, 255)) + bytes(13), NOTHING).code == "packet.length"
    with pytest.raises(Malformed):
        BLE.decode(parts[1], Context(names={"earlier": "no hex"}))


@given(st.integers(0, 255), st.booleans())
def test_a_message_that_decrypts_is_authenticated(counter: int, from_pod: bool) -> None:
    inner = message(STATUS_ANSWER if from_pod else CANCEL)
    mark = b"0.0=" if from_pod else b"S0.0="
    plain = mark + len(inner).to_bytes(2, "big") + inner + (b"" if from_pod else b",G0.0")
    data = sealed(CK, PREFIX, counter, plain, from_pod=from_pod)
    for names in ({}, {"nonce_seq": str(counter)}):
        packet = BLE.decode(data, Context(KEYS, names))
        assert packet.authenticated
        assert packet.crc_ok
        assert packet.valid
        assert packet.therapy_affecting is not from_pod
        assert packet.fields["nonce_seq"] == counter
        assert packet.fields["pod_to_controller_bit"] == from_pod
        assert ("message" in packet.patient) == from_pod
        assert CK.hex() not in str(packet.fields)
        assert PREFIX.hex() not in str(packet.fields)
    assert BLE.decode(fragmented(data), SEALED).authenticated


def test_encryption_refuses_what_does_not_fit() -> None:
    data = sealed(CK, PREFIX, 5, b"0.0=\x00\x00")
    at = {"nonce_seq": "5"}
    for context in (
        Context(KEYS | {"ck": bytes(16)}),
        Context(KEYS | {"nonce_prefix": bytes(8)}),
        Context(KEYS, {"nonce_seq": "6"}),
    ):
        packet = BLE.decode(data, context)
        assert (packet.code, packet.crc_ok, packet.authenticated) == ("packet.crc", False, False)
    assert not any(BLE.decode(bad, Context(KEYS, at)).valid for bad in flips(data))
    assert not any(BLE.decode(bad, Context(KEYS, at)).valid for bad in truncations(data))
    check_damage(BLE, [data], context=Context(KEYS, at))
    for context in (Context({"ck": b"short", "nonce_prefix": PREFIX}), Context(KEYS, {"nonce_seq": "-1"})):
        with pytest.raises(Malformed):
            BLE.decode(data, context)

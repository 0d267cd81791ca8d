"""Tandem messages: the vectors, frames put together, signatures, what a command does, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import Malformed
from devguard.packets.families import tandem
from devguard.packets.families._tandem_opcodes import LONE, PAIRS
from devguard.packets.families.tandem import CHARACTERISTICS, KINDS, framed
from devguard.packets.packet import NOTHING, Context
from devguard.packets.registry import family_named
from packets_support import check_damage, check_flips, check_row, rows, sound, truncations

FAMILY = family_named("tandem_ble")
KEY = b"anInvented16Code"
SIGNED = Context(keys={"hmac": KEY})
RESET = (7_654_321).to_bytes(4, "little")
SUSPEND, BOLUS, SET_TEMP = 156, 158, 164


def context_of(row: dict[str, Any]) -> Context:
    key = row["fields"].get("hmac_key")
    return Context(keys={"hmac": key.encode()}) if key else NOTHING


def test_the_vectors(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        leave = {"hmac_key"}  # the key is what the caller knows, never a field
        leave |= {"signed"} if row["fields"]["signed"] is None else set()  # null: the row does not say
        packet = check_row(row, context_of(row), leave=leave)
        assert packet.name == row["name"]
        assert packet.authenticated == bool(row["fields"].get("hmac_ok"))


def test_the_frames_of_the_vectors_one_by_one(vectors: Path) -> None:
    """A record that is a single frame: whole, or said to be incomplete, or said to be no first frame."""
    for row in rows(vectors, FAMILY.name):
        first, *rest = (bytes.fromhex(frame) for frame in row["frames_hex"])
        packet = FAMILY.decode(first, NOTHING)
        assert packet.valid == (not rest)
        assert not rest or (packet.code == "packet.length" and packet.detail.startswith("incomplete"))
        for frame in rest:
            assert FAMILY.decode(frame, NOTHING).code == "packet.length"


def test_a_wrong_key_authenticates_nothing(vectors: Path) -> None:
    wrong = Context(keys={"hmac": b"not the code at all"})
    for row in rows(vectors, FAMILY.name):
        if row["fields"].get("hmac_ok"):
            packet = FAMILY.decode(bytes.fromhex(row["hex"]), wrong)
            assert (packet.code, packet.crc_ok, packet.authenticated) == ("packet.crc", True, False)
            assert packet.fields["hmac_ok"] is False


def test_damage_to_the_vectors(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        whole, context = bytes.fromhex(row["hex"]), context_of(row)
        check_damage(FAMILY, [whole], context=context)
        assert not any(FAMILY.decode(bad, context).valid for bad in truncations(whole))


@pytest.mark.slow
def test_damage_to_the_vectors_at_length(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        check_damage(FAMILY, [bytes.fromhex(row["hex"])], count=10_000, context=context_of(row))
        check_flips(FAMILY, [bytes.fromhex(row["hex"])], context_of(row))


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=255), st.sampled_from((18, 23, 40, 300)))
def test_what_is_framed_is_read(opcode: int, txid: int, cargo: bytes, chunk: int) -> None:
    data = framed(opcode, txid, cargo, chunk)
    packet = FAMILY.decode(data, NOTHING)
    assert packet.valid, packet.detail
    assert (packet.fields["opcode"], packet.fields["txid"], packet.fields["cargo"]) == (opcode, txid, cargo.hex())
    assert packet.fields["frames"] == -(-(len(cargo) + 5) // chunk)


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_answered(data: bytes, keyed: bool) -> None:
    sound(FAMILY.decode(data, SIGNED if keyed else NOTHING))


def test_flips_and_lengths() -> None:
    plain, signed = framed(32, 9, b"\x02\x01"), framed(SUSPEND, 7, RESET, key=KEY)
    check_flips(FAMILY, [plain, signed])
    check_flips(FAMILY, [signed], SIGNED)
    for bad in (b"", plain + b"\x00", bytes(1 << 20), b"\xff" * 300, b"\x0f\x01\x20\x01\xff" + bytes(400)):
        assert FAMILY.decode(bad, NOTHING).code in ("packet.length", "packet.unknown")


def test_a_signature_authenticates_and_its_absence_does_not() -> None:
    data = framed(SUSPEND, 7, RESET, key=KEY)
    right = FAMILY.decode(data, SIGNED)
    assert right.authenticated
    assert right.therapy_affecting
    assert right.valid
    assert right.fields["pump_time_since_reset"] == 7_654_321
    assert KEY.decode() not in str(right.fields)
    none = FAMILY.decode(data, NOTHING)
    assert none.valid
    assert not none.authenticated
    assert none.fields["hmac_ok"] is None
    bare = FAMILY.decode(framed(SUSPEND, 7, b""), SIGNED)
    assert bare.valid
    assert not bare.authenticated
    unsigned = FAMILY.decode(framed(54, 7, b""), SIGNED)
    assert not unsigned.authenticated
    assert "hmac_ok" not in unsigned.fields


def test_an_agreed_key_may_be_hex() -> None:
    agreed = bytes(range(32))
    data = framed(BOLUS, 1, bytes(37) + RESET, key=agreed)
    assert FAMILY.decode(data, Context(keys={"hmac": agreed})).authenticated
    assert FAMILY.decode(data, Context(keys={"hmac": agreed.hex().encode()})).authenticated


def test_the_same_opcode_on_two_characteristics() -> None:
    temp = framed(SET_TEMP, 1, bytes(6) + RESET, key=KEY)
    assert FAMILY.decode(temp, NOTHING).name == "SetTempRateRequest"
    asked = framed(SET_TEMP, 1, b"")
    assert FAMILY.decode(asked, NOTHING).name == "LastBolusStatusV2Request"
    control = FAMILY.decode(asked, Context(names={"characteristic": "control"}))
    assert control.name == "SetTempRateRequest"
    assert control.therapy_affecting
    odd = FAMILY.decode(framed(SET_TEMP, 1, bytes(3)), NOTHING)  # fits neither: it is taken for the one that acts
    assert odd.therapy_affecting
    assert odd.fields["ambiguous_with"] == ["LastBolusStatusV2Request"]
    stream = framed(229, 1, b"\x01" + RESET, key=KEY)
    assert FAMILY.decode(stream, NOTHING).fields["ambiguous_with"] == ["SetPumpSoundsResponse"]
    named = FAMILY.decode(stream, Context(names={"characteristic": "CONTROL"}))
    assert (named.name, named.fields["ambiguous_with"]) == ("SetPumpSoundsResponse", [])
    with pytest.raises(Malformed):
        FAMILY.decode(stream, Context(names={"characteristic": "hall"}))


@pytest.mark.parametrize("opcode", [134, 136, 144, 154, 156, 158, 164, 166, 172, 204, 214, 230, 236, 250])
def test_commands_that_act(opcode: int) -> None:
    size = next(kind.size for kind in KINDS[opcode] if kind.characteristic == "CONTROL")
    packet = FAMILY.decode(framed(opcode, 3, bytes(size or 0) + RESET, key=KEY), NOTHING)
    assert packet.therapy_affecting, packet.name
    assert packet.fields["characteristic"] == "CONTROL"


def test_unlisted_opcodes_survive() -> None:
    asked, answered = FAMILY.decode(framed(254, 1, b""), NOTHING), FAMILY.decode(framed(255, 1, b"\x01"), NOTHING)
    assert (asked.name, asked.valid, asked.therapy_affecting) == ("unknown 0xfe", True, True)
    assert (answered.name, answered.valid, answered.therapy_affecting) == ("unknown 0xff", True, False)


def test_patient_data_is_named() -> None:
    glucose = FAMILY.decode(framed(35, 1, bytes(8)), NOTHING)
    assert glucose.patient == {"cargo", "merged"}
    command = FAMILY.decode(framed(SET_TEMP, 1, bytes(6) + RESET, key=KEY), NOTHING)
    assert not command.patient


def test_the_table_is_one_to_one() -> None:
    assert set(PAIRS) | set(LONE) == set(CHARACTERISTICS)
    for pairs in PAIRS.values():
        assert all(opcode % 2 == 0 for opcode, *_ in pairs)
        assert len({opcode for opcode, *_ in pairs}) == len({name for _, name, *_ in pairs}) == len(pairs)
    names = [(kind.characteristic, kind.name) for kinds in KINDS.values() for kind in kinds]
    assert len(names) == len(set(names)) > 250
    assert tandem.FAMILIES[0].framer is None  # frames have no marks: they are gathered, one a record

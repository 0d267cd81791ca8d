"""Dana RS: the vectors with all that their rows let be known, the three modes, both levels, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import Malformed
from devguard.packets.families._dana_opcodes import COMMANDS, HARMLESS
from devguard.packets.families.dana_rs import CRCS, hidden
from devguard.packets.packet import NOTHING, Context, Packet
from devguard.packets.registry import family_named
from packets_support import Row, check_damage, check_flips, check_row, rows, sound, truncations

FAMILY = family_named("dana_rs_ble")
DEVICE = "ABC12345XY"
TIME, PASSKEY = bytes((26, 11, 22, 6, 30, 1, 0x87 ^ 0x12, 0x0D ^ 0x34)), b"\x5a\x21"
EXTRA = (sum(TIME[:6]) & 0xFF) ^ (0x12 + 0x34)
LAYERS = bytes((EXTRA ^ PASSKEY[1], EXTRA ^ PASSKEY[0]))
SESSION = {"time_information": TIME, "passkey": PASSKEY}
BLE5 = {"ble5_key": b"314159"}
RSV3 = {"pairing_key": bytes.fromhex("0123456789ab"), "random_pairing_key": bytes.fromhex("cdef01")}
COMMAND, ANSWER, REQUEST, REPLY = 0xA1, 0xB2, 0x01, 0x02
TEMPORARY_BASAL, KEEP_ALIVE, SHIPPING = 0x60, 0xFF, 0x20
TESTED = {"function", "input", "output"}
"""The function that upstream's test calls and its arguments: no part of a packet."""


def decode(data: bytes, mode: str | None = None, keys: dict[str, bytes] | None = None, **names: str) -> Packet:
    return FAMILY.decode(data, Context(keys or {}, {"device": DEVICE} | ({"mode": mode} if mode else {}) | names))


def second(data: bytes, keys: dict[str, bytes], marks: bytes) -> bytes:
    """A packet hidden by the second level: the byte at each place that decodes to what is wanted there."""
    wanted = marks[:2] + data[2:-2] + marks[2:]
    found = b""
    for at in range(len(wanted)):
        tries = (found + bytes((byte,)) for byte in range(256))
        found = next(guess for guess in tries if undone(guess, keys)[at : at + 1] == wanted[at : at + 1])
    return found


def undone(data: bytes, keys: dict[str, bytes]) -> bytes:
    from devguard.packets.families.dana_rs import _second

    inverse = _second(Context(keys))
    assert inverse is not None
    return inverse(data)


def unchecked(row: Row) -> bool:
    return row["valid_crc"] is None


def context_of(row: Row) -> Context:
    """Device and mode as the row has them; where the row leaves the checksum unchecked, so much less."""
    fields = row["fields"]
    if "LevelPacket" in fields["function"]:
        return Context(names={"level": "second", "mode": fields["mode"]})
    if row["hex"].startswith("aaaa"):
        return NOTHING
    return Context(names={"device": fields["device"], "mode": fields["mode"]})


def test_the_vectors(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        context = context_of(row)
        leave = set(TESTED)
        if unchecked(row):  # what the row does not let be read: the device behind a second level, the hidden opcode
            leave |= {"opcode_name"} | ({"device"} if "device" not in context.names else set())
        check_row(row, context, leave=leave)


def row_named(vectors: Path, mode: str, opcode: int, kind: int) -> Row:
    found = [row for row in rows(vectors, FAMILY.name) if row["fields"]["mode"] == mode]
    return next(row for row in found if (row["fields"].get("type"), row["fields"].get("opcode")) == (kind, opcode))


def test_default_mode_commands_of_the_vectors(vectors: Path) -> None:
    """The rows that were left unchecked, read with the keys that the handshake rows of the same session carry."""
    time = row_named(vectors, "default", 0x01, REPLY)["fields"]["params"]
    passkey = row_named(vectors, "default", 0xD0, REQUEST)["fields"]["params"]
    keys = {"time_information": time.encode(), "passkey": bytes.fromhex(passkey)}
    read = 0
    for row in rows(vectors, FAMILY.name):
        fields = row["fields"]
        if fields["mode"] == "default" and unchecked(row):
            packet = FAMILY.decode(bytes.fromhex(row["hex"]), Context(keys, context_of(row).names))
            assert packet.crc_ok
            assert packet.valid
            assert packet.fields["opcode_name"] == fields["opcode_name"]
            asked = fields["function"] == "getEncryptedPacket"
            clear = packet.fields["params"] if asked else packet.fields["clear"][6:-8]
            assert clear == fields["input" if asked else "output"]
            read += 1
    assert read == 4


def test_second_level_of_the_vectors(vectors: Path) -> None:
    """BLE5's key is in the pump's answer to the handshake; RSv3's keys are in no row."""
    answer = row_named(vectors, "ble5", 0x00, REPLY)["fields"]["params"]
    keys = {"ble5_key": bytes.fromhex(answer)[-6:]}
    read = 0
    for row in rows(vectors, FAMILY.name):
        fields = row["fields"]
        if fields["mode"] == "ble5" and unchecked(row):
            names = {"device": fields["device"], "mode": "ble5"}
            packet = FAMILY.decode(bytes.fromhex(row["hex"]), Context(keys, names))
            if fields["function"] == "getDecryptedPacket":
                assert packet.crc_ok
                assert packet.fields["clear"][6:-8] == fields["output"]
            else:
                plain = fields["input" if fields["function"].startswith("encrypt") else "output"]
                assert packet.fields["first_level"] == plain
            read += 1
    assert read == 3


def test_damage_to_the_vectors(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        data, context = bytes.fromhex(row["hex"]), context_of(row)
        check_damage(FAMILY, [data], context=context)
        if "level" not in context.names:  # bytes of a second level have no length that could be checked
            assert not any(FAMILY.decode(bad, context).valid for bad in truncations(data))
        if not unchecked(row):  # with a session's keys a damaged type cannot pass for a hidden command
            check_flips(FAMILY, [data], Context(SESSION, context.names))


@pytest.mark.slow
def test_damage_to_the_vectors_at_length(vectors: Path) -> None:
    for row in rows(vectors, FAMILY.name):
        check_damage(FAMILY, [bytes.fromhex(row["hex"])], count=10_000, context=context_of(row))


@given(
    st.sampled_from((COMMAND, ANSWER, 0xC3)),
    st.integers(0, 255),
    st.binary(max_size=253),
    st.sampled_from(sorted(CRCS)),
)
def test_what_is_hidden_is_read(kind: int, opcode: int, params: bytes, mode: str) -> None:
    data = hidden(DEVICE, kind, opcode, params, mode, LAYERS if mode == "default" else bytes(2))
    packet = decode(data, mode, SESSION)
    assert packet.crc_ok is True, packet.detail
    assert (packet.fields["type"], packet.fields["opcode"], packet.fields["params"]) == (kind, opcode, params.hex())
    assert packet.therapy_affecting == (kind == COMMAND and opcode not in HARMLESS)
    assert packet.fields["extra_xor"] == (EXTRA if mode == "default" else 0)


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(data: bytes) -> None:
    for bad in (data, b"\xa5\xa5" + data, b"\xa5\xa5" + bytes((len(data) & 0xFF,)) + data + b"\x5a\x5a"):
        for mode in ("default", "rsv3", "ble5", None):
            sound(decode(bad, mode, SESSION))
            sound(decode(bad, mode, RSV3))
    sound(FAMILY.decode(data, NOTHING))


@pytest.mark.parametrize("variant", sorted(CRCS))
def test_without_a_mode_the_variant_is_found(variant: str) -> None:
    data = hidden(DEVICE, COMMAND, SHIPPING, b"", variant, LAYERS if variant == "default" else bytes(2))
    packet = decode(data, keys=SESSION)
    assert (packet.crc_ok, packet.fields["crc_variant"], packet.fields["mode"]) == (True, variant, variant)
    assert packet.name == "REVIEW__GET_SHIPPING_INFORMATION"


def test_what_can_be_read_without_a_name() -> None:
    packet = FAMILY.decode(hidden(DEVICE, COMMAND, TEMPORARY_BASAL, b"\x64\x01", "ble5"), NOTHING)
    assert packet.valid
    assert packet.crc_ok is None
    assert packet.fields == {"length": 4}
    layered = decode(hidden(DEVICE, COMMAND, KEEP_ALIVE, b"", "default", LAYERS), "default")
    assert layered.valid
    assert layered.crc_ok is None
    assert layered.fields["clear"] is None


def test_the_handshake_has_the_default_checksum_in_every_mode() -> None:
    data = hidden(DEVICE, REPLY, 0x00, b"OK")
    for mode in (*CRCS, None):
        packet = decode(data, mode)
        assert packet.crc_ok
        assert packet.name == "ENCRYPTION__PUMP_CHECK answer"
        assert packet.patient == {"device", "clear", "params"}
        assert packet.fields["opcode_name"] is None


LEVELS: list[tuple[str, dict[str, bytes], bytes]] = [
    ("ble5", BLE5, b"\xaa\xaa\xee\xee"),
    ("rsv3", RSV3, b"\x7a\x7a\x2e\x2e"),
]


@pytest.mark.parametrize(("mode", "keys", "marks"), LEVELS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_second_level(mode: str, keys: dict[str, bytes], marks: bytes) -> None:
    plain = hidden(DEVICE, COMMAND, TEMPORARY_BASAL, b"\x64\x01", mode)
    data = second(plain, keys, marks)
    packet = decode(data, mode, keys)
    assert packet.valid
    assert packet.crc_ok
    assert packet.therapy_affecting
    assert not packet.authenticated
    assert packet.fields["first_level"] == plain.hex()
    check_flips(FAMILY, [data], Context(keys, {"device": DEVICE, "mode": mode}))
    marked = decode(marks[:2] + plain[2:-2] + marks[2:])  # with the second level already undone
    assert marked.crc_ok
    assert marked.fields["mode"] == mode
    assert marked.therapy_affecting
    assert decode(data, mode).code == "packet.unknown"
    taken = decode(data, mode, level="second")
    assert taken.valid
    assert taken.crc_ok is None
    assert taken.name == "second level"


def test_rsv3_goes_on_from_the_byte_before() -> None:
    plain = hidden(DEVICE, ANSWER, KEEP_ALIVE, b"\x00", "rsv3")
    keys = RSV3 | {"sync_key": b"\x99"}
    data = second(plain, keys, b"\x7a\x7a\x2e\x2e")
    assert decode(data, "rsv3", keys).crc_ok
    assert not decode(data, "rsv3", RSV3).valid


@pytest.mark.parametrize("opcode", sorted(set(COMMANDS) - HARMLESS))
def test_commands_that_act(opcode: int) -> None:
    assert "SET_" in COMMANDS[opcode] or "CANCEL" in COMMANDS[opcode]
    packet = decode(hidden(DEVICE, COMMAND, opcode, b"", "rsv3"), "rsv3")
    assert packet.therapy_affecting
    assert packet.name == COMMANDS[opcode]
    assert not decode(hidden(DEVICE, ANSWER, opcode, b"", "rsv3"), "rsv3").therapy_affecting


def test_unlisted_opcodes_and_types_survive() -> None:
    packet = decode(hidden(DEVICE, COMMAND, 0x99, b"", "ble5"), "ble5")
    assert (packet.name, packet.valid, packet.therapy_affecting) == ("unknown 0x99", True, True)
    odd = decode(hidden(DEVICE, 0x77, 0x01, b"", "ble5"), "ble5")
    assert (odd.name, odd.valid, odd.therapy_affecting) == ("unknown 0x01 of type 0x77", True, True)


def test_lengths_and_marks() -> None:
    good = hidden(DEVICE, COMMAND, KEEP_ALIVE, b"", "rsv3")
    longest = b"\xa5\xa5\xff" + bytes(257) + b"\x5a\x5a"
    assert FAMILY.decode(longest, NOTHING).valid
    for bad in (b"", good[:-1], good + b"\x00", bytes(1 << 20), good[:2] + b"\xff" + good[3:], longest + b"\x00"):
        assert FAMILY.decode(bad, NOTHING).code in ("packet.length", "packet.unknown")
    assert FAMILY.decode(good[:-2] + b"\xee\xee", NOTHING).code == "packet.unknown"
    assert FAMILY.decode(b"\xa5\xa5\x00\x00\x00\x5a\x5a", NOTHING).code == "packet.length"


def test_names_and_keys_that_cannot_be() -> None:
    bad: list[Callable[[], Any]] = [
        lambda: decode(b"\x00", "rsv4"),
        lambda: decode(b"\x00", device="SHORT"),
        lambda: decode(b"\x00", device="ÄBC12345XY"),
        lambda: decode(b"\x00", keys={"ble5_key": b"31415"}),
        lambda: decode(b"\x00", keys={"passkey": b"\x01\x02\x03"}),
    ]
    for call in bad:
        with pytest.raises(Malformed):
            call()

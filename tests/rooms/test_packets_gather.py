"""Messages that go on over several records: Eros radio packets, Bluetooth frames, chunks and fragments.

Invariant: every record is told once, in order; what a whole message says is what its parts say together; a part that
is lost, doubled or foreign never makes two messages one.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.packets.decoder import decode_stream
from devguard.packets.families import dana_rs, medtrum, omnipod_ble, tandem
from devguard.packets.families.omnipod import MESSAGE_LAYOUT
from devguard.packets.families.omnipod_eros import PACKET_LAYOUT
from devguard.packets.packet import NOTHING, Context, Effect, Packet
from devguard.packets.registry import family_named
from packets_support import sound

PDM, POD, ACK, CON = 5, 7, 2, 4
EROS = family_named("omnipod_eros")
BOLUS = bytes.fromhex("1a0e01020304" + "02010a0101a000340034" + "170d000208000186a0000000000000")
SETTINGS = b"\x19\x28" + bytes(40)


def radio(kind: int, payload: bytes, sequence: int, address: int = 0x1F0A0B0C) -> bytes:
    return PACKET_LAYOUT.write(address=address, head=kind << 5 | sequence % 32, payload=payload)


def parts(body: bytes, kind: int = PDM, first: int = 30, address: int = 0x1F0A0B0C) -> list[bytes]:
    """A message as radio packets, an acknowledgement between each and the next."""
    whole = MESSAGE_LAYOUT.write(address=0x1F0A0B0C, flags=3, body=body)
    cut = [whole[at : at + 31] for at in range(0, len(whole), 31)]
    packets = [radio(CON if index else kind, part, first + 2 * index, address) for index, part in enumerate(cut)]
    acks = [radio(ACK, b"\x1f\x0a\x0b\x0c", first + 2 * index + 1, address) for index in range(len(cut) - 1)]
    return [one for pair in zip(packets, [*acks, b""], strict=True) for one in pair if one]


def heard(records: list[bytes], family: Any = EROS, context: Context = NOTHING) -> list[Packet]:
    found = [packet for _, packet in decode_stream(family, records, context)]
    for packet in found:
        sound(packet)
    return found


@given(st.binary(min_size=30, max_size=200), st.integers(0, 31), st.sampled_from([PDM, POD]))
def test_an_eros_message_is_whole_with_its_last_packet(data: bytes, first: int, kind: int) -> None:
    body = b"\x1a" + bytes((len(data),)) + data
    records = parts(body, kind, first)
    *_, last = found = heard(records)
    assert [packet.raw for packet in found] == records
    assert last.fields["message_complete"] is True
    assert last.fields["message"]["body"] == body.hex()
    assert last.therapy_affecting == (kind == PDM)
    assert last.effect is (Effect.ACTS if kind == PDM else Effect.NONE if last.valid else Effect.UNKNOWN)
    assert [one.fields.get("message_complete") for one in found[2:-1:2]] == [False] * len(found[2:-1:2])


def test_a_lost_doubled_or_damaged_part() -> None:
    records = parts(SETTINGS + BOLUS)
    assert [len(records), heard(records)[-1].fields["message"]["blocks"]] == [5, [25, 26, 23]]
    doubled = heard([records[0], records[0], *records[1:3], records[2], *records[3:], records[4]])
    assert [one.fields.get("repeated") for one in doubled[3:5]] == [None, True]
    assert doubled[6].fields["message_complete"] is True
    assert doubled[7].fields["repeated"] is True
    lost = heard([*records[:2], *records[3:]])[-1]
    assert (lost.valid, lost.effect, "message" in lost.fields) == (True, Effect.UNKNOWN, False)
    damaged = bytearray(records[2])
    damaged[8] ^= 1
    again = heard([*records[:2], bytes(damaged), *records[2:]])
    assert again[2].code == "packet.crc"
    assert again[-1].fields["message_complete"] is True
    noise = radio(CON, bytes(31), 2, address=0x1F0000FF)
    assert heard([*records[:2], noise, *records[2:]])[-1].fields["message_complete"] is True, "another pod's"
    assert "message" not in heard([*records[:2], parts(BOLUS)[0], *records[2:]])[-1].fields, "a new beginning"


def test_a_message_whose_own_checksum_is_wrong_is_not_valid() -> None:
    whole = bytearray(MESSAGE_LAYOUT.write(address=1, flags=0, body=BOLUS))
    whole[-1] ^= 1
    last = heard([radio(PDM, bytes(whole[:31]), 0), radio(CON, bytes(whole[31:]), 2)])[-1]
    assert (last.code, last.crc_ok, last.effect) == ("packet.crc", False, Effect.ACTS)
    more = heard([radio(PDM, bytes(whole[:31]), 0), radio(CON, bytes(whole[31:]) + b"\x00", 2)])[-1]
    assert more.code == "packet.length"


def test_pods_heard_at_one_time_are_bounded() -> None:
    records = parts(BOLUS)
    crowd = [radio(PDM, records[0][5:-1], 30, address=pod) for pod in range(9)]
    assert "message" not in heard([records[0], *crowd, *records[1:]])[-1].fields
    assert "message" in heard([records[0], *crowd[:7], *records[1:]])[-1].fields


CARGO = bytes(range(40))
CASES: dict[str, tuple[Any, list[bytes], str]] = {
    "tandem": (family_named("tandem_ble"), [], "cargo"),
    "medtrum": (family_named("medtrum_ble"), [], "data"),
    "dash": (family_named("omnipod_dash_ble"), [], "joined"),
}
for _name, _whole, _size in (
    ("tandem", tandem.framed(158, 7, CARGO), 20),
    ("medtrum", medtrum.chunked(21, 3, CARGO), 20),
    ("dash", omnipod_ble.fragmented(omnipod_ble.sealed(bytes(16), bytes(8), 1, CARGO)), 20),
):
    CASES[_name][1].extend(_whole[at : at + _size] for at in range(0, len(_whole), _size))
each = pytest.mark.parametrize("name", CASES)


@each
def test_parts_that_come_one_a_record_are_one_message(name: str) -> None:
    family, records, field = CASES[name]
    alone = family.decode(b"".join(records), NOTHING)
    assert len(records) > 2
    assert alone.valid
    assert heard(records, family) == [alone]
    assert field in alone.fields
    assert heard([b"".join(records)], family) == [alone], "joined already"
    assert heard([*records, *records], family) == [alone, alone]


@each
def test_a_part_that_never_comes_ends_the_message_and_costs_no_other(name: str) -> None:
    family, records, _ = CASES[name]
    whole = family.decode(b"".join(records), NOTHING)
    for missing in range(len(records)):
        found = heard([*records[:missing], *records[missing + 1 :], *records], family)
        assert found[-1] == whole, (name, missing)
        assert not any(packet == whole for packet in found[:-1])
        assert all(packet.effect is not Effect.NONE or not packet.valid for packet in found[:-1])
        taken = b"".join(packet.raw for packet in found)
        assert taken == b"".join([*records[:missing], *records[missing + 1 :], *records]), "every record is told once"


@each
def test_a_message_in_two_captures_at_once_is_read_in_each(name: str) -> None:
    from devguard.packets.decoder import Decoder

    family, records, _ = CASES[name]
    decoder, found = Decoder(family), []
    for record in records:
        found += decoder.feed(record, 1) + decoder.feed(record, 2)
    whole = family.decode(b"".join(records), NOTHING)
    assert [packet for _, packet in found + decoder.finish()] == [whole, whole]


def test_dana_packets_split_by_bluetooth() -> None:
    family, names = family_named("dana_rs_ble"), Context(names={"device": "UHH00002TI", "mode": "rsv3"})
    packet = dana_rs.hidden("UHH00002TI", 0xA1, 0x4A, bytes(40), "rsv3")
    records = [packet[at : at + 20] for at in range(0, len(packet), 20)]
    [whole] = heard(records, family, names)
    assert (whole.valid, whole.therapy_affecting, whole.raw) == (True, True, packet)
    found = heard([*records[:2], *records], family, names)
    assert (found[0].code, found[-1]) == ("packet.length", whole)
    assert [one.name for one in heard([b"\x01" * 20], family, names)] == ["unreadable"]


@each
@given(data=st.data())
def test_any_records_are_answered(name: str, data: st.DataObject) -> None:
    """Parts in any order, with anything between."""
    family, records, _ = CASES[name]
    fed = data.draw(st.lists(st.sampled_from(records) | st.binary(max_size=40), max_size=12))
    found = heard(fed, family)
    assert b"".join(packet.raw for packet in found) == b"".join(fed)

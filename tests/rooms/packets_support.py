"""What the tests of every packet family do alike: the vectors' rows, truncations, flips and seeded mutations."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from devguard.packets.family import Family
from devguard.packets.packet import NOTHING, Context, Packet
from devguard.packets.registry import family_named

CODES = {"packet.crc", "packet.length", "packet.unknown"}
Row = dict[str, Any]
Decode = Callable[[bytes, Context], Packet]


def rows(vectors: Path, family: str) -> list[Row]:
    """The third-party rows of a family."""
    found = [row for row in json.loads((vectors / "packets.json").read_text()) if row["family"] == family]
    assert found, f"the vectors have no {family}"
    return found


def check_row(row: Row, context: Context = NOTHING, *, leave: Iterable[str] = (), valid: bool | None = None) -> Packet:
    """One row against its family's decode. `leave`: fields that describe the test and not the bytes. `valid`: what is
    expected where neither the checksum nor the row's own marks say it."""
    packet = family_named(row["family"]).decode(bytes.fromhex(row["hex"]), context)
    wanted = {name: value for name, value in row["fields"].items() if name not in set(leave)}
    found = {name: packet.fields.get(name, "(missing)") for name in wanted}
    assert found == wanted, row["name"]
    assert packet.crc_ok == row["valid_crc"], row["name"]
    assert packet.therapy_affecting == row["therapy_affecting"], row["name"]
    if valid is None:
        refused = row["valid_crc"] is False or row.get("length_ok") is False or row["fields"].get("reject", False)
        valid = not refused
    assert packet.valid == valid, (row["name"], packet.code, packet.detail)
    sound(packet)
    return packet


def sound(packet: Packet) -> None:
    """What holds for every answer: a known code or none, JSON fields, patient fields that exist."""
    assert packet.code is None or packet.code in CODES
    assert packet.valid == (packet.code is None)
    assert packet.crc_ok is not False or not packet.valid
    assert json.loads(json.dumps(packet.to_json(patient_data=True)))
    assert set(packet.patient) <= set(packet.fields)
    hidden = packet.to_json()["fields"]
    assert all(hidden[name] == "(patient data)" for name in packet.patient)


def truncations(data: bytes) -> Iterator[bytes]:
    """Every shorter beginning."""
    return (data[:size] for size in range(len(data)))


def flips(data: bytes) -> Iterator[bytes]:
    """Every single bit flipped."""
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def mutations(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Seeded damage of all kinds: bytes set, cut, doubled, inserted, lengths at their extremes."""
    chance = random.Random(seed)
    for _ in range(count):
        bad = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(bad) + 1)
            match chance.randrange(5):
                case 0 if at < len(bad):
                    bad[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
                case 1:
                    del bad[at : at + chance.randrange(1, 9)]
                case 2:
                    bad[at:at] = bad[at : at + chance.randrange(1, 17)]
                case 3:
                    bad[at:at] = chance.randbytes(chance.randrange(1, 9))
                case _:
                    bad[at : at + 2] = chance.choice((b"\x00\x00", b"\xff\xff", b"\x7f\xff", b"\x80\x00"))
        yield bytes(bad)


def check_damage(
    family: Family, good: Iterable[bytes], *, seed: int = 5, count: int = 200, context: Context = NOTHING
) -> None:
    """Every truncation and `count` seeded mutations of each packet end in a coded answer."""
    for index, data in enumerate(good):
        for bad in (*truncations(data), *mutations(data, seed + index, count)):
            sound(family.decode(bad, context))
            if family.bulk is not None:
                assert family.bulk(bad, context) == family.decode(bad, context)


def check_flips(family: Family, good: Iterable[bytes], context: Context = NOTHING) -> None:
    """No single flipped bit of a checksummed packet passes."""
    for data in good:
        for bad in flips(data):
            assert not family.decode(bad, context).valid, bad.hex()

"""What a person is told a packet does: never less than the readers' mark, and "unknown" wherever nobody can tell.

The commands are those that the field's documents name as acting, family by family.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devguard.packets.families import (
    codefree,
    combo,
    dana_r,
    dana_rs,
    dexcom_ble,
    dexcom_g4,
    lifescan,
    medtrum,
    omnipod_ble,
    pacemaker,
    taidoc,
    tandem,
)
from devguard.packets.packet import NOTHING, Context, Effect, Packet
from devguard.packets.registry import family_named
from fuzz_packets import CK, DANA, PREFIX, SEEDS, frame
from test_packets_omnipod import message, radio

ACTS, NONE, UNKNOWN = Effect.ACTS, Effect.NONE, Effect.UNKNOWN
NAMED = Context(names={"device": DANA, "mode": "rsv3"})


def of(family: str, data: bytes, context: Context = NOTHING) -> Packet:
    return family_named(family).decode(data, context)


def smp(operation: int, group: int, command: int) -> bytes:
    return bytes((0x08 | operation, 0, 0, 1, group >> 8, group & 0xFF, 7, command, 0xA0))


def meter(direction: int, said: bytes) -> bytes:
    return codefree.LAYOUT.write(direction=direction, message=said) + b"\xaa"


def block(kind: int) -> bytes:
    return message(bytes((kind, 5)) + b"INS.\x00")


COMMANDS: dict[str, tuple[list[bytes], list[bytes], list[bytes]]] = {
    "minimed_rf": (
        [frame(one, b"\0") for one in (0x40, 0x41, 0x42, 0x4A, 0x4C, 0x4D, 0x51, 0x5B, 0x69, 0x6E)],
        [frame(one, b"\0") for one in (0x70, 0x80, 0x8D, 0x98)],
        [frame(one, b"\0") for one in (0x20, 0xC3)],
    ),
    "omnipod_message": (
        [block(one) for one in (0x03, 0x07, 0x13, 0x16, 0x17, 0x19, 0x1A, 0x1C, 0x1F, 0x55)],
        [message(b"\x0e\x01\x00"), block(0x11), block(0x1E)],
        [],
    ),
    "omnipod_eros": (
        [radio(5, block(0x1F)), radio(5, block(0x19))],
        [radio(7, block(0x1F)), radio(2, bytes(4))],
        [radio(4, b"x" * 9)],
    ),
    "tandem_ble": (
        [tandem.framed(one, 1, bytes(size + 24)) for one, size in ((158, 37), (160, 4), (170, 17), (136, 4), (214, 4))],
        [tandem.framed(20, 1, b"")],
        [],
    ),
    "dana_r_serial": (
        [dana_r.LAYOUT.write(command=one, params=b"") + dana_r.END for one in (0x0101, 0x0407, 0x330A, 0x33FF)],
        [dana_r.LAYOUT.write(command=one, params=b"") + dana_r.END for one in (0x020B, 0x3202)],
        [dana_r.LAYOUT.write(command=0x0999, params=b"") + dana_r.END, b"\x01\x02\x03"],
    ),
    "medtrum_payload": (
        [bytes((one, 0, 0, 0)) for one in (10, 16, 18, 19, 20, 21, 24, 25, 29, 31)],
        [b"\x0b", b"\x05"],
        [b"\xfe"],
    ),
    "medtrum_ble": (
        [medtrum.chunked(19, 1, bytes(4))],
        [medtrum.chunked(99, 1, bytes(4))],
        [medtrum.chunked(0xFE, 1, bytes(4))],
    ),
    "combo_transport": (
        [SEEDS["combo_transport"]()[1]],
        [SEEDS["combo_transport"]()[0]],
        [bytes((0x10, 0x23, 2, 0, 1)) + bytes(13) + b"\x10\x99" + bytes(8)],
    ),
    "combo_frame": ([], [], [combo.stuffed(bytes(30))]),
    "lifescan_binary": (
        [lifescan.LAYOUT.write(link_control=0, message=b"\x05\x20\x01" + bytes(4))],
        [
            lifescan.LAYOUT.write(link_control=0, message=one)
            for one in (b"", b"\x05\x20\x02", b"\x05\x0d\x02", b"\x05\x1a")
        ],
        [lifescan.LAYOUT.write(link_control=0, message=b"\x07\x01")],
    ),
    "taidoc_td42xx": (
        [taidoc.LAYOUT.write(command=0x33, message=bytes(4), direction=0xA3)],
        [taidoc.LAYOUT.write(command=0x25, message=bytes(4), direction=0xA3)],
        [taidoc.LAYOUT.write(command=0x99, message=bytes(4), direction=0xA3)],
    ),
    "sd_codefree": (
        [codefree.LAYOUT.write(direction=0x10, message=b"ADATE26") + b"\xaa"],
        [
            codefree.LAYOUT.write(direction=0x20, message=b"ADATE26") + b"\xaa",
            codefree.LAYOUT.write(direction=0x10, message=b"\x10\x40") + b"\xaa",
        ],
        [codefree.LAYOUT.write(direction=0x10, message=b"\x99\x99") + b"\xaa"],
    ),
    "dexcom_g4_serial": (
        [dexcom_g4.LAYOUT.write(command=one, payload=b"") for one in (26, 32, 36, 45, 46)],
        [dexcom_g4.LAYOUT.write(command=10, payload=b"")],
        [dexcom_g4.LAYOUT.write(command=99, payload=b"")],
    ),
    "dexcom_g5g6_ble": (
        [dexcom_ble.LAYOUT.write(opcode=one, body=b"") for one in (0x34, 0x42)],
        [dexcom_ble.LAYOUT.write(opcode=0x31, body=bytes(9))],
        [dexcom_ble.LAYOUT.write(opcode=0x99, body=b"")],
    ),
    "ieee11073_20601": (
        [SEEDS["ieee11073_20601"]()[0]],
        SEEDS["ieee11073_20601"]()[1:],
        [bytes.fromhex("e700000e000c00010105000600000a880000"), bytes.fromhex("e700000e000c00010107000600000c990000")],
    ),
    "smp_frame": (
        [
            smp(2, 0, 5),
            smp(2, 1, 1),
            smp(3, 1, 1),
            smp(2, 0, 4),
            smp(2, 3, 0),
            smp(2, 9, 0),
            smp(2, 8, 0),
            smp(2, 63, 0),
        ],
        [smp(0, 1, 0), smp(1, 3, 0), smp(0, 0, 4), smp(2, 0, 0)],
        [smp(2, 64, 1)],
    ),
    "pacemaker_3k04": (
        [pacemaker.HEAD_A.write(fn=0x55), SEEDS["pacemaker_3k04"]()[2], b"\xff" * 16],
        [pacemaker.HEAD_A.write(fn=0x47), b"\xfe" * 16],
        [pacemaker.HEAD_A.write(fn=0x99)],
    ),
    "ble_e2e": ([], [], [bytes(9)]),
    "minimed700_sake": ([], SEEDS["minimed700_sake"](), []),
    "devguard_link": ([], SEEDS["devguard_link"](), []),
}


@pytest.mark.parametrize("family", COMMANDS)
def test_what_acts_what_does_not_and_what_nobody_lists(family: str) -> None:
    for effect, packets in zip((ACTS, NONE, UNKNOWN), COMMANDS[family], strict=True):
        for data in packets:
            packet = of(family, data)
            assert packet.effect is effect, (packet.name, data.hex(), packet.detail)
            assert not packet.authenticated


def test_what_is_hidden_is_not_harmless() -> None:
    for opcode in (0x4A, 0x44, 0x47, 0x49, 0x60, 0x62, 0xC1, 0x66, 0x68, 0x69, 0x6A, 0x99):
        command = dana_rs.hidden(DANA, 0xA1, opcode, bytes(2), "rsv3")
        assert (of("dana_rs_ble", command).effect, of("dana_rs_ble", command).therapy_affecting) == (UNKNOWN, False)
        assert of("dana_rs_ble", command, NAMED).effect is ACTS
    assert of("dana_rs_ble", dana_rs.hidden(DANA, 0xA1, 0x20, b"", "rsv3"), NAMED).effect is NONE
    assert of("dana_rs_ble", b"\x01\x02\x03", Context(names={"level": "second"})).effect is UNKNOWN
    inner = message(b"\x1f\x05" + bytes(5))
    sealed = omnipod_ble.sealed(CK, PREFIX, 7, b"S0.0=" + len(inner).to_bytes(2, "big") + inner)
    keys = Context(keys={"ck": CK, "nonce_prefix": PREFIX})
    assert (of("omnipod_dash_ble", sealed).effect, of("omnipod_dash_ble", sealed, keys).effect) == (UNKNOWN, ACTS)
    assert of("omnipod_dash_ble", sealed, Context(keys={"ck": PREFIX * 2, "nonce_prefix": PREFIX})).effect is UNKNOWN
    point = Context(names={"characteristic": "idd-command-control-point"})
    assert of("ble_e2e", bytes(9), point).effect is ACTS
    assert of("ble_e2e", bytes(9), Context(names={"characteristic": "cgm-measurement"})).effect is NONE


def test_no_answer_is_less_than_the_readers_mark(vectors: Path) -> None:
    """And it differs from it only where docs/packets.md says so."""
    more = set()
    for row in json.loads((vectors / "packets.json").read_text()):
        packet = of(row["family"], bytes.fromhex(row["hex"]))
        assert not row["therapy_affecting"] or packet.effect is ACTS, row["name"]
        if packet.effect is ACTS and not packet.therapy_affecting:
            more.add((row["family"], packet.name))
    assert more == {
        ("tandem_ble", "CancelBolusRequest"),
        ("tandem_ble", "SetIDPSegmentRequest"),
        ("omnipod_eros", "PDM configure_alerts"),
        ("omnipod_dash", "configure_alerts"),
        ("smp_frame", "os date and time, write"),
        ("smp_frame", "settings read or write, write"),
        ("smp_frame", "settings delete, write"),
        ("smp_frame", "shell execute, write"),
    }


@pytest.mark.parametrize("family", sorted(SEEDS))
def test_of_damaged_bytes_nobody_says_that_they_do_nothing(family: str) -> None:
    good = SEEDS[family]()[0]
    for data in (b"", b"\x00", b"\xff" * 70, good[:-1], good[:-2] + bytes((good[-2] ^ 1, good[-1]))):
        packet = of(family, data)
        assert packet.valid or packet.effect is not NONE

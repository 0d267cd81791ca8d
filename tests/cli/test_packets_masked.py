"""Patient data of a capture stays out of every output, and out of every file devguard keeps, unless it is asked for.

Each family's packets carry a marker wherever a patient's data could stand; a family without any is listed with why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_support import devguard
from devguard.packets.checksums import crc8_minimed, crc16_ccitt_false
from devguard.packets.families import (
    carelink,
    codefree,
    combo,
    dana_r,
    dana_rs,
    dexcom_ble,
    dexcom_g4,
    ieee11073,
    lifescan,
    medtrum,
    minimed_rf,
    omnipod_ble,
    pacemaker,
    smp,
    taidoc,
    tandem,
)
from devguard.packets.families.omnipod import MESSAGE_LAYOUT
from devguard.packets.families.omnipod_eros import PACKET_LAYOUT
from devguard.packets.registry import MODULES

MARK = b"\xfa\xce\xb0\x0c"
TEXT = "faceb00c"
SERIAL = MARK[:3]
DANA = "UHH00002TI"
CK, PREFIX = bytes(16), bytes(8)
NONE = {
    "minimed700_sake": "a handshake: random numbers, proofs and ciphertext",
    "medtrum_payload": "commands before they are sent; what a pump answers comes in chunks",
    "devguard_link": "devguard's own frames: what is not encrypted is a greeting",
}
KEYS = {
    "omnipod_dash_ble": ("--key", "ck=ck", "--key", "nonce_prefix=prefix"),
    "dana_rs_ble": ("--with", f"device={DANA}"),
}


def _rf(message: int, body: bytes, kind: int = 0xA7) -> bytes:
    layout = minimed_rf.SENSOR if kind == 0xA8 else minimed_rf.LAYOUT
    return layout.write(type=kind, address=SERIAL, message=message, body=body)


def _stick() -> list[bytes]:
    head = carelink.HEAD_LAYOUT.write(serial=SERIAL, count=0x8000, button=0, retries=2, pages=1, opcode=0x80)
    answer = bytes((2, 0, 0, 2, 0)) + (0x8004).to_bytes(2, "big") + bytes(6) + MARK + bytes((crc8_minimed(MARK),))
    return [head + b"\x00", answer]


def _message(body: bytes) -> bytes:
    return MESSAGE_LAYOUT.write(address=int.from_bytes(MARK, "big"), flags=3, body=body)


def _radio(kind: int, payload: bytes, sequence: int = 9) -> bytes:
    return PACKET_LAYOUT.write(address=int.from_bytes(MARK, "big"), head=kind << 5 | sequence, payload=payload)


def _answer(size: int) -> bytes:
    """A fault event of the pod, the mark in it."""
    return b"\x02" + bytes((size,)) + b"\x02" + MARK.ljust(size - 1, b"\x01")


def _long() -> list[bytes]:
    whole = _message(_answer(40))
    return [_radio(7, whole[:31]), _radio(2, MARK, 10), _radio(4, whole[31:], 11)]


def _dash() -> list[bytes]:
    inner = _message(_answer(20))
    sealed = omnipod_ble.sealed(CK, PREFIX, 1, b"0.0=" + len(inner).to_bytes(2, "big") + inner, from_pod=True)
    return [sealed, omnipod_ble.fragmented(sealed), omnipod_ble.fragmented(sealed)[:20]]


def _combo() -> bytes:
    return b"\x10\x23\x06\x00\xf0" + bytes(13) + b"\x10\xb7" + MARK + bytes(8)


def _smp(group: int, body: bytes) -> bytes:
    head = {"reserved": 0, "version": 1, "op": 1}
    values = {"head": head, "flags": 0, "group": group, "sequence": 7, "command": 0, "body": body}
    return bytes(smp.PACKET.build(values))


def _console() -> bytes:
    from devguard.link.smp_console import encode_lines

    return encode_lines(_smp(3, b"\xa1\x63val\x44" + MARK))


def _ieee(choice: int, body: bytes) -> bytes:
    return bytes(ieee11073.UNIT.build({"choice": choice, "body": body}))


def _record() -> bytes:
    return MARK + crc16_ccitt_false(MARK).to_bytes(2, "little")


PLANTED: dict[str, Callable[[], list[bytes]]] = {
    "minimed_rf": lambda: [_rf(0x80, MARK), _rf(0x10, MARK, 0xA8), _rf(0x88, b"\x01", 0xA6)],
    "minimed_rf_4b6b": lambda: [minimed_rf.to_symbols(_rf(0x80, MARK))],
    "minimed_rf_message": lambda: [
        b"\xa7" + SERIAL + b"\x80\x04" + MARK.ljust(64, b"\x00"),
        b"\xa2" + SERIAL + b"\x04" + MARK,
    ],
    "carelink_usb": _stick,
    "omnipod_eros": lambda: [_radio(7, _message(_answer(8))), *_long()],
    "omnipod_message": lambda: [_message(_answer(20)), _message(b"\x0e\x01\x00")],
    "omnipod_dash": lambda: [_message(_answer(20))],
    "omnipod_dash_ble": _dash,
    "tandem_ble": lambda: [
        tandem.framed(35, 2, MARK * 2),
        tandem.framed(182, 2, MARK + bytes(7)),
        tandem.framed(129, 1, MARK),
    ],
    "dana_rs_ble": lambda: [
        dana_rs.hidden(DANA, 0xB2, 0x02, MARK, "rsv3"),
        dana_rs.hidden(DANA, 0xC3, 0x01, MARK, "ble5"),
    ],
    "dana_r_serial": lambda: [dana_r.LAYOUT.write(command=0x0204, params=MARK) + dana_r.END],
    "medtrum_ble": lambda: [medtrum.chunked(99, 1, MARK), medtrum.chunked(99, 7, MARK * 12)],
    "combo_frame": lambda: [combo.stuffed(_combo())],
    "combo_transport": lambda: [combo.stuffed(_combo())],
    "lifescan_binary": lambda: [lifescan.LAYOUT.write(link_control=3, message=b"\x05\x06" + MARK * 2)],
    "taidoc_td42xx": lambda: [taidoc.LAYOUT.write(command=one, message=MARK, direction=0xA5) for one in (0x25, 0x27)],
    "sd_codefree": lambda: [codefree.LAYOUT.write(direction=0x20, message=MARK * 2) + b"\xaa"],
    "dexcom_g4_serial": lambda: [dexcom_g4.LAYOUT.write(command=one, payload=MARK) for one in (1, 26)],
    "dexcom_g5g6_ble": lambda: [dexcom_ble.LAYOUT.write(opcode=0x31, body=MARK)],
    "ieee11073_20601": lambda: [
        _ieee(0xE700, b"\x00\x0c\x00\x01\x01\x01\x00\x06" + MARK + b"\0\0"),
        _ieee(0xE900, MARK),
    ],
    "ble_e2e": lambda: [_record(), MARK * 2],
    "smp_frame": lambda: [_smp(3, b"\xa1\x63val\x44" + MARK), _smp(64, b"\xa1\x63val\x44" + MARK)],
    "smp_serial": lambda: [_console()],
    "pacemaker_3k04": lambda: [pacemaker.HEAD_A.write(fn=0x47) + pacemaker.DATA_A.write(data=MARK)],
}


def test_no_family_is_forgotten() -> None:
    assert set(PLANTED) | set(NONE) == set(MODULES)
    assert not set(PLANTED) & set(NONE)


def _run(folder: Path, command: str, name: str, *options: str) -> str:
    keys = [
        part.replace("ck=ck", f"ck={folder}/ck").replace("=prefix", f"={folder}/prefix") for part in KEYS.get(name, ())
    ]
    done = devguard("packets", command, name, str(folder / "capture.hex"), *keys, *options)
    assert done.status in (0, 3), done.out + done.err
    return (done.out + done.err).lower()


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_patient_data_is_masked_and_kept_nowhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("DEVGUARD_HOME", str(home))
    (tmp_path / "ck").write_bytes(CK)
    (tmp_path / "prefix").write_bytes(PREFIX)
    whole = PLANTED[name]()
    damaged = [one[:-3] + bytes((one[-3] ^ 0x20,)) + one[-2:] for one in whole] + [one[:-1] for one in whole]
    for records in (whole, damaged):
        (tmp_path / "capture.hex").write_text("".join(f"{one.hex()}\n" for one in records))
        for command in ("decode", "watch"):
            for form in ((), ("--json",)):
                assert TEXT not in _run(tmp_path, command, name, *form), (command, form)
                assert TEXT[:6] not in _run(tmp_path, command, name, *form), (command, form)
    (tmp_path / "capture.hex").write_text("".join(f"{one.hex()}\n" for one in whole))
    assert TEXT[:6] in _run(tmp_path, "watch", name, "--json", "--show-patient-data"), "the mark was not planted"
    assert caplog.text == ""
    assert not home.exists() or not any(
        TEXT.encode() in one.read_bytes().lower() for one in home.rglob("*") if one.is_file()
    )

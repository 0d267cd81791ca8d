"""Sound packets of every family, made by the families' own writers: what fuzzing starts from. No third party's bytes.

A family without an entry here fails `test_fuzz.py`, so that a new one cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable

from devguard.link.frames import Acknowledgement, Kind, encode_announcement, encode_frame, encode_header
from devguard.packets.checksums import crc8_minimed, crc16_ccitt_false, crc16_mcrf4xx
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
from devguard.packets.packet import NOTHING, Context

SERIAL = b"\x12\x34\x56"
POD = 0x1F0A0B0C
CK, PREFIX = bytes(range(16)), bytes(range(100, 108))
DANA = "UHH00002TI"
CANCEL = b"\x1f\x05\x01\x02\x03\x04\x07"
SCHEDULE = b"\x1a\x10INS.\x00\x00\x1a" + bytes(5) + b"\x00\x0d\x00\x0d"
STATUS = bytes.fromhex("1d180012340000004bff")
CONTEXTS: dict[str, Context] = {
    "omnipod_dash_ble": Context(keys={"ck": CK, "nonce_prefix": PREFIX}, names={"nonce_seq": "7"}),
    "dana_rs_ble": Context(names={"device": DANA}),
    "tandem_ble": Context(keys={"hmac": b"6VeDeRAL5DCigGw2"}),
}
"""What the person at the bench knows of a family's seeds, for the families that ask."""


def context_of(family: str) -> Context:
    """The context in which a family's seeds are sound."""
    return CONTEXTS.get(family, NOTHING)


def frame(message: int, body: bytes, kind: int = 0xA7) -> bytes:
    """One MiniMed frame."""
    layout = minimed_rf.SENSOR if kind in (0xA8, 0xAA, 0xAB) else minimed_rf.LAYOUT
    return layout.write(type=kind, address=SERIAL, message=message, body=body)


def _minimed_message(number: int, inside: bytes) -> bytes:
    return b"\xa7" + SERIAL + bytes((number, len(inside))) + inside.ljust(64, b"\x00")


def _stick(opcode: int, params: bytes = b"") -> bytes:
    head = carelink.HEAD_LAYOUT.write(
        serial=SERIAL, count=0x8000 | len(params), button=0, retries=2, pages=1, opcode=opcode
    )
    return head + params + bytes((crc8_minimed(params),))


def _reply(data: bytes) -> bytes:
    head = bytes((2, 0, 0, 2, 0)) + (0x8000 | len(data)).to_bytes(2, "big") + bytes(6)
    return head + data + bytes((crc8_minimed(data),))


def _message(body: bytes) -> bytes:
    return MESSAGE_LAYOUT.write(address=POD, flags=3, body=body)


def _radio(kind: int, payload: bytes) -> bytes:
    return PACKET_LAYOUT.write(address=POD, head=kind << 5 | 9, payload=payload)


def _combo(command: int, payload: bytes, mac: bytes = bytes(8)) -> bytes:
    head = bytes((0x10, command)) + len(payload).to_bytes(2, "little") + b"\xf0" + bytes(13)
    return head + (payload or b"") + mac


def _paired() -> bytes:
    head = _combo(0x09, bytes(2))[:18]
    return head + crc16_mcrf4xx(head).to_bytes(2, "little") + bytes(8)


def _smp(group: int = 1, command: int = 1, body: bytes = b"\xa2\x63off\x00\x64data\x43abc") -> bytes:
    head = {"reserved": 0, "version": 1, "op": 2}
    built = smp.PACKET.build(
        {"head": head, "flags": 0, "group": group, "sequence": 7, "command": command, "body": body}
    )
    return bytes(built)


def _console() -> bytes:
    from devguard.link.smp_console import encode_lines

    return encode_lines(_smp(body=b"\xa1\x64data\x58\xa0" + bytes(160)))


def _link(kind: Kind, body: bytes, **head: object) -> bytes:
    return encode_frame(encode_header(kind, **head), body)  # type: ignore[arg-type]  # as the caller knows


def _pacemaker_a(function: int, data: bytes = b"") -> bytes:
    head = pacemaker.HEAD_A.write(fn=function)
    return head + (pacemaker.DATA_A.write(data=data) if data else b"")


def _pacemaker_b() -> bytes:
    two = dict.fromkeys(("hysteresis_interval", "lower_rate_interval", "vent_amp", "vent_pw", "vrp"), b"\x03\xe8")
    return pacemaker.LAYOUT_B.write(fn=0x55, state=1, mode=6, hysteresis=0, **two)


def _ieee(choice: int, body: bytes) -> bytes:
    return bytes(ieee11073.UNIT.build({"choice": choice, "body": body}))


def _dash() -> bytes:
    inner = _message(CANCEL)
    plain = b"S0.0=" + len(inner).to_bytes(2, "big") + inner + b",G0.0"
    return omnipod_ble.sealed(CK, PREFIX, 7, plain)


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "minimed_rf": lambda: [frame(0x42, b"\x02\x01\x98"), frame(0x10, bytes(20), 0xA8), frame(0x88, b"\x05", 0xA6)],
    "minimed_rf_4b6b": lambda: [minimed_rf.to_symbols(frame(0x42, b"\x02\x01\x98"))],
    "minimed_rf_message": lambda: [
        _minimed_message(0x42, b"\x01\x98"),
        _minimed_message(0x40, bytes(7)),
        _minimed_message(0x8D, b"\x03523"),
        _minimed_message(0x98, bytes.fromhex("000005500017")),
    ],
    "carelink_usb": lambda: [_stick(0x42, b"\x02\x00"), _reply(bytes(range(40))), carelink.POLL, _stick(0x8D)],
    "omnipod_eros": lambda: [
        _radio(5, _message(CANCEL)),
        _radio(7, _message(STATUS)),
        _radio(5, _message(SCHEDULE + b"\x13\x1c" + bytes(28))[:31]),
        _radio(4, bytes(31)),
        _radio(2, SERIAL + b"\x00"),
    ],
    "omnipod_message": lambda: [_message(CANCEL), _message(STATUS), _message(SCHEDULE)],
    "omnipod_dash": lambda: [_message(CANCEL), _message(b"\x19\x0aINS.\x4c\x00\x00\xc8\x01\x02")],
    "omnipod_dash_ble": lambda: [_dash(), omnipod_ble.fragmented(_dash()), omnipod_ble.fragmented(_dash())[:20]],
    "tandem_ble": lambda: [
        tandem.framed(164, 1, bytes(6) + b"\x10\x20\x30\x00", key=b"6VeDeRAL5DCigGw2"),
        tandem.framed(35, 2, bytes(8)),
        tandem.framed(57, 3, bytes(9)),
    ],
    "dana_rs_ble": lambda: [
        dana_rs.hidden(DANA, 0xA1, 0x4A, bytes(3), "rsv3"),
        dana_rs.hidden(DANA, 0x01, 0x00, b""),
        dana_rs.hidden(DANA, 0xB2, 0x20, bytes(9), "ble5"),
    ],
    "dana_r_serial": lambda: [dana_r.LAYOUT.write(command=0x0102, params=b"\x00\x64") + dana_r.END],
    "medtrum_ble": lambda: [medtrum.chunked(19, 1, b"\x01\x2f\x00\x00"), medtrum.chunked(21, 7, bytes(range(40)))],
    "medtrum_payload": lambda: [b"\x13\x01\x2f\x00\x00", b"\x1f"],
    "combo_frame": lambda: [combo.stuffed(_paired())],
    "combo_transport": lambda: [_paired(), combo.stuffed(_combo(0x23, b"\x10\x48\x65\x05\x01\x02", b"\x01" * 8))],
    "minimed700_sake": lambda: [b"\x04\x01" + bytes(range(18)), bytes(range(17)) + b"\x00\x01\x02"],
    "lifescan_binary": lambda: [
        lifescan.LAYOUT.write(link_control=3, message=b"\x05\x06" + bytes(8)),
        lifescan.LAYOUT.write(link_control=3, message=b"\x05\x20\x01" + bytes(4)),
        lifescan.LAYOUT.write(link_control=8, message=b""),
    ],
    "taidoc_td42xx": lambda: [
        taidoc.LAYOUT.write(command=0x25, message=b"\x01\x02\x03\x04", direction=0xA5),
        taidoc.LAYOUT.write(command=0x33, message=bytes(4), direction=0xA3),
    ],
    "sd_codefree": lambda: [
        codefree.LAYOUT.write(direction=0x20, message=bytes(range(20))) + b"\xaa",
        codefree.LAYOUT.write(direction=0x10, message=b"ADATE202611221200") + b"\xaa",
    ],
    "dexcom_g4_serial": lambda: [
        dexcom_g4.LAYOUT.write(command=17, payload=bytes(6)),
        dexcom_g4.LAYOUT.write(command=36, payload=bytes(4)),
        dexcom_g4.LAYOUT.write(command=1, payload=bytes(range(200))),
    ],
    "dexcom_g5g6_ble": lambda: [
        dexcom_ble.LAYOUT.write(opcode=0x31, body=bytes(14)),
        dexcom_ble.LAYOUT.write(opcode=0x21, body=bytes(16)),
    ],
    "ieee11073_20601": lambda: [
        _ieee(0xE700, b"\x00\x10\x00\x01\x01\x07\x00\x0a\x00\x00\x0c\x17\x00\x04" + bytes(4)),
        _ieee(0xE200, b"\x80\x00\x00\x00\x00\x01\x00\x2a\x50\x79" + bytes(38)),
        _ieee(0xE300, b"\x00\x00" + bytes(42)),
        _ieee(0xE600, b"\x00\x02"),
    ],
    "ble_e2e": lambda: [(body := bytes(range(12))) + crc16_ccitt_false(body).to_bytes(2, "little"), bytes(9)],
    "smp_frame": lambda: [_smp(), _smp(0, 5, b"\xa0"), _smp(0, 4, b"\xa1\x68datetime\x642026")],
    "smp_serial": lambda: [_console()],
    "pacemaker_3k04": lambda: [
        _pacemaker_a(0x55, bytes(range(20))),
        _pacemaker_a(0x47),
        _pacemaker_b(),
        b"\x16\x55" + bytes.fromhex("0a3c78ac0dac0d0404ee0288133b0140019600 0000".replace(" ", "")),
        b"\xfe" + bytes(range(1, 16)),
        b"\xff" * 16,
        bytes(range(34)),
    ],
    "devguard_link": lambda: [
        _link(Kind.OPEN, encode_announcement(16384, 4096), nonce=b"\xa1\xb2\xc3\xd4"),
        _link(Kind.DATA, b"\x82\x00\x81\x01", nonce=b"\xa1\xb2\xc3\xd4", sequence=0, fin=True),
        _link(Kind.DATA, b"T" * 40, record=(6, 0x203), sequence=9, fin=True),
        _link(Kind.ACK, b"T" * 16, record=(6, 0x203), ack=Acknowledgement(7, 256, b"\x05\x80")),
    ],
}

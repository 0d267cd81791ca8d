"""Locked wire bytes of every frame kind of the link. Added to, never changed."""

from __future__ import annotations

import pytest

from devguard.link.frames import (
    Acknowledgement,
    Kind,
    decode_frame,
    encode_announcement,
    encode_frame,
    encode_header,
)

NONCE = bytes.fromhex("a1b2c3d4")
RECORD = (6, 0x1_0000_0203)
ACK = Acknowledgement(0x1234, 256, b"\x05\x80")

FRAMES = [
    ("open", encode_header(Kind.OPEN, nonce=NONCE), encode_announcement(16384, 4096)),
    ("open-ack", encode_header(Kind.OPEN_ACK, nonce=NONCE), encode_announcement(16384, 4096)),
    ("plain-data", encode_header(Kind.DATA, nonce=NONCE, sequence=1, fin=True), b"hello"),
    ("plain-ack", encode_header(Kind.ACK, nonce=NONCE, ack=ACK), b""),
    ("plain-close", encode_header(Kind.CLOSE, nonce=NONCE, sequence=2), b""),
    ("plain-ping", encode_header(Kind.PING, nonce=NONCE), b""),
    ("sealed-data", encode_header(Kind.DATA, record=RECORD, sequence=0xFFFF), b"\x00" * 5 + b"T" * 16),
    ("sealed-fin", encode_header(Kind.DATA, record=RECORD, sequence=0x10000, fin=True), b"T" * 16),
    ("sealed-ack", encode_header(Kind.ACK, record=RECORD, ack=Acknowledgement(7, 256)), b"T" * 16),
    ("sealed-close", encode_header(Kind.CLOSE, record=RECORD, sequence=3), b"T" * 16),
    ("sealed-ping", encode_header(Kind.PING, record=RECORD), b"T" * 16),
]

LOCKED = {
    "open": "0840a1b2c3d401010106409d66fcc900",
    "open-ack": "0860a1b2c3d40101010640d23bff1900",
    "plain-data": "02020f01a1b2c3d468656c6c6f9b48fe0f00",
    "plain-ack": "05201234010c020580a1b2c3d4c7cda0ca00",
    "plain-close": "02800a02a1b2c3d43ddea0b200",
    "plain-ping": "0aa0a1b2c3d4e461aed500",
    "sealed-data": "0618ffff0203010101011554545454545454545454545454545454d7e27af100",
    "sealed-fin": "021a0117020354545454545454545454545454545454dbab0a7300",
    "sealed-ack": "023803070101170203545454545454545454545454545454541a0f1f1800",
    "sealed-close": "02981803020354545454545454545454545454545454ae8a100400",
    "sealed-ping": "18b80203545454545454545454545454545454546c0394bb00",
}


@pytest.mark.parametrize(("name", "header", "body"), FRAMES, ids=[name for name, _, _ in FRAMES])
def test_wire_bytes_are_locked(name: str, header: bytes, body: bytes) -> None:
    wire = encode_frame(header, body)
    assert wire.hex() == LOCKED[name]
    frame = decode_frame(wire[:-1])
    assert (frame.header, frame.body) == (header, body)


def test_every_kind_is_locked_plain_and_where_it_exists_sealed() -> None:
    kinds = {(decode_frame(bytes.fromhex(wire)[:-1]).kind, wire_is_sealed(wire)) for wire in LOCKED.values()}
    both = {Kind.DATA, Kind.ACK, Kind.CLOSE, Kind.PING}
    assert kinds == {(kind, False) for kind in Kind} | {(kind, True) for kind in both}


def wire_is_sealed(wire: str) -> bool:
    return decode_frame(bytes.fromhex(wire)[:-1]).nonce is None

"""SMP frames and console blocks, and devguard's own link frames: vectors, the peer's encoder, damage, streams."""

from __future__ import annotations

import base64
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.link.frames import Acknowledgement, Kind, encode_frame, encode_header
from devguard.packets.checksums import crc16_xmodem
from devguard.packets.decoder import decode_stream
from devguard.packets.families import smp
from devguard.packets.packet import NOTHING
from devguard.packets.registry import family_named
from packets_support import check_flips, check_row, rows

SERIAL, FRAME, LINK = family_named("smp_serial"), family_named("smp_frame"), family_named("devguard_link")


def framed(body: bytes = b"\xa0", *, op: int = 2, group: int = 1, command: int = 1) -> bytes:
    return bytes((8 | op, 0)) + len(body).to_bytes(2, "big") + group.to_bytes(2, "big") + bytes((7, command)) + body


def console(frame: bytes, width: int = 124) -> bytes:
    block = (len(frame) + 2).to_bytes(2, "big") + frame + crc16_xmodem(frame).to_bytes(2, "big")
    text = base64.b64encode(block)
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    return b"".join((smp.MORE if number else smp.FIRST) + line + b"\n" for number, line in enumerate(lines))


def links() -> list[bytes]:
    ack = Acknowledgement(5, 64, b"\x01")
    return [
        encode_frame(encode_header(Kind.DATA, nonce=b"abcd", sequence=3, fin=True), b"hello"),
        encode_frame(encode_header(Kind.ACK, record=(1, 77), ack=ack), bytes(16)),
        encode_frame(encode_header(Kind.PING, nonce=b"abcd")),
    ]


@pytest.mark.parametrize("name", ["smp_frame", "smp_serial"])
def test_the_vectors(name: str, vectors: Path) -> None:
    for row in rows(vectors, name):
        check_row(row)


def test_the_peers_own_packets_are_read() -> None:
    packet = pytest.importorskip("smp.packet", reason="smp is not installed")
    from smp.image_management import ImageUploadWriteRequest
    from smp.os_management import EchoWriteRequest

    for request, therapy in (
        (EchoWriteRequest(d="hello"), False),
        (ImageUploadWriteRequest(off=0, data=b"x" * 600), True),
    ):
        text = b"".join(packet.encode(request.BYTES, line_length=128))
        read = SERIAL.decode(text, NOTHING)
        assert (read.valid, read.therapy_affecting) == (True, therapy), read.detail
        assert read.fields["frame"] == request.BYTES.hex()


@given(st.binary(max_size=700), st.integers(4, 200))
def test_what_is_built_is_read(data: bytes, width: int) -> None:
    frame = framed(cbor2.dumps({"data": data}))
    packet = SERIAL.decode(console(frame, width), NOTHING)
    assert packet.valid
    assert packet.fields["smp"]["kwargs"] == {"data": data.hex()}


def test_damage_is_answered_with_a_code() -> None:
    check_flips(LINK, links())


@pytest.mark.parametrize(
    "body",
    [
        b"\x9b" + b"\xff" * 8,
        b"\xbb" + b"\x7f" + b"\xff" * 7,
        b"\x81" * 5000,
        b"\x5f" * 3000,
        b"\xa1\x61a\xf9\x7e\x00",
        # each list holds the one before twice: sixty of them are no values anybody has
        b"\xa1\x61a" + b"\xd8\x1c\x82" * 60 + b"\x01\x01" + b"\xd8\x1d\x18\x3b" * 60,
    ],
    ids=["list of 2^64", "map of 2^63", "deep", "endless string", "not a number", "shared"],
)
def test_hostile_bodies_are_bounded(body: bytes) -> None:
    packet = FRAME.decode(framed(body), NOTHING)
    assert packet.code in {None, "packet.unknown"}


def test_indefinite_lengths_as_devices_send_them_are_read() -> None:
    packet = FRAME.decode(framed(b"\xbf\x62rc\x00\xff", op=3), NOTHING)
    assert packet.valid
    assert packet.fields["kwargs"] == {"rc": 0}


def test_a_console_full_of_other_lines() -> None:
    one, two = console(framed(cbor2.dumps({"d": "x" * 300})), 60), console(framed())
    noise = b"[00:00:01] booting\r\n\x06\x09AAAA\nuart:~$ "
    stream = noise + one + b"\x04\x14lost\n" + two + b"\x06\x09"
    for width in (1, 7, 10_000):
        parts = [stream[at : at + width] for at in range(0, len(stream), width)]
        found = list(decode_stream(SERIAL, parts))
        assert [packet.raw for _, packet in found] == [one, two]
        assert [stream[at : at + len(packet.raw)] for at, packet in found] == [one, two]


def test_our_own_frames_in_a_stream() -> None:
    stream = b"noise\x00" + b"\x00".join([b"", *(frame[:-1] for frame in links())]) + b"\x00half"
    found = [packet for _, packet in decode_stream(LINK, [stream[:20], stream[20:]])]
    assert [packet.name for packet in found if packet.valid] == ["data, plain", "ack, sealed", "ping, plain"]
    assert [packet.code for packet in found if not packet.valid] == ["packet.crc"]
    assert not any(packet.therapy_affecting for packet in found)


def test_what_plain_frames_of_our_own_say() -> None:
    """The opening's limits and the greeting; a sealed frame says nothing, and neither does a part of a message."""
    from devguard.link.frames import Kind, encode_announcement, encode_frame, encode_header
    from devguard.session.verbs import HelloReply, encode_message

    nonce, hello = bytes(4), encode_message(HelloReply(2, "confirmed", (3, 5), bytes(16)))
    opening = LINK.decode(
        encode_frame(encode_header(Kind.OPEN, nonce=nonce), encode_announcement(16384, 4096)), NOTHING
    )
    assert (opening.fields["window"], opening.fields["segment"]) == (16384, 4096)
    greeting = LINK.decode(encode_frame(encode_header(Kind.DATA, nonce=nonce, sequence=0, fin=True), hello), NOTHING)
    assert greeting.name == "data, plain: hello reply"
    assert (greeting.fields["says"]["boot_state"], greeting.fields["says"]["suites"]) == ("confirmed", [3, 5])
    part = LINK.decode(encode_frame(encode_header(Kind.DATA, nonce=nonce, sequence=0), hello[:9]), NOTHING)
    sealed = LINK.decode(encode_frame(encode_header(Kind.DATA, record=(6, 1), sequence=0, fin=True), hello), NOTHING)
    assert "verb" not in part.fields
    assert "verb" not in sealed.fields

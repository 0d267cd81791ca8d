"""Recognising files by content, and flattening them."""

from __future__ import annotations

import io
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import DevguardError, Malformed, Refused
from devguard.image.flat import FlashRange, flatten
from devguard.image.kind import Kind, recognise

VECTOR_TABLE = bytes.fromhex("0040002019020000") + bytes(100)
FLASH = FlashRange(0, 0x1000)
HEX = b":0100000061 9E\n".replace(b" ", b"") + b":00000001FF\n"


def cose(typ: str, tag: int | None) -> bytes:
    body = [cbor2.dumps({1: -9, 16: typ}), {}, b"payload", b"signature"]
    return cbor2.dumps(cbor2.CBORTag(tag, body) if tag else body)


NOTE = b"devguard.example/log\n7\n" + b"A" * 43 + b"=\n\n\xe2\x80\x94 station AAAA\n"
SAMPLES = {
    Kind.SUIT_ENVELOPE: [cbor2.dumps(cbor2.CBORTag(107, {2: b"a", 3: b"m"})), cbor2.dumps({2: b"x" * 9000, 3: b"m"})],
    Kind.SUIT_MANIFEST: [
        cbor2.dumps({1: 1, 2: 7, 3: b"common"}),
        cbor2.dumps(cbor2.CBORTag(1070, {1: 1, 2: 7, 3: b""})),
    ],
    Kind.GRANT: [cose("application/devguard-grant+cwt", tag) for tag in (18, 98, None)]
    + [b"\xd8\x3d" + cose("application/devguard-grant+cwt", 18)],
    Kind.TRUST: [cose("application/devguard-trust+cbor", 98)],
    Kind.CHECKPOINT: [NOTE],
    Kind.MCUBOOT: [b"\x3d\xb8\xf3\x96" + bytes(28)],
    Kind.IHEX: [HEX, b"\r\n" + HEX],
    Kind.SREC: [b"S00600004844521B\n"],
    Kind.UF2: [b"UF2\n\x57\x51\x5d\x9e" + bytes(500)],
    Kind.ELF: [b"\x7fELF\x01\x01\x01" + bytes(50)],
    Kind.DFU: [b"DfuSe\x01" + bytes(10)],
    Kind.ESP: [bytes.fromhex("e9030220000008400000000000000000")],
    Kind.RAW: [VECTOR_TABLE],
    Kind.CAPTURE: [
        bytes.fromhex("d4c3b2a102000400"),
        bytes.fromhex("0a0d0d0a1c0000004d3c2b1a"),
        b"btsnoop\0\0\0\0\1",
    ],
    Kind.UNKNOWN: [
        b"",
        b"hello",
        b"\xff" * 64,
        cose("application/devguard-report+cbor", 18),
        b":zz",
        b"S1",
        b"\xd8\x6b",
    ],
}


@pytest.mark.parametrize(("kind", "sample"), [(kind, sample) for kind, many in SAMPLES.items() for sample in many])
def test_every_kind_is_told_by_content(kind: Kind, sample: bytes) -> None:
    assert recognise(sample) is kind


def test_all_kinds_have_samples() -> None:
    assert set(SAMPLES) == set(Kind)


def test_a_dfu_suffix_is_seen_in_the_tail() -> None:
    suffix = bytes(8) + b"UFD" + bytes((16,)) + bytes(4)
    assert recognise(VECTOR_TABLE, suffix) is Kind.DFU
    assert recognise(VECTOR_TABLE, suffix.replace(b"UFD", b"DFU")) is Kind.RAW


@given(st.binary(max_size=200), st.sampled_from([sample for many in SAMPLES.values() for sample in many]))
def test_never_raises(noise: bytes, sample: bytes) -> None:
    recognise(noise)
    for cut in range(min(len(sample), 60)):
        recognise(sample[:cut])
        recognise(sample[:cut] + noise)


def test_third_party_files(vectors: Path) -> None:
    kinds = {path.name: recognise(path.read_bytes()) for path in sorted((vectors / "suit").rglob("*.suit"))}
    assert kinds
    assert set(kinds.values()) == {Kind.SUIT_ENVELOPE}
    images = {path.name: recognise(path.read_bytes()) for path in (vectors / "mcuboot" / "images").glob("*.bin")}
    assert {name for name, kind in images.items() if kind is not Kind.MCUBOOT} == {"neg_empty.bin"}


def test_raw_and_mcuboot_files_are_their_own_flat_image() -> None:
    for data, kind in ((VECTOR_TABLE, Kind.RAW), (b"\x3d\xb8\xf3\x96" + bytes(60), Kind.MCUBOOT)):
        reader = io.BytesIO(data)
        reader.seek(5)
        flat = flatten(reader, flash=FLASH)
        assert flat.reader is reader
        assert (flat.size, flat.kind, flat.notes, reader.tell()) == (len(data), kind, (), 0)


def test_auto_takes_unknown_bytes_as_raw_and_says_so() -> None:
    flat = flatten(io.BytesIO(b"\x00\x01\x02"), flash=FLASH)
    assert flat.kind is Kind.RAW
    assert flat.notes == ("no known format: taken as raw bytes",)
    assert flatten(io.BytesIO(b"\x00\x01\x02"), fmt="raw", flash=FLASH).notes == ()


def test_intel_hex_is_decoded_and_raw_leaves_it_alone() -> None:
    flat = flatten(io.BytesIO(HEX), flash=FLASH)
    assert (flat.reader.read(), flat.size, flat.kind) == (b"a", 1, Kind.IHEX)
    assert flatten(io.BytesIO(HEX), fmt="raw", flash=FLASH).size == len(HEX)


@pytest.mark.parametrize(
    ("data", "fmt", "code"),
    [
        (b"", "auto", "image.format"),
        (b"\x7fELF" + bytes(60), "auto", "image.format"),
        (SAMPLES[Kind.SUIT_ENVELOPE][0], "auto", "image.format"),
        (VECTOR_TABLE, "ihex", "image.format"),
        (VECTOR_TABLE, "mcuboot", "image.format"),
        (VECTOR_TABLE, "elf", "image.format"),
        (bytes(0x1001), "raw", "device.slot"),
    ],
)
def test_what_cannot_be_flattened_refuses(data: bytes, fmt: str, code: str) -> None:
    with pytest.raises(DevguardError) as caught:
        flatten(io.BytesIO(data), fmt=fmt, flash=FLASH)
    assert caught.value.code == code
    assert isinstance(caught.value, (Malformed, Refused))

"""Sound firmware files of every kind, and how each is read; the captures too. No third party's bytes."""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable

from devguard.image.dfu import describe_dfu
from devguard.image.elf import describe_elf
from devguard.image.esp import describe_esp
from devguard.image.flat import FlashRange
from devguard.image.ihex import decode_ihex, describe_ihex
from devguard.image.kind import Kind, recognise
from devguard.image.mcuboot import inspect_mcuboot
from devguard.image.mcuboot_encryption import device_key
from devguard.image.mcuboot_keys import image_key_from_pem
from devguard.image.problem import ImageReport
from devguard.image.srec import describe_srec
from devguard.image.uf2 import describe_uf2
from devguard.packets import capture
from fuzz_objects import Parser
from image_support import KEY, described, dfuse, elf, esp, ihex, image, srec, suffixed, tlv, uf2
from test_packets_capture import RTAC, USER0, enhanced, pcap, rtac, section

CODES = {
    "image.format", "image.trailing", "image.digest", "image.size", "key.unknown", "key.weak", "signature.invalid",
    "signature.missing", "signature.algorithm",
}  # fmt: skip


def reported(describe: Callable[[io.BytesIO], ImageReport]) -> Callable[[bytes], object]:
    """A reader that reports problems instead of raising: each has a code of its own and an offset inside the file."""

    def read(data: bytes) -> object:
        report = describe(io.BytesIO(data))
        assert len(report.problems) < 200
        for problem in report.problems:
            assert problem.code in CODES, problem
            assert problem.offset is None or 0 <= problem.offset <= len(data), problem
        return report.fields

    return read


def _mcuboot(data: bytes) -> object:
    return reported(lambda reader: inspect_mcuboot(reader, KEY))(data)  # type: ignore[arg-type,return-value]  # alike


def _encrypted(data: bytes) -> object:
    key = device_key(b"MDEyMzQ1Njc4OWFiY2RlZg==")
    return reported(lambda reader: inspect_mcuboot(reader, KEY, key))(data)  # type: ignore[arg-type,return-value]


def _flat(data: bytes) -> object:
    return decode_ihex(io.BytesIO(data), FlashRange(0x0800_0000, 1 << 16), [(0, 0x100)])


def _kind(data: bytes) -> object:
    kind = recognise(data[:4096], data[-16:])
    assert isinstance(kind, Kind)
    return str(kind)


def _captured(data: bytes) -> object:
    """By its own magic numbers, and whatever it is as hex text."""
    form = capture.recognise(data[:4096])
    return [len(record.data) for record in capture.records(io.BytesIO(data), form)]


def _hex(data: bytes) -> object:
    return [len(record.data) for record in capture.records(io.BytesIO(data), capture.Form.HEX)]


def _mcuboots() -> list[bytes]:
    several = tlv(0x50, bytes(4)) + tlv(0x40, bytes.fromhex("010000000102030004000000")) + tlv(0x74, bytes(16))
    return [image(), image(protected=several), image() + b"\xff" * 64, _packed()]


def _packed() -> bytes:
    """A compressed one, its hash not that of what comes of it."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 17, "lc": 3, "lp": 1, "pb": 2}]
    body = b"\x0b\x66" + lzma.compress(b"firmware" * 40, lzma.FORMAT_RAW, filters=filters)
    return image(body, protected=tlv(0x70, (320).to_bytes(4, "little")) + tlv(0x71, bytes(32)), flags=0x400)


def _sealed() -> list[bytes]:
    return [image(flags=4, extra=tlv(0x31, bytes(24)))]


def _captures() -> list[bytes]:
    two = section(USER0, RTAC) + enhanced(1, rtac(2, b"answer")) + enhanced(0, b"ask")
    return [pcap(RTAC, [rtac(1, b"ask"), rtac(2, b"answer")]), pcap(USER0, [b"one"], ">"), two, b"02 06 08\n0203"]


PARSERS: dict[str, Parser] = {
    "image-kind": Parser(_kind, lambda: [*_mcuboots(), ihex(), elf(), srec()]),
    "image-mcuboot": Parser(_mcuboot, _mcuboots),
    "image-mcuboot-encrypted": Parser(_encrypted, _sealed),
    "image-ihex": Parser(reported(describe_ihex), lambda: [ihex()]),
    "image-ihex-flat": Parser(_flat, lambda: [ihex()]),
    "image-srec": Parser(reported(describe_srec), lambda: [srec()]),
    "image-uf2": Parser(reported(describe_uf2), lambda: [uf2((0x1000, bytes(256)), (0x1100, bytes(256)))]),
    "image-elf": Parser(reported(describe_elf), lambda: [elf()]),
    "image-dfu": Parser(
        reported(describe_dfu), lambda: [dfuse((0x0800_0000, bytes(300))), suffixed(b"\0\x40\0\x20" + bytes(100))]
    ),
    "image-esp": Parser(
        reported(describe_esp),
        lambda: [esp((0x3F40_0020, described()), (0x4008_0000, bytes(64))), esp((0x4010_0000, bytes(64)), chip=None)],
    ),
    "image-key": Parser(image_key_from_pem, list),
    "capture": Parser(_captured, _captures),
    "capture-hex": Parser(_hex, lambda: [b"# a capture\n02 06 08 03 c2 62   # ack\n0x02,0x09\n"]),
}

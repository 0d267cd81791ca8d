"""The structure of an MCUboot image: header, TLV areas, what follows them. Streams; hashes; no keys.

Rules as the bootloader applies them when it iterates TLVs: the protected area is announced in the header and
both sizes must agree, every TLV ends inside its area. Each broken rule is one `Problem`; nothing raises but
file.unreadable.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from devguard.errors import Malformed, Refused
from devguard.image import mcuboot_layout as layout
from devguard.image.measure import measure
from devguard.image.problem import Problem
from devguard.wire import parse_exact


@dataclass(frozen=True, slots=True)
class Tlv:
    """One TLV: its two-byte type, its value, the file offset of its head, and whether the hash covers it."""

    type: int
    value: bytes
    offset: int
    protected: bool


@dataclass(slots=True)
class Parsed:
    """What could be read of an image; `signed_size` is header + body + protected TLVs, `end` the image's end.

    `header` is None when there is no readable header; `complete` says that the TLV areas parsed whole, and `at` where
    the reading stands, or broke off.
    """

    size: int
    header: Any = None
    layouts: layout.Layouts = layout.LITTLE
    swapped_types: bool = False
    tlvs: list[Tlv] = field(default_factory=list)
    signed_size: int = 0
    end: int = 0
    at: int = 0
    complete: bool = False
    problems: list[Problem] = field(default_factory=list)

    def of_type(self, *types: int) -> list[Tlv]:
        """The TLVs of these types, in file order."""
        return [tlv for tlv in self.tlvs if tlv.type in types]


MAX_PROBLEMS: Final = 64


def read_at(reader: BinaryIO, offset: int, size: int) -> bytes:
    """Up to `size` bytes at `offset`; `Refused("file.unreadable")` when the file cannot be read."""
    try:
        reader.seek(offset)
        return reader.read(size)
    except OSError as error:
        raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error


def hash_signed_part(reader: BinaryIO, parsed: Parsed, algorithm: int) -> bytes:
    """The image hash: header, body and protected TLVs, with a COSE hash algorithm."""
    read_at(reader, 0, 0)
    return measure(reader, parsed.signed_size, algorithm).digest


def parse(reader: BinaryIO) -> Parsed:
    """Reads header and TLV areas of a seekable `reader`; problems instead of errors."""
    try:
        size = reader.seek(0, io.SEEK_END)
    except OSError as error:
        raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error
    parsed = Parsed(size)
    try:
        _header(reader, parsed)
        _areas(reader, parsed)
        parsed.complete = True
    except Malformed as error:
        parsed.problems.append(Problem(error.code, error.message, min(parsed.at, size)))
    return parsed


def _header(reader: BinaryIO, parsed: Parsed) -> None:
    raw = read_at(reader, 0, layout.HEADER_SIZE)
    if len(raw) < layout.HEADER_SIZE:
        raise Malformed("image.format", f"an MCUboot header has {layout.HEADER_SIZE} bytes, the file {len(raw)}")
    parsed.layouts = layout.order_of(raw[:4])
    header = parse_exact(parsed.layouts.header, raw, "image.format")
    if header.magic != layout.IMAGE_MAGIC:
        raise Malformed("image.format", f"magic is 0x{header.magic:08x}, expected 0x{layout.IMAGE_MAGIC:08x}")
    parsed.header = header
    parsed.at = 8
    if header.header_size < layout.HEADER_SIZE:
        raise Malformed("image.format", f"header size {header.header_size} is below {layout.HEADER_SIZE}")
    parsed.at = 16
    if header.flags & layout.ENCRYPTED_FLAGS == layout.ENCRYPTED_FLAGS:
        raise Malformed("image.format", "the header asks for both AES-128 and AES-256")
    unknown = header.flags & ~sum(layout.FLAGS)
    if unknown:
        parsed.problems.append(Problem("image.format", f"unknown header flags 0x{unknown:08x}", 16))
    parsed.at = 12
    parsed.end = header.header_size + header.image_size
    if parsed.end > parsed.size:
        raise Malformed("image.format", f"header and body take {parsed.end} bytes, the file has {parsed.size}")


def _areas(reader: BinaryIO, parsed: Parsed) -> None:
    protected = parsed.header.protected_size
    magic, total = _info(reader, parsed)
    if magic == layout.PROTECTED_MAGIC:
        if total != protected:
            raise Malformed("image.format", f"the protected TLV area has {total} bytes, the header says {protected}")
        _tlvs(reader, parsed, total, True)
        magic, total = _info(reader, parsed)
    elif protected:
        raise Malformed("image.format", f"the header announces {protected} bytes of protected TLVs, there are none")
    if magic != layout.INFO_MAGIC:
        raise Malformed("image.format", f"TLV area magic is 0x{magic:04x}, expected 0x{layout.INFO_MAGIC:04x}")
    parsed.signed_size = parsed.end
    _tlvs(reader, parsed, total, False)


def _info(reader: BinaryIO, parsed: Parsed) -> tuple[int, int]:
    parsed.at = parsed.end
    raw = read_at(reader, parsed.end, layout.INFO_SIZE)
    if len(raw) < layout.INFO_SIZE:
        raise Malformed("image.format", f"the file ends at {parsed.size} where a TLV area should begin")
    info = parse_exact(parsed.layouts.info, raw, "image.format")
    return info.magic, info.total


def _tlvs(reader: BinaryIO, parsed: Parsed, total: int, protected: bool) -> None:
    start = parsed.end
    raw = read_at(reader, start, total)
    if total < layout.INFO_SIZE or len(raw) < total:
        raise Malformed("image.format", f"a TLV area announces {total} bytes, the file holds {len(raw)} there")
    at = layout.INFO_SIZE
    while at < total:
        parsed.at = start + at
        if total - at < 4:
            raise Malformed("image.format", f"{total - at} stray bytes at the end of a TLV area")
        length = int.from_bytes(raw[at + 2 : at + 4], parsed.layouts.order)
        if at + 4 + length > total:
            raise Malformed("image.format", f"a TLV of {length} bytes runs past its area at offset {start + at}")
        tlv = parse_exact(parsed.layouts.tlv, raw[at : at + 4 + length], "image.format")
        parsed.tlvs.append(Tlv(_type(tlv.type, parsed), tlv.value, start + at, protected))
        at += 4 + length
    parsed.end = start + total


def _type(number: int, parsed: Parsed) -> int:
    """A TLV's type. In big-endian images imgtool writes its own types low byte first; no type ends in a zero byte, so
    which of the two it is can be told."""
    swapped = parsed.layouts is layout.BIG and number and not number & 0xFF
    parsed.swapped_types = parsed.swapped_types or bool(swapped)
    return number >> 8 if swapped else number

"""ESP32 and ESP8266 application images: header, segments, checksum byte, appended SHA-256, application description.

After Espressif's documentation of the application image format. The checksum is an exclusive or of all segment bytes
and 0xEF; the digest covers everything before it. A Secure Boot signature block behind the digest is named, not checked.
"""

from __future__ import annotations

import hashlib
import io
from functools import reduce
from operator import xor
from typing import Any, BinaryIO, Final

import construct as c

from devguard.errors import Refused
from devguard.image.mcuboot_parse import read_at
from devguard.image.places import Place, limited, place, places
from devguard.image.problem import ImageReport, Problem
from devguard.image.runs import Runs

SEED: Final = 0xEF
MAX_SEGMENTS: Final = 16
_CHUNK: Final = 1 << 16
_DIGEST: Final = 32
_DESCRIPTION: Final = 0xABCD5432
_CHIPS: Final = {
    0: "ESP32",
    2: "ESP32-S2",
    5: "ESP32-C3",
    9: "ESP32-S3",
    12: "ESP32-C2",
    13: "ESP32-C6",
    16: "ESP32-H2",
    18: "ESP32-P4",
    20: "ESP32-C61",
    23: "ESP32-C5",
}
_FLASH_MODES: Final = ("QIO", "QOUT", "DIO", "DOUT", "FAST", "SLOW")
_SIGNATURE: Final = 0xE7

HEADER: Final = c.Struct(
    "magic" / c.Const(b"\xe9"),
    "segments" / c.Int8ul,
    "mode" / c.Int8ul,
    "size_speed" / c.Int8ul,
    "entry" / c.Int32ul,
)
EXTENDED: Final = c.Struct(
    "wp_pin" / c.Int8ul,
    "drive" / c.Bytes(3),
    "chip" / c.Int16ul,
    "min_revision" / c.Int8ul,
    "min_full" / c.Int16ul,
    "max_full" / c.Int16ul,
    "reserved" / c.Bytes(4),
    "hashed" / c.Int8ul,
)
SEGMENT: Final = c.Struct("address" / c.Int32ul, "size" / c.Int32ul)
MEANINGS: Final = {
    "magic": "begins an image",
    "segments": "how many segments follow",
    "mode": "how the flash chip is read",
    "size_speed": "flash size in the high half, speed in the low",
    "entry": "where it starts",
    "wp_pin": "write protect pin; 238: none",
    "drive": "drive strengths of the flash pins",
    "chip": "for which chip",
    "min_revision": "oldest chip revision (old form)",
    "min_full": "oldest chip revision, times 100",
    "max_full": "newest chip revision, times 100",
    "reserved": "zero",
    "hashed": "whether a SHA-256 follows the checksum",
    "address": "where the segment is loaded",
    "size": "bytes of the segment, which follow",
    "secure_version": "anti-rollback counter",
    "version": "of the application",
    "project": "name of the application",
    "time": "of its build",
    "date": "of its build",
    "idf": "version of the framework",
    "elf_sha256": "of the ELF file it was made from",
}
DESCRIPTION: Final = c.Struct(
    "magic" / c.Int32ul,
    "secure_version" / c.Int32ul,
    "reserved" / c.Bytes(8),
    "version" / c.Bytes(32),
    "project" / c.Bytes(32),
    "time" / c.Bytes(16),
    "date" / c.Bytes(16),
    "idf" / c.Bytes(32),
    "elf_sha256" / c.Bytes(32),
)


def describe_esp(reader: BinaryIO) -> ImageReport:
    """Report on a whole file; problems instead of errors, `Refused("file.unreadable")` apart."""
    problems: list[Problem] = []
    try:
        header = HEADER.parse(read_at(reader, 0, HEADER.sizeof()))
    except c.ConstructError:
        return ImageReport({}, (Problem("image.format", "the file ends inside its header", 0),))
    extended = _extended(reader)
    fields: dict[str, object] = {
        "chip": _CHIPS[extended.chip] if extended else "ESP8266",
        "entry": header.entry,
        "flash_mode": _FLASH_MODES[header.mode] if header.mode < len(_FLASH_MODES) else header.mode,
        "segment_count": header.segments,
    }
    rows = places(HEADER, header, 0, MEANINGS)
    fields["places"] = rows
    if extended:
        rows += places(EXTENDED, extended, HEADER.sizeof(), MEANINGS)
        fields |= {
            "min_revision": extended.min_full,
            "max_revision": extended.max_full,
            "hash_appended": bool(extended.hashed),
        }
    if not 1 <= header.segments <= MAX_SEGMENTS:
        problems.append(Problem("image.format", f"{header.segments} segments, 1 to {MAX_SEGMENTS} can be", 1))
    start = HEADER.sizeof() + (EXTENDED.sizeof() if extended else 0)
    end, checksum = _segments(reader, start, min(header.segments, MAX_SEGMENTS), fields, problems)
    if end is not None:
        _tail(reader, end, checksum, extended, fields, problems)
    fields["places"] = limited([*rows, *_more_places(reader, fields)])
    return ImageReport(fields, tuple(problems))


def _more_places(reader: BinaryIO, fields: dict[str, Any]) -> list[Place]:
    """The heads of the segments, the application's description, and what stands behind them."""
    rows: list[Place] = []
    for index, one in enumerate(fields["segments"]):
        head = one["offset"] - SEGMENT.sizeof()
        rows += places(SEGMENT, one, head, MEANINGS)
        if index == 0 and "application" in fields:
            raw = read_at(reader, one["offset"], DESCRIPTION.sizeof())
            rows += places(DESCRIPTION, DESCRIPTION.parse(raw), one["offset"], {**MEANINGS, "magic": "application"})
    if "checksum" in fields and fields["segments"]:
        at = (fields["segments"][-1]["offset"] + fields["segments"][-1]["size"]) | 15
        rows.append(place(at, 1, "checksum", fields["checksum"], "exclusive or of all segment bytes and ef"))
        if "digest" in fields:
            stated = read_at(reader, at + 1, _DIGEST)
            rows.append(place(at + 1, _DIGEST, "digest", stated, "SHA-256 of all before it"))
    return rows


def _extended(reader: BinaryIO) -> Any:
    """The second header of all chips but the ESP8266, whose first segment stands in its place; None there."""
    raw = read_at(reader, HEADER.sizeof(), EXTENDED.sizeof())
    if len(raw) < EXTENDED.sizeof():
        return None
    got = EXTENDED.parse(raw)
    return got if got.chip in _CHIPS and got.hashed in (0, 1) and not any(got.reserved) else None


def _segments(
    reader: BinaryIO, at: int, count: int, fields: dict[str, object], problems: list[Problem]
) -> tuple[int | None, int]:
    """(offset behind the last segment or None, the checksum of all their bytes); fills in fields and problems."""
    shown: list[dict[str, int]] = []
    checksum, runs = SEED, Runs()
    for number in range(count):
        raw = read_at(reader, at, SEGMENT.sizeof())
        segment = SEGMENT.parse(raw) if len(raw) == SEGMENT.sizeof() else None
        got = _checksum(reader, at + SEGMENT.sizeof(), segment.size) if segment else None
        if segment is None or got is None:
            problems.append(Problem("image.format", f"segment {number} runs past the end of the file", at))
            fields["segments"] = shown
            return None, checksum
        checksum ^= got
        shown.append({"address": segment.address, "size": segment.size, "offset": at + SEGMENT.sizeof()})
        if segment.address + segment.size > 1 << 32:
            problems.append(Problem("image.format", f"segment {number} runs past the end of the address space", at))
        else:
            runs.add(segment.address, segment.address + segment.size, at)
        if number == 0:
            _describe(reader, at + SEGMENT.sizeof(), segment.size, fields)
        at += SEGMENT.sizeof() + segment.size
    runs.merged()
    if runs.overlap is not None:
        problems.append(Problem("image.format", f"segments overlap at {runs.overlap:#010x}", runs.overlap_offset))
    fields["segments"] = shown
    return at, checksum


def _checksum(reader: BinaryIO, at: int, size: int) -> int | None:
    """Exclusive or of `size` bytes; None where the file ends before."""
    found = 0
    while size:
        chunk = read_at(reader, at, min(_CHUNK, size))
        if not chunk:
            return None
        found ^= reduce(xor, chunk)
        at, size = at + len(chunk), size - len(chunk)
    return found


def _describe(reader: BinaryIO, at: int, size: int, fields: dict[str, object]) -> None:
    raw = read_at(reader, at, DESCRIPTION.sizeof()) if size >= DESCRIPTION.sizeof() else b""
    if len(raw) < DESCRIPTION.sizeof():
        return
    got = DESCRIPTION.parse(raw)
    if got.magic == _DESCRIPTION:
        text = {
            name: got[name].split(b"\x00", 1)[0].decode("utf-8", "replace")
            for name in ("version", "project", "time", "date", "idf")
        }
        fields["application"] = {**text, "secure_version": got.secure_version, "elf_sha256": got.elf_sha256.hex()}


def _tail(
    reader: BinaryIO, end: int, checksum: int, extended: Any, fields: dict[str, object], problems: list[Problem]
) -> None:
    """The checksum byte at the end of its 16-byte line, the digest, and what stands behind them."""
    place = end | 15
    byte = read_at(reader, place, 1)
    if not byte:
        problems.append(Problem("image.format", "the file ends before its checksum", end))
        return
    fields["checksum"] = byte[0]
    if byte[0] != checksum:
        problems.append(Problem("image.digest", f"checksum {byte[0]:#04x}, the segments give {checksum:#04x}", place))
    after = place + 1
    if extended and extended.hashed:
        stated = read_at(reader, after, _DIGEST)
        found = _sha256(reader, after)
        fields["digest"] = found.hex()
        if stated != found:
            problems.append(
                Problem("image.digest", f"SHA-256 {stated.hex() or 'missing'}, the file gives {found.hex()}", after)
            )
        after += _DIGEST
    size = _size(reader)
    if size > after:
        signed = read_at(reader, -(-after // 4096) * 4096, 1) == bytes((_SIGNATURE,))
        fields["secure_boot_signature"] = signed
        if not signed:
            problems.append(Problem("image.trailing", f"{size - after} bytes behind the image", after))


def _sha256(reader: BinaryIO, size: int) -> bytes:
    digest, at = hashlib.sha256(), 0
    while at < size and (chunk := read_at(reader, at, min(_CHUNK, size - at))):
        digest.update(chunk)
        at += len(chunk)
    return digest.digest()


def _size(reader: BinaryIO) -> int:
    try:
        return reader.seek(0, io.SEEK_END)
    except OSError as error:
        raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error

"""What may follow an MCUboot image in its slot: erased flash, and a boot trailer at the very end.

Source: MCUboot's design document, "Image trailer". Anything else behind the image is bytes that no hash and
no signature covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final

from devguard.image.mcuboot_parse import Parsed, read_at
from devguard.image.problem import Problem

_MAGIC_ALIGN_8: Final = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")
_MAGIC_TAIL: Final = bytes.fromhex("2de15d29410b8d77679c110f1f8a")
_CHUNK: Final = 1 << 20
_MAX_STATUS: Final = 98_304  # 1024 sectors, three entries each, 32-byte write unit
_STATUS_BYTES: Final = bytes((0x01, 0x02, 0x03, 0xFF))
_SWAP_TYPES: Final = frozenset({1, 2, 3, 4, 5})


@dataclass(frozen=True, slots=True)
class Trailer:
    """A boot trailer's flags: True set, False erased; `size` is the length of its fixed part in bytes."""

    max_align: int
    image_ok: bool
    copy_done: bool
    swap_type: int | None
    size: int


def check_tail(reader: BinaryIO, parsed: Parsed) -> tuple[Trailer | None, list[Problem]]:
    """The boot trailer when there is one, and the problems of everything behind the image's end."""
    length = parsed.size - parsed.end
    align = _max_align(read_at(reader, parsed.size - 16, 16)) if length >= 16 else None
    if align is None:
        return None, _only_erased(reader, parsed.end, parsed.size)
    magic_area = -(-16 // align) * align
    fixed = min(magic_area + 5 * align, length)
    raw = read_at(reader, parsed.size - fixed, fixed)
    raw = b"\xff" * (magic_area + 5 * align - fixed) + raw
    cells = [raw[index * align : (index + 1) * align] for index in range(5)]
    problems = _cells(cells, raw[5 * align : -16], parsed)
    at = parsed.size - fixed
    status = cells[0] != b"\xff" * align or cells[1] != b"\xff" * align
    begin = max(parsed.end, at - _MAX_STATUS) if status else at
    problems += _only_erased(reader, parsed.end, begin)
    written = read_at(reader, begin, at - begin).strip(_STATUS_BYTES)
    if written:
        problems.append(Problem("image.trailing", "the boot trailer's swap status has impossible bytes", begin))
    swap = cells[2][0] & 0x0F if cells[2][0] != 0xFF else None
    return Trailer(align, cells[4][0] == 1, cells[3][0] == 1, swap, fixed), problems


def _max_align(magic: bytes) -> int | None:
    if magic == _MAGIC_ALIGN_8:
        return 8
    align = int.from_bytes(magic[:2], "little")
    if magic[2:] == _MAGIC_TAIL and 8 < align <= 4096 and align & (align - 1) == 0:
        return align
    return None


def _cells(cells: list[bytes], filler: bytes, parsed: Parsed) -> list[Problem]:
    """Checks swap size or TLV sizes (two cells), swap info, copy done, image ok, and the fill between them."""
    at = parsed.size - 16 - len(filler)
    problems = []
    for name, cell in (("copy done", cells[3]), ("image ok", cells[4])):
        if cell[0] not in (0x01, 0xFF):
            problems.append(Problem("image.trailing", f"the boot trailer's {name} is 0x{cell[0]:02x}", at))
    if cells[2][0] != 0xFF and cells[2][0] & 0x0F not in _SWAP_TYPES:
        problems.append(Problem("image.trailing", f"the boot trailer's swap info is 0x{cells[2][0]:02x}", at))
    fill = b"".join(cell[4:] for cell in cells[:2]) + b"".join(cell[1:] for cell in cells[2:]) + filler
    if fill.strip(b"\xff"):
        problems.append(Problem("image.trailing", "bytes between the fields of the boot trailer", at))
    return problems


def _only_erased(reader: BinaryIO, start: int, end: int) -> list[Problem]:
    at = start
    while at < end:
        chunk = read_at(reader, at, min(_CHUNK, end - at))
        if not chunk:
            break
        rest = chunk.lstrip(b"\xff")
        if rest:
            where = at + len(chunk) - len(rest)
            return [Problem("image.trailing", f"{end - where} bytes follow the image's end, not erased flash", where)]
        at += len(chunk)
    return []

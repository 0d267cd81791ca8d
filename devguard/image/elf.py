"""ELF executables through pyelftools: header, what is loaded where, sections, build id; and what no loader should take.

pyelftools comes with the extra `[image]`; it reads as it goes, so what it raises for hostile files is caught here and
becomes one problem. Only the first entries of each table are looked at. Debug information and symbols are not read.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO, Final

from devguard.errors import Refused
from devguard.image.places import place
from devguard.image.problem import ImageReport, Problem
from devguard.image.runs import Runs
from devguard.image.srec import NEEDED

MAX_ENTRIES: Final = 512
MAX_PROBLEMS: Final = 64
_SHOWN: Final = 64
_BUILD_ID: Final = 64
_EXECUTE, _WRITE = 1, 2
# (field, bytes in a 32-bit file, in a 64-bit one, meaning), in file order
_HEADER: Final = (
    ("e_ident", 16, 16, "magic, word size, byte order, system"),
    ("e_type", 2, 2, "what kind of file"),
    ("e_machine", 2, 2, "for which processor"),
    ("e_version", 4, 4, "always 1"),
    ("e_entry", 4, 8, "where it starts"),
    ("e_phoff", 4, 8, "where the program headers are"),
    ("e_shoff", 4, 8, "where the section headers are"),
    ("e_flags", 4, 4, "of the processor"),
    ("e_ehsize", 2, 2, "bytes of this header"),
    ("e_phentsize", 2, 2, "bytes of a program header"),
    ("e_phnum", 2, 2, "how many program headers"),
    ("e_shentsize", 2, 2, "bytes of a section header"),
    ("e_shnum", 2, 2, "how many section headers"),
    ("e_shstrndx", 2, 2, "which section holds the names"),
)


class _Walk:
    def __init__(self, elf: Any, size: int) -> None:
        self.elf, self.size = elf, size
        self.problems: list[Problem] = []
        self.fields: dict[str, object] = {}

    def wrong(self, detail: str, offset: int | None = None) -> None:
        """Note a problem; the first ones are enough."""
        if len(self.problems) < MAX_PROBLEMS:
            inside = offset is not None and 0 <= offset <= self.size
            self.problems.append(Problem("image.format", detail, offset if inside else None))


def describe_elf(reader: BinaryIO) -> ImageReport:
    """Report on a file; problems instead of errors. `Refused`: file.unreadable, file.missing without pyelftools."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.construct.core import ConstructError
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise Refused("file.missing", "ELF files are read with pyelftools, which is not installed", NEEDED) from error
    # What pyelftools lets through for bytes that are none of an ELF file: each is an answer about the file.
    broken = (
        ELFError,
        ConstructError,
        ValueError,
        LookupError,
        ArithmeticError,
        AttributeError,
        TypeError,
        AssertionError,
        EOFError,
        MemoryError,
        RecursionError,
        struct.error,
    )
    try:
        size = reader.seek(0, io.SEEK_END)
        reader.seek(0)
    except OSError as error:
        raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error
    walk: _Walk | None = None
    try:
        walk = _Walk(ELFFile(reader), size)
        for step in (_header, _segments, _sections):
            step(walk)
    except OSError as error:
        raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error
    except broken as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        problem = Problem("image.format", f"no sound ELF file: {why}", 0)
        return ImageReport(walk.fields if walk else {}, (*(walk.problems if walk else ()), problem))
    return ImageReport(walk.fields, tuple(walk.problems))


def _header(walk: _Walk) -> None:
    head = walk.elf.header
    walk.fields |= {
        "class": walk.elf.elfclass,
        "endianness": "little" if walk.elf.little_endian else "big",
        "machine": _name(head["e_machine"], "EM_"),
        "type": _name(head["e_type"], "ET_"),
        "entry": head["e_entry"],
        "flags": head["e_flags"],
    }
    rows, at = [], 0
    for name, narrow, wide, meaning in _HEADER:
        size = wide if walk.elf.elfclass == 64 else narrow
        value = walk.elf.e_ident_raw if name == "e_ident" else head[name]
        rows.append(place(at, size, name, value, meaning))
        at += size
    walk.fields["places"] = rows


def _name(value: object, prefix: str) -> object:
    return value.removeprefix(prefix) if isinstance(value, str) else value


def _segments(walk: _Walk) -> None:
    shown: list[dict[str, object]] = []
    count, runs, entry = walk.elf.num_segments(), Runs(), False
    if count > MAX_ENTRIES:
        walk.wrong(f"{count} program headers, {MAX_ENTRIES} are looked at", 44 if walk.elf.elfclass == 32 else 56)
    for number in range(min(count, MAX_ENTRIES)):
        head = walk.elf.get_segment(number).header
        offset, stored, memory, flags = head["p_offset"], head["p_filesz"], head["p_memsz"], head["p_flags"]
        if head["p_type"] != "PT_LOAD":
            continue
        if stored > memory:
            walk.wrong(f"segment {number} has {stored} bytes in the file and {memory} in memory", offset)
        if offset + stored > walk.size:
            walk.wrong(f"segment {number} runs past the end of the file", offset)
        if flags & _WRITE and flags & _EXECUTE:
            walk.wrong(f"segment {number} can be written and executed", offset)
        entry = entry or (
            bool(flags & _EXECUTE) and head["p_vaddr"] <= walk.elf.header["e_entry"] < head["p_vaddr"] + memory
        )
        place_of = walk.elf.header["e_phoff"] + number * walk.elf.header["e_phentsize"]
        runs.add(head["p_paddr"], head["p_paddr"] + stored, place_of)
        if len(shown) < _SHOWN:
            shown.append(
                {
                    "physical": head["p_paddr"],
                    "virtual": head["p_vaddr"],
                    "file_size": stored,
                    "memory_size": memory,
                    "offset": offset,
                    "header": place_of,
                    "flags": "".join(letter for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if flags & bit),
                }
            )
    walk.fields |= {"loaded": shown, **runs.fields()}
    if runs.overlap is not None:
        walk.wrong(f"segments overlap in flash at {runs.overlap:#x}", runs.overlap_offset)
    if shown and not entry and walk.elf.header["e_type"] == "ET_EXEC":
        walk.wrong(f"the entry point {walk.elf.header['e_entry']:#x} lies in no segment that can be executed", 0x18)


def _sections(walk: _Walk) -> None:
    shown: list[dict[str, object]] = []
    count = walk.elf.num_sections()
    if count > MAX_ENTRIES:
        walk.wrong(f"{count} sections, {MAX_ENTRIES} are looked at", 48 if walk.elf.elfclass == 32 else 60)
    for number in range(min(count, MAX_ENTRIES)):
        section = walk.elf.get_section(number)
        head = section.header
        if head["sh_type"] != "SHT_NOBITS" and head["sh_offset"] + head["sh_size"] > walk.size:
            walk.wrong(f"section {section.name or number} runs past the end of the file", head["sh_offset"])
        elif section.name == ".note.gnu.build-id" and 16 < head["sh_size"] <= _BUILD_ID:
            walk.fields["build_id"] = section.data()[16:].hex()
        if len(shown) < _SHOWN:
            kind = _name(head["sh_type"], "SHT_")
            shown.append(
                {
                    "name": section.name,
                    "type": kind,
                    "address": head["sh_addr"],
                    "size": head["sh_size"],
                    "offset": head["sh_offset"],
                }
            )
    walk.fields |= {"section_count": count, "sections": shown}

"""ELF executables through pyelftools: header, what is loaded where, sections, build id; and what no loader should take.

pyelftools comes with the extra `[image]`; it reads as it goes, so what it raises for hostile files is caught here and
becomes one problem. Only the first entries of each table are looked at. Debug information and symbols are not read.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO, Final

from devguard.errors import Refused
from devguard.image.problem import ImageReport, Problem
from devguard.image.runs import Runs
from devguard.image.srec import NEEDED

MAX_ENTRIES: Final = 512
MAX_PROBLEMS: Final = 64
_SHOWN: Final = 64
_BUILD_ID: Final = 64
_EXECUTE, _WRITE = 1, 2


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
        problem = Problem("image.format", f"no sound ELF file: {why}", None)
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


def _name(value: object, prefix: str) -> object:
    return value.removeprefix(prefix) if isinstance(value, str) else value


def _segments(walk: _Walk) -> None:
    shown: list[dict[str, object]] = []
    count, runs, entry = walk.elf.num_segments(), Runs(), False
    if count > MAX_ENTRIES:
        walk.wrong(f"{count} program headers, {MAX_ENTRIES} are looked at")
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
        runs.add(head["p_paddr"], head["p_paddr"] + stored)
        if len(shown) < _SHOWN:
            shown.append(
                {
                    "physical": head["p_paddr"],
                    "virtual": head["p_vaddr"],
                    "file_size": stored,
                    "memory_size": memory,
                    "offset": offset,
                    "flags": "".join(letter for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if flags & bit),
                }
            )
    walk.fields |= {"loaded": shown, **runs.fields()}
    if runs.overlap is not None:
        walk.wrong(f"segments overlap in flash at {runs.overlap:#x}")
    if shown and not entry and walk.elf.header["e_type"] == "ET_EXEC":
        walk.wrong(f"the entry point {walk.elf.header['e_entry']:#x} lies in no segment that can be executed")


def _sections(walk: _Walk) -> None:
    shown: list[dict[str, object]] = []
    count = walk.elf.num_sections()
    if count > MAX_ENTRIES:
        walk.wrong(f"{count} sections, {MAX_ENTRIES} are looked at")
    for number in range(min(count, MAX_ENTRIES)):
        section = walk.elf.get_section(number)
        head = section.header
        if head["sh_type"] != "SHT_NOBITS" and head["sh_offset"] + head["sh_size"] > walk.size:
            walk.wrong(f"section {section.name or number} runs past the end of the file", head["sh_offset"])
        elif section.name == ".note.gnu.build-id" and 16 < head["sh_size"] <= _BUILD_ID:
            walk.fields["build_id"] = section.data()[16:].hex()
        if len(shown) < _SHOWN:
            kind = _name(head["sh_type"], "SHT_")
            shown.append({"name": section.name, "type": kind, "address": head["sh_addr"], "size": head["sh_size"]})
    walk.fields |= {"section_count": count, "sections": shown}

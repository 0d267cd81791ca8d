"""Motorola S-records, line by line: each record through bincopy, its address and checksum judged, nothing repaired.

Record types S0 header, S1 to S3 data, S5 and S6 count, S7 to S9 start address and end. bincopy comes with the extra
`[image]`; without it the file is named and not looked into.
"""

from __future__ import annotations

from typing import BinaryIO, Final

from devguard.errors import Malformed, Refused
from devguard.image.places import Place, place
from devguard.image.problem import ImageReport, Problem
from devguard.image.runs import Runs

MAX_LINE: Final = 2 + 2 * 256 + 2
MAX_PROBLEMS: Final = 64
_DATA: Final = "123"
_COUNT: Final = "56"
_END: Final = "789"
_MEANINGS: Final = {
    "0": "header: a text",
    "1": "data for a 16-bit address",
    "2": "data for a 24-bit address",
    "3": "data for a 32-bit address",
    "5": "how many data records there were",
    "6": "how many data records there were",
    "7": "where it starts, 32 bit; nothing follows",
    "8": "where it starts, 24 bit; nothing follows",
    "9": "where it starts, 16 bit; nothing follows",
}
_KEPT: Final = 64
NEEDED: Final = "pip install 'devguard[image]'"


class _Walk:
    """What the records say together."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.runs = Runs()
        self.header: str | None = None
        self.start: int | None = None
        self.records = 0
        self.places: list[Place] = []
        self.ended = False

    def wrong(self, detail: str, offset: int, code: str = "image.format") -> None:
        """Note a problem; the first ones are enough."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(code, detail, offset))

    def record(self, number: int, offset: int, size: int, kind: str, address: int, data: bytes) -> None:
        """One record that could be read."""
        if len(self.places) < _KEPT and kind in _MEANINGS and (kind not in _DATA or not self.records):
            value: object = data if kind in "0123" else address
            self.places.append(place(offset, size, f"S{kind}", value, _MEANINGS[kind]))
        if self.ended:
            self.wrong(f"line {number}: a record behind the end", offset, "image.trailing")
        if kind in _DATA:
            self.records += 1
            if address + len(data) > 1 << 32:
                self.wrong(f"line {number}: data run past the end of the address space", offset)
            else:
                self.runs.add(address, address + len(data), offset)
        elif kind == "0":
            self.header = data.rstrip(b"\x00").decode("ascii", "replace")
        elif kind in _COUNT:
            if address != self.records:
                self.wrong(f"line {number}: it counts {address} data records, there were {self.records}", offset)
        elif kind in _END:
            self.ended, self.start = True, address
        else:
            self.wrong(f"line {number}: record type S{kind} is reserved", offset)


def describe_srec(reader: BinaryIO) -> ImageReport:
    """Report on a whole file; problems instead of errors. `Refused`: file.unreadable, file.missing without bincopy."""
    try:
        import bincopy  # type: ignore[import-untyped]  # it ships no types
    except ImportError as error:
        raise Refused("file.missing", "S-records are read with bincopy, which is not installed", NEEDED) from error
    walk, number, offset = _Walk(), 0, 0
    try:
        reader.seek(0)
        while line := reader.readline(MAX_LINE):
            number += 1
            text = line.strip()
            if text:
                try:
                    kind, address, _, data = bincopy.unpack_srec(text.decode("ascii"))
                    walk.record(number, offset, len(text), kind, address, data or b"")
                except (bincopy.Error, ValueError, LookupError) as error:
                    walk.wrong(f"line {number}: {_short(error)}", offset)
                except Malformed as error:
                    walk.wrong(error.message, offset)
                    break
            offset += len(line)
    except OSError as error:
        raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error
    if not walk.ended:
        walk.wrong("the file ends without an S7, S8 or S9 record", offset)
    fields = walk.runs.fields()
    if walk.runs.overlap is not None:
        walk.wrong(f"records overlap at {walk.runs.overlap:#010x}", walk.runs.overlap_offset)
    fields |= {"header": walk.header, "start_address": walk.start, "data_records": walk.records}
    fields["places"] = walk.places
    return ImageReport(fields, tuple(walk.problems))


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__

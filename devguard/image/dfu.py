"""USB device firmware upgrade files: the DFU suffix, and ST's DfuSe container in front of it.

Suffix after USB DFU 1.1 appendix B (16 bytes at the end, CRC-32 over all before itself); DfuSe after ST UM0391. Both
name a device and carry addresses; neither is signed. Lengths are compared with the file, nothing is repaired.
"""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO, Final

import construct as c

from devguard.errors import Malformed, Refused
from devguard.image.mcuboot_parse import read_at
from devguard.image.places import MAX_PLACES, Place, limited, places
from devguard.image.problem import ImageReport, Problem
from devguard.image.runs import Runs

SUFFIX_SIZE: Final = 16
MAX_TARGETS: Final = 255
MAX_ELEMENTS: Final = 4096
MAX_PROBLEMS: Final = 64
_CHUNK: Final = 1 << 20

SUFFIX: Final = c.Struct(
    "device" / c.Int16ul,
    "product" / c.Int16ul,
    "vendor" / c.Int16ul,
    "dfu" / c.Int16ul,
    "signature" / c.Const(b"UFD"),
    "length" / c.Int8ul,
    "crc" / c.Int32ul,
)
PREFIX: Final = c.Struct("signature" / c.Const(b"DfuSe\x01"), "size" / c.Int32ul, "targets" / c.Int8ul)
TARGET: Final = c.Struct(
    "signature" / c.Const(b"Target"),
    "alternate" / c.Int8ul,
    "named" / c.Int32ul,
    "name" / c.Bytes(255),
    "size" / c.Int32ul,
    "elements" / c.Int32ul,
)
ELEMENT: Final = c.Struct("address" / c.Int32ul, "size" / c.Int32ul)
_MEANINGS: Final[dict[int, dict[str, str]]] = {
    id(SUFFIX): {
        "device": "release number of the device, in BCD; ffff: any",
        "product": "USB product id; ffff: any",
        "vendor": "USB vendor id; ffff: any",
        "dfu": "version of the file format: 0100, or 011a for DfuSe",
        "signature": "says that there is a suffix",
        "length": "bytes of the suffix",
        "crc": "CRC-32 of all before it, not inverted",
    },
    id(PREFIX): {
        "signature": "DfuSe, version 1",
        "size": "bytes of the file without its suffix",
        "targets": "how many targets follow",
    },
    id(TARGET): {
        "signature": "begins a target",
        "alternate": "alternate setting of the USB interface that takes it",
        "named": "whether the name counts",
        "name": "the target's name",
        "size": "bytes of its elements",
        "elements": "how many elements follow",
    },
    id(ELEMENT): {"address": "where the element goes", "size": "bytes of the element, which follow"},
}


class _Walk:
    def __init__(self, reader: BinaryIO) -> None:
        self.reader = reader
        try:
            self.size = reader.seek(0, io.SEEK_END)
        except OSError as error:
            raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error
        self.problems: list[Problem] = []
        self.fields: dict[str, object] = {"size": self.size}
        self.runs = Runs()
        self.places: list[Place] = []

    def wrong(self, detail: str, offset: int, code: str = "image.format") -> None:
        """Note a problem; the first ones are enough."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(code, detail, offset))

    def read(self, layout: c.Construct, offset: int, what: str) -> Any:
        """`layout` at `offset`; None and a problem where it is not."""
        try:
            got = layout.parse(read_at(self.reader, offset, layout.sizeof()))
            if len(self.places) < MAX_PLACES:
                self.places += places(layout, got, offset, _MEANINGS[id(layout)])
            return got
        except c.ConstructError:
            self.wrong(f"there is no {what}", offset)
            return None


def describe_dfu(reader: BinaryIO) -> ImageReport:
    """Report on a whole file; problems instead of errors, `Refused("file.unreadable")` apart."""
    walk = _Walk(reader)
    end = _suffix(walk)
    if read_at(reader, 0, 5) == b"DfuSe":
        _container(walk, end)
    else:
        walk.fields["payload_bytes"] = end
    walk.fields["places"] = limited(sorted(walk.places, key=lambda row: int(str(row["offset"]))))
    return ImageReport(walk.fields, tuple(walk.problems))


def _suffix(walk: _Walk) -> int:
    """Describes the suffix; where the payload ends."""
    at = walk.size - SUFFIX_SIZE
    suffix = walk.read(SUFFIX, at, "DFU suffix at the end of the file") if at >= 0 else None
    if suffix is None:
        if at < 0:
            walk.wrong("the file is too short for a DFU suffix", 0)
        return walk.size
    found = _crc(walk.reader, walk.size - 4)
    walk.fields["suffix"] = {
        "dfu_version": f"{suffix.dfu:#06x}",
        "vendor": f"{suffix.vendor:#06x}",
        "product": f"{suffix.product:#06x}",
        "device": f"{suffix.device:#06x}",
        "length": suffix.length,
        "crc": f"{suffix.crc:#010x}",
    }
    if suffix.crc != found:
        walk.wrong(f"the suffix says CRC {suffix.crc:#010x}, the file gives {found:#010x}", at + 12, "image.digest")
    if not SUFFIX_SIZE <= suffix.length <= walk.size:
        walk.wrong(f"the suffix says it has {suffix.length} bytes, it has at least {SUFFIX_SIZE}", at + 11)
        return at
    return walk.size - int(suffix.length)


def _crc(reader: BinaryIO, size: int) -> int:
    """CRC-32 of the first `size` bytes as DFU writes it: not inverted at the end."""
    crc, at = 0, 0
    while at < size:
        chunk = read_at(reader, at, min(_CHUNK, size - at))
        if not chunk:
            break
        crc = zlib.crc32(chunk, crc)
        at += len(chunk)
    return crc ^ 0xFFFFFFFF


def _container(walk: _Walk, end: int) -> None:
    prefix = walk.read(PREFIX, 0, "DfuSe prefix")
    if prefix is None:
        return
    if prefix.size != end:
        walk.wrong(f"the prefix says {prefix.size} bytes without suffix, there are {end}", 6)
    targets: list[dict[str, object]] = []
    at = PREFIX.sizeof()
    for _ in range(prefix.targets):
        target = walk.read(TARGET, at, "DfuSe target") if at < end else None
        if target is None:
            walk.wrong(f"{prefix.targets} targets announced, {len(targets)} found", at)
            break
        elements, after = _elements(walk, target, at + TARGET.sizeof(), end)
        if after - at - TARGET.sizeof() != target.size:
            walk.wrong(
                f"the target says {target.size} bytes, its elements have {after - at - TARGET.sizeof()}", at + 266
            )
        name = target.name.split(b"\x00", 1)[0].decode("ascii", "replace") if target.named else None
        targets.append({"alternate": target.alternate, "name": name, "size": target.size, "elements": elements})
        at = after
    if at < end and len(targets) == prefix.targets:
        walk.wrong(f"{end - at} bytes behind the last target", at, "image.trailing")
    walk.fields |= {"dfuse_version": 1, "targets": targets, **walk.runs.fields()}
    if walk.runs.overlap is not None:
        walk.wrong(f"elements overlap at {walk.runs.overlap:#010x}", walk.runs.overlap_offset)


def _elements(walk: _Walk, target: Any, at: int, end: int) -> tuple[list[dict[str, int]], int]:
    """(the first elements, the offset after the last one)."""
    shown: list[dict[str, int]] = []
    for number in range(min(target.elements, MAX_ELEMENTS)):
        element = walk.read(ELEMENT, at, "DfuSe element") if at + ELEMENT.sizeof() <= end else None
        if element is None or at + ELEMENT.sizeof() + element.size > end:
            walk.wrong(f"element {number} of {target.elements} runs past the end of the file", at)
            return shown, at
        if element.address + element.size > 1 << 32:
            walk.wrong(f"element {number} runs past the end of the address space", at)
        else:
            try:
                walk.runs.add(element.address, element.address + element.size, at)
            except Malformed as error:
                walk.wrong(error.message, at)
        if len(shown) < MAX_PROBLEMS:
            shown.append({"address": element.address, "size": element.size, "offset": at + ELEMENT.sizeof()})
        at += ELEMENT.sizeof() + element.size
    if target.elements > MAX_ELEMENTS:
        walk.wrong(f"{target.elements} elements announced, at most {MAX_ELEMENTS} are read", at)
    return shown, at

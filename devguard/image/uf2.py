"""UF2, block by block: 512 bytes each, numbers and addresses of every one, nothing repaired.

Follows the UF2 file format description (Microsoft, makecode): magic numbers, flags, family, extension tags. The MD5 of
a flash area that a block may carry belongs to the device's flash and is shown, not checked.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import construct as c

from devguard.errors import Malformed
from devguard.image.mcuboot_parse import read_at
from devguard.image.places import Place, places
from devguard.image.problem import ImageReport, Problem
from devguard.image.runs import Runs

BLOCK: Final = 512
MAX_PAYLOAD: Final = 476
MAX_BLOCKS: Final = 1 << 20  # 512 MiB of file
MAX_PROBLEMS: Final = 64
_NOT_MAIN, _CONTAINER, _FAMILY, _MD5, _TAGS = 0x1, 0x1000, 0x2000, 0x4000, 0x8000
_FLAGS: Final = {
    _NOT_MAIN: "not-main-flash",
    _CONTAINER: "file-container",
    _FAMILY: "family-id",
    _MD5: "md5",
    _TAGS: "extension-tags",
}
_TAG_NAMES: Final = {
    0x9FC7BC: "version",
    0x650D9D: "device",
    0x0BE9F7: "page_size",
    0xB46DB0: "sha2",
    0xC8A729: "device_type",
}

LAYOUT: Final = c.Struct(
    "magic" / c.Const(b"UF2\n\x57\x51\x5d\x9e"),
    "flags" / c.Int32ul,
    "address" / c.Int32ul,
    "size" / c.Int32ul,
    "number" / c.Int32ul,
    "count" / c.Int32ul,
    "family" / c.Int32ul,
    "data" / c.Bytes(MAX_PAYLOAD),
    "end" / c.Const(b"\x30\x6f\xb1\x0a"),
)
COMPILED: Final = LAYOUT.compile()
MEANINGS: Final = {
    "magic": "begins every block",
    "flags": "what the block is and which fields it uses",
    "address": "where its data goes in flash",
    "size": "bytes of data used",
    "number": "its number in the file, from 0",
    "count": "blocks in the file",
    "family": "board family id, or the file's size where the flag says so",
    "data": "its data, then extension tags",
    "end": "ends every block",
}


class _Walk:
    """What the blocks say together."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.runs = Runs()
        self.families: set[int] = set()
        self.flags = 0
        self.count: int | None = None
        self.tags: dict[str, object] = {}
        self.main = 0
        self.places: list[Place] = []

    def wrong(self, detail: str, offset: int, code: str = "image.format") -> None:
        """Note a problem; the first ones are enough."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(code, detail, offset))

    def block(self, index: int, raw: bytes) -> None:
        """One block at its place in the file."""
        offset = index * BLOCK
        try:
            block = COMPILED.parse(raw)
        except c.ConstructError:
            self.wrong(f"block {index} has not the magic numbers of UF2", offset)
            return
        if not self.places:
            self.places = places(LAYOUT, block, offset, MEANINGS)
        self.flags |= block.flags
        if block.flags & _FAMILY:
            self.families.add(block.family)
        if block.number != index:
            self.wrong(f"block {index} says it is number {block.number}", offset + 20)
        self.count = block.count if self.count is None else self.count
        if block.count != self.count:
            self.wrong(f"block {index} says there are {block.count} blocks, the first said {self.count}", offset + 24)
        if not 0 < block.size <= MAX_PAYLOAD:
            self.wrong(f"block {index} says {block.size} bytes, 1 to {MAX_PAYLOAD} fit", offset + 16)
            return
        if not block.flags & (_NOT_MAIN | _CONTAINER):
            self._place(index, block)
        if block.flags & _TAGS:
            self._tags(index, block.data[block.size :])

    def _place(self, index: int, block: Any) -> None:
        if block.address + block.size > 1 << 32:
            self.wrong(f"block {index} runs past the end of the address space", index * BLOCK + 12)
            return
        self.main += 1
        try:
            self.runs.add(block.address, block.address + block.size, index * BLOCK)
        except Malformed as error:
            self.wrong(error.message, index * BLOCK)

    def _tags(self, index: int, area: bytes) -> None:
        at = -len(area) % 4
        while at + 4 <= len(area):
            size = area[at]
            if size == 0:
                return
            if size < 4 or at + size > len(area):
                self.wrong(f"block {index}: an extension tag of {size} bytes does not fit", index * BLOCK + 32)
                return
            kind, value = int.from_bytes(area[at + 1 : at + 4], "little"), area[at + 4 : at + size]
            name = _TAG_NAMES.get(kind, f"{kind:#08x}")
            if name not in self.tags and len(self.tags) < MAX_PROBLEMS:
                text = value.decode("ascii", "replace") if name in ("version", "device") else value.hex()
                self.tags[name] = text
            at += size + -size % 4


def describe_uf2(reader: BinaryIO) -> ImageReport:
    """Report on a whole file; problems instead of errors, `Refused("file.unreadable")` apart."""
    walk = _Walk()
    index, rest = 0, b""
    while index < MAX_BLOCKS:
        raw = read_at(reader, index * BLOCK, BLOCK)
        if len(raw) < BLOCK:
            rest = raw
            break
        walk.block(index, raw)
        index += 1
    else:
        walk.wrong(f"more than {MAX_BLOCKS} blocks", index * BLOCK)
    if rest:
        walk.wrong(f"{len(rest)} bytes behind the last block", index * BLOCK, "image.trailing")
    if walk.count is not None and walk.count != index:
        walk.wrong(f"there are {index} blocks, they say {walk.count}", 24)
    fields = walk.runs.fields()
    if walk.runs.overlap is not None:
        walk.wrong(f"blocks overlap at {walk.runs.overlap:#010x}", walk.runs.overlap_offset)
    fields |= {
        "blocks": index,
        "main_flash_blocks": walk.main,
        "families": [f"{family:#010x}" for family in sorted(walk.families)],
        "flags": [name for bit, name in _FLAGS.items() if walk.flags & bit],
        "tags": walk.tags,
        "places": walk.places,  # of the first block; every other has the same
    }
    return ImageReport(fields, tuple(walk.problems))

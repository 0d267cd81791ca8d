"""The swap journal: what is being swapped, and how far it came.

Two sectors take turns, so starting an entry never erases the one before; the whole entry with the higher
generation counts. An entry is a block (magic, CBOR, CRC) followed by marks: three for each sector that is moved,
then one that says the swap was judged and closed. A mark is one write unit, set when all bits are cleared;
every write here can be repeated after a power cut and gives the same flash.

A word that was cut off while it was programmed may read differently each time, and no one can tell. So what was open
when the power went is not gone on with: after a reset the marks are read once, and the rest of the swap is a new entry
that says how far the one before came.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from devguard.device import fields
from devguard.device.flash import ERASED, FlashMemory
from devguard.device.header import decode_block, encode_block
from devguard.device.layout import Layout
from devguard.errors import LocalProtocolError, Refused

MAGIC: Final = b"DGSWAP\x00\x01"
STEPS: Final = 3
_BLOCK: Final = 256


class SwapKind(enum.IntEnum):
    """Why a swap runs. UNDO: a cell failed while an install moved in; what has moved goes back."""

    INSTALL = 1
    REVERT = 2
    FALLBACK = 3
    UNDO = 4


@dataclass(frozen=True, slots=True)
class SwapEntry:
    """One journal entry. `incoming` is the digest of the image that shall stand in the primary slot when the swap is
    done, `outgoing` of the one that leaves it (empty: no image). Sizes in bytes decide which sectors move. `origin`: of
    an undo, how many steps of the install were done. `progress`: steps that were done before this entry was written."""

    generation: int
    kind: SwapKind
    image_size: int
    envelope_size: int
    incoming: bytes
    outgoing: bytes
    origin: int = 0
    progress: int = 0

    def to_list(self) -> list[object]:
        """The CBOR array of the fields in order."""
        sizes = [self.image_size, self.envelope_size]
        digests = [self.incoming, self.outgoing]
        return [self.generation, int(self.kind), *sizes, *digests, self.origin, self.progress]


class Journal:
    """The journal's two sectors in flash. Make a new one after every reset."""

    def __init__(self, flash: FlashMemory, layout: Layout) -> None:
        self._flash = flash
        self._layout = layout
        sectors = layout.slot_size // layout.sector_size
        self._closing = STEPS * sectors
        if _BLOCK + (self._closing + 1) * layout.write_size > layout.sector_size:
            raise LocalProtocolError("device.state", "a journal sector is too small for this slot size")
        self._marks: dict[int, set[int]] = {}  # by generation, as read once after the reset
        self._settled = 0  # the generation that was closed once more since then

    def latest(self) -> SwapEntry | None:
        """The newest whole entry, or None on a flash that never swapped."""
        entries = [entry for entry, _ in map(self._entry, self._layout.journal) if entry is not None]
        return max(entries, key=lambda entry: entry.generation, default=None)

    def resume(self) -> SwapEntry | None:
        """What is left of the newest entry, as an entry of its own; None where no swap waits to be finished and
        judged."""
        found = [(entry, block) for entry, block in map(self._entry, self._layout.journal) if entry is not None]
        if not found:
            return None
        entry, block = max(found, key=lambda one: one[0].generation)
        if not self.is_open(entry):
            return None
        # Firm first: the new entry goes where the one before it may still be, and that is then all there is.
        self._program_block(self._address(entry), block)
        done = max(self._progress(entry), default=-1) + 1
        return self._write(replace(entry, generation=entry.generation + 1, progress=max(done, entry.progress)))

    def is_open(self, entry: SwapEntry) -> bool:
        """Whether the entry still waits for its swap to be finished and judged."""
        return self._closing not in self._progress(entry)

    def settle(self) -> None:
        """Closes the newest entry once more. After a boot every entry is closed, and from here on things happen that
        must not meet one that looks open again."""
        entry = self.latest()
        if entry is not None and entry.generation != self._settled:
            self.close(entry)
            self._settled = entry.generation

    def begin(
        self, kind: SwapKind, image_size: int, envelope_size: int, incoming: bytes, outgoing: bytes, origin: int = 0
    ) -> SwapEntry:
        """Writes a new entry over the older sector; it counts from the moment its CRC stands."""
        before = self.latest()
        generation = before.generation + 1 if before else 1
        return self._write(SwapEntry(generation, kind, image_size, envelope_size, incoming, outgoing, origin))

    def _write(self, entry: SwapEntry) -> SwapEntry:
        address = self._address(entry)
        self._flash.erase(address)
        self._program_block(address, encode_block(MAGIC, entry.to_list(), self._layout.write_size, _BLOCK))
        self._marks[entry.generation] = set()
        return entry

    def done(self, entry: SwapEntry, index: int, step: int) -> bool:
        """Whether a step (0 to 2) of the sector that is number `index` in the order of the swap is done."""
        number = STEPS * index + step
        return number < entry.progress or number in self._progress(entry)

    def mark(self, entry: SwapEntry, index: int, step: int) -> None:
        """Notes a step as done; call it after the step's own writes are durable."""
        self._set(entry, STEPS * index + step)

    def close(self, entry: SwapEntry) -> None:
        """Closes the entry: the swap is finished and its outcome judged."""
        self._set(entry, self._closing)

    def _address(self, entry: SwapEntry) -> int:
        return self._layout.journal[entry.generation % len(self._layout.journal)]

    def _progress(self, entry: SwapEntry) -> set[int]:
        """The marks of an entry, read at the first look."""
        if entry.generation not in self._marks:
            unit, count = self._layout.write_size, self._closing + 1
            data = self._flash.read(self._address(entry) + _BLOCK, count * unit)
            self._marks[entry.generation] = {
                number for number in range(count) if not any(data[number * unit : (number + 1) * unit])
            }
        return self._marks[entry.generation]

    def _set(self, entry: SwapEntry, number: int) -> None:
        self._flash.sync()
        self._program_mark(entry, number)
        self._progress(entry).add(number)

    def _program_mark(self, entry: SwapEntry, number: int) -> None:
        unit = self._layout.write_size
        self._flash.program(self._address(entry) + _BLOCK + number * unit, bytes(unit))
        self._flash.sync()

    def _program_block(self, address: int, block: bytes) -> None:
        page = self._layout.page_size
        for at in range(0, len(block), page):
            if block.count(ERASED, at, at + page) != len(block[at : at + page]):
                self._flash.program(address + at, block[at : at + page])
        self._flash.sync()

    def _entry(self, address: int) -> tuple[SwapEntry | None, bytes]:
        """The entry of a sector, and the block it was read from."""
        data = self._flash.read(address, _BLOCK)
        value = decode_block(MAGIC, data)
        if value is None:
            return None, data
        try:
            entry = self._read(value)
        except Refused:
            return None, data
        # An entry that stands in the wrong sector was copied there; its marks would be someone else's.
        return entry if self._address(entry) == address else None, data

    def _read(self, value: object) -> SwapEntry:
        parts = fields.items(value, "journal", limit=8)
        if len(parts) == 6:  # as the first release wrote them
            parts = [*parts, 0, 0]
        parts = fields.items(parts, "journal", count=8)
        return SwapEntry(
            fields.uint(parts[0], "journal"),
            SwapKind(max(fields.uint(parts[1], "journal", max(SwapKind)), SwapKind.INSTALL)),
            fields.uint(parts[2], "journal", self._layout.image_capacity),
            fields.uint(parts[3], "journal", self._layout.envelope_size),
            fields.blob(parts[4], "journal", limit=64),
            fields.blob(parts[5], "journal", limit=64),
            fields.uint(parts[6], "journal", self._closing),
            fields.uint(parts[7], "journal", self._closing),
        )

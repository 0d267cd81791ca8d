"""The swap journal: what is being swapped, and how far it came.

Two sectors take turns, so starting an entry never erases the one before; the whole entry with the higher
generation counts. An entry is a block (magic, CBOR, CRC) followed by marks: three for each sector that is moved,
then one that says the swap was judged and closed. A mark is one write unit, set when all bits are cleared;
every write here can be repeated after a power cut and gives the same flash.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from devguard.device import fields
from devguard.device.flash import FlashMemory
from devguard.device.header import decode_block, encode_block
from devguard.device.layout import Layout
from devguard.errors import LocalProtocolError, Refused

MAGIC: Final = b"DGSWAP\x00\x01"
STEPS: Final = 3
_BLOCK: Final = 256


class SwapKind(enum.IntEnum):
    """Why a swap runs."""

    INSTALL = 1
    REVERT = 2
    FALLBACK = 3


@dataclass(frozen=True, slots=True)
class SwapEntry:
    """One journal entry. `incoming` is the digest of the image that shall stand in the primary slot when the swap is
    done, `outgoing` of the one that leaves it (empty: no image). Sizes in bytes decide which sectors move."""

    generation: int
    kind: SwapKind
    image_size: int
    envelope_size: int
    incoming: bytes
    outgoing: bytes


class Journal:
    """The journal's two sectors in flash."""

    def __init__(self, flash: FlashMemory, layout: Layout) -> None:
        self._flash = flash
        self._layout = layout
        sectors = layout.slot_size // layout.sector_size
        if _BLOCK + (STEPS * sectors + 1) * layout.write_size > layout.sector_size:
            raise LocalProtocolError("device.state", "a journal sector is too small for this slot size")

    def latest(self) -> SwapEntry | None:
        """The newest whole entry, or None on a flash that never swapped."""
        entries = [entry for entry in (self._entry(at) for at in self._layout.journal) if entry is not None]
        return max(entries, key=lambda entry: entry.generation, default=None)

    def is_open(self, entry: SwapEntry) -> bool:
        """Whether the entry still waits for its swap to be finished and judged."""
        return not self._marked(entry, self._closing())

    def begin(self, kind: SwapKind, image_size: int, envelope_size: int, incoming: bytes, outgoing: bytes) -> SwapEntry:
        """Writes a new entry over the older sector; it counts from the moment its CRC stands."""
        before = self.latest()
        generation = before.generation + 1 if before else 1
        entry = SwapEntry(generation, kind, image_size, envelope_size, incoming, outgoing)
        address = self._address(entry)
        self._flash.erase(address)
        value = [generation, int(kind), image_size, envelope_size, incoming, outgoing]
        block = encode_block(MAGIC, value, self._layout.write_size, _BLOCK)
        page = self._layout.page_size
        for at in range(0, len(block), page):
            self._flash.program(address + at, block[at : at + page])
        self._flash.sync()
        return entry

    def done(self, entry: SwapEntry, index: int, step: int) -> bool:
        """Whether a step (0 to 2) of the sector number `index` is done."""
        return self._marked(entry, STEPS * index + step)

    def mark(self, entry: SwapEntry, index: int, step: int) -> None:
        """Notes a step as done; call it after the step's own writes are durable."""
        self._set(entry, STEPS * index + step)

    def close(self, entry: SwapEntry) -> None:
        """Closes the entry: the swap is finished and its outcome judged."""
        self._set(entry, self._closing())

    def _closing(self) -> int:
        return STEPS * (self._layout.slot_size // self._layout.sector_size)

    def _address(self, entry: SwapEntry) -> int:
        return self._layout.journal[entry.generation % len(self._layout.journal)]

    def _marked(self, entry: SwapEntry, number: int) -> bool:
        unit = self._layout.write_size
        return not any(self._flash.read(self._address(entry) + _BLOCK + number * unit, unit))

    def _set(self, entry: SwapEntry, number: int) -> None:
        unit = self._layout.write_size
        self._flash.sync()
        self._flash.program(self._address(entry) + _BLOCK + number * unit, bytes(unit))
        self._flash.sync()

    def _entry(self, address: int) -> SwapEntry | None:
        value = decode_block(MAGIC, self._flash.read(address, _BLOCK))
        if value is None:
            return None
        try:
            parts = fields.items(value, "journal", count=6)
            kind = fields.uint(parts[1], "journal", max(SwapKind))
            entry = SwapEntry(
                fields.uint(parts[0], "journal"),
                SwapKind(max(kind, SwapKind.INSTALL)),
                fields.uint(parts[2], "journal", self._layout.image_capacity),
                fields.uint(parts[3], "journal", self._layout.envelope_size),
                fields.blob(parts[4], "journal", limit=64),
                fields.blob(parts[5], "journal", limit=64),
            )
        except Refused:
            return None
        # An entry that stands in the wrong sector was copied there; its marks would be someone else's.
        return entry if self._address(entry) == address else None

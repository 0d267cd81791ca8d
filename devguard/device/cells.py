"""What the cells of a flash chip suffer: wear, disturbed reads, stuck bits, words left half way by a power cut.

`FlashMemory` asks here what a read shows and tells here what was erased, programmed or torn. Everything follows from a
seed. A chip outlives resets, and so does this: whoever keeps flash bytes keeps `wear` and `weak` beside them. Stuck
bits and disturbed reads are faults of one run, save for sectors that are worn out, which follow from their wear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence


class Cells:
    """The cells of one chip of `sectors` sectors. `erase_cycles`: how often a sector can be erased before a cell of it
    fails (None: for ever).

    `stuck`: address -> (mask, value) of bits that neither erase nor program moves. `weak`: sector -> mask, as long as
    the sector, of bits that read differently each time until they are erased or programmed anew. `disturb_after`: a
    sector read more often than that since its last erase shows one wrong bit.
    """

    def __init__(
        self,
        sectors: int,
        sector_size: int,
        *,
        erase_cycles: int | None = None,
        seed: str = "cells",
        wear: Sequence[int] = (),
    ) -> None:
        self.sector_size = sector_size
        self.erase_cycles = erase_cycles
        self.seed = seed
        self.wear = list(wear) or [0] * sectors
        self.stuck: dict[int, tuple[int, int]] = {}
        self.weak: dict[int, bytes] = {}
        self.disturb_after: int | None = None
        self._reads = [0] * sectors
        self._looks = 0
        for sector in range(sectors if erase_cycles is not None else 0):
            self._wear_out(sector)

    @property
    def sound(self) -> bool:
        """Whether every read shows what was written."""
        return not (self.stuck or self.weak) and self.disturb_after is None

    def age(self, cycles: int) -> None:
        """Make every sector at least `cycles` erase cycles old."""
        for sector, count in enumerate(self.wear):
            self.wear[sector] = max(count, cycles)
            self._wear_out(sector)
            self._worn(sector)

    def stick(self, address: int, bit: int, value: int) -> None:
        """From now on the bit (0 to 7) of the byte at `address` reads as `value`, whatever is done to it."""
        mask, values = self.stuck.get(address, (0, 0))
        self.stuck[address] = (mask | 1 << bit, values & ~(1 << bit) | value << bit)

    def seen(self, offset: int, data: bytes) -> bytes:
        """What a read of `data` at `offset` shows; it counts as a read of every sector it touches."""
        shown = bytearray(data)
        for sector, start, end in self._pieces(offset, len(data)):
            base = sector * self.sector_size
            mask = self.weak[sector][start - base : end - base] if sector in self.weak else b""
            if _some(mask):
                shown[start - offset : end - offset] = _flicker(
                    shown[start - offset : end - offset], mask, self._noise(len(mask))
                )
            self._reads[sector] += 1
            if self.disturb_after is not None and self._reads[sector] > self.disturb_after:
                place, bit = self._chosen(sector, f"disturbed/{self.wear[sector]}")
                if start <= place < end:
                    shown[place - offset] ^= 1 << bit
        for address, (moved, value) in self.stuck.items():
            if offset <= address < offset + len(data):
                shown[address - offset] = shown[address - offset] & ~moved | value & moved
        return bytes(shown)

    def erased(self, sector: int) -> None:
        """A sector was erased, whole or not: one cycle more."""
        self.wear[sector] += 1
        self._reads[sector] = 0
        if self.weak.pop(sector, None) is not None:
            self._weakened()
        self._wear_out(sector)
        self._worn(sector)

    def programmed(self, offset: int, data: bytes) -> None:
        """Bits that were programmed to 0 are firm again; those left at 1 stay as they were."""
        sector, at = offset // self.sector_size, offset % self.sector_size
        mask = self.weak.get(sector, b"")
        weak = mask[at : at + len(data)]
        if _some(weak):
            left = int.from_bytes(weak, "big") & int.from_bytes(data, "big")
            self._set_weak(sector, mask[:at] + left.to_bytes(len(data), "big") + mask[at + len(data) :])

    def torn(self, offset: int, changing: bytes) -> None:
        """An operation was cut while the bits of `changing` were on their way: they are neither 0 nor 1."""
        sector, size = offset // self.sector_size, self.sector_size
        at = offset % size
        before = int.from_bytes(self.weak.get(sector, bytes(size)), "big")
        added = int.from_bytes(bytes(at) + changing + bytes(size - at - len(changing)), "big")
        self._set_weak(sector, (before | added).to_bytes(size, "big"))

    def _set_weak(self, sector: int, mask: bytes) -> None:
        if _some(mask):
            self.weak[sector] = mask
        else:
            self.weak.pop(sector, None)
        self._weakened()

    def _worn(self, sector: int) -> None:
        """The wear of a sector changed: for those who keep it."""

    def _weakened(self) -> None:
        """The weak bits changed: for those who keep them."""

    def _wear_out(self, sector: int) -> None:
        """One cell of a sector beyond its cycles stays programmed for ever."""
        if self.erase_cycles is not None and self.wear[sector] > self.erase_cycles:
            self.stick(*self._chosen(sector, "worn out"), 0)

    def _chosen(self, sector: int, what: str) -> tuple[int, int]:
        """Address and bit of the cell that a fault of this kind hits."""
        digest = hashlib.sha256(f"{self.seed}/{what}/{sector}".encode()).digest()
        return sector * self.sector_size + int.from_bytes(digest[:8], "big") % self.sector_size, digest[8] % 8

    def _noise(self, length: int) -> bytes:
        """How weak bits turn out at one look: all one way, all the other, or each as it likes."""
        self._looks += 1
        state = hashlib.shake_128(f"{self.seed}/noise/{self._looks}".encode())
        way = state.digest(1)[0] % 3
        return state.digest(length) if way == 2 else (b"\xff" if way else b"\x00") * length

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(sector, first address, address after the last) of each sector that a range touches."""
        end = offset + length
        for sector in range(offset // self.sector_size, -(-end // self.sector_size)):
            yield sector, max(offset, sector * self.sector_size), min(end, (sector + 1) * self.sector_size)


def _some(mask: bytes) -> bool:
    """Whether any bit is set."""
    return mask.count(0) != len(mask)


def _flicker(data: bytes | bytearray, mask: bytes, noise: bytes) -> bytes:
    value = int.from_bytes(data, "big") ^ (int.from_bytes(mask, "big") & int.from_bytes(noise, "big"))
    return value.to_bytes(len(data), "big")

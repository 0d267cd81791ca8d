"""Flash whose state is a value, for benches that cut the power again and again.

`Flash` is a tuple of sectors that states share; `TrackedBackend` lets a device work on it, copies a sector only when
it is written, and notes which sectors the device looked at before it had overwritten them whole. Two runs that find
the same bytes there are the same run: that is what lets `power_sweep` judge every cut without running each.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any, Final

from devguard.device.flash import ERASED, FlashGeometry, FlashMemory
from devguard.errors import Refused

_NONE: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Flash:
    """All sectors, and of those that a cut left half way the mask of weak bits (see `device.cells`); `seed`: how these
    will turn out."""

    sectors: tuple[bytes, ...]
    weak: tuple[tuple[int, bytes], ...] = ()
    seed: str = ""

    def value(self, sector: int) -> tuple[bytes, tuple[bytes, str] | None]:
        """What a device can find out about one sector."""
        mask = next((mask for number, mask in self.weak if number == sector), None)
        return self.sectors[sector], None if mask is None else (mask, self.seed)


@dataclass(slots=True)
class Needs:
    """What a run depends on: sectors whose every byte may have told (`read`), and sectors of which it learnt only that
    they are not blank (`stands`)."""

    read: set[int] = field(default_factory=set)
    stands: set[int] = field(default_factory=set)

    def add(self, more: Needs, owned: Set[int] = frozenset()) -> None:
        """And what a run depends on that came after one which has overwritten `owned`."""
        self.read |= more.read - owned
        self.stands |= more.stands - owned


class TrackedBackend:
    """A `FlashBackend` over a `Flash`, which stays as it is. `needs`: the sectors that were looked at before they were
    overwritten whole; `owned`: those that were overwritten whole. `equal`: sectors that other runs have written."""

    def __init__(self, flash: Flash, sector_size: int, equal: dict[bytes, bytes]) -> None:
        self.needs = Needs()
        self.owned: set[int] = set()
        self._sectors = list(flash.sectors)
        self._sector_size = sector_size
        self._equal = equal
        self._hot = _NONE
        self._bytes = bytearray()

    @property
    def size(self) -> int:
        """Bytes of flash."""
        return len(self._sectors) * self._sector_size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`."""
        sector, at = divmod(offset, self._sector_size)
        if at + length <= self._sector_size:
            return self._read(sector, at, length)
        parts, end = [], offset + length
        while offset < end:
            sector, at = divmod(offset, self._sector_size)
            take = min(self._sector_size - at, end - offset)
            parts.append(self._read(sector, at, take))
            offset += take
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Puts `data` at `offset`; it lies within one sector."""
        sector, at = divmod(offset, self._sector_size)
        if len(data) == self._sector_size:
            if self._hot == sector:
                self._hot = _NONE
            self._sectors[sector] = data
            self.owned.add(sector)
            return
        self._look(sector)
        self._warm(sector)
        self._bytes[at : at + len(data)] = data

    def program(self, offset: int, data: bytes) -> bool:
        """Clears bits within one sector; whether none of them would have to be set for it."""
        sector, at = divmod(offset, self._sector_size)
        self._look(sector)
        self._warm(sector)
        old = self._bytes[at : at + len(data)]
        if old.count(ERASED) != len(old) and int.from_bytes(data, "big") & ~int.from_bytes(old, "big"):
            return False
        self._bytes[at : at + len(data)] = data
        return True

    def is_blank(self, sector: int) -> bool:
        """Whether one sector is erased; of one that is not, whoever asks learns nothing else."""
        blank = self.now(sector).count(ERASED) == self._sector_size
        if sector not in self.owned:
            (self.needs.read if blank else self.needs.stands).add(sector)
        return blank

    def sync(self) -> None:
        """Every write is durable at once."""
        return

    def sectors(self) -> tuple[bytes, ...]:
        """The sectors as they are now."""
        self._cool()
        return tuple(self._sectors)

    def now(self, sector: int) -> bytes:
        """One sector as it is, for whoever asks from outside the run."""
        if sector == self._hot:
            self._cool()
        return self._sectors[sector]

    def _read(self, sector: int, at: int, length: int) -> bytes:
        self._look(sector)
        data = self._bytes if sector == self._hot else self._sectors[sector]
        return bytes(data[at : at + length])

    def _look(self, sector: int) -> None:
        if sector not in self.owned:
            self.needs.read.add(sector)

    def _warm(self, sector: int) -> None:
        if self._hot != sector:
            self._cool()
            self._hot, self._bytes = sector, bytearray(self._sectors[sector])

    def _cool(self) -> None:
        if self._hot != _NONE:
            data = bytes(self._bytes)
            # Equal sectors are one object: then nobody has to compare them byte by byte.
            self._sectors[self._hot] = self._equal.setdefault(data, data)
            self._hot = _NONE


class TrackedFlash(FlashMemory):
    """Flash over a `TrackedBackend`. While no watcher stands beside it and every cell reads as it was written, a page
    is programmed without being read before and after: it could not come out otherwise. Its wear nobody asks for."""

    def __init__(self, geometry: FlashGeometry, backend: TrackedBackend, *more: Any) -> None:
        super().__init__(geometry, backend, *more)
        self._tracked = backend

    def is_blank(self, offset: int, length: int) -> bool:
        """See `FlashMemory.is_blank`."""
        size = self.geometry.sector_size
        if offset % size or length % size or not self.cells.sound:
            return super().is_blank(offset, length)
        self._check(offset, length)
        return all(self._tracked.is_blank(sector) for sector in range(offset // size, (offset + length) // size))

    def program(self, offset: int, data: bytes) -> None:
        """See `FlashMemory.program`."""
        if self.fault is not None or not self.cells.sound or not self.fits_a_page(offset, data):
            super().program(offset, data)
        elif not self._tracked.program(offset, data):
            raise Refused("device.state", f"program at {offset:#x} would set a bit that is cleared")

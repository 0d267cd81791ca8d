"""NOR flash that behaves like flash: erase sets 0xff, program only clears bits, cells wear, stick and flicker.

A `FlashBackend` holds the bytes, `Cells` what has become of the cells, `FlashMemory` the rules: both operations read
back what they did. A `Fault` hook sees every erase and every program before it happens and may cut the power
there, before, after or in the middle of the operation, so a bench can ask the same question at each one. Reads are
not shown to the hook. It is no driver for a real chip and knows nothing of slots.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from devguard.device.cells import Cells
from devguard.errors import LocalProtocolError, Refused

ERASED = 0xFF


class PowerCut(Exception):
    """The power went. Not a `DevguardError`: nothing on the device may catch it and carry on."""


class Operation(enum.StrEnum):
    """What changes flash."""

    ERASE = "erase"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True)
class Tear:
    """How far a torn operation came: `done` bytes whole, then one write unit where only the bits in `mask` moved.

    `weak`: the bits that were on their way, of that unit or of the rest of an erased sector, are neither 0 nor 1 now
    and read differently each time.
    """

    done: int
    mask: int = 0
    weak: bool = False


Fault = Callable[[Operation, int, int], Tear | None]
"""Called with (operation, address, length) before it happens; may raise `PowerCut` or return a `Tear`."""


class FlashBackend(Protocol):
    """Where the bytes live. Offsets are in range; `FlashMemory` has checked them."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def sync(self) -> None: ...


class MemoryBackend:
    """Flash bytes in memory, erased at first."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(b"\xff" * size)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class FlashGeometry:
    """Sizes in bytes: the whole flash, one erase sector, one program page, the smallest write unit. `erase_cycles`:
    how often a sector can be erased (None: for ever)."""

    size: int
    sector_size: int
    page_size: int
    write_size: int
    erase_cycles: int | None = None

    def __post_init__(self) -> None:
        chain = (self.write_size, self.page_size, self.sector_size, self.size)
        if min(chain) < 1 or any(large % small for small, large in itertools.pairwise(chain)):
            raise LocalProtocolError("device.state", f"sizes {chain} do not divide one another")


class FlashMemory:
    """The rules of NOR flash over a backend.

    `erase` and `program` raise `Refused("device.slot")` where the cells do not hold what was asked for,
    `Refused("device.state")` for what no flash can do, `LocalProtocolError` for an address outside it, and `PowerCut`
    when the fault hook cuts; after a cut every operation raises `PowerCut`.
    """

    def __init__(
        self, geometry: FlashGeometry, backend: FlashBackend, fault: Fault | None = None, cells: Cells | None = None
    ) -> None:
        if backend.size != geometry.size:
            raise Refused("device.state", f"flash holds {backend.size} bytes, its model {geometry.size}")
        self.geometry = geometry
        self.cells = cells or new_cells(geometry)
        self.fault = fault
        self._backend = backend
        self._off = False

    @property
    def wear(self) -> list[int]:
        """Erase cycles of each sector."""
        return self.cells.wear

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`."""
        self._check(offset, length)
        data = self._backend.read(offset, length)
        return data if self.cells.sound else self.cells.seen(offset, data)

    def is_blank(self, offset: int, length: int) -> bool:
        """Whether every byte of the range is erased; reads sector by sector."""
        step = self.geometry.sector_size
        return all(
            self.read(at, min(step, offset + length - at)).count(ERASED) == min(step, offset + length - at)
            for at in range(offset, offset + length, step)
        )

    def erase(self, offset: int) -> None:
        """Erases the sector that starts at `offset` and counts one cycle of wear."""
        size = self.geometry.sector_size
        self._check(offset, size)
        if offset % size:
            raise Refused("device.state", f"erase at {offset:#x}, which starts no sector")
        tear = self._announce(Operation.ERASE, offset, size)
        if tear is not None:
            old = self._backend.read(offset, size)
            self.cells.erased(offset // size)
            self._tear(offset, old, b"\xff" * size, tear, size)
        self.cells.erased(offset // size)
        self._backend.write(offset, b"\xff" * size)
        if self.read(offset, size).count(ERASED) != size:
            raise Refused("device.slot", f"the flash sector at {offset:#x} does not erase any more")

    def program(self, offset: int, data: bytes) -> None:
        """Clears bits so that the range reads as `data`: whole write units, within one page, no bit set."""
        unit = self.geometry.write_size
        if not self.fits_a_page(offset, data):
            raise Refused("device.state", f"program of {len(data)} bytes at {offset:#x} breaks the page rules")
        old = self.read(offset, len(data))
        if int.from_bytes(data, "big") & ~int.from_bytes(old, "big"):
            raise Refused("device.state", f"program at {offset:#x} would set a bit that is cleared")
        tear = self._announce(Operation.PROGRAM, offset, len(data))
        if tear is not None:
            self._tear(offset, old, data, tear, unit)
        self._backend.write(offset, data)
        self.cells.programmed(offset, data)
        if self.read(offset, len(data)) != data:
            raise Refused("device.slot", f"the flash at {offset:#x} does not take what is programmed")

    def fits_a_page(self, offset: int, data: bytes) -> bool:
        """Whether this is something to program: whole write units, within one page."""
        self._check(offset, len(data))
        unit, page = self.geometry.write_size, self.geometry.page_size
        return bool(data) and not (offset % unit or len(data) % unit or offset % page + len(data) > page)

    def sync(self) -> None:
        """Makes all earlier operations durable in the backend."""
        if self._off:
            raise PowerCut("the power is off")
        self._backend.sync()

    def _announce(self, operation: Operation, offset: int, length: int) -> Tear | None:
        if self._off:
            raise PowerCut("the power is off")
        if self.fault is None:
            return None
        try:
            return self.fault(operation, offset, length)
        except PowerCut:
            self._off = True
            raise

    def _tear(self, offset: int, old: bytes, new: bytes, tear: Tear, reach: int) -> NoReturn:
        """Does the part that was done; `reach` bytes after it were on their way."""
        done = min(tear.done, len(new))
        end = min(done + self.geometry.write_size, len(new))
        unit = zip(old[done:end], new[done:end], strict=True)
        mixed = bytes((before & ~tear.mask | after & tear.mask) & 0xFF for before, after in unit)
        self._backend.write(offset, new[:done] + mixed + old[end:])
        self.cells.programmed(offset, new[:done])
        if tear.weak:
            end = min(done + reach, len(new))
            moving = int.from_bytes(old[done:end], "big") ^ int.from_bytes(new[done:end], "big")
            self.cells.torn(offset + done, moving.to_bytes(end - done, "big"))
        self._off = True
        raise PowerCut(f"power cut inside an operation at {offset:#x}")

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.geometry.size:
            raise LocalProtocolError("device.state", f"{length} bytes at {offset:#x} leave the flash")


def new_cells(geometry: FlashGeometry) -> Cells:
    """The cells of a chip fresh from the factory."""
    return Cells(geometry.size // geometry.sector_size, geometry.sector_size, erase_cycles=geometry.erase_cycles)

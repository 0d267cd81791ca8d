"""What a power cut inside one flash operation leaves behind, made by the flash itself."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Final

from devguard.bench.power_flash import Flash
from devguard.bench.power_world import State
from devguard.device.cells import Cells
from devguard.device.flash import FlashGeometry, FlashMemory, MemoryBackend, Operation, PowerCut, Tear
from devguard.device.layout import Layout

HOWS: Final = ("half", "late", "weak", "weaker", "begun", "after")
"""How an operation ends: half done; all but a word; in the middle, with undecided bits that turn out one way and
another; with such bits in its first word and nothing more; done."""
_OF_A_WORD: Final = tuple(how for how in HOWS if how not in ("late", "begun"))
_OF_A_SECTOR: Final = tuple(how for how in HOWS if how != "begun")


def hows_of(layout: Layout, operation: Operation, size: int) -> tuple[str, ...]:
    """In how many ways an operation can end: of one word, or of a sector whose cells move together, some are the
    same."""
    if operation is Operation.ERASE:
        return _OF_A_SECTOR
    return _OF_A_WORD if size == layout.write_size else HOWS


def torn(layout: Layout, state: State, operation: Operation, address: int, data: bytes, how: str) -> State:
    """The state after a cut in one flash operation, made by the flash itself: by a chip of the one sector it is in."""
    sector, at = divmod(address, layout.sector_size)
    tear, unit = tear_of(layout, operation, len(data), how), layout.write_size
    weak = dict(state.flash.weak)
    backend, cells = MemoryBackend(layout.sector_size), Cells(1, layout.sector_size, seed=how)
    backend.data[:] = state.flash.sectors[sector]
    cells.weak = {0: weak.pop(sector)} if sector in weak else {}
    geometry = FlashGeometry(layout.sector_size, layout.sector_size, layout.page_size, unit)
    chip = FlashMemory(geometry, backend, lambda *_: tear, cells)
    with contextlib.suppress(PowerCut):
        if operation is Operation.ERASE:
            chip.erase(0)
        else:
            chip.program(at, data)
    if 0 in cells.weak:
        weak[sector] = cells.weak[0]
    before = state.flash.sectors
    sectors = (*before[:sector], bytes(backend.data), *before[sector + 1 :])
    return replace(state, flash=Flash(sectors, tuple(sorted(weak.items())), how))


def tear_of(layout: Layout, operation: Operation, size: int, how: str) -> Tear:
    """How far an operation came; `size` of the data that was to be programmed."""
    length = layout.sector_size if operation is Operation.ERASE else size
    unit = layout.write_size
    done = {"half": length // 2 // unit * unit, "late": length - unit, "after": length}
    # All cells of a sector are erased together; a program gets as far as one word of its page.
    weak_at = 0 if operation is Operation.ERASE or how == "begun" else length // 3 // unit * unit
    masks = {"half": 0x5A, "late": 0x3C}
    return Tear(done.get(how, weak_at), masks.get(how, 0), weak=how in ("weak", "weaker", "begun"))

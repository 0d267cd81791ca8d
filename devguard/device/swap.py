"""Swaps the two slots through one scratch sector, resumable at any power cut.

For each sector in use: copy primary to scratch, secondary to primary, scratch to secondary; a journal mark after
each. A step's source is untouched until its mark stands, so a step cut short is simply done again. Sectors
that are equal in both slots are skipped; that question has the same answer until a mark stands.

Where a cell fails, an install stops, for it still can be undone: then the image that ran stands in the secondary slot
or in scratch, sector by sector, and is brought back. Every other swap brings back what ran before and goes on as well
as the flash can. Whether the result may run is for the bootloader to judge before it closes the entry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from devguard.device.flash import ERASED, FlashMemory
from devguard.device.journal import STEPS, Journal, SwapEntry, SwapKind
from devguard.device.layout import Layout
from devguard.errors import Refused

Copy = Callable[[FlashMemory, Layout, int, int], None]


def run_swap(flash: FlashMemory, layout: Layout, journal: Journal, entry: SwapEntry) -> int | None:
    """Does whatever is left of `entry`; leaves it open. None when all is done; of an install that met a failing cell,
    how many steps stand: what an undo has to take back."""
    offsets = list(layout.primary.sectors(entry.image_size, entry.envelope_size))
    if entry.kind is SwapKind.UNDO:
        _take_back(flash, layout, journal, entry, offsets)
        return None
    firm = entry.kind is SwapKind.INSTALL
    for index, offset in enumerate(offsets):
        try:
            _exchange(flash, layout, journal, entry, (index, offset), _copy if firm else _copy_what_holds)
        except Refused:
            if firm:
                return STEPS * index + sum(journal.done(entry, index, step) for step in range(STEPS))
    return None


def _take_back(flash: FlashMemory, layout: Layout, journal: Journal, entry: SwapEntry, offsets: list[int]) -> None:
    """Undoes an install: first the sector it broke off in, whose old bytes scratch holds, then those before it."""
    last, steps = divmod(entry.origin, STEPS)
    if last >= len(offsets):
        return
    if steps and not journal.done(entry, 0, 1):
        _copy_what_holds(flash, layout, layout.scratch, layout.primary.base + offsets[last])
        with contextlib.suppress(Refused):
            journal.mark(entry, 0, 1)
    for place in enumerate(reversed(offsets[:last]), start=1):
        with contextlib.suppress(Refused):
            _exchange(flash, layout, journal, entry, place, _copy_what_holds)


def _exchange(
    flash: FlashMemory, layout: Layout, journal: Journal, entry: SwapEntry, place: tuple[int, int], copy: Copy
) -> None:
    index, offset = place
    first, second = layout.primary.base + offset, layout.secondary.base + offset
    if not journal.done(entry, index, 0) and _equal(flash, layout, first, second):
        return
    ways = ((first, layout.scratch), (second, first), (layout.scratch, second))
    for step, (source, target) in enumerate(ways):
        if not journal.done(entry, index, step):
            copy(flash, layout, source, target)
            journal.mark(entry, index, step)


def _equal(flash: FlashMemory, layout: Layout, first: int, second: int) -> bool:
    return flash.read(first, layout.sector_size) == flash.read(second, layout.sector_size)


def _copy(flash: FlashMemory, layout: Layout, source: int, target: int) -> None:
    """Target sector becomes source sector; blank pages stay erased, so later marks can still be set in them."""
    data = flash.read(source, layout.sector_size)
    flash.erase(target)
    for at, page in _pages(data, layout):
        flash.program(target + at, page)


def _copy_what_holds(flash: FlashMemory, layout: Layout, source: int, target: int) -> None:
    """As `_copy`, past every cell that fails."""
    data = flash.read(source, layout.sector_size)
    with contextlib.suppress(Refused):
        flash.erase(target)
    for at, page in _pages(data, layout):
        with contextlib.suppress(Refused):
            flash.program(target + at, page)


def _pages(data: bytes, layout: Layout) -> list[tuple[int, bytes]]:
    """The pages of a sector that are not blank, with their offsets."""
    pages = ((at, data[at : at + layout.page_size]) for at in range(0, layout.sector_size, layout.page_size))
    return [(at, page) for at, page in pages if page.count(ERASED) != len(page)]

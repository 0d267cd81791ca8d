"""Swaps the two slots through one scratch sector, resumable at any power cut.

For each sector in use: copy primary to scratch, secondary to primary, scratch to secondary; a journal mark after
each. A step's source is untouched until its mark stands, so a step cut short is simply done again. Sectors
that are equal in both slots are skipped; that question has the same answer until a mark stands.
Whether the result may run is for the bootloader to judge before it closes the entry.
"""

from __future__ import annotations

from devguard.device.flash import FlashMemory
from devguard.device.journal import Journal, SwapEntry
from devguard.device.layout import Layout


def run_swap(flash: FlashMemory, layout: Layout, journal: Journal, entry: SwapEntry) -> None:
    """Does whatever is left of `entry`; leaves it open."""
    primary, secondary = layout.primary, layout.secondary
    for index, offset in enumerate(primary.sectors(entry.image_size, entry.envelope_size)):
        first, second = primary.base + offset, secondary.base + offset
        if not journal.done(entry, index, 0):
            if _equal(flash, layout, first, second):
                continue
            _copy(flash, layout, first, layout.scratch)
            journal.mark(entry, index, 0)
        if not journal.done(entry, index, 1):
            _copy(flash, layout, second, first)
            journal.mark(entry, index, 1)
        if not journal.done(entry, index, 2):
            _copy(flash, layout, layout.scratch, second)
            journal.mark(entry, index, 2)


def _equal(flash: FlashMemory, layout: Layout, first: int, second: int) -> bool:
    return flash.read(first, layout.sector_size) == flash.read(second, layout.sector_size)


def _copy(flash: FlashMemory, layout: Layout, source: int, target: int) -> None:
    """Target sector becomes source sector; blank pages stay erased, so later marks can still be set in them."""
    data = flash.read(source, layout.sector_size)
    flash.erase(target)
    for at in range(0, layout.sector_size, layout.page_size):
        page = data[at : at + layout.page_size]
        if page.count(0xFF) != len(page):
            flash.program(target + at, page)

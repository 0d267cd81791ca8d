"""Flash that a power cut may have left half way, though it reads as erased. Nothing here erases: `download` does.

A slot is written in order: the image page by page, or the encoded one at its place; then the envelope copy, the header,
the mark. Only the last page that was begun can be in doubt, and its sector reads as blank only where that page is the
first in it. An erase that was cut leaves all of its sectors in doubt. What was written since the device was switched on
was not cut off. Source: decision 0016.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from devguard.device.counters import Download
from devguard.device.layout import Layout
from devguard.device.staging import staging_offset


def in_doubt(layout: Layout, before: Download, is_blank: Callable[[int], bool]) -> set[int]:
    """Addresses of the secondary slot's sectors in which what an earlier power-on wrote or erased for the download
    `before` may have ended: to be erased however they read. `is_blank`: how a sector reads."""
    slot, sector = layout.secondary, layout.sector_size
    images = range(slot.image, slot.image + before.size, sector)
    if not before.erased:
        found = {slot.header, slot.trailer, *images, *range(slot.envelope, slot.trailer, sector)}
    else:
        found = set(images if before.dirty else _end(layout, slot.image, before.offset, before.size))
    finished = before.erased and before.offset == before.size
    if finished:  # and may have been cut off while its papers were written
        found |= {slot.header, slot.trailer, *_papers(layout, is_blank)}
    if before.staging is not None:
        start = slot.image + (staging_offset(layout, before.size, before.staging.size) or layout.image_capacity)
        whole = before.erased and before.staging.erased and not finished
        end = _end(layout, start, before.staging.offset, before.staging.size)
        found.update(end if whole else range(start, slot.envelope, sector))
    return found


def _end(layout: Layout, start: int, durable: int, size: int) -> range:
    """The sectors of what is written from `start` on in which a page may have been begun last: progress is noted once a
    sector, so none lies farther."""
    begin = start + durable
    return range(begin - begin % layout.sector_size, min(begin + layout.sector_size, start + size), layout.sector_size)


def _papers(layout: Layout, is_blank: Callable[[int], bool]) -> Iterator[int]:
    """Sectors of the envelope area before which all is written. How one of them reads itself says nothing."""
    for address in range(layout.secondary.envelope, layout.secondary.trailer, layout.sector_size):
        yield address
        if is_blank(address):
            return

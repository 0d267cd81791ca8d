"""Where an encoded image waits until all of it is there: the last sectors of the secondary slot's image area.

The image it gives is decoded into the start of the same area, so both have to fit; neither touches a sector of the
other. Nothing here erases or programs: `download` does, within its erase budget. Source: decision 0018.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from typing import Final

from devguard.device.counters import Download, Staging
from devguard.device.header import SlotHeader
from devguard.device.layout import Layout
from devguard.device.rebuild import rebuild
from devguard.device.slots import Slots
from devguard.errors import Refused
from devguard.session.verbs import Encoding

_CHUNK: Final = 16 * 1024


def staging_offset(layout: Layout, size: int, encoded_size: int) -> int | None:
    """Where in a slot's image area `encoded_size` bytes are staged beside an image of `size` bytes: in the last
    sectors, none of which the image touches. None where they do not fit."""
    sector = layout.sector_size
    start = layout.image_capacity - -(-encoded_size // sector) * sector
    return start if encoded_size > 0 and size <= start else None


class StagingArea:
    """The place of encoded images in the secondary slot."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._layout = slots.layout

    def address(self, size: int, encoded_size: int) -> int:
        """Address of the first encoded byte; `Refused("device.slot")` where they do not fit beside the image."""
        offset = staging_offset(self._layout, size, encoded_size)
        if offset is None:
            raise Refused("device.slot", f"{encoded_size} encoded bytes do not fit beside an image of {size} bytes")
        return self._layout.secondary.image + offset

    def sectors(self, encoded_size: int) -> range:
        """Addresses of the sectors they lie in."""
        sector, end = self._layout.sector_size, self._layout.secondary.image + self._layout.image_capacity
        return range(end - -(-encoded_size // sector) * sector, end, sector)

    def is_blank(self, sectors: range) -> bool:
        """Whether all of them are erased."""
        return self._slots.flash.is_blank(sectors.start, len(sectors) * self._layout.sector_size)

    def holds(self, download: Download, staging: Staging) -> bool:
        """Whether the staged bytes are those that were announced."""
        state, address = hashlib.sha256(), self.address(download.size, staging.size)
        for at in range(0, staging.size, _CHUNK):
            state.update(self._slots.flash.read(address + at, min(_CHUNK, staging.size - at)))
        return hmac.compare_digest(state.digest(), staging.digest)

    def decoded(self, download: Download, staging: Staging, running: SlotHeader | None) -> Iterator[bytes]:
        """The image they decode to; `running` is the image of the primary slot. See `rebuild`."""
        delta = running is not None and staging.encoding == Encoding.DELTA
        source = running.size if running is not None and delta else 0
        packed = self._reader(self.address(download.size, staging.size))
        return rebuild(packed, staging.size, self._reader(self._layout.primary.image), source, download.size)

    def _reader(self, base: int) -> Callable[[int, int], bytes]:
        return lambda offset, length: self._slots.flash.read(base + offset, length)

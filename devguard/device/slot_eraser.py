"""Makes the secondary slot ready to be written: erases what is in the way or in doubt, within the hour's budget.

Nothing is erased that reads as blank and was not cut off. What is spent and what is under way is durable before the
first sector goes, so that a power cut buys no erasure and forgets no doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from devguard.device.counters import Counters, CounterStore, Download, Staging, recent_erasures, seconds_to_wait
from devguard.device.doubt import in_doubt
from devguard.device.slots import Slots
from devguard.device.staging import StagingArea
from devguard.errors import Refused


class SlotEraser:
    """The erasing of one slot in one power-on. `budget`: slot erasures allowed in an hour."""

    def __init__(self, slots: Slots, area: StagingArea, store: CounterStore, budget: int) -> None:
        self._flash = slots.flash
        self._layout = slots.layout
        self._area = area
        self._store = store
        self._budget = budget
        self._firm = False  # all that stands in the slot was written since the device was switched on
        self.now = 0

    def slot(self, manifest_digest: bytes, size: int) -> Download:
        """Makes the slot ready for a download from its first byte on; `Refused("device.busy")` when the hour's erasures
        are spent."""
        counters, slot, sector = self._store.load(), self._layout.secondary, self._layout.sector_size
        before, doubtful = counters.download, self.in_doubt(counters.download)
        # The images that stood here are given up before the first sector goes.
        counters = replace(counters, erase_times=self._spend(counters), pending=None, previous=None)
        if before is not None and doubtful:
            self._store.save(replace(counters, download=replace(before, erased=False)))
            self._clear(doubtful)
        download = Download(manifest_digest, size, 0, False)
        self._store.save(replace(counters, download=download))
        # The header goes first: from then on no boot can take the slot for a whole image.
        images, papers = range(slot.image, slot.image + size, sector), range(slot.envelope, slot.trailer, sector)
        for address in (slot.header, slot.trailer, *images, *papers):
            if address not in doubtful:
                self.sector(address)
        self._flash.sync()
        self._firm = True
        download = replace(download, erased=True)
        self._store.save(replace(self._store.load(), download=download))
        return download

    def room(self, download: Download, wanted: Staging) -> Download:
        """Makes room for an encoded image beside what has come of `download`. Where that takes an erasure it counts as
        one of the slot."""
        sectors, before, doubtful = self._area.sectors(wanted.size), download.staging, set[int]()
        if before is not None:
            doubtful = self.in_doubt(download).intersection(self._area.sectors(before.size))
        if doubtful or not self._area.is_blank(sectors):
            counters = self._store.load()
            counters = replace(counters, erase_times=self._spend(counters))
            if before is not None and doubtful:
                self._store.save(replace(counters, download=replace(download, staging=replace(before, erased=False))))
                self._clear(doubtful)
            self._store.save(replace(counters, download=replace(download, staging=wanted)))
            for address in sectors:
                if address not in doubtful:
                    self.sector(address)
            self._flash.sync()
        download = replace(download, staging=replace(wanted, erased=True))
        self._store.save(replace(self._store.load(), download=download))
        return download

    def papers(self, download: Download, envelope_size: int) -> None:
        """Makes header and envelope area ready, once more where a commit may have been cut off. From the end to the
        start: what is left of a copy says how far it may have come."""
        slot, doubtful = self._layout.secondary, self.in_doubt(download)
        for address in reversed(range(slot.envelope, slot.trailer, self._layout.sector_size)):
            if address in doubtful or address < slot.envelope + envelope_size:
                self.sector(address, force=address in doubtful)
        self.sector(slot.header, force=slot.header in doubtful)

    def sector(self, address: int, *, force: bool = False) -> None:
        """Erases one sector, if it is not blank already or has to be in any case."""
        if force or not self._is_blank(address):
            self._flash.erase(address)

    def in_doubt(self, download: Download | None) -> set[int]:
        """Sectors to erase though they may look blank; see `doubt`."""
        if download is None or self._firm:
            return set()
        return in_doubt(self._layout, download, self._is_blank)

    def _clear(self, doubtful: Iterable[int]) -> None:
        for address in sorted(doubtful):
            self._flash.erase(address)
        self._flash.sync()

    def _is_blank(self, address: int) -> bool:
        return self._flash.is_blank(address, self._layout.sector_size)

    def _spend(self, counters: Counters) -> tuple[int, ...]:
        """The erase times with one more."""
        erasures = recent_erasures(counters, self.now)
        wait = seconds_to_wait(erasures, self._budget, self.now)
        if wait:
            if erasures != counters.erase_times:
                self._store.save(replace(counters, erase_times=erasures))
            raise Refused("device.busy", f"{self._budget} slot erasures in an hour are spent; wait {wait} s")
        return (*erasures, self.now)

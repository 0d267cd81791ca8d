"""Writes an update into the secondary slot: erase within the budget, write in order, resume, finish, mark.

It moves bytes and checks the digest it was told; who may push what is decided before anything here is called.
A download belongs to one manifest digest and one size; only that one continues after a lost link or a power
cut. Nothing written here runs before the bootloader has judged the slot again at the next boot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from devguard.device.counters import Counters, CounterStore, Download, Outcome, recent_erasures, seconds_to_wait
from devguard.device.header import SlotHeader
from devguard.device.layout import Mark
from devguard.device.slots import Slots
from devguard.errors import LocalProtocolError, Refused

_SAVE_EVERY: Final = 16 * 1024


class SlotWriter:
    """The secondary slot as the target of one download. `budget`: slot erasures allowed in an hour."""

    def __init__(self, slots: Slots, store: CounterStore, budget: int) -> None:
        self._slots = slots
        self._flash = slots.flash
        self._slot = slots.layout.secondary
        self._store = store
        self._budget = budget
        self._interval = max(_SAVE_EVERY, slots.layout.sector_size)
        self._active: Download | None = None
        self._programmed = 0
        self._buffer = bytearray()
        self._finished: SlotHeader | None = None

    def prepare(self, manifest_digest: bytes, size: int, now: int) -> int:
        """Makes the slot ready and gives the offset to continue from (0 after a fresh erase).

        Raises `Refused`: image.size, device.slot when it does not fit, device.busy naming the seconds to wait.
        """
        if size < 1:
            raise Refused("image.size", f"an image of {size} bytes cannot be installed")
        if size > self._slots.layout.image_capacity:
            raise Refused("device.slot", f"image of {size} bytes, the slot holds {self._slots.layout.image_capacity}")
        self.pause()
        known = self._store.load().download
        if known is None or (known.manifest_digest, known.size) != (manifest_digest, size) or not known.erased:
            known = self._erase(Download(manifest_digest, size, 0, False), now)
        self._active, self._programmed, self._finished = known, known.offset, None
        self._buffer.clear()
        return known.offset

    def write(self, offset: int, data: bytes) -> None:
        """Takes the next bytes, any number of them.

        Raises `Refused`: session.order for a gap or a repeat, image.size past the end, image.digest when a resumed
        payload is not the one that was begun.
        """
        active = self._require()
        if offset != self._programmed + len(self._buffer):
            raise Refused("session.order", f"bytes at {offset}, expected at {self._programmed + len(self._buffer)}")
        if offset + len(data) > active.size:
            raise Refused("image.size", f"payload runs past its {active.size} bytes")
        self._buffer += data
        page = self._slots.layout.page_size
        whole = len(self._buffer) // page * page
        ends = self._programmed + len(self._buffer) == active.size
        view = bytes(self._buffer)
        for at in range(0, len(view) if ends else whole, page):
            self._program(view[at : at + page])
        del self._buffer[: len(view) if ends else whole]
        if ends or self._programmed - active.offset >= self._interval:
            self._save_progress()

    def pause(self) -> None:
        """Makes whole pages durable now, so that a lost link costs at most one page."""
        if self._active is not None and self._programmed > self._active.offset:
            self._save_progress()

    def durable_offset(self) -> int:
        """Bytes of the current download that survive a power cut; 0 without one."""
        download = self._store.load().download
        return download.offset if download and download.erased else 0

    def finish(self, header: SlotHeader, envelope: bytes) -> None:
        """Reads the slot back, compares its digest, then writes the envelope copy and, last, the header.

        Raises `Refused`: image.size when bytes are missing, device.slot for an envelope that does not fit,
        image.digest when the slot is not the judged image; the slot is then marked bad.
        """
        active = self._require()
        if (header.size, header.manifest_digest) != (active.size, active.manifest_digest):
            raise LocalProtocolError("session.order", "the header is not of the release this download was begun for")
        if header.envelope_size != len(envelope) or SlotHeader.of_envelope(envelope) != header.envelope_digest:
            raise LocalProtocolError("session.order", "the header is not of this envelope")
        if not self._slots.fits(header):
            raise Refused("device.slot", f"envelope of {len(envelope)} bytes does not fit the slot")
        if self._programmed != active.size:
            raise Refused("image.size", f"{self._programmed} of {active.size} bytes have arrived")
        if self._stands(header):
            return
        if not self._slots.holds(self._slot, header):
            self._reject("the slot does not hold the image that was signed")
        for address in (self._slot.header, *self._envelope_sectors(len(envelope))):
            self._erase_sector(address)
        self._slots.write_envelope(self._slot, envelope)
        self._slots.write_header(self._slot, header)
        if not self._slots.whole(self._slot, header):
            self._reject("the slot does not read back as it was written")
        self._finished = header

    def _stands(self, header: SlotHeader) -> bool:
        """Whether this image waits in the slot already, finished and judged, be it under other signatures: then nothing
        is written again, for nobody may wear out a sector by committing the same release over and over."""
        waits = self._store.load().pending
        if waits is None or self._slots.marked(self._slot, Mark.BAD) or not self._slots.whole(self._slot, waits):
            return False
        if replace(waits, envelope_size=header.envelope_size, envelope_digest=header.envelope_digest) != header:
            return False
        self._finished = waits
        return True

    def mark_pending(self, now: int) -> None:
        """Notes the finished image as judged, then marks the slot for a trial at the next boot."""
        header = self._finished
        if header is None:
            raise Refused("session.order", "no finished image to mark for trial")
        counters = replace(self._store.load(), pending=header)
        # Counters first: a mark without its judged record would look like an image put there by someone else.
        self._store.save(counters.event(now, "update-pending", None, header.manifest_digest))
        self._slots.mark(self._slot, Mark.PENDING)
        self._active = self._finished = None

    def _require(self) -> Download:
        if self._active is None:
            raise Refused("session.order", "no download is under way")
        return self._active

    def _erase(self, download: Download, now: int) -> Download:
        counters = self._store.load()
        erasures = recent_erasures(counters, now)
        wait = seconds_to_wait(erasures, self._budget, now)
        if wait:
            if erasures != counters.erase_times:
                self._store.save(replace(counters, erase_times=erasures))
            raise Refused("device.busy", f"{self._budget} slot erasures in an hour are spent; wait {wait} s")
        # An erase that was cut may have left bits that only look erased: then every sector is erased again.
        cut = counters.download is not None and not counters.download.erased
        # Spent and durable before the first sector goes, and the images that stood here are given up with it.
        begun = replace(counters, erase_times=(*erasures, now), download=download, pending=None, previous=None)
        self._store.save(begun)
        self._active = None
        # The header goes first: from then on no boot can take the slot for a whole image.
        images = range(self._slot.image, self._slot.image + download.size, self._slots.layout.sector_size)
        envelopes = self._envelope_sectors(self._slots.layout.envelope_size)
        for address in (self._slot.header, self._slot.trailer, *images, *envelopes):
            self._erase_sector(address, force=cut)
        self._flash.sync()
        ready = replace(download, erased=True)
        self._store.save(replace(self._store.load(), download=ready))
        return ready

    def _envelope_sectors(self, size: int) -> range:
        return range(self._slot.envelope, self._slot.envelope + size, self._slots.layout.sector_size)

    def _erase_sector(self, address: int, *, force: bool = False) -> None:
        if force or not self._flash.is_blank(address, self._slots.layout.sector_size):
            self._flash.erase(address)

    def _program(self, page: bytes) -> None:
        address = self._slot.image + self._programmed
        data = page + b"\xff" * (-len(page) % self._slots.layout.write_size)
        there = self._flash.read(address, len(data))
        if there != data:
            if int.from_bytes(data, "big") & ~int.from_bytes(there, "big"):
                self._reject("the resumed payload is not the one that was begun")
            self._flash.program(address, data)
        self._programmed += len(page)

    def _save_progress(self) -> None:
        self._flash.sync()
        self._active = replace(self._require(), offset=self._programmed)
        self._store.save(replace(self._store.load(), download=self._active))

    def _reject(self, why: str) -> None:
        digest = self._require().manifest_digest
        self._slots.mark(self._slot, Mark.BAD)
        counters: Counters = self._store.load()
        outcome = Outcome(digest, "image.digest", counters.clock_floor)
        changed = replace(counters, download=None, pending=None, outcome=outcome)
        self._store.save(changed.event(counters.clock_floor, "update-refused", "image.digest", digest))
        self._active = self._finished = None
        self._buffer.clear()
        raise Refused("image.digest", why)

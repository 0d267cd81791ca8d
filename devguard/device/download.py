"""Writes an update into the secondary slot: erase within the budget, write in order, resume, finish, mark.

It moves bytes and checks the digest it was told; who may push what is decided before anything here is called.
A download belongs to one manifest digest and one size; only that one continues after a lost link or a power
cut. An image may come encoded: then its bytes are staged at the end of the slot's image area, where the image does not
reach, and decoded when all of them are there (decision 0018). Nothing written here runs before the bootloader has
judged the slot again at the next boot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

from devguard.device.counters import Counters, CounterStore, Download, Outcome, Staging
from devguard.device.header import SlotHeader
from devguard.device.layout import Mark
from devguard.device.slot_eraser import SlotEraser
from devguard.device.slots import Slots
from devguard.device.staging import StagingArea
from devguard.errors import LocalProtocolError, Refused
from devguard.session.verbs import Encoding


class SlotWriter:
    """The secondary slot as the target of one download. `budget`: slot erasures allowed in an hour."""

    def __init__(self, slots: Slots, store: CounterStore, budget: int) -> None:
        self._slots = slots
        self._flash = slots.flash
        self._slot = slots.layout.secondary
        self._store = store
        # Less than a sector by one page: the next page may be half programmed when the power goes.
        self._interval = slots.layout.sector_size - slots.layout.page_size
        self._active: Download | None = None
        self._area = StagingArea(slots)
        self._eraser = SlotEraser(slots, self._area, store, budget)
        self._staged = False  # what is written now is the encoded image
        self._unpacked = False  # it has been decoded, and nobody has judged what came out
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
        known, self._eraser.now, self._active = self._store.load().download, now, None
        if (
            known is None
            or (known.manifest_digest, known.size) != (manifest_digest, size)
            or not known.erased
            or (known.dirty and (known.staging is None or not known.staging.erased))
        ):
            known = self._eraser.slot(manifest_digest, size)
        self._active, self._programmed, self._finished = known, known.offset, None
        self._staged = self._unpacked = False
        self._buffer.clear()
        return known.offset

    def stage(self, encoding: int, size: int, digest: bytes) -> int:
        """Makes room for an encoded image after `prepare` and gives the offset to continue from.

        Raises `Refused`: device.transfer for an encoding of no known number, device.slot when it does not fit beside
        the image, device.busy when its place is not blank and the erase budget is spent, session.order when bytes of
        the image have come already.
        """
        active = self._require()
        if self._staged or self._buffer or self._programmed != active.offset or active.offset == active.size:
            raise Refused("session.order", "an encoded image is announced right after the offer, before any byte")
        if encoding not in list(Encoding):
            raise Refused("device.transfer", f"the device takes no encoding {encoding}")
        wanted = Staging(encoding, size, digest, 0, False)
        self._area.address(active.size, size)
        known = active.staging
        if known is None or not known.erased or replace(known, offset=0) != replace(wanted, erased=True):
            self._active = None
            ready = self._eraser.slot(active.manifest_digest, active.size) if active.dirty else active
            self._active = self._eraser.room(ready, wanted)
            known = replace(wanted, erased=True)
        self._staged, self._programmed = True, known.offset
        return known.offset

    def write(self, offset: int, data: bytes) -> None:
        """Takes the next bytes, any number of them.

        Raises `Refused`: session.order for a gap or a repeat, image.size past the end, image.digest when a resumed
        payload is not the one that was begun, device.busy when the slot has to be erased first and may not be.
        """
        _, size = self._target()
        if offset != self._programmed + len(self._buffer):
            raise Refused("session.order", f"bytes at {offset}, expected at {self._programmed + len(self._buffer)}")
        if offset + len(data) > size:
            raise Refused("image.size", f"payload runs past its {size} bytes")
        active = self._require()
        if active.dirty and not self._staged:
            # What an encoded image left in the image area is nobody's image: the whole one starts on blank flash.
            self._active = None
            self._active = self._eraser.slot(active.manifest_digest, active.size)
        self._buffer += data
        page = self._slots.layout.page_size
        whole = len(self._buffer) // page * page
        ends = self._programmed + len(self._buffer) == size
        view = bytes(self._buffer)
        for at in range(0, len(view) if ends else whole, page):
            self._program(view[at : at + page])
            if self._programmed - self._durable() >= self._interval:
                self._save_progress()
        del self._buffer[: len(view) if ends else whole]
        if ends and self._programmed > self._durable():
            self._save_progress()

    def pause(self) -> None:
        """Makes whole pages durable now, so that a lost link costs at most one page."""
        if self._active is not None and self._programmed > self._durable():
            self._save_progress()

    def durable_offset(self) -> int:
        """Bytes of what is sent now that survive a power cut; 0 without a download."""
        download = self._store.load().download
        if self._staged and download is not None and download.staging is not None:
            return download.staging.offset
        return download.offset if download and download.erased else 0

    def unpack(self, running: SlotHeader | None) -> None:
        """Decodes a staged image into the image area, `running` being the image of the primary slot; without one staged
        there is nothing to do. Done again after a power cut, it gives the same.

        Raises `Refused`: image.size when encoded bytes are missing, device.transfer when they are not what was
        announced or do not decode to an image of the release's size. `finish` judges what comes out.
        """
        active = self._require()
        staging = active.staging
        if not self._staged or staging is None:
            return
        if self._programmed != staging.size:
            raise Refused("image.size", f"{self._programmed} of {staging.size} encoded bytes have arrived")
        if not self._area.holds(active, staging):
            self._drop_staging("the staged bytes are not those that were announced")
        try:
            self._program_decoded(self._area.decoded(active, staging, running))
        except Refused as error:
            if error.code != "device.transfer":
                raise
            self._drop_staging(error.message)
        self._flash.sync()
        self._unpacked = True

    def finish(self, header: SlotHeader, envelope: bytes) -> None:
        """Reads the slot back, compares its digest, then writes the envelope copy and, last, the header.

        Raises `Refused`: image.size when bytes are missing, device.slot for an envelope that does not fit,
        image.digest when the slot is not the judged image; the slot is then marked bad. Where the image was decoded
        that is device.transfer: it says something of the encoded bytes, and nothing of the release.
        """
        active = self._require()
        if (header.size, header.manifest_digest) != (active.size, active.manifest_digest):
            raise LocalProtocolError("session.order", "the header is not of the release this download was begun for")
        if header.envelope_size != len(envelope) or SlotHeader.of_envelope(envelope) != header.envelope_digest:
            raise LocalProtocolError("session.order", "the header is not of this envelope")
        if not self._slots.fits(header):
            raise Refused("device.slot", f"envelope of {len(envelope)} bytes does not fit the slot")
        if self._programmed != active.size and not self._unpacked:
            raise Refused("image.size", f"{self._programmed} of {active.size} bytes have arrived")
        if self._stands(header):
            return
        if not self._slots.holds(self._slot, header):
            if self._unpacked:
                self._drop_staging("the encoded image gives another image than the one that was signed")
            self._reject("the slot does not hold the image that was signed")
        self._clear_staging()
        self._eraser.papers(active, len(envelope))
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

    def _keep(self, download: Download) -> None:
        self._active = download
        self._store.save(replace(self._store.load(), download=download))

    def _target(self) -> tuple[int, int]:
        """Address and size of what is written now: the image, or the encoded one at its place."""
        active = self._require()
        if not self._staged or active.staging is None:
            return self._slot.image, active.size
        return self._area.address(active.size, active.staging.size), active.staging.size

    def _durable(self) -> int:
        active = self._require()
        return active.staging.offset if self._staged and active.staging is not None else active.offset

    def _program_decoded(self, pieces: Iterator[bytes]) -> None:
        """Programs what is decoded, page by page; once more what stands already, from before a power cut."""
        page, buffer, at, ended = self._slots.layout.page_size, bytearray(), 0, False
        while not ended:
            piece = next(pieces, b"")
            ended = not piece
            buffer += piece
            while len(buffer) >= page or (ended and buffer):
                if not self._require().dirty:
                    self._keep(replace(self._require(), dirty=True, offset=0))
                if not self._fill(self._slot.image + at, bytes(buffer[:page])):
                    raise Refused("device.transfer", "another image was begun in the slot")
                at += len(buffer[:page])
                del buffer[:page]

    def _drop_staging(self, why: str) -> NoReturn:
        """Forgets the encoded image. If it was decoded over the image area, the slot is erased before the next byte."""
        active = self._require()
        # Its sectors may look blank where it was cut off: they are erased before anything else comes there.
        given_up = replace(active.staging, offset=0, erased=False) if active.staging is not None else None
        self._keep(replace(active, staging=given_up))
        self._active, self._staged = None, False
        self._buffer.clear()
        raise Refused("device.transfer", why)

    def _clear_staging(self) -> None:
        """The image stands and is the judged one: that is made durable, then what it was decoded from goes."""
        active = self._require()
        staging, doubtful = active.staging, self._eraser.in_doubt(active)
        if staging is None:
            return
        active = replace(active, offset=active.size, dirty=False)
        self._keep(active)
        for address in self._area.sectors(staging.size):
            self._eraser.sector(address, force=address in doubtful)
        self._flash.sync()
        self._staged = self._unpacked = False
        self._programmed = active.size
        self._keep(replace(active, staging=None))

    def _program(self, page: bytes) -> None:
        if not self._fill(self._target()[0] + self._programmed, page):
            if self._staged:
                self._drop_staging("the resumed bytes are not those that were begun")
            self._reject("the resumed payload is not the one that was begun")
        self._programmed += len(page)

    def _fill(self, address: int, page: bytes) -> bool:
        """Programs a page, one that stands there already as well: a power cut may have left it half way. False where
        the flash would have to be erased for it."""
        data = page + b"\xff" * (-len(page) % self._slots.layout.write_size)
        there = self._flash.read(address, len(data))
        if int.from_bytes(data, "big") & ~int.from_bytes(there, "big"):
            return False
        self._flash.program(address, data)
        return True

    def _save_progress(self) -> None:
        self._flash.sync()
        active = self._require()
        if self._staged and active.staging is not None:
            self._keep(replace(active, staging=replace(active.staging, offset=self._programmed)))
        else:
            self._keep(replace(active, offset=self._programmed))

    def _reject(self, why: str) -> None:
        active = self._require()
        digest = active.manifest_digest
        # Not ready any more, durably, before the mark: one that is cut off here would stand in a slot that looks blank.
        self._keep(replace(active, erased=False))
        self._slots.spoil(self._slot)
        counters: Counters = self._store.load()
        outcome = Outcome(digest, "image.digest", counters.clock_floor)
        changed = replace(counters, download=None, pending=None, outcome=outcome)
        self._store.save(changed.event(counters.clock_floor, "update-refused", "image.digest", digest))
        self._active = self._finished = None
        self._buffer.clear()
        raise Refused("image.digest", why)

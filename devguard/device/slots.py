"""Reading and marking slots: header, marks, streamed digest, envelope copy.

Nothing here decides; `bootloader` does. A header that is torn, erased or foreign reads as None.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Iterator
from typing import Final

from devguard.device.flash import FlashMemory
from devguard.device.header import MAGIC, MAX_HEADER, SlotHeader, decode_block, digest_name, encode_block
from devguard.device.layout import MAX_TRIALS, Layout, Mark, Slot
from devguard.errors import Refused

_CHUNK: Final = 1 << 16


class Slots:
    """The two slots of one flash."""

    def __init__(self, flash: FlashMemory, layout: Layout) -> None:
        self.flash = flash
        self.layout = layout

    def header(self, slot: Slot) -> SlotHeader | None:
        """The slot's header, or None where no whole one stands."""
        value = decode_block(MAGIC, self.flash.read(slot.header, min(MAX_HEADER, slot.sector_size)))
        if value is None:
            return None
        try:
            header = SlotHeader.from_list(value)
        except Refused:
            return None
        return header if self.fits(header) else None

    def fits(self, header: SlotHeader) -> bool:
        """Whether image and envelope have room in a slot."""
        return header.size <= self.layout.image_capacity and header.envelope_size <= self.layout.envelope_size

    def write_header(self, slot: Slot, header: SlotHeader) -> None:
        """Programs the header; its sector must be erased."""
        room = min(MAX_HEADER, slot.sector_size)
        self._program(slot.header, encode_block(MAGIC, header.to_list(), self.layout.write_size, room))

    def write_envelope(self, slot: Slot, envelope: bytes) -> None:
        """Programs the envelope copy; its area must be erased."""
        self._program(slot.envelope, envelope + b"\xff" * (-len(envelope) % self.layout.write_size))

    def image_digest(self, slot: Slot, size: int, algorithm: int) -> bytes:
        """The digest of `size` bytes of the slot's image, read in pieces of 64 KiB."""
        state = hashlib.new(digest_name(algorithm))
        for piece in self._pieces(slot.image, size):
            state.update(piece)
        return state.digest()

    def holds(self, slot: Slot, header: SlotHeader) -> bool:
        """Whether the slot's image bytes are those of `header`, whatever the slot's own header says.

        Of several components every one and the whole have to match.
        """
        if not self.fits(header):
            return False
        if not header.parts:
            found = self.image_digest(slot, header.size, header.digest_algorithm)
            return hmac.compare_digest(found, header.digest)
        at, good = slot.image, []
        whole = hashlib.new(digest_name(header.digest_algorithm))
        for part in header.parts:
            own = hashlib.new(digest_name(part.digest_algorithm))
            for piece in self._pieces(at, part.size):
                own.update(piece)
                whole.update(piece)
            at += part.size
            good.append(hmac.compare_digest(own.digest(), part.digest))
        return all(good) and hmac.compare_digest(whole.digest(), header.digest)

    def envelope(self, slot: Slot, header: SlotHeader) -> bytes | None:
        """The envelope copy `header` speaks of, or None where it was altered."""
        if header.envelope_size > self.layout.envelope_size:
            return None
        data = self.flash.read(slot.envelope, header.envelope_size)
        return data if hmac.compare_digest(hashlib.sha256(data).digest(), header.envelope_digest) else None

    def whole(self, slot: Slot, header: SlotHeader) -> bool:
        """Whether header, image and envelope of the slot are all those of `header`."""
        return self.header(slot) == header and self.envelope(slot, header) is not None and self.holds(slot, header)

    def marked(self, slot: Slot, mark: Mark, index: int = 0) -> bool:
        """Whether a mark is set; every bit of it must be cleared."""
        unit = self.layout.write_size
        return not any(self.flash.read(slot.trailer + (mark + index) * unit, unit))

    def mark(self, slot: Slot, mark: Mark, index: int = 0) -> None:
        """Sets a mark, durably. One that stands is set again: a power cut may have left it half way."""
        unit = self.layout.write_size
        self.flash.program(slot.trailer + (mark + index) * unit, bytes(unit))
        self.flash.sync()

    def spoil(self, slot: Slot) -> None:
        """Marks the slot's image as bad, where the flash still takes a mark: what may run is decided elsewhere."""
        with contextlib.suppress(Refused):
            self.mark(slot, Mark.BAD)

    def trials(self, slot: Slot) -> int:
        """How many trial boots the image in the slot has begun."""
        return sum(self.marked(slot, Mark.TRIAL, index) for index in range(MAX_TRIALS))

    def _pieces(self, address: int, size: int) -> Iterator[bytes]:
        for at in range(0, size, _CHUNK):
            yield self.flash.read(address + at, min(_CHUNK, size - at))

    def _program(self, address: int, data: bytes) -> None:
        page = self.layout.page_size
        for at in range(0, len(data), page):
            self.flash.program(address + at, data[at : at + page])
        self.flash.sync()

"""One image number of a device that boots with MCUboot: two slots, swap, trial, revert; no keys and no verdicts.

This is what devices that speak only MCUmgr do with an image: any whole one is swapped in for a trial and swapped back
at the next start unless somebody confirmed it. What makes an image whole is its hash alone; of an encrypted one, whose
plain bytes this model of a bootloader cannot see, the structure. Slots, journal and swap are those of every emulated
device, so a power cut at any flash operation leaves the old or the new image. Source: MCUboot design, "Image trailer",
"Swap types".
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from devguard.device.flash import FlashMemory
from devguard.device.journal import Journal, SwapEntry, SwapKind
from devguard.device.layout import Layout, Mark, Slot
from devguard.device.slots import Slots
from devguard.device.swap import run_swap
from devguard.errors import LocalProtocolError, Refused
from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot_parse import hash_signed_part, parse

_NON_BOOTABLE: Final = 0x10
_PIECE: Final = 1 << 16
_FACTORY_BODY: Final = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole image in a slot. `size`: up to the end of its TLV areas; `version`: major, minor, revision, build."""

    version: tuple[int, int, int, int]
    hash: bytes
    size: int
    bootable: bool

    @property
    def version_text(self) -> str:
        """As MCUmgr writes it: the build number only where there is one."""
        major, minor, revision, build = self.version
        return f"{major}.{minor}.{revision}" + (f".{build}" if build else "")


def factory_image(number: int) -> bytes:
    """A small MCUboot image, version 0.1.0, that stands for what the factory wrote as image `number`."""
    body = hashlib.shake_256(f"factory image {number}".encode()).digest(_FACTORY_BODY)
    fields = {
        "magic": layout.IMAGE_MAGIC,
        "load_address": 0,
        "header_size": layout.HEADER_SIZE,
        "protected_size": 0,
        "image_size": len(body),
        "flags": 0,
        "major": 0,
        "minor": 1,
        "revision": 0,
        "build": 0,
        "padding": 0,
    }
    signed = layout.LITTLE.header.build(fields) + body
    digest = hashlib.sha256(signed).digest()
    tlv = layout.LITTLE.tlv.build({"type": layout.SHA256, "length": len(digest), "value": digest})
    info = layout.LITTLE.info.build({"magic": layout.INFO_MAGIC, "total": layout.INFO_SIZE + len(tlv)})
    return bytes(signed + info + tlv)


class McubootSlots:
    """The two slots of one image number in a flash of its own. `boot` after every reset."""

    def __init__(self, flash: FlashMemory, map_: Layout) -> None:
        self._flash = flash
        self._layout = map_
        self._slots = Slots(flash, map_)
        self._journal = Journal(flash, map_)
        self._cache: dict[int, Stored | None] = {}

    @property
    def capacity(self) -> int:
        """Bytes that an image may have."""
        return self._layout.image_capacity

    @property
    def new(self) -> bool:
        """Whether nothing was ever written to slot 0."""
        return self._flash.is_blank(self._layout.primary.image, layout.HEADER_SIZE)

    @property
    def _pair(self) -> tuple[Slot, Slot]:
        return self._layout.primary, self._layout.secondary

    def image(self, slot: int) -> Stored | None:
        """The whole image in slot 0 or 1; None where none is."""
        if slot not in self._cache:
            self._cache[slot] = self._read(self._pair[slot])
        return self._cache[slot]

    def _read(self, slot: Slot) -> Stored | None:
        if self._flash.is_blank(slot.image, layout.HEADER_SIZE):
            return None
        reader = self._reader(slot)
        parsed = parse(reader)
        stated = parsed.of_type(*layout.HASH_TLVS)
        if not parsed.complete or len(stated) != 1:
            return None
        header: Any = parsed.header
        tlv = stated[0]
        encrypted = header.flags & layout.ENCRYPTED_FLAGS or parsed.of_type(*layout.ENCRYPTION_TLVS)
        if not encrypted and hash_signed_part(reader, parsed, layout.HASH_TLVS[tlv.type]) != tlv.value:
            return None
        version = (header.major, header.minor, header.revision, header.build)
        return Stored(version, tlv.value, parsed.end, not header.flags & _NON_BOOTABLE)

    def _reader(self, slot: Slot) -> BinaryIO:
        return _SlotReader(self._flash, slot)  # type: ignore[return-value]  # a RawIOBase reads like a BinaryIO

    # flags

    @property
    def pending(self) -> bool:
        """Whether the image in slot 1 waits for its trial."""
        slot = self._layout.secondary
        return self._marked(slot, Mark.PENDING) and not self._marked(slot, Mark.BAD) and not self._slots.trials(slot)

    @property
    def permanent(self) -> bool:
        """Whether it would be kept without one."""
        return self.pending and self._marked(self._layout.secondary, Mark.CONFIRMED)

    @property
    def confirmed(self) -> bool:
        """Whether the image in slot 0 stays: it was confirmed, or it was there from the start."""
        slot = self._layout.primary
        return self._marked(slot, Mark.CONFIRMED) or not self._marked(slot, Mark.PENDING)

    def _marked(self, slot: Slot, mark: Mark) -> bool:
        return self._slots.marked(slot, mark)

    # what an SMP server may do to it

    def erase(self, size: int) -> None:
        """Make slot 1 ready for an image of `size` bytes."""
        slot = self._layout.secondary
        self._cache.pop(1, None)
        for offset in slot.sectors(size, 0):
            if not self._flash.is_blank(slot.base + offset, slot.sector_size):
                self._flash.erase(slot.base + offset)
        self._flash.sync()

    def write(self, slot: int, offset: int, data: bytes) -> None:
        """Program `data` (whole write units) at `offset` of the image in an erased slot."""
        self._cache.pop(slot, None)
        page = self._layout.page_size
        address = self._pair[slot].image + offset
        while data:
            size = page - address % page
            self._flash.program(address, data[:size])
            address, data = address + size, data[size:]

    def stored(self, slot: int, size: int) -> Iterator[bytes]:
        """The first `size` bytes of a slot's image, piece by piece."""
        for at in range(0, size, _PIECE):
            yield self._flash.read(self._pair[slot].image + at, min(_PIECE, size - at))

    def factory(self, image: bytes) -> None:
        """The image a new device comes with, in slot 0; `Refused("image.format")` for one that would not start."""
        if not self.new:
            raise LocalProtocolError("device.state", "the device has an image already")
        if len(image) > self.capacity:
            raise Refused("device.slot", f"an image of {len(image)} bytes does not fit")
        self.write(0, 0, image + b"\xff" * (-len(image) % self._layout.write_size))
        if self.image(0) is None:
            raise Refused("image.format", "the factory's image is no whole MCUboot image")
        self._flash.sync()

    def set_pending(self, *, permanent: bool) -> None:
        """The image in slot 1 is swapped in at the next start, on trial or for good."""
        slot = self._layout.secondary
        if self._slots.trials(slot) or self._marked(slot, Mark.BAD):
            self._flash.erase(slot.trailer)
        if permanent:
            self._slots.mark(slot, Mark.CONFIRMED)
        self._slots.mark(slot, Mark.PENDING)

    def confirm(self) -> None:
        """Keep what runs."""
        self._slots.mark(self._layout.primary, Mark.CONFIRMED)

    # boot

    def boot(self) -> bool:
        """Bring up slot 0; whether its image is on trial. A swap that was cut off is finished first."""
        entry = self._journal.resume()
        if entry is not None:
            self._finish(entry)
        self._cache.clear()
        primary, secondary = self._pair
        if self._on_trial(primary) and self._slots.trials(primary) and self.image(1) is not None:
            self._swap(SwapKind.REVERT)
        if self.pending and not self._on_trial(primary):
            image = self.image(1)
            if image is None or not image.bootable:
                self._slots.spoil(secondary)
            else:
                self._swap(SwapKind.INSTALL)
        if self._marked(primary, Mark.PENDING) and not self._slots.trials(primary):
            self._journal.settle()
            self._slots.mark(primary, Mark.TRIAL)
        return self._on_trial(primary)

    def _on_trial(self, slot: Slot) -> bool:
        return self._marked(slot, Mark.PENDING) and not self._marked(slot, Mark.CONFIRMED)

    def _swap(self, kind: SwapKind) -> None:
        """Exchange the slots; what is longer decides how much of them."""
        found = [self.image(slot) for slot in (0, 1)]
        size = max((one.size for one in found if one is not None), default=self.capacity)
        incoming, outgoing = found[1], found[0]
        digests = (incoming.hash if incoming else b"", outgoing.hash if outgoing else b"")
        self._finish(self._journal.begin(kind, size, 0, *digests))

    def _finish(self, entry: SwapEntry) -> None:
        failed_at = run_swap(self._flash, self._layout, self._journal, entry)
        if failed_at is not None:
            self._finish(
                self._journal.begin(SwapKind.UNDO, entry.image_size, 0, entry.outgoing, entry.incoming, failed_at)
            )
            return
        if entry.kind is SwapKind.UNDO:
            self._slots.spoil(self._layout.secondary)
        self._cache.clear()
        self._journal.close(entry)


class _SlotReader(io.RawIOBase):
    """The image area of a slot as a file."""

    def __init__(self, flash: FlashMemory, slot: Slot) -> None:
        self._flash = flash
        self._slot = slot
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._slot.image_capacity}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        size = max(0, min(len(view), self._slot.image_capacity - self._at))
        view[:size] = self._flash.read(self._slot.image + self._at, size)
        self._at += size
        return size

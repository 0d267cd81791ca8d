"""What stands behind an emulated device's SMP server: a legacy device that takes images, or one that denies them.

`LegacyDevice` has two MCUboot slots for each of its images and does what it is told. `GuardedDevice` is a booted device
of devguard's own kind: SMP knows no technician, so it may be looked at and nothing else. What it tells of itself is the
hash and version of the image that runs; its serial number and its counters it keeps.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from devguard.device.node import DeviceNode
from devguard.device.smp_server import Denied, Fault, ImageFault, UploadPiece
from devguard.device.smp_slots import McubootSlots, Stored
from devguard.image import mcuboot_layout as layout

_HASH_SIZES: Final = frozenset({32, 48, 64})
_NO_FLAGS: Final = {"bootable": False, "pending": False, "confirmed": False, "active": False, "permanent": False}


@dataclass(slots=True)
class _Under:
    """An upload under way; like a real server's, it is forgotten at a reset. `held`: bytes too few for a write unit."""

    image: int
    length: int
    sha: bytes | None
    offset: int = 0
    held: bytes = b""


@dataclass(slots=True)
class LegacyDevice:
    """A device that speaks only MCUmgr. `images`: by number. `write_size`: the flash's. `self_test`: whether an image
    on trial passes the test that it makes of itself; one that fails resets the device, which goes back."""

    images: tuple[McubootSlots, ...]
    write_size: int
    self_test: bool = True
    _under: _Under | None = field(default=None, init=False)

    def boot(self) -> None:
        """Reset: uploads are forgotten, swaps done."""
        self._under = None
        trials = [one.boot() for one in self.images]
        if any(trials) and not self.self_test:
            for one in self.images:
                one.boot()

    # Target

    def states(self) -> list[dict[str, Any]]:
        """Every whole image: slot 0 of each image runs."""
        found = []
        for number, slots in enumerate(self.images):
            named: dict[str, Any] = {"image": number} if len(self.images) > 1 else {}
            for slot in (0, 1):
                image = slots.image(slot)
                if image is not None:
                    found.append(named | {"slot": slot} | self._entry(slots, slot, image))
        return found

    def _entry(self, slots: McubootSlots, slot: int, image: Stored) -> dict[str, Any]:
        entry = {"version": image.version_text, "hash": image.hash, **_NO_FLAGS, "bootable": image.bootable}
        if slot == 0:
            return entry | {"active": True, "confirmed": slots.confirmed}
        return entry | {"pending": slots.pending, "permanent": slots.permanent}

    def upload(self, piece: UploadPiece) -> dict[str, Any]:
        """Write what is the next byte; answer anything else with what would be."""
        if piece.offset == 0:
            self._begin(piece)
        under = self._under
        if under is None:
            return {"off": 0}  # of none that it remembers
        if piece.offset == under.offset:
            self._write(under, piece.data)
        answer: dict[str, Any] = {"off": under.offset}
        if under.offset == under.length:
            if under.sha is not None:
                answer["match"] = self._digest(under) == under.sha
            self._under = None
        return answer

    def _begin(self, piece: UploadPiece) -> None:
        slots = self._numbered(piece.image)
        under = self._under
        if piece.length is None:
            raise Denied(ImageFault.INVALID_LENGTH)
        if piece.sha is not None and len(piece.sha) != 32:
            raise Denied(ImageFault.INVALID_HASH)
        if (
            under is not None
            and piece.sha is not None
            and (under.image, under.length, under.sha)
            == (
                piece.image,
                piece.length,
                piece.sha,
            )
        ):
            return  # the same upload again: it goes on where it was
        self._check_first(slots, piece, piece.length)
        slots.erase(piece.length)
        self._under = _Under(piece.image, piece.length, piece.sha)

    def _check_first(self, slots: McubootSlots, piece: UploadPiece, length: int) -> None:
        if len(piece.data) < layout.HEADER_SIZE:
            raise Denied(ImageFault.INVALID_HEADER)
        if int.from_bytes(piece.data[:4], "little") != layout.IMAGE_MAGIC:
            raise Denied(ImageFault.INVALID_MAGIC)
        if length > slots.capacity:
            raise Denied(ImageFault.TOO_LARGE)
        if slots.pending:
            raise Denied(ImageFault.ALREADY_PENDING)
        if not slots.confirmed:
            raise Denied(ImageFault.NO_FREE_SLOT)  # the other slot keeps the way back
        running = slots.image(0)
        header = layout.LITTLE.header.parse(piece.data[: layout.HEADER_SIZE])
        if piece.upgrade and running and (header.major, header.minor, header.revision) <= running.version[:3]:
            raise Denied(ImageFault.CURRENT_IS_NEWER)

    def _write(self, under: _Under, data: bytes) -> None:
        if len(data) > under.length - under.offset:
            raise Denied(ImageFault.OVERRUN)
        held = under.held + data
        start = under.offset - len(under.held)
        under.offset += len(data)
        whole = len(held) // self.write_size * self.write_size
        if under.offset == under.length:
            held += b"\xff" * (-len(held) % self.write_size)
            whole = len(held)
        if whole:
            self.images[under.image].write(1, start, held[:whole])
        under.held = held[whole:]

    def _digest(self, under: _Under) -> bytes:
        running = hashlib.sha256()
        for piece in self.images[under.image].stored(1, under.length):
            running.update(piece)
        return running.digest()

    def _numbered(self, image: int) -> McubootSlots:
        if image >= len(self.images):
            raise Denied(ImageFault.INVALID_SLOT)
        return self.images[image]

    def set_state(self, digest: bytes | None, *, confirm: bool) -> None:
        """Keep what runs, or try (or keep at once) what waits in slot 1."""
        if digest is None:
            for slots in self.images[:1]:
                slots.confirm()
            return
        if len(digest) not in _HASH_SIZES:
            raise Denied(ImageFault.INVALID_HASH)
        for slots in self.images:
            running, other = slots.image(0), slots.image(1)
            if running is not None and running.hash == digest:
                if not confirm:
                    raise Denied(ImageFault.TEST_OF_ACTIVE)
                if not slots.confirmed:
                    slots.confirm()
                return
            if other is not None and other.hash == digest:
                slots.set_pending(permanent=confirm)
                return
        raise Denied(ImageFault.HASH_NOT_FOUND)

    def erase(self, slot: int) -> None:
        """Erase slot 1 of image 0."""
        if slot != 1:
            raise Denied(ImageFault.INVALID_SLOT)
        slots = self.images[0]
        if slots.pending or not slots.confirmed:
            raise Denied(ImageFault.NO_FREE_SLOT)
        self._under = None
        slots.erase(slots.capacity)

    def check_reset(self) -> None:
        """Anybody may reset it."""


@dataclass(slots=True)
class GuardedDevice:
    """A device that demands authorisation, seen over SMP."""

    node: DeviceNode

    def states(self) -> list[dict[str, Any]]:
        """The image that runs, by its digest."""
        running = self.node.loader.result.header
        if running is None:
            return []
        entry = {"slot": 0, "version": running.version[:32], "hash": running.digest, **_NO_FLAGS}
        return [entry | {"bootable": True, "confirmed": True, "active": True}]

    def upload(self, piece: UploadPiece) -> dict[str, Any]:
        """Denied."""
        raise self._denied(piece)

    def set_state(self, digest: bytes | None, *, confirm: bool) -> None:
        """Denied."""
        raise self._denied(digest, confirm)

    def erase(self, slot: int) -> None:
        """Denied."""
        raise self._denied(slot)

    def check_reset(self) -> None:
        """Denied: a reset in the middle of a therapy is for the people beside it."""
        raise self._denied()

    @staticmethod
    def _denied(*_: object) -> Denied:
        return Denied(Fault.ACCESS_DENIED)

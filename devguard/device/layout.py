"""Where everything lies in the flash: two slots, scratch, journal; and the marks at the end of a slot.

    primary | secondary | scratch (1 sector) | journal (2 sectors)
    slot = header sector | image area | envelope area | trailer sector

A mark is one write unit of the trailer, set when all its bits are cleared; flash can set it but never take it
back without erasing, and programming it twice changes nothing. A torn mark counts as not set. The trailer
is swapped with its slot, so marks belong to the image, not to the place.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from devguard.device.flash import FlashGeometry
from devguard.errors import LocalProtocolError

MAX_TRIALS: Final = 8
JOURNAL_SECTORS: Final = 2


class Mark(enum.IntEnum):
    """Marks of a trailer, by write unit. TRIAL is the first of `MAX_TRIALS` that count the attempts."""

    PENDING = 0
    BAD = 1
    CONFIRMED = 2
    TRIAL = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot's addresses; areas are whole sectors."""

    base: int
    size: int
    sector_size: int
    envelope_capacity: int

    @property
    def header(self) -> int:
        """Address of the header sector."""
        return self.base

    @property
    def image(self) -> int:
        """Address of the image's first byte."""
        return self.base + self.sector_size

    @property
    def image_capacity(self) -> int:
        """Bytes an image may have."""
        return self.size - 2 * self.sector_size - self.envelope_capacity

    @property
    def envelope(self) -> int:
        """Address of the envelope copy."""
        return self.image + self.image_capacity

    @property
    def trailer(self) -> int:
        """Address of the trailer sector."""
        return self.base + self.size - self.sector_size

    def sectors(self, image_size: int, envelope_size: int) -> Iterator[int]:
        """Offsets inside the slot of every sector in use for these sizes: header, image, envelope, trailer."""
        yield 0
        yield from range(self.sector_size, self.sector_size + image_size, self.sector_size)
        start = self.envelope - self.base
        yield from range(start, start + envelope_size, self.sector_size)
        yield self.trailer - self.base


@dataclass(frozen=True, slots=True)
class Layout:
    """The map of one model's flash. Sizes in bytes; `envelope_size` is the area for the envelope copy, `erase_cycles`
    what a sector endures (None: any number)."""

    slot_size: int
    sector_size: int
    page_size: int
    write_size: int
    envelope_size: int
    erase_cycles: int | None = None

    def __post_init__(self) -> None:
        if self.slot_size % self.sector_size or self.envelope_size % self.sector_size:
            raise LocalProtocolError("device.state", "slot and envelope area must be whole sectors")
        if self.primary.image_capacity < self.sector_size or self.envelope_size < self.sector_size:
            raise LocalProtocolError("device.state", "the slot has no room for an image")
        if (Mark.TRIAL + MAX_TRIALS) * self.write_size > self.sector_size:
            raise LocalProtocolError("device.state", "the trailer sector is too small for its marks")

    @property
    def primary(self) -> Slot:
        """The slot the device runs from."""
        return Slot(0, self.slot_size, self.sector_size, self.envelope_size)

    @property
    def secondary(self) -> Slot:
        """The slot an update is written to; after an update it keeps the image before."""
        return Slot(self.slot_size, self.slot_size, self.sector_size, self.envelope_size)

    @property
    def scratch(self) -> int:
        """Address of the scratch sector."""
        return 2 * self.slot_size

    @property
    def journal(self) -> tuple[int, ...]:
        """Addresses of the journal's sectors."""
        return tuple(self.scratch + self.sector_size * (1 + index) for index in range(JOURNAL_SECTORS))

    @property
    def image_capacity(self) -> int:
        """Bytes an image may have in either slot."""
        return self.primary.image_capacity

    @property
    def flash(self) -> FlashGeometry:
        """The whole flash this layout needs."""
        size = 2 * self.slot_size + (1 + JOURNAL_SECTORS) * self.sector_size
        return FlashGeometry(size, self.sector_size, self.page_size, self.write_size, self.erase_cycles)

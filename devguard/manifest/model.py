"""The facts of a device model that a release is built and judged against.

Data only. The `device` room loads them from its model files; nothing here knows flash, links or therapy.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from devguard.image.flat import FlashRange


class Clock(enum.StrEnum):
    """What a model knows of the time: a battery-backed clock, or nothing."""

    RTC = "rtc"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One device model. Addresses and capacities in bytes, the battery in mWh; `technicians` is how many
    different persons must approve a push. `components` are the component ids that a release brings, all of them and in
    this order, for they change together; `fixed` those no release brings, whose version one may ask for."""

    name: str
    vendor: str
    revisions: tuple[str, ...]
    flash_base: int
    image_capacity: int
    battery_capacity_mwh: int
    clock: Clock
    technicians: int
    components: tuple[str, ...]
    fixed: tuple[str, ...] = ()

    @property
    def flash(self) -> FlashRange:
        """Where an image may lie, for `image.flat.flatten`."""
        return FlashRange(self.flash_base, self.image_capacity)

    def battery_mwh(self, percent: int) -> int:
        """`percent` of this model's battery in mWh, rounded up: never less charge than was asked for."""
        return -(-percent * self.battery_capacity_mwh // 100)

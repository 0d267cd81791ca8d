"""What `devguard emulate --fault` can break: the self-test, the moment, the power, the cells of the flash."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from devguard.device.cells import Cells
    from devguard.device.flash import Operation, Tear

POWER: Final = ("before", "torn", "weak", "after")
KNOWN: Final = (
    "self-test",
    "therapy-active",
    "battery=PERCENT",
    f"power-cut=N[/{'|'.join(POWER)}]",
    "stuck=ADDRESS/BIT/VALUE",
    "read-disturb=READS",
    "worn=CYCLES",
    "smp-lies[=LIE]",
)
_CUT: Final = re.compile(rf"([0-9]{{1,9}})(?:/({'|'.join(POWER)}))?")
_STUCK: Final = re.compile(r"(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})/([0-7])/([01])")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


@dataclass(slots=True)
class Faults:
    """What is wrong with the emulated device on purpose. `power_cut`: number of the flash operation and how it ends;
    `stuck`: address, bit, value; `smp_lies`: what an SMP server lies about (`device.smp_lies.LieKind`)."""

    self_test: bool = False
    therapy_active: bool = False
    battery: int | None = None
    power_cut: tuple[int, str] | None = None
    stuck: tuple[tuple[int, int, int], ...] = ()
    read_disturb: int | None = None
    worn: int = 0
    smp_lies: str | None = None

    @classmethod
    def of(cls, specs: tuple[str, ...]) -> Faults:
        """From `--fault` texts; a usage error names the known ones."""
        faults = cls()
        for spec in specs:
            name, _, value = spec.partition("=")
            if not faults._take(name, value):
                raise click.BadParameter(f"{spec[:80]!r} is not one of {', '.join(KNOWN)}", param_hint="--fault")
        return faults

    def _take(self, name: str, value: str) -> bool:
        if name in ("self-test", "therapy-active") and not value:
            self.self_test = self.self_test or name == "self-test"
            self.therapy_active = self.therapy_active or name == "therapy-active"
        elif name == "battery" and re.fullmatch(r"[0-9]{1,3}", value) and int(value) <= 100:
            self.battery = int(value)
        elif name == "power-cut" and (cut := _CUT.fullmatch(value)) and int(cut[1]):
            self.power_cut = (int(cut[1]), cut[2] or "torn")
        elif name == "stuck" and (stuck := _STUCK.fullmatch(value)):
            self.stuck += ((int(stuck[1], 0), int(stuck[2]), int(stuck[3])),)
        elif name == "read-disturb" and _NUMBER.fullmatch(value):
            self.read_disturb = int(value)
        elif name == "worn" and _NUMBER.fullmatch(value):
            self.worn = int(value)
        elif name == "smp-lies" and _is_lie(value):
            self.smp_lies = value or "nothing-written"
        else:
            return False
        return True

    def harm(self, cells: Cells) -> None:
        """Does to the cells what was asked for; `stuck` addresses beyond the flash are a usage error."""
        size = len(cells.wear) * cells.sector_size
        for address, bit, value in self.stuck:
            if address >= size:
                raise click.BadParameter(f"{address:#x} is beyond the flash of {size} bytes", param_hint="--fault")
            cells.stick(address, bit, value)
        cells.disturb_after = self.read_disturb
        if self.worn:
            cells.age(self.worn)

    def power(self) -> Callable[[Operation, int, int], Tear | None] | None:
        """The hook that cuts the power, where that was asked for."""
        return None if self.power_cut is None else _Cut(*self.power_cut).step


def _is_lie(value: str) -> bool:
    """Whether it names a lie of an SMP server; nothing names the plainest."""
    from devguard.device.smp_lies import LieKind

    return not value or value in set(LieKind)


@dataclass(slots=True)
class _Cut:
    left: int
    how: str

    def step(self, _operation: Operation, _address: int, length: int) -> Tear | None:
        """Counts one flash operation; ends the last one in the way that was asked for."""
        from devguard.device.flash import PowerCut, Tear

        self.left -= 1
        if self.left:
            return None
        if self.how == "before":
            raise PowerCut("the power was cut")
        if self.how == "after":
            return Tear(length)
        return Tear(length // 2 // 4 * 4, 0x5A, weak=self.how == "weak")

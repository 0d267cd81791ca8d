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
    from devguard.device.therapy import Therapy
    from devguard.link.engine import LinkEngine
    from devguard.link.events import Event
    from devguard.link.runner import Pump

POWER: Final = ("before", "torn", "weak", "after")
KNOWN: Final = (
    "self-test",
    "therapy-active",
    "alarm[=NAME]",
    "charging",
    "guard-crash=N",
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
_ALARM: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(slots=True)
class Faults:
    """What is wrong with the emulated device on purpose. `power_cut`: number of the flash operation and how it ends;
    `stuck`: address, bit, value; `guard_crash`: the number of the thing heard on the line at which the guard dies;
    `smp_lies`: what an SMP server lies about (`device.smp_lies.LieKind`)."""

    self_test: bool = False
    therapy_active: bool = False
    alarm: str | None = None
    charging: bool = False
    guard_crash: int | None = None
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
        elif name == "charging" and not value:
            self.charging = True
        elif name == "alarm" and (_ALARM.fullmatch(value) or not value):
            self.alarm = value or "occlusion"
        elif name == "guard-crash" and _NUMBER.fullmatch(value) and int(value):
            self.guard_crash = int(value)
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

    def trouble(self, therapy: Therapy, now: int) -> None:
        """Begins in the therapy what was asked for: a full bolus or a session with an implant, an alarm."""
        from devguard.device.therapy import PumpTherapy

        if self.alarm is not None:
            therapy.open_alarm(self.alarm, now)
        if not self.therapy_active or not therapy.idle:
            return
        if isinstance(therapy, PumpTherapy):
            therapy.start_bolus(therapy.state.settings["maximum_bolus_milliunits"], now)
        else:
            therapy.start_session(now)

    def crash(self) -> Callable[[Pump], Pump]:
        """What stands between the guard and its port, so that it dies where that was asked for."""
        left = [0 if self.guard_crash is None else self.guard_crash]
        return lambda driver: _Crashing(driver, left)

    def power(self) -> Callable[[Operation, int, int], Tear | None] | None:
        """The hook that cuts the power, where that was asked for."""
        return None if self.power_cut is None else _Cut(*self.power_cut).step


def _is_lie(value: str) -> bool:
    """Whether it names a lie of an SMP server; nothing names the plainest."""
    from devguard.device.smp_lies import LieKind

    return not value or value in set(LieKind)


class GuardCrash(RuntimeError):
    """What a guard dies of that was told to."""


@dataclass(slots=True)
class _Crashing:
    """A driver that lets its reader die once, at the last of so many things heard."""

    driver: Pump
    left: list[int]

    def clock(self) -> float:
        """The driver's own."""
        return self.driver.clock()

    def pump(self, engine: LinkEngine, timeout: float) -> list[Event]:
        """The driver's events."""
        events = self.driver.pump(engine, timeout)
        if 0 < self.left[0] <= len(events):
            self.left[0] = 0
            raise GuardCrash("it was told to")
        self.left[0] = max(0, self.left[0] - len(events))
        return events


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

"""Random lives of a device whose power goes again and again: boots, pushes, rotations, each cut at any step or not.

Where `power_sweep` asks the same question at every step, a life goes on with whatever the cuts before have left, and
loses its power for real: the exception flies through the device's own code. After each cut the same look at the device
as there, at a copy that is left in peace.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from devguard.bench.power_scenes import SCENE_HOUR, Act, Scene, boot, pushing, rotating
from devguard.bench.power_sweep import Sweep
from devguard.bench.power_tally import Plan, Tally
from devguard.bench.power_torn import HOWS, tear_of
from devguard.bench.power_world import NEXT, TARGET, VERSIONS, Conduct, Machine, State, World
from devguard.device.counters import Counters
from devguard.device.flash import Operation, PowerCut, Tear
from devguard.errors import Refused

_CUTS: Final = 5
_LAST: Final = VERSIONS - 1


class Cut:
    """A watcher that takes the power at one step, in one way."""

    def __init__(self, world: World, step: int, how: str) -> None:
        self.steps = 0
        self._layout = world.model.layout
        self._step = step
        self._how = how

    def flash(self, operation: Operation, _address: int, data: bytes) -> Tear | None:
        """One flash operation."""
        self.steps += 1
        if self.steps != self._step:
            return None
        if self._how == "before":
            raise PowerCut("the power was cut")
        return tear_of(self._layout, operation, len(data), self._how)

    def save(self, _counters: Counters) -> None:
        """One save of the counters."""
        self._count()

    def trust(self, _number: int) -> None:
        """One trust document."""
        self._count()

    def _count(self) -> None:
        self.steps += 1
        if self.steps == self._step:
            raise PowerCut("the power was cut")


@dataclass(slots=True)
class Life:
    """One life, up to its fifth cut. `pushed`: the numbers of the releases that the device was offered."""

    world: World
    state: State
    chance: random.Random
    pushed: set[int] = field(default_factory=set)

    def live(self) -> Tally:
        """What became of the device after each of its cuts."""
        tally = Tally()
        while tally.cuts < _CUTS:
            step = self.chance.choice((0, self.chance.randint(1, 40), self.chance.randint(1, 2000)))
            start, cut = self.state, Cut(self.world, step, self.chance.choice(("before", *HOWS)))
            gone = self._power_on(cut)
            tally.operations += cut.steps
            if gone:
                tally.cuts += 1
                tally.add(self._judged(start), f"cut {tally.cuts} of a life; ")
        return tally

    def _power_on(self, cut: Cut) -> bool:
        """One power-on; whether it was cut."""
        conduct, act = Conduct(SCENE_HOUR, self.chance.random() < 0.7), self._act()
        machine = Machine(self.world, self.state, conduct, cut, noise=str(self.chance.random()))
        try:
            # What a bench may not do at this moment is refused, and nothing is lost by asking.
            with contextlib.suppress(Refused):
                act(machine)
        except PowerCut:
            return True
        finally:
            self.state = machine.state()
        return False

    def _act(self) -> Act:
        acts: list[Callable[[], Act]] = [
            lambda: boot,
            self._push,
            self._push,
            lambda: rotating(self.chance.randint(1, 2)),
        ]
        return self.chance.choice(acts)()

    def _push(self) -> Act:
        number = self.chance.randint(2, NEXT)
        self.pushed.add(number)
        return pushing(number, patched=number == TARGET and self.chance.random() < 0.5)

    def _judged(self, start: State) -> Tally:
        """The device when it is left in peace: it runs what it ran, or a newer release that it was offered, and takes
        another push."""
        before = self.world.number_of(start.counters.sealed)
        machine = Machine(self.world, self.state, Conduct(SCENE_HOUR))
        with contextlib.suppress(Refused):
            boot(machine)
        now = self.world.number_of(machine.load().sealed)
        newer = now is not None and before is not None and now > before and now in self.pushed
        old, new = before or 0, now if newer and now is not None else _LAST
        scene = Scene("life", start, (), old=old, new=new, ends=frozenset({old, new} - {_LAST}))
        return Sweep(self.world, scene, Plan(shortcut=False)).recover(self.state, 2, wanted=_LAST)[0]


def live(world: World, start: State, seed: str) -> Tally:
    """One life that follows from its seed."""
    return Life(world, start, random.Random(seed)).live()  # noqa: S311 (a bench that can be repeated)

"""Random lives of a device whose power goes again and again: boots, pushes, rotations, each cut at any step or not.

Where `power_sweep` asks the same question at every step, a life goes on with whatever the cuts before have left, and
loses its power for real: the exception flies through the device's own code. After each life the same look at the
device as there.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Final

from devguard.bench.power_scenes import NEXT, SCENE_HOUR, Act, Scene, boot, pushing, rotating
from devguard.bench.power_sweep import Sweep
from devguard.bench.power_tally import Plan, Tally
from devguard.bench.power_torn import HOWS, tear_of
from devguard.bench.power_world import VERSIONS, Conduct, Machine, State, World
from devguard.device.counters import Counters
from devguard.device.flash import Operation, PowerCut, Tear
from devguard.errors import Refused

_CUTS: Final = 5
_LAST: Final = VERSIONS - 1


class Cut:
    """A watcher that takes the power at one step, in one way."""

    def __init__(self, world: World, step: int, how: str) -> None:
        self._layout = world.model.layout
        self._left = step
        self._how = how

    def flash(self, operation: Operation, _address: int, data: bytes) -> Tear | None:
        """One flash operation."""
        self._left -= 1
        if self._left:
            return None
        if self._how == "before":
            raise PowerCut("the power was cut")
        return tear_of(self._layout, operation, len(data), self._how)

    def save(self, _counters: Counters) -> None:
        """One save of the counters."""
        self._step()

    def trust(self, _number: int) -> None:
        """One trust document."""
        self._step()

    def _step(self) -> None:
        self._left -= 1
        if not self._left:
            raise PowerCut("the power was cut")


def live(world: World, start: State, seed: str) -> Tally:
    """One life. The tally has one row for the device as it stands in the end."""
    chance = random.Random(seed)  # noqa: S311 (a bench that can be repeated)
    state, cuts = start, 0
    while cuts < _CUTS:
        act = _act(chance)
        step = chance.choice((0, chance.randint(1, 40), chance.randint(1, 2000)))
        how = chance.choice(("before", *HOWS))
        state, cut = _power_on(world, state, act, Cut(world, step, how), how, chance)
        cuts += 1 if cut else chance.random() < 0.3
    tally = _judged(world, start, state)
    tally.cuts = cuts
    return tally


def _act(chance: random.Random) -> Act:
    acts: list[Callable[[], Act]] = [
        lambda: boot,
        lambda: boot,
        lambda: pushing(chance.randint(2, NEXT)),
        lambda: rotating(chance.randint(1, 2)),
    ]
    return chance.choice(acts)()


def _power_on(world: World, state: State, act: Act, cut: Cut, how: str, chance: random.Random) -> tuple[State, bool]:
    machine = Machine(world, state, Conduct(SCENE_HOUR, chance.random() < 0.7), cut, noise=how)
    try:
        # What a bench may not do at this moment is refused, and nothing is lost by asking.
        with contextlib.suppress(Refused):
            act(machine)
    except PowerCut:
        return machine.state(), True
    return machine.state(), False


def _judged(world: World, start: State, state: State) -> Tally:
    """The device after its last boot with good power: some release that it was given, whole; and the next push."""
    machine = Machine(world, state, Conduct(SCENE_HOUR))
    boot(machine)
    now, old = world.number_of(machine.node.loader.result.header), _running(world, start)
    scene = Scene("life", start, (), old=old, new=_LAST if now in (None, old) else now)
    tally, _ = Sweep(world, scene, Plan(shortcut=False)).recover(state, 2, wanted=_LAST)
    return tally


def _running(world: World, state: State) -> int:
    number = world.number_of(state.counters.sealed)
    return 0 if number is None else number

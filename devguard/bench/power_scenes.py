"""What a device of the power-cut bench is in the middle of when the power goes: one scene for each way of changing it.

A scene is where the device starts, what is done to it (each act is a power-on), and what it may be afterwards. All
cuts of a scene are swept by `power_sweep`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from devguard.bench.power_flash import Flash
from devguard.bench.power_world import FALLING, RUNNING, TARGET, Conduct, Machine, State, World
from devguard.device.bootloader import BootState
from devguard.errors import LocalProtocolError

Act = Callable[[Machine], None]
NAMES: Final = ("update", "patch", "revert", "confirm", "fallback", "trust")
SCENE_HOUR: Final = 3


@dataclass(frozen=True, slots=True)
class Way:
    """A push: of which release, and whether it travels as a patch."""

    release: int
    patched: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """`acts` are power-ons, one after the other. `old` and `new`: the numbers of the releases before and after, of the
    trust documents where `of_trust`. `ends`: the releases that may run after a cut. `from_self_test`: only what follows
    the start of the self-test is cut. `patched`: the update travels as a patch."""

    name: str
    start: State
    acts: tuple[Act, ...]
    old: int
    new: int
    ends: frozenset[int]
    healthy: bool = True
    from_self_test: bool = False
    of_trust: bool = False
    patched: bool = False
    flags: frozenset[str] = frozenset()

    def conduct(self) -> Conduct:
        """How the world behaves in the scene and in the recovery from a cut."""
        return Conduct(SCENE_HOUR, self.healthy)


def boot(machine: Machine) -> None:
    """Power on; a trial is settled."""
    machine.node.boot()


def pushing(number: int, *, patched: bool = False) -> Act:
    """Power on, and a push up to the reboot."""

    def act(machine: Machine) -> None:
        machine.node.boot()
        machine.push(number, patched=patched)

    return act


def rotating(number: int) -> Act:
    """Power on, and the trust documents up to that number."""

    def act(machine: Machine) -> None:
        machine.node.boot()
        machine.rotate(number)

    return act


def after(world: World, state: State, act: Act, hours: int = SCENE_HOUR) -> State:
    """The state after an act without any cut."""
    machine = Machine(world, state, Conduct(hours))
    act(machine)
    return machine.state()


def with_release(world: World, state: State, number: int, hours: int) -> State:
    """The state after a whole update; `LocalProtocolError` when the device did not take it."""
    state = after(world, after(world, state, pushing(number), hours), boot, hours)
    machine = Machine(world, state, Conduct(hours))
    result = machine.node.boot()
    if world.number_of(result.header) != number or result.state is not BootState.CONFIRMED:
        raise LocalProtocolError("device.state", f"the bench's device came up {result.state}, not with {number}")
    return machine.state()


def start_of(world: World, running: int = RUNNING) -> State:
    """A device that runs that release, confirmed, and has had others before."""
    state = world.blank()
    for number in range(running + 1):
        state = with_release(world, state, number, number)
    return state


def scene_of(world: World, name: str) -> Scene:
    """The scene of that name."""
    if name == "fallback":
        start, flags = _damaged(world, start_of(world, FALLING)), frozenset({"version.older"})
        return Scene(name, start, (boot,), old=RUNNING, new=FALLING, ends=frozenset({RUNNING}), flags=flags)
    start, either = start_of(world), frozenset({RUNNING, TARGET})
    if name == "trust":
        return Scene(name, start, (rotating(1),), old=0, new=1, ends=frozenset({RUNNING}), of_trust=True)
    if name in ("update", "patch"):
        patched = name == "patch"
        acts = (pushing(TARGET, patched=patched), boot)
        return Scene(name, start, acts, old=RUNNING, new=TARGET, ends=either, patched=patched)
    committed = after(world, start, pushing(TARGET))
    if name == "revert":
        ends = frozenset({RUNNING})  # an image whose self-test fails is never confirmed, whatever the power does
        return Scene(name, committed, (boot,), old=RUNNING, new=TARGET, ends=ends, healthy=False)
    return Scene(name, committed, (boot,), old=RUNNING, new=TARGET, ends=either, from_self_test=True)


def _damaged(world: World, state: State) -> State:
    """One bit of the running image flips."""
    layout = world.model.layout
    sector, at = divmod(layout.primary.image + 3, layout.sector_size)
    sectors = list(state.flash.sectors)
    hit = bytearray(sectors[sector])
    hit[at] ^= 1
    sectors[sector] = bytes(hit)
    return replace(state, flash=Flash(tuple(sectors), state.flash.weak))

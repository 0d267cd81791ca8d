"""Cuts the power at every durable step of a scene, and judges what becomes of the device.

A step is one flash operation, one save of the counters or one of the trust document. The scene is played once; before
each step every state that a cut there could leave is made and handed to a recovery, which may be cut again. A
recovery is the device's real boot, then an independent look at image, counters, audit chain and therapy, then the
next push (after a second cut: of one in four).

Recoveries that look at the same bytes are the same recovery: a run notes every sector it looked at before it had
overwritten it, and is not done twice where those are equal. `Plan.shortcut` turns that off, to show that it changes
no verdict.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from devguard.bench.power_flash import Flash
from devguard.bench.power_scenes import NEXT, Scene, boot, pushing, rotating
from devguard.bench.power_tally import Plan, Tally
from devguard.bench.power_torn import HOWS, torn
from devguard.bench.power_world import Conduct, Machine, State, World
from devguard.device.audit import AuditRing
from devguard.device.bootloader import BootState
from devguard.device.counters import Counters, check_no_regression
from devguard.device.counters_codec import decode_counters, encode_counters
from devguard.device.flash import Operation, Tear
from devguard.errors import DevguardError, LocalProtocolError

_REMEMBERED: Final = 48  # runs kept for each set of counters
_KEPT_KEYS: Final = 4096
_PUSHED: Final = 4
Seen = tuple[bytes, tuple[bytes, str] | None]
V = TypeVar("V")
Found = tuple[V, set[int]]
"""What came of a run, and the sectors that this depends on."""


@dataclass(slots=True)
class _Run:
    """A run that is remembered: the sectors it depends on, and what came of it."""

    seen: dict[int, Seen]
    value: object
    sectors: set[int]

    def fits(self, flash: Flash) -> bool:
        """Whether the run on `flash` would be this one."""
        sectors, weak = flash.sectors, dict(flash.weak)
        for sector, (data, mask) in self.seen.items():
            if sectors[sector] is not data and sectors[sector] != data:
                return False
            if (mask is not None or sector in weak) and flash.value(sector)[1] != mask:
                return False
        return True

    def covers(self, machine: Machine, sector: int) -> bool:
        """Whether the run on the machine's flash would be this one, whatever stood in `sector`."""
        weak, now = machine.cells.weak, machine.backend.now
        if sector in self.seen:
            return False
        for number, (data, mask) in self.seen.items():
            if mask is not None or number in weak:
                return False
            found = now(number)
            if found is not data and found != data:
                return False
        return True


class Sweep:
    """All cuts of one scene that `plan` takes. `play` gives the tally."""

    def __init__(self, world: World, scene: Scene, plan: Plan) -> None:
        self.world = world
        self.scene = scene
        self.plan = plan
        self.tally = Tally()
        self._runs: dict[tuple[object, ...], list[_Run]] = {}
        self._encoded: dict[int, tuple[Counters, bytes]] = {}
        self._good: dict[bytes, bool] = {}

    def play(self) -> Tally:
        """Play the scene once, cut it everywhere."""
        state = self.scene.start
        for act in self.scene.acts:
            cutter = Cutter(self, self.tally, 0, armed=not self.scene.from_self_test)
            cutter.step = self.tally.operations
            conduct = self.scene.conduct()
            conduct.at_self_test = cutter.arm
            machine = Machine(self.world, state, conduct, cutter)
            cutter.machine = machine
            act(machine)
            self.tally.operations = cutter.step
            state = machine.state()
        return self.tally

    # what a cut leads to

    def recover(self, state: State, depth: int, wanted: int | None = None) -> Found[Tally]:
        """What the device makes of `state`, and of every further cut that the plan takes; and the sectors that this
        depends on. `depth`: cuts that came before. `wanted`: the release to push in the end."""

        def run() -> Found[Tally]:
            tally = Tally()
            self.tally.runs += 1
            cutter = Cutter(self, tally, depth) if depth < 2 and self.plan.second else None
            machine = Machine(self.world, state, self.scene.conduct(), cutter)
            if cutter is not None:
                cutter.machine = machine
            machine.node.boot()
            self._judge(machine, tally)
            needed = machine.backend.looked_at | (cutter.needed if cutter is not None else set())
            if tally.held and (depth < 2 or wanted is not None or self._pushes_after(machine)):
                owned = set(machine.backend.owned)
                problem, more = self._next_push(machine.state(), wanted)
                needed |= more - owned
                if problem:
                    tally.push_failed += 1
                    tally.faults.append(problem)
            return tally, needed

        return self._once(("recover", depth), state, run)

    def _pushes_after(self, machine: Machine) -> bool:
        """After a second cut the recoveries end in flash that differs in the journal only: one in four is pushed to."""
        layout = self.world.model.layout
        journal = b"".join(machine.backend.read(address, layout.page_size) for address in layout.journal)
        return zlib.crc32(journal) % _PUSHED == 0

    def _judge(self, machine: Machine, tally: Tally) -> None:
        """An independent look at the device after its boot."""
        scene, start, counters = self.scene, self.scene.start, machine.load()
        problem = self._image_problem(machine)
        if problem:
            tally.bricked += 1
            tally.faults.append(problem)
        elif self._is_new(machine):
            tally.booted_new += 1
        else:
            tally.booted_old += 1
        if machine.therapy.encode() != start.therapy:
            tally.settings_changed += 1
            tally.faults.append("therapy changed")
        if not _kept(start.counters, counters) or not self._burnt_rightly(machine):
            tally.counter_regressed += 1
            tally.faults.append("a counter went back, or was burnt before the confirm")
        if not self._chained(counters):
            tally.audit_broken += 1
            tally.faults.append(f"{scene.name}: the audit chain does not hold")

    def _is_new(self, machine: Machine) -> bool:
        if self.scene.of_trust:
            return machine.trust == self.scene.new
        return self.world.number_of(machine.node.loader.result.header) == self.scene.new

    def _image_problem(self, machine: Machine) -> str:
        result, scene = machine.node.loader.result, self.scene
        number = self.world.number_of(result.header)
        allowed = {self.world.number_of(scene.start.counters.sealed)} if scene.of_trust else {scene.old, scene.new}
        if number is None or number not in allowed:
            return f"{scene.name}: came up {result.state} with {number}"
        if result.state in (BootState.TRIAL, BootState.RECOVERY, BootState.EMPTY):
            return f"{scene.name}: came up {result.state}"
        if not set(result.flags) <= scene.flags:
            return f"{scene.name}: flags {', '.join(result.flags)}"
        image = self.world.builds[number].image
        if machine.backend.read(self.world.model.layout.primary.image, len(image)) != image:
            return f"{scene.name}: the image that runs is not whole"
        if scene.of_trust and machine.load().trust_version != self.world.chain[machine.trust][0].version:
            return f"{scene.name}: trust document and its counter differ"
        return ""

    def _burnt_rightly(self, machine: Machine) -> bool:
        """The security counter is that of the best release which was ever confirmed."""
        counters, sealed = machine.load(), machine.load().sealed
        wanted = max(self.scene.start.counters.security_version, sealed.security_version if sealed else 0)
        return counters.security_version == wanted

    def _chained(self, counters: Counters) -> bool:
        data = self._encode(counters)
        if data not in self._good:
            self._good[data] = _goes_on(self.scene.start.counters.audit, data)
        return self._good[data]

    # the next push

    def _next_push(self, state: State, wanted: int | None) -> Found[str]:
        """What is wrong with the push after the recovery: the release that was under way, or the one after it."""
        number = self.world.number_of(state.counters.sealed)
        resumes = state.counters.download is not None and zlib.crc32(repr(state.counters.download).encode()) % 4
        again = number == self.scene.old and resumes and not self.scene.of_trust
        release = wanted if wanted is not None else self.scene.new if again else NEXT

        def push() -> Found[str]:
            machine = Machine(self.world, state, Conduct(self.scene.conduct().hours + 1))
            try:
                if self.scene.of_trust:
                    rotating(2)(machine)
                    machine.push(release)
                else:
                    pushing(release)(machine)
            except DevguardError as error:
                return f"{self.scene.name}: the next push was refused: {error.code}: {error.message}", set()
            rested = self.world.number_of(machine.load().sealed) == number
            problem, more = self._settle(machine.state(), release)
            problem = problem or ("" if rested else f"{self.scene.name}: the device did not rest")
            return problem, machine.backend.looked_at | (more - machine.backend.owned)

        return self._once(("push", release), state, push)

    def _settle(self, state: State, wanted: int) -> Found[str]:
        def settle() -> Found[str]:
            machine = Machine(self.world, state, Conduct(self.scene.conduct().hours + 1))
            boot(machine)
            result = machine.node.loader.result
            good = self.world.number_of(result.header) == wanted and result.state is BootState.CONFIRMED
            problem = "" if good else f"{self.scene.name}: the next release ended {result.state}"
            return problem, machine.backend.looked_at

        return self._once(("settle", wanted), state, settle)

    # runs that are done once

    def _once(
        self, kind: tuple[object, ...], state: State, run: Callable[[], tuple[V, set[int]]]
    ) -> tuple[V, set[int]]:
        """What `run` gives for `state`: remembered, where a run on the same bytes has been done."""
        key = (*kind, self._encode(state.counters), state.trust)
        known = self._runs.setdefault(key, [])
        if self.plan.shortcut:
            for place, one in enumerate(known):
                if one.fits(state.flash):
                    if place:
                        known.insert(0, known.pop(place))
                    value: V = one.value  # type: ignore[assignment]  # the kind in the key says which
                    return value, one.sectors
        value, needed = run()
        if self.plan.shortcut:
            seen = {sector: state.flash.value(sector) for sector in needed}
            known.insert(0, _Run(seen, value, set(needed)))
            del known[_REMEMBERED:]
            if len(self._runs) > _KEPT_KEYS:
                del self._runs[next(iter(self._runs))]
        return value, needed

    def covering(self, machine: Machine, sector: int, depth: int) -> tuple[Tally, set[int]] | None:
        """The recovery of a machine whose power goes now, if it is known and looks at nothing of that sector."""
        if not self.plan.shortcut:
            return None
        known = self._runs.get(("recover", depth, self._encode(machine.load()), machine.trust), [])
        for place, one in enumerate(known):
            if one.covers(machine, sector):
                if place:
                    known.insert(0, known.pop(place))
                tally: Tally = one.value  # type: ignore[assignment]  # the kind in the key says so
                return tally, one.sectors
        return None

    def _encode(self, counters: Counters) -> bytes:
        found = self._encoded.get(id(counters))
        if found is None or found[0] is not counters:
            if len(self._encoded) > _KEPT_KEYS:
                self._encoded.clear()
            found = self._encoded[id(counters)] = (counters, encode_counters(counters))
        return found[1]


class Cutter:
    """The watcher of one run: before each step it asks what every cut there would lead to."""

    def __init__(self, sweep: Sweep, tally: Tally, depth: int, *, armed: bool = True) -> None:
        self.machine: Machine | None = None
        self.needed: set[int] = set()
        self.step = 0
        self._sweep = sweep
        self._tally = tally
        self._depth = depth
        self._armed = armed

    def arm(self) -> None:
        """From here on steps are cut."""
        self._armed = True

    def flash(self, operation: Operation, address: int, data: bytes) -> Tear | None:
        """Cut one flash operation in every way."""
        if not self._wanted():
            return None
        machine, layout, what = self._running(), self._sweep.world.model.layout, f"{operation} {address:#x}"
        # Of one word, "half" and "late" are the same.
        hows = tuple(how for how in HOWS if how != "late" or len(data) != layout.write_size)
        known = self._sweep.covering(machine, address // layout.sector_size, self._depth + 1)
        if known is not None:
            self._count(*known, f"at {what}", 1 + len(hows))
            return None
        state = machine.state()
        self._cut(state, f"before {what}")
        for how in hows:
            self._cut(torn(layout, state, operation, address, data, how), f"{how} {what}")
        return None

    def save(self, counters: Counters) -> None:
        """A save is whole or not at all."""
        if self._wanted():
            state = self._running().state()
            self._cut(state, "before save")
            self._cut(replace(state, counters=counters), "after save")

    def trust(self, number: int) -> None:
        """So is a trust document."""
        if self._wanted():
            state = self._running().state()
            self._cut(state, "before trust")
            self._cut(replace(state, trust=number), "after trust")

    def _wanted(self) -> bool:
        if not self._armed or self.machine is None:
            return False
        self.step += 1
        return self._sweep.plan.takes(self._depth, self.step - 1)

    def _running(self) -> Machine:
        if self.machine is None:
            raise LocalProtocolError("device.state", "no machine is watched")
        return self.machine

    def _cut(self, state: State, how: str) -> None:
        self._count(*self._sweep.recover(state, self._depth + 1), how, 1)

    def _count(self, found: Tally, needed: set[int], how: str, times: int) -> None:
        self._tally.add(found, f"cut {how} at step {self.step}; ", times)
        self._tally.cuts += times
        self._tally.second_cuts += self._depth * times
        self.needed |= needed - self._running().backend.owned


def _kept(before: Counters, after: Counters) -> bool:
    try:
        check_no_regression(before, after)
    except LocalProtocolError:
        return False
    return True


def _goes_on(start: AuditRing, data: bytes) -> bool:
    """The chain in stored counters holds, and goes on from where the scene began."""
    try:
        ring = decode_counters(data).audit
    except DevguardError:
        return False
    grown = ring.count - start.count
    if not 0 <= grown <= len(ring.events):
        return grown >= 0
    again = start
    for event in ring.events[len(ring.events) - grown :]:
        again = again.append(event)
    return again.head == ring.head

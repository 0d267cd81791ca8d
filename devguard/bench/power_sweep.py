"""Cuts the power at every durable step of a scene, and has judged what becomes of the device.

A step is one flash operation, one save of the counters or one of the trust document. The scene is played once; before
each step every state that a cut there could leave is made and handed to a recovery, which may be cut again. A
recovery is the device's real boot, an independent look (`power_judge`), then the next push: of the release that was
under way, in the form it had and in another, and of the release after it. After a second cut one device in four is
pushed to, in one of these ways.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from devguard.bench.power_flash import Needs
from devguard.bench.power_judge import Judge
from devguard.bench.power_memo import Found, Memo
from devguard.bench.power_scenes import Scene, Way
from devguard.bench.power_tally import Plan, Tally
from devguard.bench.power_torn import hows_of, torn
from devguard.bench.power_world import NEXT, Conduct, Machine, State, World
from devguard.device.counters import Counters
from devguard.device.flash import Operation, Tear
from devguard.errors import DevguardError, LocalProtocolError

_PUSHED: Final = 4


class Sweep:
    """All cuts of one scene that `plan` takes. `play` gives the tally."""

    def __init__(self, world: World, scene: Scene, plan: Plan) -> None:
        self.world = world
        self.scene = scene
        self.plan = plan
        self.tally = Tally()
        self.memo = Memo(on=plan.shortcut)
        self._judge = Judge(world, scene, self.memo)
        self._counted: set[int] = set()

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

    def recover(self, state: State, depth: int, wanted: int | None = None) -> Found[Tally]:
        """What the device makes of `state`, and of every further cut that the plan takes; and the sectors that this
        depends on. `depth`: cuts that came before. `wanted`: the release to push in the end."""

        def run() -> Found[Tally]:
            tally, pairs = Tally(), self.tally.pairs
            self.tally.runs += 1
            cutter = Cutter(self, tally, depth) if depth < 2 and self.plan.second else None
            machine = Machine(self.world, state, self.scene.conduct(), cutter)
            if cutter is not None:
                cutter.machine = machine
                cutter.salt = self._fingerprint(machine) if self.plan.second > 1 else 0
            self._judge.boots(machine, tally)
            needs, owned = Needs(), frozenset(machine.backend.owned)
            needs.add(machine.backend.needs)
            if cutter is not None:
                needs.add(cutter.needs)
            for way in self._ways(machine, depth, wanted) if tally.held else ():
                problem, more = self._next_push(machine.state(), way)
                needs.add(more, owned)
                if problem:
                    tally.blame("push_failed", f"{self.scene.name}: {problem}")
            if depth == 1:
                self._count_once(state, needs, pairs)
            return tally, needs

        return self.memo.once(("recover", depth), state, run)

    def _count_once(self, state: State, needs: Needs, before: int) -> None:
        """The pairs of a recovery count once, also where the memory was too short and it was run again."""
        looked_at = tuple((sector, state.flash.value(sector)) for sector in sorted(needs.read))
        which = hash((self.memo.encoded(state.counters), state.trust, looked_at, tuple(sorted(needs.stands))))
        if which in self._counted:
            self.tally.pairs = before
        self._counted.add(which)

    def _fingerprint(self, machine: Machine) -> int:
        """Of what a recovery begins with, as far as it looks at it in any case: counters and journal."""
        layout = self.world.model.layout
        journal = b"".join(machine.backend.read(address, layout.page_size) for address in layout.journal)
        return zlib.crc32(self.memo.encoded(machine.load()), zlib.crc32(journal))

    # the next push

    def _ways(self, machine: Machine, depth: int, wanted: int | None) -> Iterable[Way]:
        """Which pushes follow a recovery."""
        if wanted is not None:
            return [Way(wanted)]
        counters, scene = machine.load(), self.scene
        ways = [Way(NEXT)]
        resumed = depth > 1 or self.tally.runs % self.plan.resumed == 0
        if counters.download is not None and not scene.of_trust and resumed:
            ways += [Way(scene.new), *([Way(scene.new, patched=True)] if scene.patched else ())]
        if depth < 2:
            return ways
        # After a second cut the recoveries end in flash that differs in the journal only.
        chosen = self._fingerprint(machine) // _PUSHED
        return ways[chosen % len(ways) :][:1] if self._fingerprint(machine) % _PUSHED == 0 else []

    def _next_push(self, state: State, way: Way) -> Found[str]:
        """What is wrong with the push after the recovery."""
        number = self.world.number_of(state.counters.sealed)

        def push() -> Found[str]:
            machine = Machine(self.world, state, Conduct(self.scene.conduct().hours + 1))
            try:
                machine.node.boot()
                if self.scene.of_trust:
                    machine.rotate(2)
                machine.push(way.release, patched=way.patched)
            except DevguardError as error:
                problem = f"the next push was refused: {error.code}: {error.message}"
                return problem, machine.backend.needs
            rested = self.world.number_of(machine.load().sealed) == number
            problem, more = self._settle(machine.state(), way.release)
            problem = problem or ("" if rested else "the device did not rest")
            needs = machine.backend.needs
            needs.add(more, machine.backend.owned)
            return problem, needs

        return self.memo.once(("push", way), state, push)

    def _settle(self, state: State, wanted: int) -> Found[str]:
        def settle() -> Found[str]:
            machine = Machine(self.world, state, Conduct(self.scene.conduct().hours + 1))
            problem = self._judge.settled(machine, wanted)
            return problem, machine.backend.needs

        return self.memo.once(("settle", wanted), state, settle)


class Cutter:
    """The watcher of one run: before each step it asks what every cut there would lead to."""

    def __init__(self, sweep: Sweep, tally: Tally, depth: int, *, armed: bool = True) -> None:
        self.machine: Machine | None = None
        self.needs = Needs()
        self.step = self.salt = 0
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
        hows = hows_of(layout, operation, len(data))
        known = self._sweep.memo.covering(("recover", self._depth + 1), machine, address // layout.sector_size)
        if known is not None:
            tally, needs = known
            if isinstance(tally, Tally):
                self._count(tally, needs, f"at {what}", 1 + len(hows))
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
        return self._sweep.plan.takes(self._depth, self.step - 1, self.salt)

    def _running(self) -> Machine:
        if self.machine is None:
            raise LocalProtocolError("device.state", "no machine is watched")
        return self.machine

    def _cut(self, state: State, how: str) -> None:
        self._count(*self._sweep.recover(state, self._depth + 1), how, 1)

    def _count(self, found: Tally, needs: Needs, how: str, times: int) -> None:
        self._tally.add(found, f"cut {how} at step {self.step}; ", times)
        self._tally.cuts += times
        if self._depth:
            self._tally.second_cuts += times
            self._sweep.tally.pairs += times
        self.needs.add(needs, self._running().backend.owned)

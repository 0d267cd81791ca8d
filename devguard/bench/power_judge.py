"""An independent look at a device of the power-cut bench after its boot: what runs, and what it must not have lost.

It knows what was pushed, byte for byte, and asks the device for nothing but its state.
"""

from __future__ import annotations

from devguard.bench.power_memo import Memo
from devguard.bench.power_scenes import Scene
from devguard.bench.power_tally import Tally
from devguard.bench.power_world import Machine, World
from devguard.device.audit import AuditRing
from devguard.device.bootloader import BootState
from devguard.device.counters import Counters, check_no_regression
from devguard.device.counters_codec import decode_counters
from devguard.errors import DevguardError, LocalProtocolError


class Judge:
    """Judges every device of one scene."""

    def __init__(self, world: World, scene: Scene, memo: Memo) -> None:
        self._world = world
        self._scene = scene
        self._memo = memo
        self._good: dict[bytes, bool] = {}

    def boots(self, machine: Machine, tally: Tally) -> None:
        """Switch a device on and count what became of it."""
        try:
            machine.node.boot()
        except DevguardError as error:
            tally.blame("bricked", f"{self._scene.name}: the boot broke off: {error.code}: {error.message}")
            return
        scene, start, counters = self._scene, self._scene.start, machine.load()
        problem = self._image_problem(machine)
        if problem:
            tally.blame("bricked", f"{scene.name}: {problem}")
        elif self._is_new(machine):
            tally.booted_new += 1
        else:
            tally.booted_old += 1
        if machine.therapy.encode() != start.therapy:
            tally.blame("settings_changed", f"{scene.name}: the therapy changed")
        if not _kept(start.counters, counters) or not self._burnt_rightly(machine):
            tally.blame("counter_regressed", f"{scene.name}: a counter went back, or was burnt before the confirm")
        if not self._chained(counters):
            tally.blame("audit_broken", f"{scene.name}: the audit chain does not hold")

    def settled(self, machine: Machine, wanted: int) -> str:
        """What is wrong with a device that has been pushed a release and was switched on; empty: nothing."""
        try:
            machine.node.boot()
        except DevguardError as error:
            return f"the boot after the next push broke off: {error.code}: {error.message}"
        result = machine.node.loader.result
        if self._world.number_of(result.header) != wanted or result.state is not BootState.CONFIRMED:
            return f"the next release ended {result.state}"
        if not self._whole(machine, wanted) or machine.therapy.encode() != self._scene.start.therapy:
            return "the next release is not whole, or the therapy changed"
        return "" if _kept(self._scene.start.counters, machine.load()) else "a counter went back in the next push"

    def _is_new(self, machine: Machine) -> bool:
        if self._scene.of_trust:
            return machine.trust == self._scene.new
        return self._world.number_of(machine.node.loader.result.header) == self._scene.new

    def _image_problem(self, machine: Machine) -> str:
        result, scene = machine.node.loader.result, self._scene
        number = self._world.number_of(result.header)
        if number is None or number not in scene.ends:
            return f"came up {result.state} with {number}"
        if result.state in (BootState.TRIAL, BootState.RECOVERY, BootState.EMPTY):
            return f"came up {result.state}"
        if not set(result.flags) <= scene.flags:
            return f"flags {', '.join(result.flags)}"
        if not self._whole(machine, number):
            return "the image that runs is not whole"
        if machine.load().trust_version != self._world.chain[machine.trust][0].version:
            return "trust document and its counter differ"
        return ""

    def _whole(self, machine: Machine, number: int) -> bool:
        image = self._world.builds[number].image
        return machine.backend.read(self._world.model.layout.primary.image, len(image)) == image

    def _burnt_rightly(self, machine: Machine) -> bool:
        """The security counter is that of the best release which was ever confirmed."""
        counters, sealed = machine.load(), machine.load().sealed
        wanted = max(self._scene.start.counters.security_version, sealed.security_version if sealed else 0)
        return counters.security_version == wanted

    def _chained(self, counters: Counters) -> bool:
        data = self._memo.encoded(counters)
        if data not in self._good:
            self._good[data] = _goes_on(self._scene.start.counters.audit, data)
        return self._good[data]


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

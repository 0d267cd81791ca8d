"""Class G, second part: single faults in the device's judgement."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from devguard.bench.attacks.glitch import Glitch, instrumented
from devguard.bench.attacks.oracle import PATIENCE
from devguard.bench.attacks.rollback import preplace
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import Scene
from devguard.bench.hostile import accepted, ask
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError
from devguard.session.script import Flush, Script, Send
from devguard.session.verbs import Commit, Data, Reboot, encode_message

_PIECE: Final = 4096
_SAMPLE: Final = 6
_DEVICE: Final = "bench-device"
_BOOT: Final = "boot-under-fault"
"""What the names of the threads begin with that are hit: those of a device that runs, and that of one that boots."""


class SingleFault(Row):
    """Every branch that the device comes to while it judges, turned round once: of a release nobody signed, of an older
    one, and at the boot, of what somebody wrote into its flash."""

    id = "G04"
    title = "Fault injection: one skipped instruction or flipped verdict"
    precedent = "MCUboot fault injection hardening #776, #789, #1528, #2735; voltage glitching of microcontrollers"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.D6",)

    def play(self, scene: Scene) -> None:
        own = [MemorySigner.generate(one) for one in (Algorithm.ESP256, Algorithm.ESP256, Algorithm.ML_DSA_65)]
        unsigned = scene.release("1.2.0", 3, signers=own)
        with instrumented(_DEVICE) as glitch:
            for what, build in (("a release nobody signed", unsigned), ("the older release", scene.old)):
                self._sweep(scene, glitch, f"{what}, installed", lambda build=build: _install(scene, build))  # type: ignore[misc]
        older = scene.release("1.0.5", 1, security_version=1)  # one that was never here: what ran before may run again
        for what, build in (("a release nobody signed", unsigned), ("an older release", older)):
            with instrumented(_BOOT) as glitch:
                self._sweep(scene, glitch, f"{what}, found by the boot", lambda build=build: _boot(scene, build))  # type: ignore[misc]
        scene.again()
        scene.goes_through("an honest push", scene.pushing(scene.file(scene.next)))
        scene.runs_whole("afterwards", scene.next)

    def _sweep(self, scene: Scene, glitch: Glitch, what: str, attack: Callable[[], None]) -> None:
        """The attack once without a fault, to learn the way it takes; then with each place on it turned round once."""
        scene.again()
        glitch.seen.clear()
        attack()
        self._look(scene, f"{what}: without a fault")
        way = sorted(glitch.seen)
        places = way if scene.full else way[:: max(1, len(way) // _SAMPLE)]
        struck = 0
        for number in places:
            glitch.armed, glitch.struck = number, False
            attack()
            glitch.armed = None
            struck += glitch.struck
            self._look(scene, f"{what}: {glitch.sites[number].text}")
        scene.holds(f"{what}: {struck} of {len(way)} places on its way turned round, none installed it", struck > 0)

    @staticmethod
    def _look(scene: Scene, what: str) -> None:
        """The device runs what it ran; a device that a fault has crashed is switched off and on first."""
        device = scene.device
        device.power_off()
        device.power_on()
        running, counters = device.node.loader.result.header, device.counters
        good = scene.current.envelope.manifest_digest
        runs = running is not None and running.manifest_digest == good
        sealed = counters.sealed is not None and counters.sealed.manifest_digest == good
        if not (runs and sealed):
            scene.broken.append(f"{what}: installed, or nothing runs any more")
        if not (runs and sealed) or counters.download is not None or counters.outcome is not None:
            scene.again()


def _install(scene: Scene, build: Build) -> None:
    """All that a host without conscience can say to have a release installed, as far as the device lets it."""

    def script() -> Script[None]:
        first = scene.grant()
        yield from accepted(scene.bench(first), scene.offer(build), scene.approval(build, first))
        for at in range(0, len(build.image), _PIECE):
            yield Send(encode_message(Data(at, build.image[at : at + _PIECE])), sealed=True)
        yield from ask(Commit(build.envelope.manifest_digest))
        yield Send(encode_message(Reboot()), sealed=True)
        yield Flush()

    scene.world.clock.advance(PATIENCE)
    try:
        with scene.device.hurry():
            scene.play(script())
    except DevguardError:
        return  # refused, or the device died of it


def _boot(scene: Scene, build: Build) -> None:
    """The release stands in the flash, marked as if it had been judged; nothing outside the flash says so."""
    device = scene.device
    device.power_off()
    kept = device.counters
    preplace(scene, build)
    device.with_counters(kept)
    with ThreadPoolExecutor(1, thread_name_prefix=_BOOT) as pool:
        pool.submit(device.power_on).exception()  # a boot that dies of a fault is a reset, and comes to nothing


ROWS: Final[tuple[type[Row], ...]] = (SingleFault,)

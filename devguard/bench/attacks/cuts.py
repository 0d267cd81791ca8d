"""Class I, second part: the power or the cable goes, at any moment, and comes back."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Final

from devguard.bench.attacks.meddle import sealed_data
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import INSTALLED
from devguard.bench.power import PAIRS, Job, do
from devguard.bench.power_tally import Plan
from devguard.bench.tap import Heading, Passing, Rule
from devguard.device.flash import Operation, Tear
from devguard.link.frames import Kind

_SWEEPS: Final = {"update": 31, "revert": 53, "confirm": 1}
"""Scene of the power bench -> of how many cuts one is made, where not all are."""
_RETRY: Final = 4  # exit status: nobody knows how it ended, look again


class Cuts(Row):
    """Power gone at flash operations of a push, the cable pulled between its frames; the swap, the trial and the
    revert cut everywhere by the bench for that."""

    id = "I01"
    title = "Power or cable loss at every write"
    precedent = (
        "Abbott 2017: previous firmware reloaded, settings lost, devices without function; MCUboot serial recovery"
    )
    attacker = Attacker.OUTSIDER
    regulation = ("5.1", "8.4")

    def play(self, scene: Scene) -> None:
        self._swept(scene)
        steps: list[Operation] = []
        frames = [0]
        scene.device.power_off()
        scene.device.fault = lambda operation, _address, _length: steps.append(operation)
        scene.device.power_on()
        scene.goes_through("a push that nobody cuts", scene.under(counting(frames), scene.pushing(scene.next)))
        scene.runs_whole("afterwards", scene.next)
        for at in _some(len(steps), scene):
            scene.again()
            self._power(scene, at, len(steps))
        for at in _some(frames[0], scene)[:-1]:  # the last is the host's farewell, after the signed report
            scene.again()
            self._cable(scene, at, frames[0])

    @staticmethod
    def _swept(scene: Scene) -> None:
        model = scene.world.model.name
        for name, every in _SWEEPS.items():
            _, tally = do(Job(model, name, PAIRS, Plan(first=1 if scene.full else every)))
            scene.holds(
                f"{name}: {tally.cuts} cuts, no device lost, changed or set back", tally.held and tally.cuts > 0
            )
            scene.broken += tally.faults

    def _power(self, scene: Scene, at: int, count: int) -> None:
        """The power goes in the middle of one flash operation."""
        device, what = scene.device, f"power gone at {at + 1} of {count} flash operations"
        device.power_off()
        device.fault = functools.partial(_cut, itertools.count(), at)
        device.power_on()
        attempt = scene.under(lambda passing: (passing.raw,), functools.partial(self._unknown, scene))
        scene.refuses(what, attempt, "link.timeout", by=By.HOST, allowed=INSTALLED)
        device.power_off()
        device.fault = None
        device.power_on()
        self._onward(scene, what)

    def _cable(self, scene: Scene, at: int, count: int) -> None:
        """The cable is pulled, and plugged in again when the host has given up."""
        what = f"cable out at {at + 1} of {count} frames"
        attempt = scene.under(pulled(at), functools.partial(self._unknown, scene))
        scene.refuses(what, attempt, "link.timeout", by=By.HOST, allowed=INSTALLED)
        self._onward(scene, what)

    @staticmethod
    def _unknown(scene: Scene) -> str | None:
        """A push of which the host may only say that it does not know."""
        answer = scene.push(scene.file(scene.next))
        if (answer.status, answer.data.get("accepted")) != (_RETRY, False):
            scene.broken.append(
                f"a push that was cut ended with {answer.status}, accepted {answer.data.get('accepted')}"
            )
        return answer.code

    @staticmethod
    def _onward(scene: Scene, what: str) -> None:
        """The device runs one of the two, whole; the push that goes on ends with the new one."""
        scene.runs_whole(what, scene.current, scene.next)
        header = scene.device.node.loader.result.header
        if header is None or header.manifest_digest != scene.next.envelope.manifest_digest:
            scene.goes_through(f"{what}, gone on with", scene.pushing(scene.next, "--resume"))
        scene.runs_whole(f"{what}, in the end", scene.next)


def _some(count: int, scene: Scene) -> list[int]:
    """All of them, or three: near the beginning, near the end, and the last."""
    return list(range(count)) if scene.full else sorted({count // 9, count * 8 // 9, count - 1})


def _cut(steps: Iterable[int], at: int, _operation: Operation, _address: int, length: int) -> Tear | None:
    """The power goes at the so-manieth operation, half of it done."""
    return Tear(length // 8 * 4) if next(iter(steps)) == at else None


def counting(frames: list[int], heading: Heading | None = None) -> Rule:
    """Counts the frames that carry something; of one heading, those that are sealed."""

    def rule(passing: Passing) -> Iterable[bytes]:
        frames[0] += _carries(passing) if heading is None else sealed_data(passing, heading)
        return (passing.raw,)

    return rule


def pulled(at: int) -> Rule:
    """Nothing more goes through after so many frames that carry something."""
    seen = [0]

    def rule(passing: Passing) -> Iterable[bytes]:
        seen[0] += _carries(passing)
        return () if seen[0] > at else (passing.raw,)

    return rule


def _carries(passing: Passing) -> bool:
    return passing.frame is not None and passing.frame.kind is Kind.DATA


ROWS: Final[tuple[type[Row], ...]] = (Cuts,)

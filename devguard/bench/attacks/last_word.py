"""Class I, third part: the last word of a push is lost, doubled or forged. Nobody may believe more than was signed."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks.cuts import counting, pulled
from devguard.bench.attacks.meddle import forged, on_number
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import INSTALLED
from devguard.bench.tap import Heading, Rule


class LastWord(Row):
    """The device's signed report does not come, comes twice, or is somebody's; then the station looks again."""

    id = "I05"
    title = "Lost or forged final status: operator believes the wrong thing"
    precedent = "IntelliVue and MDhex: devices without a status; SUIT reports"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("8.4", "11.2")

    def play(self, scene: Scene) -> None:
        frames, answers = [0], [0]
        both = counting(frames), counting(answers, Heading.FROM_DEVICE)
        scene.goes_through(
            "a push, counted",
            scene.under(lambda passing: (both[0](passing), both[1](passing))[0], scene.pushing(scene.next)),
        )
        last = answers[0] - 1
        lost: dict[str, tuple[Rule, tuple[str, ...]]] = {
            "its report lost": (pulled(frames[0] - 2), ("link.timeout",)),
            "its report forged": (_on_answer(last), ("session.tampered",)),
        }
        for what, (rule, codes) in lost.items():
            scene.again()
            attempt = scene.under(rule, scene.pushing(scene.next))
            scene.refuses(what, attempt, *codes, by=By.HOST, allowed=INSTALLED)
            scene.holds(f"{what}: nothing is booked as done", self._booked(scene) == 0)
            self._reconciled(scene, what)
        scene.again()
        twice = scene.under(lambda passing: (passing.raw,) * 2, scene.pushing(scene.next))
        scene.goes_through("every word twice", twice)
        scene.holds("is booked once", self._booked(scene) == 1)

    @staticmethod
    def _booked(scene: Scene) -> int:
        """How many pushes of the next release the log has as done."""
        records = scene.look().log.records
        mine = [one for one in records if one.action == "release.push" and one.code is None]
        return len(mine) - 2  # the honest pushes before

    @staticmethod
    def _reconciled(scene: Scene, what: str) -> None:
        """The next contact tells from the device's signed report what came of it, and nobody is accused."""
        path = scene.folder / "info.grant"
        path.write_bytes(scene.grant().raw)
        asked = ("--port", scene.device.port, "--key", "technician", "--grant", path)
        answer = scene.run("device", "info", *asked)
        report = answer.data.get("report") or {}
        digest = scene.next.envelope.manifest_digest.hex()
        found = (report.get("manifest_digest"), report.get("confirmed"), answer.data.get("changed"))
        scene.holds(f"{what}: the next contact shows it installed", found == (digest, True, []))


def _on_answer(number: int) -> Rule:
    return on_number(number, lambda passing: (forged(passing.raw),), Heading.FROM_DEVICE)


ROWS: Final[tuple[type[Row], ...]] = (LastWord,)

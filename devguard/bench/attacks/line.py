"""Class F: on the line between bench and device, and at its ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Final

from devguard.bench.attacks import line_ends
from devguard.bench.attacks.meddle import forged, noisy, on_number, sealed_by_session, swapping
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER, INSTALLED
from devguard.bench.fake import FakeDevice, recorded_answers
from devguard.bench.hostile import play_back
from devguard.bench.tap import Heading, Passing, Rule, plain_messages

_SAMPLE: Final = (0, 4)
_TAMPERED: Final = "session.tampered"


class Replay(Row):
    """A good push, recorded: its bytes as they were, its messages on a connection of one's own, single frames again."""

    id = "F01"
    title = "Replay a recorded good session"
    precedent = "CVE-2016-5086 (Animas), Medtronic MMT-500/503 recall, CVE-2019-6538 (Conexus)"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("1.A4",)

    def play(self, scene: Scene) -> None:
        start = len(scene.tap.to_device), len(scene.tap.from_device)
        scene.goes_through("a good push, recorded", scene.pushing(scene.next))
        said, heard = scene.tap.to_device[start[0] :], scene.tap.from_device[start[1] :]
        for what in ("the device as it is", "the device reset to before"):
            scene.comes_to_nothing(f"its bytes, {what}", lambda: scene.tap.inject(Heading.TO_DEVICE, said))
            for number, messages in enumerate(plain_messages(said)):
                attempt = scene.hostile(functools.partial(play_back, messages))
                name = f"its messages, connection {number + 1}, {what}"
                scene.refuses(name, attempt, "session.handshake", "session.replay", by=By.DEVICE_ALONE)
            scene.again()
        for number, messages in enumerate(plain_messages(heard)):
            attempt = self._old_answers(scene, messages)
            name = f"the device's answers, connection {number + 1}, to a fresh host"
            scene.refuses(name, attempt, "session.handshake", by=By.HOST)
        self._single_frames(scene)

    @staticmethod
    def _old_answers(scene: Scene, messages: list[bytes]) -> Callable[[], str | None]:
        """A fake in the device's place, which says what the device said then."""

        def attempt() -> str | None:
            with FakeDevice(recorded_answers(messages), scene.world.clock.ticks) as fake, scene.device.hurry():
                return scene.pushing(scene.next, "--port", fake.port)()

        return attempt

    @staticmethod
    def _single_frames(scene: Scene) -> None:
        """Every frame of a live session twice: each counts once."""

        attempt = scene.pushing(scene.next)
        scene.goes_through("a live push, every frame twice", scene.under(lambda passing: (passing.raw,) * 2, attempt))
        scene.runs_whole("every frame twice", scene.next)


class Meddling(Row):
    """Frames of a live, authenticated push: changed, dropped, swapped, repeated, spliced from another session."""

    id = "F02"
    title = "Modify, inject, drop, reorder or splice frames after authentication"
    precedent = "CVE-2022-26394 (Baxter), Conexus, CVE-2018-10596 (CareLink)"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("1.A4", "11.2")

    def play(self, scene: Scene) -> None:
        start = len(scene.tap.to_device)
        scene.goes_through("a good push, recorded", scene.pushing(scene.next))
        sessions = sealed_by_session(scene.tap.to_device[start:])
        sealed = [raw for frames in sessions for raw in frames]
        last = {sum(map(len, sessions[: number + 1])) - 1 for number in range(len(sessions))}
        scene.again()
        for number in range(len(sealed)) if scene.full else _SAMPLE:
            self._fatal(scene, number, sealed[number])
            self._survived(scene, number, alone=number in last)

    @staticmethod
    def _fatal(scene: Scene, number: int, of_then: bytes) -> None:
        """What only somebody on the line can have made ends the session. `of_then`: the same frame of another one."""
        changes: dict[str, Callable[[Passing], Iterable[bytes]]] = {
            "forged": lambda passing: (forged(passing.raw),),
            "spliced from another session": lambda _passing: (of_then,),
        }
        pushing = scene.pushing(scene.next)
        for what, change in changes.items():
            attempt = scene.under(on_number(number, change), pushing)
            name = f"frame {number} {what}"
            # The device falls silent: whoever forges gets no answer, and the host learns no more than that.
            scene.refuses(name, attempt, "link.timeout", by=By.DEVICE, allowed=ACCEPTED_OFFER, device=_TAMPERED)
            scene.again()
        attempt = scene.under(on_number(number, changes["forged"], Heading.FROM_DEVICE), pushing)
        scene.refuses(f"answer {number} forged", attempt, _TAMPERED, by=By.HOST, allowed=INSTALLED)
        scene.runs_whole(f"answer {number} forged", scene.current, scene.next)
        scene.again()

    @staticmethod
    def _survived(scene: Scene, number: int, *, alone: bool) -> None:
        """What a bad line may do as well costs time and nothing else."""
        rules: dict[str, Rule] = {
            "noisy": on_number(number, lambda passing: (noisy(passing.raw),)),
            "dropped": on_number(number, lambda _passing: ()),
            "repeated": on_number(number, lambda passing: (passing.raw,) * 3),
        }
        if not alone:
            rules["swapped with the next"] = swapping(number)
        for what, rule in rules.items():
            scene.goes_through(f"frame {number} {what}", scene.under(rule, scene.pushing(scene.next)))
            scene.runs_whole(f"frame {number} {what}", scene.next)
            scene.again()


ROWS: Final[tuple[type[Row], ...]] = (Replay, Meddling, *line_ends.ROWS)

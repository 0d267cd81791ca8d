"""Class E, last part: a grant to update, used to change what no update may change."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from typing import Any, Final

from devguard import wire
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.hostile import ask
from devguard.device.therapy import Therapy
from devguard.manifest.envelope import Payload
from devguard.session.connect import ANSWER_SECONDS, connect, expect
from devguard.session.script import Receive, Script, Send
from devguard.session.verbs import NONCE_SIZE, Accept, Decommission, LogRequest, Message, Recover

_NO_VERB: Final = 90
_WISHES: Final[dict[str, list[Any]]] = {
    "a basal rate": [_NO_VERB, "set-basal", 0, 30_000],
    "a bolus": [_NO_VERB + 1, "bolus", 10_000],
    "a pacing rate": [_NO_VERB + 2, "lower-rate", 0],
    "a clock": [_NO_VERB + 3, "set-time", 0],
    "an empty log": [_NO_VERB + 4, "clear-log"],
    "a write to memory": [_NO_VERB + 5, 0x2000_0000, b"\xff" * 64],
    "settings, as more fields of a verb there is": [16, {"maximum_bolus_milliunits": 99_000}],
}
"""What one would like to say in a session for an update. None of it is a command of any pump."""


class UpdateForTherapy(Row):
    """In a genuine session for an update: verbs that would change therapy, other actions, settings that ride along, and
    an image that rewrites them at its first boot."""

    id = "E08"
    title = "Update grant abused to change therapy"
    precedent = "CVE-2019-6538 (Conexus memory write), CVE-2019-10964 (MiniMed), CVE-2021-33885 (B. Braun)"
    attacker = Attacker.INSIDER
    regulation = ("1.B1", "1.D5", "5.2")

    def play(self, scene: Scene) -> None:
        for what, fields in _WISHES.items():
            attempt = scene.hostile(functools.partial(self._say, scene, wire.encode(fields)))
            scene.refuses(f"{what}, asked for", attempt, *_UNHEARD, by=By.DEVICE_ALONE)
        others: dict[str, Message] = {
            "to recover": Recover(scene.offer(scene.current)),
            "to read the log": LogRequest(os.urandom(NONCE_SIZE), 0),
            "to erase itself": Decommission(os.urandom(NONCE_SIZE)),
        }
        for what, message in others.items():
            attempt = scene.hostile(functools.partial(self._ask, scene, message))
            scene.refuses(f"asked {what}", attempt, "grant.action", by=By.DEVICE_ALONE)
        settings = b"maximum_bolus_milliunits = 99000"
        envelope = scene.next.envelope
        riding = replace(envelope, payloads={**envelope.payloads, "#settings": Payload(0, len(settings), settings)})
        scene.refuses(
            "settings that ride along", scene.pushing(replace(scene.next, envelope=riding)), *_RIDING, by=By.OFFLINE
        )
        self._rewriting(scene)

    @staticmethod
    def _say(scene: Scene, message: bytes) -> Script[None]:
        yield from connect(scene.bench())
        yield Send(message, sealed=True)
        expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), Accept, sealed=True)

    @staticmethod
    def _ask(scene: Scene, message: Message) -> Script[None]:
        yield from connect(scene.bench())
        yield from ask(message)

    @staticmethod
    def _rewriting(scene: Scene) -> None:
        """The image under trial changes a setting, then says that all is well."""
        before = scene.device.snapshot()

        def under_trial() -> bool:
            scene.device.pressed(_more)
            return True

        scene.device.self_test = under_trial
        attempt = scene.pushing(scene.next)
        scene.refuses("an image that rewrites settings", attempt, "device.self-test", by=By.HOST,
                      allowed=(*ACCEPTED_OFFER, "settings", "journal"))  # fmt: skip
        scene.runs_whole("it went back", scene.current)
        events = [one.name for one in scene.device.counters.audit.events]
        scene.holds("the device says why", "settings-changed" in events)
        scene.holds("its counters were not burnt", scene.device.snapshot().security_version == before.security_version)


_UNHEARD: Final = ("session.order", "wire.malformed")
_RIDING: Final = ("envelope.malformed", "release.components", "image.trailing")


def _more(therapy: Therapy, _now: int) -> None:
    """One setting raised, as by firmware that has the run of the place."""
    settings = dict(therapy.state.settings)
    name = next(iter(settings))
    therapy.state = replace(therapy.state, settings={**settings, name: settings[name] + 1})


ROWS: Final[tuple[type[Row], ...]] = (UpdateForTherapy,)

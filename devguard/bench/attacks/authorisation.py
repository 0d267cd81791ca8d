"""Class E: who may push, and what they try beyond that."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any, Final

from devguard import wire
from devguard.bench.attacks import abuse, people, shortcuts
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.hostile import refused_in_clear, say_plain
from devguard.grant.claims import Action
from devguard.session.verbs import PLAIN, EdhocFailure, Verb, decode_message

_OPCODES: Final = 256
_QUIET_SECONDS: Final = 5.0


class NoSession(Row):
    """Every verb that a session needs, said in clear without one: empty, with a byte, with the most that fits."""

    id = "E01"
    title = "Unauthenticated command or push at the service port"
    precedent = "CVE-2017-12720 (Medfusion 4000), ICSA-15-125-01 (Hospira), CVE-2019-6538 (Conexus), ICSMA-20-079-01"
    attacker = Attacker.OUTSIDER
    regulation = ("1.B1", "8.1")

    def play(self, scene: Scene) -> None:
        payloads: tuple[list[Any], ...] = ([], [b"\x00"], [0, os.urandom(16_000)])
        answers: set[bytes | None] = set()

        def sweep() -> None:
            for number in range(_OPCODES):
                if number in PLAIN:  # what anybody may say; the handshake is attacked by rows of its own
                    continue
                for fields in payloads if scene.full else payloads[number % 3 :][:1]:
                    answers.add(scene.play(say_plain(wire.encode([number, *fields]), _QUIET_SECONDS)))

        before = scene.look().state.audit.count
        scene.comes_to_nothing("every verb without a session", sweep)
        refusals = [decode_message(one, sealed=False) for one in answers if one is not None]
        scene.holds("every answer is a refusal", all(isinstance(one, EdhocFailure) for one in refusals))
        scene.holds("all answers are the same", len(answers) == 1)
        grown = scene.look().state.audit.count - before
        if not scene.world.outside:
            scene.holds(f"the device's log took {grown} events of it and no more", 0 < grown <= 20)
        for verb in Verb:
            if verb not in PLAIN:
                attempt = scene.hostile(functools.partial(refused_in_clear, wire.encode([int(verb)])))
                scene.refuses(f"{verb.name} first of all", attempt, "session.order", by=By.NOBODY)
        scene.goes_through("an honest push afterwards", scene.pushing(scene.next))


class OutOfScope(Row):
    """A genuine grant, used where, when or for what it does not say."""

    id = "E02"
    title = "Authorised technician, wrong ward / model / serial / time window"
    precedent = "FDA premarket guidance, appendix 1.B: least privilege, deny by default"
    attacker = Attacker.INSIDER
    regulation = ("1.B1",)

    def play(self, scene: Scene) -> None:
        for what, scope, code, by in self._scopes(scene):
            grants = [scene.grant(name, **scope) for name in scene.world.technicians()]
            scene.refuses(f"{what}, pushed", scene.pushing(scene.next, grants=grants), code, by=by)
            scene.refuses(f"{what}, at the device", scene.offering(scene.next, grants[0]), code, by=By.DEVICE_ALONE)
        scene.goes_through("the same with grants that cover it", scene.pushing(scene.next))

    @staticmethod
    def _scopes(scene: Scene) -> Iterator[tuple[str, dict[str, Any], str, By]]:
        minute = scene.world.now // 60 % 1440
        later, lapsed = ((minute + 60) % 1440, (minute + 120) % 1440), scene.world.now - 1
        scope = "grant.scope"
        yield "another model", {"models": frozenset({"another-model"})}, scope, By.OFFLINE
        yield "another serial", {"serials": frozenset({"P-6"})}, scope, By.DEVICE
        yield "another ward", {"sites": frozenset({"cardio"})}, scope, By.DEVICE
        yield "another hour of the day", {"hours": later}, scope, By.OFFLINE
        yield "another release", {"any_release": False, "release_digest": bytes(32)}, scope, By.OFFLINE
        yield "another action", {"actions": frozenset({Action.READ_LOG})}, "grant.action", By.OFFLINE
        yield "training that has lapsed", {"trained_until": lapsed}, "grant.training", By.OFFLINE


ROWS: Final[tuple[type[Row], ...]] = (NoSession, OutOfScope, *people.ROWS, *shortcuts.ROWS, *abuse.ROWS)

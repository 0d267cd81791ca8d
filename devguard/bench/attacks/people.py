"""Class E, second part: technicians who left, who approve themselves, who use a grant twice."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from devguard.bench.attacks.oracle import PATIENCE, Attempt
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.attacks.vendor import HOUR
from devguard.bench.hostile import accepted, offer_unjudged
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import Signer
from devguard.custody.memory import MemorySigner
from devguard.grant.claims import Action, Grant
from devguard.manifest.description import Safety
from devguard.manifest.model import Clock
from devguard.session.approval import LIFETIME, ApprovalRequest, sign_approval
from devguard.session.connect import Connected, connect
from devguard.session.script import Script

_DAY: Final = 24 * HOUR
BEGUN: Final = (*ACCEPTED_OFFER, "boot", "grant_epoch")
"""What an honest offer that was accepted on the way has changed by then."""


class Leaver(Row):
    """Somebody who was suspended a minute ago, whose training has lapsed, or who is somebody else under an old name."""

    id = "E03"
    title = "Leaver, suspended or untrained technician"
    precedent = "HIPAA 164.308(a)(5); insiders who leave"
    attacker = Attacker.INSIDER
    regulation = ("10.2", "14.2")

    def play(self, scene: Scene) -> None:
        file, held = scene.file(scene.next), scene.grant()
        must = functools.partial(scene.world.must, scene.home)
        for name in scene.world.technicians():
            must("technician", "add", name, "--any-site", "--trained-until", "2029-01-01")
        must("technician", "suspend", "technician", "--reason", "left the hospital")
        scene.world.clock.advance(60)
        seconds = [scene.grant(name) for name in scene.world.technicians()[1:]]
        push = scene.pushing(file, grants=[held, *seconds])
        scene.refuses("suspended a minute ago, pushed here", push, "grant.revoked", by=By.OFFLINE)
        authority = scene.vendor.home / "keys" / "authority.key"
        issue = scene.commanding("grant", "issue", "--authority", authority, "--technician", "technician",
                                 "--model", scene.world.model.name, "--serial", scene.device.serial,
                                 "-o", scene.folder / "new.grant")  # fmt: skip
        scene.refuses("a new grant for who is suspended", issue, "grant.revoked", by=By.OFFLINE)
        other = scene.vendor.home / "keys" / "second.key"
        told = ("--name", "technician", "--any-site", "--trained-until", "2029-01-01")
        reissued = scene.commanding("technician", "add", other, *told)
        scene.refuses("the old name for somebody new", reissued, "grant.technician", "file.exists", by=By.OFFLINE)
        self._elsewhere(scene, held)
        lapsed = scene.grant(trained_until=scene.world.now - _DAY, epoch=1)
        scene.refuses("training lapsed yesterday", scene.offering(scene.next, lapsed), "grant.training",
                      by=By.DEVICE_ALONE)  # fmt: skip
        if scene.world.model.facts.clock is Clock.RTC:
            scene.world.clock.advance(13 * HOUR)
            late = scene.offering(scene.next, held)
            scene.refuses("half a day later", late, "grant.expired", "grant.revoked", by=By.DEVICE_ALONE)

    @staticmethod
    def _elsewhere(scene: Scene, held: Grant) -> None:
        """At a bench that heard nothing of it: until any grant of the next epoch has been seen by the device."""
        colleague = scene.bench(scene.grant("second", epoch=1), "second")
        seen = scene.hostile(lambda: connect(colleague))
        scene.goes_through("a colleague's visit carries the next epoch to the device", seen)
        scene.refuses("the leaver afterwards, on a host of their own", scene.offering(scene.next, held),
                      "grant.revoked", by=By.DEVICE_ALONE)  # fmt: skip


Approve = Callable[[Connected, Grant], tuple[bytes, bytes]]
"""The second person's word: approval and grant, once the session and the first grant are known."""


class SelfApproval(Row):
    """One person on both chairs, and approvals made for something else, in another session, or too long ago."""

    id = "E04"
    title = "Two-person rule: approve your own push, or the approver is a puppet key"
    precedent = "separation of duties; insiders"
    attacker = Attacker.INSIDER
    regulation = ("1.B1",)

    def play(self, scene: Scene) -> None:
        build = scene.release("1.2.0", 3, safety=Safety(None, True, True))
        own = MemorySigner.generate(Algorithm.ESP256)
        scene.refuses("alone", self._offering(scene, build, None), "grant.quorum", by=By.DEVICE_ALONE)
        puppets: tuple[tuple[str, Grant, Signer], ...] = (
            ("a second key of the same person", scene.grant(holder=own.key), own),
            (
                "the same key under another name",
                scene.grant("second", holder=scene.signer("technician").key),
                scene.signer("technician"),
            ),
            ("a key no authority knows", scene.grant("second"), own),
        )
        for what, grant, signer in puppets:
            approval = self._approval(scene, build, signer, grant)
            codes = ("grant.quorum", "signature.invalid", "signature.algorithm", "grant.holder")
            scene.refuses(what, self._offering(scene, build, approval), *codes, by=By.DEVICE_ALONE)
        for what, changed in self._changes(scene):
            approval = self._approval(scene, build, scene.signer("second"), scene.grant("second"), **changed)
            scene.refuses(what, self._offering(scene, build, approval), "grant.quorum", by=By.DEVICE_ALONE)
        for what, scope in (("of another ward", {"sites": frozenset({"cardio"})}), ("for another device",
                            {"serials": frozenset({"P-6"})})):  # fmt: skip
            approval = self._approval(scene, build, scene.signer("second"), scene.grant("second", **scope))
            scene.refuses(f"an approver {what}", self._offering(scene, build, approval), "grant.scope",
                          by=By.DEVICE_ALONE)  # fmt: skip
        self._pushed(scene, build)
        good = self._approval(scene, build, scene.signer("second"), scene.grant("second"))
        scene.world.clock.advance(PATIENCE)
        scene.goes_through("two persons", self._offering(scene, build, good))

    @staticmethod
    def _offering(scene: Scene, build: Build, approve: Approve | None) -> Attempt:
        first = scene.grant()

        def script() -> Script[Any]:
            if approve is None:
                return offer_unjudged(scene.bench(first), scene.offer(build))
            return accepted(scene.bench(first), scene.offer(build), lambda session: approve(session, first))

        return scene.hostile(script)

    @staticmethod
    def _approval(scene: Scene, build: Build, signer: Signer, second: Grant, **changed: Any) -> Approve:
        """Signs what was asked for, or with `changed` something near it."""

        def approve(session: Connected, first: Grant) -> tuple[bytes, bytes]:
            fields: dict[str, Any] = {
                "session_id": session.session_id,
                "serial": session.identity.serial,
                "manifest_digest": build.envelope.manifest_digest,
                "action": str(Action.UPDATE),
                "first_grant": hashlib.sha256(first.untagged).digest(),
                "expires": scene.world.now + LIFETIME,
                "second_grant": hashlib.sha256(second.untagged).digest(),
                **changed,
            }
            digest = fields.pop("second_grant")
            return sign_approval(ApprovalRequest(**fields), signer, digest), second.untagged

        return approve

    @staticmethod
    def _changes(scene: Scene) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "an approval of another session", {"session_id": os.urandom(32)}
        yield "an approval for another serial", {"serial": "P-6"}
        yield "an approval of another release", {"manifest_digest": scene.next.envelope.manifest_digest}
        yield "an approval of another action", {"action": str(Action.READ_LOG)}
        yield "an approval beside another grant", {"first_grant": bytes(32)}
        yield "an approval under another grant", {"second_grant": bytes(32)}
        if scene.world.model.facts.clock is Clock.RTC:
            yield "an approval that has expired", {"expires": scene.world.now - 1}
            yield "an approval for four hours", {"expires": scene.world.now + 4 * HOUR}

    @staticmethod
    def _pushed(scene: Scene, build: Build) -> None:
        """The honest host, asked to let one person approve for both."""
        first, again = scene.grant(), scene.grant()
        paths = [scene.folder / f"{one.cti.hex()}.grant" for one in (first, again)]
        for path, one in zip(paths, (first, again), strict=True):
            path.write_bytes(one.raw)
        pair = ("--second-key", "technician", "--second-grant", paths[1])
        options = ("--port", scene.device.port, "--key", "technician", "--grant", paths[0], *pair)
        attempt = scene.commanding("push", scene.file(build), *options)
        scene.refuses("one person for both, pushed", attempt, "grant.quorum", by=By.OFFLINE)


class UsedTwice(Row):
    """A grant for one use: again on the same device, after a reset, from a restored bench, on another device."""

    id = "E05"
    title = "Single-use push grant replayed on a second device or a second time"
    precedent = "MiniMed remote recall (record and replay), CVE-2016-5086 (Animas)"
    attacker = Attacker.STOLEN_TECHNICIAN_KEY
    regulation = ("1.A4",)

    def play(self, scene: Scene) -> None:
        single = scene.grant(max_uses=1)
        seconds = [scene.grant(name) for name in scene.world.technicians()[1:]]
        newer = scene.release("1.3.0", 4)
        scene.goes_through("its one use", scene.pushing(scene.file(scene.next), grants=[single, *seconds]))
        file = scene.file(newer)
        for reset in ("", ", after a reset"):
            scene.refuses(f"again at the device{reset}", self._offering(scene, newer, single), "grant.replay",
                          by=By.DEVICE_ALONE, allowed=("nonce",))  # fmt: skip
            scene.device.power_off()
            scene.device.power_on()
        fresh = [scene.grant(name) for name in scene.world.technicians()[1:]]
        again = scene.pushing(file, grants=[single, *fresh])
        scene.refuses("again at the station", again, "grant.replay", by=By.OFFLINE)
        other = scene.another("X-4712")
        before = other.snapshot()
        elsewhere = scene.hostile(lambda: offer_unjudged(scene.bench(single), scene.offer(newer)), other.port)
        scene.holds("refused by another device", elsewhere() == "grant.scope")
        scene.holds("which stays as it was", not before.differences(other.snapshot()))
        scene.again()
        self._race(scene)
        if scene.world.model.facts.clock is Clock.NONE:
            scene.again()
            self._nonces(scene)

    def _nonces(self, scene: Scene) -> None:
        """A device without a clock: its nonce stands for the hours it cannot see."""
        bound, newer = scene.grant(), scene.release("1.3.0", 4)
        scene.goes_through("under its nonce", scene.pushing(scene.next, grants=[bound]))
        for what, one in (
            ("under a nonce that is used up", bound),
            ("under a nonce it never gave", scene.grant(device_nonce=bytes(16))),
            ("under none", scene.grant(device_nonce=None)),
        ):
            scene.refuses(what, self._offering(scene, newer, one), "grant.replay", by=By.DEVICE_ALONE)

    @staticmethod
    def _offering(scene: Scene, build: Build, grant: Grant) -> Attempt:
        return scene.hostile(lambda: accepted(scene.bench(grant), scene.offer(build), scene.approval(build, grant)))

    def _race(self, scene: Scene) -> None:
        """Two hosts with the same grant: the first that is accepted has it, for its release alone."""
        single, newer = scene.grant(max_uses=1), scene.release("1.3.0", 4)
        scene.goes_through("the first of two hosts", self._offering(scene, scene.next, single))
        scene.refuses("the second, with another release", self._offering(scene, newer, single), "grant.replay",
                      by=By.DEVICE_ALONE)  # fmt: skip
        scene.goes_through("the first goes on", self._offering(scene, scene.next, single))


ROWS: Final[tuple[type[Row], ...]] = (Leaver, SelfApproval, UsedTwice)

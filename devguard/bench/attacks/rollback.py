"""Class C: genuine releases at the wrong time, in the wrong order or in the wrong company.

Rows on whole releases are in `sets`; here is what is too old, too new, or kept from getting old.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from devguard.bench.attacks import sets
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.hostile import accepted, ask
from devguard.bench.stage import Build
from devguard.device.counters import Counters, MemoryCounterStore
from devguard.device.download import SlotWriter
from devguard.device.flash import FlashMemory
from devguard.device.header import SlotHeader, parts_of
from devguard.device.slots import Slots
from devguard.manifest.envelope import sever
from devguard.manifest.release import release_facts
from devguard.session.connect import connect
from devguard.session.script import Script
from devguard.session.verbs import Commit, Message, Reboot

_DAY: Final = 86_400
_HIGHEST: Final = 2**32 - 1


class OlderRelease(Row):
    """The release before, with all its valid signatures, and the one that runs, before and after a reset."""

    id = "C01"
    title = "Replay of an older, correctly signed, vulnerable release"
    precedent = "TUF and Uptane rollback attack; pithead #856 (RAUC signed downgrade)"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.D1", "8.4")

    def play(self, scene: Scene) -> None:
        rebuilt = scene.release("1.1.1", 1)
        cases = (
            ("the older release", scene.old, "version.rollback"),
            ("the older number under a newer version", rebuilt, "version.rollback"),
            ("the release that runs", scene.current, "version.current"),
        )
        for reset in ("", ", after a reset"):
            for what, build, code in cases:
                file = scene.file(build)
                scene.refuses(f"{what}, pushed{reset}", scene.pushing(file), code, by=By.HOST)
                scene.refuses(f"{what}, offered{reset}", scene.offering(build), code, by=By.DEVICE_ALONE)
            scene.device.power_off()
            scene.device.power_on()


def preplace(scene: Scene, build: Build) -> None:
    """Put a release into the secondary slot of the device that is off, marked for its trial, as a thief with the
    device open would: by the device's own writer, past everything that judges."""
    device, layout = scene.device, scene.world.model.layout
    store = MemoryCounterStore(device.counters)
    writer = SlotWriter(Slots(FlashMemory(layout.flash, device.backend), layout), store, budget=99)
    facts, whole = release_facts(build.envelope), build.measured.whole
    envelope = sever(build.envelope)
    header = SlotHeader.of(
        size=whole.size,
        digest_algorithm=whole.algorithm,
        digest=whole.digest,
        manifest_digest=build.envelope.manifest_digest,
        sequence=facts.sequence,
        security_version=facts.security_version,
        version=facts.version or "",
        envelope=envelope,
        parts=parts_of(facts.components),
    )
    writer.prepare(header.manifest_digest, header.size, scene.world.now)
    writer.write(0, build.image)
    writer.finish(header, envelope)
    writer.mark_pending(scene.world.now)
    device.with_counters(store.load())


class OtherPath(Row):
    """The older image reaches the flash without an offer; then each way to make an image run is tried on it."""

    id = "C02"
    title = "Downgrade through the other code path (permanent/confirm flag)"
    precedent = "MCUboot #1708: downgrade prevention by the security counter, bypassed by revert and confirm"
    attacker = Attacker.INSIDER
    regulation = ("1.D1", "8.4")

    def play(self, scene: Scene) -> None:
        for what, message in (("commit", Commit(scene.old.envelope.manifest_digest)), ("reboot", Reboot())):
            attempt = scene.hostile(functools.partial(_at_once, scene, message))
            scene.refuses(f"{what} without an offer", attempt, "session.order", by=By.DEVICE_ALONE)
        named = scene.hostile(lambda: _other_commit(scene))
        allowed = (*ACCEPTED_OFFER, "boot")  # the slot of the image before is the one that is written
        scene.refuses("commit of the older one", named, "session.order", by=By.DEVICE_ALONE, allowed=allowed)
        for what, change in _STATES.items():
            scene.again()
            self._boot(scene, what, scene.old, change)
        scene.again()
        burnt = scene.release("1.2.0", 3, security_version=6)
        scene.goes_through("a release that burns a security version", scene.pushing(scene.file(burnt)))
        newer = scene.release("1.3.0", 4, security_version=5)
        self._boot(scene, "a newer number under a burnt security version", newer, _as_it_is)
        scene.again()
        scene.goes_through("an honest push", scene.pushing(scene.file(scene.next)))
        scene.runs_whole("afterwards", scene.next)

    @staticmethod
    def _boot(scene: Scene, what: str, build: Build, change: Callable[[Counters], Counters]) -> None:
        device = scene.device
        device.power_off()
        before = device.counters
        preplace(scene, build)
        device.with_counters(change(device.counters))
        waiting = device.counters.pending is not None
        device.power_on()
        after, running = device.counters, device.node.loader.result.header
        scene.holds(f"{what}: the device runs what it ran", running is not None and running == before.sealed)
        kept = (before.sealed, before.security_version, before.installed_sequence, None)
        found = (after.sealed, after.security_version, after.installed_sequence, after.pending)
        scene.holds(f"{what}: counters stay, nothing waits", found == kept)
        said = [event.code for event in after.audit.events if event.name == "update-refused"]
        if waiting:
            scene.holds(f"{what}: the boot refused it with version.rollback", said[-1:] == ["version.rollback"])


def _as_it_is(now: Counters) -> Counters:
    return now


_STATES: Final[dict[str, Callable[[Counters], Counters]]] = {
    "marked for its trial": _as_it_is,
    "marked in flash alone": lambda now: replace(now, pending=None),
    "said to be the image before": lambda now: replace(now, pending=None, previous=now.pending),
}
"""What a thief may write into the counters beside the image."""


def _at_once(scene: Scene, message: Message) -> Script[Message]:
    yield from connect(scene.bench())
    return (yield from ask(message))


def _other_commit(scene: Scene) -> Script[Message]:
    first = scene.grant()
    yield from accepted(scene.bench(first), scene.offer(scene.next), scene.approval(scene.next, first))
    return (yield from ask(Commit(scene.old.envelope.manifest_digest)))


class FastForward(Row):
    """Numbers so high that nothing could ever follow: of a release, of its security version, of a grant's epoch."""

    id = "C04"
    title = "Fast-forward: a stolen key or insider burns the version space"
    precedent = "TUF fast-forward attack; MCUboot: the security counter was updated before the image was confirmed"
    attacker = Attacker.STOLEN_VENDOR_KEY
    regulation = ("1.C3", "8.4")

    def play(self, scene: Scene) -> None:
        step = scene.world.document.max_step
        current = scene.device.counters.installed_sequence
        cases = (
            ("the highest sequence number", scene.release("9.0.0", _HIGHEST, security_version=1)),
            ("one more than a step", scene.release("9.0.1", current + step + 1, security_version=1)),
            ("the highest security version", scene.release("9.0.2", 3, security_version=_HIGHEST)),
        )
        for what, build in cases:
            file = scene.file(build)
            scene.refuses(f"{what}, pushed", scene.pushing(file), "version.exhausted", by=By.HOST)
            scene.refuses(f"{what}, offered", scene.offering(build), "version.exhausted", by=By.DEVICE_ALONE)
        epoch = scene.grant(epoch=_HIGHEST)
        scene.refuses("the highest grant epoch", scene.offering(scene.next, epoch), "grant.revoked", by=By.DEVICE_ALONE)
        stolen = scene.release("9.0.0", _HIGHEST, signers=("release",))
        threshold = ("signature.hybrid", "signature.threshold")
        scene.refuses("by the stolen key alone", scene.pushing(scene.file(stolen)), *threshold, by=By.OFFLINE)
        self._unconfirmed(scene)
        scene.goes_through("the next honest release", scene.pushing(scene.file(scene.next)))
        scene.runs_whole("afterwards", scene.next)

    @staticmethod
    def _unconfirmed(scene: Scene) -> None:
        """The security version is not burnt by an image that fails its self-test."""
        highest = scene.release("1.9.0", 3, security_version=scene.device.counters.security_version + 5)
        before = scene.device.counters.security_version
        scene.device.self_test = lambda: False
        code = scene.pushing(scene.file(highest))()
        scene.device.settle()
        scene.holds(f"a failed self-test is told ({code})", code is not None)
        scene.holds("and burns no counter", scene.device.counters.security_version == before)
        scene.runs_whole("after the revert", scene.current)
        scene.again()


class Frozen(Row):
    """A shelf that is kept old, and the clock of the laptop that would notice, turned back."""

    id = "C05"
    title = "Freeze: stale metadata plus a rolled-back laptop clock"
    precedent = "TUF indefinite freeze attack; programmers kept offline after a vendor's network was shut down"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("6.1",)
    needs = ("tuf", "shelf")

    def play(self, scene: Scene) -> None:
        shelf = self._shelf(scene)
        first = ("--root", shelf / "metadata" / "1.root.json")
        scene.goes_through("the first refresh", scene.commanding("shelf", "refresh", "--from", shelf, *first))
        file = scene.file(scene.next)
        scene.world.clock.advance(40 * _DAY)
        refresh = scene.commanding("shelf", "refresh")
        scene.refuses("forty days later", refresh, "shelf.freeze", by=By.OFFLINE)
        seen = scene.world.now
        for what, wrong in (("turned back by sixty days", -60 * _DAY), ("in 1970", 86_400 - seen)):
            scene.world.clock.wrong = wrong
            scene.refuses(f"a clock {what}: refresh", refresh, "clock.rollback", by=By.OFFLINE)
            scene.refuses(f"a clock {what}: push", scene.pushing(file), "clock.rollback", by=By.OFFLINE)
        scene.world.clock.wrong = 0
        scene.goes_through("the vendor signs it anew", lambda: self._renew(scene, shelf))
        scene.goes_through("and the bench follows", refresh)
        floor = scene.device.counters.clock_floor
        scene.holds("the device's own floor never went back", floor >= scene.world.kept.counters.clock_floor)
        scene.goes_through("an honest push", scene.pushing(file))

    @staticmethod
    def _shelf(scene: Scene) -> Path:
        """The vendor's shelf with the honest release on it."""
        home, shelf = scene.folder / "vendor", scene.folder / "shelf"
        shutil.copytree(scene.vendor.home, home)
        roots = ("--root", "root", "--root", "root-2", "--threshold", "2")
        must = functools.partial(scene.world.must, home)
        trust = scene.folder / "current.trust"
        trust.write_bytes(scene.world.trust)
        must("shelf", "init", shelf, *roots, "--trust", trust)
        must("shelf", "publish", scene.file(scene.next, "published"), "--shelf", shelf, "--trust", trust,
             "--key", "root", "--key", "root-2")  # fmt: skip
        return shelf

    @staticmethod
    def _renew(scene: Scene, shelf: Path) -> str | None:
        keys = ("--key", "root", "--key", "root-2")
        return scene.world.run(scene.folder / "vendor", "shelf", "renew", shelf, "--within", "30d", *keys).code


ROWS: Final[tuple[type[Row], ...]] = (OlderRelease, OtherPath, FastForward, Frozen, *sets.ROWS)

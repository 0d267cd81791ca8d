"""Class G, third part: a device somebody has opened, written into, listened at, and given back."""

from __future__ import annotations

import os
import shutil
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import INSTALLED
from devguard.bench.stage import Build
from devguard.bench.tap import Heading
from devguard.bench.watched import LISTENS, STARTS, watched
from devguard.device.emulator import SocketLine
from devguard.device.flash import PowerCut
from devguard.device.settings import Anchor, What, seal
from devguard.device.therapy import UNPROVEN, Plan
from devguard.device.therapy_files import NAMES, TherapyFiles
from devguard.errors import DevguardError
from devguard.grant.claims import Action

_PAGE: Final = 4096
_SPEEDS: Final = (termios.B300, termios.B9600, termios.B115200, termios.B921600)
_KNOCKS: Final = (
    b"\r", b"\r\n\r\n", b"\x03", b"\x1a\x1a", b"?\r\n", b"help\n", b"root\nroot\n", b"admin\radmin\r", b" ",
    b"\x1b\x1b", b"AT\r\n", b"+++", b"ATZ\r", b"\x06\x09AAAA\r\n", b"C" * 40, b"\x15" * 20, b"\x01\x01\xfe",
    b"\x7f" * 16, b"U" * 64, b"reset\r\n", b"sh\n", b"printenv\r", b"\xff\xfb\x01", b"\x00" * 256, b"mcumgr\n",
)  # fmt: skip
"""What opens a console, a boot prompt, a modem, SMP, XMODEM, Telnet, or a programmer's bootloader elsewhere."""


class AlteredFlash(Row):
    """One byte of a page changed after a good update: of the image that runs, of its papers, of the one before."""

    id = "G01"
    title = "Flash altered after a good update (before boot)"
    precedent = "Illumina iSeq 100 (no secure boot), CVE-2025-4394 (MyCareLink), NIST SP 800-193"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.D1", "8.4")

    def play(self, scene: Scene) -> None:
        device, layout = scene.device, scene.world.model.layout
        # Of the same security version: the image before is one that may still run.
        build = scene.release("1.2.0", 3, security_version=device.counters.security_version)
        scene.goes_through("a good update", scene.pushing(build))
        device.settle()
        kept, size = device.kept(), len(build.image)
        in_image = [layout.primary.image + at for at in range(0, size, _PAGE)]
        papers = [layout.primary.header, layout.primary.envelope + 9, layout.secondary.image]
        every = range(0, layout.flash.size, _PAGE) if scene.full else ()
        for at in sorted({*in_image, *papers, *every}):
            device.restore(kept)
            device.backend.data[at] ^= 0x10
            device.power_on()
            self._look(scene, at, [scene.current] if at in in_image else [build, scene.current])
        device.restore(kept)
        device.backend.data[in_image[0]] ^= 0x10
        device.power_on()
        told = _report(scene)
        found = (told.get("boot_state"), "version.older" in told.get("flags", ()))
        scene.holds("the device signs that it fell back to an older release", found == ("fallback", True))
        self._both(scene, in_image[0])

    @staticmethod
    def _look(scene: Scene, at: int, wanted: list[Build]) -> None:
        """Of an image that was altered nothing runs; where its papers were, it may run, or the one before."""
        device = scene.device
        header = device.node.loader.result.header
        found = [one for one in wanted if header is not None and header.manifest_digest == one.envelope.manifest_digest]
        start = scene.world.model.layout.primary.image
        whole = any(device.backend.read(start, len(one.image)) == one.image for one in found)
        scene.holds(f"byte {at:#x}: what runs is a release, whole", whole)
        if len(wanted) == 1:
            said = [event.name for event in device.counters.audit.events]
            scene.holds(f"byte {at:#x}: and the device's log says so", "fallback" in said)

    def _both(self, scene: Scene, at: int) -> None:
        """No slot is whole any more: nothing runs, the therapy goes on, and only recover brings the release back."""
        device, layout = scene.device, scene.world.model.layout
        scene.again()
        device.power_off()
        for slot in (layout.primary, layout.secondary):
            device.backend.data[slot.image + at % _PAGE] ^= 0x10
        device.power_on()
        told = _report(scene)
        scene.holds("with both slots altered nothing runs", told.get("boot_state") == "recovery")
        scene.holds("and the therapy goes on", device.ticks_on())
        again = scene.hostile(lambda: scene.update(scene.current).push())
        scene.refuses("the release again, as an update", again, "grant.action", by=By.DEVICE_ALONE)
        grants = [scene.grant(name, actions=frozenset({Action.RECOVER})) for name in scene.world.technicians()]
        file = scene.file(scene.current)
        options = [one for one in scene.world.push_options(scene.folder, grants) if one not in ("--delta", "never")]
        scene.goes_through("device recover", scene.commanding("device", "recover", file, *options))
        scene.runs_whole("afterwards", scene.current)


def _report(scene: Scene) -> dict[str, Any]:
    """What `devguard device info` is told, signed."""
    one = scene.grant()
    path = scene.folder / "info.grant"
    path.write_bytes(one.raw)
    asked = ("--port", scene.device.port, "--key", "technician", "--grant", path)
    return dict(scene.run("device", "info", *asked).data.get("report") or {})


class Console(Row):
    """What opens a shell on other devices, said to this one, at its boot and afterwards; and other doors."""

    id = "G03"
    title = "Debug console, JTAG or hidden shell reachable"
    precedent = "CVE-2018-8868 and CVE-2025-4386 (MyCareLink), CVE-2020-25156 (B. Braun), CVE-2017-12726 (Smiths)"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.A3", "1.D2")

    def play(self, scene: Scene) -> None:
        with watched() as seen:
            for moment in ("while it runs", "while it boots"):
                before = scene.tap.moved[1]
                scene.comes_to_nothing(f"{len(_KNOCKS)} knocks {moment}", lambda m=moment: self._knock(scene, m))  # type: ignore[misc]
                said = scene.tap.moved[1] - before
                scene.holds(f"{moment}: no banner, no prompt, no echo, {said} bytes", said == 0)
        doors = [one.event for one in seen if one.event in LISTENS | STARTS]
        scene.holds(f"the device opened no other door; not {doors[:3]}", not doors)
        for place in ("socket://0.0.0.0:0", "socket://[::]:0", "socket://192.0.2.1:7"):
            scene.refuses(f"an emulated device on {place}", lambda at=place: _listening(at), "link.port", by=By.NOBODY)  # type: ignore[misc]
        scene.goes_through("an honest push afterwards", scene.pushing(scene.next))

    @staticmethod
    def _knock(scene: Scene, moment: str) -> None:
        device = scene.device
        if moment == "while it boots":
            device.power_off()
            scene.tap.inject(Heading.TO_DEVICE, b"".join(_KNOCKS))
            scene.tap.turn()
            device.power_on()
            device.settle()
            return
        port = os.open(device.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            for number, knock in enumerate(_KNOCKS):
                settings = termios.tcgetattr(port)
                settings[4] = settings[5] = _SPEEDS[number % len(_SPEEDS)]
                termios.tcsetattr(port, termios.TCSANOW, settings)
                termios.tcsendbreak(port, 0)
                os.write(port, knock)
                device.settle()
        finally:
            os.close(port)


def _listening(place: str) -> str | None:
    try:
        SocketLine(place).close()
    except DevguardError as error:
        return error.code
    return None


class EditedSettings(Row):
    """The therapy's settings as they lie in the device: edited, sealed with a key of one's own, another patient's, of
    last month, gone."""

    id = "G05"
    title = "Therapy settings or calibration partition edited in place"
    precedent = "CVE-2025-4394 (MyCareLink), CVE-2021-33885 (B. Braun), NIST SP 800-193 on critical data"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.D1", "5.1")

    def play(self, scene: Scene) -> None:
        safe = scene.world.model.therapy
        for what, flag, change in self._changes(scene):
            scene.again()
            folder = _stored(scene, scene.device.folder, "mine")
            change(folder)
            device = scene.device
            device.power_off()
            device.therapy = TherapyFiles(folder, scene.world.model).load()
            device.power_on()
            found = device.therapy.plan == Plan(safe.safe_settings, safe.safe_basal) and device.therapy.idle
            scene.holds(f"{what}: the device gives its safe therapy", found)
            scene.holds(f"{what}: an alarm is open", UNPROVEN in device.therapy.alarms)
            told = _report(scene)
            scene.holds(f"{what}: and it signs why", {UNPROVEN, flag} <= set(told.get("flags", ())))
            scene.refuses(f"{what}: an update meanwhile", scene.pushing(scene.next), "device.alarm", by=By.DEVICE)
        scene.again()
        folder = _stored(scene, scene.device.folder, "good")
        scene.device.power_off()
        scene.device.therapy = TherapyFiles(folder, scene.world.model).load()
        scene.device.power_on()
        scene.holds("as they were stored they are gone by", not scene.device.therapy.damage)
        scene.goes_through("an honest push", scene.pushing(scene.next))

    @staticmethod
    def _changes(scene: Scene) -> Iterator[tuple[str, str, Callable[[Path], object]]]:
        model = scene.world.model
        name = min(model.therapy.settings)

        def edited(folder: Path) -> None:
            data = bytearray((folder / "settings.cbor").read_bytes())
            data[len(data) // 2] ^= 0x10
            (folder / "settings.cbor").write_bytes(data)

        def resealed(folder: Path) -> None:
            kept = TherapyFiles(folder, model).load().plan
            plan = replace(kept, settings={**kept.settings, name: 1})
            forged = seal(Anchor(os.urandom(32), 9), What.SETTINGS, plan.encode(), 9)
            (folder / "settings.cbor").write_bytes(forged)

        def swapped(folder: Path) -> None:
            theirs = _stored(scene, scene.another("XX-9").folder, "theirs")
            shutil.copy(theirs / "settings.cbor", folder / "settings.cbor")

        def rolled_back(folder: Path) -> None:
            old = (folder / "settings.cbor").read_bytes()
            files = TherapyFiles(folder, model)
            course = files.load()
            files.enter(course, replace(course.plan, settings={**course.plan.settings, name: 1}))
            (folder / "settings.cbor").write_bytes(old)

        yield "a bit of them", "settings-mac", edited
        yield "sealed with another key", "settings-mac", resealed
        yield "another patient's", "settings-mac", swapped
        yield "those of last month", "settings-rollback", rolled_back
        yield "none at all", "settings-missing", lambda folder: (folder / "settings.cbor").unlink()


def _stored(scene: Scene, folder: Path, name: str) -> Path:
    """A copy of what a device has stored of its therapy."""
    made = scene.folder / name
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for one in NAMES:
        shutil.copy(folder / one, made / one)
    return made


class Unhealthy(Row):
    """Images that fail their trial, hang in it, or are to be confirmed before it has ended."""

    id = "G06"
    title = "Confirm without health check; never confirm; counter burned before confirm"
    precedent = "MCUboot: the counter raised before the image is confirmed, #2811; Boston Scientific ACCOLADE 2025"
    attacker = Attacker.INSIDER
    regulation = ("5.1", "8.4")

    def play(self, scene: Scene) -> None:
        build = scene.release("1.2.0", 3, security_version=scene.device.counters.security_version + 3)
        before, device = scene.device.counters, scene.device
        early: list[str | None] = []

        def fails() -> bool:
            early.append(_confirmed(scene))
            early.append(None if device.counters.security_version == before.security_version else "burnt")
            return False

        device.self_test = fails
        allowed = (*(one for one in INSTALLED if one not in ("security_version", "installed_sequence")), "boot")
        push = scene.pushing(build)
        scene.refuses("an image that fails its self-test", push, "device.self-test", by=By.HOST, allowed=allowed)
        scene.holds("confirm before its end is refused, no counter moves", early == ["device.unconfirmed", None])
        scene.runs_whole("after the revert", scene.current)
        self._hangs(scene, build)
        scene.again()
        scene.goes_through("a healthy one", scene.pushing(build))
        scene.runs_whole("afterwards", build)
        scene.holds("raises the counter", scene.device.counters.security_version == before.security_version + 3)

    @staticmethod
    def _hangs(scene: Scene, build: Build) -> None:
        """It never comes to an end of its trial: the watchdog, or somebody at the switch, resets it each time."""
        scene.again()
        device, before = scene.device, scene.device.counters

        def hangs() -> bool:
            raise PowerCut("the watchdog has bitten")

        device.self_test = hangs
        attempt = scene.under(lambda passing: (passing.raw,), scene.pushing(build))
        scene.refuses("an image that hangs", attempt, "link.timeout", by=By.HOST, allowed=INSTALLED)
        device.power_off()
        for _ in range(scene.world.model.trial_boots + 2):
            try:
                device.power_on()
            except PowerCut:
                continue
            break
        after, header = device.counters, device.node.loader.result.header
        runs = header is not None and header.manifest_digest == scene.current.envelope.manifest_digest
        scene.holds("it is reverted after its trials, whatever resets it", runs)
        kept = (after.security_version, after.installed_sequence) == (
            before.security_version,
            before.installed_sequence,
        )
        scene.holds("and has burnt no counter", kept)
        said = [event.name for event in after.audit.events]
        scene.holds("which the device's log says", "update-reverted" in said)


def _confirmed(scene: Scene) -> str | None:
    try:
        scene.device.node.loader.confirm()
    except DevguardError as error:
        return error.code
    return None


ROWS: Final[tuple[type[Row], ...]] = (AlteredFlash, Console, EditedSettings, Unhealthy)

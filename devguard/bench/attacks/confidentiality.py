"""Class B: what the port, the line or a stolen device gives away."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devguard import wire
from devguard.bench.attacks.on_disk import DeviceOnDisk
from devguard.bench.attacks.oracle import PATIENCE
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import Attempt, By, Scene
from devguard.bench.attacks.vendor import HOUR, IMAGE_SIZE, PEOPLE, TECHNICIANS
from devguard.bench.hostile import say_plain, say_sealed
from devguard.bench.stage import Build
from devguard.cose.sign import Signer
from devguard.custody.memory import MemorySigner
from devguard.device.storage import DeviceDirectory
from devguard.errors import DevguardError, LocalProtocolError
from devguard.grant.claims import Action
from devguard.manifest.model import Clock
from devguard.session.connect import greet
from devguard.session.verbs import KeepAlive, RefusedReply, Verb, decode_message, encode_message

_MARKERS: Final = 32
_MARKER_SIZE: Final = 16
_QUIET: Final = 1.0
_NAMES: Final = ("/", "../../etc/passwd", "slot0", "key", "settings", "log", "\\\\server\\share", "x" * 300)


class Listening(Row):
    """A recording of an update, of a report and of a log: what in it tells of firmware, of people, of the device."""

    id = "B01"
    title = "Passive capture of firmware and patient data on the serial line"
    precedent = "CVE-2019-6540 (Conexus), CVE-2016-5084 (Animas), CVE-2017-12716 (Abbott), CVE-2021-33883 (B. Braun)"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("1.E1",)

    def play(self, scene: Scene) -> None:
        markers = [os.urandom(_MARKER_SIZE) for _ in range(_MARKERS)]
        pad = (IMAGE_SIZE - _MARKERS * _MARKER_SIZE) // _MARKERS
        build = scene.release("1.2.0", 3, image=b"".join(marker + os.urandom(pad) for marker in markers))
        start = len(scene.tap.to_device), len(scene.tap.from_device)
        scene.goes_through("a push, recorded", scene.pushing(scene.file(build)))
        info = scene.commanding("device", "info", *self._who(scene))
        scene.goes_through("a report, recorded", info)
        recorded = bytes(scene.tap.to_device[start[0] :]) + bytes(scene.tap.from_device[start[1] :])
        unstuffed = recorded.replace(b"\0", b"")
        found = [marker for marker in markers if marker in recorded or marker in unstuffed]
        scene.holds(f"none of {_MARKERS} marks of the image is in the recording", not found)
        names = [PEOPLE[name][0].encode() for name in scene.world.technicians()]
        settings = scene.device.therapy.settings_digest()
        for what, secret in (("a technician's name", names), ("the digest of therapy settings", [settings])):
            scene.holds(f"{what} is not in it", not any(one in recorded for one in secret))
        digest = build.envelope.manifest_digest
        scene.holds("nor which release it was", digest not in recorded)
        scene.holds("nor the serial number", scene.device.serial.encode() not in recorded)

    @staticmethod
    def _who(scene: Scene) -> list[Any]:
        return ["--port", scene.device.port, "--serial", scene.device.serial]


class ReadBack(Row):
    """Every verb there is not, with names of things one would like to have, without a session and inside one."""

    id = "B02"
    title = "Firmware and secrets read back through the update port"
    precedent = "Zephyr #30265 (MCUmgr file system), CVE-2021-33882, CVE-2018-5448 (Medtronic 2090)"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.E1", "1.B1")

    def play(self, scene: Scene) -> None:
        unknown = [number for number in range(24, 256) if number not in frozenset(Verb)]
        answers: list[bytes] = []
        wanted = 10_000 if scene.full else 24
        messages = [
            wire.encode([unknown[number % len(unknown)], _NAMES[number % len(_NAMES)], number])
            for number in range(wanted)
        ]
        half = wanted // 2
        scene.comes_to_nothing("in clear", functools.partial(self._clear, scene, messages[:half], answers))
        scene.world.clock.advance(PATIENCE)
        scene.comes_to_nothing("in a session", functools.partial(self._sealed, scene, messages[half:], answers))
        image = scene.current.image
        secrets = [image[at : at + _MARKER_SIZE] for at in range(0, len(image) - _MARKER_SIZE, 512)]
        scene.holds("no byte of the image came out", not any(one in answer for one in secrets for answer in answers))
        scene.holds("every answer is short", all(len(answer) <= 200 for answer in answers))
        scene.holds("every answer in a session is a refusal", all(map(_is_refusal, self._inside)))
        scene.holds("and ends it", self._ended(scene, messages[0]))
        scene.world.clock.advance(PATIENCE)
        scene.goes_through("an honest push", scene.pushing(scene.file(scene.next)))

    @staticmethod
    def _clear(scene: Scene, messages: list[bytes], answers: list[bytes]) -> None:
        for message in messages:
            answer = scene.play(say_plain(message, _QUIET))
            answers += [answer] if answer is not None else []

    def __init__(self) -> None:
        self._inside: list[bytes] = []

    def _sealed(self, scene: Scene, messages: list[bytes], answers: list[bytes]) -> None:
        for message in messages:
            with scene.device.hurry():  # it lets the last answer reach a bench that is gone
                _, said = scene.play(say_sealed(scene.bench(), [message]))
            self._inside += [one for one in said if one is not None]
        answers += self._inside

    @staticmethod
    def _ended(scene: Scene, message: bytes) -> bool:
        """Whether nobody answers any more after one such message, not even to an honest word."""
        with scene.device.hurry():
            _, said = scene.play(say_sealed(scene.bench(), [message, encode_message(KeepAlive())]))
        return said[0] is not None and said[1] is None


class StolenAndSold(Row):
    """A device and a station after their working life, read to the last byte, before and after the device's erasure."""

    id = "B04"
    title = "Stolen or resold programmer still holds patient data, Wi-Fi keys and technician credentials"
    precedent = "CVE-2018-18984 (Medtronic 2090), CVE-2022-26390 (Baxter), CVE-2016-8375 (BD Alaris), Rapid7 2023"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.C2", "1.E1", "14.3")

    def play(self, scene: Scene) -> None:
        world, clock = scene.world, scene.world.clock
        factory = scene.signer("factory")
        device = DeviceOnDisk(world.model, scene.folder / "device", _RESOLD, world.trust, factory, clock)
        with device:
            for number in range(20 if scene.full else 1):
                build = scene.release(f"1.{number}.0", number + 1)
                scene.goes_through(f"a push in its life, {number + 1}", self._pushing(scene, device, build))
                clock.advance(2 * HOUR)
            self._searched(scene, device, "at work", self._everybodys(scene))
            kept = self._own_secrets(device)
            scene.holds("the device's own keys are there, and its own alone", self._found(device.folder, kept) == kept)
            scene.goes_through("decommissioned by two technicians", self._decommissioning(scene, device))
            self._refuses_all(scene, device)
        scene.goes_through("its certificate of erasure", scene.commanding("device", "erasure", scene.folder / _PAPER))
        self._searched(scene, device, "decommissioned", [*self._everybodys(scene), *kept])
        with device:
            self._refuses_all(scene, device)
        scene.refuses("enrolled anew by one person", functools.partial(self._enrolled, device), _TWO, by=By.NOBODY)

    @staticmethod
    def _options(scene: Scene, device: DeviceOnDisk, action: Action, people: tuple[str, ...]) -> list[str | Path]:
        """Port, keys and fresh grants for that device."""
        options: list[str | Path] = ["--port", device.port, "--baud", scene.world.baud, "--serial", device.serial]
        clockless = scene.world.model.facts.clock is Clock.NONE
        nonce = {"device_nonce": scene.play(greet(), device.port).nonce} if clockless else {}
        for name, prefix in zip(people, ("--", "--second-"), strict=False):
            fields = {"serials": frozenset({device.serial}), "actions": frozenset({action}), "any_release": True}
            one = scene.grant(name, **fields, **nonce)
            path = scene.folder / f"{one.cti.hex()}.grant"
            path.write_bytes(one.raw)
            options += [f"{prefix}key", name, f"{prefix}grant", path]
        return options

    def _pushing(self, scene: Scene, device: DeviceOnDisk, build: Build) -> Attempt:
        options = self._options(scene, device, Action.UPDATE, scene.world.technicians())
        return scene.commanding("push", scene.file(build), *options, "--progress", "none", "--delta", "never")

    def _decommissioning(self, scene: Scene, device: DeviceOnDisk) -> Attempt:
        options = self._options(scene, device, Action.DECOMMISSION, TECHNICIANS)
        return scene.commanding("device", "decommission", "-o", scene.folder / _PAPER, *options)

    def _refuses_all(self, scene: Scene, device: DeviceOnDisk) -> None:
        options = self._options(scene, device, Action.UPDATE, scene.world.technicians())
        scene.finds("a push to it", scene.commanding("push", scene.file(scene.next), *options), "device.decommissioned")

    @staticmethod
    def _enrolled(device: DeviceOnDisk) -> str | None:
        with DeviceDirectory(device.folder, device.model) as directory:
            try:
                device.enrol(directory)
            except DevguardError as error:
                return error.code
        return None

    @staticmethod
    def _everybodys(scene: Scene) -> list[bytes]:
        """What may lie in clear nowhere: private keys of technicians and of the station's own people, their words."""
        return [*(_private(scene.signer(name)) for name in TECHNICIANS), scene.vendor.passphrase.encode()]

    @staticmethod
    def _own_secrets(device: DeviceOnDisk) -> list[bytes]:
        """Its private keys as they lie there."""
        return [path.read_bytes() for path in sorted(device.folder.glob("device-*.key"))]

    @staticmethod
    def _found(folder: Path, secrets: list[bytes]) -> list[bytes]:
        data = [
            path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < _BIG
        ]
        return [one for one in secrets if any(one in each for each in data)]

    def _searched(self, scene: Scene, device: DeviceOnDisk, when: str, secrets: list[bytes]) -> None:
        places = {"the device's folder": device.folder, "the station's home": scene.home}
        for name, folder in places.items():
            scene.holds(f"{when}: no secret in clear in {name}", not self._found(folder, secrets))


_RESOLD: Final = "SOLD-1"
_PAPER: Final = "erasure"
_TWO: Final = "signature.threshold"
_BIG: Final = 64 << 20


def _private(signer: Signer) -> bytes:
    """The private number of a P-256 or Ed25519 key, which every form of the key holds."""
    if not isinstance(signer, MemorySigner):
        raise LocalProtocolError("key.token", "the bench's keys are in files")
    private = signer.private
    if isinstance(private, Ed25519PrivateKey):
        return private.private_bytes_raw()
    return int(private.private_numbers().private_value).to_bytes(32, "big")


def _is_refusal(answer: bytes) -> bool:
    return isinstance(decode_message(answer, sealed=True), RefusedReply)


ROWS: Final[tuple[type[Row], ...]] = (Listening, ReadBack, StolenAndSold)

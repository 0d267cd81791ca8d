"""Class D, second part: genuine keys in the wrong hands, on the wrong object, in the wrong device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from devguard.bench.attacks.oracle import PATIENCE, Attempt
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.vendor import HOUR
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import TYP_APPROVAL, TYP_GRANT, TYP_REPORT, TYP_TRUST, read_sign1, sign1, sign_many
from devguard.custody.memory import MemorySigner
from devguard.grant.claims import Grant, read_grant
from devguard.manifest.model import Clock
from devguard.session.credentials import OwnCredential
from devguard.trust.document import parse_trust

THRESHOLD: Final = ("signature.threshold", "signature.hybrid")


def both(scene: Scene, what: str, build: Build, *codes: str) -> None:
    """A release that the honest host and the device have to refuse alike."""
    scene.refuses(f"{what}, pushed", scene.pushing(scene.file(build)), *codes, by=By.OFFLINE)
    scene.refuses(f"{what}, offered", scene.offering(build), *codes, by=By.DEVICE_ALONE)


class StolenLaptop(Row):
    """The technician's key file and grant on another machine: without the passphrase, too late, after a word from the
    authority."""

    id = "D05"
    title = "Stolen technician laptop or cloned token"
    precedent = "CVE-2024-45678 (EUCLEAK), unattended CareLink programmers"
    attacker = Attacker.STOLEN_TECHNICIAN_KEY
    regulation = ("1.A2",)

    def play(self, scene: Scene) -> None:
        file = scene.file(scene.next)
        for number in range(20 if scene.full else 3):
            wrong = {"DEVGUARD_PASSPHRASE": f"guess {number}"}
            attempt = self._pushing(scene, file, wrong)
            scene.refuses(f"guess {number + 1} at the passphrase", attempt, "key.passphrase", by=By.OFFLINE)
        stolen = scene.grant()
        seconds = [scene.grant(name) for name in scene.world.technicians()[1:]]
        scene.world.clock.advance(9 * HOUR)
        late = scene.pushing(file, grants=[stolen, *seconds])
        scene.refuses("after eight hours, pushed", late, "grant.expired", by=By.OFFLINE)
        if scene.world.model.facts.clock is Clock.RTC:
            late = scene.offering(scene.next, stolen)
            scene.refuses("after eight hours, offered", late, "grant.expired", by=By.DEVICE_ALONE)
        self._after(scene, stolen)

    @staticmethod
    def _pushing(scene: Scene, file: Path, env: dict[str, str]) -> Attempt:
        options = scene.world.push_options(scene.folder)
        return scene.commanding("push", file, *options, env=env)

    @staticmethod
    def _after(scene: Scene, stolen: Grant) -> None:
        """The authority raises the epoch, an honest push carries it to the device, and the thief comes with what he
        has: it was genuine, it may even be in its time, and it is worth nothing."""
        scene.again()
        stolen = scene.grant()
        scene.world.clock.advance(HOUR)
        grants = [scene.grant(name, epoch=1) for name in scene.world.technicians()]
        scene.goes_through("an honest push under the next epoch", scene.pushing(scene.file(scene.next), grants=grants))
        newer = scene.release("1.3.0", 4)
        codes = ("grant.revoked", "grant.replay", "grant.nonce")
        scene.refuses("the thief's grant afterwards", scene.offering(newer, stolen), *codes, by=By.DEVICE_ALONE)


class WrongPurpose(Row):
    """Every key signs every kind of object that another key should sign; one kind of object is said to be another."""

    id = "D06"
    title = "Key-purpose confusion: technician key signs firmware, image key signs a grant"
    precedent = "RAUC: any S/MIME certificate of the CA passes by default; cross-protocol reuse of signatures"
    attacker = Attacker.INSIDER
    regulation = ("1.B1",)

    def play(self, scene: Scene) -> None:
        for name in ("technician", "authority", "factory", "root"):
            build = scene.release("1.2.0", 3, signers=("release", name, "quality"))
            both(scene, f"a release signed with the key of {name}", build, *THRESHOLD, "key.purpose", "key.unknown")
        for name in ("release", "quality", "factory", "root", "second"):
            wrong = scene.grant(signers=[scene.signer(name)], issuer=scene.person(name))
            codes = ("key.purpose", "key.unknown", "grant.signature", "grant.malformed")
            scene.refuses(f"a grant signed with the key of {name}", scene.offering(scene.next, wrong), *codes,
                          by=By.DEVICE_ALONE)  # fmt: skip
        _, genuine = parse_trust(scene.world.trust)
        for name in ("release", "authority", "factory"):
            document = sign_many([scene.signer(name)], genuine.payload or b"", typ=TYP_TRUST).encode()
            path = scene.folder / f"{name}.trust"
            path.write_bytes(document)
            attempt = scene.commanding("verify", scene.file(scene.next), "--trust", path)
            scene.refuses(f"a trust document signed with the key of {name}", attempt, "trust.signature",
                          "signature.threshold", "trust.malformed", by=By.OFFLINE)  # fmt: skip
        self._retyped(scene)

    @staticmethod
    def _retyped(scene: Scene) -> None:
        """The claims of a grant, signed by the authority itself as something else."""
        claims = read_sign1(scene.grant().untagged, tagged=False).payload or b""
        for typ in (None, TYP_APPROVAL, TYP_REPORT, TYP_TRUST):
            signed = read_grant(sign1(scene.signer("authority"), claims, typ=typ).encode())
            what = f"the claims of a grant, signed as {typ or 'nothing in particular'}"
            scene.refuses(what, scene.offering(scene.next, signed), "key.purpose", by=By.DEVICE_ALONE)
        again = read_grant(sign1(scene.signer("authority"), claims, typ=TYP_GRANT).encode())
        seconds = [scene.grant(name) for name in scene.world.technicians()[1:]]
        push = scene.pushing(scene.file(scene.next), grants=[again, *seconds])
        scene.world.clock.advance(PATIENCE)
        scene.goes_through("the same claims, signed as a grant", push)


class StatefulKey(Row):
    """Nothing to attack: no key here has a state that could be set back."""

    id = "D07"
    title = "State reuse of a stateful hash-based signing key (LMS)"
    precedent = "NIST SP 800-208 state management; CNSA 2.0"
    attacker = Attacker.LAZY_VENDOR
    regulation = ("9.2",)
    absent = "devguard signs with no stateful hash-based keys: post-quantum signatures are ML-DSA (FIPS 204)"

    def play(self, scene: Scene) -> None:
        """Never called."""
        scene.holds("no LMS key exists", condition=True)


class OneForAll(Row):
    """What the keys of an opened device say of those of the next one: nothing."""

    id = "D09"
    title = "One opened device reveals the key of all others (shared or serial-derived key)"
    precedent = "CVE-2019-10964 (MiniMed), CVE-2016-5085 (Animas), shared SSH keys (GE MDhex)"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.C2",)

    def play(self, scene: Scene) -> None:
        other = scene.another("X-4712")
        mine, theirs = _public(scene.device.identity.credentials), _public(other.identity.credentials)
        scene.holds("two devices share no key", bool(mine) and not mine & theirs)
        tried = 0
        for secret in _recipes(other.serial, scene.world.model.name):
            for algorithm in (Algorithm.ESP256, Algorithm.ED25519):
                try:
                    guessed = MemorySigner.from_seed(
                        algorithm, secret if algorithm is Algorithm.ED25519 else secret * 2
                    )
                except ValueError:  # no number below the order of the curve
                    continue
                tried += 1
                if guessed.key.thumbprint in theirs:
                    scene.broken.append("the device's key follows from its serial number")
        scene.holds(f"{tried} keys that follow from serial and model are not its key", tried >= 50)
        file, before = scene.file(scene.next), other.snapshot()
        wrong = scene.pushing(file, "--port", other.port, "--serial", scene.device.serial)
        scene.refuses("the opened device in the other's place", wrong, "device.identity", by=By.HOST)
        scene.holds("which is as it was", not before.differences(other.snapshot()))


def _public(credentials: Mapping[int, OwnCredential]) -> set[bytes]:
    """Thumbprints of a device's keys."""
    return {one.sign.key.thumbprint for one in credentials.values()}


def _recipes(serial: str, model: str) -> Iterator[bytes]:
    """Secrets that a lazy factory would derive from what is printed on the device."""
    parts = (serial, model, model + serial, serial + model, serial[::-1], f"{model}/{serial}", serial.lower())
    for text in parts:
        for name in ("sha256", "sha3_256", "blake2s"):
            yield hashlib.new(name, text.encode()).digest()
        yield hashlib.pbkdf2_hmac("sha256", text.encode(), b"devguard", 1)
        yield text.encode().ljust(32, b"\0")[:32]


ROWS: Final[tuple[type[Row], ...]] = (StolenLaptop, WrongPurpose, StatefulKey, OneForAll)

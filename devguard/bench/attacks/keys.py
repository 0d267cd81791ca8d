"""Class D: keys that were stolen, revoked, shared, weak or made for something else."""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from devguard import wire
from devguard.bench.attacks.image_integrity import KID
from devguard.bench.attacks.oracle import Attempt
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.attacks.vendor import HOUR, PEOPLE
from devguard.bench.hostile import offer_unjudged
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_APPROVAL, TYP_GRANT, TYP_REPORT, TYP_TRUST, Signer, read_sign1, sign1, sign_many
from devguard.custody.keyfile import KeyInfo, create_key, export_public, load_signer
from devguard.custody.memory import MemorySigner
from devguard.grant.claims import Grant, read_grant
from devguard.manifest.envelope import add_signature, signature_payload
from devguard.manifest.model import Clock
from devguard.session.credentials import OwnCredential
from devguard.session.script import Script
from devguard.session.trust_push import push_trust
from devguard.trust.document import parse_trust

_PATIENCE: Final = 5.0  # what a device makes a technician wait after failed handshakes, and a little more
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_THRESHOLD: Final = ("signature.threshold", "signature.hybrid")


def _both(scene: Scene, what: str, build: Build, *codes: str) -> None:
    """A release that the honest host and the device have to refuse alike."""
    scene.refuses(f"{what}, pushed", scene.pushing(scene.file(build)), *codes, by=By.OFFLINE)
    scene.refuses(f"{what}, offered", scene.offering(build), *codes, by=By.DEVICE_ALONE)


class StolenReleaseKey(Row):
    """Whoever has one vendor key, or two of the release role, and makes up what is missing."""

    id = "D01"
    title = "One vendor signing key (online CI key) stolen"
    precedent = "TUF and Uptane compromise resilience; MSI and Intel Boot Guard key leak"
    attacker = Attacker.STOLEN_VENDOR_KEY
    regulation = ("4.7",)

    def play(self, scene: Scene) -> None:
        own = MemorySigner.generate(Algorithm.ML_DSA_65)
        cases: tuple[tuple[str, Sequence[str | Signer]], ...] = (
            ("one release key", ("release",)),
            ("one release key and a quality key of one's own", ("release", own)),
            ("two of three release keys", ("release", "release-2")),
            ("two of three and a quality key of one's own", ("release", "release-2", own)),
            ("the quality key alone", ("quality",)),
            ("the quality key and one release key", ("quality", "release")),
        )
        for what, signers in cases:
            _both(scene, what, scene.release("1.2.0", 3, signers=signers), *_THRESHOLD, "key.unknown")
        scene.goes_through("the release that all signed", scene.pushing(scene.file(scene.next)))


class CountedTwice(Row):
    """One key, one person, in as many forms as there are."""

    id = "D02"
    title = "The same key counted twice toward the threshold"
    precedent = "CVE-2020-6174 (TUF), CVE-2020-15093 (tough), Uptane #209"
    attacker = Attacker.STOLEN_VENDOR_KEY
    regulation = ("4.7",)

    def play(self, scene: Scene) -> None:
        one = scene.release("1.2.0", 3, signers=("release", "quality"))
        for what, block in self._again(scene, one):
            twice = replace(one, envelope=add_signature(one.envelope, block))
            codes = (*_THRESHOLD, "signature.invalid", "envelope.malformed", "key.unknown")
            _both(scene, what, twice, *codes)
        code = self._one_person(scene)
        scene.holds(f"two keys of one person count once ({code})", code == "signature.threshold")

    @staticmethod
    def _again(scene: Scene, build: Build) -> Iterator[tuple[str, bytes]]:
        """The release key's block once more: the same, made anew, malleated, under another id."""
        signer, payload = scene.signer("release"), signature_payload(build.envelope)
        made = sign1(signer, payload, typ=None, detached=True)
        yield "its block twice", build.envelope.auth_blocks[0]
        yield "a second signature of it", made.encode()
        half = len(made.signature) // 2
        other = _P256_ORDER - int.from_bytes(made.signature[half:], "big")
        yield (
            "the mirrored signature",
            replace(made, signature=made.signature[:half] + other.to_bytes(half, "big")).encode(),
        )
        headers = wire.decode(made.protected)
        named = {**headers, KID: scene.signer("release-2").key.thumbprint}
        yield "under another key's id", replace(made, protected=wire.encode(named)).encode()
        beside = {KID: scene.signer("release-2").key.thumbprint}
        yield "with another key's id beside it", replace(made, unprotected=beside).encode()
        yield "in an untagged block", made.encode(tagged=False)

    @staticmethod
    def _one_person(scene: Scene) -> str | None:
        """What a vendor says whose document lists two release keys of one person and asks for two persons."""
        home = scene.folder / "vendor"
        shutil.copytree(scene.vendor.home / "keys", home / "keys")
        _key(scene, home, "second-key", PEOPLE["release"][0], RoleName.RELEASE)
        second = load_signer(home / "keys" / "second-key.key", scene.vendor.passphrase.encode)
        roles = ("--role", "release=release,second-key,release-2:2", "--role", "quality=quality:1")
        init = ("trust", "init", scene.folder / "own", "--root", "root", "--threshold", "1", "--expires", "2029-01-01")
        scene.world.must(home, *init, *roles)
        suit = scene.file(scene.release("1.2.0", 3, signers=("release", second, "quality")), "one-person")
        return scene.world.run(home, "verify", suit).code


def _key(scene: Scene, home: Path, name: str, person: str, role: RoleName, *, development: bool = False) -> KeyInfo:
    """A new P-256 key in a home."""
    return create_key(
        home / "keys" / f"{name}.key",
        name=name,
        person=person,
        role=role,
        algorithm=Algorithm.ESP256,
        development=development,
        passphrase=scene.vendor.passphrase.encode(),
        parallel=1,
    )


class DevelopmentKey(Row):
    """Keys that anybody has: marked for development, published with a bootloader or a standard, of no random source."""

    id = "D03"
    title = "Development/test key accepted in production"
    precedent = "GHSA-gcxh-546h-phg4 (MCUboot development keys), PKfail"
    attacker = Attacker.LAZY_VENDOR
    regulation = ("1.A3", "4.7")

    def play(self, scene: Scene) -> None:
        keys = scene.home / "keys"
        marked = _key(scene, scene.home, "marked", "Lazy Release", RoleName.RELEASE, development=True)
        known = {
            "seed-zero": MemorySigner.from_seed(Algorithm.ED25519, bytes(32)),
            "seed-counting": MemorySigner.from_seed(Algorithm.ED25519, bytes(range(32))),
            "mldsa-zero": MemorySigner.from_seed(Algorithm.ML_DSA_65, bytes(32)),
        }
        for name, signer in known.items():
            info = KeyInfo(name, "Lazy Release", str(RoleName.RELEASE), signer.key, development=False)
            (keys / f"{name}.pub").write_bytes(export_public(info))
        root = scene.vendor.home / "keys" / "root.key"
        for name in ("marked", *known):
            reference = keys / f"{name}.pub" if name in known else Path("marked")
            init = ("trust", "init", scene.folder / name, "--root", root, "--threshold", "1", "--expires", "2029-01-01")
            attempt = scene.commanding(*init, "--role", f"release={reference}:1")
            scene.refuses(f"{name} in a production document", attempt, "key.development", by=By.OFFLINE)
        for name, signer in known.items():
            build = scene.release("1.2.0", 3, signers=("release", signer, "quality"))
            _both(scene, f"a release signed with {name}", build, *_THRESHOLD, "key.unknown")
        scene.holds("the key itself says that it is for development", marked.development)
        holder = known["seed-zero"]
        grant = scene.grant(holder=holder.key)
        attempt = scene.hostile(lambda: _offer_as(scene, grant, holder))
        scene.refuses("a technician with a published key", attempt, "key.development", by=By.DEVICE_ALONE)


def _offer_as(scene: Scene, grant: Grant, signer: Signer) -> Script[Any]:
    return offer_unjudged(scene.bench(grant, signer=signer), scene.offer(scene.next))


class RevokedKey(Row):
    """A rotation that revokes a key, followed in the wrong order, by forged versions, and by releases of that key."""

    id = "D04"
    title = "Revoked key still trusted; skipped or forged root versions"
    precedent = "CVE-2020-15163 (TUF: an invalid root later trusted); RAUC: revocation lists off by default"
    attacker = Attacker.STOLEN_VENDOR_KEY
    regulation = ("9.4",)

    def play(self, scene: Scene) -> None:
        chain = self._chain(scene)
        forged = self._forged(chain[1])
        give = functools.partial(self._give, scene)
        folder = self._folder(scene, "skipped", {1: chain[0], 3: chain[2]})
        follow = scene.commanding("trust", "follow", folder / "3.trust")
        scene.refuses("version 3 without 2, at the station", follow, "trust.gap", by=By.OFFLINE)
        scene.refuses("version 3 without 2, at the device", give([chain[2]]), "trust.gap", by=By.DEVICE_ALONE)
        codes = ("trust.signature", "signature.threshold", "trust.malformed")
        other = self._folder(scene, "forged", {1: chain[0], 2: forged})
        follow = scene.commanding("trust", "follow", other / "2.trust")
        scene.refuses("a version 2 that new roots alone signed, at the station", follow, *codes, by=By.OFFLINE)
        for what, more in (("alone", [forged]), ("and a true version 3", [forged, chain[2]])):
            scene.refuses(f"the same {what}, at the device", give(more), *codes, by=By.DEVICE_ALONE)
        scene.device.power_off()
        scene.device.power_on()
        scene.goes_through("the true chain, at the device", give(chain[1:]))
        scene.holds("it holds version 3", scene.device.counters.trust_version == 3)
        bad = scene.release("1.2.0", 3, signers=("release-2", "release-3", "quality"))
        scene.refuses(
            "a release by the revoked key", scene.offering(bad), *_THRESHOLD, "key.revoked", by=By.DEVICE_ALONE
        )
        scene.refuses("the old document again", give(chain[:1]), "trust.rollback", by=By.DEVICE_ALONE)
        good = scene.release("1.2.0", 3, signers=("release", "release-2", "quality"))
        scene.goes_through("the station follows", lambda: self._follow(scene, chain))
        scene.goes_through("a release by those who are left", scene.pushing(scene.file(good)))

    @staticmethod
    def _chain(scene: Scene) -> list[bytes]:
        """Versions 1 to 3: 2 revokes the key release-3, 3 is an ordinary rotation. As the vendor's roots make them."""
        home, folder = scene.folder / "vendor", scene.folder / "trust"
        shutil.copytree(scene.vendor.home, home)
        folder.mkdir()
        (folder / "1.trust").write_bytes(scene.world.trust)
        (folder / "current.trust").write_bytes(scene.world.trust)
        must = functools.partial(scene.world.must, home)
        must("trust", "revoke", folder, home / "keys" / "release-3.key")
        must("trust", "rotate", folder)
        return [(folder / f"{version}.trust").read_bytes() for version in (1, 2, 3)]

    @staticmethod
    def _forged(genuine: bytes) -> bytes:
        """The payload of version 2 with a root of one's own, signed by it."""
        own = MemorySigner.generate(Algorithm.ESP256)
        _, sign = parse_trust(genuine)
        return sign_many([own], sign.payload or b"", typ=TYP_TRUST).encode()

    @staticmethod
    def _give(scene: Scene, chain: list[bytes]) -> Attempt:
        return scene.hostile(lambda: push_trust(scene.bench(), chain))

    @staticmethod
    def _folder(scene: Scene, name: str, versions: dict[int, bytes]) -> Path:
        folder = scene.folder / name
        folder.mkdir()
        for version, data in versions.items():
            (folder / f"{version}.trust").write_bytes(data)
        return folder

    def _follow(self, scene: Scene, chain: list[bytes]) -> str | None:
        folder = self._folder(scene, "true", dict(enumerate(chain, 1)))
        return scene.run("trust", "follow", folder / "2.trust", folder / "3.trust").code


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
            _both(scene, f"a release signed with the key of {name}", build, *_THRESHOLD, "key.purpose", "key.unknown")
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
        scene.world.clock.advance(_PATIENCE)
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
        file = scene.file(scene.next)
        wrong = scene.pushing(file, "--port", other.port, "--serial", scene.device.serial)
        scene.refuses("the opened device in the other's place", wrong, "device.identity", by=By.HOST)
        before = other.snapshot()
        scene.comes_to_nothing("and nothing happened to it", lambda: None)
        scene.holds("nor to the other", not before.differences(other.snapshot(), allowed=ACCEPTED_OFFER))


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


ROWS: Final[tuple[type[Row], ...]] = (
    StolenReleaseKey,
    CountedTwice,
    DevelopmentKey,
    RevokedKey,
    StolenLaptop,
    WrongPurpose,
    StatefulKey,
    OneForAll,
)
TO_WRITE: Final[dict[str, str]] = {}

"""Class D: keys that were stolen, revoked, shared, weak or made for something else."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from devguard import wire
from devguard.bench.attacks import misused
from devguard.bench.attacks.image_integrity import KID
from devguard.bench.attacks.misused import THRESHOLD, both
from devguard.bench.attacks.oracle import Attempt
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.vendor import PEOPLE
from devguard.bench.hostile import offer_unjudged
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_TRUST, Signer, sign1, sign_many
from devguard.custody.keyfile import KeyInfo, create_key, export_public, load_signer
from devguard.custody.memory import MemorySigner
from devguard.grant.claims import Grant
from devguard.manifest.envelope import add_signature, signature_payload
from devguard.session.script import Script
from devguard.session.trust_push import push_trust
from devguard.trust.document import parse_trust

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


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
            both(scene, what, scene.release("1.2.0", 3, signers=signers), *THRESHOLD, "key.unknown")
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
            codes = (*THRESHOLD, "signature.invalid", "envelope.malformed", "key.unknown")
            both(scene, what, twice, *codes)
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
            both(scene, f"a release signed with {name}", build, *THRESHOLD, "key.unknown")
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
            "a release by the revoked key", scene.offering(bad), *THRESHOLD, "key.revoked", by=By.DEVICE_ALONE
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


ROWS: Final[tuple[type[Row], ...]] = (StolenReleaseKey, CountedTwice, DevelopmentKey, RevokedKey, *misused.ROWS)

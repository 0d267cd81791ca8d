"""Class A: what is pushed is not what the vendor released."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from cbor2 import CBORTag

from devguard import wire
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.hostile import refused_in_clear
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import sign1
from devguard.custody.memory import MemorySigner
from devguard.manifest.envelope import signature_payload
from devguard.session.verbs import Commit, Data, Offer, encode_message

SIGN1, MAC0 = 18, 17
ALG, KID = 1, 4


class UnsignedImage(Row):
    """A well-formed release that nobody signed: pushed, said in clear, and offered by a host that checks nothing."""

    id = "A01"
    title = "Unsigned image offered as an update"
    precedent = "CVE-2018-10596 (Medtronic CareLink), CVE-2019-10959 (BD Alaris), CVE-2019-13534, CVE-2025-0626"
    attacker = Attacker.OUTSIDER
    regulation = ("1.A1", "1.D1", "11.2")

    def play(self, scene: Scene) -> None:
        evil = scene.release(image=os.urandom(64 * 1024), signers=())
        file = scene.file(evil)
        scene.refuses("pushed by the host program", scene.pushing(file), "signature.missing", by=By.OFFLINE)
        said = (Offer(scene.offer(evil)), Data(0, evil.image[:1024]), Commit(evil.envelope.manifest_digest))
        for message in said:
            name = f"{type(message).__name__.lower()} said in clear"
            attempt = scene.hostile(functools.partial(refused_in_clear, encode_message(message)))
            scene.refuses(name, attempt, "session.order", by=By.DEVICE_ALONE)
        scene.refuses("offered with a genuine grant", scene.offering(evil), "signature.missing", by=By.DEVICE_ALONE)


def _block(protected: dict[int, Any], unprotected: dict[int, Any], tag: bytes, *, cbor: int) -> bytes:
    """An authentication block of whatever form: its `tag` stands where a signature would."""
    return wire.encode(CBORTag(cbor, [wire.encode(protected), unprotected, None, tag]))


class OwnAlgorithm(Row):
    """A signature block that names its own algorithm, its own key, or carries the key along."""

    id = "A03"
    title = "Verifier trusts the image's own algorithm or 'signature type' field"
    precedent = "eBoot PR #104 (sig_type NONE/CRC32/SHA256), JWT alg=none, CVE-2020-25166 (B. Braun)"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.C1", "1.D1")

    def play(self, scene: Scene) -> None:
        for what, build, codes in self._variants(scene):
            file = scene.file(build)
            scene.refuses(f"{what}, pushed", scene.pushing(file), *codes, by=By.OFFLINE)
            scene.refuses(f"{what}, offered", scene.offering(build), *codes, by=By.DEVICE_ALONE)

    @staticmethod
    def _variants(scene: Scene) -> Iterator[tuple[str, Build, tuple[str, ...]]]:
        build = scene.release(image=b"evil" * 2000, signers=())
        envelope, signed = build.envelope, signature_payload(build.envelope)
        key = scene.signer("release").key
        kid = {KID: key.thumbprint}
        public = key.encode()
        digest = hashlib.sha256(signed).digest()
        tag = hmac.new(public, signed, "sha256").digest()

        def with_block(*blocks: bytes) -> Build:
            return replace(build, envelope=replace(envelope, auth_blocks=blocks))

        algorithm = ("signature.algorithm",)
        for name, number, value in (("none", 0, b""), ("SHA-256", -16, digest), ("HMAC 256", 5, tag)):
            block = _block({ALG: number, **kid}, {}, value, cbor=SIGN1)
            yield f"algorithm {name}", with_block(block), algorithm
        block = _block({ALG: "crc32", **kid}, {}, digest[:4], cbor=SIGN1)
        yield "algorithm crc32", with_block(block), algorithm
        block = _block({ALG: 5, **kid}, {}, tag, cbor=MAC0)
        yield "a MAC keyed with the public key", with_block(block), ("envelope.malformed", "signature.algorithm")
        thief = MemorySigner.generate(Algorithm.ESP256)
        own = sign1(thief, signed, typ=None, detached=True)
        yield "a key of the attacker's own", with_block(own.encode()), ("key.unknown",)
        carried = replace(own, unprotected={-1: thief.key.to_map()})
        yield "the attacker's key beside it", with_block(carried.encode()), ("envelope.malformed",)
        inside = sign1(thief, signed, typ=None, detached=True, headers={-1: thief.key.to_map()})
        yield "the attacker's key inside it", with_block(inside.encode()), ("key.unknown",)


ROWS: Final[tuple[type[Row], ...]] = (UnsignedImage, OwnAlgorithm)
TO_WRITE: Final = {
    "A02": "Single-bit sweep over every byte of container and payload",
    "A04": "Degenerate signatures: empty list, zero length, (0,0), non-canonical S, small-order key",
    "A06": "Unsigned bytes ride along: trailing data, padding, unprotected TLVs",
    "A08": "Time-of-check/time-of-use: file swapped between verification and transmission",
    "A09": "Authentic image for the wrong device, hardware revision or clinical configuration",
}

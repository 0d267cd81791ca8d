"""Class A: what is pushed is not what the vendor released."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from cbor2 import CBORTag

from devguard import wire
from devguard.bench.attacks import image_around
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.hostile import offer_unjudged, refused_in_clear
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import Sign1, read_sign1, sign1
from devguard.custody.keyfile import export_public
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError
from devguard.image.measure import SHA_256, measure_stream
from devguard.manifest.envelope import read_envelope, signature_payload
from devguard.session.verbs import Commit, Data, Offer, encode_message
from devguard.verdict.judge import Target, judge

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
        classical = scene.release(signers=("release", "release-2", "quality-2"))
        yield "enough people, none of them post-quantum", classical, ("signature.hybrid",)
        thief = MemorySigner.generate(Algorithm.ESP256)
        own = sign1(thief, signed, typ=None, detached=True)
        yield "a key of the attacker's own", with_block(own.encode()), ("key.unknown",)
        carried = replace(own, unprotected={-1: thief.key.to_map()})
        yield "the attacker's key beside it", with_block(carried.encode()), ("envelope.malformed",)
        inside = sign1(thief, signed, typ=None, detached=True, headers={-1: thief.key.to_map()})
        yield "the attacker's key inside it", with_block(inside.encode()), ("key.unknown",)


class BitSweep(Row):
    """One bit of the file changed: with `full` in every byte, else in each of a stride; some of them pushed too."""

    id = "A02"
    title = "Single-bit sweep over every byte of container and payload"
    precedent = "CVE-2020-25166 (B. Braun SpaceCom), CVE-2021-33885"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("1.D1", "4.4")

    def play(self, scene: Scene) -> None:
        build = scene.release(image=os.urandom(4096))
        whole = scene.file(build).read_bytes()
        scene.holds("the file as it is would be accepted", _judged(scene, whole) is None)
        flips = [(at, bit) for at in range(len(whole)) for bit in ((0, 3, 7) if scene.full else ((0, 3, 7)[at % 3],))]
        tried = flips if scene.full else flips[::_STRIDE]
        accepted = [at for at, bit in tried if _judged(scene, _flipped(whole, at, bit)) is None]
        scene.holds(f"{len(tried)} flips judged, each refused with a code; not {accepted[:5]}", not accepted)
        for at, bit in flips[:: len(flips) // (64 if scene.full else 6)]:
            path = scene.folder / "flipped.suit"
            path.write_bytes(_flipped(whole, at, bit))
            scene.refuses(f"byte {at}, pushed", scene.pushing(path), *_DAMAGED, by=By.OFFLINE)
        for at, bit in _spread(scene.offer(build)):
            offer = _flipped(scene.offer(build), at, bit)
            attempt = scene.hostile(functools.partial(offer_unjudged, scene.bench(), offer))
            scene.refuses(f"byte {at} of the offer, at the device", attempt, *_DAMAGED, by=By.DEVICE_ALONE)


_STRIDE: Final = 23
_DAMAGED: Final = (
    "envelope.malformed", "envelope.not-deterministic", "envelope.version", "wire.malformed", "signature.invalid",
    "signature.algorithm", "signature.critical", "signature.hybrid", "signature.threshold", "signature.missing",
    "key.unknown", "key.purpose", "image.digest", "image.size", "image.trailing", "image.class", "image.vendor",
)  # fmt: skip
"""What a changed bit may come to; never an acceptance, never an error that is not devguard's own."""


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


def _spread(data: bytes, count: int = 5) -> list[tuple[int, int]]:
    return [(at, at % 8) for at in range(3, len(data), len(data) // count)]


def _judged(scene: Scene, data: bytes) -> str | None:
    """The bench's verdict on a release file in memory: its code, None when accepted. Anything but a coded refusal is a
    bug, and raised."""
    facts = scene.world.model.facts
    try:
        envelope = read_envelope(io.BytesIO(data))
        images = {name.removeprefix("#"): data[one.offset :][: one.size] for name, one in envelope.payloads.items()}
        order = sorted(images, key=lambda name: (*facts.components, name).index(name))
        measured = measure_stream((name, io.BytesIO(images[name]), SHA_256) for name in order)
        target = Target(model=facts)
        judge(envelope, trust=scene.world.document, now=scene.world.now, target=target, payload=measured).require()
    except DevguardError as error:
        return error.code
    return None


class DegenerateSignatures(Row):
    """No signature, an empty one, zeros, one of a wrong length, one that is not canonical; and keys of small order."""

    id = "A04"
    title = "Degenerate signatures: empty list, zero length, (0,0), non-canonical S, small-order key"
    precedent = "CVE-2020-10759 (fwupd), JetKVM #1262, CVE-2022-21449 (Java), Taming the many EdDSAs"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.C1", "1.D1")

    def play(self, scene: Scene) -> None:
        honest = scene.release(signers=("release", "release-3", "quality"))
        scene.holds(
            "the same with honest signatures would be accepted", _judged(scene, scene.file(honest).read_bytes()) is None
        )
        for what, build, codes in self._variants(honest):
            scene.refuses(f"{what}, pushed", scene.pushing(build), *codes, by=By.OFFLINE)
            scene.refuses(f"{what}, offered", scene.offering(build), *codes, by=By.DEVICE_ALONE)
        for order, point in _SMALL_ORDER.items():
            key = bytes.fromhex(point)
            scene.refuses(f"a key of order {order}", functools.partial(_imported, scene, key), "key.weak", by=By.NOBODY)

    @staticmethod
    def _variants(honest: Build) -> Iterator[tuple[str, Build, tuple[str, ...]]]:
        esp, edwards, post_quantum = (read_sign1(block) for block in honest.envelope.auth_blocks)

        def blocks(*signed: Sign1) -> Build:
            encoded = tuple(one.encode() for one in signed)
            return replace(honest, envelope=replace(honest.envelope, auth_blocks=encoded))

        yield "no signature at all", blocks(), ("signature.missing",)
        wrong = ("signature.invalid", "envelope.malformed")
        for size in (0, 63, 65):
            cut = replace(esp, signature=(esp.signature + bytes(2))[:size])
            yield f"a signature of {size} bytes", blocks(cut, edwards, post_quantum), wrong
        yield "r = s = 0", blocks(replace(esp, signature=bytes(64)), edwards, post_quantum), wrong
        scalar = int.from_bytes(edwards.signature[32:], "little") + _EDWARDS_ORDER
        loose = replace(edwards, signature=edwards.signature[:32] + scalar.to_bytes(32, "little"))
        yield "S + L", blocks(esp, loose, post_quantum), wrong
        yield (
            "a post-quantum signature of zeros",
            blocks(esp, edwards, replace(post_quantum, signature=bytes(3309))),
            wrong,
        )
        yield "the same signature twice", blocks(esp, esp, post_quantum), ("signature.threshold", "signature.invalid")


_EDWARDS_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_SMALL_ORDER: Final = {
    1: "0100000000000000000000000000000000000000000000000000000000000000",
    2: "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    4: "0000000000000000000000000000000000000000000000000000000000000000",
    8: "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
}


def _imported(scene: Scene, point: bytes) -> str | None:
    """A technician's public key file with that point, given to the authority's `grant issue`."""
    public = base64.urlsafe_b64encode(wire.encode({1: 1, -1: 6, -2: point})).decode().rstrip("=")
    text = export_public(scene.signer("second").info).decode()
    lines = [f"public: {public}" if line.startswith("public: ") else line for line in text.splitlines()]
    path = scene.folder / "small.pub"
    path.write_text("\n".join(lines) + "\n")
    args = ("grant", "issue", "--authority", "authority", "--technician", path, "--model", "*", "--any-serial")
    answer = scene.world.run(scene.vendor.home, *args, "-o", scene.folder / "small.grant")
    return answer.code or (None if answer.status == 0 else f"exit {answer.status}")


ROWS: Final[tuple[type[Row], ...]] = (UnsignedImage, BitSweep, OwnAlgorithm, DegenerateSignatures, *image_around.ROWS)

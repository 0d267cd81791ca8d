"""Shared builders: a vendor with keys of every role, its trust document, and signed releases.

Keys live in memory and come from a seed, so two calls with one seed give the same vendor; nothing is stored.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import Signer, sign1
from devguard.custody.memory import MemorySigner
from devguard.image.measure import SHA_256, Measured, MeasuredStream, measure, measure_stream
from devguard.manifest.build import build_envelope
from devguard.manifest.description import ComponentDescription, ReleaseDescription, Requires, Safety
from devguard.manifest.envelope import (
    Envelope,
    Payload,
    add_signature,
    encode_envelope,
    read_envelope,
    signature_payload,
)
from devguard.manifest.model import Clock, ModelFacts
from devguard.trust.document import KeyEntry, Role, TrustDocument, build_trust, read_trust, trust_payload
from devguard.verdict.judge import Target, Verdict, judge

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
DAY = 86_400

PUMP = ModelFacts(
    name="insulin-pump",
    vendor="devices.devguard.example",
    revisions=("revA", "revB"),
    flash_base=0,
    image_capacity=512 * 1024,
    battery_capacity_mwh=1200,
    clock=Clock.NONE,
    technicians=1,
    components=("main",),
)


@dataclass(frozen=True, slots=True)
class Speaking:
    """A signer under another algorithm number: ES256 for a P-256 key, EdDSA for an Ed25519 one."""

    signer: Signer
    algorithm: Algorithm

    @property
    def key(self) -> CoseKey:
        return self.signer.key

    def sign(self, message: bytes) -> bytes:
        return self.signer.sign(message)


def make_signer(algorithm: Algorithm = Algorithm.ESP256, seed: str = "key") -> MemorySigner:
    """A signer whose key depends on `seed` and `algorithm` alone."""
    size = 64 if algorithm in (Algorithm.ESP256, Algorithm.ESP384) else 32
    return MemorySigner.from_seed(algorithm, hashlib.shake_256(f"{seed}/{algorithm.label}".encode()).digest(size))


@dataclass(frozen=True, slots=True)
class Seat:
    """One key of one role in a vendor's trust document."""

    role: RoleName
    person: str
    algorithm: Algorithm = Algorithm.ESP256
    development: bool = False
    not_before: int | None = None
    not_after: int | None = None
    seed: str | None = None  # the same seed gives the same key


CAST = (
    Seat(RoleName.ROOT, "Rhea Root", Algorithm.ESP384),
    Seat(RoleName.ROOT, "Ruth Root", Algorithm.ML_DSA_65),
    Seat(RoleName.RELEASE, "Remy Release", Algorithm.ESP256),
    Seat(RoleName.RELEASE, "Rita Release", Algorithm.ED25519),
    Seat(RoleName.QUALITY, "Quinn Quality", Algorithm.ML_DSA_65),
    Seat(RoleName.QUALITY, "Quentin Quality", Algorithm.ML_DSA_44),
    Seat(RoleName.TECHNICIAN_AUTHORITY, "Thea Authority"),
    Seat(RoleName.DEVICE_AUTHORITY, "Dana Factory"),
    Seat(RoleName.STATION, "Bench 1", Algorithm.ED25519),
    Seat(RoleName.WITNESS, "Wanda Witness", Algorithm.ED25519),
)
THRESHOLDS = {RoleName.ROOT: 2}


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor: its trust document and the signer behind every seat."""

    trust_bytes: bytes
    trust: TrustDocument
    seats: tuple[tuple[Seat, MemorySigner], ...]

    def signer(self, role: RoleName, person: str | None = None, algorithm: Algorithm | None = None) -> MemorySigner:
        """The first key of the role, optionally of that person and algorithm."""
        return next(
            signer
            for seat, signer in self.seats
            if seat.role is role and person in (None, seat.person) and algorithm in (None, seat.algorithm)
        )

    @property
    def release_signers(self) -> tuple[MemorySigner, MemorySigner]:
        """The usual pair: a classical release key and a post-quantum quality key."""
        return self.signer(RoleName.RELEASE), self.signer(RoleName.QUALITY)


def trust_roles(
    seats: Iterable[tuple[Seat, MemorySigner]], thresholds: Mapping[RoleName, int] = THRESHOLDS
) -> dict[RoleName, Role]:
    """The roles that seats and thresholds make; a role without a threshold has 1."""
    held: dict[RoleName, list[KeyEntry]] = {}
    for seat, signer in seats:
        entry = KeyEntry(signer.key, seat.person, seat.development, seat.not_before, seat.not_after)
        held.setdefault(seat.role, []).append(entry)
    return {role: Role(thresholds.get(role, 1), tuple(keys)) for role, keys in held.items()}


def make_vendor(
    seed: int | str = 0,
    *,
    cast: Sequence[Seat] = CAST,
    thresholds: Mapping[RoleName, int] = THRESHOLDS,
    **fields: Any,
) -> Vendor:
    """A vendor of its own keys. `fields` are those of `trust_payload` (version, issued, floors, revoked, ...)."""
    seats = tuple(
        (seat, make_signer(seat.algorithm, seat.seed or f"{seed}/{seat.role}/{seat.person}")) for seat in cast
    )
    return reissue(seats, thresholds, **fields)


def reissue(
    seats: tuple[tuple[Seat, MemorySigner], ...], thresholds: Mapping[RoleName, int] = THRESHOLDS, **fields: Any
) -> Vendor:
    """A trust document over given seats, signed by all its root keys."""
    given = {"version": 1, "issued": NOW - DAY, "expires": NOW + 365 * DAY, **fields}
    doc = trust_payload(roles=trust_roles(seats, thresholds), **given)
    data = build_trust(doc, [signer for seat, signer in seats if seat.role is RoleName.ROOT])
    return Vendor(data, read_trust(data), seats)


def changed(vendor: Vendor, **fields: Any) -> Vendor:
    """The vendor with another trust document over the same keys, for example with `revoked` or `floors`."""
    thresholds = {name: role.threshold for name, role in vendor.trust.roles.items()}
    return reissue(vendor.seats, thresholds, **fields)


def make_image(size: int = 1024, seed: str = "image") -> bytes:
    """Bytes that look like nothing in particular."""
    return hashlib.shake_256(seed.encode()).digest(size)


def describe(model: ModelFacts = PUMP, **fields: Any) -> ReleaseDescription:
    """A release description with all components of the model; `fields` replace its defaults."""
    given: dict[str, Any] = {
        "vendor": model.vendor,
        "model": model.name,
        "revisions": model.revisions,
        "version": "1.1.0",
        "sequence": 2,
        "security_version": 1,
        "summary": "a release for tests",
        "use_before": None,
        "components": tuple(ComponentDescription(one, f"{one}.bin", "raw", (), ()) for one in model.components),
        "safety": Safety(None, True, False),
        "requires": Requires(None, {}),
        "sbom": None,
        "test_report_digest": None,
        "thresholds": {},
    }
    return ReleaseDescription(**{**given, **fields})


def make_envelope(
    image: bytes | Mapping[str, bytes] | None = None,
    *,
    model: ModelFacts = PUMP,
    detached: bool = False,
    **fields: Any,
) -> Envelope:
    """An unsigned envelope around `image`, or one for each component by id; `fields` as for `describe`."""
    given = make_image() if image is None else image
    description = describe(model, **fields)
    images = {one.id: given if isinstance(given, bytes) else given[one.id] for one in description.components}
    measured = {name: measure(io.BytesIO(data)) for name, data in images.items()}
    envelope = build_envelope(description, model, measured, detached=detached)
    payloads = {name: Payload(0, len(images[name[1:]]), images[name[1:]]) for name in envelope.payloads}
    return replace(envelope, payloads=payloads)


def sign_envelope(envelope: Envelope, signers: Iterable[Signer]) -> Envelope:
    """`envelope` with one more block for each signer."""
    for signer in signers:
        block = sign1(signer, signature_payload(envelope), typ=None, detached=True).encode()
        envelope = add_signature(envelope, block)
    return envelope


def make_release(
    vendor: Vendor,
    image: bytes | Mapping[str, bytes] | None = None,
    *,
    signers: Iterable[Signer] | None = None,
    model: ModelFacts = PUMP,
    detached: bool = False,
    **fields: Any,
) -> bytes:
    """The `.suit` bytes of a signed release; by default signed by `vendor.release_signers`."""
    envelope = make_envelope(image, model=model, detached=detached, **fields)
    return encode_envelope(sign_envelope(envelope, vendor.release_signers if signers is None else signers))


def measure_payload(envelope: Envelope) -> Measured:
    """What the first integrated payload measures."""
    payload = next(iter(envelope.payloads.values()))
    return measure(io.BytesIO(payload.data or b""))


def measure_images(images: Mapping[str, bytes]) -> MeasuredStream:
    """What the images of several components measure back to back, in the order given."""
    return measure_stream((name, io.BytesIO(data), SHA_256) for name, data in images.items())


def judge_bytes(
    data: bytes, vendor: Vendor, *, now: int = NOW, target: Target | None = None, deferred: bool = False
) -> Verdict:
    """Reads and judges `.suit` bytes with an integrated payload; without `target` for a `PUMP`."""
    envelope = read_envelope(io.BytesIO(data))
    payload = None if deferred else measure_payload(envelope)
    return judge(envelope, trust=vendor.trust, now=now, target=target or Target(model=PUMP), payload=payload)

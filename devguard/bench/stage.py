"""A stage for benches: throw-away keys of every role, a device in memory, signed releases, grants, update sessions.

Everything comes from seeds, times included, so a run can be repeated to the last byte; the trust document is for
development and nothing of it is written anywhere. The device judges exactly as any other: only its flash, its clock
and its battery are pretended.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from devguard.bench.repeatable import RepeatableSigner
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import Signer, sign1
from devguard.custody.memory import MemorySigner
from devguard.device.counters import Counters, MemoryCounterStore
from devguard.device.flash import Fault, FlashMemory, MemoryBackend
from devguard.device.models import Model
from devguard.device.node import DeviceNode, Identity, Surroundings
from devguard.device.therapy import new_therapy
from devguard.grant.check import DeviceView, check_grant
from devguard.grant.claims import ANY, Action, Grant, Scope, issue_grant, read_grant
from devguard.grant.credential import issue_credential
from devguard.image.measure import SHA_256, MeasuredStream, measure_stream
from devguard.manifest.build import build_envelope
from devguard.manifest.description import ComponentDescription, ReleaseDescription, Requires, Safety
from devguard.manifest.envelope import Envelope, add_signature, sever, signature_payload
from devguard.manifest.model import ModelFacts
from devguard.session.approval import ApprovalRequest, sign_approval
from devguard.session.connect import Bench
from devguard.session.credentials import OwnCredential, by_suite
from devguard.session.suites import PRODUCTION
from devguard.session.update import UpdateSession
from devguard.session.verbs import NONCE_SIZE
from devguard.trust.document import KeyEntry, Role, TrustDocument, build_trust, read_trust, trust_payload
from devguard.verdict.judge import Release, Target, judge

NOW: Final = 1_800_000_000  # the day on which every bench plays
DAY: Final = 86_400
SERIAL: Final = "BENCH-1"
_ALGORITHMS: Final = {RoleName.QUALITY: Algorithm.ML_DSA_65}
_PEOPLE: Final = {
    RoleName.ROOT: "Bench Root",
    RoleName.RELEASE: "Bench Release",
    RoleName.QUALITY: "Bench Quality",
    RoleName.TECHNICIAN_AUTHORITY: "Bench Authority",
    RoleName.DEVICE_AUTHORITY: "Bench Factory",
}
TECHNICIANS: Final = ("First Technician", "Second Technician")


def stream(seed: str) -> Callable[[int], bytes]:
    """A reproducible source of bytes whose calls all differ. No secret comes from it."""
    calls = itertools.count()
    return lambda size: hashlib.shake_256(f"{seed}/{next(calls)}".encode()).digest(size)


@functools.cache
def signer(name: str, algorithm: Algorithm = Algorithm.ESP256) -> Signer:
    """The throw-away key of that name, always the same, and so are its signatures."""
    secret = hashlib.shake_256(f"devguard bench/{name}".encode()).digest(64 if algorithm is Algorithm.ESP256 else 32)
    if algorithm is Algorithm.ML_DSA_65:
        return RepeatableSigner(secret)
    return MemorySigner.from_seed(algorithm, secret)


def signer_of(role: RoleName) -> Signer:
    """The key of a role."""
    return signer(str(role), _ALGORITHMS.get(role, Algorithm.ESP256))


@functools.cache
def trust() -> TrustDocument:
    """The trust document of every stage: one key for each role, all for development."""
    roles = {role: Role(1, (KeyEntry(signer_of(role).key, who, True, None, None),)) for role, who in _PEOPLE.items()}
    document = trust_payload(version=1, issued=NOW - DAY, expires=NOW + 365 * DAY, roles=roles, development=True)
    return read_trust(build_trust(document, [signer_of(RoleName.ROOT)]))


@dataclass(frozen=True, slots=True)
class Build:
    """A signed release and its images, back to back."""

    envelope: Envelope
    image: bytes
    measured: MeasuredStream


def split(facts: ModelFacts, image: bytes) -> dict[str, bytes]:
    """An image shared out among the model's components, in their order."""
    cuts = [len(image) * index // len(facts.components) for index in range(len(facts.components) + 1)]
    return {
        name: image[start:end] for name, (start, end) in zip(facts.components, itertools.pairwise(cuts), strict=True)
    }


def describe(facts: ModelFacts, **fields: Any) -> ReleaseDescription:
    """A description of a release with every component of the model; `fields` replace its own."""
    given: dict[str, Any] = {
        "vendor": facts.vendor,
        "model": facts.name,
        "revisions": facts.revisions,
        "summary": "an image made for a bench",
        "use_before": None,
        "components": tuple(ComponentDescription(name, f"{name}.bin", "raw", (), ()) for name in facts.components),
        "safety": Safety(None, True, False),
        "requires": Requires(None, {}),
        "sbom": None,
        "test_report_digest": None,
        "thresholds": {},
    }
    return ReleaseDescription(**{**given, **fields})


@functools.lru_cache(maxsize=8)
def build(
    facts: ModelFacts, size: int, version: str, sequence: int, security_version: int, image: bytes | None = None
) -> Build:
    """A release of `size` bytes, shared out among the model's components, signed by release and quality. Nothing can
    compress it, unless an `image` of that size is given."""
    image = hashlib.shake_256(f"image/{version}".encode()).digest(size) if image is None else image
    measured = measure_stream((name, io.BytesIO(piece), SHA_256) for name, piece in split(facts, image).items())
    described = describe(facts, version=version, sequence=sequence, security_version=security_version)
    envelope = build_envelope(described, facts, measured.parts, detached=True)
    for role in (RoleName.RELEASE, RoleName.QUALITY):
        block = sign1(signer_of(role), signature_payload(envelope), typ=None, detached=True).encode()
        envelope = add_signature(envelope, block)
    return Build(envelope, image, measured)


@functools.cache
def grant(model: str, technician: int) -> Grant:
    """A grant for a technician (0 or 1) on the device of that model, for any release."""
    name = TECHNICIANS[technician]
    scope = Scope(
        models=frozenset({model}),
        serials=frozenset({SERIAL}),
        sites=frozenset({ANY}),
        actions=frozenset({Action.UPDATE}),
        epoch=0,
        any_release=True,
    )
    return read_grant(
        issue_grant(
            [signer_of(RoleName.TECHNICIAN_AUTHORITY)],
            issuer=_PEOPLE[RoleName.TECHNICIAN_AUTHORITY],
            subject=name,
            holder=signer(name).key,
            scope=scope,
            now=NOW,
            expires=NOW + DAY // 3,
            cti=hashlib.sha256(f"{model}/{name}".encode()).digest()[:16],
        )
    )


@dataclass(slots=True)
class Stage:
    """A device of `model` and its bench. `seed` is behind what both choose at random, `uptime` is the device's clock,
    `fault` sees its flash operations."""

    model: Model
    seed: str
    uptime: Callable[[], float]
    fault: Fault | None = None
    node: DeviceNode = field(init=False)

    def __post_init__(self) -> None:
        facts, random = self.model.facts, stream(f"{self.seed}/device")
        owns = [_credential(self.model, algorithm) for algorithm in (Algorithm.ESP256, Algorithm.ED25519)]
        identity = Identity(SERIAL, facts.revisions[0], None, by_suite(PRODUCTION, *owns), owns[0].sign)
        around = Surroundings(lambda: NOW, self.uptime, lambda: 100, random, lambda: True)
        store = MemoryCounterStore(Counters(clock_floor=trust().issued, trust_version=1, nonce=random(NONCE_SIZE)))
        flash = FlashMemory(self.model.layout.flash, MemoryBackend(self.model.layout.flash.size), self.fault)
        self.node = DeviceNode(self.model, identity, trust(), flash, store, new_therapy(self.model), around)
        self.node.boot()

    @property
    def trust(self) -> TrustDocument:
        """The trust document of every stage."""
        return trust()

    def signer(self, name: str) -> Signer:
        """The P-256 key of that name, or of the role of that name."""
        return signer(name)

    def build(
        self,
        size: int,
        version: str = "1.1.0",
        sequence: int = 1,
        *,
        security_version: int | None = None,
        image: bytes | None = None,
    ) -> Build:
        """A signed release for the model; its security version is its sequence number unless given."""
        return build(self.model.facts, size, version, sequence, security_version or sequence, image)

    def grant(self, technician: int = 0) -> Grant:
        """A grant for a technician (0 or 1) on this device, for any release."""
        return grant(self.model.name, technician)

    def judged(self, what: Build) -> Release:
        """The bench's verdict, the images measured."""
        target = Target(model=self.model.facts)
        return judge(what.envelope, trust=trust(), now=NOW, target=target, payload=what.measured).require()

    def bench(self) -> Bench:
        """The first technician's bench."""
        random = stream(f"{self.seed}/bench")
        return Bench(trust(), NOW, random, self.grant().untagged, signer(TECHNICIANS[0]), SERIAL)

    def update(self, what: Build) -> UpdateSession:
        """An honest push of a build, ready to run, with as many technicians as the model asks for."""
        view = DeviceView(self.model.name, SERIAL, None, self.model.facts.clock, 0, None)
        holder = signer(TECHNICIANS[0]).key
        checked = check_grant(self.grant(), trust=trust(), now=NOW, device=view, action=Action.UPDATE, holder=holder)
        approver = self._approve if self.model.facts.technicians > 1 else None
        payload = io.BytesIO(what.image)
        return UpdateSession(self.judged(what), checked, self.bench(), sever(what.envelope), payload, approver)

    def _approve(self, request: ApprovalRequest) -> tuple[bytes, bytes]:
        second = self.grant(1)
        digest = hashlib.sha256(second.untagged).digest()
        return sign_approval(request, signer(TECHNICIANS[1]), digest), second.untagged


def _credential(model: Model, algorithm: Algorithm) -> OwnCredential:
    own, facts = signer(f"device/{algorithm.label}", algorithm), model.facts
    cwt = issue_credential(
        signer_of(RoleName.DEVICE_AUTHORITY),
        issuer=_PEOPLE[RoleName.DEVICE_AUTHORITY],
        vendor=facts.vendor,
        model=facts.name,
        revision=facts.revisions[0],
        serial=SERIAL,
        key=own.key,
        now=NOW - DAY,
    )
    return OwnCredential.kcwt(cwt, own)

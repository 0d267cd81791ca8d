"""The judgement of a release, step by step.

`judge` walks a fixed list of numbered steps in the order in which failures are reported: form, keys, algorithms,
signatures, hybrid, threshold, trust, vendor, class, device, versions, images. Every step that can be judged is,
so that a refusal shows all that is wrong; a step that rests on a failed one is reported as not judged, never as
passed. Source: devguard cli, "A verdict's code"; draft-ietf-suit-manifest-37 sections 6 and 8.
"""

from __future__ import annotations

from collections.abc import Callable

from devguard.errors import DevguardError, Malformed, Refused
from devguard.manifest.envelope import Envelope, check_digest, signature_payload
from devguard.manifest.release import ReleaseFacts, release_facts
from devguard.trust.document import check_time
from devguard.trust.model import TrustDocument
from devguard.verdict.blocks import judge_block
from devguard.verdict.images import Measurer, Payloads, check_components, check_images, whole_digest
from devguard.verdict.release import PROOF, Release, Requirements
from devguard.verdict.result import Check, SignatureSeen, Verdict
from devguard.verdict.signatures import judge_signatures
from devguard.verdict.steps import STEPS, Steps
from devguard.verdict.target import Target, check_class, check_device, check_vendor
from devguard.verdict.versions import check_requires, check_security_version, check_sequence, model_of

__all__ = [
    "STEPS",
    "Check",
    "Measurer",
    "Payloads",
    "Release",
    "Requirements",
    "SignatureSeen",
    "Target",
    "Verdict",
    "judge",
    "refused_form",
]


def judge(
    envelope: Envelope, *, trust: TrustDocument, now: int, target: Target, payload: Payloads | Measurer
) -> Verdict:
    """The verdict on `envelope` for `target` at `now` (epoch seconds UTC).

    `trust` has been read by `read_trust`. `payload` is what was measured of the image: one `Measured`, a
    `MeasuredStream` for releases of several components, or None when the image comes later; then the last step is
    deferred and the release says so. A function instead is called once with the release's facts, unless the manifest
    was refused, and gives one of these. Raises nothing for anything an envelope may hold, a refusal is a verdict; what
    that function raises goes through.
    """
    steps = Steps()
    steps.step("envelope", lambda: _envelope(envelope))
    found: list[ReleaseFacts] = []
    steps.step("manifest", lambda: _manifest(envelope, found))
    facts = found[0] if found else None
    kept = envelope.manifest_digest in trust.kept_releases
    signed = signature_payload(envelope)
    blocks = [judge_block(block, signed, trust, now, kept=kept) for block in envelope.auth_blocks]
    judge_signatures(steps, blocks, trust, now, kept=kept)
    _judge_trust(steps, envelope, facts, trust, now)
    measured = (payload(facts) if facts is not None else None) if callable(payload) else payload
    _judge_facts(steps, envelope, facts, trust, target, measured)
    release = None
    if facts is not None and steps.complete:
        release = _release(envelope, facts, target, measured)
    good = steps.checks[-1].ok  # the images are the signed ones, or not seen yet
    claims = None if facts is None else _claims(facts, target, measured if good else None)
    return Verdict(tuple(steps.checks), tuple(block.seen for block in blocks), steps.code, release, claims)


def refused_form(error: DevguardError) -> Verdict:
    """The verdict on a file that did not even parse: `error` is what reading it raised."""
    steps = Steps()
    steps.fail("envelope", error)
    for name in list(STEPS)[1:]:
        steps.skip(name, "there is no envelope to read")
    return Verdict(tuple(steps.checks), (), steps.code, None)


def _envelope(envelope: Envelope) -> str:
    if not envelope.tagged:
        raise Malformed("envelope.malformed", "the envelope lacks its CBOR tag 107")
    check_digest(envelope)
    return "tagged SUIT envelope, the manifest is the one its wrapper covers"


def _manifest(envelope: Envelope, found: list[ReleaseFacts]) -> str:
    facts = release_facts(envelope)
    found.append(facts)
    return f"sequence {facts.sequence}, {len(facts.components)} component(s), within the profile"


def _judge_trust(steps: Steps, envelope: Envelope, facts: ReleaseFacts | None, trust: TrustDocument, now: int) -> None:
    steps.step("trust", lambda: _trust(trust, now))
    steps.step("revocation", lambda: _revocation(envelope, trust))
    if facts is None:
        steps.skip("use-before", "the manifest was refused")
    else:
        steps.step("use-before", lambda: _use_before(facts, now))


def _trust(trust: TrustDocument, now: int) -> str:
    check_time(trust, now)
    kind = "development" if trust.development else "production"
    return f"{kind} trust document version {trust.version}, {(trust.expires - now) // 86400} day(s) left"


def _revocation(envelope: Envelope, trust: TrustDocument) -> str:
    if envelope.manifest_digest in trust.revoked_releases:
        raise Refused("release.revoked", f"the trust document revokes release {envelope.manifest_digest.hex()}")
    kept = envelope.manifest_digest in trust.kept_releases
    return "listed as a release to keep" if kept else "not revoked"


def _use_before(facts: ReleaseFacts, now: int) -> str:
    if facts.use_before is None:
        return "no use-before date"
    if now >= facts.use_before:
        raise Refused("release.expired", f"to be used before {facts.use_before}, and it is {now}")
    return f"to be used before {facts.use_before}"


def _sbom(facts: ReleaseFacts, trust: TrustDocument) -> str:
    if facts.sbom_digest is not None:
        return f"bill of materials sha256 {facts.sbom_digest.hex()} is signed"
    if trust.require_sbom:
        raise Refused("sbom.missing", "the trust document asks for a signed bill of materials; the release has none")
    return "no bill of materials, and the trust document asks for none"


def _judge_facts(
    steps: Steps,
    envelope: Envelope,
    facts: ReleaseFacts | None,
    trust: TrustDocument,
    target: Target,
    payload: Payloads,
) -> None:
    names = ("vendor", "class", "device", "components", "sequence", "security-version", "requires", "sbom", "image")
    if facts is None:
        for name in names:
            steps.skip(name, "the manifest was refused")
        return
    judged: tuple[Callable[[], str], ...] = (
        lambda: check_vendor(facts, target),
        lambda: check_class(facts, target),
        lambda: check_device(facts, target),
        lambda: check_components(facts, target),
        lambda: check_sequence(facts, envelope.manifest_digest, trust, target),
        lambda: check_security_version(facts, trust, target),
        lambda: check_requires(facts, target),
        lambda: _sbom(facts, trust),
        lambda: check_images(facts, payload),
    )
    for name, judge_it in zip(names, judged, strict=True):
        steps.step(name, judge_it)


def _vendor_of(facts: ReleaseFacts, target: Target) -> str:
    if target.model is not None:
        return target.model.vendor
    return facts.text.vendor if facts.text is not None else ""


def _version_of(facts: ReleaseFacts) -> str:
    return facts.version or (facts.text.version if facts.text is not None else "")


def _release(envelope: Envelope, facts: ReleaseFacts, target: Target, measured: Payloads) -> Release:
    return Release(
        vendor=_vendor_of(facts, target),
        model=model_of(facts, target),
        version=_version_of(facts),
        sequence=facts.sequence,
        security_version=facts.security_version,
        digest=whole_digest(facts.components, measured),
        size=sum(one.size for one in facts.components),
        manifest_digest=envelope.manifest_digest,
        requirements=Requirements(
            facts.minimum_battery_mwh, facts.therapy_idle, facts.two_technicians, facts.use_before
        ),
        payload_checked=measured is not None,
        components=facts.components,
        proof=PROOF,
    )


def _claims(facts: ReleaseFacts, target: Target, measured: Payloads) -> dict[str, object]:
    text, digest = facts.text, whole_digest(facts.components, measured)
    return {
        "vendor": text.vendor if text is not None else _vendor_of(facts, target),
        "model": text.model if text is not None else model_of(facts, target),
        "version": _version_of(facts),
        "sequence": facts.sequence,
        "digest": None if digest is None else digest.hex(),
        "size": sum(one.size for one in facts.components),
        "components": [{"id": one.id, "digest": one.digest.hex(), "size": one.size} for one in facts.components],
    }

"""What a release is: the facts of devguard's manifest profile, learned by executing the manifest.

`release_facts` runs the interpreter with a recorder, once for every identity the manifest admits, so what is judged is
what would execute. A manifest that means different things to different devices, that checks anything but identity
inside a branch, that sets a requirement nobody checks, or that does more than fetch and compare images is outside the
profile and refused. It verifies no signature and compares nothing with a device: that is `verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from devguard.errors import Malformed, Refused
from devguard.manifest._profile import MAX_STEPS, ComponentFacts, Execution, component_name, execute, identities
from devguard.manifest._recorder import outside
from devguard.manifest.codec import Manifest, decode_manifest, resolve
from devguard.manifest.envelope import Envelope, check_digest
from devguard.manifest.identity import class_id, vendor_id
from devguard.manifest.interpreter import Budget, Limits
from devguard.manifest.suit import CODE, Comparison, Digest, ManifestKey, Parameter, Section, strict
from devguard.manifest.text import TextFacts, decode_text
from devguard.manifest.version import decode_array, to_text

__all__ = ["ComponentFacts", "ReleaseFacts", "TextFacts", "release_facts", "signed_manifest"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """Everything a verdict may rest on. Times are epoch seconds, energy is mWh, ids are 16-byte UUIDs.

    `requires_version` is the least installed release; `requires_components` are least versions of components that the
    release does not bring, as (id, version).
    """

    vendor_id: bytes
    class_ids: tuple[bytes, ...]
    device_ids: tuple[bytes, ...]
    sequence: int
    version: str | None
    security_version: int
    components: tuple[ComponentFacts, ...]
    use_before: int | None
    minimum_battery_mwh: int | None
    authorised: bool
    therapy_idle: bool
    two_technicians: bool
    sbom_digest: bytes | None
    test_report_digest: bytes | None
    requires_version: str | None
    text: TextFacts | None
    requires_components: tuple[tuple[str, str], ...] = ()


def signed_manifest(env: Envelope) -> Manifest:
    """The manifest the wrapper's digest covers, with every severed member at hand checked and put back.

    Raises `Malformed`: envelope.malformed, envelope.not-deterministic, envelope.version.
    """
    if not env.tagged:
        raise Malformed(CODE, "the envelope lacks its CBOR tag 107")
    check_digest(env)
    return resolve(decode_manifest(env.manifest), env.severable)


def release_facts(env: Envelope) -> ReleaseFacts:
    """The facts of an envelope in devguard's profile; `Malformed` envelope.malformed for any other manifest."""
    manifest = signed_manifest(env)
    try:
        return _facts(manifest, env)
    except Refused as refused:
        # No condition may fail for an identity the manifest itself admits.
        raise outside(f"a condition fails whoever asks ({refused.message})") from refused


def _facts(manifest: Manifest, env: Envelope) -> ReleaseFacts:
    _check_members(manifest)
    limits = Limits(budget=Budget(MAX_STEPS))
    vendor, classes, admitted = identities(manifest, limits)
    executions = [execute(manifest, one, limits) for one in admitted]
    first = executions[0]
    if any(other != first for other in executions[1:]):
        raise outside("it means different things to different devices")
    if first.asked.get(Parameter.UPDATE_PRIORITY, 0) != 0:
        raise outside("an update priority: who may push is not the release's to weigh")
    stray = set(env.payloads) - {one.uri for one in first.components}
    if stray:
        raise outside("a payload that the manifest does not fetch")
    text = _text(manifest, vendor, classes)
    requires, others = _requires(manifest, first)
    return ReleaseFacts(
        vendor_id=vendor,
        class_ids=classes,
        device_ids=tuple(one.identity.device for one in admitted if isinstance(one.identity.device, bytes)),
        sequence=manifest.sequence_number,
        version=_version(manifest, text),
        security_version=_need(first.asked, Parameter.SECURITY_VERSION, int),
        components=first.components,
        use_before=_may(first.asked, Parameter.USE_BEFORE, int),
        minimum_battery_mwh=_may(first.asked, Parameter.MINIMUM_BATTERY, int),
        authorised=Parameter.UPDATE_PRIORITY in first.asked,
        therapy_idle=Parameter.THERAPY_IDLE in first.asked,
        two_technicians=Parameter.TWO_TECHNICIANS in first.asked,
        sbom_digest=_may(first.asked, Parameter.SBOM_DIGEST, bytes),
        test_report_digest=_may(first.asked, Parameter.TEST_REPORT_DIGEST, bytes),
        requires_version=requires,
        text=text,
        requires_components=others,
    )


def _check_members(manifest: Manifest) -> None:
    if set(manifest.sections or {}) != {Section.INSTALL, Section.VALIDATE}:
        raise outside("its sections are not install and validate")
    if manifest.reference_uri is not None or set(manifest.extensions or {}) - {int(ManifestKey.SET_VERSION)}:
        raise outside("a manifest member besides text and set-version")


def _requires(manifest: Manifest, done: Execution) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The release's own condition stands on the first component; others on components it does not bring."""
    brought = {one.id for one in done.components}
    release: str | None = None
    others: list[tuple[str, str]] = []
    for index, identifier in enumerate(manifest.common.components):
        name, match = component_name(identifier), done.versions.get(identifier)
        if match is None:
            if name not in brought:
                raise outside("a component that is neither brought nor required")
            continue
        if match.comparison is not Comparison.GREATER_EQUAL:
            raise outside("a version condition other than at-least")
        if name not in brought:
            others.append((name, to_text(match.version)))
        elif index == 0:
            release = to_text(match.version)
        else:
            raise outside("a version condition on a component the release brings")
    return release, tuple(others)


def _version(manifest: Manifest, text: TextFacts | None) -> str | None:
    encoded = (manifest.extensions or {}).get(int(ManifestKey.SET_VERSION))
    if encoded is None:
        return None if text is None else text.version
    if not isinstance(encoded, bytes):
        raise outside("set-version is not a byte string")
    version = to_text(decode_array(strict(encoded)))
    if text is not None and text.version != version:
        raise outside("text and set-version name two versions")
    return version


def _text(manifest: Manifest, vendor: bytes, classes: tuple[bytes, ...]) -> TextFacts | None:
    """The text when it is at hand; it must be severable, and name the vendor and classes that are checked."""
    if isinstance(manifest.text, Digest):
        return None
    if manifest.text is None:
        raise outside("no text")
    text = decode_text(manifest.text, manifest.common.components)
    named = tuple(class_id(vendor, text.model, name) for name in text.revisions)
    if vendor_id(text.vendor) != vendor or named != classes:
        raise outside("the text names another vendor, model or revisions than are checked")
    return text


def _may(asked: Mapping[Parameter, object], key: Parameter, kind: type[_T]) -> _T | None:
    value = asked.get(key)
    return value if isinstance(value, kind) else None


def _need(asked: Mapping[Parameter, object], key: Parameter, kind: type[_T]) -> _T:
    value = _may(asked, key, kind)
    if value is None:
        raise outside(f"{key.name.lower()} is not checked")
    return value

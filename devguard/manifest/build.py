"""From a release description to an unsigned SUIT envelope: devguard's manifest profile.

draft-ietf-suit-manifest-37 section 7 (compatibility check, component download and integrated payload templates) with
the update-management conditions. What is written here is exactly what `release.release_facts` accepts. Images and
the bill of materials were measured by the caller; no byte of them is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from devguard import wire
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.image.measure import Measured
from devguard.manifest._profile import MAX_IDENTITIES
from devguard.manifest.codec import CommandSequence, Common, ComponentId, Manifest, encode_manifest
from devguard.manifest.description import ReleaseDescription
from devguard.manifest.envelope import Envelope, Payload
from devguard.manifest.identity import class_id, device_id, vendor_id
from devguard.manifest.model import ModelFacts
from devguard.manifest.suit import (
    HASHES,
    SHA256,
    Command,
    Comparison,
    Digest,
    ManifestKey,
    Parameter,
    Section,
)
from devguard.manifest.text import TextFacts, encode_text
from devguard.manifest.version import VersionMatch, to_array

REPORT_ALL: Final = 15
REPORT_FAILURE: Final = 2

Commands = list[tuple[int, object]]


def build_envelope(
    description: ReleaseDescription,
    facts: ModelFacts,
    payload: Mapping[str, Measured],
    *,
    detached: bool = False,
    sbom: Measured | None = None,
) -> Envelope:
    """The unsigned envelope of a release; `payload` is what was measured of each component's flat image, by id.

    Payloads are named "#<component id>" and hold no bytes yet (`write_envelope` streams them); `detached` leaves them
    out and changes nothing that is signed. `sbom` is needed when the description names a bill of materials.
    Components stand in the model's order, whatever the description's. Raises `Malformed` description.malformed,
    `Refused` release.components (not all of the model's), device.slot (larger than the model's slot), sbom.missing.
    """
    _check(description, facts, payload, sbom)
    brought = [name for name in facts.components if name in payload]
    ids: list[ComponentId] = [(name.encode(),) for name in (*brought, *description.requires.components)]
    text = encode_text(_text(description), ids)
    version = to_array(description.version)
    manifest = Manifest(
        sequence_number=description.sequence,
        common=Common(tuple(ids), _shared(description, brought, payload, len(ids)), {}),
        sections={
            Section.VALIDATE: _validate(len(brought), len(ids)),
            Section.INSTALL: _install(description, facts, sbom, brought, len(ids)),
        },
        text=Digest.of_member(text),
        extensions={} if version is None else {ManifestKey.SET_VERSION.value: wire.encode(version)},
    )
    encoded = encode_manifest(manifest)
    digest = Digest.of_member(encoded)
    payloads = {} if detached else {f"#{name}": Payload(0, payload[name].size, None) for name in brought}
    return Envelope(digest.algorithm, digest.value, (), encoded, {ManifestKey.TEXT.value: text}, payloads, True)


def _fail(what: str) -> Malformed:
    return Malformed("description.malformed", what)


def _check(
    description: ReleaseDescription, facts: ModelFacts, payload: Mapping[str, Measured], sbom: Measured | None
) -> None:
    if (description.vendor, description.model) != (facts.vendor, facts.name):
        raise _fail(f"release: the model is {facts.vendor}/{facts.name}, not {description.vendor}/{description.model}")
    unknown = [name for name in description.revisions if name not in facts.revisions]
    if unknown or not description.revisions or len(set(description.revisions)) != len(description.revisions):
        raise _fail(f"release.revisions: known are {', '.join(facts.revisions)}, each once")
    brought = [one.id for one in description.components]
    if set(brought) & set(description.requires.components):
        raise _fail("requires.components: the release brings that component itself; use requires.version")
    for what, names, known in (
        ("component", brought, facts.components),
        ("requires.components", description.requires.components, facts.fixed),
    ):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise _fail(f"{what}: {unknown[0]!r} is not one of the model's: {', '.join(known) or 'it has none'}")
    if set(payload) != set(brought) or len(set(brought)) != len(brought) or not brought:
        raise LocalProtocolError("description.malformed", "measured images and described components differ")
    missing = [name for name in facts.components if name not in brought]
    if missing:
        raise Refused(
            "release.components",
            f"the release brings no {', '.join(missing)}; of a {facts.name} all components change together",
            f'add a [[component]] with id = "{missing[0]}"; where its firmware stays, give the same image again',
        )
    _check_serials(description)
    _check_measured(payload, facts)
    _check_inside(description, payload)
    if description.sbom is not None and (sbom is None or sbom.algorithm != SHA256):
        raise Refused("sbom.missing", f"the bill of materials {description.sbom} was not measured with SHA-256")


def _check_serials(description: ReleaseDescription) -> None:
    serials = {one.serials for one in description.components}
    if len(serials) != 1:
        raise _fail("component.serials: all components of a release are for the same devices")
    listed = next(iter(serials))
    if len(set(listed)) != len(listed):
        raise _fail("component.serials: each serial once")
    components = len(description.components) + len(description.requires.components)
    if len(description.revisions) * max(1, len(listed)) * components > MAX_IDENTITIES:
        raise _fail(f"component.serials: revisions times serials times components are at most {MAX_IDENTITIES}")


def _check_measured(payload: Mapping[str, Measured], facts: ModelFacts) -> None:
    for name, measured in payload.items():
        if measured.algorithm not in HASHES:
            raise LocalProtocolError("description.malformed", f"digest algorithm {measured.algorithm}")
        if not 0 < measured.size <= facts.image_capacity:
            raise Refused("device.slot", f"image {name} has {measured.size} bytes, of {facts.image_capacity} allowed")
    total = sum(measured.size for measured in payload.values())
    if total > facts.image_capacity:
        raise Refused("device.slot", f"the images have {total} bytes in all, of {facts.image_capacity} allowed")


def _check_inside(description: ReleaseDescription, payload: Mapping[str, Measured]) -> None:
    """An MCUboot image has to say of itself what will be signed of it; whoever verifies asks the same."""
    vendor, own = vendor_id(description.vendor), len(payload) == 1
    for name, measured in payload.items():
        wrong = None
        if measured.inside is not None:
            from devguard.image.inside import disagreement

            wrong = disagreement(
                measured.inside,
                version=description.version if own else None,
                security_version=description.security_version if own else None,
                vendor_id=vendor,
                class_ids=[class_id(vendor, description.model, one) for one in description.revisions],
            )
        if wrong is not None:
            raise Refused("image.format", f"{name}: {wrong}", "sign the image anew, or correct the description")


def _text(description: ReleaseDescription) -> TextFacts:
    return TextFacts(
        description.vendor,
        description.model,
        description.version,
        description.summary,
        description.revisions,
        description.end_of_support,
    )


def _select(index: int | bool, count: int) -> Commands:
    """set-component-index, where there is more than one component to choose from."""
    return [(Command.DIRECTIVE_SET_COMPONENT_INDEX.value, index)] if count > 1 else []


def _override(values: Mapping[Parameter, object]) -> Commands:
    return [(Command.DIRECTIVE_OVERRIDE_PARAMETERS.value, {key.value: value for key, value in values.items()})]


def _test(*conditions: Command) -> Commands:
    return [(condition.value, REPORT_ALL) for condition in conditions]


def _shared(
    description: ReleaseDescription, brought: Sequence[str], payload: Mapping[str, Measured], count: int
) -> CommandSequence:
    commands: Commands = []
    for index, name in enumerate(brought):
        measured = payload[name]
        digest = Digest(measured.algorithm, measured.digest).encode()
        commands += _select(index, count)
        commands += _override({Parameter.IMAGE_DIGEST: digest, Parameter.IMAGE_SIZE: measured.size})
    vendor = vendor_id(description.vendor)
    commands += _select(True, count)
    commands += _override({Parameter.VENDOR_IDENTIFIER: vendor})
    commands += _test(Command.CONDITION_VENDOR_IDENTIFIER)
    classes = [class_id(vendor, description.model, name) for name in description.revisions]
    return tuple(commands + _identity(classes, description.components[0].serials))


def _identity(classes: Sequence[bytes], serials: Sequence[str]) -> Commands:
    """Class, and device where serials are listed; several alternatives are the branches of one try-each."""
    branches: list[CommandSequence] = []
    for one in classes:
        if not serials:
            branch = _override({Parameter.CLASS_IDENTIFIER: one}) + _test(Command.CONDITION_CLASS_IDENTIFIER)
            branches.append(tuple(branch))
        for serial in serials:
            values: dict[Parameter, object] = {
                Parameter.CLASS_IDENTIFIER: one,
                Parameter.DEVICE_IDENTIFIER: device_id(one, serial),
            }
            tests = _test(Command.CONDITION_CLASS_IDENTIFIER, Command.CONDITION_DEVICE_IDENTIFIER)
            branches.append(tuple(_override(values) + tests))
    if len(branches) == 1:
        return list(branches[0])
    return [(Command.DIRECTIVE_TRY_EACH.value, tuple(branches))]


def _install(
    description: ReleaseDescription, facts: ModelFacts, sbom: Measured | None, brought: Sequence[str], count: int
) -> CommandSequence:
    values, conditions = _requirements(description, facts, sbom)
    commands = _select(0, count) + _override(values) + _test(*conditions)
    for index, least in enumerate(description.requires.components.values(), len(brought)):
        commands += _select(index, count)
        commands += _override({Parameter.VERSION: _at_least(least)}) + _test(Command.CONDITION_VERSION)
    for index, name in enumerate(brought):
        commands += _select(index, count) + _override({Parameter.URI: f"#{name}"})
        commands.append((Command.DIRECTIVE_FETCH.value, REPORT_FAILURE))
        commands += _test(Command.CONDITION_IMAGE_MATCH)
    return tuple(commands)


def _requirements(
    description: ReleaseDescription, facts: ModelFacts, sbom: Measured | None
) -> tuple[dict[Parameter, object], list[Command]]:
    """What the device must hold before it fetches; parameter and condition carry one number each."""
    safety, least = description.safety, description.requires.version
    percent = safety.minimum_battery_percent
    wanted: list[tuple[Parameter, object]] = [
        (Parameter.USE_BEFORE, description.use_before),
        (Parameter.MINIMUM_BATTERY, None if percent is None else facts.battery_mwh(percent)),
        (Parameter.VERSION, None if least is None else _at_least(least)),
        (Parameter.SECURITY_VERSION, description.security_version),
        (Parameter.SBOM_DIGEST, None if description.sbom is None or sbom is None else sbom.digest),
        (Parameter.TEST_REPORT_DIGEST, description.test_report_digest),
        (Parameter.THERAPY_IDLE, safety.therapy_idle or None),
        (Parameter.TWO_TECHNICIANS, safety.two_technicians or None),
        (Parameter.UPDATE_PRIORITY, 0),
    ]
    values = {key: value for key, value in wanted if value is not None}
    return values, [Command(key.value) for key in values]


def _at_least(version: str) -> bytes:
    array = to_array(version)
    if array is None:
        raise _fail(f"requires: version {version} cannot be compared; use major.minor.patch, or -alpha, -beta, -rc")
    return VersionMatch(Comparison.GREATER_EQUAL, array).encode()


def _validate(brought: int, count: int) -> CommandSequence:
    commands: Commands = []
    for index in range(brought):
        commands += _select(index, count) + _test(Command.CONDITION_IMAGE_MATCH)
    return tuple(commands)

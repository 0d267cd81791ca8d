"""devguard's manifest profile: which identities a manifest admits, and what it does for each of them.

For `release`. Everything here runs the interpreter with a recorder; the rules are about what was executed, not about
how the manifest is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from devguard.errors import Refused
from devguard.manifest._recorder import Identity, Recorder, outside
from devguard.manifest.codec import ComponentId, Manifest
from devguard.manifest.interpreter import Limits, Trace, run
from devguard.manifest.suit import HASHES, Command, Parameter, Section
from devguard.manifest.version import VersionMatch

MAX_IDENTITIES: Final = 128
# What all runs for one manifest may execute: the largest release that `build` writes takes two thirds of it.
MAX_STEPS: Final = 1 << 16
_IDENTITY: Final = frozenset(
    {Command.CONDITION_VENDOR_IDENTIFIER, Command.CONDITION_CLASS_IDENTIFIER, Command.CONDITION_DEVICE_IDENTIFIER}
)
_SETTERS: Final = frozenset({Command.DIRECTIVE_SET_COMPONENT_INDEX, Command.DIRECTIVE_OVERRIDE_PARAMETERS})
_REQUIREMENTS: Final = frozenset(
    {
        Command.CONDITION_USE_BEFORE,
        Command.CONDITION_MINIMUM_BATTERY,
        Command.CONDITION_UPDATE_AUTHORIZED,
        Command.CONDITION_VERSION,
        Command.CONDITION_SECURITY_VERSION,
        Command.CONDITION_SBOM_DIGEST,
        Command.CONDITION_TEST_REPORT_DIGEST,
        Command.CONDITION_THERAPY_IDLE,
        Command.CONDITION_TWO_TECHNICIANS,
    }
)
_PLAIN: Final = frozenset(
    {
        Parameter.VENDOR_IDENTIFIER,
        Parameter.CLASS_IDENTIFIER,
        Parameter.DEVICE_IDENTIFIER,
        Parameter.IMAGE_DIGEST,
        Parameter.IMAGE_SIZE,
        Parameter.URI,
    }
)


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """One component: its id, the digest (COSE hash algorithm, bytes), size in bytes and payload name of its image."""

    id: str
    digest_algorithm: int
    digest: bytes
    size: int
    uri: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """An identity the manifest admits; and what its install asked and did, where finding that out was to execute it."""

    identity: Identity
    installed: tuple[Recorder, Trace] | None


@dataclass(frozen=True, slots=True)
class Execution:
    """What one identity's install and validate asked and did."""

    components: tuple[ComponentFacts, ...]
    asked: Mapping[Parameter, object]
    versions: Mapping[ComponentId, VersionMatch]


def identities(manifest: Manifest, limits: Limits) -> tuple[bytes, tuple[bytes, ...], list[Admitted]]:
    """Every (vendor, class, device) the manifest admits; device True where no device is asked for.

    Each question is first answered with no: a manifest that still goes on does not enforce the answer.
    """
    probe = Recorder(Identity(False, True, True))
    _must_refuse(manifest, probe, limits, "image.vendor")
    vendors = tuple(probe.vendors)
    if len(vendors) != 1:
        raise outside("more than one vendor")
    probe = Recorder(Identity(vendors[0], False, True))
    _must_refuse(manifest, probe, limits, "image.class")
    classes = tuple(probe.classes)
    _check_count(manifest, len(classes))
    found: list[Admitted] = []
    for one in classes:
        probe = Recorder(Identity(vendors[0], one, False))
        trace = _install_of_any_device(manifest, probe, limits)
        if trace is None:
            found += [Admitted(Identity(vendors[0], one, device), None) for device in probe.devices]
        else:  # no device was asked for, so that answer changes nothing
            found.append(Admitted(Identity(vendors[0], one, True), (probe, trace)))
        _check_count(manifest, len(found))
    if len({admitted.identity.device is True for admitted in found}) != 1:
        raise outside("some of its classes ask for devices, some do not")
    devices = [admitted.identity.device for admitted in found if admitted.identity.device is not True]
    if len(set(devices)) != len(devices):
        raise outside("a device is listed under two classes")
    return vendors[0], classes, found


def _check_count(manifest: Manifest, count: int) -> None:
    # Work grows with identities times identities times components; nothing here has been authenticated yet.
    if count * len(manifest.common.components) > MAX_IDENTITIES:
        raise outside(f"more than {MAX_IDENTITIES} identities times components")


def _must_refuse(manifest: Manifest, probe: Recorder, limits: Limits, code: str) -> None:
    try:
        run(manifest, Section.INSTALL, probe, limits)
    except Refused as refused:
        if refused.code == code:
            return
        raise
    raise outside(f"it goes on where {code} should refuse")


def _install_of_any_device(manifest: Manifest, probe: Recorder, limits: Limits) -> Trace | None:
    """What install executes when no device matches; None where it then refuses."""
    try:
        trace = run(manifest, Section.INSTALL, probe, limits)
    except Refused as refused:
        if refused.code == "image.device":
            return None
        raise
    if probe.devices:
        raise outside("it goes on where image.device should refuse")
    return trace


def execute(manifest: Manifest, admitted: Admitted, limits: Limits) -> Execution:
    """What install and validate do for this identity; `Malformed` when that is outside the profile."""
    install, validate = Recorder(admitted.identity), Recorder(admitted.identity)
    if admitted.installed is None:
        installed = run(manifest, Section.INSTALL, install, limits)
    else:
        install, installed = admitted.installed
    validated = run(manifest, Section.VALIDATE, validate, limits)
    ids = manifest.common.components
    fetched = tuple(index for index, one in enumerate(ids) if one in install.fetched)
    _check_install(installed, len(ids), fetched)
    _check_validate(validated, len(ids), fetched)
    for index, values in enumerate(installed.parameters):
        _check_parameters(values, install, ids[index])
    for values in validated.parameters:
        if set(values) - _PLAIN:
            raise outside("validate sets a requirement")
    if validate.matched != install.matched:
        raise outside("validate checks other images than install")
    components = tuple(_component(ids[index], install) for index in fetched)
    return Execution(components, install.asked, install.versions)


def _check_steps(trace: Trace, count: int, allowed: frozenset[Command]) -> None:
    """Identity is asked of every component, in the shared sequence; nothing else stands in a branch."""
    for step in trace.steps:
        inside = _IDENTITY | _SETTERS | {Command.DIRECTIVE_TRY_EACH}
        if step.command not in (inside if step.depth or step.shared else allowed):
            raise outside(f"command {step.command} where it may not stand")
    for needed in (Command.CONDITION_VENDOR_IDENTIFIER, Command.CONDITION_CLASS_IDENTIFIER):
        asked = {step.component for step in trace.steps if step.shared and step.command == needed and step.ok}
        if asked != set(range(count)):
            raise outside("a component whose vendor or class is not checked")


def _check_install(trace: Trace, count: int, fetched: tuple[int, ...]) -> None:
    """Requirements first, then each image fetched and compared: a device refuses before it erases."""
    images = frozenset({Command.DIRECTIVE_FETCH, Command.CONDITION_IMAGE_MATCH})
    _check_steps(trace, count, _SETTERS | _REQUIREMENTS | images)
    if not fetched:
        raise outside("nothing is fetched")
    open_components: list[int] = []
    started = False
    for step in trace.steps:
        if step.command == Command.DIRECTIVE_FETCH and step.component is not None:
            started = True
            open_components.append(step.component)
        elif step.command == Command.CONDITION_IMAGE_MATCH:
            if step.component not in open_components:
                raise outside("an image is compared before it is fetched")
            open_components.remove(step.component)
        elif started and step.command in _REQUIREMENTS:
            raise outside("a requirement after the first fetch")
    if open_components:
        raise outside("an image is fetched and not compared")


def _check_validate(trace: Trace, count: int, fetched: tuple[int, ...]) -> None:
    _check_steps(trace, count, _SETTERS | {Command.CONDITION_IMAGE_MATCH})
    matched = {step.component for step in trace.steps if step.command == Command.CONDITION_IMAGE_MATCH}
    if matched != set(fetched):
        raise outside("validate does not compare exactly the fetched images")


def _check_parameters(values: Mapping[int, object], recorder: Recorder, component: ComponentId) -> None:
    """Every requirement that is set was asked, with that value; an identity that is set was asked."""
    for key, value in values.items():
        if key == Parameter.VERSION:
            asked: object = recorder.versions.get(component)
        elif key == Parameter.DEVICE_IDENTIFIER:
            asked = value if value in recorder.devices else None
        elif key in _PLAIN:
            continue
        else:
            asked = recorder.asked.get(Parameter(key))
        if asked != value:
            raise outside(f"parameter {key} is set and not checked")


def _component(identifier: ComponentId, recorder: Recorder) -> ComponentFacts:
    name = component_name(identifier)
    uri, digest, size = recorder.fetched[identifier]
    if recorder.matched.get(identifier) != (digest, size):
        raise outside("an image is fetched as one and compared as another")
    if digest is None or digest.algorithm not in HASHES or size is None:
        raise outside("an image without size or with an unknown digest")
    if uri != f"#{name}":
        raise outside("a payload that is not named after its component")
    return ComponentFacts(name, digest.algorithm, digest.value, size, uri)


def component_name(identifier: ComponentId) -> str:
    """The component id as text: one segment of printable UTF-8."""
    try:
        name = identifier[0].decode("utf-8") if len(identifier) == 1 else ""
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable():
        raise outside("a component id that is not one printable text")
    return name

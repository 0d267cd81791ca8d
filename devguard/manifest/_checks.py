"""Every condition and directive as one row: what it needs, what it asks the platform, how it is refused.

Data for `interpreter`. Parameter values were typed by `_parameters`, so a lookup here either finds the right type or
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from devguard.errors import Malformed
from devguard.manifest.codec import ComponentId
from devguard.manifest.platform import Platform
from devguard.manifest.suit import CODE, Command, Digest, Parameter
from devguard.manifest.version import VersionMatch

_T = TypeVar("_T")


@dataclass(slots=True)
class Call:
    """One command about to run on the component at `index`, with that component's parameters."""

    platform: Platform
    components: tuple[ComponentId, ...]
    index: int
    parameters: Mapping[int, object]

    @property
    def component(self) -> ComponentId:
        """The current component's identifier."""
        return self.components[self.index]

    def get(self, key: Parameter, kind: type[_T]) -> _T:
        """The parameter's value; `Malformed` where it was never set."""
        value = self.parameters.get(key)
        if not isinstance(value, kind):
            raise Malformed(CODE, f"component {self.index}: parameter {key.name.lower()} is not set")
        return value

    def maybe(self, key: Parameter, kind: type[_T]) -> _T | None:
        """The parameter's value or None."""
        return self.get(key, kind) if key in self.parameters else None


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition: the parameter without which it fails, its question, its refusal code and reason."""

    needs: Parameter | None
    holds: Callable[[Call], bool]
    code: str
    why: str


def _image(call: Call) -> bool:
    digest = call.get(Parameter.IMAGE_DIGEST, Digest)
    return call.platform.image_matches(call.component, digest, call.maybe(Parameter.IMAGE_SIZE, int))


def _not_image(call: Call) -> bool:
    return not call.platform.image_matches(call.component, call.get(Parameter.IMAGE_DIGEST, Digest), None)


def _priority(call: Call) -> bool:
    return call.platform.authorized(call.get(Parameter.UPDATE_PRIORITY, int))


CONDITIONS: Final[dict[int, Condition]] = {
    Command.CONDITION_VENDOR_IDENTIFIER: Condition(
        Parameter.VENDOR_IDENTIFIER,
        lambda c: c.platform.vendor_matches(c.component, c.get(Parameter.VENDOR_IDENTIFIER, bytes)),
        "image.vendor",
        "the release is for another vendor's devices",
    ),
    Command.CONDITION_CLASS_IDENTIFIER: Condition(
        Parameter.CLASS_IDENTIFIER,
        lambda c: c.platform.class_matches(c.component, c.get(Parameter.CLASS_IDENTIFIER, bytes)),
        "image.class",
        "the release is for another model or hardware revision",
    ),
    Command.CONDITION_DEVICE_IDENTIFIER: Condition(
        Parameter.DEVICE_IDENTIFIER,
        lambda c: c.platform.device_matches(c.component, c.get(Parameter.DEVICE_IDENTIFIER, bytes)),
        "image.device",
        "the release is for another serial number",
    ),
    Command.CONDITION_IMAGE_MATCH: Condition(
        Parameter.IMAGE_DIGEST, _image, "image.digest", "the image is not the one the manifest names"
    ),
    Command.CONDITION_IMAGE_NOT_MATCH: Condition(
        Parameter.IMAGE_DIGEST, _not_image, "image.digest", "the image is the one that must not be there"
    ),
    Command.CONDITION_COMPONENT_SLOT: Condition(
        Parameter.COMPONENT_SLOT,
        lambda c: c.platform.slot_matches(c.component, c.get(Parameter.COMPONENT_SLOT, int)),
        "device.slot",
        "the component is in another slot",
    ),
    Command.CONDITION_CHECK_CONTENT: Condition(
        Parameter.CONTENT,
        lambda c: c.platform.content_matches(c.component, c.get(Parameter.CONTENT, bytes)),
        "image.digest",
        "the component's content is not the one the manifest holds",
    ),
    Command.CONDITION_ABORT: Condition(None, lambda _: False, CODE, "the manifest aborts here"),
    Command.CONDITION_USE_BEFORE: Condition(
        Parameter.USE_BEFORE,
        lambda c: c.platform.is_before(c.get(Parameter.USE_BEFORE, int)),
        "release.expired",
        "the release's use-before date has passed",
    ),
    Command.CONDITION_MINIMUM_BATTERY: Condition(
        Parameter.MINIMUM_BATTERY,
        lambda c: c.platform.battery_at_least(c.get(Parameter.MINIMUM_BATTERY, int)),
        "device.battery",
        "the battery holds less than the release asks for",
    ),
    Command.CONDITION_UPDATE_AUTHORIZED: Condition(
        Parameter.UPDATE_PRIORITY, _priority, "grant.missing", "nobody has authorized the update"
    ),
    Command.CONDITION_VERSION: Condition(
        Parameter.VERSION,
        lambda c: c.platform.version_matches(c.component, c.get(Parameter.VERSION, VersionMatch)),
        "version.requires",
        "the installed version is not one the release accepts",
    ),
    Command.CONDITION_SECURITY_VERSION: Condition(
        Parameter.SECURITY_VERSION,
        lambda c: c.platform.security_version_allowed(c.get(Parameter.SECURITY_VERSION, int)),
        "version.rollback",
        "the security version is below the device's",
    ),
    Command.CONDITION_SBOM_DIGEST: Condition(
        Parameter.SBOM_DIGEST,
        lambda c: c.platform.sbom_accepted(c.get(Parameter.SBOM_DIGEST, bytes)),
        "sbom.digest",
        "the bill of materials is not the one that was signed",
    ),
    Command.CONDITION_TEST_REPORT_DIGEST: Condition(
        Parameter.TEST_REPORT_DIGEST,
        lambda c: c.platform.test_report_accepted(c.get(Parameter.TEST_REPORT_DIGEST, bytes)),
        "release.test-report",
        "the test report is not the one that was signed",
    ),
    Command.CONDITION_THERAPY_IDLE: Condition(
        Parameter.THERAPY_IDLE, lambda c: c.platform.therapy_idle(), "device.therapy-active", "therapy is running"
    ),
    Command.CONDITION_TWO_TECHNICIANS: Condition(
        Parameter.TWO_TECHNICIANS,
        lambda c: c.platform.two_technicians(),
        "grant.quorum",
        "two different technicians have not approved",
    ),
}


def _fetch(call: Call) -> None:
    digest, size = call.maybe(Parameter.IMAGE_DIGEST, Digest), call.maybe(Parameter.IMAGE_SIZE, int)
    call.platform.fetch(call.component, call.get(Parameter.URI, str), digest, size)


def _source(call: Call) -> ComponentId:
    index = call.get(Parameter.SOURCE_COMPONENT, int)
    if index == call.index:
        raise Malformed(CODE, f"component {index} is its own source")
    return call.components[index]


DIRECTIVES: Final[dict[int, Callable[[Call], None]]] = {
    Command.DIRECTIVE_FETCH: _fetch,
    Command.DIRECTIVE_WRITE: lambda c: c.platform.write(c.component, c.get(Parameter.CONTENT, bytes)),
    Command.DIRECTIVE_COPY: lambda c: c.platform.copy(c.component, _source(c)),
    Command.DIRECTIVE_SWAP: lambda c: c.platform.swap(c.component, _source(c)),
    Command.DIRECTIVE_UNLINK: lambda c: c.platform.unlink(c.component),
    Command.DIRECTIVE_INVOKE: lambda c: c.platform.invoke(c.component, c.maybe(Parameter.INVOKE_ARGS, bytes)),
}

"""A platform that answers as one identity would and writes down what the manifest asked and did.

For `release`: the facts of a release are what an execution asked, never what a reader thinks it would ask.
"""
# The arguments are those of the Platform protocol, needed or not.
# ruff: noqa: ARG002

from __future__ import annotations

from dataclasses import dataclass, field

from devguard.errors import Malformed
from devguard.manifest.codec import ComponentId
from devguard.manifest.suit import CODE, Digest, Parameter
from devguard.manifest.version import VersionMatch

Answer = bytes | bool


def outside(what: str) -> Malformed:
    """The error for a manifest that devguard's profile does not cover."""
    return Malformed(CODE, f"outside devguard's release profile: {what}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers. Bytes match that very id; True matches any, False none (to learn what is asked)."""

    vendor: Answer
    class_id: Answer
    device: Answer


@dataclass(slots=True)
class Recorder:
    """Implements `Platform`. Conditions other than identity pass; directives other than fetch are refused."""

    identity: Identity
    vendors: dict[bytes, None] = field(default_factory=dict)
    classes: dict[bytes, None] = field(default_factory=dict)
    devices: dict[bytes, None] = field(default_factory=dict)
    asked: dict[Parameter, object] = field(default_factory=dict)
    versions: dict[ComponentId, VersionMatch] = field(default_factory=dict)
    fetched: dict[ComponentId, tuple[str, Digest | None, int | None]] = field(default_factory=dict)
    matched: dict[ComponentId, tuple[Digest, int | None]] = field(default_factory=dict)

    def vendor_matches(self, component: ComponentId, vendor_id: bytes) -> bool:
        """Records and compares."""
        self.vendors[vendor_id] = None
        return _answer(self.identity.vendor, vendor_id)

    def class_matches(self, component: ComponentId, class_id: bytes) -> bool:
        """Records and compares."""
        self.classes[class_id] = None
        return _answer(self.identity.class_id, class_id)

    def device_matches(self, component: ComponentId, device_id: bytes) -> bool:
        """Records and compares."""
        self.devices[device_id] = None
        return _answer(self.identity.device, device_id)

    def image_matches(self, component: ComponentId, digest: Digest, size: int | None) -> bool:
        """Records; the same component may be checked again, but only for the same image."""
        if self.matched.setdefault(component, (digest, size)) != (digest, size):
            raise outside("a component is checked against two images")
        return True

    def slot_matches(self, component: ComponentId, slot: int) -> bool:
        """Refused."""
        raise outside("a component slot")

    def content_matches(self, component: ComponentId, content: bytes) -> bool:
        """Refused."""
        raise outside("check-content")

    def is_before(self, use_before: int) -> bool:
        """Records."""
        return self._note(Parameter.USE_BEFORE, use_before)

    def battery_at_least(self, mwh: int) -> bool:
        """Records."""
        return self._note(Parameter.MINIMUM_BATTERY, mwh)

    def authorized(self, priority: int) -> bool:
        """Records."""
        return self._note(Parameter.UPDATE_PRIORITY, priority)

    def version_matches(self, component: ComponentId, match: VersionMatch) -> bool:
        """Records, by component."""
        if self.versions.setdefault(component, match) != match:
            raise outside("two version conditions on one component")
        return True

    def security_version_allowed(self, security_version: int) -> bool:
        """Records."""
        return self._note(Parameter.SECURITY_VERSION, security_version)

    def sbom_accepted(self, digest: bytes) -> bool:
        """Records."""
        return self._note(Parameter.SBOM_DIGEST, digest)

    def test_report_accepted(self, digest: bytes) -> bool:
        """Records."""
        return self._note(Parameter.TEST_REPORT_DIGEST, digest)

    def therapy_idle(self) -> bool:
        """Records."""
        return self._note(Parameter.THERAPY_IDLE, True)

    def two_technicians(self) -> bool:
        """Records."""
        return self._note(Parameter.TWO_TECHNICIANS, True)

    def fetch(self, component: ComponentId, uri: str, digest: Digest | None, size: int | None) -> None:
        """Records; one fetch for a component."""
        if component in self.fetched:
            raise outside("a component is fetched twice")
        self.fetched[component] = (uri, digest, size)

    def write(self, component: ComponentId, content: bytes) -> None:
        """Refused."""
        raise outside("write")

    def copy(self, component: ComponentId, source: ComponentId) -> None:
        """Refused."""
        raise outside("copy")

    def swap(self, component: ComponentId, source: ComponentId) -> None:
        """Refused."""
        raise outside("swap")

    def unlink(self, component: ComponentId) -> None:
        """Refused."""
        raise outside("unlink")

    def invoke(self, component: ComponentId, arguments: bytes | None) -> None:
        """Refused."""
        raise outside("invoke")

    def _note(self, key: Parameter, value: object) -> bool:
        if self.asked.setdefault(key, value) != value:
            raise outside(f"{key.name.lower()} is asked with two values")
        return True


def _answer(answer: Answer, asked: bytes) -> bool:
    return answer if isinstance(answer, bool) else answer == asked

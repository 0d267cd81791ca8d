"""The seam between the interpreter and whoever executes a manifest: a device, a judge, a recorder.

One method per condition (answers True or False, without side effects) and per directive (acts or raises a
`DevguardError`). draft-ietf-suit-manifest-37 sections 8.4.9 and 8.4.10, update management section 5, devguard's own.
"""

from __future__ import annotations

from typing import Protocol

from devguard.manifest.codec import ComponentId
from devguard.manifest.suit import Digest
from devguard.manifest.version import VersionMatch


class Platform(Protocol):
    """What a manifest may ask of and do to its recipient. Ids are 16 bytes, sizes bytes, times epoch seconds."""

    def vendor_matches(self, component: ComponentId, vendor_id: bytes) -> bool:
        """Whether the component is of this vendor."""

    def class_matches(self, component: ComponentId, class_id: bytes) -> bool:
        """Whether the component is of this class (model and hardware revision)."""

    def device_matches(self, component: ComponentId, device_id: bytes) -> bool:
        """Whether this is that very device."""

    def image_matches(self, component: ComponentId, digest: Digest, size: int | None) -> bool:
        """Whether the component's content has this digest and, where set, this size."""

    def slot_matches(self, component: ComponentId, slot: int) -> bool:
        """Whether the component is in that slot."""

    def content_matches(self, component: ComponentId, content: bytes) -> bool:
        """Whether the component's content is these bytes, compared in constant time."""

    def is_before(self, use_before: int) -> bool:
        """Whether now is before that time."""

    def battery_at_least(self, mwh: int) -> bool:
        """Whether the battery holds at least that charge."""

    def authorized(self, priority: int) -> bool:
        """Whether somebody allowed to has authorized the update."""

    def version_matches(self, component: ComponentId, match: VersionMatch) -> bool:
        """Whether the component's installed version passes."""

    def security_version_allowed(self, security_version: int) -> bool:
        """Whether the security version is not below the recipient's counter."""

    def sbom_accepted(self, digest: bytes) -> bool:
        """Whether a release with this bill of materials (SHA-256) is acceptable."""

    def test_report_accepted(self, digest: bytes) -> bool:
        """Whether a release with this test report (SHA-256) is acceptable."""

    def therapy_idle(self) -> bool:
        """Whether no therapy runs that an update would disturb."""

    def two_technicians(self) -> bool:
        """Whether two different technicians have approved."""

    def fetch(self, component: ComponentId, uri: str, digest: Digest | None, size: int | None) -> None:
        """Store the payload named by `uri` into the component."""

    def write(self, component: ComponentId, content: bytes) -> None:
        """Store these bytes into the component."""

    def copy(self, component: ComponentId, source: ComponentId) -> None:
        """Store the source's content into the component."""

    def swap(self, component: ComponentId, source: ComponentId) -> None:
        """Exchange the contents of both."""

    def unlink(self, component: ComponentId) -> None:
        """Remove the component."""

    def invoke(self, component: ComponentId, arguments: bytes | None) -> None:
        """Execute the component."""

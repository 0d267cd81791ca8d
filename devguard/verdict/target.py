"""The device a release is judged for, and whether the release is for it.

Identity is compared the way a SUIT condition compares it, by identifiers computed from the target's own facts:
nothing is read from the release that the target has to believe. A fact that is None is not asked.
Source: draft-ietf-suit-manifest-37 section 8.4.9.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from devguard.errors import Refused
from devguard.manifest.identity import class_id, device_id, vendor_id
from devguard.manifest.model import ModelFacts
from devguard.manifest.release import ReleaseFacts

NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class Target:
    """What is known of the device; None means that it is not asked.

    `revision` is the hardware revision, `installed_digest` the *manifest* digest of the installed release,
    `security_version` the value of the device's counter, `installed_version` its release's version as text,
    `installed_components` the versions of its components by id.
    """

    model: ModelFacts | None = None
    serial: str | None = None
    revision: str | None = None
    installed_sequence: int | None = None
    installed_digest: bytes | None = None
    security_version: int | None = None
    installed_version: str | None = None
    installed_components: Mapping[str, str] | None = None

    def class_ids(self) -> dict[bytes, str]:
        """Class identifier to revision, of the target's revision or of all its model has; empty without a model."""
        if self.model is None:
            return {}
        vendor = vendor_id(self.model.vendor)
        revisions = self.model.revisions if self.revision is None else (self.revision,)
        return {class_id(vendor, self.model.name, revision): revision for revision in revisions}


def check_vendor(facts: ReleaseFacts, target: Target) -> str:
    """Why the vendor is right; raises `Refused("image.vendor")`."""
    if target.model is None:
        return NOT_ASKED
    if facts.vendor_id != vendor_id(target.model.vendor):
        found = facts.text.vendor if facts.text is not None else facts.vendor_id.hex()
        raise Refused("image.vendor", f"the device is {target.model.vendor}'s, the release is for {found}")
    return target.model.vendor


def check_class(facts: ReleaseFacts, target: Target) -> str:
    """Why model and revision are right; raises `Refused("image.class")`."""
    if target.model is None:
        return NOT_ASKED
    named = facts.text.model if facts.text is not None else target.model.name
    covered = [revision for known, revision in target.class_ids().items() if known in facts.class_ids]
    if named != target.model.name or not covered:
        wanted = target.model.name if target.revision is None else f"{target.model.name}/{target.revision}"
        raise Refused("image.class", f"the device is a {wanted}, the release is for {_models(facts)}")
    return f"{target.model.name}, revision {', '.join(covered)}"


def check_device(facts: ReleaseFacts, target: Target) -> str:
    """Why the serial number is right; raises `Refused("image.device")`."""
    if target.serial is None:
        return NOT_ASKED if not facts.device_ids else f"{NOT_ASKED}; the release is for listed serial numbers only"
    if not facts.device_ids:
        return "any serial number"
    classes = set(facts.class_ids) & set(target.class_ids()) if target.model is not None else set(facts.class_ids)
    if not any(device_id(one, target.serial) in facts.device_ids for one in classes):
        raise Refused("image.device", f"serial number {target.serial} is not among those the release is for")
    return f"serial number {target.serial} is listed"


def _models(facts: ReleaseFacts) -> str:
    if facts.text is None:
        return "another model or revision"
    return "/".join((facts.text.model, *facts.text.revisions[:1])) + (" and others" if facts.text.revisions[1:] else "")

"""Which releases may follow which: no way back, no giant leaps.

The sequence number orders a model's releases; the security version is what the device burns into its counter.
Both may only grow, and only by the step the trust document allows, so that a stolen key cannot use up the numbers.
Source: draft-ietf-suit-manifest-37 section 8.4.3 and 12; devguard formats, "Trust document".
"""

from __future__ import annotations

from devguard.errors import Refused
from devguard.manifest.release import ReleaseFacts
from devguard.manifest.suit import Comparison
from devguard.manifest.version import VersionMatch, to_array
from devguard.trust.model import TrustDocument
from devguard.verdict.target import NOT_ASKED, Target


def check_sequence(facts: ReleaseFacts, manifest_digest: bytes, trust: TrustDocument, target: Target) -> str:
    """Why the sequence number is right; raises `Refused`: version.rollback, version.current, version.exhausted."""
    floor = _floor(facts, trust, target)
    if facts.sequence < floor:
        raise Refused("version.rollback", f"sequence {facts.sequence} is below the trust document's floor {floor}")
    installed = target.installed_sequence
    if installed is None:
        return _by_version(facts, target.installed_version)
    if facts.sequence < installed:
        raise Refused("version.rollback", f"sequence {facts.sequence} is older than the installed {installed}")
    if facts.sequence == installed:
        if target.installed_digest is None or target.installed_digest == manifest_digest:
            raise Refused("version.current", f"sequence {installed} is installed already")
        raise Refused("version.rollback", f"sequence {installed} is installed, and it is a different release")
    _step("sequence", facts.sequence, installed, trust.max_step)
    return f"sequence {facts.sequence} follows {installed}"


def _by_version(facts: ReleaseFacts, installed: str | None) -> str:
    """Where only the installed version is known, the versions stand in for the sequence numbers."""
    if installed is None:
        return f"sequence {facts.sequence}; installed: {NOT_ASKED}"
    offered, found = to_array(facts.version or ""), to_array(installed)
    if offered is None or found is None:
        what = f"version {facts.version or '(not named)'} cannot be compared with the installed {installed}"
        raise Refused("version.rollback", what, "name the installed release by its sequence number")
    # A release stands after its own pre-releases: the number they have behind the third is below 0.
    width = max(len(offered), len(found))
    first, second = (array + (0,) * (width - len(array)) for array in (offered, found))
    if first < second:
        raise Refused("version.rollback", f"version {facts.version} is older than the installed {installed}")
    if first == second:
        raise Refused("version.current", f"version {installed} is installed already")
    return f"sequence {facts.sequence}; version {facts.version} follows {installed}"


def check_security_version(facts: ReleaseFacts, trust: TrustDocument, target: Target) -> str:
    """Why the security version is right; raises `Refused`: version.rollback, version.exhausted."""
    if target.security_version is None:
        return NOT_ASKED
    if facts.security_version < target.security_version:
        raise Refused(
            "version.rollback",
            f"security version {facts.security_version} is below the device's counter {target.security_version}",
        )
    _step("security version", facts.security_version, target.security_version, trust.max_step)
    return f"security version {facts.security_version}, the counter stands at {target.security_version}"


def check_requires(facts: ReleaseFacts, target: Target) -> str:
    """Why the installed versions suffice; raises `Refused("version.requires")`."""
    details = []
    if facts.requires_version is not None:
        details.append(_at_least("the release", facts.requires_version, target.installed_version))
    for component, version in facts.requires_components:
        known = target.installed_components
        details.append(_at_least(component, version, None if known is None else known.get(component, "")))
    return "; ".join(details) or "needs no other version first"


def _at_least(what: str, needed: str, installed: str | None) -> str:
    if installed is None:
        return f"{what} must be {needed} or newer; installed: {NOT_ASKED}"
    wanted, found = to_array(needed), to_array(installed)
    # A version that cannot be compared is not known to be new enough.
    if wanted is None or found is None or not VersionMatch(Comparison.GREATER_EQUAL, wanted).holds(found):
        raise Refused("version.requires", f"{what} must be {needed} or newer first, found {installed or 'none'}")
    return f"{what} must be {needed} or newer and is {installed}"


def model_of(facts: ReleaseFacts, target: Target) -> str:
    """The model's name: the target's own, else the one in the signed text, else ""."""
    if target.model is not None:
        return target.model.name
    return facts.text.model if facts.text is not None else ""


def _floor(facts: ReleaseFacts, trust: TrustDocument, target: Target) -> int:
    model = model_of(facts, target)
    if not model and trust.floors:
        # Without a name no floor can be looked up, and a floor that is not looked up is no floor.
        raise Refused("version.rollback", "neither text nor target names the model, so its floor cannot be checked")
    return trust.floors.get(model, 0)


def _step(what: str, offered: int, installed: int, most: int) -> None:
    if offered - installed > most:
        raise Refused(
            "version.exhausted",
            f"{what} {offered} is {offered - installed} above {installed}; the trust document allows {most} at a time",
        )

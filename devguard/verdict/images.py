"""Whether the images are the signed ones: all components of the model, size and digest of each.

Measuring is the caller's work, over the very bytes that are sent: before the verdict, or by a function that the
verdict calls once with the facts it rests on. Source: draft-ietf-suit-manifest-37 sections 8.4.8.6 and 8.4.8.8.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from devguard.errors import Refused
from devguard.image.measure import HASH_NAMES, Measured, MeasuredStream
from devguard.manifest.release import ComponentFacts, ReleaseFacts
from devguard.verdict.target import NOT_ASKED, Target

Payloads = Measured | MeasuredStream | None
Measurer = Callable[[ReleaseFacts], Payloads]


def check_components(facts: ReleaseFacts, target: Target) -> str:
    """Why the release is whole; raises `Refused`: release.components, image.size, device.slot.

    A model's components share a slot and change together or not at all, so a release brings every one of them, in the
    model's order, in which their images lie.
    """
    for one in facts.components:
        if one.size < 1:
            raise Refused("image.size", f"the image of {one.id} has {one.size} bytes")
    names, total = [one.id for one in facts.components], sum(one.size for one in facts.components)
    if target.model is None:
        return f"{', '.join(names)}; {NOT_ASKED} of a model"
    wanted = list(target.model.components)
    if names != wanted:
        what = f"the release brings {', '.join(names)}; a {target.model.name} takes {', '.join(wanted)}"
        raise Refused("release.components", f"{what} together, in this order" if len(wanted) > 1 else what)
    if total > target.model.image_capacity:
        raise Refused("device.slot", f"images of {total} bytes in all, the slot holds {target.model.image_capacity}")
    return f"{', '.join(names)}: all that the model has"


def check_images(facts: ReleaseFacts, payload: Payloads) -> str:
    """Why the images are right; raises `Refused`: image.size, image.digest, image.format, release.components.

    One `Measured` is for the only component; a stream holds exactly the release's, in its order.
    """
    if payload is None:
        return "deferred: the image has not been seen yet"
    components = facts.components
    names = [one.id for one in components]
    if isinstance(payload, MeasuredStream):
        measured = payload.parts
    elif len(components) == 1:
        measured = {names[0]: payload}
    else:
        how = " ".join(f"--component {name}=FILE" for name in names)
        what = f"one image was given, the release has {len(names)}: verify the envelope with {how}"
        raise Refused("release.components", what)
    if list(measured) != names:
        missing = [name for name in names if name not in measured]
        what = f"no image of {', '.join(missing)} could be read" if missing else "images of other components were read"
        raise Refused("image.digest", what)
    for one in components:
        _check_image(one, measured[one.id])
        _check_inside(facts, one.id, measured[one.id])
    named = [f"{one.id}: " if len(components) > 1 else "" for one in components]
    return ", ".join(
        f"{name}{HASH_NAMES[one.digest_algorithm]} of {one.size} bytes matches"
        for name, one in zip(named, components, strict=True)
    )


def _check_inside(facts: ReleaseFacts, name: str, measured: Measured) -> None:
    """An MCUboot image has to say of itself what the manifest says of it."""
    if measured.inside is None:
        return
    from devguard.image.inside import disagreement

    own = len(facts.components) == 1
    wrong = disagreement(
        measured.inside,
        version=facts.version if own else None,
        security_version=facts.security_version if own else None,
        vendor_id=facts.vendor_id,
        class_ids=facts.class_ids,
    )
    if wrong is not None:
        raise Refused("image.format", f"{name}: {wrong}", "sign the image anew so that both say the same")


def whole_digest(components: tuple[ComponentFacts, ...], payload: Payloads) -> bytes | None:
    """The digest of what is sent: the signed one of a single image, the measured one of several, where it is known."""
    if len(components) == 1:
        return components[0].digest
    return payload.whole.digest if isinstance(payload, MeasuredStream) else None


def _check_image(facts: ComponentFacts, found: Measured) -> None:
    if facts.digest_algorithm not in HASH_NAMES or found.algorithm != facts.digest_algorithm:
        raise Refused(
            "image.digest", f"signed is digest algorithm {facts.digest_algorithm}, measured {found.algorithm}"
        )
    if found.size != facts.size:
        raise Refused("image.size", f"signed are {facts.size} bytes, the image has {found.size}")
    if not compare_digest(found.digest, facts.digest):
        raise Refused("image.digest", f"signed is {facts.digest.hex()}, the image has {found.digest.hex()}")

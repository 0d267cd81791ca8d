"""Whether the images are the signed ones: size and digest of each component.

Measuring is the caller's work, before the verdict and over the very bytes that are sent. Source:
draft-ietf-suit-manifest-37 sections 8.4.8.6 and 8.4.8.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest

from devguard.errors import Refused
from devguard.image.measure import HASH_NAMES, Measured
from devguard.manifest.release import ComponentFacts

Payloads = Measured | Mapping[str, Measured] | None


def check_images(components: tuple[ComponentFacts, ...], payload: Payloads) -> str:
    """Why the images are right; raises `Refused`: image.size, image.digest.

    One `Measured` is for the only component; a mapping is by component id and must name exactly the release's.
    """
    if payload is None:
        return "deferred: the image has not been seen yet"
    measured = payload if isinstance(payload, Mapping) else dict.fromkeys((one.id for one in components), payload)
    if not isinstance(payload, Mapping) and len(components) != 1:
        raise Refused("image.digest", f"one image was measured, the release has {len(components)} components")
    if set(measured) != {one.id for one in components}:
        raise Refused("image.digest", "the measured images are not those of the release's components")
    for one in components:
        _check_image(one, measured[one.id])
    return ", ".join(f"{HASH_NAMES[one.digest_algorithm]} of {one.size} bytes matches" for one in components)


def _check_image(facts: ComponentFacts, found: Measured) -> None:
    if facts.digest_algorithm not in HASH_NAMES or found.algorithm != facts.digest_algorithm:
        raise Refused(
            "image.digest", f"signed is digest algorithm {facts.digest_algorithm}, measured {found.algorithm}"
        )
    if found.size != facts.size:
        raise Refused("image.size", f"signed are {facts.size} bytes, the image has {found.size}")
    if not compare_digest(found.digest, facts.digest):
        raise Refused("image.digest", f"signed is {facts.digest.hex()}, the image has {found.digest.hex()}")

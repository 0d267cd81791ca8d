"""Putting back the release that was confirmed last, after its image was damaged: an action of its own, `recover`.

It brings back that very release, by manifest digest and sequence number, and only where something is damaged: the image
that runs, its papers, or the one kept to fall back to. Counters stay where they are. An `update` never does this, and
`recover` never does anything else. Source: devguard formats, "Grant"; architecture, "The conversation on the wire".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from devguard.device.counters import Counters
from devguard.errors import Refused
from devguard.verdict.release import Release
from devguard.verdict.target import Target

if TYPE_CHECKING:
    from devguard.device.bootloader import Bootloader
    from devguard.device.node import DeviceNode

_WHOLE: Final = "the release confirmed last stands whole, and so does what there is to fall back to"


def is_lost(loader: Bootloader, counters: Counters) -> bool:
    """Whether something was confirmed here, and what runs is not that: nothing, or the image before it."""
    running = loader.result.header
    return counters.sealed is not None and (running is None or running.manifest_digest != counters.installed_manifest)


def is_damaged(loader: Bootloader, counters: Counters) -> bool:
    """Whether the release confirmed last is not whole in the primary slot, or the one before it, while it is kept, not
    whole in the secondary. Reads both slots."""
    if counters.sealed is None:
        return False
    slots, layout = loader.slots, loader.slots.layout
    if is_lost(loader, counters) or not slots.whole(layout.primary, counters.sealed):
        return True
    return counters.previous is not None and not slots.whole(layout.secondary, counters.previous)


def judge_lost(node: DeviceNode, envelope: bytes) -> Release:
    """The release in `envelope`, where it is the one confirmed last and something is damaged.

    Raises `Refused`: `device.intact` when there is nothing to put back, `version.rollback` for any other release, and
    the verdict's codes: what was revoked or has expired since is not installed again either.
    """
    counters = node.store.load()
    if not is_damaged(node.loader, counters):
        raise Refused("device.intact", "nothing was ever confirmed here" if counters.sealed is None else _WHOLE)
    # What is installed is not asked: which release it has to be is said below, to the byte.
    facts, identity, burnt = node.model.facts, node.identity, counters.security_version
    release = node.judge(envelope, Target(facts, identity.serial, identity.revision, security_version=burnt))
    if (release.sequence, release.manifest_digest) != (counters.installed_sequence, counters.installed_manifest):
        raise Refused(
            "version.rollback",
            f"release {counters.installed_sequence} was confirmed here last, and recover puts back no other",
            "any newer release is an update, under a grant for that",
        )
    return release

"""What a device remembers because of grants: spent uses, its clock floor and its grant epoch. Pure functions.

The device stores the results durably before it acts on them. Nothing here ever moves back.
Source: devguard formats, "Grant".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from devguard.errors import Refused
from devguard.grant.claims import CTI_SIZE, Action, Grant
from devguard.trust.model import EPOCH_STEP as EPOCH_STEP

FLOOR_STEP: Final = 30 * 86_400
SPENT_LIMIT: Final = 256
DELEGATED_LIMIT: Final = 16


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used of one grant: the manifest digest the last use is bound to, how many uses, the grant's expiry."""

    manifest_digest: bytes
    uses: int
    expires: int


def advanced_floor(floor: int, seen: int) -> int:
    """The clock floor after a trusted time `seen`: at most 30 days further, never back. Epoch seconds."""
    return max(floor, min(seen, floor + FLOOR_STEP))


def advanced_epoch(epoch: int, seen: int) -> int:
    """The grant epoch after a verified authority-signed grant with epoch `seen`: at most 16 further, never back."""
    return max(epoch, min(seen, epoch + EPOCH_STEP))


def use_id(chain: tuple[Grant, ...]) -> bytes:
    """What the uses of `chain[0]` are remembered under; `chain` ends with the grant that an authority signed.

    An authority's grant goes by its cti. A delegated one goes by the cti of the authority's grant and a digest of its
    way down from there: technicians choose the cti of what they delegate, and with it alone they could name, and
    use up, shorten or revive, the entry of somebody else's grant.
    """
    root = chain[-1].cti
    if len(chain) == 1:
        return root
    return root + hashlib.sha256(b"".join(link.cti for link in chain)).digest()[:CTI_SIZE]


def use_of(action: Action, what: bytes) -> bytes:
    """What one use of a grant is bound to: an update to its release, by manifest digest; any other action to what it
    concerns (a manifest digest, a session id, nothing), so that no use spent on one action is good for another."""
    return what if action is Action.UPDATE else hashlib.sha256(action.encode() + what).digest()


def uses_left(grant: Grant, spent: Mapping[bytes, Spent], under: bytes | None = None) -> int | None:
    """How many uses a device that remembers `spent` still allows; None when the grant is not counted.

    `under`: the grant's `use_id`, its cti when None.
    """
    if grant.scope.max_uses is None:
        return None
    used = spent.get(grant.cti if under is None else under)
    return max(grant.scope.max_uses - (used.uses if used else 0), 0)


def check_use(grant: Grant, spent: Mapping[bytes, Spent], manifest_digest: bytes, under: bytes | None = None) -> None:
    """Return when the grant may be used for the release: a use is left, or the last one was for this very release.

    `under`: the grant's `use_id`, its cti when None. Raises `Refused("grant.replay")`.
    """
    used = spent.get(grant.cti if under is None else under)
    resumes = used is not None and used.manifest_digest == manifest_digest and used.uses <= (grant.scope.max_uses or 0)
    if uses_left(grant, spent, under) == 0 and not resumes:
        raise Refused("grant.replay", f"all {grant.scope.max_uses} uses of the grant are spent on another release")


def spend_use(
    chain: tuple[Grant, ...], spent: Mapping[bytes, Spent], manifest_digest: bytes, floor: int
) -> dict[bytes, Spent]:
    """What the device must remember once it accepts the release under this grant and those it was delegated from.

    Resuming the same release costs nothing. A grant that carries the device's nonce is remembered even when it is not
    counted: its nonce is used up, and only the release it was used for may still be finished under it. Entries are
    dropped only when `floor` has passed their expiry. Raises `Refused("grant.replay")` when nothing is left, when 256
    grants are remembered and none may be forgotten, or 16 that were delegated from this one: nobody can fill the list
    with grants of their own making.
    """
    kept = {cti: used for cti, used in spent.items() if used.expires > floor}
    for at, grant in enumerate(chain):
        if grant.scope.max_uses is None and grant.scope.device_nonce is None:
            continue  # neither counted nor bound to a nonce: nothing to remember
        under = use_id(chain[at:])
        check_use(grant, spent, manifest_digest, under)
        used = spent.get(under)
        if used is not None and used.manifest_digest == manifest_digest:
            kept[under] = used
        else:
            expires = max(grant.expires, used.expires if used else 0)  # no second wording may shorten the memory
            kept[under] = Spent(manifest_digest, (used.uses if used else 0) + 1, expires)
    delegated = sum(len(under) > CTI_SIZE and under.startswith(chain[-1].cti) for under in kept)
    if delegated > DELEGATED_LIMIT:
        raise Refused("grant.replay", f"the device remembers {DELEGATED_LIMIT} grants delegated from this one already")
    if len(kept) > SPENT_LIMIT:
        raise Refused(
            "grant.replay", f"the device remembers {SPENT_LIMIT} spent grants and may forget none of them yet"
        )
    return kept

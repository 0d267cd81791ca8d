"""What a station takes over from a signed list of suspensions, and on whose word.

Taken in any order, or twice, lists come to the same. One authority's signature is enough to take away, so that nobody
has to wait for a colleague to stop a thief; to give back takes as many as to grant. Source: devguard formats, "Grant".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_SUSPENSIONS
from devguard.errors import Refused
from devguard.grant.cwt import signers_so_far
from devguard.grant.suspensions import Suspensions
from devguard.grant.technicians import Roster
from devguard.trust.model import EPOCH_STEP, TrustDocument

LEEWAY: Final = 600  # seconds by which the clocks of two stations may differ


def take_list(roster: Roster, one: Suspensions, trust: TrustDocument, now: int) -> tuple[Roster, bool]:
    """The roster with what the list says, and whether it was signed by enough authorities to lift suspensions too.

    The epoch follows at most as far above the trust document's as devices do. Raises `Refused`: `key.unknown`,
    `key.purpose`, `key.revoked`, `signature.algorithm`, `grant.signature` when no authority's signature counts,
    `grant.not-yet` for a list from the future.
    """
    entries, quorum, unknown = signers_so_far(
        one.token,
        typ=TYP_SUSPENSIONS,
        role=RoleName.TECHNICIAN_AUTHORITY,
        trust=trust,
        now=now,
        invalid="grant.signature",
    )
    if not quorum.persons:
        raise Refused("key.unknown" if unknown and not entries else "grant.signature", quorum.explanation)
    if one.issued > now + LEEWAY:
        raise Refused("grant.not-yet", f"the list is from {one.issued - now} s ahead of this clock")
    by = ", ".join(quorum.persons)
    said = [replace(each, by=by) for each in one.statements if each.suspended or quorum]
    merged = roster.merged(said, {cti: expires for cti, expires in one.revoked.items() if expires > now})
    epoch = max(merged.epoch, min(one.epoch, trust.grant_epoch + EPOCH_STEP))
    return replace(merged, epoch=epoch), bool(quorum)

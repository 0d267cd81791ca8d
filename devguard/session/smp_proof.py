"""Who pushes over MCUmgr, proved to the bench alone: a signed statement, and the second technician's approval.

The device at the far end has no keys and checks nothing. So before the first byte goes the technician signs what is
about to happen with the key of the grant (COSE_Sign1, RFC 9052 section 4.2, a type of its own), and where the model or
the release asks for two technicians the second one's grant and approval are checked by the code that devices run. The
digest of the statement goes into the evidence. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer, read_sign1, sign1
from devguard.errors import Malformed, Refused
from devguard.grant.check import CheckedGrant, DeviceView, check_grant, check_pair
from devguard.grant.claims import read_grant
from devguard.session.approval import LIFETIME, ApprovalRequest, Asking, check_approval
from devguard.trust.model import TrustDocument
from devguard.verdict.release import Release

TYP: Final = "application/devguard-smp-push+cbor"
FORMAT: Final = 1
SESSION_ID: Final = 32


@dataclass(frozen=True, slots=True)
class Statement:
    """What is about to happen. `session_id`: 32 random bytes of this push; `serial`: as stated, for the device proves
    none; `images`: image number and image hash of each; `time`: seconds since the epoch."""

    session_id: bytes
    serial: str
    manifest_digest: bytes
    images: tuple[tuple[int, bytes], ...]
    grant_digest: bytes
    time: int

    def sign(self, signer: Signer, grant: CheckedGrant) -> bytes:
        """The signed statement; it is verified with the grant's key at once, so that no other key can have made it.

        Raises `Refused("grant.holder")` for a key that is not the grant's.
        """
        images = [[number, digest] for number, digest in self.images]
        fields = [FORMAT, self.session_id, self.serial, self.manifest_digest, images, self.grant_digest, self.time]
        signed = sign1(signer, wire.encode(fields), typ=TYP).encode()
        if signer.key.thumbprint != grant.holder.thumbprint:
            raise Refused("grant.holder", "the key is not the one the grant names")
        read_sign1(signed, code="grant.malformed").verify(grant.holder, typ=TYP)
        return signed


def read_statement(data: bytes, key: CoseKey) -> Statement:
    """The statement in `data`, if `key` signed it; `Malformed("grant.malformed")`, and the COSE room's codes."""
    items: Any = wire.decode(read_sign1(data, code="grant.malformed").verify(key, typ=TYP), code="grant.malformed")
    kinds = [int, bytes, str, bytes, list, bytes, int]
    if not isinstance(items, list) or [type(one) for one in items] != kinds or items[0] != FORMAT:
        raise Malformed("grant.malformed", "not a technician's statement of format 1")
    if not all(isinstance(one, list) and [type(part) for part in one] == [int, bytes] for one in items[4]):
        raise Malformed("grant.malformed", "not a technician's statement of format 1")
    images = tuple((number, digest) for number, digest in items[4])
    return Statement(items[1], items[2], items[3], images, items[5], items[6])


def approval_request(release: Release, first: CheckedGrant, session_id: bytes, now: int) -> ApprovalRequest:
    """What the second technician is asked."""
    return ApprovalRequest(
        session_id,
        first.device.serial,
        release.manifest_digest,
        first.action.value,
        hashlib.sha256(first.grant.untagged).digest(),
        now + LIFETIME,
        Asking(first.grant.subject, first.holder.thumbprint),
    )


def check_second(
    answer: tuple[bytes, bytes],
    request: ApprovalRequest,
    *,
    first: CheckedGrant,
    release: Release,
    trust: TrustDocument,
    view: DeviceView,
    now: int,
) -> CheckedGrant:
    """The second technician's checked grant, as a device would check it: another person with another key, whose
    approval is of this very push. `answer`: (approval, grant). Raises what the grant room and the approval raise."""
    approval, cwt = answer
    second = check_grant(read_grant(cwt), trust=trust, now=now, device=view, action=first.action, holder=None)
    check_pair(first, second)
    second.covers(release)
    digest = hashlib.sha256(second.grant.untagged).digest()
    check_approval(approval, expected=request, holder=second.holder, second_grant_digest=digest, now=now)
    return second

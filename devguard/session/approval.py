"""The second technician's approval: one signed object bound to this session, device, release and both grants.

A COSE_Sign1 (RFC 9052 section 4.2) by the key of the second technician's grant over a deterministic CBOR map.
The session id comes from EDHOC_Exporter (RFC 9528 section 4.2.1), so an approval is worth nothing in any other
session. The request and the answer also travel as short files, for an approver in another room; where the bench has the
second grant already, the signature alone is answer enough: everything else in the approval is known on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from devguard import wire
from devguard.cose.headers import protected_for
from devguard.cose.keys import CoseKey
from devguard.cose.sign import Sign1, Signer, read_sign1, sign1
from devguard.errors import Malformed, Refused
from devguard.grant.claims import Action
from devguard.grant.cwt import text

TYP: Final = "application/devguard-approval+cbor"
FORMAT: Final = 1
_ASKING: Final = 2  # the format of a request that says who asks
LIFETIME: Final = 600
_REQUEST: Final = "devguard-approval-request"
_ANSWER: Final = "devguard-approval"
_LIMIT: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, so that nobody approves their own push by mistake: the person, the thumbprint of their key, and SHA-256
    of the second grant where the bench has that already. No signature covers it: the device asks for itself."""

    person: str
    key: bytes
    second_grant: bytes | None = None


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What the second technician is asked to approve.

    `session_id`: 32 bytes. `serial`: the proven one. `manifest_digest`: of the release. `action`: of the grant.
    `first_grant`: SHA-256 of the first technician's grant. `expires`: seconds since the epoch, at most ten
    minutes ahead. `asking`: who asks, where that is said.
    """

    session_id: bytes
    serial: str
    manifest_digest: bytes
    action: str
    first_grant: bytes
    expires: int
    asking: Asking | None = field(default=None, compare=False)  # what is approved is the same, whoever asks

    def fields(self) -> list[object]:
        """The fields in their order on the wire, without who asks."""
        return [self.session_id, self.serial, self.manifest_digest, self.action, self.first_grant, self.expires]

    def encode(self) -> bytes:
        """The request as a file."""
        if self.asking is None:
            return wire.encode([_REQUEST, FORMAT, *self.fields()])
        asking = [self.asking.person, self.asking.key, self.asking.second_grant]
        return wire.encode([_REQUEST, _ASKING, *self.fields(), *asking])


def _is_request(fields: list[Any]) -> bool:
    kinds = (bytes, str, bytes, str, bytes, int)
    return len(fields) == len(kinds) and all(
        type(field) is kind for field, kind in zip(fields, kinds, strict=True)
    ) and len(fields[0]) == 32 and len(fields[4]) == 32  # fmt: skip


def read_request(data: bytes) -> ApprovalRequest:
    """The request in a file; `Malformed("grant.malformed")` for anything else."""
    items = wire.decode(data[: _LIMIT + 1], code="grant.malformed", max_depth=2)
    if not isinstance(items, list) or items[:1] != [_REQUEST] or items[1:2] not in ([FORMAT], [_ASKING]):
        raise Malformed("grant.malformed", f"not an approval request of format {FORMAT} or {_ASKING}")
    asking = _asking(items[8:]) if items[1] == _ASKING else None
    if not _is_request(items[2:8]) or (asking is None and len(items) != 8):
        raise Malformed("grant.malformed", "an approval request with other fields")
    text(items[3], "the serial number", "grant.malformed")
    if items[5] not in {str(action) for action in Action}:
        raise Malformed("grant.malformed", "an approval request for an action nobody knows", "update devguard")
    session_id, serial, manifest_digest, action, first_grant, expires = items[2:8]
    return ApprovalRequest(session_id, serial, manifest_digest, action, first_grant, expires, asking)


def _asking(fields: list[Any]) -> Asking:
    digests = [item for item in fields[1:] if item is not None]
    if len(fields) != 3 or fields[1] is None or not all(type(item) is bytes and len(item) == 32 for item in digests):
        raise Malformed("grant.malformed", "an approval request does not say who asks")
    return Asking(text(fields[0], "who asks", "grant.malformed"), fields[1], fields[2])


def sign_approval(request: ApprovalRequest, signer: Signer, second_grant_digest: bytes) -> bytes:
    """The approval object: tagged COSE_Sign1 by the second technician's key. `second_grant_digest`: SHA-256."""
    return sign1(signer, _payload(request, second_grant_digest), typ=TYP).encode()


def _payload(request: ApprovalRequest, second_grant_digest: bytes) -> bytes:
    return wire.encode([FORMAT, *request.fields(), second_grant_digest])


def approval_code(approval: bytes) -> bytes:
    """The signature of an approval: all of it that a bench with the request and the second grant does not know."""
    return read_sign1(approval, code="grant.malformed").signature


def approval_of(code: bytes, request: ApprovalRequest, holder: CoseKey, second_grant_digest: bytes) -> bytes:
    """The approval object whose signature is `code`, by the key of the second grant.

    Raises the COSE room's codes when it is not that key's signature over this very request.
    """
    protected = protected_for(holder.algorithm, holder.thumbprint, TYP, None)
    message = Sign1(protected, {}, _payload(request, second_grant_digest), code)
    message.verify(holder, typ=TYP)
    return message.encode()


def pack_answer(approval: bytes, grant: bytes) -> bytes:
    """Approval and the second grant as one file."""
    return wire.encode([_ANSWER, FORMAT, approval, grant])


def read_answer(data: bytes) -> tuple[bytes, bytes]:
    """(approval object, second grant) of an approval file; `Malformed("grant.malformed")` for anything else."""
    items = wire.decode(data[: _LIMIT + 1], code="grant.malformed", max_depth=2)
    if (
        not isinstance(items, list)
        or len(items) != 4
        or items[:2] != [_ANSWER, FORMAT]
        or not all(type(item) is bytes for item in items[2:])
    ):
        raise Malformed("grant.malformed", "not an approval file of format 1")
    return items[2], items[3]


def check_approval(
    approval: bytes, *, expected: ApprovalRequest, holder: CoseKey, second_grant_digest: bytes, now: int | None
) -> None:
    """Refuse an approval that is not exactly `expected`, by `holder`, under the second grant.

    `expected.expires` is ignored: the approval's own expiry must lie within (now, now + ten minutes]. A device
    without a clock passes None: there only the end of the session, whose id the approval names, bounds it.
    Raises `Refused("grant.quorum")`, or the COSE room's codes for a signature that does not hold.
    """
    message = read_sign1(approval, code="grant.malformed")
    payload = wire.decode(message.verify(holder, typ=TYP), code="grant.malformed", max_depth=2)
    if not isinstance(payload, list) or len(payload) != 8 or payload[0] != FORMAT or not _is_request(payload[1:7]):
        raise Malformed("grant.malformed", "not an approval of format 1")
    wanted = expected.fields()
    names = ("session", "serial", "release", "action", "first grant")
    for name, found, want in zip(names, payload[1:6], wanted, strict=False):
        if found != want:
            raise Refused("grant.quorum", f"the approval is for another {name}")
    if payload[7] != second_grant_digest:
        raise Refused("grant.quorum", "the approval names another second grant")
    if now is not None and not now < payload[6] <= now + LIFETIME:
        if payload[6] <= now:
            raise Refused("grant.quorum", f"the approval expired {now - payload[6]} s ago", "have it approved anew")
        raise Refused("grant.quorum", "the approval is meant to live longer than ten minutes")

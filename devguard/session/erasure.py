"""The certificate a device signs last: that it has erased what made it ours. And the bench's side of asking for it.

A COSE_Sign1 by the device's key over [1, model, revision, serial, time, challenge, what was erased, count and head of
its log, thumbprints of its keys, its credential]: verifiable years later with the trust document alone. It is signed
when all else is gone and the key is next, so it never promises what has not happened. Source: attack B04 of the
catalogue; NIST SP 800-88 section 4.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.cose.sign import Signer, read_sign1, sign1
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.grant.check import CheckedGrant
from devguard.grant.claims import Action
from devguard.grant.credential import check_credential, read_credential
from devguard.grant.uses import use_of
from devguard.session.approving import Approver, second_approval
from devguard.session.connect import ANSWER_SECONDS, Bench, connect, expect, greet, need_version
from devguard.session.factory_verbs import (
    Erasure,
    ErasureReply,
)
from devguard.session.script import Receive, Script, Send
from devguard.session.verbs import (
    ACTIONS_VERSION,
    MAX_CERTIFICATE,
    NONCE_SIZE,
    Certificate,
    Decommission,
    encode_message,
)
from devguard.trust.document import TrustDocument

TYP: Final = "application/devguard-erasure+cbor"
FORMAT: Final = 1
JUDGE_SECONDS: Final = 120.0
_KINDS: Final = (int, str, str, str, int, bytes, list, int, bytes, list, bytes)


@dataclass(frozen=True, slots=True)
class Erased:
    """What a certificate says. `time`: the device's own; `erased`: names of what is gone; `log_count`, `log_head`: of
    its own log, whose last event is this; `keys`: thumbprints of the keys that are gone; `credential`: which proved who
    it was."""

    model: str
    revision: str
    serial: str
    time: int
    challenge: bytes
    erased: tuple[str, ...]
    log_count: int
    log_head: bytes
    keys: tuple[bytes, ...]
    credential: bytes

    def encode(self) -> bytes:
        """What is signed."""
        who = [self.model, self.revision, self.serial, self.time, self.challenge]
        what = [list(self.erased), self.log_count, self.log_head, list(self.keys), self.credential]
        return wire.encode([FORMAT, *who, *what])

    def to_json(self) -> dict[str, object]:
        """Plain values: bytes as hex."""
        return {
            "model": self.model,
            "revision": self.revision,
            "serial": self.serial,
            "time": self.time,
            "erased": list(self.erased),
            "log_count": self.log_count,
            "log_head": self.log_head.hex(),
            "keys": [one.hex() for one in self.keys],
        }


def sign_erasure(content: bytes, signer: Signer) -> bytes:
    """The certificate over what `Erased.encode` gave."""
    return sign1(signer, content, typ=TYP).encode()


def read_erasure(data: bytes, trust: TrustDocument, now: int) -> Erased:
    """What the certificate in `data` says, if the device that its credential names signed it.

    `trust` judges the credential; a key that has been revoked vouches for nothing, this included.

    Raises `Malformed("wire.malformed")`, the COSE room's codes, `check_credential`'s, `Refused("device.identity")`.
    """
    if len(data) > MAX_CERTIFICATE:
        raise _none()
    message = read_sign1(data)
    items: Any = wire.decode(message.payload or b"", max_depth=3)
    if not isinstance(items, list) or [type(item) for item in items] != list(_KINDS) or items[0] != FORMAT:
        raise _none()
    _, model, revision, serial, time, challenge, erased, count, head, keys, raw = items
    texts = (model, revision, serial, *erased)
    if not all(type(one) is str and one.isprintable() and 0 < len(one) <= 128 for one in texts):
        raise _none()
    if min(time, count) < 0 or len(head) != 32 or not all(type(one) is bytes for one in keys):
        raise _none()
    found = Erased(model, revision, serial, time, challenge, tuple(erased), count, head, tuple(keys), raw)
    credential = read_credential(found.credential)
    identity = check_credential(credential, trust, now)
    if (identity.model, identity.revision, identity.serial) != (found.model, found.revision, found.serial):
        raise Refused("device.identity", f"the certificate is of {found.serial}, its credential of {identity.serial}")
    message.verify(identity.key, typ=TYP)
    return found


def _none() -> Malformed:
    return Malformed("wire.malformed", f"not a certificate of erasure of format {FORMAT}")


def decommission(bench: Bench, grant: CheckedGrant, approver: Approver) -> Script[tuple[Erased, bytes]]:
    """Have the device erase itself: (what its certificate says, the certificate). There is no way back.

    Raises `DeviceRefused` when the device says no, and as `read_erasure`; `Refused("session.replay")` for another
    question's certificate. A link that is lost after the device has begun: see `fetch_erasure`.
    """
    if grant.action is not Action.DECOMMISSION:
        raise LocalProtocolError("session.order", "decommissioning needs a grant that was checked for it")
    session = yield from connect(bench)
    need_version(session, ACTIONS_VERSION)
    yield from second_approval(session, bench, grant, use_of(Action.DECOMMISSION, b""), approver)
    challenge = bench.random(NONCE_SIZE)
    yield Send(encode_message(Decommission(challenge)), sealed=True)
    reply = expect((yield Receive(sealed=True, timeout=JUDGE_SECONDS)), Certificate, sealed=True)
    found = read_erasure(reply.certificate, bench.trust, bench.now)
    if found.challenge != challenge:
        raise Refused("session.replay", "the certificate answers another challenge: an old one was played back")
    if found.serial != session.identity.serial:
        raise Refused("device.identity", f"the certificate is by {found.serial}, the session by another device")
    return found, reply.certificate


def fetch_erasure(trust: TrustDocument, now: int) -> Script[tuple[Erased, bytes]]:
    """The certificate that a decommissioned device keeps, for whoever did not hear the first answer."""
    yield from greet()
    yield Send(encode_message(Erasure()), sealed=False)
    reply = expect((yield Receive(sealed=False, timeout=ANSWER_SECONDS)), ErasureReply, sealed=False)
    return read_erasure(reply.certificate, trust, now), reply.certificate

"""What a technician signs before an update begins: that they do this, to this device, and what the log was then. Pure.

A COSE_Sign1 (RFC 9052 section 4.2) by the key of the grant over [1, request id, serial, action, manifest digest, grant
digest, time, head]. The station's key alone can therefore write no record of a push that stands up; and because `head`
is the text of the log's head at that moment, whoever holds the station's key cannot rewrite what was before it either.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.cose.signer import Signer
from devguard.evidence.checkpoint import Checkpoint, parse_text
from devguard.evidence.named_head import read_fields, sign_fields

TYP: Final = "application/devguard-push+cbor"
_KINDS: Final = (str, str, str, bytes, bytes, int, bytes)


@dataclass(frozen=True, slots=True)
class PushStatement:
    """request: the id that the records of this push carry. serial: the proven one. action: of the grant. Digests:
    SHA-256. time: epoch seconds. head: text of the checkpoint of the station's log."""

    request: str
    serial: str
    action: str
    manifest_digest: bytes
    grant_digest: bytes
    time: int
    head: bytes

    def sign(self, signer: Signer) -> bytes:
        """The statement as tagged COSE_Sign1 bytes."""
        return sign_fields(signer, astuple(self), typ=TYP)

    @property
    def checkpoint(self) -> Checkpoint:
        """The head it names."""
        return parse_text(self.head)


def read_push_statement(data: bytes, key: CoseKey) -> PushStatement:
    """The statement in `data`, if `key` signed it; `Malformed("log.tampered")`, and the COSE room's codes."""
    return PushStatement(*read_fields(data, key, _KINDS, typ=TYP, what="a technician's statement"))

"""What a technician signs before an update begins: that they do this, to this device, and what the log was then. Pure.

A COSE_Sign1 (RFC 9052 section 4.2) by the key of the grant over [1, request id, serial, action, manifest digest, grant
digest, time, head]. The station's key alone can therefore write no record of a push that stands up; and because `head`
is the text of the log's head at that moment, whoever holds the station's key cannot rewrite what was before it either.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import read_sign1, sign1
from devguard.cose.signer import Signer
from devguard.errors import Malformed
from devguard.evidence.checkpoint import Checkpoint, parse_text

TYP: Final = "application/devguard-push+cbor"
FORMAT: Final = 1
_CODE: Final = "log.tampered"
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
        return sign1(signer, wire.encode([FORMAT, *astuple(self)]), typ=TYP).encode()

    @property
    def checkpoint(self) -> Checkpoint:
        """The head it names."""
        return parse_text(self.head)


def read_push_statement(data: bytes, key: CoseKey) -> PushStatement:
    """The statement in `data`, if `key` signed it; `Malformed("log.tampered")`, and the COSE room's codes."""
    items: Any = wire.decode(read_sign1(data, code=_CODE).verify(key, typ=TYP), code=_CODE, max_depth=2)
    if not isinstance(items, list) or [type(one) for one in items] != [int, *_KINDS] or items[0] != FORMAT:
        raise Malformed(_CODE, "not a technician's statement of format 1")
    made = PushStatement(*items[1:])
    parse_text(made.head)
    return made

"""What somebody signs who has looked into a change of a device that no record explains. Pure.

A COSE_Sign1 (RFC 9052 section 4.2) over [1, serial, digest of the report, reason, time, head]: it covers that state of
that device alone, and like a technician's statement it names the head of the station's log.
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

TYP: Final = "application/devguard-acknowledgement+cbor"
FORMAT: Final = 1
_CODE: Final = "log.tampered"
_KINDS: Final = (str, bytes, str, int, bytes)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """serial: whose state. report: SHA-256 of the signed report that shows it. reason: what was found out. time: epoch
    seconds. head: text of the checkpoint of the station's log."""

    serial: str
    report: bytes
    reason: str
    time: int
    head: bytes

    def sign(self, signer: Signer) -> bytes:
        """The acknowledgement as tagged COSE_Sign1 bytes."""
        return sign1(signer, wire.encode([FORMAT, *astuple(self)]), typ=TYP).encode()

    @property
    def checkpoint(self) -> Checkpoint:
        """The head it names."""
        return parse_text(self.head)


def read_acknowledgement(data: bytes, key: CoseKey) -> Acknowledgement:
    """The acknowledgement in `data`, if `key` signed it; `Malformed("log.tampered")`, and the COSE room's codes."""
    items: Any = wire.decode(read_sign1(data, code=_CODE).verify(key, typ=TYP), code=_CODE, max_depth=2)
    if not isinstance(items, list) or [type(one) for one in items] != [int, *_KINDS] or items[0] != FORMAT:
        raise Malformed(_CODE, "not an acknowledgement of format 1")
    made = Acknowledgement(*items[1:])
    parse_text(made.head)
    return made

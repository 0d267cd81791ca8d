"""What somebody signs who has looked into a change of a device that no record explains. Pure.

A COSE_Sign1 (RFC 9052 section 4.2) over [1, serial, digest of the report, reason, time, head]: it covers that state of
that device alone, and like a technician's statement it names the head of the station's log.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.cose.signer import Signer
from devguard.evidence.checkpoint import Checkpoint, parse_text
from devguard.evidence.named_head import read_fields, sign_fields

TYP: Final = "application/devguard-acknowledgement+cbor"
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
        return sign_fields(signer, astuple(self), typ=TYP)

    @property
    def checkpoint(self) -> Checkpoint:
        """The head it names."""
        return parse_text(self.head)


def read_acknowledgement(data: bytes, key: CoseKey) -> Acknowledgement:
    """The acknowledgement in `data`, if `key` signed it; `Malformed("log.tampered")`, and the COSE room's codes."""
    return Acknowledgement(*read_fields(data, key, _KINDS, typ=TYP, what="an acknowledgement"))

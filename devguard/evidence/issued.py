"""The grants whose issue a station has on record, as the records tell. Pure; what a record says is no grant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from devguard.evidence.record import Record

if TYPE_CHECKING:
    from devguard.grant.technicians import Roster

ACTIONS: Final = ("grant.issue", "grant.sign", "grant.delegate")


@dataclass(frozen=True, slots=True)
class Issued:
    """One grant as its record tells: whose, by whom, for which serials (one text), its token id, epoch and expiry."""

    technician: str
    issuer: str
    serials: str
    cti: bytes
    epoch: int
    expires: int

    def taken_back(self, roster: Roster) -> bool:
        """Whether this station refuses it: it was revoked by itself, or the person is suspended."""
        return self.cti in roster.revoked or roster.suspends(self.technician)


def issued(record: Record) -> Issued | None:
    """The grant that a record says was issued; None for any other record."""
    said = record.details
    if record.code is not None or record.action not in ACTIONS or not {"cti", "expires", "epoch"} <= set(said):
        return None
    try:
        moment = datetime.fromisoformat(said["expires"])
        expires = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        cti, epoch = bytes.fromhex(said["cti"]), int(said["epoch"])
    except (ValueError, OverflowError):  # a date beyond every calendar, or a record of somebody else's making
        return None
    return Issued(said.get("technician", ""), record.actor, said.get("serials", ""), cti, epoch, expires)

"""Whether a store has all that a station knows to have handed over. A backup that was put back has not.

A station keeps the answer of the store in a record of its own log: which store, how many of its records, under which
root; and where somebody restored the store from here, what it had then. The newest such record is the anchor: the
store can be set back, the log cannot without anybody noticing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from devguard.errors import Refused
from devguard.evidence.record import Record

if TYPE_CHECKING:
    from devguard.ledger.take import Held

ACTIONS: Final = ("ledger.update", "ledger.restore", "ledger.send")
SENDING: Final = ("ledger.update", "ledger.send")
"""Records of having handed something over: where only they are new, nothing is."""
STORE, RECORDS, ROOT = "store", "records", "root"


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a store has said to have of a station. store: its name; root: over that many records, 32 bytes."""

    store: str
    records: int
    root: bytes

    def details(self) -> dict[str, str]:
        """For the record of the station."""
        return {STORE: self.store, RECORDS: str(self.records), ROOT: self.root.hex()}


def anchor_of(record: Record) -> Anchor | None:
    """The anchor that a record of a station is; None for any other record."""
    said: Mapping[str, str] = record.details
    if record.action not in ACTIONS or not record.ok or not {STORE, RECORDS, ROOT} <= set(said):
        return None
    try:
        return Anchor(said[STORE], int(said[RECORDS]), bytes.fromhex(said[ROOT]))
    except ValueError:
        return None


def check_level(conn: Connection, mine: Held, anchor: Anchor | None) -> None:
    """`Refused("ledger.rollback")` where this store has less of a station than it had said, or something else.

    Another store than the anchor's has promised nothing.
    """
    from devguard.ledger.take import identity

    if anchor is None or anchor.store != identity(conn):
        return
    if mine.records < anchor.records:
        raise Refused(
            "ledger.rollback",
            f"the ledger has {mine.records} records of {mine.origin}; it had taken {anchor.records}: an older state "
            "of it was put back",
        )
    if mine.records == anchor.records and mine.root != anchor.root:
        raise Refused("ledger.rollback", f"the {anchor.records} records of {mine.origin} are not those it had taken")

"""Incidents in the derived tables: what the records with one id say, in their order; see `evidence.incident`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from devguard.evidence.incident import Incident, take
from devguard.evidence.record import Record
from devguard.ledger.derive import key
from devguard.ledger.merge import Row
from devguard.ledger.schema import incidents
from devguard.ledger.write import rows_at, save

ACTIONS: Final = "incident."


def write_incidents(conn: Connection, origin: str, records: Iterable[tuple[int, Record]]) -> None:
    """Take the records of one log that are about incidents, in their order."""
    mine = [(index, record) for index, record in records if record.action.startswith(ACTIONS) and record.ok]
    if not mine:
        return
    before = rows_at(conn, incidents, {(origin, key(record.request)) for _, record in mine})
    known = {place[1]: _incident(place[1], row) for place, row in before.items()}
    for index, record in mine:
        take(known, index, record, key(record.request))
    save(conn, incidents, before, {(origin, one.id): _row(one) for one in known.values()})


def _incident(id_: str, row: Row) -> Incident:
    released = None
    if row["released_index"] is not None:
        released = (row["released_index"], row["released_by"], row["released"])
    return Incident(
        id=id_,
        kind=row["kind"],
        subject=row["subject"],
        index=row["index"],
        time=row["time"],
        device=row["device"],
        records=tuple(map(int, row["records"].split())),
        own=tuple(map(int, row["own"].split())),
        decision=row["decision"],
        released=released,
    )


def _row(one: Incident) -> Row:
    index, officer, time = one.released or (None, None, None)
    return {
        "kind": one.kind,
        "subject": one.subject,
        "device": one.device,
        "records": " ".join(map(str, one.records)),
        "own": " ".join(map(str, one.own)),
        "decision": one.decision,
        "open": one.open,
        "time": one.time,
        "index": one.index,
        "released": time,
        "released_by": officer,
        "released_index": index,
    }

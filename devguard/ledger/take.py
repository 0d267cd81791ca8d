"""What a station hands over: its records, each as it stands in its log, under the head that the station signed.

A record is taken only when the station's own tree, grown here leaf by leaf, has the root that its key signed. So
nothing is taken twice, nothing is left out, and a log that was rewritten is not taken at all. What others signed
inside a record decides what is derived from it, not whether it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from devguard.cose.curves import Curve, KeyType
from devguard.cose.keys import CoseKey
from devguard.errors import Malformed, Refused
from devguard.evidence.checkpoint import Checkpoint, open_checkpoint, origin_of
from devguard.evidence.record import Record, decode_entry
from devguard.evidence.tree import HASH_SIZE, Frontier, leaf_hash
from devguard.ledger.derive import derive
from devguard.ledger.documents import judge_of, mark_revoked
from devguard.ledger.incidents import write_incidents
from devguard.ledger.merge import Fact
from devguard.ledger.schema import ledger, records, stations
from devguard.ledger.vouch import Judge
from devguard.ledger.write import portions, write_facts

PORTION: Final = 500  # records that are merged into the tables at once


@dataclass(frozen=True, slots=True)
class Held:
    """What the store has of a station. root: of the tree of its records; frontier: the tree's right edge."""

    origin: str
    records: int
    root: bytes
    frontier: Frontier
    key: CoseKey | None = None
    latest: int | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """As a head of the station's log."""
        return Checkpoint(self.origin, self.records, self.root)


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it: how many records are held now, how many of them are new, and the root over all; trust: the code
    where the station's trust documents were refused."""

    origin: str
    records: int
    new: int
    root: bytes
    trust: str | None = None


def lock(conn: Connection) -> int:
    """Be the only one who changes what is taken and derived until the transaction ends; the new generation."""
    changed = conn.execute(ledger.update().values(generation=ledger.c.generation + 1))
    if changed.rowcount != 1:
        raise Malformed("ledger.malformed", "the row that names the ledger is missing")
    return int(conn.execute(select(ledger.c.generation)).scalar_one())


def identity(conn: Connection) -> str:
    """What names this store for good; a copy that was restored has the name of what was copied."""
    found = conn.execute(select(ledger.c.store)).scalar_one_or_none()
    if found is None:
        raise Malformed("ledger.malformed", "the row that names the ledger is missing")
    return str(found)


def held(conn: Connection, origin: str) -> Held:
    """What the store has of the station `origin`; nothing of one that it does not know."""
    row = conn.execute(select(stations).where(stations.c.origin == origin)).mappings().one_or_none()
    if row is None:
        edge = Frontier()
        return Held(origin, 0, edge.root(), edge)
    hashes = [row["frontier"][at : at + HASH_SIZE] for at in range(0, len(row["frontier"]), HASH_SIZE)]
    edge = Frontier(row["records"], hashes)
    if edge.root() != row["root"]:
        raise Malformed("ledger.malformed", f"what is kept of the tree of {origin} does not fit together")
    return Held(
        origin, row["records"], row["root"], edge, CoseKey(KeyType.OKP, Curve.ED25519, row["key"]), row["latest"]
    )


def take(
    conn: Connection,
    key: CoseKey,
    first: int,
    leaves: Iterable[bytes],
    note: bytes,
    *,
    now: int,
    name: str | None = None,
) -> Taken:
    """Take records from index `first` on of the station whose key is `key`, up to the signed head in `note`.

    leaves: as in the station's log. What is held already is compared and not taken again. now: the store's clock,
    epoch seconds. name: what the station is called. All in the caller's transaction: where this raises, roll back.
    Raises `Refused` `ledger.differs` (the station's log is another one than was held), `ledger.rollback` (`first` lies
    ahead of what is held), `log.tampered`, `Malformed("log.tampered")`.
    """
    lock(conn)
    origin = origin_of(key)
    head = open_checkpoint(note, key)
    before = held(conn, origin)
    _check_key(before, key)
    if first > before.records:
        raise Refused("ledger.rollback", f"records from {first} on were handed over; the ledger has {before.records}")
    if before.key is None:
        conn.execute(stations.insert(), _station(key, before, name=name))
    intake = Intake(conn, before, judge_of(conn))
    for some in portions(leaves, PORTION):
        intake.add(first, some)
        first += len(some)
    return intake.finish(head, note, now=now, name=name)


def _check_key(before: Held, key: CoseKey) -> None:
    if before.key is not None and before.key.thumbprint != key.thumbprint:
        raise Refused("ledger.differs", f"the ledger knows another key of the station {before.origin}")


def _station(key: CoseKey, before: Held, *, name: str | None) -> dict[str, Any]:
    return {
        "origin": before.origin,
        "key": key.x,
        "thumbprint": key.thumbprint,
        "name": name,
        "records": before.records,
        "root": before.root,
        "frontier": b"",
    }


class Intake:
    """Records on their way in: the tree that grows, and what was held before it began."""

    def __init__(self, conn: Connection, before: Held, judge: Judge) -> None:
        self._conn = conn
        self._before = before
        self._edge = before.frontier.copy()
        self._judge = judge
        self._latest = before.latest

    def add(self, first: int, leaves: Sequence[bytes]) -> None:
        """Some more, from index `first` on."""
        known = max(0, min(self._before.records - first, len(leaves)))
        if known:
            self._compare(first, leaves[:known])
        new = leaves[known:]
        if not new:
            return
        if first + known != self._edge.size:
            raise Refused("log.tampered", f"record {first + known} follows on record {self._edge.size - 1}")
        found = [self._entry(leaf) for leaf in new]
        origin = self._before.origin
        rows = [{"origin": origin, "index": at, "entry": leaf} for (at, _), leaf in zip(found, new, strict=True)]
        self._conn.execute(records.insert(), rows)
        derive_into(self._conn, origin, found, self._judge)

    def _compare(self, first: int, leaves: Sequence[bytes]) -> None:
        origin = self._before.origin
        mine = records.c.origin == origin
        wanted = select(records.c.entry).where(mine, records.c.index.between(first, first + len(leaves) - 1))
        kept = self._conn.execute(wanted.order_by(records.c.index)).scalars().all()
        if list(kept) != list(leaves):
            raise Refused("ledger.differs", f"records from {first} on of {origin} are not those that the ledger holds")

    def _entry(self, leaf: bytes) -> tuple[int, Record]:
        entry = decode_entry(leaf)
        if entry.index != self._edge.size:
            raise Malformed("log.tampered", f"record {entry.index} stands in the place of record {self._edge.size}")
        record = entry.record
        self._edge.append(leaf_hash(leaf))
        self._latest = record.time if self._latest is None else max(self._latest, record.time)
        return entry.index, record

    def finish(self, head: Checkpoint, note: bytes, *, now: int, name: str | None) -> Taken:
        """All are there: compare the tree with the signed head, and keep that."""
        before, edge = self._before, self._edge
        if head.size < edge.size and edge.size == before.records:
            if root_at(self._conn, before.origin, head.size) != head.root:
                raise Refused("ledger.differs", f"the first {head.size} records of {before.origin} are others here")
            return Taken(before.origin, edge.size, 0, edge.root())  # an older head; all it covers is here
        if head.size != edge.size:
            raise Refused("log.tampered", f"the signed head is of {head.size} records, {edge.size} were handed over")
        if head.root != edge.root():
            raise Refused("ledger.differs", f"the {edge.size} records of {before.origin} are not those its head covers")
        change = {
            "records": edge.size,
            "root": edge.root(),
            "frontier": b"".join(edge.hashes),
            "note": note,
            "latest": self._latest,
            "seen": now,
            **({} if name is None else {"name": name}),
        }
        mark_revoked(self._conn, self._judge)
        self._conn.execute(stations.update().where(stations.c.origin == before.origin).values(change))
        return Taken(before.origin, edge.size, edge.size - before.records, edge.root())


def root_at(conn: Connection, origin: str, size: int) -> bytes:
    """The root over the first `size` records that are held of a station, 32 bytes."""
    edge = Frontier()
    wanted = select(records.c.entry).where(records.c.origin == origin, records.c.index < size)
    for leaf in conn.execute(wanted.order_by(records.c.index)).scalars():
        edge.append(leaf_hash(leaf))
    return edge.root()


def derive_into(conn: Connection, origin: str, found: Sequence[tuple[int, Record]], judge: Judge) -> None:
    """Merge what some records of one log say into the derived tables."""
    facts: list[Fact] = []
    for index, record in found:
        facts += derive(origin, index, record, judge)
    write_facts(conn, facts)
    write_incidents(conn, origin, found)

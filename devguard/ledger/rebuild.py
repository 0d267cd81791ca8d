"""A station's own log into the store, as far as it is new there; and the derived tables made anew from what is held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, select

from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError, LinkError, Malformed, Refused
from devguard.evidence.checkpoint import Checkpoint, open_checkpoint, origin_of
from devguard.evidence.record import decode_entry
from devguard.evidence.since import since
from devguard.evidence.tree import Frontier, leaf_hash
from devguard.evidence.verify import verify_log
from devguard.ledger.documents import add_documents, check_documents, judge_of, mark_revoked
from devguard.ledger.level import Anchor, check_level
from devguard.ledger.schema import DERIVED, doubts, records, stations
from devguard.ledger.store import Store
from devguard.ledger.take import PORTION, Taken, derive_into, held, lock, take
from devguard.ledger.write import portions


def take_log(
    store: Store,
    folder: Path,
    key: CoseKey,
    *,
    now: int,
    name: str | None = None,
    documents: Iterable[bytes] = (),
    anchor: Anchor | None = None,
) -> Taken:
    """Take what is new in the evidence log in `folder`, whose station key is `key`; all of it or nothing.

    documents: trust documents, as files; the records of a station whose documents are of another chain are taken all
    the same, and the answer says so. anchor: what the store is known to have taken before. Raises `Refused`
    `ledger.differs` where the log holds by itself and is not the one that was taken before, `ledger.rollback`; what
    `evidence.verify` raises for a log that does not hold; and what a transaction raises.
    """
    kept = list(documents)

    def work(conn: Connection) -> Taken:
        lock(conn)
        before = held(conn, origin_of(key))
        check_level(conn, before, anchor)
        doubt = _learnt(conn, kept)
        head, leaves = since(folder, key, before.checkpoint)
        taken = take(conn, key, before.records, leaves, head.note, now=now, name=name)
        return replace(taken, trust=doubt)

    try:
        return store.run(work)
    except DevguardError as error:
        if error.code.startswith("log.") and error.code != "log.missing":
            raise _why(store, folder, key, error) from None
        raise


def _learnt(conn: Connection, found: Sequence[bytes]) -> str | None:
    """Keep trust documents; the code where they are refused."""
    try:
        learn(conn, found)
    except LinkError:
        raise
    except DevguardError as error:
        if error.code == "ledger.malformed":
            raise
        return error.code
    return None


def _why(store: Store, folder: Path, key: CoseKey, error: DevguardError) -> DevguardError:
    """What is wrong with a log that does not continue what is held: itself, or that it is another one."""
    report = verify_log(folder, key)
    with store.read() as conn:
        known = held(conn, origin_of(key)).checkpoint
    return Refused(
        "ledger.differs",
        f"the log in {folder} has {report.records} records and holds by itself, but it is not the one of which the "
        f"ledger holds {known.size}: {error.message}",
    )


def learn(conn: Connection, found: Iterable[bytes]) -> None:
    """Keep trust documents, and derive anew where one is new and something was doubted until now. The caller holds the
    ledger's lock. Raises as `add_documents`."""
    if add_documents(conn, found) and conn.execute(select(doubts.c.origin).limit(1)).first() is not None:
        derive_anew(conn)


def rebuild(store: Store) -> int:
    """Make the derived tables anew from the records that are held; how many those are. Raises as a transaction."""

    def work(conn: Connection) -> int:
        lock(conn)
        return derive_anew(conn)

    return store.run(work)


def derive_anew(conn: Connection) -> int:
    """The same in the caller's transaction, which holds the ledger's lock.

    What is held is compared with the heads that the stations signed: `Malformed("ledger.malformed")` where it is not
    what was taken.
    """
    check_documents(conn)
    for table in reversed(DERIVED):
        conn.execute(table.delete())
    judge, count = judge_of(conn), 0
    for origin in conn.execute(select(stations.c.origin).order_by(stations.c.origin)).scalars().all():
        edge = Frontier()
        for some in portions(_leaves(conn, origin), PORTION):
            found = []
            for leaf in some:
                entry = decode_entry(leaf)
                found.append((entry.index, entry.record))
                edge.append(leaf_hash(leaf))
            derive_into(conn, origin, found, judge)
            count += len(some)
        _check_held(conn, origin, edge)
    mark_revoked(conn, judge)
    return count


def _check_held(conn: Connection, origin: str, edge: Frontier) -> None:
    """Return when the records of a station are those under the head that its key signed."""
    mine = held(conn, origin)
    note = conn.execute(select(stations.c.note).where(stations.c.origin == origin)).scalar_one()
    try:
        signed = open_checkpoint(note or b"", mine.key) if mine.key is not None else None
    except DevguardError as error:
        raise Malformed("ledger.malformed", f"the head of {origin} that is held: {error.message}") from None
    if signed != Checkpoint(origin, edge.size, edge.root()) or mine.records != edge.size:
        raise Malformed("ledger.malformed", f"the {edge.size} records of {origin} are not those that it signed for")


def _leaves(conn: Connection, origin: str) -> Iterator[bytes]:
    """Every leaf of a station, read a portion at a time."""
    first = 0
    while True:
        wanted = select(records.c.entry).where(records.c.origin == origin, records.c.index >= first)
        found = conn.execute(wanted.order_by(records.c.index).limit(PORTION)).scalars().all()
        yield from found
        if not found:
            return
        first += len(found)

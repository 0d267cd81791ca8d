"""What stations tell each other through the store as the signed objects it is: trust documents, lists of suspensions.

The store carries them and is not believed: whoever takes one out judges its signatures. Going in, a list has to be of
the right form and size, and a document of the chain that the store goes by; a database that somebody else fills can
hold anything, so what comes out is read as input like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from devguard.errors import Malformed
from devguard.grant.suspensions import MAX_LIST, read_list
from devguard.ledger.group_tables import lists
from devguard.ledger.moment import database_time
from devguard.ledger.rebuild import learn
from devguard.ledger.schema import documents
from devguard.ledger.store import Store
from devguard.ledger.take import lock
from devguard.trust.document import read_trust
from devguard.trust.model import MAX_DOCUMENT

MOST: Final = 1000
"""So many lists, the newest, are taken out; and so many documents."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists as they came out, unjudged, the oldest first; `left`: how many older ones were left there."""

    found: tuple[bytes, ...]
    left: int


def give_documents(store: Store, found: Iterable[bytes]) -> bool:
    """Let the store have trust documents; whether one was new there. Raises `Refused("ledger.trust")` for one that is
    not of its chain, and what a transaction raises."""
    mine = {read_trust(data).digest: data for data in found}
    with store.read() as conn:
        known = set(conn.execute(select(documents.c.digest)).scalars())
    if mine.keys() <= known:
        return False

    def work(conn: Connection) -> bool:
        lock(conn)
        learn(conn, list(mine.values()))
        return True

    return store.run(work)


def newest_version(conn: Connection) -> int | None:
    """The version of the newest trust document that the store has, by its own word."""
    found = conn.execute(select(func.max(documents.c.version))).scalar()
    return None if found is None else int(found)


def documents_after(conn: Connection, version: int) -> list[tuple[int, bytes]]:
    """(version, bytes) of the documents above a version, the oldest first, unjudged.

    Raises `Malformed("ledger.malformed")` for one that is too large to be any.
    """
    size = func.length(documents.c.document)
    wanted = select(documents.c.version, documents.c.document).where(
        documents.c.version > version, size <= MAX_DOCUMENT
    )
    rows = conn.execute(wanted.order_by(documents.c.version).limit(MOST)).all()
    found = [(int(number), bytes(data)) for number, data in rows]
    if len({number for number, _ in found}) != len(found):
        raise Malformed("ledger.malformed", "the store has two trust documents of one version")
    return found


def give_list(store: Store, data: bytes, origin: str) -> bool:
    """Let the store have a signed list of suspensions, from the station `origin`; whether it was new there.

    Raises `Malformed("grant.malformed")` for anything else, and what a transaction raises. Whose signature it has is
    for the stations that take it out.
    """
    issued, digest = read_list(data).issued, hashlib.sha256(data).digest()

    def work(conn: Connection) -> bool:
        if conn.execute(select(lists.c.digest).where(lists.c.digest == digest)).first() is not None:
            return False
        row = {"digest": digest, "issued": issued, "list": data, "origin": origin, "time": database_time(conn)}
        conn.execute(lists.insert(), row)
        return True

    return store.run(work, serializable=True)


def lists_in(conn: Connection) -> Lists:
    """The lists that the store has, at most `MOST`."""
    fits = func.length(lists.c.list) <= MAX_LIST
    wanted = select(lists.c.list).where(fits).order_by(lists.c.issued.desc(), lists.c.digest).limit(MOST)
    rows = [bytes(data) for data in conn.execute(wanted).scalars()]
    count = conn.execute(select(func.count()).select_from(lists)).scalar_one()
    return Lists(tuple(rows[::-1]), int(count) - len(rows))

"""The trust documents that what others signed is judged by: one chain, as a station or the group's head has it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from sqlalchemy import Connection, select

from devguard.errors import DevguardError, Refused
from devguard.ledger.schema import documents, releases
from devguard.ledger.vouch import Judge
from devguard.trust.chain import check_successor
from devguard.trust.document import read_trust


def judge_of(conn: Connection) -> Judge:
    """Who judges what is derived: all documents of the store, the newest first."""
    return Judge([read_trust(data) for data in _kept(conn)])


def add_documents(conn: Connection, found: Iterable[bytes]) -> bool:
    """Keep trust documents that are of the chain that is kept; the first ones are the chain. Whether any is new.

    The caller holds the ledger's lock, and derives anew where one is new and something was doubted. Raises `Refused`
    `ledger.trust` for a document that does not fit, and what `read_trust` raises.
    """
    kept = {read_trust(data).digest: data for data in _kept(conn)}
    new = {}
    for data in found:
        document = read_trust(data)
        if document.digest not in kept:
            new[document.digest] = data
    if not new:
        return False
    _check_chain([*kept.values(), *new.values()])
    rows = [{"digest": digest, "version": read_trust(data).version, "document": data} for digest, data in new.items()]
    conn.execute(documents.insert(), rows)
    mark_revoked(conn, judge_of(conn))
    return True


def check_documents(conn: Connection) -> None:
    """Return when the documents that are held are one chain; raises as `add_documents`."""
    _check_chain(_kept(conn))


def _kept(conn: Connection) -> list[bytes]:
    """Every document, the newest first."""
    wanted = select(documents.c.document).order_by(documents.c.version.desc(), documents.c.digest)
    return [bytes(data) for data in conn.execute(wanted).scalars()]


def _check_chain(found: list[bytes]) -> None:
    """Return when each document is the successor of the one before it; `Refused("ledger.trust")`."""
    ordered = sorted(((read_trust(data), data) for data in found), key=lambda one: one[0].version)
    for (before, _), (_, data) in pairwise(ordered):
        try:
            check_successor(before, data)
        except DevguardError as error:
            raise Refused(
                "ledger.trust", f"a trust document does not follow version {before.version}: {error}"
            ) from None


def mark_revoked(conn: Connection, judge: Judge) -> None:
    """Mark the releases that the newest document takes back, and no others."""
    taken = judge.trust[0].revoked_releases if judge.trust else frozenset()
    named = releases.c.digest.in_(taken)
    conn.execute(releases.update().where(releases.c.revoked, ~named).values(revoked=False))
    if taken:
        conn.execute(releases.update().where(named, ~releases.c.revoked).values(revoked=True))

"""`devguard ledger update|rebuild|migrate`: what changes the ledger, each on record in this station's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.ledger_store import anchor_for, document_files, open_store, station_name, url_of
from devguard.cli.record import recorded

if TYPE_CHECKING:
    from devguard.ledger.take import Taken


@click.command("update", cls=Command)
@click.option(
    "--restored", metavar="REASON", help="The ledger was put back to an older state, for this reason: bring it level."
)
@click.pass_obj
def update(invocation: Invocation, restored: str | None) -> None:
    """Take what is new in this home's evidence log, and the trust documents here.

    The log is held against its signed head, and against what was taken of it before. What others signed inside records
    is judged by the trust documents. A ledger that has less than it had before is refused (`ledger.rollback`).
    """
    from devguard.ledger.level import Anchor
    from devguard.ledger.rebuild import take_log
    from devguard.ledger.take import identity

    url_of(invocation.home)  # without the packages nothing is recorded
    with recorded(invocation, "ledger.update") as note, open_store(invocation, create=True) as store:
        home = invocation.home
        anchor = None if restored is not None else anchor_for(home, store)
        found = take_log(
            store,
            home.evidence_folder,
            home.station().key,
            now=note.now,
            name=station_name(invocation),
            documents=document_files(invocation),
            anchor=anchor,
        )
        with store.read() as conn:
            note.details.update(Anchor(identity(conn), found.records, found.root).details())
        note.details.update({} if restored is None else {"restored": restored})
        note.details.update({} if found.trust is None else {"trust": found.trust})
        name = store.name
    _show(invocation, found, name)


def _show(invocation: Invocation, found: Taken, name: str) -> None:
    new = f"{found.new} new record{'' if found.new == 1 else 's'}"
    lines = [f"{name} has {found.records} records of this station, {new}"]
    if found.trust is not None:
        lines.append(f"  the trust document here is not of the ledger's chain ({found.trust}): devguard trust follow")
    data = {"store": name, "station": found.origin, "records": found.records, "new": found.new, "trust": found.trust}
    invocation.result(data, "\n".join(lines))


@click.command("rebuild", cls=Command)
@click.pass_obj
def rebuild(invocation: Invocation) -> None:
    """Drop the derived tables and make them anew from the records that are held, of all stations.

    What each station said is compared with the head that it signed. The tables are the same afterwards, unless
    somebody had changed them.
    """
    from devguard.ledger.rebuild import rebuild as made_anew

    url_of(invocation.home)
    with recorded(invocation, "ledger.rebuild") as note, open_store(invocation, create=False) as store:
        count, name = made_anew(store), store.name
        note.details["records"] = str(count)
    invocation.result({"store": name, "records": count}, f"{name}: the tables are made anew from {count} records")


@click.command("migrate", cls=Command)
@click.option("--back", metavar="REVISION", help="Back to this revision; what later ones keep is lost.")
@click.pass_obj
def migrate(invocation: Invocation, back: str | None) -> None:
    """Bring the ledger's tables to the newest revision that this devguard knows, or with --back to an older one."""
    url = url_of(invocation.home)
    from devguard.ledger.migrate import migrate as step
    from devguard.ledger.migrate import revision_of
    from devguard.ledger.store import Store

    with recorded(invocation, "ledger.migrate") as note, Store.unchecked(url, create=False) as store:
        before, after = step(store, None if back is None else revision_of(back))
        note.details.update({"from": before or "none", "to": after or "none"})
        name = store.name
    done = "is of revision" if before == after else f"went from revision {before or 'none'} to"
    invocation.result({"store": name, "from": before, "to": after}, f"{name} {done} {after}")

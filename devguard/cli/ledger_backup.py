"""`devguard ledger backup|restore`: a copy of what cannot be made again, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.ledger_store import anchor_for, open_store, url_of
from devguard.cli.record import recorded

if TYPE_CHECKING:
    from devguard.ledger.level import Anchor
    from devguard.ledger.store import Store

_file = click.argument("file", type=click.Path(path_type=Path))


@click.command("backup", cls=Command)
@_file
@click.pass_obj
def backup(invocation: Invocation, file: Path) -> None:
    """Write a backup into a new FILE: records of all stations, trust documents, campaigns, as of one moment.

    It is a SQLite file whichever database it is from, and can be restored into either.
    """
    url_of(invocation.home)
    from devguard.ledger.backup import backup as written

    with recorded(invocation, "ledger.backup") as note, open_store(invocation, create=False) as store:
        note.details.update({"file": str(file), "rows": str(count := written(store, file))})
        name = store.name
    invocation.result({"path": str(file), "store": name, "rows": count}, f"{count} rows of {name} are in {file}")


@click.command("restore", cls=Command)
@_file
@click.pass_obj
def restore(invocation: Invocation, file: Path) -> None:
    """Put the ledger in the state of the backup in FILE, whatever it held, and make the derived tables anew.

    A file in which somebody has changed a record is refused. A SQLite ledger that is damaged is moved aside. Stations
    that had handed over more than the backup has are told at their next update.
    """
    url = url_of(invocation.home)
    from devguard.ledger.backup import is_damaged, set_aside
    from devguard.ledger.backup import restore as put_back
    from devguard.ledger.store import Store, read_url

    with recorded(invocation, "ledger.restore") as note:
        parsed, aside = read_url(url), None
        if parsed.drivername == "sqlite" and is_damaged(url):
            aside = set_aside(Path(parsed.database or ""))
        with Store.open(url) as store:
            count, name = put_back(store, file), store.name
            known = anchor_for(invocation.home, store)
            mine = _mine(invocation, store)
        note.details.update({"file": str(file), **mine.details()})
    missing = 0 if known is None else max(0, known.records - mine.records)
    lines = [f"{name} is as in {file}: {count} records"]
    lines += [] if aside is None else [f"  what was damaged is now {aside}"]
    lines += [f"  {missing} records of this station were taken since: devguard ledger update"] if missing else []
    data = {"store": name, "path": str(file), "records": count, "behind": missing}
    invocation.result({**data, "aside": None if aside is None else str(aside)}, "\n".join(lines))


def _mine(invocation: Invocation, store: Store) -> Anchor:
    """What the store has of this station now: with it on record, an update goes on from there."""
    from devguard.evidence.checkpoint import origin_of
    from devguard.ledger.level import Anchor
    from devguard.ledger.take import held, identity

    with store.read() as conn:
        found = held(conn, origin_of(invocation.home.station().key))
        return Anchor(identity(conn), found.records, found.root)

"""`devguard ledger`: one store of what stations said, in the home or on a group's PostgreSQL (DEVGUARD_STORE)."""

from __future__ import annotations

import click

from devguard.cli.context import LazyGroup

_CLI = "devguard.cli"
TABLE = {
    "show": (f"{_CLI}.ledger_show", "show", "Devices, grants, releases, people, incidents: what the ledger holds."),
    "update": (f"{_CLI}.ledger_update", "update", "Take what is new in this home's evidence log."),
    "send": (f"{_CLI}.ledger_send", "send", "Hand this station's records over to the group's store."),
    "fetch": (f"{_CLI}.ledger_fetch", "fetch", "Take what other stations of the group have said and signed."),
    "rebuild": (f"{_CLI}.ledger_update", "rebuild", "Make the derived tables anew from the records that are held."),
    "migrate": (f"{_CLI}.ledger_update", "migrate", "Bring the tables to this version of devguard, or back."),
    "backup": (f"{_CLI}.ledger_backup", "backup", "Write a backup, from either database."),
    "restore": (f"{_CLI}.ledger_backup", "restore", "Put the ledger in the state of a backup."),
}


@click.group("ledger", cls=LazyGroup, table=TABLE)
def ledger() -> None:
    """What runs where and who may do what: tables derived from signed records."""

"""`devguard campaign start|open|pause|stop|skip`: what a person says of a campaign, on record before it counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.ledger_store import open_store
from devguard.cli.record import Note, operator, recorded

if TYPE_CHECKING:
    from sqlalchemy import Connection

_REASON = click.option("--reason", required=True, help="Why; stays in the log and with the campaign.")


@click.command(cls=Command)
@click.argument("name")
@click.pass_obj
def start(invocation: Invocation, name: str) -> None:
    """Start the draft NAME: its first ring opens. A paused one goes on."""
    with recorded(invocation, "campaign.start") as note:
        _order(invocation, note, name, "start", None)


@click.command(cls=Command)
@click.argument("name")
@_REASON
@click.pass_obj
def pause(invocation: Invocation, name: str, reason: str) -> None:
    """Hand out no device of NAME until it is started again. What is under way ends as it ends."""
    with recorded(invocation, "campaign.pause") as note:
        _order(invocation, note, name, "pause", reason)


@click.command(cls=Command)
@click.argument("name")
@_REASON
@click.pass_obj
def stop(invocation: Invocation, name: str, reason: str) -> None:
    """End NAME for good: devices that wait are left out. A new campaign takes what is left."""
    with recorded(invocation, "campaign.stop") as note:
        _order(invocation, note, name, "stop", reason)


def _order(invocation: Invocation, note: Note, name: str, what: str, reason: str | None) -> None:
    from devguard.campaign.state import Order
    from devguard.campaign.store import order

    def act(conn: Connection, now: int) -> dict[str, Any]:
        after = order(conn, name, Order(what), operator(), now, reason)
        note.manifest(after.goal.digest)
        note.release = f"{after.goal.model} {after.goal.version}"
        return {"campaign": name, "state": after.state.value}

    data = _change(invocation, note, name, reason, act)
    invocation.result(data, f"{name}: {data['state']}")


def _change(
    invocation: Invocation,
    note: Note,
    name: str,
    reason: str | None,
    act: Callable[[Connection, int], dict[str, Any]],
) -> dict[str, Any]:
    """`act` in one transaction, which ends only when the record of it is durable."""
    note.details["campaign"] = name
    if reason is not None:
        note.details["reason"] = reason
    from devguard.campaign.store import moment

    with open_store(invocation, create=True) as store, store.begin() as conn:
        data = act(conn, moment(conn, invocation.now()))
        note.commit()
    return data


@click.command("open", cls=Command)
@click.argument("name")
@click.argument("ring", required=False)
@click.pass_obj
def open_ring(invocation: Invocation, name: str, ring: str | None) -> None:
    """Open the next ring of NAME; RING says which that has to be."""
    from devguard.campaign.store import open_by_hand

    with recorded(invocation, "campaign.open") as note:

        def act(conn: Connection, now: int) -> dict[str, Any]:
            note.details["ring"] = opened = open_by_hand(conn, name, ring, operator(), now)
            return {"campaign": name, "ring": opened}

        data = _change(invocation, note, name, None, act)
    invocation.result(data, f"{name}: ring {data['ring']} is open")


@click.command(cls=Command)
@click.argument("name")
@click.argument("serial")
@_REASON
@click.pass_obj
def skip(invocation: Invocation, name: str, serial: str, reason: str) -> None:
    """Leave the device SERIAL of NAME out for good; only one that waits."""
    from devguard.campaign.leases import skip as leave_out

    with recorded(invocation, "campaign.skip") as note:

        def act(conn: Connection, now: int) -> dict[str, Any]:
            note.device = serial
            leave_out(conn, name, serial, now)
            return {"campaign": name, "serial": serial, "phase": "skipped"}

        data = _change(invocation, note, name, reason, act)
    invocation.result(data, f"{name}: {serial} is left out")

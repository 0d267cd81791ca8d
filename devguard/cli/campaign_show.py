"""`devguard campaign status` and `report`: how campaigns stand, and what became of their devices, added up."""

from __future__ import annotations

from typing import Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.cli.ledger_store import open_store
from devguard.errors import Exit


@click.command(cls=Command)
@click.argument("name", required=False)
@click.pass_obj
def status(invocation: Invocation, name: str | None) -> None:
    """List all campaigns, or show how NAME stands as of now: its rings, what stops it, when it goes on."""
    from devguard.campaign.advance import advance
    from devguard.campaign.standing import line, standing
    from devguard.campaign.store import everything, load, moment

    with open_store(invocation, create=True) as store:
        if name is None:
            with store.read() as conn:
                rows = [line(one) for one in everything(conn)]
            text = "\n".join(f"{row['campaign']:24} {row['state']:9} {row['release']}" for row in rows)
            invocation.result({"campaigns": rows}, text or "no campaign")
            return
        with store.begin() as conn:
            now = moment(conn, invocation.now())
            advance(conn, name, now)
        with store.read() as conn:
            data = standing(conn, load(conn, name), now)
    invocation.result(data, lambda: _print(data))


def _print(data: dict[str, Any]) -> None:
    click.echo(f"{data['campaign']}: {data['state']}, {data['release']}, {data['devices']} devices")
    if data["reason"] is not None:
        click.echo(f"  {data['changed']} by {data['changed_by']}: {data['reason']}")
    if data["window"] is not None:
        when = "open now" if data["window"]["open"] else f"closed until {data['next_open']}"
        click.echo(f"  hours: {data['window']['hours']}; {when}")
    _table(data["rings"])


def _table(rings: list[dict[str, Any]]) -> None:
    phases = ("due", "claimed", "done", "failed", "refused", "skipped")
    width = max(len(ring["name"]) for ring in rings)
    click.echo(f"  {'ring'.ljust(width)}  " + "  ".join(phase.rjust(7) for phase in phases))
    for ring in rings:
        figures = "  ".join(str(ring[phase]).rjust(7) for phase in phases)
        closed = "" if ring.get("opened", True) else "  not open"
        click.echo(f"  {ring['name'].ljust(width)}  {figures}{closed}")


@click.command(cls=Command)
@click.argument("name")
@click.pass_obj
def report(invocation: Invocation, name: str) -> None:
    """Add NAME up: every device in one phase, every end with its reason. Exit 1 where the figures do not agree."""
    from devguard.campaign.advance import advance
    from devguard.campaign.standing import line
    from devguard.campaign.store import load, moment, report_of

    with open_store(invocation, create=True) as store:
        with store.begin() as conn:
            advance(conn, name, moment(conn, invocation.now()))
        with store.read() as conn:
            one = load(conn, name)
            found = report_of(conn, one)
    data = {**line(one), **found.to_json([ring.name for ring in one.plan.rings])}
    data["code"] = "campaign.differs" if found.faults else None
    invocation.result(data, lambda: _print_report(data))
    if found.faults:
        raise VerdictExit(Exit.REFUSED)


def _print_report(data: dict[str, Any]) -> None:
    click.echo(f"{data['campaign']}: {data['state']}, {data['release']}, {data['devices']} devices")
    _table(data["rings"])
    for code, count in data["codes"].items():
        click.echo(f"  {count} by {code}")
    said = data["outcomes"]
    click.echo(f"  outcomes of benches: {said['counted']} counted, {said['late']} late")
    for fault in data["faults"]:
        click.echo(f"  DOES NOT ADD UP: {fault}")
    if data["adds_up"]:
        click.echo("  it adds up")

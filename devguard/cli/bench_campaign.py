"""`devguard bench campaign`: a simulated campaign on light devices, with workers killed and the database crashed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.errors import Exit

if TYPE_CHECKING:
    from devguard.bench.campaign import Result

LIGHT: Final = (
    "a simulation: the devices are light. Real: each device's check of its grant, its rule of spent uses, its own "
    "signed report; the campaign, its leases, its queue and its database. Not there: sessions, lines, transfers, "
    "flash, trial boots, therapy, evidence logs. Workers play the technicians, an authority answers at once, and the "
    "release is judged once for all devices."
)


@click.command("campaign", cls=Command)
@click.option("--devices", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Light devices.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes that push.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Who is killed, and when.")
@click.option("--kill", is_flag=True, help="Kill workers on the way: twice as many as there are at once.")
@click.option("--restart-database", is_flag=True, help="Crash the database halfway, and start it again.")
@click.option("--duplicates", is_flag=True, help="Deliver jobs and outcomes twice.")
@click.option("--push-ms", type=click.IntRange(0, 60_000), default=0, help="How long an emulated push takes.")
@click.option("--scale", "scaled", is_flag=True, help="Undisturbed with 1, 2, 4 and 8 workers instead.")
@click.option("--store", metavar="URL", help="An empty PostgreSQL database instead of a server of its own; it is kept.")
@click.option("--limit", type=click.IntRange(1), default=3600, show_default=True, help="Seconds until it is given up.")
@click.pass_obj
def campaign(invocation: Invocation, /, scaled: bool, store: str | None, **wish: Any) -> None:
    """Simulate a campaign and see that nothing is done twice or lost. Exit 0 only when every rule held.

    A PostgreSQL server of its own is started in a temporary folder, and gone afterwards.
    """
    from devguard.campaign.package import need_queue

    if store is not None and (wish["restart_database"] or scaled):
        raise click.UsageError("--restart-database and --scale take a server of their own, not --store")
    if scaled and (wish["kill"] or wish["duplicates"] or wish["restart_database"]):
        raise click.UsageError("--scale measures an undisturbed campaign")
    need_queue()
    results = _run(invocation, wish, store, scaled)
    held = all(one.held for one in results)
    data: dict[str, Any] = {"held": held, "simulation": LIGHT}
    data |= {"rows": [one.to_json() for one in results]} if scaled else results[0].to_json()
    invocation.result(data, lambda: _print(results))
    if not held:
        raise VerdictExit(Exit.REFUSED)


def _run(invocation: Invocation, wish: dict[str, Any], store: str | None, scaled: bool) -> list[Result]:
    from devguard.bench.campaign import Wish, run, scale

    asked = Wish(
        devices=wish["devices"],
        workers=wish["workers"],
        seed=wish["seed"],
        kills=2 * wish["workers"] if wish["kill"] else 0,
        crash=wish["restart_database"],
        duplicates=wish["duplicates"],
        install=wish["push_ms"] / 1000,
        limit=wish["limit"],
    )
    invocation.note(LIGHT)
    return scale(asked, say=invocation.note) if scaled else [run(asked, store, invocation.note)]


def _print(results: list[Result]) -> None:
    for one in results:
        found = one.to_json()
        click.echo(
            f"{one.done} of {one.wish.devices} devices in {one.seconds:.1f} s by {one.wish.workers} workers: "
            f"{one.rate:.1f} a second, {found['devices_per_second_per_worker']:.1f} each"
        )
        if one.killed or one.crashed or one.twice:
            click.echo(
                f"  {one.killed} workers killed, {one.started} started in all; {one.crashed} crash of the database; "
                f"{one.twice} jobs twice; {one.late} outcomes late"
            )
        for check in one.checks:
            click.echo(f"  {'held' if check.held else 'BROKEN'}: {check.name}")
            for why in check.to_json()["why"]:
                click.echo(f"    {why}")
    first = results[0]
    for one in results[1:]:
        grown = one.rate / first.rate if first.rate else 0.0
        click.echo(f"{one.wish.workers} workers: {grown:.2f} times the devices of {first.wish.workers}")

"""`devguard bench power-cuts`: the power goes at every flash operation and every save; what does the device become?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.errors import Exit

if TYPE_CHECKING:
    from devguard.bench.power import Row

COLUMNS = (
    ("model", "model"),
    ("scene", "scene"),
    ("image_sectors", "sectors"),
    ("operations", "operations"),
    ("cuts", "cuts"),
    ("booted_old", "old"),
    ("booted_new", "new"),
)
HARM = ("bricked", "settings_changed", "counter_regressed", "audit_broken", "push_failed")


@click.command(cls=Command)
@click.option("--model", metavar="MODEL", help="Only this model (default: all).")
@click.option("--full", is_flag=True, help="Every cut, not a sample; takes minutes.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Which sample.")
@click.pass_obj
def power_cuts(invocation: Invocation, model: str | None, full: bool, seed: int) -> None:
    """Cut the power of emulated devices at every step of an update, a revert, a confirm, a fallback and a trust
    rotation, and see that each comes up whole. Nothing outside this process is touched."""
    from devguard.bench.power import run
    from devguard.device.models import load_model

    models = None if model is None else [load_model(model).name]
    if full:
        invocation.note("every cut of every scene: this takes minutes, and nothing is lost by interrupting it")
    rows = run(models, full=full, seed=seed)
    held = all(row.tally.held for row in rows)
    data: dict[str, Any] = {"held": held, "rows": [row.as_dict() for row in rows]}
    invocation.result(data, lambda: _print(rows, held))
    if not held:
        raise VerdictExit(Exit.REFUSED)


def _print(rows: list[Row], held: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, title in COLUMNS:
        table.add_column(title, justify="left" if name in ("model", "scene") else "right", no_wrap=True)
    table.add_column("harm", justify="right")
    for row in rows:
        found = row.as_dict()
        table.add_row(*(str(found[name]) for name, _ in COLUMNS), str(sum(found[name] for name in HARM)))
    console = Console(highlight=False)
    console.print(table)
    cuts = sum(row.tally.cuts for row in rows)
    if held:
        console.print(f"{cuts} cuts: every device came up with a whole image, its counters and settings as they were")
    for row in rows:
        for fault in row.tally.faults:
            console.print(f"{row.model}, {row.scene}: {fault}", soft_wrap=True, markup=False)

"""`devguard bench attacks`: every attack of the catalogue against emulated devices, and whether it was held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.errors import Exit

if TYPE_CHECKING:
    from devguard.bench.attacks.row import Result


@click.command(cls=Command)
@click.option("--only", multiple=True, metavar="ID", help="Only this row (several times), such as A01.")
@click.option("--model", metavar="MODEL", help="Only this model (default: all).")
@click.option("--full", is_flag=True, help="Counts in the thousands and every frame, not a sample; takes long.")
@click.pass_obj
def attacks(invocation: Invocation, only: tuple[str, ...], model: str | None, full: bool) -> None:
    """Make every attack of the catalogue, over a real pseudo-terminal with a tap, and compare device and logs before
    and after. Exit 0 when none is broken. Nothing outside a working folder is touched."""
    from devguard.bench.attacks.run import run
    from devguard.cli.in_process import CommandLine
    from devguard.device.models import load_model

    models = None if model is None else [load_model(model).name]
    ids = [one for given in only for one in given.replace(",", " ").split()]
    results = run(CommandLine(), models=models, only=ids, full=full)
    held = all(result.status != "broken" for result in results)
    data: dict[str, Any] = {"held": held, "rows": [result.as_dict() for result in results]}
    invocation.result(data, lambda: _print(results))
    if not held:
        raise VerdictExit(Exit.REFUSED)


_STYLE = {"held": "green", "broken": "bold red", "not-applicable": "dim"}


def _print(results: list[Result]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("row", "model", "", "refused with", "attack"):
        table.add_column(title, no_wrap=title != "attack", overflow="fold")
    for one in results:
        style = _STYLE[one.status]
        table.add_row(one.id, one.model, f"[{style}]{one.status}[/]", one.code or "", escape(one.title))
    console = Console(highlight=False)
    console.print(table)
    for one in results:
        if one.status == "broken":
            console.print(f"{one.id} on {one.model}: {one.why}", soft_wrap=True, markup=False, style="red")
    counted = {status: sum(1 for one in results if one.status == status) for status in _STYLE}
    console.print(
        f"{counted['held']} held, {counted['broken']} broken, {counted['not-applicable']} not applicable; "
        + ("no attack changed a device" if not counted["broken"] else "what is broken is named above")
    )

"""`devguard bench attacks`: every attack of the catalogue against emulated devices, and whether it was held."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.errors import Exit

if TYPE_CHECKING:
    from devguard.bench.attacks.row import Result


@click.command(cls=Command)
@click.option("--only", multiple=True, metavar="ID...", help="Only these rows, such as A01 B02.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--model", metavar="MODEL", help="Only this model (default: all).")
@click.option("--full", is_flag=True, help="Counts in the thousands and every frame, not a sample; takes long.")
@click.pass_obj
def attacks(
    invocation: Invocation, only: tuple[str, ...], more: tuple[str, ...], model: str | None, full: bool
) -> None:
    """Make every attack of the catalogue, over a real pseudo-terminal with a tap, and compare device and logs before
    and after. Exit 0 when none is broken. Nothing outside a working folder is touched."""
    from devguard.bench.attacks.run import run
    from devguard.cli.in_process import CommandLine
    from devguard.device.models import load_model

    if more and not only:
        raise click.UsageError(f"unexpected argument {more[0]}; rows are named with --only")
    models = None if model is None else [load_model(model).name]
    ids = [one for given in (*only, *more) for one in given.replace(",", " ").split()]
    with _progress(invocation) as heard:
        results = run(CommandLine(), models=models, only=ids, full=full, heard=heard)
    held = all(result.status != "broken" for result in results)
    data: dict[str, Any] = {"held": held, "rows": [result.as_dict() for result in results]}
    invocation.result(data, lambda: _print(results))
    if not held:
        raise VerdictExit(Exit.REFUSED)


@contextlib.contextmanager
def _progress(invocation: Invocation) -> Iterator[Callable[[Result], None]]:
    """On a terminal: how many rows have been played, and the last one."""
    if invocation.json or invocation.quiet or not sys.stderr.isatty():
        yield lambda _result: None
        return
    from rich.console import Console
    from rich.status import Status

    played: list[Result] = []
    with Status("making the world of each model ...", console=Console(stderr=True)) as status:

        def heard(result: Result) -> None:
            played.append(result)
            status.update(f"{len(played)} played; {result.id} on {result.model}: {result.status}")

        yield heard


_GAP = 2
_TITLE = 16  # what is shown of a title on the narrowest terminal; codes are never cut
_STYLE = {"held": "green", "broken": "bold red", "not-applicable": "dim"}


def _print(results: list[Result]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    models = list(dict.fromkeys(one.model for one in results))
    by_row: dict[str, dict[str, Result]] = {}
    for one in results:
        by_row.setdefault(one.id, {})[one.model] = one
    rows = [
        (number, *(found[model].status if model in found else "" for model in models), *_code_and_title(found))
        for number, found in by_row.items()
    ]
    titles = ("row", *models, "refused with")
    widths = [max(len(title), *(len(row[place]) for row in rows)) for place, title in enumerate(titles)]
    room = max(_TITLE, Console().width - sum(widths) - _GAP * len(widths))
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for title, width in zip(titles, widths, strict=True):
        table.add_column(title, no_wrap=True, width=width)
    table.add_column("attack", no_wrap=True, width=room, overflow="ellipsis")
    for number, *statuses, code, title in rows:
        marked = (f"[{_STYLE[one]}]{one}[/]" if one else "" for one in statuses)
        table.add_row(number, *marked, code, escape(title))
    console = Console(highlight=False, width=sum(widths) + _GAP * len(widths) + room)
    console.print(table)
    for one in results:
        if one.status == "broken":
            console.print(f"{one.id} on {one.model}: {one.why}", soft_wrap=True, markup=False, style="red")
    counted = {status: sum(1 for one in results if one.status == status) for status in _STYLE}
    console.print(
        f"{counted['held']} held, {counted['broken']} broken, {counted['not-applicable']} not applicable; "
        + ("no attack changed a device" if not counted["broken"] else "what is broken is named above")
    )


def _code_and_title(found: dict[str, Result]) -> tuple[str, str]:
    first = next(iter(found.values()))
    return first.code or "", first.title

"""`devguard explain CODE`: what a refusal code means, why it happens, what to do."""

from __future__ import annotations

import difflib

import click

from devguard.cli.context import Command, Invocation
from devguard.errors import CODES, CodeInfo


def _plain(info: CodeInfo) -> dict[str, object]:
    return {"code": info.code, "cause": info.cause, "remedy": info.remedy, "exit": int(info.exit)}


@click.command(cls=Command)
@click.argument("code", required=False)
@click.pass_obj
def explain(invocation: Invocation, code: str | None) -> None:
    """Explain a refusal CODE; without one, list them all."""
    if code is None:
        rows = [_plain(info) for info in CODES.values()]
        invocation.result(
            {"codes": rows}, "\n".join(f"{row['code']:28} exit {row['exit']}  {row['cause']}" for row in rows)
        )
        return
    info = CODES.get(code)
    if info is None:
        near = difflib.get_close_matches(code, CODES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise click.UsageError(f"unknown code {code}{hint}")
    text = (
        f"{info.code}\n  cause   {info.cause}\n  remedy  {info.remedy}\n"
        f"  exit    {int(info.exit)} (5 when a device says it)"
    )
    invocation.result(_plain(info), text)

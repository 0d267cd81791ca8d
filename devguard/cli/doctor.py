"""`devguard doctor`: what about this machine stands in the way, or should be mended before it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.errors import CODES, Exit

if TYPE_CHECKING:
    from devguard.cli.doctor_checks import Finding


@click.command(cls=Command)
@click.pass_obj
def doctor(invocation: Invocation) -> None:
    """Look at clock, system, disk, key files, serial ports and versions. Changes nothing.

    Exit 0 unless something here makes devguard refuse to work; warnings are for you to mend.
    """
    findings = list(_examine(invocation))
    refused = [one for one in findings if one.state == "refuse"]
    data = {
        "ok": not refused,
        "code": refused[0].code if refused else None,
        "checks": [
            {"name": one.subject, "state": str(one.state), "detail": one.detail, "code": one.code} for one in findings
        ],
    }
    lines = []
    for one in findings:
        lines.append(f"{one.state:8} {one.subject}: {one.detail}")
        if one.code in CODES and one.state == "refuse":
            lines.append(f"{'':8} {one.code}: {CODES[one.code].remedy}")
    lines.append("nothing refuses" if not refused else f"{len(refused)} findings make devguard refuse")
    invocation.result(data, "\n".join(lines))
    if refused:
        raise VerdictExit(Exit.REFUSED)


def _examine(invocation: Invocation) -> Iterator[Finding]:
    from devguard.cli import doctor_checks as checks

    home, now, system = invocation.home, invocation.now(), checks.System()
    yield from checks.clock(home, now)
    yield from checks.support(system, now)
    yield from checks.disk(home, system)
    yield from checks.key_files(home)
    yield from checks.serial(system)
    yield from checks.software()
    yield from checks.versions()

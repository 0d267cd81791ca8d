"""`devguard device log`: the device's own log, held against its signed report, shown and recorded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.line import choose_port
from devguard.cli.record import Note, recorded
from devguard.cli.times import iso
from devguard.cli.visit import Errand, Visit, check_errand, visit_options

if TYPE_CHECKING:
    from devguard.session.read_log import ReadLog


@click.command(cls=Command)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Keep the signed log: it verifies with the device's key alone."
)
@visit_options
@click.pass_obj
def log(invocation: Invocation, /, out: Path | None, **options: Any) -> None:
    """Read a device's own log: its last 64 events under one hash chain, signed, compared with its signed report.

    The grant has to allow `read-log`; one for an update does not open this.
    """
    from devguard.custody.files import write_atomic

    errand = Errand(**options)
    check_errand(errand)
    with recorded(invocation, "device.log") as note:
        found = _read(Visit(invocation, errand, note))
        _record(note, found)
        if out is not None:
            write_atomic(out, found.signed_log)
    invocation.result(_data(found, out), lambda: _show(found, out))


def _read(visit: Visit) -> ReadLog:
    from devguard.cli.confirm import confirmed
    from devguard.cli.line import runner_on
    from devguard.link.driver import SerialDriver
    from devguard.session.connect import identify
    from devguard.session.read_log import read_log

    note = visit.note
    trust = visit.trust()
    signer, one = visit.technician()
    checked = visit.check(one, signer, trust, "read-log")
    approver = visit.approver()
    port = choose_port(visit.invocation, visit.errand.port)
    visit.describe(port)
    bench = visit.bench(trust, checked, signer)
    with SerialDriver.open(port, visit.errand.baud, visit.invocation.ticks) as driver:
        runner = runner_on(driver, baud=visit.errand.baud)
        identity, _ = runner.run(identify(confirmed(visit.invocation, note, runner, bench)))
        note.device = identity.serial
        note.commit(action="device.log-begun")
        note.written = False
        return runner.run(read_log(replace(bench, serial=identity.serial), checked, approver))


def _record(note: Note, found: ReadLog) -> None:
    note.digest("REPORT", hashlib.sha256(found.signed_report).digest())
    note.digest("DEVICE_HEAD", found.log.head)
    note.digest("PAYLOAD", hashlib.sha256(found.signed_log).digest())
    note.details["events"] = f"{len(found.log.events)} of {found.log.count}"
    note.commit()


def _data(found: ReadLog, out: Path | None) -> dict[str, Any]:
    log = found.log
    first = log.count - len(log.events)
    return {
        "model": log.model,
        "serial": log.serial,
        "time": log.time,
        "count": log.count,
        "whole": log.whole,
        "base": log.base.hex(),
        "head": log.head.hex(),
        "events": [
            {"number": number, "time": one.time, "name": one.name, "code": one.code, "subject": one.subject.hex()}
            for number, one in enumerate(log.events, first + 1)
        ],
        "report": found.report.to_json(),
        "path": None if out is None else str(out),
    }


def _show(found: ReadLog, out: Path | None) -> None:
    data = _data(found, out)
    click.echo(f"{data['model']} {data['serial']}: {len(data['events'])} of {data['count']} events, proven")
    for one in data["events"]:
        code, subject = one["code"] or "", one["subject"][:16]
        click.echo(f"  {one['number']:>5}  {iso(one['time'])}  {one['name']:20} {code:22} {subject}".rstrip())
    click.echo(f"  log head {data['head']}, as in the signed report")
    if not data["whole"]:
        click.echo(
            f"  events 1 to {data['count'] - len(data['events'])} are forgotten; the chain goes on from their head"
        )
    if out is not None:
        click.echo(f"  the signed log is in {out}")

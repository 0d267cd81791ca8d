"""`devguard device log`: the device's own log, held against its signed report, shown and recorded."""

from __future__ import annotations

import hashlib
import os
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
    from devguard.evidence.contradict import Contradiction
    from devguard.session.read_log import ReadLog


@click.command(cls=Command)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Keep the signed log, for `evidence verify --report`."
)
@visit_options
@click.pass_obj
def log(invocation: Invocation, /, out: Path | None, **options: Any) -> None:
    """Read a device's own log: its last 64 events under one hash chain, signed, compared with its signed report.

    The grant has to allow `read-log`; one for an update does not open this.
    """
    from devguard.custody.files import write_atomic
    from devguard.evidence.statement import DeviceStatement

    errand = Errand(**options)
    check_errand(errand)
    with recorded(invocation, "device.log") as note:
        visit = Visit(invocation, errand, note)
        found = _read(visit)
        kept = DeviceStatement(visit.words.credential, found.signed_log)
        _record(visit, found)
        if out is not None:
            write_atomic(out, kept.encode())
        wrong = _held_against(note, found)
    invocation.result(_data(found, out, wrong), lambda: _show(found, out, wrong))


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
    with (
        visit.reserved(checked, os.urandom(32)),  # each reading is a use of its own
        SerialDriver.open(port, visit.errand.baud, visit.invocation.ticks) as driver,
    ):
        runner = runner_on(driver, baud=visit.errand.baud)
        identity, _ = runner.run(identify(confirmed(visit.invocation, note, runner, bench)))
        note.device = identity.serial
        visit.use.offer()
        note.commit(action="device.log-begun")
        note.written = False
        return runner.run(read_log(replace(bench, serial=identity.serial), checked, approver))


def _held_against(note: Note, found: ReadLog) -> tuple[Contradiction, ...]:
    """What the device's log says against this station's, the record of this very session included."""
    from devguard.evidence.contradict import about, contradictions
    from devguard.evidence.log import read_records

    if note.log is None:
        return ()
    return contradictions(about(read_records(note.home.evidence_folder), found.log.serial), found.log)


def _record(visit: Visit, found: ReadLog) -> None:
    from devguard.evidence.record import Statement

    note = visit.note
    visit.words.report(found.report, found.signed_report)
    note.statements[Statement.DEVICE_LOG] = found.signed_log
    note.digest("PAYLOAD", hashlib.sha256(found.signed_log).digest())
    note.details["events"] = f"{len(found.log.events)} of {found.log.count}"
    note.commit()


def _data(found: ReadLog, out: Path | None, wrong: tuple[Contradiction, ...]) -> dict[str, Any]:
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
        "contradictions": [{"code": one.code, "since": one.since, "message": one.message} for one in wrong],
    }


def _show(found: ReadLog, out: Path | None, wrong: tuple[Contradiction, ...]) -> None:
    data = _data(found, out, wrong)
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
    for one in wrong:
        when = "" if one.time is None else f", the first at {iso(one.time)} by its clock"
        click.echo(
            f"  warning: {one.code}: {one.message}{when}; with another station's log: evidence verify --report --with"
        )

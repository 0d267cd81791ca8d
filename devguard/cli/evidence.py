"""`devguard evidence show|verify`: what happened here, and whether the record of it still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.times import iso
from devguard.errors import Refused


@click.group()
def evidence() -> None:
    """Show and verify the evidence log."""


@evidence.command("show", cls=Command)
@click.option("--last", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="How many records.")
@click.pass_obj
def show(invocation: Invocation, last: int) -> None:
    """Show the newest records (read without judging them; `verify` judges)."""
    from collections import deque

    from devguard.evidence.log import read_records

    folder = _folder(invocation)
    records = list(deque(enumerate(read_records(folder)), maxlen=last))
    data = [{"index": index, **record.to_json()} for index, record in records]
    lines = [
        f"{index:6} {iso(record.time)} {record.code or 'ok':24} {record.action:18} {record.actor}"
        f"{' ' + record.device if record.device else ''}{' ' + record.release if record.release else ''}"
        for index, record in records
    ]
    invocation.result({"records": data}, "\n".join(lines))


@evidence.command("verify", cls=Command)
@click.option("--key", "reference", metavar="KEY", help="The station's key or its public export (default: the home's).")
@click.pass_obj
def verify(invocation: Invocation, reference: str | None) -> None:
    """Verify the whole log: every record, every file, the signed checkpoint. Writes nothing."""
    from devguard.evidence.verify import verify_log

    folder = _folder(invocation)
    # A file "station" in the folder one happens to be in is not this station's key.
    key = invocation.home.key_info(reference or str(invocation.home.station_public())).key
    report = verify_log(folder, key)
    if reference is None:
        _remembered(invocation, report.records)
    head = report.checkpoint
    data: dict[str, Any] = {
        "ok": True,
        "records": report.records,
        "root": head.root.hex(),
        "origin": head.origin,
        "first": None if report.first_time is None else iso(report.first_time),
        "last": None if report.last_time is None else iso(report.last_time),
        "interrupted": report.interrupted,
    }
    text = f"good: {report.records} records, root {head.root.hex()}, checkpoint by {head.origin}"
    if report.interrupted:
        text += "\na writer was cut off before its record counted; the next record settles that"
    invocation.result(data, text)


def _remembered(invocation: Invocation, records: int) -> None:
    """A log that was removed and begun anew is whole in itself: only the station's memory tells."""
    from devguard.cli.memory import peek

    memory = peek(invocation.home)
    if memory is not None and memory.records > records:
        raise Refused(
            "log.truncated",
            f"record {records}: the station remembers {memory.records} records or more, it has {records}",
        )


def _folder(invocation: Invocation) -> Path:
    """The evidence folder. Without one: no log was ever kept here, or somebody removed it whole."""
    home = invocation.home
    if not home.evidence_folder.is_dir():
        if (home.keys / "station.key").exists():
            raise Refused("log.truncated", f"{home.evidence_folder} is gone, though this station has kept a log")
        raise Refused("log.missing", f"{home.evidence_folder} does not exist")
    return home.evidence_folder

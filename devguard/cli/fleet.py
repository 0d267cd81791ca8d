"""`devguard fleet age`: what runs where, how far behind, and until when it is supported, from the evidence log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, printed
from devguard.cli.evidence_keys import (
    documents,
    evidence_folder,
    key_option,
    log_in,
    station_of,
    trust_option,
)
from devguard.cli.times import Duration, iso
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.evidence.fleet import Fleet, Known, Sighting
    from devguard.evidence.record import Entry, Record
    from devguard.evidence.tree import Frontier
    from devguard.grant.claims import Grant

ANY: Final = "*"
DAY: Final = 86_400


@click.group()
def fleet() -> None:
    """What runs on the devices that this station has met."""


@fleet.command("age", cls=Command)
@click.option(
    "--behind",
    type=Duration(),
    default="90d",
    show_default=True,
    help="Red from this long after a newer release became known here.",
)
@click.option("--model", help="Only devices of this model.")
@click.option("--site", help="Only devices that were last pushed to under a grant that names this site.")
@click.option("--log", "log_folder", type=click.Path(path_type=Path), help="The log (default: the home's).")
@key_option
@trust_option
@click.pass_obj
def age(
    invocation: Invocation,
    behind: int,
    model: str | None,
    site: str | None,
    log_folder: Path | None,
    reference: str | None,
    trust_file: Path | None,
) -> None:
    """List every device in the evidence log as of its last signed report.

    The log is verified first, and every report in it by the device's own key. Newest is what was verified, pushed or
    reported here, or lies on the shelf this home follows. Exit 0 whatever is red.
    """
    folder = evidence_folder(invocation) if log_folder is None else log_in(log_folder)
    found, records = _folded(invocation, folder, reference, trust_file)
    now = invocation.now()
    shelf = _shelf(invocation, found, now) if log_folder is None else None
    rows = [_row(found, one, now, behind) for one in found.devices.values()]
    rows = [row for row in rows if model in (None, row["model"]) and (site is None or site in row["sites"])]
    rows.sort(key=lambda row: (not row["red"], row["model"] or "", row["serial"]))
    data = {
        "devices": rows,
        "red": sum(bool(row["red"]) for row in rows),
        "behind_days": behind // DAY,
        "records": records,
        "shelf": shelf,
    }
    invocation.result(data, lambda: _print(data))


def _folded(invocation: Invocation, folder: Path, reference: str | None, trust_file: Path | None) -> tuple[Fleet, int]:
    """The fold of a log that holds, and how many records it has; raises as `evidence verify`."""
    from devguard.cli.evidence_devices import Devices
    from devguard.evidence.checkpoint import origin_of
    from devguard.evidence.fleet import Fleet
    from devguard.evidence.verify import claimed_origin, verify_log

    station = station_of(invocation, lambda: claimed_origin(folder), reference, trust_file)
    trust = documents(invocation, trust_file)
    if not trust:
        raise Refused("trust.missing", "the devices' reports are judged by a trust document", "give it: --trust FILE")
    found = Fleet()

    def pushed(record: Record, grant: Grant) -> None:
        if record.device is not None:
            found.visited(record.device, tuple(sorted(grant.scope.sites - {ANY})))

    devices = Devices(folder, trust, origin_of(station.key), found.reported, pushed)

    def visit(entry: Entry, tree: Frontier) -> None:
        found.visit(entry)
        devices.visit(entry, tree)

    report = verify_log(folder, station.key, visit=visit)
    devices.finish(report.checkpoint)
    return found, report.records


def _shelf(invocation: Invocation, found: Fleet, now: int) -> str | None:
    """Take in what lies on the shelf this home follows; None where it follows none, or why that cannot be read."""
    if not invocation.home.shelf_state.is_file():
        return None
    from devguard.cli.shelf import opened

    try:
        fresh, rows = opened(invocation).listing(now)
    except DevguardError as error:
        return f"the shelf cannot be gone by: {error.code}"
    for row in rows:
        found.know(row.model, row.version, sequence=row.sequence, since=fresh.issued)
    return f"shelf version {fresh.version}"


def _row(found: Fleet, device: Sighting, now: int, behind: int) -> dict[str, Any]:
    from devguard.evidence.fleet import red

    report: Any = device.report
    running, lag = found.running(device), found.lag(device, now)
    ends = _ends(running)
    part = None if running is None else running.first_part
    return {
        "serial": device.serial,
        "model": None if report is None else report.model,
        "version": None if report is None else report.version,
        "sequence": None if report is None else report.sequence,
        "boot_state": None if report is None else report.boot_state,
        "confirmed": None if report is None else report.confirmed,
        "components": [] if report is None else report.to_json()["components"],
        "flags": [] if report is None else list(report.flags),
        "reported": None if report is None else iso(device.time),
        "record": device.index,
        "sites": list(device.sites),
        "newest": None if lag is None else lag.newest.version,
        "behind": None if lag is None else {"versions": lag.versions, "days": lag.days},
        "support": {name: None if end is None else iso(end) for name, end in ends.items()} | {"first_part": part},
        "red": red(lag, behind, ends, part, now),
    }


def _ends(running: Known | None) -> dict[str, int | None]:
    """When support ends of the release a device runs, of its model and of the first of its parts; epoch seconds."""
    from devguard.device.supported import model_support

    if running is None:
        return {"release": None, "model": None, "parts": None}
    model = model_support(running.model)
    return {"release": running.supported_until, "model": model, "parts": running.parts_until}


def _print(data: dict[str, Any]) -> None:
    rows = data["devices"]
    head = ("serial", "model", "version", "reported", "behind", "supported until")
    table = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    for number, line in enumerate(table):
        text = printed("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            click.echo(text)
            continue
        red = rows[number - 1]["red"]
        click.echo(click.style(text, fg="red") if red else text)
        for why in red:
            click.echo(click.style(f"  RED  {printed(why)}", fg="red"))
    shelf = "" if data["shelf"] is None else f", and by {data['shelf']}"
    count = f"{len(rows)} device{'' if len(rows) == 1 else 's'}, {data['red']} red"
    click.echo(f"{count}; by {data['records']} records that hold{shelf}")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["version"] is None:
        return row["serial"], "-", "no signed report", "-", "-", "-"
    lag = row["behind"]
    version = row["version"] if row["confirmed"] else f"{row['version']} ({row['boot_state']})"
    if lag is None:
        far = "newest known"
    else:
        days = "" if lag["days"] is None else f", {lag['days']} d"
        far = f"{lag['versions']} version{'' if lag['versions'] == 1 else 's'}{days} (newest {row['newest']})"
    support = row["support"]
    until = ", ".join(f"{name} {support[name][:10]}" for name in ("release", "model", "parts") if support[name])
    return row["serial"], row["model"], version, row["reported"], far, until or "not stated"

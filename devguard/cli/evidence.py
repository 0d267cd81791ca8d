"""`devguard evidence show|verify`: what happened here, and whether the record of it still holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.times import iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.trust.document import KeyEntry, TrustDocument


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
@click.option(
    "--trust",
    "trust_file",
    type=click.Path(path_type=Path),
    help="The station's key has to be one this trust document lists; with it, no key need be here.",
)
@click.pass_obj
def verify(invocation: Invocation, reference: str | None, trust_file: Path | None) -> None:
    """Verify the whole log: every record, every file, the signed checkpoint. Writes nothing.

    Whose log it is, the key says: this home's own, the one given, or with --trust whichever of the document's station
    keys the checkpoint names. For the log of another station: a copy of its evidence/ in a folder, as --home.
    """
    from devguard.evidence.verify import verify_log

    folder = _folder(invocation)
    station = None if trust_file is None else _station(invocation, folder, trust_file)
    if station is None or reference is not None:
        # A file "station" in the folder one happens to be in is not this station's key.
        key = invocation.home.key_info(reference or str(invocation.home.station_public())).key
    else:
        key = station[1].key
    if station is not None and key != station[1].key:
        raise Refused("key.unknown", "the trust document lists another station's key for this log than the one given")
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
        "station": None if station is None else {"person": station[1].person, "trust_version": station[0].version},
    }
    text = f"good: {report.records} records, root {head.root.hex()}, checkpoint by {head.origin}"
    if station is not None:
        text += f"\nstation {station[1].person}, as trust document version {station[0].version} lists it"
    if report.interrupted:
        text += "\na writer was cut off before its record counted; the next record settles that"
    invocation.result(data, text)


def _station(invocation: Invocation, folder: Path, trust_file: Path) -> tuple[TrustDocument, KeyEntry]:
    """The trust document, and the key of role station that the log's checkpoint names; what it signed is not judged.

    Raises `Refused`: `key.unknown`, `key.revoked`, `key.expired`, and the codes of the document and its time.
    """
    from devguard.cose.roles import RoleName
    from devguard.evidence.checkpoint import origin_of
    from devguard.evidence.verify import claimed_origin
    from devguard.trust.document import check_time

    document, now = invocation.home.trust(trust_file), invocation.now()
    check_time(document, now)
    origin = claimed_origin(folder)
    role = document.role(RoleName.STATION)
    entry = next((one for one in role.keys if origin_of(one.key) == origin), None) if role is not None else None
    if entry is None:
        raise Refused("key.unknown", f"the trust document lists no station key of the log {origin[:64]!r}")
    if document.is_revoked(entry.thumbprint):
        raise Refused("key.revoked", f"the key of station {entry.person} is revoked: its log proves nothing any more")
    if not entry.valid_at(now):
        raise Refused("key.expired", f"the key of station {entry.person} is outside its validity")
    return document, entry


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

"""`devguard evidence show|checkpoint|prove`: what happened here, and what of it is carried away."""

from __future__ import annotations

from pathlib import Path

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.evidence_export import export
from devguard.cli.evidence_keys import (
    evidence_folder,
    key_option,
    log_in,
    note_in,
    read_text,
    station_of,
    trust_option,
    written,
)
from devguard.cli.evidence_verify import verify
from devguard.cli.evidence_witness import compare, witness
from devguard.cli.incident import incident
from devguard.cli.times import iso
from devguard.errors import Refused


@click.group()
def evidence() -> None:
    """Show, verify and prove the evidence log; cosign and compare those of others."""


evidence.add_command(verify)
evidence.add_command(witness)
evidence.add_command(compare)
evidence.add_command(export)
evidence.add_command(incident)


@evidence.command("show", cls=Command)
@click.option("--last", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="How many records.")
@click.pass_obj
def show(invocation: Invocation, last: int) -> None:
    """Show the newest records (read without judging them; `verify` judges)."""
    from itertools import islice

    from devguard.evidence.log import read_records
    from devguard.evidence.newest import backwards

    folder = evidence_folder(invocation)
    newest = [(entry.index, entry.record) for entry, _ in islice(backwards(folder), last)]
    records = newest[::-1]
    if not records:
        next(read_records(folder), None)  # no record is one thing, no log another
    data = [{"index": index, **record.to_json()} for index, record in records]
    lines = [
        f"{index:6} {iso(record.time)} {record.code or 'ok':24} {record.action:18} {record.actor}"
        f"{' ' + record.device if record.device else ''}{' ' + record.release if record.release else ''}"
        for index, record in records
    ]
    invocation.result({"records": data}, "\n".join(lines))


@evidence.command("checkpoint", cls=Command)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write it to this file (default: show it).")
@key_option
@trust_option
@click.pass_obj
def checkpoint(invocation: Invocation, out: Path | None, reference: str | None, trust_file: Path | None) -> None:
    """Verify the log and write its signed head, to be kept where nobody of this station can change it.

    Anybody who has it finds out later whether the log was shortened, forked or put back: see `verify --earlier`,
    `witness` and `compare`.
    """
    from devguard.evidence.verify import claimed_origin, verify_log

    folder = evidence_folder(invocation)
    station = station_of(invocation, lambda: claimed_origin(folder), reference, trust_file)
    report = verify_log(folder, station.key)
    if out is not None:
        written(out, report.note)
    head = report.checkpoint
    data = {"origin": head.origin, "records": head.size, "root": head.root.hex(), "file": str(out) if out else None}
    text = report.note.decode().rstrip("\n")
    if out is not None:
        text = f"{out}: {head.size} records of {head.origin}, root {head.root.hex()}\nkeep it away from this station"
    invocation.result({**data, "note": report.note.decode()}, text)


@evidence.command("prove", cls=Command)
@click.argument("index", required=False, type=click.IntRange(0))
@click.option("--request", help="Prove every record of this command or session instead.")
@click.option("--since", type=click.Path(path_type=Path), help="Prove that the log continues this checkpoint instead.")
@click.option(
    "--checkpoint", "against", type=click.Path(path_type=Path), help="Prove against this cosigned checkpoint."
)
@click.option("--log", "log_folder", type=click.Path(path_type=Path), help="The log (default: the home's).")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File; a folder for several proofs.")
@key_option
@trust_option
@click.pass_obj
def prove(
    invocation: Invocation,
    index: int | None,
    request: str | None,
    since: Path | None,
    against: Path | None,
    log_folder: Path | None,
    out: Path,
    reference: str | None,
    trust_file: Path | None,
) -> None:
    """Write a proof that anybody can verify later with the station's public key alone: `evidence verify FILE`.

    INDEX is a record's number, as `show` prints it. The proof holds the record and what leads from it to a signed
    checkpoint; with --checkpoint also the cosignatures of the witnesses on it.
    """
    from devguard.evidence.prove import of_request, prove_records, prove_since
    from devguard.evidence.verify import claimed_origin

    if sum(one is not None for one in (index, request, since)) != 1:
        raise click.UsageError("one of INDEX, --request and --since says what to prove")
    folder = evidence_folder(invocation) if log_folder is None else log_in(log_folder)
    station = station_of(invocation, lambda: claimed_origin(folder), reference, trust_file)
    note = None if against is None else note_in(read_text(against))
    if since is not None:
        proof = prove_since(folder, station.key, note_in(read_text(since)), note=note)
        older, newer = proof.verify(station.key)
        written(out, proof.encode())
        data = {"files": [str(out)], "older": older.size, "records": newer.size, "origin": newer.origin}
        invocation.result(data, f"{out}: the log of {newer.size} records continues the one of {older.size}")
        return
    indexes = (index,) if index is not None else of_request(folder, request or "")
    if not indexes:
        raise Refused("log.unproven", f"no record carries the request id {request}")
    proofs = prove_records(folder, station.key, indexes, note=note)
    files = _files(out, indexes)
    for path, one in zip(files, proofs, strict=True):
        written(path, one.encode())
    size = proofs[0].verify(station.key)[1].size
    data = {"files": [str(path) for path in files], "indexes": list(indexes), "records": size}
    lines = [f"{path}: record {number} of {size}" for path, number in zip(files, indexes, strict=True)]
    invocation.result(data, "\n".join(lines))


def _files(out: Path, indexes: tuple[int, ...]) -> list[Path]:
    """One file; for several proofs, or in a folder, one name for each."""
    if len(indexes) == 1 and not out.is_dir():
        return [out]
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"{len(indexes)} records carry that request id: -o has to be a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("file.unreadable", f"cannot create {out}: {error.strerror}") from error
    return [out / f"record-{index}.tlog-proof" for index in indexes]

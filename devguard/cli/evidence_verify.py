"""`devguard evidence verify`: a whole log, or a proof or checkpoint that was kept elsewhere. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.evidence_keys import (
    Station,
    demand,
    documents,
    evidence_folder,
    key_option,
    log_in,
    note_in,
    origin_in,
    read_text,
    station_of,
    trust_option,
)
from devguard.cli.times import iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.evidence_devices import Devices
    from devguard.evidence.checkpoint import Checkpoint
    from devguard.evidence.cosign import Cosignature
    from devguard.evidence.verify import LogReport
    from devguard.evidence.witness import Demand


@click.command("verify", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@key_option
@trust_option
@click.option(
    "--earlier",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A checkpoint or proof that was kept elsewhere; the log has to continue it.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A device's report or log, from `device info -o` or `device log -o`; the log has to agree with it.",
)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The log of another station that those devices met, for --report; its key by --trust.",
)
@click.option("--witness", "witnesses", multiple=True, metavar="KEY", help="This witness has to have cosigned.")
@click.option("--witnessed", is_flag=True, help="As many witnesses as the trust document asks have to have cosigned.")
@click.pass_obj
def verify(
    invocation: Invocation,
    file: Path | None,
    reference: str | None,
    trust_file: Path | None,
    earlier: tuple[Path, ...],
    reports: tuple[Path, ...],
    others: tuple[Path, ...],
    witnesses: tuple[str, ...],
    witnessed: bool,
) -> None:
    """Verify the whole log: every record, every file, the signed head. Writes nothing.

    FILE is a proof, a checkpoint, the bundle of an incident or the folder of a log instead; a file is told by what it
    holds. Whose log it is, the key says: this home's own, the one given, or with --trust whichever of the document's
    station keys is named there. Devices' own words are held against the log where a trust document is at hand.
    """
    wanted = demand(invocation, witnesses, trust_file, witnessed=witnessed)
    if file is not None and not file.is_dir():
        if earlier or reports:
            raise click.UsageError("--earlier and --report are held against a log, not against a file")
        _verify_file(invocation, file, reference, trust_file, wanted)
        return
    folder = evidence_folder(invocation) if file is None else log_in(file)
    _Whole(invocation, folder, reference, trust_file, own=file is None and reference is None).run(
        earlier, reports, others, wanted
    )


# a file


def _verify_file(
    invocation: Invocation, path: Path, reference: str | None, trust_file: Path | None, wanted: Demand | None
) -> None:
    from devguard.cli.evidence_bundle import verify_bundle
    from devguard.evidence.bundle import is_bundle
    from devguard.evidence.checkpoint import open_checkpoint
    from devguard.evidence.proof import ConsistencyProof, InclusionProof, is_proof, read_proof

    data = read_text(path)
    if is_bundle(data):
        verify_bundle(invocation, data, reference, trust_file, wanted)
        return
    proof = read_proof(data) if is_proof(data) else None
    note = note_in(data)
    station = station_of(invocation, lambda: origin_in(note), reference, trust_file)
    found = wanted.met_by(note) if wanted is not None else ()
    head, shown, text = None, {}, ""
    if isinstance(proof, InclusionProof):
        entry, head = proof.verify(station.key)
        shown = {"kind": "inclusion", "index": entry.index, "record": entry.record.to_json()}
        text = f"good: record {entry.index} of {head.size}\n{_described(shown['record'])}"
    elif isinstance(proof, ConsistencyProof):
        older, head = proof.verify(station.key)
        shown = {"kind": "consistency", "older": _head(older)}
        text = f"good: the log of {head.size} records continues the one of {older.size}"
    else:
        head = open_checkpoint(note, station.key)
        shown = {"kind": "checkpoint"}
        text = f"good: a head of {head.size} records, root {head.root.hex()}"
    result = {"ok": True, **shown, **_head(head), "station": station.as_dict(), "witnesses": _witnesses(found, wanted)}
    invocation.result(result, f"{text}\nsigned by {head.origin}{station.text()}{_witness_lines(found, wanted)}")


def _head(head: Checkpoint) -> dict[str, Any]:
    return {"origin": head.origin, "records": head.size, "root": head.root.hex()}


def _described(record: Any) -> str:
    """A record for people, one field a line."""
    lines = [f"  {'time':14} {iso(record['time'])}"]
    for name in ("actor", "action", "device", "release", "code", "request"):
        if record[name] is not None:
            lines.append(f"  {name:14} {record[name]}")
    for group in ("digests", "details"):
        lines += [f"  {name:14} {value}" for name, value in record[group].items()]
    lines += [f"  {name + ', whole':21} {one['bytes']} bytes" for name, one in record["statements"].items()]
    return "\n".join(lines)


def _witnesses(found: Sequence[Cosignature], wanted: Demand | None) -> list[dict[str, Any]]:
    names = wanted.persons if wanted is not None else {}
    return [{"witness": names[one.key.thumbprint], "time": iso(one.time)} for one in found]


def _witness_lines(found: Sequence[Cosignature], wanted: Demand | None) -> str:
    return "".join(f"\ncosigned by {one['witness']} on {one['time']}" for one in _witnesses(found, wanted))


# a log


@dataclass(frozen=True, slots=True)
class _Whole:
    """One verification of a whole log. own: it is this home's, by its own key."""

    invocation: Invocation
    folder: Path
    reference: str | None
    trust_file: Path | None
    own: bool

    def run(
        self, earlier: Sequence[Path], reports: Sequence[Path], others: Sequence[Path], wanted: Demand | None
    ) -> None:
        """Verify, compare with what was kept elsewhere, and say so."""
        from devguard.evidence.checkpoint import open_checkpoint, origin_of
        from devguard.evidence.verify import claimed_origin, verify_log

        folder = self.folder
        station = station_of(self.invocation, lambda: claimed_origin(folder), self.reference, self.trust_file)
        notes = [note_in(read_text(path)) for path in earlier]
        heads = tuple(open_checkpoint(note, station.key) for note in notes)
        devices = self._devices(origin_of(station.key), reports)
        try:
            visit = None if devices is None else devices.visit
            report = verify_log(folder, station.key, earlier=heads, visit=visit)
        except Refused as error:
            if error.code == "log.missing" and self.own:
                self._remembered(0)
            raise
        if self.own:
            self._remembered(report.records)
        found, covered = self._cosigned(notes, heads, wanted)
        if devices is not None:
            devices.finish(report.checkpoint)
            for other in others:
                devices.add_other(self.invocation, log_in(other), self.trust_file)
            for path in reports:
                devices.check_file(path, self.invocation.now())
        self._tell(station, report, heads, found, covered, wanted, None if devices is None else devices.as_dict())

    def _remembered(self, records: int) -> None:
        """A log that was removed and begun anew is whole in itself: only the station's memory tells."""
        from devguard.cli.memory import peek

        memory = peek(self.invocation.home)
        if memory is not None and memory.records > records:
            raise Refused(
                "log.truncated",
                f"record {records}: the station remembers {memory.records} records or more, it has {records}",
            )

    @staticmethod
    def _cosigned(
        notes: Sequence[bytes], heads: Sequence[Checkpoint], wanted: Demand | None
    ) -> tuple[tuple[Cosignature, ...], int | None]:
        """The cosignatures on the newest of the checkpoints that has enough of them, and how many records it is of."""
        if wanted is None:
            return (), None
        refusal = Refused("log.unwitnessed", "no checkpoint with cosignatures was given", "give one with --earlier")
        for note, head in sorted(zip(notes, heads, strict=True), key=lambda pair: pair[1].size, reverse=True):
            try:
                return wanted.met_by(note), head.size
            except Refused as error:
                if error.code != "log.unwitnessed":
                    raise
                refusal = error
        raise refusal

    def _devices(self, origin: str, reports: Sequence[Path]) -> Devices | None:
        """What devices and technicians signed, to be held against the log; None without a trust document for it."""
        from devguard.cli.evidence_devices import Devices

        # Of another's log the home's own trust document says nothing.
        asked = self.own or self.trust_file is not None or bool(reports)
        trust = documents(self.invocation, self.trust_file) if asked else ()
        if not trust and reports:
            raise Refused("trust.missing", "a device's word is judged by a trust document: --trust")
        return Devices(self.folder, trust, origin) if trust else None

    def _tell(
        self,
        station: Station,
        report: LogReport,
        heads: Sequence[Checkpoint],
        found: Sequence[Cosignature],
        covered: int | None,
        wanted: Demand | None,
        devices: dict[str, Any] | None,
    ) -> None:
        head = report.checkpoint
        data: dict[str, Any] = {
            "ok": True,
            "kind": "log",
            **_head(head),
            "first": None if report.first_time is None else iso(report.first_time),
            "last": None if report.last_time is None else iso(report.last_time),
            "interrupted": report.interrupted,
            "station": station.as_dict(),
            "earlier": [_head(one) for one in heads],
            "witnesses": _witnesses(found, wanted),
            "devices": devices,
        }
        text = f"good: {report.records} records, root {head.root.hex()}, checkpoint by {head.origin}{station.text()}"
        text += "".join(f"\ncontinues the {one.size} records that were kept elsewhere" for one in heads)
        text += _witness_lines(found, wanted)
        if covered is not None and covered < report.records:
            text += f"\nthe {report.records - covered} records after that nobody has cosigned yet"
        if devices is not None and (devices["reports"] or devices["pushes"]):
            signed = [("report", devices["reports"]), ("device", devices["devices"]), ("push", devices["pushes"])]
            reports, by, pushes = (f"{count} {word}{'' if count == 1 else 'es' if word == 'push' else 's'}"
                                   for word, count in signed)  # fmt: skip
            text += f"\nwhat others signed inside it agrees: {reports} by {by}, {pushes} by technicians"
            if devices["by_revoked_keys"]:
                text += f"; {devices['by_revoked_keys']} by keys that were revoked since prove nothing"
        if devices is not None:
            text += "".join(f"\n{line}" for line in devices["files"])
        if report.interrupted:
            text += "\na writer was cut off before its record counted; the next record settles that"
        self.invocation.result(data, text)

"""`devguard evidence export`: the log for other systems, verified before and while it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.evidence_keys import evidence_folder, station_of
from devguard.cli.record import recorded
from devguard.cli.times import Moment, iso

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.evidence.checkpoint import Checkpoint
    from devguard.evidence.incident import Incident
    from devguard.evidence.record import Entry


Write = Callable[[bytes], object]


@click.command("export", cls=Command)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "cef", "ocsf", "html"]),
    required=True,
    help="JSON Lines, ArcSight CEF, or OCSF events, one a line; or a page for people.",
)
@click.option("--syslog", is_flag=True, help="With cef: a syslog header (RFC 5424) before each line.")
@click.option("--since", type=Moment(), help="Only records of this time and later.")
@click.option("--device", metavar="SERIAL", help="With html: of this device.")
@click.option("--release", metavar="RELEASE", help='With html: of this release, "MODEL VERSION" or the version.')
@click.option("--incident", "identifier", metavar="ID", help="With html: of this incident.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write (default: standard output).")
@click.pass_obj
def export(
    invocation: Invocation,
    form: str,
    syslog: bool,
    since: int | None,
    device: str | None,
    release: str | None,
    identifier: str | None,
    out: Path | None,
) -> None:
    """Write the records of this station for another system, in flat memory; on record itself.

    The log is verified first, and what is written is compared with it: a damaged one exports nothing. File names,
    reasons and whatever else people typed stay here; every line has the leaf hash that a proof shows the record by.
    """
    from importlib.metadata import version

    from devguard.evidence.export import LINES, Source, syslog_line
    from devguard.evidence.verify import verify_log

    if syslog and form != "cef":
        raise click.UsageError("--syslog goes with --format cef")
    if out is None and invocation.json:
        raise click.UsageError("--json prints one object: the export goes to a file, -o FILE")
    about = [one for one in (device, release, identifier) if one is not None]
    if len(about) > 1 or (about and form != "html"):
        raise click.UsageError("one of --device, --release and --incident goes with --format html")
    folder = evidence_folder(invocation)
    with recorded(invocation, "evidence.export") as note:
        station = station_of(invocation, lambda: "", None, None)
        head = verify_log(folder, station.key).checkpoint
        note.details |= {"format": form, "records": str(head.size)}
        if since is not None:
            note.details["since"] = iso(since)
        note.commit()
    if form == "html":
        _page(invocation, station.key, head, Wanted(device, release, identifier, since), out)
        return
    line = syslog_line if syslog else LINES[form]
    source, poured = Source(head.origin, version("devguard")), _Count()

    def fill(write: Write) -> None:
        for entry in verified(folder, head):
            if since is None or entry.record.time >= since:
                poured.lines += 1
                write(line(entry, source).encode() + b"\n")

    written(out, fill)
    if out is not None:
        data: dict[str, Any] = {"file": str(out), "format": form, "lines": poured.lines, "records": head.size}
        text = f"{out}: {poured.lines} of {head.size} records, the log verified"
        invocation.result({**data, "origin": head.origin, "root": head.root.hex()}, text)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records a page is of; None: whatever it is."""

    device: str | None
    release: str | None
    incident: str | None
    since: int | None

    @property
    def subject(self) -> str:
        """In words."""
        named = (("Device", self.device), ("Release", self.release), ("Incident", self.incident))
        return next((f"{what} {name}" for what, name in named if name is not None), "This station")

    def has(self, entry: Entry, incident: Incident | None) -> bool:
        """Whether a record belongs on it."""
        record = entry.record
        if self.since is not None and record.time < self.since:
            return False
        if incident is not None:
            return entry.index in incident.records or entry.index in incident.own
        if self.release is not None:
            return record.release is not None and self.release in (record.release, record.release.rpartition(" ")[2])
        return self.device is None or self.device == record.device


def _page(invocation: Invocation, key: CoseKey, head: Checkpoint, wanted: Wanted, out: Path | None) -> None:
    """One page of the newest records that are wanted, each with its proof."""
    from collections import deque

    from devguard.cli.incident import incident_of
    from devguard.cli.incidents import all_incidents
    from devguard.evidence.page import MOST, Report, page
    from devguard.evidence.prove import prove_records

    folder = evidence_folder(invocation)
    one = None if wanted.incident is None else incident_of(invocation, wanted.incident)
    found: deque[Entry] = deque(maxlen=MOST)
    total = 0
    for entry in verified(folder, head):
        if wanted.has(entry, one):
            found.append(entry)
            total += 1
    indexes = {entry.index for entry in found}
    incidents = [each for each in all_incidents(folder).values() if indexes & {*each.own, *each.records}]
    proofs = prove_records(folder, key, sorted(indexes)) if found else ()
    incidents = incidents if one is None else [one]
    report = Report(
        wanted.subject, head.origin, tuple(found), proofs, incidents, invocation.now(), left_off=total - len(found)
    )
    text = page(report).encode()
    written(out, lambda write: write(text))
    if out is not None:
        data = {"file": str(out), "format": "html", "lines": len(found), "records": head.size, "origin": head.origin}
        said = f"{out}: {wanted.subject}, {len(found)} records with their proofs, the log verified"
        invocation.result({**data, "root": head.root.hex()}, said)


class _Count:
    lines = 0


def verified(folder: Path, head: Checkpoint) -> Iterator[Entry]:
    """The records under a head that was verified; the end comes only when they are those it is over.

    Raises `log.tampered` when the files were changed in the meantime.
    """
    from devguard.evidence.frame import Broken
    from devguard.evidence.log import read_entries
    from devguard.evidence.record import encode_entry
    from devguard.evidence.tree import Frontier, leaf_hash

    frontier = Frontier()
    for entry in read_entries(folder, head.size):
        frontier.append(leaf_hash(encode_entry(entry)))
        yield entry
    if frontier.root() != head.root:
        raise Broken("log.tampered", max(head.size - 1, 0), "the log was changed while it was read")


def written(out: Path | None, fill: Callable[[Write], object]) -> None:
    """Fill a file, whole or not at all; or standard output, as it comes."""
    from devguard.custody.files import write_streamed

    def pour(file: BinaryIO) -> None:
        fill(file.write)

    if out is not None:
        write_streamed(out, pour)
        return
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    # A program that runs this in itself may have put a stream of text alone there.
    fill(buffer.write if buffer is not None else lambda data: sys.stdout.write(data.decode()))
    sys.stdout.flush()

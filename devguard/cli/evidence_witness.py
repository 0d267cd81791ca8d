"""`devguard evidence witness|compare`: what others have seen of a log, and whether they were all shown the same.

A witness keeps, for each log it has cosigned, the newest checkpoint it has seen: `witness/NAME.checkpoint` in its home.
A head that contradicts it is kept beside it, `NAME.split`: both signed notes are the proof.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.evidence_keys import (
    Station,
    log_in,
    note_in,
    origin_in,
    read_text,
    station_of,
    trust_option,
    written,
)
from devguard.cli.record import Note, recorded
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.evidence.checkpoint import Checkpoint
    from devguard.evidence.proof import ConsistencyProof


@click.command("witness", cls=Command)
@click.argument("source", metavar="CHECKPOINT|PROOF|FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--key", "signer", required=True, metavar="KEY", help="The witness's own key, of role witness or station."
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The cosigned checkpoint.")
@click.option("--station", "reference", metavar="KEY", help="The public export of the station whose log it is.")
@trust_option
@passphrase_option
@click.pass_obj
def witness(
    invocation: Invocation,
    source: Path,
    signer: str,
    out: Path,
    reference: str | None,
    trust_file: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Cosign the head of a station's log, after comparing it with what this witness has seen of that log before.

    A checkpoint of a log that has grown needs its proof (`evidence prove --since` what was cosigned last), or the log.
    """
    if reference is None and trust_file is None:
        raise click.UsageError("--station or --trust says whose log it is")
    with recorded(invocation, "evidence.witness", only_where_kept=True) as note:
        key = invocation.signer(signer, passphrase_fd)
        if key.info.role not in ("witness", "station"):
            raise Refused("key.purpose", f"a key of role {key.info.role} cosigns no checkpoint")
        shown = _Shown.read(invocation, source, reference, trust_file)
        note.actor = key.info.person
        note.details.update(origin=shown.head.origin, records=str(shown.head.size), root=shown.head.root.hex())
        seen, cosigned = _cosigned(invocation, note, shown, key)
        written(out, cosigned)
    head = shown.head
    data = {
        "origin": head.origin,
        "records": head.size,
        "root": head.root.hex(),
        "seen_before": None if seen is None else seen.size,
        "file": str(out),
        "station": shown.station.as_dict(),
    }
    before = "seen for the first time" if seen is None else f"continues the {seen.size} records seen before"
    invocation.result(data, f"{out}: {head.size} records of {head.origin}, {before}; cosigned by {key.info.person}")


class _Shown:
    """What a witness is shown: a head, and what proves that it continues an older one."""

    def __init__(self, station: Station, note: bytes, head: Checkpoint) -> None:
        self.station = station
        self.note = note
        self.head = head
        self.folder: Path | None = None
        self.proof: ConsistencyProof | None = None

    @classmethod
    def read(cls, invocation: Invocation, source: Path, reference: str | None, trust_file: Path | None) -> _Shown:
        """From a folder, which is verified whole, a proof or a checkpoint."""
        from devguard.evidence.checkpoint import open_checkpoint
        from devguard.evidence.proof import ConsistencyProof, is_proof, read_proof
        from devguard.evidence.verify import claimed_origin, verify_log

        if source.is_dir():
            folder = log_in(source)
            station = station_of(invocation, lambda: claimed_origin(folder), reference, trust_file)
            report = verify_log(folder, station.key)
            shown = cls(station, report.note, report.checkpoint)
            shown.folder = folder
            return shown
        data = read_text(source)
        note = note_in(data)
        station = station_of(invocation, lambda: origin_in(note), reference, trust_file)
        shown = cls(station, note, open_checkpoint(note, station.key))
        proof = read_proof(data) if is_proof(data) else None
        if isinstance(proof, ConsistencyProof):
            proof.verify(station.key)
            shown.proof = proof
        return shown

    def continues(self, seen: Checkpoint) -> None:
        """Return when it is proven that the log of `seen` became this one; `log.unproven` where nothing says so."""
        from devguard.evidence.checkpoint import open_checkpoint
        from devguard.evidence.prove import root_at
        from devguard.evidence.witness import split

        if self.folder is not None:
            root = root_at(self.folder, seen.size)
        elif self.proof is not None:
            older = open_checkpoint(self.proof.older, self.station.key)
            if older.size != seen.size:
                raise Refused("log.unproven", f"the proof begins at {older.size} records, this witness saw {seen.size}")
            root = older.root
        else:
            raise Refused(
                "log.unproven", f"a checkpoint of {self.head.size} records after one of {seen.size}, unproven"
            )
        if root != seen.root:
            raise split(seen, type(seen)(seen.origin, seen.size, root))


def _cosigned(invocation: Invocation, note: Note, shown: _Shown, key: Any) -> tuple[Checkpoint | None, bytes]:
    """(what was seen before, the cosigned note); what was seen is kept before the cosignature leaves this process."""
    from devguard.custody.files import read_limited, write_atomic
    from devguard.custody.locks import locked
    from devguard.evidence.checkpoint import MAX_NOTE, open_checkpoint
    from devguard.evidence.cosign import cosign
    from devguard.evidence.witness import check_seen

    folder = invocation.home.make(invocation.home.path / "witness")
    kept = folder / f"{hashlib.sha256(shown.head.origin.encode()).hexdigest()[:32]}.checkpoint"
    with locked(kept):
        old = read_limited(kept, MAX_NOTE) if kept.exists() else None
        seen = None if old is None else open_checkpoint(old, shown.station.key)
        try:
            if check_seen(seen, shown.head) and seen is not None:
                shown.continues(seen)
        except Refused as error:
            if error.code in ("log.tampered", "log.truncated"):
                split = kept.with_suffix(".split")
                write_atomic(split, (old or b"") + b"\n" + shown.note)
                note.details.update(why=error.message, proof=str(split))
                note.commit(error.code)  # of another's log: this one's own is not meant
                raise Refused(error.code, f"{error.message}; both are kept in {split}") from None
            raise
        cosigned = cosign(shown.note, key, invocation.now())
        write_atomic(kept, cosigned)
    return seen, cosigned


@click.command("compare", cls=Command)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option("--key", "reference", metavar="KEY", help="The public export of the station whose log it is.")
@click.option("--proof", type=click.Path(path_type=Path), help="A proof of consistency that links the two.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to keep the proof of a split view in.")
@trust_option
@click.pass_obj
def compare(
    invocation: Invocation,
    first: Path,
    second: Path,
    reference: str | None,
    proof: Path | None,
    out: Path | None,
    trust_file: Path | None,
) -> None:
    """Compare two checkpoints, proofs or logs: were both holders shown one history, and one release by each name?

    Works offline, from two files on a stick. Of two heads of different sizes, a log or a proof of consistency tells
    whether one continues the other. Two logs of different stations are compared by the releases they name.
    """
    from devguard.cli.evidence_compare import Comparison

    done = Comparison(invocation, reference, trust_file, out).run(first, second, proof)
    invocation.result(done.data, done.text)

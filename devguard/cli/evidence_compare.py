"""Comparing what two people were shown: heads of one log, or the releases that two logs name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devguard.cli.context import Invocation
from devguard.cli.evidence_keys import Station, log_in, note_in, origin_in, read_text, station_of
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.evidence.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: its signed note and head, and the log where that is at hand."""

    name: str
    station: Station
    note: bytes
    head: Checkpoint
    folder: Path | None


@dataclass(slots=True)
class Comparison:
    """One comparison and what came of it."""

    invocation: Invocation
    reference: str | None
    trust_file: Path | None
    out: Path | None
    data: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def run(self, first: Path, second: Path, proof: Path | None) -> Comparison:
        """Raises `Refused` where the two contradict each other, the proof of that kept in the folder asked for."""
        one, other = self._side(first, "a"), self._side(second, "b")
        if one.head.origin == other.head.origin:
            small, large = sorted((one, other), key=lambda side: side.head.size)
            self._heads(small, large, proof)
        elif one.folder is not None and other.folder is not None:
            self._releases(one, other, one.folder, other.folder)
        else:
            raise Refused(
                "log.unproven",
                f"heads of two logs, {one.head.origin} and {other.head.origin}",
                "give both logs: they are compared by the releases they name",
            )
        return self

    def _side(self, path: Path, name: str) -> Side:
        from devguard.evidence.checkpoint import open_checkpoint
        from devguard.evidence.proof import is_proof, read_proof
        from devguard.evidence.verify import claimed_origin, verify_log

        if path.is_dir():
            folder = log_in(path)
            station = self._station(path, lambda: claimed_origin(folder))
            report = verify_log(folder, station.key)
            return Side(name, station, report.note, report.checkpoint, folder)
        data = read_text(path)
        note = note_in(data)
        station = self._station(path, lambda: origin_in(note))
        if is_proof(data):
            read_proof(data).verify(station.key)
        return Side(name, station, note, open_checkpoint(note, station.key), None)

    def _station(self, path: Path, origin: Any) -> Station:
        """By --key or --trust; the log of a home also by the public half of that home's own station key."""
        if self.reference is None and self.trust_file is None and path.is_dir():
            from devguard.cli.home import Home
            from devguard.custody.keyfile import read_info

            public = Home(path).station_public()
            if public.is_file():
                return Station(read_info(public).key)
        return station_of(self.invocation, origin, self.reference, self.trust_file)

    def _heads(self, small: Side, large: Side, proof: Path | None) -> None:
        from devguard.evidence.witness import Link, compare, split

        try:
            if compare(small.head, large.head) is Link.UNPROVEN:
                root = self._root(small, large, proof)
                if root != small.head.root:
                    raise split(small.head, type(small.head)(small.head.origin, small.head.size, root))
        except Refused as error:
            if error.code == "log.tampered":
                self._keep(error, {"a.checkpoint": small.note, "b.checkpoint": large.note})
            raise
        sizes = [small.head.size, large.head.size]
        self.data = {"ok": True, "kind": "heads", "origin": small.head.origin, "records": sizes}
        same = f"both are heads of {sizes[0]} records with root {small.head.root.hex()}"
        self.text = "one history: " + (
            same if sizes[0] == sizes[1] else f"the {sizes[1]} records continue the {sizes[0]}"
        )

    def _root(self, small: Side, large: Side, proof: Path | None) -> bytes:
        """The root over as many records of the larger log as the smaller head is of."""
        from devguard.evidence.proof import ConsistencyProof, is_proof, read_proof
        from devguard.evidence.prove import root_at

        if large.folder is not None:
            return root_at(large.folder, small.head.size)
        if proof is None:
            raise Refused(
                "log.unproven", f"heads of {small.head.size} and {large.head.size} records, and nothing that links them"
            )
        data = read_text(proof)
        given = read_proof(data) if is_proof(data) else None
        if not isinstance(given, ConsistencyProof):
            raise Refused("log.unproven", f"{proof} is no proof of consistency")
        older, newer = given.verify(large.station.key)
        if (newer.size, newer.root) != (large.head.size, large.head.root) or older.size != small.head.size:
            raise Refused("log.unproven", f"{proof} links heads of {older.size} and {newer.size} records, not these")
        return older.root

    def _releases(self, one: Side, other: Side, first: Path, second: Path) -> None:
        """One name, two releases: somebody signed two things under one version, and showed each to one hospital."""
        mine, theirs = _named(first, one.head.size), _named(second, other.head.size)
        for release in sorted(mine.keys() & theirs.keys()):
            differing = set(mine[release]) ^ set(theirs[release])
            if not differing:
                continue
            kept = {}
            for side, folder, found in ((one, first, mine), (other, second, theirs)):
                from devguard.evidence.prove import prove_records

                index = next((at for digest, at in found[release].items() if digest in differing), None)
                index = index if index is not None else next(iter(found[release].values()))
                kept[f"{side.name}.tlog-proof"] = prove_records(folder, side.station.key, (index,))[0].encode()
            digests = " and ".join(sorted(digest.hex() for digest in {*mine[release], *theirs[release]}))
            error = Refused("release.equivocation", f"two releases are called {release}: manifests {digests}")
            self._keep(error, kept)
            raise error
        shared = sorted(mine.keys() & theirs.keys())
        origins = [one.head.origin, other.head.origin]
        self.data = {"ok": True, "kind": "releases", "origins": origins, "releases": shared}
        self.text = (
            f"logs of {' and '.join(origins)}: of {len(shared)} releases that both name, each is one and the same"
        )

    def _keep(self, error: Refused, files: dict[str, bytes]) -> None:
        if self.out is None:
            return
        from devguard.cli.evidence_keys import written

        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise Refused("file.unreadable", f"cannot create {self.out}: {fault.strerror}") from fault
        for name, data in files.items():
            written(self.out / name, data)
        error.hint = f"the proof, both signed statements, is in {self.out}; call the security officer"


def _named(folder: Path, size: int) -> dict[str, dict[bytes, int]]:
    """The manifest digests a log accepted under each name of a release, with the first record that did."""
    from devguard.evidence.log import read_entries
    from devguard.evidence.record import DigestOf

    found: dict[str, dict[bytes, int]] = {}
    for entry in read_entries(folder, size):
        record = entry.record
        digest = record.digests.get(DigestOf.MANIFEST)
        if record.ok and record.release is not None and digest is not None:
            found.setdefault(record.release, {}).setdefault(digest, entry.index)
    return found

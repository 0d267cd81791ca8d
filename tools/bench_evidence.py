"""The evidence log: what an append costs beside the bare fsync, and a million records verified. Part of `make bench`.

The bare cost is that of writing as many bytes to the end of a file and waiting for the disk, in the same folder and in
turns with the appends. The large log is made with the product's own records, seals and signatures, without
waiting for the disk after each; one record in a hundred carries a device's report. Everything is made for the run in a
temporary folder and deleted after it. An aim that is not met is printed, never an error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.evidence.checkpoint import Checkpoint, origin_of, sign_checkpoint
from devguard.evidence.frame import LEAD, SEGMENT_SIZE, encode_header, frame, segment_name
from devguard.evidence.heads import Head, encode_lead
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import DigestOf, Entry, Record, Statement, encode_entry, encode_record, seal_text
from devguard.evidence.tree import Frontier, leaf_hash

STATION = MemorySigner.from_seed(Algorithm.ED25519, b"a station that is measured".ljust(32, b"."))
SMALL, LARGE, APPENDS = 10_000, 1_000_000, 200
RATIO_AIM, SECONDS_AIM, MEMORY_AIM = 2.0, 60.0, 5.0
VERIFY = """
import resource, sys, time
from pathlib import Path
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.evidence.verify import verify_log
station = MemorySigner.from_seed(Algorithm.ED25519, b"a station that is measured".ljust(32, b"."))
begun = time.perf_counter()
report = verify_log(Path(sys.argv[1]), station.key)
taken = time.perf_counter() - begun
print(report.records, taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def record(number: int) -> Record:
    """One that looks like a verdict; one in a hundred like the end of a push."""
    pushed = number % 100 == 99
    return Record(
        time=1_700_000_000 + number * 20,
        actor="Tess Technician",
        action="release.push" if pushed else "release.verify",
        request=f"{number:016x}",
        device=f"IP-{number % 500:04}" if pushed else None,
        release="insulin-pump 1.1.0",
        digests={DigestOf.MANIFEST: number.to_bytes(32, "big")},
        details={"file": "pump-1.1.0.suit"},
        statements={Statement.REPORT: bytes(620), Statement.CREDENTIAL: bytes(330)} if pushed else {},
    )


def append_ratio(folder: Path) -> tuple[float, float]:
    """Median seconds of an append and of the bare write and fsync, taken in turns."""
    log = EvidenceLog.open(folder / "appended", STATION)
    bare = os.open(folder / "bare", os.O_CREAT | os.O_WRONLY, 0o600)
    size, at = len(encode_record(record(0))) + 90, 0
    ours, theirs = [], []
    for number in range(APPENDS):
        one = record(number)
        begun = time.perf_counter()
        log.append(one)
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        os.pwrite(bare, bytes(size), at)
        os.fsync(bare)
        theirs.append(time.perf_counter() - begun)
        at += size
    os.close(bare)
    return statistics.median(ours), statistics.median(theirs)


class Maker:
    """Writes a log as `EvidenceLog` would, without waiting for the disk after each record."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.origin = folder, origin_of(STATION.key)
        self.frontier, self.latest, self.number, self.parts, self.size = Frontier(), 0, 0, [b""], 0
        self.begin()

    def head(self) -> Head:
        """The signed head over what was added."""
        checkpoint = Checkpoint(self.origin, self.frontier.size, self.frontier.root())
        return Head(sign_checkpoint(checkpoint, STATION), checkpoint)

    def begin(self) -> None:
        """The next segment."""
        self.number += 1
        self.header = encode_header(self.number, self.frontier, self.latest)
        self.parts, self.size = [], 0

    def add(self, one: Record) -> None:
        """One record more."""
        body = encode_record(one)
        seal = STATION.sign(seal_text(self.origin, self.frontier.size, self.frontier.root(), body))
        leaf = encode_entry(Entry(self.frontier.size, seal, body))
        data = frame(leaf)
        if self.size + len(data) > SEGMENT_SIZE:
            self.end(last=False)
            self.begin()
        self.parts.append(data)
        self.size += len(data)
        self.frontier.append(leaf_hash(leaf))
        self.latest = one.time

    def end(self, *, last: bool = True) -> None:
        """Write the segment; the last one carries the head."""
        lead = encode_lead(self.header, self.head()) if last else self.header.ljust(LEAD, b"\x00")
        (self.folder / segment_name(self.number)).write_bytes(lead + b"".join(self.parts))


def make(folder: Path, count: int) -> Path:
    """A log of `count` records."""
    maker = Maker(folder)
    for number in range(count):
        maker.add(record(number))
    maker.end()
    return folder


def verified(folder: Path, count: int) -> tuple[float, float]:
    """(seconds, peak MiB) of a fresh process that verifies the log."""
    done = subprocess.run([sys.executable, "-c", VERIFY, str(folder)], capture_output=True, text=True, check=True)
    records, seconds, peak = done.stdout.split()
    if int(records) != count:
        raise SystemExit(f"{records} records verified, {count} were made")
    return float(seconds), float(peak) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(folder: Path, count: int = LARGE) -> dict[str, float | int]:
    """All figures; `folder` has room for a third of a KiB a record."""
    ours, bare = append_ratio(folder)
    begun = time.perf_counter()
    small, large = make(folder / "small", SMALL), make(folder / "large", count)
    made = time.perf_counter() - begun
    _, small_peak = verified(small, SMALL)
    seconds, large_peak = verified(large, count)
    begun = time.perf_counter()
    log = EvidenceLog.open(large, STATION)
    opened = time.perf_counter() - begun
    log.append(Record(time=log.latest, actor="a", action="b", request="c"))
    return {
        "append_ms": round(ours * 1e3, 3),
        "bare_fsync_ms": round(bare * 1e3, 3),
        "append_ratio": round(ours / bare, 3),
        "records": count,
        "bytes": sum(path.stat().st_size for path in large.iterdir()),
        "made_seconds": round(made, 1),
        "verify_seconds": round(seconds, 2),
        "open_seconds": round(opened, 3),
        "peak_mib_10k": round(small_peak, 1),
        "peak_mib": round(large_peak, 1),
    }


def figures(found: dict[str, float | int]) -> list[tuple[str, str, str, str, str, bool]]:
    """(what, ours, theirs, outcome, aim, met) of each figure."""
    more = found["peak_mib"] - found["peak_mib_10k"]
    count = f"{found['records']:,} records".replace(",", " ")
    return [
        (
            "append to the evidence log",
            f"{found['append_ms']} ms",
            f"bare fsync {found['bare_fsync_ms']} ms",
            f"{found['append_ratio']:.2f} x",
            f"under {RATIO_AIM:.0f} x",
            found["append_ratio"] < RATIO_AIM,
        ),
        (
            f"evidence verify, {count}",
            f"{found['verify_seconds']} s",
            "",
            f"{found['verify_seconds'] / found['records'] * 1e6:.1f} us each",
            f"under {SECONDS_AIM:.0f} s",
            found["verify_seconds"] < SECONDS_AIM,
        ),
        (
            "its peak memory",
            f"{found['peak_mib']} MiB",
            f"10 000: {found['peak_mib_10k']} MiB",
            f"{more:+.1f} MiB",
            f"within {MEMORY_AIM:.0f} MiB",
            more <= MEMORY_AIM,
        ),
    ]


def rows(count: int = LARGE) -> list[tuple[str, str, str, str, str, bool]]:
    """The rows of `make bench`."""
    with tempfile.TemporaryDirectory(prefix="devguard-evidence-") as folder:
        return figures(measure(Path(folder), count))


def main() -> None:
    """Measure and print; `--json` for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=LARGE)
    parser.add_argument("--folder", type=Path, help="where to make the logs (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="devguard-evidence-") as folder:
        found = measure(Path(folder), asked.records)
    if asked.json:
        print(json.dumps(found))
        return
    for what, ours, theirs, outcome, aim, met in figures(found):
        print(f"{what:36} {ours:>14} {theirs:>24} {outcome:>12}  {aim:14} {'aim met' if met else 'aim NOT met'}")
    print(f"opening it: {found['open_seconds']} s; made in {found['made_seconds']} s, {found['bytes']} bytes")


if __name__ == "__main__":
    main()

"""devguard against lrzsz (ZMODEM, YMODEM, XMODEM-1K) and smpclient, over the same paced line in real time.

`rows()` is what `tools/bench.py` calls: (what, ours, theirs, outcome, aim, met). Every program moves the same image
over a line of the same speed, latency and seed of damage, between two pseudo-terminals. What is compared is the whole
run, from start to end: for lrzsz both programs and their fixed waits, for smpclient connect and upload (not its
imports), for devguard hello, key exchange, offer with post-quantum signatures, data and commit, all sealed, to a device
that judges all of it. A peer that does not finish, or whose bytes differ, has used 0 of the line. Each figure is the
mean of some rounds, each with damage in other places: how far ZMODEM gets with bit errors is a matter of luck.

Real time wants a machine that has time. Where it may, the bench takes a real-time priority for all processes alike.
The line says how long its bytes were late; where that is more than a hundredth of a run, the run is void and made
again, and a figure without one good run is no figure. lrzsz waits for ever for a pseudo-terminal to drain and throws
away what it flushes there, so those two calls are made to do nothing by a few lines of C that are compiled for the
run; a pseudo-terminal also buffers 8 KiB where a serial port has 4.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peer_smp
from peer_smp import SmpServer

IMAGE = 256 << 10
LATENCY = 0.002
ROUNDS = 3  # their seeds are 1, 2, ...
TRIES = 3  # of a round whose line was late
PATIENCE = 14  # times the ideal time, before a run counts as failed
SHIM = "int tcflush(int fd, int queue) { return fd & queue & 0; }\nint tcdrain(int fd) { return fd & 0; }\n"
# receiver and sender; XMODEM sends no name, so its receiver is told one
LRZSZ = {
    "ZMODEM": (["rz", "-b", "-q", "-y"], ["sz", "-b", "-q"]),
    "YMODEM": (["rb", "-b", "-q", "-y"], ["sb", "-b", "-q", "-k"]),
    "XMODEM-1K": (["rx", "-b", "-q", "-c", "image.bin"], ["sx", "-b", "-q", "-k"]),
}
SMP = "SMP (smpclient)"
QUICK = ("ZMODEM", SMP)
Row = tuple[str, str, str, str, str, bool | None]


@dataclass(frozen=True)
class Kind:
    """What is wrong with the line, and what devguard has to reach against a peer there: theirs times `factor`."""

    name: str
    damage: dict[str, float]
    factor: float


LEVEL = 0.98  # of theirs: 5.6 KB of keys, papers and signatures that no peer sends are 2 % of this image
KINDS = (
    Kind("clean", {}, LEVEL),
    Kind("bit errors 1e-5", {"ber": 1e-5}, 1.8),
    Kind("dropped 1e-5", {"drop": 1e-5}, 1.0),
)


@dataclass(frozen=True)
class Run:
    """One program's share of the line; 0 and why, where it failed; less where it cannot be measured. `late`: the share
    of its time in which the line was late with some byte. `data`: the share of the data phase, where that is known."""

    share: float
    note: str = ""
    late: float = 0.0
    data: float = 0.0

    @property
    def void(self) -> bool:
        """Whether this says more about the machine."""
        from devguard.bench.link_run import VOID_SHARE

        return self.late > VOID_SHARE


@dataclass(frozen=True)
class Road:
    """Where a run takes place: what is moved, the line's shape, a folder to work in, where the damage falls."""

    image: bytes
    shape: Any
    folder: Path
    shim: Path | None
    seed: int = 1

    @property
    def ideal(self) -> float:
        return len(self.image) * self.shape.byte_time


def rows(*, quick: bool = False, rounds: int = ROUNDS, latency: float = LATENCY) -> Iterator[Row]:
    """The table, row by row: at each speed and each kind of damage, devguard against each peer."""
    with tempfile.TemporaryDirectory(prefix="devguard-peers-") as name, priority() as urgent:
        folder = Path(name)
        shim = build_shim(folder)
        rounds = 1 if quick else rounds
        word = "with" if urgent else "WITHOUT"
        print(f"links in real time, {word} real-time priority, means of {rounds}; {load()}", file=sys.stderr)
        for baud in (921_600,) if quick else (115_200, 921_600):
            for kind in KINDS:
                road = Road(image(), shape(baud, latency, kind), folder, shim)
                yield from compare(road, kind, QUICK if quick else (*LRZSZ, SMP), rounds)
        print(load(), file=sys.stderr)


def load() -> str:
    """How busy this machine is."""
    return f"load of this machine: {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


def image() -> bytes:
    """The image that devguard's bench pushes."""
    from devguard.bench.stage import build
    from devguard.device.models import load_model

    return build(load_model("insulin-pump").facts, IMAGE, "1.1.0", 1, 1).image


def shape(baud: int, latency: float, kind: Kind) -> Any:
    """The line that a kind of damage is done on."""
    from devguard.bench.impair import Damage
    from devguard.bench.way import Shape

    return Shape(baud, latency, damage=Damage(**kind.damage))


def compare(road: Road, kind: Kind, names: Iterable[str], rounds: int) -> list[Row]:
    """devguard and these programs on one kind of line. At 115200 baud they run beside each other, each on a line of its
    own: lines that slow leave a processor idle."""
    everyone = ("devguard", *names)
    found: dict[str, list[Run]] = {name: [] for name in everyone}
    for seed in range(1, rounds + 1):
        here = replace(road, seed=seed)
        with ThreadPoolExecutor(8 if road.shape.baud <= 115_200 else 1) as pool:
            for name, run in zip(everyone, pool.map(lambda name: paced(here, name), everyone), strict=True):  # noqa: B023
                found[name].append(run)
    mine, *theirs = (together(found[name]) for name in everyone)
    return [row(road.shape.baud, kind, mine, name, run) for name, run in zip(names, theirs, strict=True)]


def paced(road: Road, name: str) -> Run:
    """One round of one program; made again where the line was late."""
    for _ in range(TRIES - 1):
        if not (run := measure(road, name)).void:
            return run
    return measure(road, name)


def measure(road: Road, name: str) -> Run:
    """One program on a line of its own."""
    return ours(road) if name == "devguard" else smp(road) if name == SMP else lrzsz(road, name)


def together(runs: Sequence[Run]) -> Run:
    """The mean of the runs that are not void; a note with how many it was true of."""
    good = [run for run in runs if not run.void]
    if not good:
        return Run(-1.0, "void, this machine has no time for the line")
    failed = [run.note for run in good if not run.share]
    some = f"{failed[0]}, {len(failed)} of {len(good)}" if failed else ""
    data = [run.data for run in good if run.data]
    return Run(statistics.mean(run.share for run in good), some, data=statistics.mean(data) if data else 0.0)


def row(baud: int, kind: Kind, mine: Run, name: str, run: Run) -> Row:
    """devguard against one peer."""
    what, aim = f"line, {baud}, {kind.name}", f">= {kind.factor:g} of theirs"
    own = f"{mine.share:.3f} (data {mine.data:.3f})" + (f" ({mine.note})" if mine.note else "")
    if mine.share < 0:
        return (what, mine.note, name, "", aim, None)
    if run.share < 0:
        return (what, own, f"{name}: {run.note}", "", aim, None)
    theirs = f"{name} {run.share:.3f}" + (f" ({run.note})" if run.note else "")
    ratio = f"{mine.share / run.share:.2f}" if run.share else "they fail"
    return (what, own, theirs, ratio, aim, mine.share > 0 and mine.share >= kind.factor * run.share)


@contextlib.contextmanager
def priority() -> Iterator[bool]:
    """Let every process of the bench run when it wants to; whether the system allows it."""
    from devguard.bench.pty_line import punctual

    if not hasattr(os, "sched_setscheduler"):
        yield False
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    punctual()
    try:
        yield os.sched_getscheduler(0) == os.SCHED_RR
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, *before)


def ours(road: Road) -> Run:
    """A push to an emulated pump, whole; the share of the data phase is said beside it."""
    from devguard.bench.link_run import Trial
    from devguard.bench.pty_run import run_real
    from devguard.device.models import load_model
    from devguard.errors import DevguardError

    try:
        figures = run_real(Trial(load_model("insulin-pump"), len(road.image), road.shape, road.seed))
    except DevguardError as error:
        return Run(0.0, error.code)
    late = figures.late_seconds / figures.session_seconds
    return Run(figures.session_efficiency, "", late, figures.line_efficiency)


# lrzsz


def build_shim(folder: Path) -> Path | None:
    """The two calls that do nothing, compiled; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source, shim = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    done = subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source], capture_output=True, check=False)
    return shim if done.returncode == 0 else None


def lrzsz_missing(shim: Path | None) -> str | None:
    """Why lrzsz cannot be measured here; None: it can."""
    if any(shutil.which(side[0]) is None for pair in LRZSZ.values() for side in pair):
        return "lrzsz is not installed (Debian: apt-get install lrzsz)"
    return None if shim is not None else "there is no C compiler for lrzsz's shim"


def lrzsz(road: Road, name: str) -> Run:
    """One protocol of lrzsz: the receiver at the far end, the sender at the near one, until both are done."""
    from devguard.bench.pty_line import LineProcess

    if (why := lrzsz_missing(road.shim)) is not None:
        return Run(-1.0, why)
    receive, send = LRZSZ[name]
    with tempfile.TemporaryDirectory(dir=road.folder) as place, LineProcess(road.shape, road.seed) as line:
        sent, got = Path(place) / "sent" / "image.bin", Path(place) / "image.bin"
        sent.parent.mkdir()
        sent.write_bytes(road.image)
        began = time.monotonic()
        with (
            on_port(line.far, receive, road, place) as far,
            on_port(line.near, [*send, str(sent)], road, place) as near,
        ):
            states = [wait(process, began + PATIENCE * road.ideal + 10) for process in (near, far)]
            took = time.monotonic() - began
        late = line.late() / took
        if states != [0, 0]:
            return Run(0.0, "gave up" if None not in states else "not done in time", late)
        if not got.is_file() or got.read_bytes() != road.image:
            return Run(0.0, "damaged", late)
    return Run(road.ideal / took, late=late)


@contextlib.contextmanager
def on_port(port: str, command: list[str], road: Road, place: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has a port as its standard input and output."""
    descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)
    env = {**os.environ, "LD_PRELOAD": str(road.shim)}
    process = subprocess.Popen(
        command, stdin=descriptor, stdout=descriptor, stderr=subprocess.DEVNULL, cwd=place, env=env
    )
    os.close(descriptor)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait(process: subprocess.Popen[bytes], end: float) -> int | None:
    """How a process ended; None when it did not in time."""
    try:
        return process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


# SMP


def smp(road: Road) -> Run:
    """An upload by smpclient, in a process of its own, to a server here."""
    from devguard.bench.pty_line import LineProcess

    if importlib.util.find_spec("smpclient") is None:
        return Run(-1.0, "smpclient is not installed")
    with tempfile.TemporaryDirectory(dir=road.folder) as place, LineProcess(road.shape, road.seed) as line:
        path = Path(place) / "image.bin"
        path.write_bytes(road.image)
        server = SmpServer(line.far)
        command = [sys.executable, peer_smp.__file__, line.near, str(road.shape.baud), str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE * road.ideal + 60, check=False
            )
        except subprocess.TimeoutExpired:
            return Run(0.0, "not done in time")
        finally:
            server.close()
        if done.returncode:
            return Run(0.0, "gave up")
        if bytes(server.image) != road.image:
            return Run(0.0, "damaged")
        took = float(done.stdout)
        return Run(road.ideal / took, late=line.late() / took)


def main() -> int:
    """Print the table; 0 whatever it says."""
    parser = argparse.ArgumentParser(description="devguard against lrzsz and smpclient on one line")
    parser.add_argument("--quick", action="store_true", help="921600 baud, ZMODEM and SMP only, one round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs behind each figure")
    parser.add_argument("--latency-ms", type=float, default=LATENCY * 1000, help="one way")
    arguments = parser.parse_args()
    for one in rows(quick=arguments.quick, rounds=arguments.rounds, latency=arguments.latency_ms / 1000):
        print(*one, sep="  ", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

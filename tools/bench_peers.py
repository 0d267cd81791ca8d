"""devguard against lrzsz (ZMODEM, YMODEM, XMODEM-1K) and smpclient, over the same paced line in real time.

`rows()` is what `tools/bench.py` calls: (what, ours, theirs, outcome, aim, met). Every program moves the same image
over a line of the same speed, latency and seed of damage, between two pseudo-terminals. What is compared is the whole
run, from start to end: for lrzsz both programs and their fixed waits, for smpclient connect and upload (not its
imports), for devguard hello, key exchange, offer with post-quantum signatures, data and commit, all sealed, to a device
that judges all of it. A peer that does not finish, or whose bytes differ, has used 0 of the line.

Limits: one run each, and real time. Where it may, the bench takes a real-time priority for all processes alike; on a
busy machine without that right, figures at 921600 baud are too low. lrzsz waits for ever for a pseudo-terminal to drain
and throws away what it flushes there, so those two calls are made to do nothing by a few lines of C that are compiled
for the run; a pseudo-terminal also buffers 8 KiB where a serial port has 4. SMP gets a server with a buffer of 2048
bytes, the best of what was measured before.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import contextlib
import importlib.util
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE = 256 << 10
LATENCY = 0.002
SEED = 1
PATIENCE = 14  # times the ideal time, before a run counts as failed
SMP_BUFFER = 2048
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
    """One program's share of the line; 0 and why, where it failed."""

    share: float
    note: str = ""


@dataclass(frozen=True)
class Road:
    """Where a run takes place: size of the image in bytes, the line's shape, a folder to work in."""

    image: bytes
    shape: Any
    folder: Path
    shim: Path | None

    @property
    def ideal(self) -> float:
        return len(self.image) * self.shape.byte_time


def rows(*, quick: bool = False) -> Iterator[Row]:
    """The table, row by row: at each speed and each kind of damage, devguard against each peer."""
    with tempfile.TemporaryDirectory(prefix="devguard-peers-") as name, priority():
        folder = Path(name)
        shim = build_shim(folder)
        image = os.urandom(IMAGE)
        for baud in (921_600,) if quick else (115_200, 921_600):
            for kind in KINDS:
                yield from compare(image, baud, kind, folder, shim, QUICK if quick else (*LRZSZ, SMP))


def compare(image: bytes, baud: int, kind: Kind, folder: Path, shim: Path | None, names: Iterable[str]) -> list[Row]:
    """devguard and these programs on one kind of line. At 115200 baud they run beside each other, each on a line of its
    own: lines that slow leave a processor idle."""
    from devguard.bench.impair import Damage
    from devguard.bench.way import Shape

    road = Road(image, Shape(baud, LATENCY, damage=Damage(**kind.damage)), folder, shim)
    with ThreadPoolExecutor(8 if baud <= 115_200 else 1) as pool:
        mine, *theirs = pool.map(lambda name: measure(road, name), ("devguard", *names))
    return [row(baud, kind, mine, name, run) for name, run in zip(names, theirs, strict=True)]


def measure(road: Road, name: str) -> Run:
    """One program on a line of its own."""
    return ours(road) if name == "devguard" else smp(road) if name == SMP else lrzsz(road, name)


def row(baud: int, kind: Kind, mine: Run, name: str, run: Run) -> Row:
    """devguard against one peer."""
    what, aim = f"line, {baud}, {kind.name}", f">= {kind.factor:g} of theirs"
    own = f"{mine.share:.3f} (data {mine.note})"
    if run.share < 0:
        return (what, own, f"{name}: {run.note}", "", aim, None)
    theirs = f"{name} {run.share:.3f}" + (f" ({run.note})" if run.note else "")
    ratio = f"{mine.share / run.share:.2f}" if run.share else "they fail"
    return (what, own, theirs, ratio, aim, mine.share > 0 and mine.share >= kind.factor * run.share)


@contextlib.contextmanager
def priority() -> Iterator[None]:
    """Let every process of the bench run when it wants to, where the system allows it."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
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
        figures = run_real(Trial(load_model("insulin-pump"), len(road.image), road.shape, SEED))
    except DevguardError as error:
        return Run(0.0, error.code)
    return Run(figures.session_efficiency, f"{figures.line_efficiency:.3f}")


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
    with tempfile.TemporaryDirectory(dir=road.folder) as place, LineProcess(road.shape, SEED) as line:
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
        if states != [0, 0]:
            return Run(0.0, "gave up" if None not in states else "not done in time")
        if not got.is_file() or got.read_bytes() != road.image:
            return Run(0.0, "damaged")
    return Run(road.ideal / took)


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
    with tempfile.TemporaryDirectory(dir=road.folder) as place, LineProcess(road.shape, SEED) as line:
        path = Path(place) / "image.bin"
        path.write_bytes(road.image)
        server = SmpServer(line.far)
        command = [sys.executable, __file__, "--smp-upload", line.near, str(road.shape.baud), str(path)]
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
    return Run(road.ideal / float(done.stdout))


async def smp_upload(port: str, baud: int, path: Path) -> float:
    """smpclient's own upload; seconds from before it connects to its end."""
    from smpclient import SMPClient
    from smpclient.transport.serial import SMPSerialTransport

    image, began = path.read_bytes(), time.monotonic()
    async with SMPClient(SMPSerialTransport(baudrate=baud), port) as client:
        async for _ in client.upload(image):
            pass
        return time.monotonic() - began


class SmpServer:
    """As much of an SMP server as an upload needs, on a port, in a thread: parameters and image upload, nothing else.
    What is damaged it drops, as a device does."""

    def __init__(self, port: str) -> None:
        self.image = bytearray()
        self._port = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._port, when=0)
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="smp-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        os.close(self._port)

    def _serve(self) -> None:
        buffer, packet = bytearray(), bytearray()
        while self._stop not in (readable := select.select([self._stop, self._port], [], [])[0]):
            if not readable:
                continue
            with contextlib.suppress(BlockingIOError):
                buffer += os.read(self._port, 65_536)
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer = bytearray(rest)
                if line[:2] == b"\x06\x09":
                    packet.clear()
                with contextlib.suppress(binascii.Error):
                    packet += base64.b64decode(line[2:])
                if len(packet) > 2 and len(packet) - 2 >= int.from_bytes(packet[:2], "big"):
                    self._packet(bytes(packet[2:]))
                    packet.clear()

    def _packet(self, data: bytes) -> None:
        import cbor2
        from smp.packet import encode

        if binascii.crc_hqx(data, 0) or len(data) < 10:
            return
        operation, group, sequence, command = data[0], int.from_bytes(data[4:6], "big"), data[6], data[7]
        if (group, command) == (0, 6):
            answer: dict[str, Any] = {"buf_size": SMP_BUFFER, "buf_count": 4}
        elif (group, command) == (1, 1):
            request = cbor2.loads(data[8:-2])
            if request["off"] == len(self.image):
                self.image += request["data"]
            answer = {"off": len(self.image)}
        else:
            answer = {"rc": 8}
        body = cbor2.dumps(answer)
        header = bytes([operation + 1, 0]) + len(body).to_bytes(2, "big") + group.to_bytes(2, "big")
        for line in encode(header + bytes([sequence, command]) + body):
            view = memoryview(line)
            while view:
                select.select([], [self._port], [])
                view = view[os.write(self._port, view) :]


def main() -> int:
    """Print the table; 0 whatever it says."""
    parser = argparse.ArgumentParser(description="devguard against lrzsz and smpclient on one line")
    parser.add_argument("--quick", action="store_true", help="921600 baud, ZMODEM and SMP only")
    parser.add_argument("--smp-upload", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.smp_upload is not None:
        port, baud, path = arguments.smp_upload
        print(asyncio.run(smp_upload(port, int(baud), Path(path))))
        return 0
    for one in rows(quick=arguments.quick):
        print(*one, sep="  ", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

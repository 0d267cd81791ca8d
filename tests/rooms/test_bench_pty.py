"""The line in real time between two pseudo-terminals: damaged as on the virtual clock, and nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from devguard.bench.impair import Damage, Impairer
from devguard.bench.link_run import Trial
from devguard.bench.pty_line import Lane, LineProcess
from devguard.bench.pty_run import run_real
from devguard.bench.stage import stream
from devguard.bench.way import Shape, Way
from devguard.device.models import load_model
from devguard.errors import LinkError, LocalProtocolError

PUMP = load_model("insulin-pump")
FAST = 3_000_000


@contextlib.contextmanager
def port(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(descriptor, when=0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def carry(source: int, target: int, data: bytes, wanted: int) -> bytes:
    """Write `data` at one end until `wanted` bytes have come out of the other, or nothing comes for a second."""
    got, at = bytearray(), 0
    while len(got) < wanted:
        readable, writable, _ = select.select([target], [source] if at < len(data) else [], [], 1.0)
        if not readable and not writable:
            break
        if readable:
            got += os.read(target, 65_536)
        if writable:
            with contextlib.suppress(BlockingIOError):
                at += os.write(source, data[at : at + 1024])
    return bytes(got)


def test_bytes_are_damaged_as_on_the_virtual_clock_and_counted() -> None:
    damage = Damage(ber=1e-3, drop=1e-2, double=1e-2, noise=1e-3)
    data = stream("pty")(9000)
    there, back = (Impairer(damage, f"5/{way}").damage(data) for way in ("forward", "back"))
    with LineProcess(Shape(FAST, damage=damage), 5) as line, port(line.near) as near, port(line.far) as far:
        assert carry(near, far, data, len(there)) == there
        assert carry(far, near, data, len(back)) == back
        counts = line.counts()
    assert counts == {
        "forward": 9000, "reverse": 9000, "forward_arrived": len(there), "reverse_arrived": len(back)
    }  # fmt: skip
    assert line.counts() == counts
    assert 0.0 <= line.late() < 60.0


def test_no_byte_is_earlier_than_its_line_allows() -> None:
    shape = Shape(9600, latency=0.05)
    with LineProcess(shape, 1) as line, port(line.near) as near, port(line.far) as far:
        began = time.monotonic()
        assert carry(near, far, bytes(range(100)), 100) == bytes(range(100))
        assert time.monotonic() - began >= 100 * shape.byte_time + shape.latency


def test_an_adapter_keeps_what_comes_back_until_its_timer_ends() -> None:
    shape = Shape(FAST, return_timer=0.25)
    with LineProcess(shape, 1) as line, port(line.near) as near, port(line.far) as far:
        began = time.monotonic()
        assert carry(far, near, b"answer", 6) == b"answer"
        assert time.monotonic() - began >= shape.return_timer


def test_what_the_line_cannot_take_waits_with_the_sender() -> None:
    with LineProcess(Shape(9600), 1) as line, port(line.near) as near:
        written = 0
        for _ in range(100):
            if not select.select([], [near], [], 0.02)[1]:
                break
            with contextlib.suppress(BlockingIOError):
                written += os.write(near, bytes(4096))
        assert written < 64_000, "what a pseudo-terminal buffers, and no more"


def test_a_cable_that_is_out_for_a_while_loses_what_is_sent_then() -> None:
    with LineProcess(Shape(FAST, cuts=((0.0, 1e9),)), 1) as line, port(line.near) as near, port(line.far) as far:
        assert carry(near, far, bytes(2000), 1) == b""
        assert line.counts()["forward"] == 2000
        assert line.counts()["forward_arrived"] == 0


def test_the_time_of_a_cut_counts_from_the_first_byte() -> None:
    data = bytes(range(1, 41))
    with LineProcess(Shape(9600, cuts=((0.0, 0.0051),)), 1) as line, port(line.near) as near, port(line.far) as far:
        assert select.select([far], [], [], 0.05)[0] == []
        assert carry(near, far, data, 35) == data[5:]


def test_a_line_says_how_long_bytes_were_late_through_its_own_fault() -> None:
    there, here = os.pipe()
    try:
        lane = Lane(there, here, Way(Shape(1000, 0.5), "s"))
        lane.way.put(b"a\x00b\x00", 1.0)  # due at 1.52 and at 1.54
        for now, late in ((1.5, 0.0), (1.5205, 0.0), (1.59, 0.049), (2.0, 0.049)):
            lane.give(now)
            assert lane.late == pytest.approx(late)
        lane.held += b"what the other end has not read"
        lane.way.put(b"c\x00", 2.0)
        lane.give(9.0)
        assert lane.late == pytest.approx(0.049)
    finally:
        os.close(there)
        os.close(here)


def test_a_pulled_cable_takes_its_ports_along() -> None:
    with LineProcess(Shape(FAST), 1, pull_after=5000) as line, port(line.near) as near, port(line.far) as far:
        with pytest.raises(OSError) as gone:
            carry(near, far, bytes(100_000), 100_000)
        assert gone.value.errno in (errno.EIO, errno.ENXIO)
        assert 5000 <= line.counts()["forward"] < 20_000
        assert not line.alive


def test_lines_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="No such file"):
        LineProcess(Shape(FAST), 1, far=str(tmp_path / "nothing"))
    with pytest.raises(LinkError, match="has a speed"):
        LineProcess(Shape(0), 1)
    with pytest.raises(LocalProtocolError):
        Shape(-1)


def test_a_push_in_real_time_gives_the_figures_of_a_push(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 24 * 1024
    monkeypatch.setattr(LineProcess, "late", lambda _: 0.25)
    figures = run_real(Trial(PUMP, size, Shape(921_600, 0.002), 1))
    assert size < figures.wire_forward < 1.5 * size + figures.retransmits * 4096
    assert 500 < figures.wire_reverse < size
    assert 0.0 < figures.session_efficiency < figures.line_efficiency < 1.0
    assert (figures.late_seconds, figures.paced) == (0.25, False)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see what is left running")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_bench_that_is_ended_leaves_no_process(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "devguard.cli.main", "bench", "link", "--real", "--baud", "38400", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("{"), "progress, once the image moves"
    found = children(process.pid)
    assert len(found) == 2
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (out, "Traceback" in err) == ("", False)
    assert process.returncode == (130 if number is signal.SIGINT else -number)
    end = time.monotonic() + 20
    while any(alive(pid) for pid in found):
        assert time.monotonic() < end
        time.sleep(0.01)

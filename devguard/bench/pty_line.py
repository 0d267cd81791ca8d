"""A serial line in real time: one process between two ports that paces, delays, damages and counts the bytes.

What a `Shape` says holds here as on the virtual clock, from the same seed: 10 bits a byte, one-way latency, a timer on
the way back, errors, times at which the cable is out. The near end is always a new pseudo-terminal, the far end another
one or a device's port. `pull_after` bytes from the near end the cable is pulled for good: both ports vanish, as those
of a USB adapter do.

A line that is looked at too late, on a busy machine, catches up: while bytes wait for it they leave at its speed, and
only the moment of their arrival is late. How long bytes were late in all it says at its end. Never used here: tcdrain,
tcflush and TIOCOUTQ, which on a pseudo-terminal lie or lose data.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final

from devguard.bench.impair import Damage
from devguard.bench.way import Shape, Way
from devguard.errors import DevguardError, LinkError, LocalProtocolError

_AHEAD: Final = 0.004  # a port's bytes are taken this much before they leave; the rest waits with the sender
_READ: Final = 4096
_HELD: Final = 1 << 16  # bytes that an end may leave unread before the line stops
_IDLE: Final = 0.5
_ON_TIME: Final = 0.001  # what is handed over this much after its time is not late: no timer is better on any machine
_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 5.0


class Unplugged(Exception):
    """A port of the line is gone, or its cable was pulled."""


@dataclass(slots=True)
class Lane:
    """One direction in real time: from a descriptor, over a `Way`, to a descriptor."""

    source: int
    target: int
    way: Way
    free: float = 0.0
    waiting: bool = False  # the last look found more than the line could take
    held: bytearray = field(default_factory=bytearray)
    late: float = 0.0  # seconds in which bytes had arrived and were not handed over, through the line's own fault

    def opens_at(self) -> float:
        """When more may be taken: a few bytes at a time, and one where that is long."""
        return self.free + max(self.way.shape.byte_time - _AHEAD, -_AHEAD / 2)

    def take(self, now: float) -> None:
        """Put what the source has on the line. `Unplugged` where it is gone."""
        start = self.free if self.waiting else max(now, self.free)
        room = min(_READ, max(1, int((now + _AHEAD - start) / self.way.shape.byte_time)))
        data = _read(self.source, room)
        if data:
            self.way.put(data, start)
            self.free = start + len(data) * self.way.shape.byte_time
        self.waiting = len(data) == room

    def give(self, now: float) -> None:
        """Hand over what has arrived by now."""
        due = self.way.due()
        if due is not None and not self.held:  # else the end that does not read is what is late
            self.late += max(0.0, now - due - _ON_TIME)
        self.held += b"".join(self.way.take(now))
        if self.held:
            del self.held[: _write(self.target, bytes(self.held))]


def _read(descriptor: int, size: int) -> bytes:
    try:
        return os.read(descriptor, size)
    except BlockingIOError:
        return b""
    except OSError as error:
        raise Unplugged from error


def _write(descriptor: int, data: bytes) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise Unplugged from error


class PacedLine:
    """The line itself; `run` moves bytes until `stop` can be read or an end is gone. `near` and `far` are ports."""

    def __init__(self, shape: Shape, seed: int, far: str | None = None, pull_after: int | None = None) -> None:
        if not shape.baud:
            raise LocalProtocolError("link.port", "a line in real time has a speed")
        self._pull_after = pull_after
        self._open: list[int] = []
        near, self.near = self._new()
        other, self.far = self._new() if far is None else (self._existing(far), far)
        back = Way(shape, f"{seed}/back", return_timer=shape.return_timer)
        self._forward = Lane(near, other, Way(shape, f"{seed}/forward"))
        self._back = Lane(other, near, back)
        self._lanes = (self._forward, self._back)

    def _new(self) -> tuple[int, str]:
        """A pseudo-terminal; its far side stays open here too, so that programs come and go."""
        import tty

        master, slave = os.openpty()
        self._open += [master, slave]
        for descriptor in (master, slave):
            tty.setraw(descriptor, when=0)  # TCSANOW: the default would drop what is in flight
        os.set_blocking(master, False)
        return master, os.ttyname(slave)

    def _existing(self, port: str) -> int:
        import tty

        try:
            descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            self.close()
            raise LinkError("link.port", f"the line cannot be joined to {port}: {error.strerror}") from error
        self._open.append(descriptor)
        tty.setraw(descriptor, when=0)
        return descriptor

    @property
    def counts(self) -> dict[str, int]:
        """Bytes that the ends have sent, and what arrived of them, each way."""
        forward, back = self._forward.way, self._back.way
        return {
            "forward": forward.sent,
            "reverse": back.sent,
            "forward_arrived": forward.arrived,
            "reverse_arrived": back.arrived,
        }

    @property
    def late(self) -> float:
        """Seconds in which bytes were late, both ways together: what a program that waits for them has lost."""
        return sum(lane.late for lane in self._lanes)

    def run(self, stop: int) -> None:
        """Serve until the descriptor `stop` can be read; `Unplugged` when an end is gone. Time counts from the first
        byte on."""
        began, silent = time.monotonic(), True
        while True:
            now = time.monotonic() - began
            for lane in self._lanes:
                lane.give(now)
            readers = [lane.source for lane in self._lanes if lane.opens_at() <= now and len(lane.held) < _HELD]
            writers = [lane.target for lane in self._lanes if lane.held]
            readable, _, _ = select.select([stop, *readers], writers, [], self._patience(now))
            if stop in readable:
                return
            if silent and readable:
                began, silent = time.monotonic(), False
            now = time.monotonic() - began
            for lane in self._lanes:
                if lane.source in readable:
                    lane.take(now)
                elif lane.source in readers:
                    lane.waiting = False
            if self._pull_after is not None and self._forward.way.sent >= self._pull_after:
                raise Unplugged

    def _patience(self, now: float) -> float:
        times = [now + _IDLE]
        for lane in self._lanes:
            if not lane.held and (due := lane.way.due()) is not None:
                times.append(due)
            if lane.opens_at() > now:
                times.append(lane.opens_at())
        return max(0.0, min(times) - now)

    def close(self) -> None:
        """Pull the cable: both ports vanish."""
        while self._open:
            os.close(self._open.pop())


class LineProcess:
    """A `PacedLine` in a process of its own, so that no engine's work delays it. `near` and `far` are its ports."""

    def __init__(self, shape: Shape, seed: int, *, far: str | None = None, pull_after: int | None = None) -> None:
        if os.name != "posix":
            raise LinkError("link.port", "a line in real time needs pseudo-terminals, which this system has not")
        given = {"shape": asdict(shape), "seed": seed, "far": far, "pull_after": pull_after}
        self._process = subprocess.Popen(  # noqa: S603 (this very module)
            [sys.executable, "-m", "devguard.bench.pty_line", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for whoever owns the line; it ends when its owner does
        )
        self._end: dict[str, Any] | None = None
        said = self._said()
        if "near" not in said:
            self.close()
            raise LinkError("link.port", said.get("error", "the line did not start"))
        self.near, self.far = said["near"], said["far"]

    def _said(self) -> dict[str, Any]:
        out = self._process.stdout
        line = out.readline() if out is not None and select.select([out], [], [], _START_SECONDS)[0] else ""
        said: dict[str, Any] = json.loads(line) if line else {}
        return said

    @property
    def alive(self) -> bool:
        """Whether the cable is still in."""
        return self._process.poll() is None

    def counts(self) -> dict[str, int]:
        """Take the cable out and say how many bytes went over it."""
        counts: dict[str, int] = self._ended["counts"]
        return counts

    def late(self) -> float:
        """Take the cable out and say for how many seconds bytes were late because this machine had no time for them."""
        late: float = self._ended["late"]
        return late

    @property
    def _ended(self) -> dict[str, Any]:
        self.close()
        if self._end is None:
            raise LinkError("link.port", "the line ended without its counts")
        return self._end

    def close(self) -> None:
        """Take the cable out. Safe to call twice."""
        process = self._process
        if process.stdin is None or process.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        self._end = self._said() or None
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> LineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def punctual() -> None:
    """Run when there is something to do, whatever else this machine does, where the system allows it."""
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def main() -> int:
    """The process: its first line says the ports, its last the counts; it lives as long as its standard input."""
    parser = argparse.ArgumentParser(description="a serial line between two pseudo-terminals")
    parser.add_argument("given", type=json.loads)
    given = parser.parse_args().given
    damage = Damage(**given["shape"].pop("damage"))
    cuts = tuple((begin, end) for begin, end in given["shape"].pop("cuts"))
    try:
        shape = Shape(**given["shape"], damage=damage, cuts=cuts)
        line = PacedLine(shape, given["seed"], given["far"], given["pull_after"])
    except DevguardError as error:
        print(json.dumps({"error": error.message}), flush=True)
        return 1
    print(json.dumps({"near": line.near, "far": line.far}), flush=True)
    punctual()
    with contextlib.suppress(Unplugged):
        line.run(sys.stdin.fileno())
    line.close()
    with contextlib.suppress(BrokenPipeError):  # its owner was killed
        os.write(1, json.dumps({"counts": line.counts, "late": line.late}).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

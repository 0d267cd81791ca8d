"""A bench's driver and a real `EmulatedDevice` on one line that loses and damages frames.

Two link engines, one clock that only the line moves, nothing sleeps. The device takes its turn whenever something
reached it, and at least once in `TURN` seconds, as the emulator's own loop does.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass
from typing import Any

from devguard.device.emulator import EmulatedDevice
from devguard.link.engine import LinkEngine
from devguard.link.events import Event
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner
from rooms.link_support import Faults
from sim.bench import Device, entropy, fresh_number

TURN = 1.0  # the longest a device on a virtual line goes without looking at its clocks, seconds


class VirtualLine:
    """A host's end and an emulated device on one faulty line. `host` is a driver for `ScriptRunner`."""

    def __init__(self, device: Device, *, seed: int = 1, faults: Faults | None = None) -> None:
        self.device = device
        self.faults = faults or Faults(baud=0)
        self.now = 1000.0
        self.random = random.Random(seed)
        self._heap: list[tuple[float, int, str, bytes]] = []
        self._order = itertools.count()
        self._free = {"host": 0.0, "device": 0.0}
        self._engines: dict[str, LinkEngine | None] = {"host": None, "device": None}
        self._events: dict[str, list[Event]] = {"host": [], "device": []}
        self._turning = False
        self._turned = self.now
        self.host, self.far = _End(self, "host"), _End(self, "device")
        self.emulated = EmulatedDevice(device.node, self.far, entropy(f"line/{seed}"))  # type: ignore[arg-type]
        self.turn()

    def runner(self, **fields: Any) -> ScriptRunner:
        """Runs a bench's scripts over the line."""
        baud = self.faults.baud
        return ScriptRunner(
            self.host, LinkParameters(baud=baud), entropy(f"host engines {next(fresh_number)}"), **fields
        )

    def pump(self, name: str, engine: LinkEngine, timeout: float) -> list[Event]:
        """A driver's pump: events of this end, after at most `timeout` virtual seconds."""
        if self._engines[name] is not engine:
            self._engines[name], self._events[name] = engine, []
        if name == "device" and self._turning:
            self._turning = False  # the first look of a turn takes what is there and waits for nothing
            return self._taken(name)
        end = self.now + timeout
        self._carry()
        while not self._events[name]:
            if not self._step(min(end, self._turned + TURN) if name == "host" else end) and self.now >= end:
                break
            if name == "host" and (self._events["device"] or self.now >= self._turned + TURN):
                self.turn()
        self._carry()
        return self._taken(name)

    def turn(self) -> None:
        """Let the device look at what it has heard, and at its clocks."""
        while True:
            had, self._turning, self._turned = bool(self._events["device"]), True, self.now
            turns = iter((False, True))
            self.emulated.serve(turns.__next__, lambda: None)
            self.device.up = self.now
            if not had:
                return

    def wait(self, seconds: float) -> None:
        """Nothing happens at the bench for a while."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self._deliver()
            self.turn()

    def _taken(self, name: str) -> list[Event]:
        events, self._events[name] = self._events[name], []
        return events

    def _step(self, end: float) -> bool:
        """Go on to the next moment at which something happens, not beyond `end`; whether there was one."""
        times = [engine.next_timeout(self.now) for engine in self._engines.values() if engine is not None]
        times += [self._heap[0][0]] if self._heap else []
        known = [time for time in times if time is not None]
        if not known or min(known) > end:
            self.now = max(self.now, end)
            return False
        self.now = max(self.now, min(known))
        self._deliver()
        self._carry()
        return True

    def _carry(self) -> None:
        for name, engine in self._engines.items():
            if engine is not None:
                for piece in engine.data_to_send(self.now).split(b"\x00")[:-1]:
                    self._frame(name, piece + b"\x00")

    def _deliver(self) -> None:
        for name, engine in self._engines.items():
            if engine is not None:
                self._events[name] += engine.receive_bytes(b"", self.now)
        while self._heap and self._heap[0][0] <= self.now:
            _, _, name, data = heapq.heappop(self._heap)
            self.inject(name, data)

    def inject(self, name: str, data: bytes) -> None:
        """Bytes arrive at an end, whoever sent them."""
        engine = self._engines[name]
        if engine is not None:
            self._events[name] += engine.receive_bytes(data, self.now)

    def _frame(self, name: str, wire: bytes) -> None:
        faults, chance = self.faults, self.random.random
        start = max(self.now, self._free[name])
        self._free[name] = start + (len(wire) * 10 / faults.baud if faults.baud else 0)
        if any(begin <= start < end for begin, end in faults.cuts) or chance() < faults.loss:
            return
        if chance() < faults.noise:
            wire = self.random.randbytes(self.random.randrange(1, 40)) + wire
        if faults.flip and chance() < 1 - (1 - faults.flip) ** (8 * len(wire)):
            damaged = bytearray(wire)
            damaged[self.random.randrange(len(wire))] ^= 1 << self.random.randrange(8)
            wire = bytes(damaged)
        other = "device" if name == "host" else "host"
        late = self.random.uniform(0.0, 0.3) if chance() < faults.delay else 0.0
        for _ in range(2 if chance() < faults.double else 1):
            arrival = self._free[name] + faults.latency + late
            heapq.heappush(self._heap, (arrival, next(self._order), other, wire))


@dataclass
class _End:
    """One end of the line as a driver."""

    line: VirtualLine
    name: str

    def clock(self) -> float:
        return self.line.now

    def pump(self, engine: LinkEngine, timeout: float) -> list[Event]:
        return self.line.pump(self.name, engine, timeout)

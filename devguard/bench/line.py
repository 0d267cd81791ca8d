"""A serial line on a virtual clock, and both ends that live on it: a bench's script and an emulated device.

The device is the real one; its turn comes when something has reached it and when its own clocks ask for it. Nothing
sleeps and no clock is read: the same seed gives the same run to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from devguard.bench.way import Shape, Way
from devguard.device.emulator import EmulatedDevice
from devguard.link.engine import LinkEngine
from devguard.link.events import Event

TURN: Final = 1.0  # the longest a device on a virtual line goes without looking at its clocks, seconds


@dataclass(slots=True)
class VirtualClock:
    """The only clock of a virtual line. `busy`: until when the device's processor is held up (by its flash)."""

    now: float = 1000.0
    busy: float = 0.0

    def spend(self, seconds: float) -> None:
        """The device does nothing else for `seconds`: it reads no byte and sends none, its bytes wait."""
        self.busy = max(self.busy, self.now) + seconds


@dataclass(slots=True)
class Side:
    """One end: the ways that lead from it and to it, its engine, what that engine has reported."""

    away: Way
    toward: Way
    engine: LinkEngine | None = None
    events: list[Event] = field(default_factory=list)
    due: float | None = None

    def receive(self, data: bytes, now: float) -> None:
        """Bytes reach the engine; without one they are lost."""
        if self.engine is not None:
            self.events += self.engine.receive_bytes(data, now)

    def taken(self) -> list[Event]:
        """The events, once."""
        events, self.events = self.events, []
        return events


class VirtualLine:
    """A host's end and a device's end. `host` and `device` are drivers (`link.runner.Pump`); `serve` puts an emulated
    device on the line. The device takes its turn when something reached it, and at least once in `TURN` seconds."""

    def __init__(self, clock: VirtualClock, forward: Way, back: Way) -> None:
        self.clock = clock
        self.forward, self.back = forward, back
        self.sides = {"host": Side(forward, back), "device": Side(back, forward)}
        self.host, self.device = End(self, "host"), End(self, "device")
        self.emulated: EmulatedDevice | None = None
        self._turning = False
        self._turned = clock.now

    @classmethod
    def of(cls, shape: Shape, seed: int, clock: VirtualClock | None = None) -> VirtualLine:
        """A line of that shape, whose cuts count from now; the adapter with the timer stands at the host, on the way
        back."""
        clock = clock or VirtualClock()
        shape = replace(shape, cuts=tuple((clock.now + begin, clock.now + end) for begin, end in shape.cuts))
        back = Way(shape, f"{seed}/back", return_timer=shape.return_timer)
        return cls(clock, Way(shape, f"{seed}/forward"), back)

    @property
    def now(self) -> float:
        """The virtual time."""
        return self.clock.now

    def serve(self, emulated: EmulatedDevice) -> None:
        """`emulated`, made with `device` as its driver, lives at the far end from now on."""
        self.emulated = emulated
        self.turn()

    def pump(self, name: str, engine: LinkEngine, timeout: float) -> list[Event]:
        """A driver's pump: events of this end, after at most `timeout` virtual seconds."""
        side = self.plug(name, engine)
        if name == "device" and self._turning:
            self._turning = False  # the first look of a turn takes what is there and waits for nothing
            return side.taken()
        end = self.now + timeout
        self.carry()
        while not side.events:
            limit = min(end, self._turned + TURN) if name == "host" else end
            at = self.due()
            if at is not None and at <= limit:
                self.advance(at)
            else:
                self.clock.now = max(self.now, limit)
                if self.now >= end:
                    break
            if name == "host" and self._turn_due():
                self.turn()
        self.carry()
        return side.taken()

    def plug(self, name: str, engine: LinkEngine) -> Side:
        """Put an engine at an end; what reaches it is its alone, what reached the one before is forgotten."""
        side = self.sides[name]
        if side.engine is not engine:
            side.engine, side.events = engine, []
        return side

    def _turn_due(self) -> bool:
        return not self._busy and (bool(self.sides["device"].events) or self.now >= self._turned + TURN)

    def turn(self) -> None:
        """Let the device look at what it has heard, and at its clocks."""
        while self.emulated is not None:
            had, self._turning, self._turned = bool(self.sides["device"].events), True, self.now
            turns = iter((False, True))
            self.emulated.serve(turns.__next__)
            if not had or self._busy:
                return

    def wait(self, seconds: float) -> None:
        """Nothing happens at the bench for a while."""
        end = self.now + seconds
        while self.now < end:
            self.clock.now = min(end, self.now + TURN)
            self._deliver()
            self.turn()

    def inject(self, name: str, data: bytes) -> None:
        """Bytes arrive at an end, whoever sent them."""
        self.sides[name].receive(data, self.now)

    @property
    def _busy(self) -> bool:
        return self.clock.busy > self.now

    def _awake(self) -> list[Side]:
        return [side for name, side in self.sides.items() if name == "host" or not self._busy]

    def due(self) -> float | None:
        """The next moment at which something happens by itself."""
        times = [self.clock.busy] if self._busy else []
        for side in self._awake():
            side.due = side.engine.next_timeout(self.now) if side.engine is not None else None
            times += [at for at in (side.due, side.toward.due()) if at is not None]
        return min(times) if times else None

    def advance(self, to: float) -> None:
        """Go on to that moment: what has arrived is received, timers run, what is due goes out."""
        self.clock.now = max(self.now, to)
        self._deliver()
        self.carry()

    def carry(self) -> None:
        """Put what the engines have to send on the line."""
        for side in self._awake():
            if side.engine is not None and (data := side.engine.data_to_send(self.now)):
                side.away.put(data, self.now)

    def _deliver(self) -> None:
        for side in self._awake():
            pieces = side.toward.take(self.now)
            if not pieces and side.due is not None and side.due <= self.now:
                pieces = [b""]  # a timer
            for data in pieces:
                side.receive(data, self.now)


@dataclass(frozen=True, slots=True)
class End:
    """One end of the line as a driver."""

    line: VirtualLine
    name: str

    def clock(self) -> float:
        """The virtual time."""
        return self.line.now

    def pump(self, engine: LinkEngine, timeout: float) -> list[Event]:
        """See `VirtualLine.pump`."""
        return self.line.pump(self.name, engine, timeout)

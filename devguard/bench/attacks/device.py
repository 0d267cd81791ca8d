"""The device under attack: the real emulated device in a thread of this process, on a pseudo-terminal behind a tap.

Its flash, counters and therapy are in memory, so that every row begins with the same device; its clock is the bench's.
The therapy's own loop ticks on a thread of its own, whatever the line does. An error that leaves one of the two is kept
for the bench to find: a device that crashes has not held.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.bench.attacks.host import BenchClock
from devguard.bench.attacks.state import Snapshot, look
from devguard.bench.tap import LineTap
from devguard.cose.sign import Signer
from devguard.device.counters import Counters, MemoryCounterStore
from devguard.device.emulator import EmulatedDevice, PtyLine
from devguard.device.flash import Fault, FlashMemory, MemoryBackend
from devguard.device.models import Model
from devguard.device.node import DeviceNode, Surroundings
from devguard.device.provision import open_node, provision
from devguard.device.storage import DeviceDirectory
from devguard.device.therapy import PumpTherapy, Therapy, decode_therapy
from devguard.device.therapy_loop import TherapyLoop
from devguard.link.engine import LinkEngine
from devguard.link.events import Event
from devguard.link.runner import Pump
from devguard.trust.document import read_trust

_BRISK: Final = 0.01
_HEARTBEAT: Final = 0.02
_PATIENCE: Final = 5.0
_STEP: Final = 0.005
_FLIGHT: Final = 2.0


class Brisk:
    """A driver whose waits are short, so that a jump of the clock and a word to stop are noticed at once."""

    def __init__(self, driver: Pump) -> None:
        self._driver = driver

    def clock(self) -> float:
        """The driver's."""
        return self._driver.clock()

    def pump(self, engine: LinkEngine, timeout: float) -> list[Event]:
        """See `SerialDriver.pump`."""
        return self._driver.pump(engine, min(timeout, _BRISK))


class _Store(MemoryCounterStore):
    """Counters in memory; `saves`: how often they were written."""

    saves = 0

    def save(self, counters: Counters) -> None:
        super().save(counters)
        self.saves += 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What outlives a power cut."""

    flash: bytes
    counters: Counters
    therapy: bytes
    trust: bytes


class BenchDevice:
    """One emulated device. `fault` sees the flash operations after the next boot; `own_port` is its end of the line,
    before the tap."""

    def __init__(
        self, model: Model, folder: Path, serial: str, site: str, trust: bytes, factory: Signer, clock: BenchClock
    ) -> None:
        """Enrolled by the factory in `folder`, where its identity stays; what it keeps moves into memory."""
        self.model = model
        self.serial = serial
        self.site = site
        self.folder = folder
        self.clock = clock
        self.battery, self.charging = model.battery_percent, False
        self.self_test: Callable[[], bool] = lambda: True
        self.fault: Fault | None = None
        self.beats = 0
        with DeviceDirectory(folder, model) as directory:
            provision(
                directory,
                serial=serial,
                revision=model.default_revision,
                site=site,
                trust=trust,
                authority=factory,
                issuer="Emil Factory",
                now=int(clock.true_time()),
                random=os.urandom,
            )
            self.therapy = directory.load_therapy()
            self._store = _Store(directory.counters.load())
            self.identity = open_node(directory, self.surroundings(), self.therapy).identity
        self._trust = trust
        self.backend = MemoryBackend(model.layout.flash.size)
        self._line = PtyLine(clock.ticks)
        self.own_port = self._line.port
        self.tap = LineTap(self.own_port)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="bench-device")
        self._stopping = threading.Event()
        self._running: list[Future[None]] = []
        self._loops = 0

    @property
    def port(self) -> str:
        """Where a bench finds it, behind the tap."""
        return self.tap.port

    @property
    def counters(self) -> Counters:
        """What it must not forget."""
        return self._store.load()

    @property
    def saves(self) -> int:
        """How often it has written them since they were put there."""
        return self._store.saves

    def surroundings(self) -> Surroundings:
        """What it senses; all of it is in the bench's hand."""
        return Surroundings(
            clock=lambda: int(self.clock.device_time()),
            uptime=self.clock.ticks,
            battery_percent=lambda: self.battery,
            random=os.urandom,
            self_test=lambda: self.self_test(),
            charging=lambda: self.charging,
        )

    # power

    def power_on(self) -> None:
        """Boot, and answer the line; one that is on is switched off first."""
        self.power_off()
        flash = FlashMemory(self.model.layout.flash, self.backend, self.fault)
        self.loop = TherapyLoop(self.therapy, self._time, lambda _therapy: None)
        self.node = DeviceNode(
            self.model,
            self.identity,
            read_trust(self._trust),
            flash,
            self._store,
            self.loop,
            self.surroundings(),
            self._keep_trust,
        )
        self.node.boot()
        self._stopping.clear()
        device = EmulatedDevice(self.node, Brisk(self._line.driver), os.urandom)
        self._running = [self._pool.submit(self._serve, device), self._pool.submit(self._beat)]

    def power_off(self) -> None:
        """Switch it off between two messages; what it was doing is forgotten."""
        self._stopping.set()
        for one in self._running:
            one.exception()
        self._running = []

    def running(self) -> list[bytes]:
        """Manifest digests of what it runs, confirmed, and of what waits for its trial; empty without either."""
        counters = self.counters
        return [one.manifest_digest for one in (counters.sealed, counters.pending) if one is not None]

    def fault_of_loop(self) -> BaseException | None:
        """What ended the device's loop or its therapy, None while both run."""
        return next((one.exception() for one in self._running if one.done()), None)

    def close(self) -> None:
        """Take it off the bench."""
        self.power_off()
        self._pool.shutdown()
        self.tap.close()
        self._line.close()

    def _serve(self, device: EmulatedDevice) -> None:
        try:
            device.serve(self._stop)
        finally:
            self.clock.forget()

    def _stop(self) -> bool:
        self._loops += 1
        return self._stopping.is_set()

    def _beat(self) -> None:
        """The therapy's own loop."""
        while not self._stopping.wait(_HEARTBEAT):
            self.loop.tick()
            self.beats += 1

    def ticks_on(self) -> bool:
        """Whether the therapy's loop comes round once more."""
        before, end = self.beats, time.monotonic() + _PATIENCE
        while self.beats == before and time.monotonic() < end:
            time.sleep(_HEARTBEAT / 4)
        return self.beats != before

    def _time(self) -> int:
        return int(self.clock.true_time())

    def pressed(self, key: Callable[[Therapy, int], object]) -> None:
        """Something is done with the device's own keys, now."""
        self.loop.change(lambda therapy: key(therapy, self._time()))

    def busy(self) -> None:
        """Begin what keeps the therapy busy: a full bolus, or a session with an implant."""
        self.pressed(_begin)

    def idle(self) -> None:
        """End it, and see to every alarm."""
        self.pressed(_end)

    def _keep_trust(self, data: bytes) -> None:
        self._trust = data

    # state

    def kept(self) -> Kept:
        """What would be there after a power cut now."""
        flash = self.backend.read(0, self.backend.size)
        return Kept(flash, self._store.load(), self.therapy.encode(), self._trust)

    def restore(self, kept: Kept) -> None:
        """Become the device that kept this; off until `power_on`."""
        self.power_off()
        self.backend.write(0, kept.flash)
        self._store = _Store(kept.counters)
        self.therapy = decode_therapy(kept.therapy, self.model)
        self.tap.rule = None
        self._trust = kept.trust
        self.battery, self.charging = self.model.battery_percent, False
        self.self_test, self.fault = lambda: True, None

    def with_counters(self, counters: Counters) -> None:
        """Put other counters into the device: a thief with a soldering iron. Off until `power_on`."""
        self.power_off()
        self._store = _Store(counters)

    def snapshot(self) -> Snapshot:
        """The state as it is once the device has dealt with all that was said to it."""
        self.settle()
        return look(self.model, self.backend, self._store.load(), self.therapy, _digest(self._trust))

    def settle(self) -> None:
        """Wait until nothing moves on the line and the device has looked at it since."""
        while True:
            moved = self.tap.moved
            self.tap.turn()
            self.come_round()
            self.tap.turn()
            if moved == self.tap.moved:
                return

    def come_round(self) -> None:
        """Let the device's loop come round twice: it sees what time it is. One that has ended is no more waited for."""
        end = self._loops + 2
        while self._loops < end and self._running and not self._running[0].done():
            time.sleep(_BRISK / 5)

    @contextlib.contextmanager
    def hurry(self) -> Iterator[None]:
        """While this holds, time flies whenever the line is quiet and everybody waits: for a program that is cut off.
        Who is at work does not look at the clock, and for them it runs as ever."""
        done = threading.Event()

        def fly() -> None:
            moved, looks = self.tap.moved, self.clock.looks()
            while not done.wait(_STEP):
                self.tap.turn()
                if moved != self.tap.moved:
                    moved, looks = self.tap.moved, self.clock.looks()
                elif self.clock.all_waiting(looks):
                    self.clock.advance(_FLIGHT)
                    looks = self.clock.looks()

        thread = threading.Thread(target=fly, name="hurry", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _begin(therapy: Therapy, now: int) -> None:
    if isinstance(therapy, PumpTherapy):
        therapy.start_bolus(therapy.state.settings["maximum_bolus_milliunits"], now)
    else:
        therapy.start_session(now)


def _end(therapy: Therapy, now: int) -> None:
    if isinstance(therapy, PumpTherapy):
        therapy.stop_bolus(now)
    else:
        therapy.end_session(now)
    for name in therapy.alarms:
        therapy.close_alarm(name, now)


@functools.lru_cache(maxsize=8)
def _digest(trust: bytes) -> bytes:
    return read_trust(trust).digest

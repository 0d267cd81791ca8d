"""A push that is lost goes on with the rest: of what had arrived, never more than one flash sector is sent again.

On the virtual line, with the real device, at seeded moments: the bench is gone, or the device loses power. What had
arrived is counted at the device, a message that came in part included.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from devguard.bench.impair import UNHARMED, Damage
from devguard.bench.line import VirtualClock, VirtualLine
from devguard.bench.stage import NOW, Stage, stream
from devguard.bench.way import Shape
from devguard.cli.progress import Meter, State, said
from devguard.device.download import SlotWriter
from devguard.device.emulator import EmulatedDevice
from devguard.device.flash import FlashMemory, MemoryBackend, PowerCut, Tear
from devguard.device.models import Model, load_model
from devguard.device.node import DeviceNode, Surroundings
from devguard.link.engine import LinkEngine
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner

PUMP, PROGRAMMER = load_model("insulin-pump"), load_model("pacemaker-programmer")


class Gone(BaseException):
    """The bench's process is killed: no code of it runs any more."""


@dataclass
class Scene:
    """A device and a bench on a line. `took`: what was written into the slot, (offset, bytes) of each message."""

    model: Model
    shape: Shape
    seed: int
    took: list[tuple[int, int]]
    clock: VirtualClock = field(default_factory=VirtualClock)
    cut_at: int | None = None
    _operations: int = 0

    def __post_init__(self) -> None:
        self.line = VirtualLine.of(self.shape, self.seed, self.clock)
        self.stage = Stage(self.model, f"resume/{self.seed}", lambda: self.clock.now, self._power)
        self.serve()

    def _power(self, *_: object) -> Tear | None:
        self._operations += 1
        return Tear(100, 0x5A, weak=True) if self._operations == self.cut_at else None

    def serve(self) -> None:
        random = stream(f"resume/{self.seed}/{self.clock.now}")
        self.line.serve(EmulatedDevice(self.stage.node, self.line.device, random))

    def power_on(self) -> None:
        """The same flash, counters and therapy in a device that has just got power."""
        old, random = self.stage.node, stream(f"resume/{self.seed}/power")
        geometry, flash = self.model.layout.flash, old.loader.slots.flash
        backend = MemoryBackend(geometry.size)
        backend.data[:] = flash._backend.read(0, geometry.size)
        around = Surroundings(lambda: NOW, lambda: self.clock.now, lambda: 100, random, lambda: True)
        again = FlashMemory(geometry, backend, None, flash.cells)
        self.stage.node = DeviceNode(self.model, old.identity, old.trust, again, old.store, old.therapy, around)
        self.stage.node.boot()
        self.line.sides["device"].engine = None
        self.serve()

    def push(self, size: int, meter: Meter, queued: Callable[[int, int], None] | None = None) -> LinkEngine:
        runner = ScriptRunner(
            self.line.host,
            LinkParameters(baud=self.shape.baud),
            stream(f"resume/{self.seed}/{self.clock.now}/host"),
            engine=meter.engine,
        )
        session = self.stage.update(self.stage.build(size))
        session.progress, session.queued = meter, queued or meter.queued
        runner.run(session.push())
        engine = self.line.sides["host"].engine
        assert engine is not None
        return engine

    @property
    def arrived(self) -> int:
        """Bytes of the image that the device has got, in order; of a message that came in part, its parts."""
        engine = self.line.sides["device"].engine
        lane = engine._sealed if engine is not None else None
        return sum(length for _, length in self.took) + (lane.receiver._size if lane is not None else 0)

    @property
    def early(self) -> int:
        """Bytes that the device holds out of order."""
        engine = self.line.sides["device"].engine
        lane = engine._sealed if engine is not None else None
        return lane.receiver.early_bytes if lane is not None else 0


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(offset, length) of everything that a device's slot writer takes."""
    seen: list[tuple[int, int]] = []
    honest = SlotWriter.write

    def write(self: SlotWriter, offset: int, data: bytes) -> None:
        seen.append((offset, len(data)))
        honest(self, offset, data)

    monkeypatch.setattr(SlotWriter, "write", write)
    return seen


def meter_of(scene: Scene, size: int, seen: list[State] | None = None) -> Meter:
    return Meter(size, None if seen is None else seen.append, clock=lambda: scene.clock.now)


def goes_on(scene: Scene, size: int, told: int) -> None:
    """Push again to the end and compare what came twice with what had arrived."""
    arrived, sector = scene.arrived, scene.model.layout.sector_size
    scene.took.clear()
    scene.push(size, meter_of(scene, size))
    start = scene.took[0][0]
    assert 0 <= arrived - start <= sector
    assert told - start <= sector
    assert start + sum(length for _, length in scene.took) == size
    assert scene.stage.node.loader.result.header is not None
    assert scene.stage.node.loader.result.header.digest == scene.stage.build(size).measured.whole.digest
    assert len(scene.stage.node.store.load().erase_times) == 1


@pytest.mark.parametrize(
    ("model", "size", "damage"),
    [(PUMP, 40_000, UNHARMED), (PUMP, 40_000, Damage(ber=1e-5)), (PROGRAMMER, 160_000, UNHARMED)],
    ids=["pump", "pump, noise", "programmer"],
)
def test_a_bench_that_is_gone(model: Model, size: int, damage: Damage, took: list[tuple[int, int]]) -> None:
    for seed in range(1 if model is PROGRAMMER else 3):
        took.clear()
        scene = Scene(model, Shape(921_600, 0.002, damage=damage), seed, took)
        meter, stop = meter_of(scene, size), random.Random(seed).randrange(size // 3, size)

        def queued(end: int, total: int, meter: Meter = meter, stop: int = stop) -> None:
            meter.queued(end, total)
            if end >= stop:
                raise Gone

        with pytest.raises(Gone):
            scene.push(size, meter, queued)
        told = meter.state(scene.clock.now)
        scene.line.sides["host"].engine = None
        scene.line.wait(1.0)
        assert told.durable <= told.arrived <= scene.arrived <= size
        goes_on(scene, size, told.arrived)


@pytest.mark.parametrize(
    ("model", "size", "first"),
    [(PUMP, 40_000, 12), (PROGRAMMER, 160_000, 10)],
    ids=["pump", "programmer"],
)
def test_a_device_that_loses_power(model: Model, size: int, first: int, took: list[tuple[int, int]]) -> None:
    pages = size // model.layout.page_size
    for seed in range(1 if model is PROGRAMMER else 3):
        took.clear()
        scene = Scene(model, Shape(921_600, 0.002), seed, took)
        scene.cut_at = random.Random(seed).randrange(first, first + pages)
        meter = meter_of(scene, size)
        with pytest.raises(PowerCut):
            scene.push(size, meter)
        told = meter.state(scene.clock.now).arrived
        assert 0 < scene.arrived <= size
        scene.power_on()
        goes_on(scene, size, told)


# progress, on lines on which it matters


@pytest.mark.parametrize(("model", "size"), [(PUMP, 24_000), (PROGRAMMER, 130_000)], ids=["pump", "programmer"])
def test_progress_at_9600_baud_is_steady_and_knows_when_it_ends(
    model: Model, size: int, took: list[tuple[int, int]]
) -> None:
    scene, seen, times = Scene(model, Shape(9600, 0.002), 1, took), list[State](), list[float]()

    def show(state: State) -> None:
        seen.append(state)
        times.append(scene.clock.now)

    scene.push(size, Meter(size, show, clock=lambda: scene.clock.now))
    assert (seen[0].arrived, seen[0].eta) == (0, None)
    assert (seen[-1].arrived, seen[-1].durable, seen[-1].total, seen[-1].eta) == (size, size, size, 0.0)
    assert all(one.arrived <= two.arrived for one, two in itertools.pairwise(seen))
    assert max(two - one for one, two in itertools.pairwise(times)) < 6.0
    for state, at in zip(seen, times, strict=True):
        if size // 3 < state.arrived < size:
            assert state.eta == pytest.approx(times[-1] - at, rel=0.25, abs=4.0)
            assert state.rate == pytest.approx(935, rel=0.15)
    assert len(seen) <= times[-1] - times[0] + 3


@pytest.mark.parametrize("baud", [2400, 115_200, 3_000_000])
def test_what_progress_shows_has_arrived_and_little_more_has(baud: int, took: list[tuple[int, int]]) -> None:
    size = 12_000 if baud == 2400 else 120_000
    scene, lags = Scene(PUMP, Shape(baud, 0.002, damage=Damage(ber=1e-5)), 1, took), list[int]()

    def show(state: State) -> None:
        lags.append(scene.arrived + scene.early - state.arrived)

    scene.push(size, Meter(size, show, every=0.0, clock=lambda: scene.clock.now))
    assert len(lags) > size // 4096
    assert min(lags) >= 0
    assert max(lags) <= 2 * 4096, "a segment on its way and a message begun; never a window"


def test_progress_counts_what_is_sent_again(took: list[tuple[int, int]]) -> None:
    seen: list[State] = []
    scene = Scene(PUMP, Shape(115_200, 0.002, damage=Damage(ber=1e-4)), 1, took)
    engine = scene.push(40_000, meter_of(scene, 40_000, seen))
    assert seen[-1].retransmits == engine.statistics.retransmits > 3
    assert [one.retransmits for one in seen] == sorted(one.retransmits for one in seen)


def test_a_cable_that_is_out_is_told_as_silence(took: list[tuple[int, int]]) -> None:
    seen: list[State] = []
    scene = Scene(PUMP, Shape(115_200, 0.002, cuts=((2.0, 14.0),)), 1, took)
    scene.push(60_000, meter_of(scene, 60_000, seen))
    out = [state for state in seen if state.silent >= 6.0]
    assert out
    assert max(state.silent for state in out) == pytest.approx(12.0, abs=4.5)  # the next ping may be 4 s away
    assert len({state.arrived for state in out}) == 1
    assert [state.eta for state in out] == sorted(state.eta for state in out)
    assert out[-1].rate < out[0].rate / 1.5
    assert all("no answer for" in said(state) for state in out)
    assert (seen[-1].arrived, seen[-1].silent) == (60_000, 0.0)
    assert max(state.silent for state in seen if state.arrived > out[0].arrived + 8192) < 1.0


def test_progress_for_people() -> None:
    assert said(State(5, 0, 9, 11_312.0, None, 0, 5.9)) == "11.3 kB/s"
    assert said(State(5, 0, 9, 950.0, 61.4, 3)) == "0.9 kB/s 1:01 left, 3 sent again"
    assert said(State(5, 0, 9, 950.0, 61.4, 0, 6.0)) == "0.9 kB/s 1:01 left, no answer for 6 s: check the cable"

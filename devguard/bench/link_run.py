"""One push over a measured line: the real device node, the real session, the real engines, AEAD on.

`run_virtual` does it in this process on a virtual clock (see `line`); what is measured does not depend on the road:
`Stopwatch` is the host's own engine with a pencil, and `Figures` is what any road fills in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from devguard.bench.line import VirtualClock, VirtualLine
from devguard.bench.stage import Stage, stream
from devguard.bench.way import Shape
from devguard.device.emulator import EmulatedDevice
from devguard.device.flash import Fault, Operation
from devguard.device.models import Model
from devguard.errors import DevguardError
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Event, Role
from devguard.link.parameters import BITS_PER_BYTE_ON_LINE, LinkParameters
from devguard.link.runner import ScriptRunner
from devguard.session.connect import Connected
from devguard.session.script import Script, Send
from devguard.session.update import UpdateSession
from devguard.session.verbs import Data, Reboot, decode_message

VOID_SHARE: Final = 0.01  # of a run: so long may bytes have been late in all before its figures are void
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be measured. `size`: bytes of image. `flash_timing`: the model's erase and program times count."""

    model: Model
    size: int
    shape: Shape
    seed: int = 1
    flash_timing: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What one push took. Bytes are of the whole conversation, times in seconds.

    `data_seconds`: from the first data segment sent to the last acknowledged; `session_seconds`: from opening the line
    to the device's word that it has the release. `late_seconds`: in real time, how long bytes were late in all because
    the machine had no time for the line; the run was that much longer at most.
    """

    trial: Trial
    wire_forward: int
    wire_reverse: int
    retransmits: int
    data_seconds: float
    session_seconds: float
    late_seconds: float = 0.0

    @property
    def ideal_seconds(self) -> float:
        """What the image alone takes on this line, 10 bits a byte."""
        return self.trial.size * BITS_PER_BYTE_ON_LINE / self.trial.shape.baud

    @property
    def line_efficiency(self) -> float:
        """Ideal time over the time of the data phase."""
        return self.ideal_seconds / self.data_seconds

    @property
    def session_efficiency(self) -> float:
        """Ideal time over the time of the whole conversation."""
        return self.ideal_seconds / self.session_seconds

    @property
    def paced(self) -> bool:
        """Whether the line kept its times; where it did not, the figures say more about the machine."""
        return self.late_seconds <= VOID_SHARE * self.session_seconds


def overheard(script: Script[T], listener: Callable[[bytes], None]) -> Script[T]:
    """The same script; `listener` hears each message for the sealed channel just before it is sent."""
    value: Any = None
    failure: DevguardError | None = None
    while True:
        try:
            step = script.throw(failure) if failure is not None else script.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
        if isinstance(step, Send) and step.sealed:
            listener(step.message)
        value, failure = None, None
        try:
            value = yield step
        except DevguardError as error:
            failure = error


class Onlooker(Protocol):
    """Who is shown how far a push is: called with what is durable, told what is queued, shown the engine."""

    def __call__(self, durable: int, total: int, /) -> None: ...
    def queued(self, end: int, total: int, /) -> None: ...
    def look(self, engine: LinkEngine, /) -> None: ...


class Stopwatch:
    """Watches one push at the host: its script, and the engine that carries it. `onlooker` is shown both."""

    def __init__(self, clock: Callable[[], float], onlooker: Onlooker | None = None) -> None:
        self._clock = clock
        self._onlooker = onlooker
        self._sealed = self._data_end = 0
        self.began = self.first_data = self.last_data = self.committed = 0.0

    def engine(self, role: Role, parameters: LinkParameters, nonce: Callable[[int], bytes]) -> LinkEngine:
        """A link engine that is watched."""
        return _WatchedEngine(self, role, parameters, nonce)

    def push(self, session: UpdateSession) -> Script[Connected]:
        """The session's push, its messages noted as they go by."""
        if self._onlooker is not None:
            session.progress, session.queued = self._onlooker, self._onlooker.queued
        self.began = self._clock()
        return overheard(session.push(), self._said)

    def _said(self, message: bytes) -> None:
        verb = decode_message(message, sealed=True)
        self._sealed += len(message)
        if isinstance(verb, Data):
            self.first_data = self.first_data or self._clock()
            self._data_end, self.last_data = self._sealed, 0.0
        elif isinstance(verb, Reboot):
            self.committed = self._clock()

    def heard(self, engine: LinkEngine, now: float) -> None:
        """The engine has heard something: have all data arrived?"""
        count = engine.acknowledged_bytes(Channel.SEALED)
        if count >= self._data_end > 0 and not self.last_data:
            self.last_data = now
        if self._onlooker is not None:
            self._onlooker.look(engine)


class _WatchedEngine(LinkEngine):
    def __init__(self, watch: Stopwatch, role: Role, parameters: LinkParameters, nonce: Callable[[int], bytes]) -> None:
        super().__init__(role, parameters, nonce)
        self._watch = watch

    def receive_bytes(self, data: bytes, now: float) -> list[Event]:
        events = super().receive_bytes(data, now)
        self._watch.heard(self, now)
        return events


def run_virtual(trial: Trial, onlooker: Onlooker | None = None) -> Figures:
    """The push on a virtual clock. Raises what a push raises: a line may be too bad to use."""
    clock = VirtualClock()
    line = VirtualLine.of(trial.shape, trial.seed, clock)
    stage = Stage(trial.model, f"link/{trial.seed}", lambda: clock.now, slow_flash(trial, clock.spend))
    line.serve(EmulatedDevice(stage.node, line.device, stream(f"link/{trial.seed}/device engine")))
    watch = Stopwatch(line.host.clock, onlooker)
    random = stream(f"link/{trial.seed}/host engine")
    runner = ScriptRunner(line.host, LinkParameters(baud=trial.shape.baud), random, engine=watch.engine)
    runner.run(watch.push(stage.update(stage.build(trial.size))))
    return Figures(
        trial=trial,
        wire_forward=line.forward.sent,
        wire_reverse=line.back.sent,
        retransmits=sum(one.retransmits for one in runner.statistics),
        data_seconds=watch.last_data - watch.first_data,
        session_seconds=watch.committed - watch.began,
    )


def slow_flash(trial: Trial, spend: Callable[[float], None]) -> Fault | None:
    """A flash that holds the device's processor up, by `spend`, for as long as the modelled part takes."""
    if not trial.flash_timing:
        return None
    timing = trial.model.timing
    seconds = {Operation.ERASE: timing.erase_ms / 1e3, Operation.PROGRAM: timing.program_us / 1e6}
    return lambda operation, _offset, _length: spend(seconds[operation])

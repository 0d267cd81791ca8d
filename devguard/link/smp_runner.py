"""Runs scripts of `session.smp_script` over a port: asks again what got no answer, streams uploads, keeps the time.

Every wait is bounded: a question by its patience, an upload by the time within which the device has to get on. What
ends a wait is thrown into the script: `LinkError("link.timeout")`, or `RemoteProtocolError("smp.malformed")` where
answers did come and made no sense. A port that vanishes is `LinkError("link.port")`, and time goes on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from devguard.errors import DevguardError, LinkError, LocalProtocolError, RemoteProtocolError
from devguard.link.parameters import LinkParameters
from devguard.link.smp_engine import Garbled, Replied, SmpEngine, SmpEvent
from devguard.session.smp_cbor import CODE
from devguard.session.smp_frame import Message
from devguard.session.smp_script import Ask, Now, Pause, Reopen, Script, Step, Stream
from devguard.session.smp_upload import Upload

MOST_GARBLED: Final = 8
_TICK: Final = 0.5
T = TypeVar("T")


class SmpPort(Protocol):
    """What the runner needs of an open port; `SerialDriver` is one."""

    def pump(self, engine: SmpEngine, timeout: float) -> list[SmpEvent]: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class SmpRunner:
    """Runs scripts one after the other. `open` opens the port, again where a script asks for it; `random` gives bytes;
    `clock` is the one that the port pumps by, `sleep` waits where there is no port. Use as a context manager or call
    `close`. `retransmits`: questions and pieces that were sent again."""

    open: Callable[[], SmpPort]
    parameters: LinkParameters
    random: Callable[[int], bytes]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    retransmits: int = field(default=0, init=False)
    _port: SmpPort | None = field(default=None, init=False)
    _engine: SmpEngine = field(init=False)

    def __post_init__(self) -> None:
        self._engine = SmpEngine(self.parameters, self.random(1)[0])

    def __enter__(self) -> SmpRunner:
        self._port = self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the port back."""
        if self._port is not None:
            port, self._port = self._port, None
            port.close()

    @property
    def wire_bytes(self) -> int:
        """Bytes on the line, both ways."""
        return self._engine.bytes_sent + self._engine.bytes_received

    def run(self, script: Script[T]) -> T:
        """The script's result. Raises what the script raises."""
        result: Any = None
        failure: DevguardError | None = None
        try:
            while True:
                try:
                    step = script.throw(failure) if failure is not None else script.send(result)
                except StopIteration as done:
                    value: T = done.value
                    return value
                result, failure = None, None
                try:
                    result = self._step(step)
                except DevguardError as error:
                    failure = error
        finally:
            script.close()
            self._engine.forget()

    def _step(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return self._ask(step)
        if isinstance(step, Stream):
            return self._stream(step.upload)
        if isinstance(step, Pause):
            return self._pause(step.seconds)
        if isinstance(step, Now):
            return self.clock()
        if isinstance(step, Reopen):
            self.close()
            self._port = self.open()
            return None
        raise LocalProtocolError("session.order", f"unknown step {type(step).__name__}")

    def _open_port(self) -> SmpPort:
        if self._port is None:
            raise LinkError("link.port", "the port is closed")
        return self._port

    def _pump(self, until: float) -> list[SmpEvent]:
        return self._open_port().pump(self._engine, max(0.0, min(_TICK, until - self.clock())))

    def _pause(self, seconds: float) -> None:
        end = self.clock() + seconds
        while (left := end - self.clock()) > 0:
            if self._port is None:
                self.sleep(left)
                continue
            try:
                self._pump(end)
            except LinkError:
                self.close()  # whoever asks next is told

    def _ask(self, step: Ask) -> Message:
        began = self.clock()
        self._engine.round_trip.backoff = 0  # a device that was away is asked at the pace it had
        numbers = {self._engine.send(step.request, began)}
        why: str | None = None
        bad = 0
        try:
            while True:
                for event in self._pump(began + step.patience):
                    if event.number not in numbers:
                        continue
                    if isinstance(event, Replied):
                        return event.message
                    if isinstance(event, Garbled):
                        why, bad = event.why, bad + 1
                    if not step.once and bad <= MOST_GARBLED:
                        self.retransmits += 1
                        numbers.add(self._engine.send(step.request, self.clock()))
                if self.clock() >= began + step.patience or bad > MOST_GARBLED or (step.once and bad):
                    raise _no_answer(why, self.clock() - began)
        finally:
            self._engine.forget()

    def _stream(self, upload: Upload) -> None:
        since, bad = self.clock(), 0
        why: str | None = None
        try:
            while not upload.done:
                while (request := upload.next()) is not None:
                    upload.sending(self._engine.send(request, self.clock()))
                for event in self._pump(since + upload.patience):
                    if not upload.waits_for(event.number):
                        continue
                    if isinstance(event, Replied):
                        upload.answered(event.number, event.message)
                        bad = 0
                        continue
                    if isinstance(event, Garbled):
                        why, bad = event.why, bad + 1
                    upload.lost(event.number)
                if upload.gets_on():
                    since, why = self.clock(), None
                if self.clock() >= since + upload.patience or bad > MOST_GARBLED:
                    raise _no_answer(why, self.clock() - since)
        finally:
            self.retransmits += upload.repeated
            self._engine.forget()


def _no_answer(why: str | None, seconds: float) -> DevguardError:
    if why is not None:
        return RemoteProtocolError(CODE, f"the device's answers make no sense: {why}")
    return LinkError("link.timeout", f"no answer that got on for {seconds:.1f} s")

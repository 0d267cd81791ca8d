"""Runs a bench-side script (see `session.script`) over an engine and a port.

The script says what to send and what to wait for; this module owns the engine, moves bytes, keeps the time and
throws a failed road into the script, so that the script's own clean-up runs and its result or error comes out here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from devguard.errors import DevguardError, LinkError, LocalProtocolError
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Closed, Event, Failed, LinkStatistics, Message, Opened, PlainLost, Role
from devguard.link.parameters import LinkParameters
from devguard.session.script import Attach, Flush, OpenPlain, Receive, Script, Send, Step

_TICK: Final = 0.5
_ROOM_TICK: Final = 0.02  # an acknowledgement is no event: what waits for one looks for it
T = TypeVar("T")


class Pump(Protocol):
    """What the runner needs of a driver; `SerialDriver` is one."""

    def clock(self) -> float: ...
    def pump(self, engine: LinkEngine, timeout: float) -> list[Event]: ...


@dataclass(slots=True)
class ScriptRunner:
    """Runs scripts one after the other over one port; each gets a new engine, `statistics` adds up.

    `open_timeout`: seconds to wait for a device to answer at all. `engine` makes an engine; a bench may watch its own.
    """

    driver: Pump
    parameters: LinkParameters
    random: Callable[[int], bytes]
    open_timeout: float = 10.0
    engine: Callable[[Role, LinkParameters, Callable[[int], bytes]], LinkEngine] = LinkEngine
    statistics: list[LinkStatistics] = field(default_factory=list)
    _engine: LinkEngine | None = field(default=None, init=False)
    _inbox: dict[Channel, deque[bytes]] = field(default_factory=dict, init=False)
    _opened: bool = field(default=False, init=False)
    _deadline: float = field(default=0.0, init=False)

    def run(self, script: Script[T]) -> T:
        """The script's result. Raises what the script raises; a `LinkError` is first thrown into it."""
        self._engine = self.engine(Role.HOST, self.parameters, self.random)
        self._inbox = {channel: deque() for channel in Channel}
        self._opened = False
        send_value: Any = None
        failure: DevguardError | None = None
        try:
            while True:
                try:
                    step = script.throw(failure) if failure is not None else script.send(send_value)
                except StopIteration as done:
                    result: T = done.value
                    return result
                send_value, failure = None, None
                try:
                    send_value = self._perform(self._engine, step)
                except DevguardError as error:
                    failure = error
        finally:
            self.statistics.append(self._engine.statistics)

    def _perform(self, engine: LinkEngine, step: Step) -> bytes | None:
        now = self.driver.clock()
        if isinstance(step, OpenPlain):
            self._opened = False
            engine.open(now)
            if not self._wait(engine, lambda: self._opened, self.open_timeout):
                raise LinkError("link.timeout", f"no device answered within {self.open_timeout:g} s")
        elif isinstance(step, Send):
            channel = _channel(step.sealed)
            self._wait(engine, lambda: engine.pending_bytes(channel) < step.backlog, tick=_ROOM_TICK)
            engine.send(channel, step.message, self.driver.clock())
        elif isinstance(step, Attach):
            engine.attach(step.protector, now)
        elif isinstance(step, Flush):
            self._wait(engine, lambda: engine.idle, step.timeout, _ROOM_TICK)
        else:
            return self._receive(engine, step)
        return None

    def _receive(self, engine: LinkEngine, step: Receive) -> bytes | None:
        inbox = self._inbox[_channel(step.sealed)]
        if not self._wait(engine, lambda: bool(inbox), step.timeout) and not step.optional:
            raise LinkError("link.timeout", f"the device did not answer within {step.timeout:g} s")
        return inbox.popleft() if inbox else None

    def _wait(
        self, engine: LinkEngine, ready: Callable[[], bool], timeout: float | None = None, tick: float = _TICK
    ) -> bool:
        """Pump until `ready`, or False after `timeout`; without one the engine's own patience bounds the wait."""
        end = None if timeout is None else self.driver.clock() + timeout
        while not ready():
            left = tick if end is None else end - self.driver.clock()
            self._take(self.driver.pump(engine, max(0.0, min(left, tick))))
            if left <= 0:
                return ready()
        return True

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Message):
                self._inbox[event.channel].append(event.data)
            elif isinstance(event, Opened):
                self._opened = True
            elif isinstance(event, Failed):
                raise event.error()
            elif not isinstance(event, (Closed, PlainLost)):
                raise LocalProtocolError("link.protocol", f"unknown link event {type(event).__name__}")


def _channel(sealed: bool) -> Channel:
    return Channel.SEALED if sealed else Channel.PLAIN

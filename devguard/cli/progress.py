"""Progress of a push: a bar with rate, time left and segments sent again on a terminal, JSON lines on stderr otherwise.

    {"bytes": 98304, "durable": 92160, "total": 262144, "rate": 11312, "eta": 14.5, "retransmits": 0, "silent": 0.2}

`bytes` have arrived as far as the line's acknowledgements tell, `durable` survive a power cut of the device; both are
of the form in which the image travels, from its first byte also after --resume. `rate` is bytes a second of the last
ten seconds, `eta` seconds, null while nothing has moved; `silent` is how long the device has not been heard. One line a
second at most, and one at the end. Never on stdout: that belongs to the result.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Event, Role
from devguard.link.parameters import LinkParameters

if TYPE_CHECKING:
    from devguard.cli.context import Invocation

LINE_SECONDS: Final = 1.0
BAR_SECONDS: Final = 0.1
WINDOW: Final = 10.0  # seconds of the past that the rate is taken from
SILENCE: Final = 6.0  # seconds without a word from the device that people are told of; a slow line is silent for four
_LEAST: Final = 3  # and at least so many steps, where a slow line makes few


@dataclass(frozen=True, slots=True)
class State:
    """How far a push is. Bytes; `rate` bytes a second; `eta` seconds, None while the rate is not known; `silent`
    seconds since the device was heard."""

    arrived: int
    durable: int
    total: int
    rate: float
    eta: float | None
    retransmits: int
    silent: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The line's object."""
        return {
            "bytes": self.arrived,
            "durable": self.durable,
            "total": self.total,
            "rate": round(self.rate),
            "eta": None if self.eta is None else round(self.eta, 1),
            "retransmits": self.retransmits,
            "silent": round(self.silent, 1),
        }


@dataclass(slots=True)
class Meter:
    """Watches one push. `show` is told the state when it is due; `clock` in seconds.

    It is the session's `progress` when called; `queued` is for the session, `engine` for the runner, or `look` for
    whoever watches the engine already.
    """

    total: int
    show: Callable[[State], None] | None = None
    every: float = LINE_SECONDS
    clock: Callable[[], float] = time.monotonic
    _queued: int = 0
    _durable: int = 0
    _arrived: int = 0
    _pending: int = 0
    _engine: LinkEngine | None = None
    _before: int = 0  # segments that engines before this one have sent again
    _heard: tuple[float, float] = (0.0, 0.0)  # when the device was last heard, on the engine's clock and on ours
    _moving: bool = False
    _shown: float | None = None
    _last: State | None = None
    _steps: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, durable: int, total: int) -> None:
        """So much survives a power cut of the device."""
        if self._last is not None and self._last.durable == self._last.total == durable == total:
            return  # it has been said: what follows is the commit
        self._begin(total)
        self._durable = durable
        self._queued = max(self._queued, durable)
        self._moved()
        self._moving = durable < total

    def queued(self, end: int, total: int) -> None:
        """So much has been handed to the link; how much of it has arrived is seen at its engine."""
        self._begin(total)
        self._pending += end - self._queued
        self._queued = end

    def engine(self, role: Role, parameters: LinkParameters, nonce: Callable[[int], bytes]) -> LinkEngine:
        """An engine that is watched."""
        return _Watched(self, role, parameters, nonce)

    def look(self, engine: LinkEngine) -> None:
        """The engine has heard something, or its timers ran."""
        if engine is not self._engine:
            self._before, self._engine = self._retransmits, engine
        if engine.sealed_heard != self._heard[0]:
            self._heard = engine.sealed_heard, self.clock()
        if self._moving:
            self._pending = engine.pending_bytes(Channel.SEALED)
            self._moved()

    @property
    def _retransmits(self) -> int:
        return self._before + (self._engine.statistics.retransmits if self._engine is not None else 0)

    def _begin(self, total: int) -> None:
        """Data begin to move, or begin anew in another form."""
        if not self._moving or total != self.total:
            self._queued = self._durable = self._arrived = self._pending = 0
            self._steps.clear()
        self._moving, self.total = True, total

    def _moved(self) -> None:
        now = self.clock()
        arrived = max(self._arrived, self._durable, self._queued - self._pending)
        if not self._steps or arrived > self._arrived:
            self._steps.append((now, arrived))
        self._arrived = arrived
        while len(self._steps) > _LEAST and self._steps[1][0] < now - WINDOW:
            self._steps.popleft()
        due = self._shown is None or now - self._shown >= self.every or self._durable == self.total
        if self.show is None or not due:
            return
        state = self.state(now)
        if state != self._last:
            self._shown, self._last = now, state
            self.show(state)

    def _rate(self, now: float) -> float:
        """From the first step remembered to the last; silence counts once it is longer than between steps."""
        if len(self._steps) < 2:
            return 0.0
        (began, since), (ended, until) = self._steps[0], self._steps[-1]
        end = max(ended, now - (ended - began) / (len(self._steps) - 1))
        return (until - since) / (end - began) if end > began else 0.0

    def state(self, now: float) -> State:
        """How far it is."""
        rate = self._rate(now)
        left = self.total - self._arrived
        eta = 0.0 if not left else left / rate if rate else None
        silent = now - self._heard[1] if self._engine is not None and left else 0.0
        return State(self._arrived, self._durable, self.total, rate, eta, self._retransmits, silent)


class _Watched(LinkEngine):
    def __init__(self, meter: Meter, role: Role, parameters: LinkParameters, nonce: Callable[[int], bytes]) -> None:
        super().__init__(role, parameters, nonce)
        self._meter = meter

    def receive_bytes(self, data: bytes, now: float) -> list[Event]:
        events = super().receive_bytes(data, now)
        self._meter.look(self)
        return events


@contextmanager
def progress_bar(invocation: Invocation, total: int, form: str = "auto") -> Iterator[Meter]:
    """A meter for a push of `total` bytes that shows itself on stderr: "auto" as a bar on a terminal and as JSON lines
    elsewhere, "json" as lines anywhere, "none" not at all."""
    if invocation.quiet or form == "none":
        yield Meter(total)
    elif form == "auto" and sys.stderr.isatty():
        with _bar(total) as show:
            yield Meter(total, show, BAR_SECONDS)
    else:
        yield Meter(total, lambda state: click.echo(json.dumps(state.to_json()), err=True))


@contextmanager
def _bar(total: int) -> Iterator[Callable[[State], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("pushing"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("push", total=total, said="")
        yield lambda state: bar.update(task, completed=state.arrived, total=state.total, said=said(state))


def said(state: State) -> str:
    """Rate, time left, segments sent again and silence, for people."""
    rate = f"{state.rate / 1000:.1f} kB/s"
    left = "" if state.eta is None else f" {int(state.eta) // 60}:{int(state.eta) % 60:02d} left"
    again = f", {state.retransmits} sent again" if state.retransmits else ""
    silent = f", no answer for {state.silent:.0f} s: check the cable" if state.silent >= SILENCE else ""
    return f"{rate}{left}{again}{silent}"

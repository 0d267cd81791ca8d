"""An emulated device on a line: bytes in, bytes out, its state on disk. The part of `device` with clock and ports.

One thread serves the port; the therapy ticks on another (`therapy_loop`). A plain connection is one attempt at a
conversation; a sealed session is replaced only by a newer one that was authorised. What the device keeps survives
kill -9 at any moment.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

from devguard.device.models import Model
from devguard.errors import CODES, DevguardError, LinkError
from devguard.link.driver import SerialDriver
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Closed, Event, Failed, Message, Opened, PlainLost, Role
from devguard.link.parameters import LinkParameters
from devguard.link.runner import Pump
from devguard.session.conversation import Conversation
from devguard.session.device_side import Action, Ended, Keys, RebootNow, Reply
from devguard.session.table import State
from devguard.session.verbs import EdhocFailure, encode_message

IDLE_SECONDS: Final = 30.0
SESSION_SECONDS: Final = 4 * 3600.0
DURABLE_SECONDS: Final = 1.0  # each word of what is durable costs the line an answer: it is said no more often
_TICK: Final = 0.25
_DRAIN_SECONDS: Final = 2.0
_NOTED: Final = ("session.tampered", "session.replay")  # of a session's end on the line: somebody's work, not noise
_MAX_UNHEARD: Final = 16 * 1024
"""Bytes of answers that a bench may leave unacknowledged; an honest one takes each as it comes."""


class Powered(Protocol):
    """A booted device: a `DeviceNode`, or a `Unit`, which may become one."""

    @property
    def model(self) -> Model: ...
    def converse(self, random: Callable[[int], bytes]) -> Conversation: ...
    def lost(self) -> None: ...
    def refused(self, error: DevguardError, *, proved: bool = True) -> None: ...
    def boot(self) -> object: ...


class EmulatedDevice:
    """A booted device behind a link engine. `serve` runs until `stop` says so."""

    def __init__(self, node: Powered, driver: Pump, random: Callable[[int], bytes]) -> None:
        self._node = node
        self._driver = driver
        self._random = random
        self._engine = self._new_engine()
        self._plain: Conversation | None = None
        self._session: Conversation | None = None
        self._began = self._heard = 0.0
        self._told = -math.inf
        self._waiting: list[Event] = []  # came while the last answers of a session were on their way

    def _new_engine(self) -> LinkEngine:
        link = self._node.model.link
        parameters = LinkParameters(
            baud=0, window_bytes=link.receive_window, segment_max=link.segment_max, max_pending=_MAX_UNHEARD
        )
        return LinkEngine(Role.DEVICE, parameters, self._random)

    def serve(self, stop: Callable[[], bool]) -> None:
        """Answer the line until `stop()`, which is asked about four times a second at least."""
        while not stop():
            self._handle(self._waiting or self._driver.pump(self._engine, _TICK))
            self._time_out(self._driver.clock())

    def _handle(self, events: list[Event]) -> None:
        """One batch of the engine's events. A message speaks for the session whose keys opened it, and for no other:
        when those are replaced, or the engine is, the rest of the batch that belonged to them is void."""
        self._waiting = []
        engine, session = self._engine, self._session
        for event in events:
            if self._engine is not engine:
                return
            sealed = isinstance(event, Closed) or (isinstance(event, Message) and event.channel is Channel.SEALED)
            if not sealed or self._session is session:
                self._event(event)

    def _event(self, event: Event) -> None:
        now = self._driver.clock()
        if isinstance(event, Opened):
            self._plain = self._node.converse(self._random)
        elif isinstance(event, Message):
            conversation = self._plain if event.channel is Channel.PLAIN else self._session
            # Of an engine that has failed since, nothing can be answered any more; its Failed event comes last.
            if conversation is not None and self._engine.failed is None:
                if event.channel is Channel.SEALED:
                    self._heard = now  # noise on the open channel must not keep somebody else's session alive
                self._act(conversation, conversation.heard(event.data, sealed=event.channel is Channel.SEALED))
        elif isinstance(event, (Failed, Closed)):
            if isinstance(event, Failed) and event.code in _NOTED:
                self._node.refused(event.error(), proved=self._session is not None)
            self._drop()
            if isinstance(event, Failed):
                self._engine = self._new_engine()
        elif isinstance(event, PlainLost):
            self._plain = None

    def _act(self, conversation: Conversation, actions: list[Action]) -> None:
        for action in actions:
            now = self._driver.clock()
            if isinstance(action, Reply):
                if action.passing and now - self._told < DURABLE_SECONDS:
                    continue
                self._told = now if action.passing else self._told
                self._send(Channel.SEALED if action.sealed else Channel.PLAIN, action.message)
            elif isinstance(action, Keys) and conversation.state is State.LIMITED and self._authorised:
                # Whoever has no good grant yet does not take the line from somebody who has.
                busy = EdhocFailure(b"", "device.busy", CODES["device.busy"].cause)
                self._send(Channel.PLAIN, encode_message(busy))
                self._plain = None
                return
            elif isinstance(action, Keys):
                self._node.lost()
                self._engine.attach(action.records, now)
                self._session, self._began, self._heard, self._told = conversation, now, now, -math.inf
            elif isinstance(action, RebootNow):
                self._drain()
                self._reboot()
                return
            elif isinstance(action, Ended) and conversation is self._session:
                self._drain()
                self._drop()

    @property
    def _authorised(self) -> bool:
        return self._session is not None and self._session.state not in (State.LIMITED, State.CLOSED)

    def _send(self, channel: Channel, message: bytes) -> None:
        try:
            self._engine.send(channel, message, self._driver.clock())
        except DevguardError:
            # The channel went in the same breath as the question, or its bench asks on and on and takes no answer:
            # nobody is left to answer.
            return

    def _drain(self) -> None:
        """Let the last answers reach the bench. What comes meanwhile on the open channel is handled afterwards."""
        end = self._driver.clock() + _DRAIN_SECONDS
        while not self._engine.idle and self._driver.clock() < end:
            for event in self._driver.pump(self._engine, _TICK):
                if not isinstance(event, Message) or event.channel is Channel.PLAIN:
                    self._waiting.append(event)

    def _reboot(self) -> None:
        self._plain = self._session = None
        if self._engine.failed is None and any(isinstance(event, Opened) for event in self._waiting):
            self._engine.detach()  # a bench that opened anew meanwhile has its answer: it is served after the boot
        else:
            self._engine = self._new_engine()
            self._waiting = []
        self._node.boot()

    def _drop(self) -> None:
        if self._session is not None:
            self._node.lost()
        self._engine.detach()
        self._session = None

    def _time_out(self, now: float) -> None:
        if self._session is None:
            return
        # On a slow line a message may take longer than this to come whole: each of its segments counts.
        idle, age = now - max(self._heard, self._engine.sealed_heard), now - self._began
        if idle > IDLE_SECONDS or age > SESSION_SECONDS or self._session.state is State.CLOSED:
            self._drop()


class PtyLine:
    """A pseudo-terminal whose far end is given to the bench; both ends stay open so that benches come and go."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        import tty

        self._master, self._slave = os.openpty()
        for descriptor in (self._master, self._slave):
            tty.setraw(descriptor, when=0)  # TCSANOW: the default would drop what is in flight
        self.port = os.ttyname(self._slave)
        self.driver = SerialDriver.over_descriptor(self._master, self.port, clock)

    @property
    def descriptor(self) -> int:
        """The master's descriptor, for those who move the bytes themselves."""
        return self._master

    def close(self) -> None:
        """Give both ends back."""
        self.driver.close()
        os.close(self._slave)


class SocketLine:
    """A TCP port on the loopback interface; one bench at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "socket" or parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise LinkError(
                "link.port", f"{url} is not socket://127.0.0.1:PORT; an emulated device serves this machine only"
            )
        try:
            self._listener = socket.create_server((parts.hostname, parts.port or 0))
        except OSError as error:
            raise LinkError("link.port", f"cannot listen on {url}: {error.strerror}") from error
        self.port = f"socket://{parts.hostname}:{self._listener.getsockname()[1]}"

    def accept(self, stop: Callable[[], bool]) -> SerialDriver | None:
        """The next bench's connection; None when `stop()` came first."""
        self._listener.settimeout(_TICK)
        while not stop():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return SerialDriver.over_descriptor(connection.detach(), self.port)
        return None

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


def serve_line(
    line: PtyLine | SocketLine,
    node: Powered,
    random: Callable[[int], bytes],
    stop: Callable[[], bool],
    through: Callable[[Pump], Pump] = lambda driver: driver,
) -> None:
    """Serve a booted node on a line until `stop()`. On a socket each connection is a cable plugged in anew.

    `through`: what stands between the device and its port, for benches that meddle.
    """
    if isinstance(line, PtyLine):
        EmulatedDevice(node, through(line.driver), random).serve(stop)
        return
    while (driver := line.accept(stop)) is not None:
        with driver:
            try:
                EmulatedDevice(node, through(driver), random).serve(stop)
            except LinkError:
                node.lost()  # the bench hung up: the cable is out, the device lives on

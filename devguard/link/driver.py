"""Joins a link engine to a real port and to the monotonic clock. With `ports`, the only place that knows pyserial.

`/dev/ttyUSB0`, a pseudo-terminal, `socket://`, `rfc2217://` and `loop://` all work. A port that is missing, busy,
of the wrong kind or gone is LinkError("link.port"); a vanished peer never hangs the caller.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import serial
from serial.tools import list_ports as serial_list_ports

from devguard.errors import LinkError
from devguard.link.adapters import check_adapter, check_terminal
from devguard.link.ports import URL_TICK, DescriptorPort, Port, SerialPort

SCHEMES: Final = ("socket", "rfc2217", "loop")  # pyserial knows more; some of them write files
_WRITE_TIMEOUT: Final = 1.0
_STALLED: Final = 0.25  # how often a port that takes nothing is looked at
_LOOK: Final = 0.01
_BUSY: Final = frozenset({errno.EAGAIN, errno.EBUSY, errno.EWOULDBLOCK})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})

_OPEN_ERRORS: tuple[type[Exception], ...] = (serial.SerialException, OSError, ValueError)
try:
    import termios
except ImportError:  # Windows
    pass
else:
    _OPEN_ERRORS += (termios.error,)


E = TypeVar("E")


class Engine(Protocol[E]):
    """A sans-I/O end that a driver can move bytes for: `LinkEngine`, or those that speak SMP."""

    def data_to_send(self, now: float) -> bytes: ...
    def receive_bytes(self, data: bytes, now: float) -> list[E]: ...
    def next_timeout(self, now: float) -> float | None: ...


@dataclass(frozen=True, slots=True)
class PortInfo:
    """One serial port of this machine, as its driver describes it (nothing of it is authenticated)."""

    device: str
    description: str
    vendor_id: int | None
    product_id: int | None
    serial_number: str | None


def list_ports() -> list[PortInfo]:
    """The serial ports of this machine, by device name."""
    found = serial_list_ports.comports()
    ports = [PortInfo(p.device, p.description or "", p.vid, p.pid, p.serial_number) for p in found]
    return sorted(ports, key=lambda port: port.device)


class SerialDriver:
    """One open port. Use as a context manager or call `close`."""

    def __init__(self, port: Port, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds of any steady clock; a bench may bring its own, to let a wait pass at once: it is looked at
        often."""
        self._port = port
        self.name = name
        self._clock = clock
        self._longest = math.inf if clock is time.monotonic else _LOOK
        self._unsent = b""
        self._engine: object = None

    @classmethod
    def open(cls, url: str, baud: int, clock: Callable[[], float] = time.monotonic) -> SerialDriver:
        """Open a port for this process alone (where the system can promise it). LinkError("link.port")."""
        scheme, separator, _ = url.partition("://")
        local = not separator
        if local:
            _must_be_terminal(url)
        elif scheme not in SCHEMES:
            raise LinkError("link.port", f"unknown kind of port {scheme}://, expected a device or {', '.join(SCHEMES)}")
        try:
            port = serial.serial_for_url(
                url, baudrate=baud, timeout=URL_TICK, write_timeout=_WRITE_TIMEOUT, do_not_open=True
            )
            if local:
                port.exclusive = True
                if hasattr(port, "_reset_input_buffer"):
                    # pyserial flushes the input when it opens; what a pseudo-terminal holds then may be our answer
                    vars(port)["_reset_input_buffer"] = lambda: None
            port.open()
        except _OPEN_ERRORS as error:
            raise _not_opened(url, error) from error
        if os.name == "posix" and (local or scheme == "socket"):
            return cls(DescriptorPort(port.fileno(), url, port), url, clock)
        return cls(SerialPort(port, url), url, clock)

    @classmethod
    def over_descriptor(cls, descriptor: int, name: str, clock: Callable[[], float] = time.monotonic) -> SerialDriver:
        """Drive a descriptor that is open already (a pseudo-terminal's master, an accepted socket) and own it.
        The caller has set its terminal modes."""
        return cls(DescriptorPort(descriptor, name), name, clock)

    def clock(self) -> float:
        """The `now` of every engine this driver pumps."""
        return self._clock()

    def pump(self, engine: Engine[E], timeout: float) -> list[E]:
        """Move bytes both ways until the engine reports events or `timeout` seconds have passed (0: one round).
        LinkError("link.port") when the port vanishes; the engine's own failures arrive as events."""
        if engine is not self._engine:
            self._engine, self._unsent = engine, b""
        end = self.clock() + timeout
        while True:
            now = self.clock()
            self._unsent = self._unsent or engine.data_to_send(now)
            data, written = self._port.exchange(self._unsent, min(self._wait(engine, now, end), self._longest))
            self._unsent = self._unsent[written:]
            now = self.clock()
            events = engine.receive_bytes(data, now)
            if events or now >= end:
                self._push(engine, now)
                return events

    def listen(self, timeout: float) -> bytes:
        """What the port brings within `timeout` seconds; nothing is written. LinkError("link.port")."""
        return self._port.exchange(b"", timeout)[0]

    def _wait(self, engine: Engine[E], now: float, end: float) -> float:
        """Seconds until something is due. While bytes wait for the port only the engine's patience is watched: what
        else is due would queue behind them."""
        due = now + _STALLED if self._unsent else engine.next_timeout(now)
        return max(0.0, (end if due is None else min(end, due)) - now)

    def _push(self, engine: Engine[E], now: float) -> None:
        """Hand out what the events left due (acknowledgements) before the caller goes off to think."""
        self._unsent = self._unsent or engine.data_to_send(now)
        if self._unsent and isinstance(self._port, DescriptorPort):
            self._unsent = self._unsent[self._port.write_now(self._unsent) :]

    @property
    def unsent(self) -> int:
        """Bytes taken from the engine that the port has not accepted yet."""
        return len(self._unsent)

    def close(self) -> None:
        """Give the port back. Safe to call twice."""
        self._port.close()

    def __enter__(self) -> SerialDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _must_be_terminal(path: str) -> None:
    """A regular file, a disk, somebody's console, an adapter that is a keyboard too: refused before one byte is
    written to it."""
    if os.name != "posix":
        return
    try:
        check_terminal(path)
        check_adapter(path)
    except (OSError, ValueError) as error:
        raise _not_opened(path, error) from error


def _not_opened(url: str, error: Exception) -> LinkError:
    number = getattr(error, "errno", None)
    if number in _BUSY:
        return LinkError("link.port", f"port {url} is in use by another program")
    if number in _DENIED:
        return LinkError("link.port", f"no permission for port {url}", "join the group that owns the port (dialout)")
    if isinstance(error, FileNotFoundError) or number == errno.ENOENT:
        return LinkError("link.port", f"port {url} does not exist")
    return LinkError("link.port", f"port {url} cannot be opened: {error}")

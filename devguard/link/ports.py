"""Raw byte pipes under the driver: a file descriptor that never blocks, or pyserial's own read and write.

Never used here: tcdrain, tcflush and TIOCOUTQ. On a pseudo-terminal they lie or lose data. What a vanished peer
does to a port (hang-up, EIO, end of file) becomes LinkError("link.port").
"""

from __future__ import annotations

import os
import select
from typing import Final, Protocol

import serial

from devguard.errors import LinkError

READ_SIZE: Final = 64 * 1024
_URL_WRITE: Final = 256  # a chunk small enough for any speed within pyserial's write time-out
URL_TICK: Final = 0.01


class Port(Protocol):
    """A byte pipe that reports instead of hanging."""

    def exchange(self, out: bytes, timeout: float) -> tuple[bytes, int]:
        """Wait at most `timeout` seconds until bytes can be read or (some of `out`) written; what was read and
        how many bytes of `out` are gone."""

    def close(self) -> None: ...


def vanished(name: str, why: object) -> LinkError:
    """The error of a port that was there and is not any more."""
    return LinkError("link.port", f"port {name} vanished: {why}")


class DescriptorPort:
    """A non-blocking file descriptor: a terminal, a pseudo-terminal or a socket. `owner` is closed with it."""

    def __init__(self, descriptor: int, name: str, owner: serial.SerialBase | None = None) -> None:
        self._descriptor = descriptor
        self._name = name
        self._owner = owner
        self._closed = False
        self._poll = select.poll()
        os.set_blocking(descriptor, False)

    def exchange(self, out: bytes, timeout: float) -> tuple[bytes, int]:
        if self._closed:
            raise LinkError("link.port", f"port {self._name} is closed")
        wanted = select.POLLIN | (select.POLLOUT if out else 0)
        try:
            self._poll.register(self._descriptor, wanted)
            ready = self._poll.poll(max(0.0, timeout) * 1000)
            state = ready[0][1] if ready else 0
            return self._read(state), self._write(state, out)
        except OSError as error:
            raise vanished(self._name, error.strerror or error) from error

    def _read(self, state: int) -> bytes:
        if not state & (select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL):
            return b""
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return b""
        if not data:
            raise vanished(self._name, "end of file")
        return data

    def _write(self, state: int, out: bytes) -> int:
        if not out or not state & select.POLLOUT:
            return 0
        try:
            return os.write(self._descriptor, out)
        except BlockingIOError:
            return 0

    def write_now(self, out: bytes) -> int:
        """Write what fits without waiting. A port that is gone takes nothing: the next `exchange` reports it."""
        try:
            return 0 if self._closed else os.write(self._descriptor, out)
        except OSError:
            return 0

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._owner is not None:
                self._owner.close()
            else:
                os.close(self._descriptor)
        except OSError:  # the port is gone already, and that is what close asks for
            return


class SerialPort:
    """pyserial's own read and write with their time-outs, where there is no descriptor to wait on (rfc2217://,
    loop://, Windows). A chunk that times out while being written counts as gone: the link repeats it."""

    def __init__(self, port: serial.Serial, name: str) -> None:
        self._port = port
        self._name = name

    def exchange(self, out: bytes, timeout: float) -> tuple[bytes, int]:
        chunk = out[:_URL_WRITE]
        try:
            if chunk:
                self._write(chunk)
            waited = 0.0
            while True:
                data: bytes = self._port.read(1)
                if data:
                    return data + self._port.read(min(self._port.in_waiting, READ_SIZE)), len(chunk)
                waited += URL_TICK
                if chunk or waited >= timeout:
                    return b"", len(chunk)
        except (serial.SerialException, OSError, TypeError) as error:  # TypeError: pyserial after its own close
            raise vanished(self._name, error) from error

    def _write(self, chunk: bytes) -> None:
        try:
            self._port.write(chunk)
        except serial.SerialTimeoutException:
            return

    def close(self) -> None:
        try:
            self._port.close()
        except (serial.SerialException, OSError):
            return

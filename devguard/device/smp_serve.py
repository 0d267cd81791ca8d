"""An emulated device's SMP server on a line: console bytes in, console bytes out. The part with clock and ports.

One thread; a message is answered when it is whole, longer ones than the device's buffer are let go, as real ones do. A
reset that was answered happens when the answer has left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

from devguard.device.cells import Cells
from devguard.device.emulator import PtyLine, SocketLine
from devguard.device.flash import Fault
from devguard.device.models import Model
from devguard.device.smp_lies import Lie
from devguard.device.smp_server import SmpServer, longest_frame
from devguard.device.smp_slots import McubootSlots
from devguard.device.smp_target import LegacyDevice
from devguard.device.storage import DeviceDirectory
from devguard.errors import LinkError
from devguard.link.smp_console import ConsoleReader, encode_lines

_TICK: Final = 0.25
_DRAIN: Final = 0.05


class SmpServerEngine:
    """The device's end of a console: whole messages are its events. Sans-I/O."""

    def __init__(self, buffer_size: int) -> None:
        self._reader = ConsoleReader(longest_frame(buffer_size))
        self._out = bytearray()

    def send(self, frame: bytes) -> None:
        """Queue an answer."""
        self._out += encode_lines(frame)

    def data_to_send(self, now: float) -> bytes:
        """What the port is to write; once."""
        del now
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_bytes(self, data: bytes, now: float) -> list[bytes]:
        """The messages that are whole now."""
        del now
        return self._reader.feed(data)

    def next_timeout(self, now: float) -> float | None:
        """A server waits for nobody."""
        del now
        return None


class ServerPort(Protocol):
    """What serving needs of an open port; `SerialDriver` is one."""

    @property
    def unsent(self) -> int: ...
    def pump(self, engine: SmpServerEngine, timeout: float) -> list[bytes]: ...


def serve_port(
    port: ServerPort,
    server: SmpServer | Lie,
    reset: Callable[[], None],
    stop: Callable[[], bool],
) -> None:
    """Answer a port until `stop()`. Raises `LinkError` when the port vanishes."""
    engine = SmpServerEngine(server_of(server).buffer_size)
    while not stop():
        for frame in port.pump(engine, _TICK):
            answer = server.answer(frame)
            if answer is not None:
                engine.send(answer)
            if server.reset_wanted:
                port.pump(engine, _DRAIN)
                server.reset_wanted = False
                reset()
                engine = SmpServerEngine(server_of(server).buffer_size)
                break


def server_of(server: SmpServer | Lie) -> SmpServer:
    """The honest server, also behind a lie."""
    return server.server if isinstance(server, Lie) else server


def serve_line(
    line: PtyLine | SocketLine,
    server: SmpServer | Lie,
    reset: Callable[[], None],
    stop: Callable[[], bool],
) -> None:
    """Serve on a line until `stop()`. On a socket each connection is a cable plugged in anew."""
    if isinstance(line, PtyLine):
        serve_port(line.driver, server, reset, stop)
        return
    while (driver := line.accept(stop)) is not None:
        with driver:
            try:
                serve_port(driver, server, reset, stop)
            except LinkError:
                continue  # the bench hung up; the device lives on


def open_legacy(
    path: Path,
    model: Model,
    stack: ExitStack,
    *,
    fault: Fault | None = None,
    self_test: bool = True,
    harm: Callable[[Cells], None] = lambda _cells: None,
) -> LegacyDevice:
    """The legacy device in a state directory, not booted yet: one directory of flash files for each of its images.
    Closed with `stack`. `fault` hooks every flash operation of every image, `harm` may break the cells of each."""
    images = []
    for number in range(len(model.facts.components)):
        folder = path if number == 0 else path / f"image-{number}"
        directory = stack.enter_context(DeviceDirectory(folder, model))
        harm(directory.cells)
        images.append(McubootSlots(directory.flash(fault), model.layout))
    return LegacyDevice(tuple(images), model.layout.write_size, self_test)


def server_for(model: Model, target: LegacyDevice) -> SmpServer:
    """The model's server in front of a device."""
    return SmpServer(target, model.smp.buffer_size, model.smp.buffer_count)

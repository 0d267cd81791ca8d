"""A tap on a serial line: a pseudo-terminal in front of a device that passes everything on and remembers it."""

from __future__ import annotations

import os
import select
import threading
from types import TracebackType

from devguard.device.emulator import PtyLine
from devguard.errors import DevguardError, LinkError
from devguard.link.frames import FrameReader, Kind, decode_frame, frame_limit

_CHUNK = 65_536
_POLL = 0.2
_SEGMENT_MAX = 4096


class LineTap:
    """Joins a new pseudo-terminal to the device's one. `port` is for the bench; `to_device` is what it said."""

    def __init__(self, device_port: str) -> None:
        import tty

        self._line = PtyLine()
        self.port = self._line.port
        try:
            self._device = os.open(device_port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            self._line.close()
            raise LinkError("link.port", f"cannot tap {device_port}: {error.strerror}") from error
        tty.setraw(self._device, when=0)
        self.to_device = bytearray()
        self.from_device = bytearray()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line-tap", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        bench = self._line.descriptor
        pending = {bench: bytearray(), self._device: bytearray()}
        records = {bench: self.to_device, self._device: self.from_device}
        other = {bench: self._device, self._device: bench}
        while not self._stop.is_set():
            writers = [descriptor for descriptor, data in pending.items() if data]
            readable, writable, _ = select.select([*other], writers, [], _POLL)
            for descriptor in readable:
                try:
                    data = os.read(descriptor, _CHUNK)
                except (BlockingIOError, OSError):
                    continue
                records[descriptor] += data
                pending[other[descriptor]] += data
            for descriptor in writable:
                try:
                    del pending[descriptor][: os.write(descriptor, pending[descriptor])]
                except (BlockingIOError, OSError):
                    continue

    def close(self) -> None:
        """Take the tap off."""
        self._stop.set()
        self._thread.join()
        os.close(self._device)
        self._line.close()

    def __enter__(self) -> LineTap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def plain_messages(recorded: bytes) -> list[list[bytes]]:
    """The messages a recording shows in clear, one list for each connection: all that a thief of the line can read.

    Sealed frames are skipped: without the keys they say nothing.
    """
    connections: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for raw in FrameReader(frame_limit(_SEGMENT_MAX)).feed(recorded + b"\0"):
        try:
            frame = decode_frame(raw)
        except DevguardError:
            continue
        if frame.kind is Kind.DATA and frame.nonce is not None:
            connections.setdefault(frame.nonce, {})[frame.sequence] = (frame.body, frame.fin)
    return [_messages(segments) for segments in connections.values()]


def _messages(segments: dict[int, tuple[bytes, bool]]) -> list[bytes]:
    messages, current = [], b""
    for number in sorted(segments):
        body, final = segments[number]
        current += body
        if final:
            messages.append(current)
            current = b""
    return messages

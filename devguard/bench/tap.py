"""A tap on a serial line: a pseudo-terminal in front of a device that passes everything on, and does more when told.

It records always. A `Rule` sees every frame of the link before it goes on and says what goes on instead: nothing
(drop), the same (pass), others (alter, splice), or more (replay). `inject` says something of one's own; `hold` stops
the line. Without a rule bytes pass as they come, whatever they are.
"""

from __future__ import annotations

import enum
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from devguard.device.emulator import PtyLine
from devguard.errors import DevguardError, LinkError
from devguard.link.frames import DELIMITER, Frame, FrameReader, Kind, decode_frame, frame_limit

_CHUNK = 65_536
_POLL = 0.2
_NAP = 0.001
_SEGMENT_MAX = 4096


class Heading(enum.Enum):
    """Which way bytes go."""

    TO_DEVICE = "to the device"
    FROM_DEVICE = "from the device"


@dataclass(frozen=True, slots=True)
class Passing:
    """A frame on its way: the how-manieth of its heading under this rule, and its bytes between the delimiters."""

    heading: Heading
    number: int
    raw: bytes

    @property
    def frame(self) -> Frame | None:
        """What the bytes say; None for noise."""
        try:
            return decode_frame(self.raw)
        except DevguardError:
            return None


Rule = Callable[[Passing], Iterable[bytes]]
"""What goes on in place of a frame: stuffed frames without delimiters."""


class _Lane:
    """One heading: what was recorded, what waits to be written, what of a frame is held back for the rule."""

    def __init__(self, heading: Heading) -> None:
        self.heading = heading
        self.record = bytearray()
        self.pending = bytearray()
        self._held = bytearray()
        self._through = False  # the frame under way has been passed on in part
        self._count = 0

    def took(self, data: bytes, rule: Rule | None) -> None:
        """Bytes that came from one side; what of them goes on is in `pending` afterwards."""
        self.record += data
        if rule is None:
            self.pending += self._held + data
            self._held.clear()
            self._through = not data.endswith(DELIMITER)
            self._count = 0
            return
        *whole, rest = data.split(DELIMITER)
        for piece in whole:
            self._ended(piece, rule)
        if self._through:
            self.pending += rest
        else:
            self._held += rest

    def _ended(self, piece: bytes, rule: Rule) -> None:
        if self._through:
            self.pending += piece + DELIMITER
            self._through = False
            return
        raw = bytes(self._held) + piece
        self._held.clear()
        if not raw:
            self.pending += DELIMITER
            return
        for out in rule(Passing(self.heading, self._count, raw)):
            self.pending += out + DELIMITER
        self._count += 1


class LineTap:
    """Joins a new pseudo-terminal to the device's one. `port` is for the bench; `to_device` is what it said.

    `rule` may be set and taken away at any time.
    """

    def __init__(self, device_port: str, rule: Rule | None = None, *, baud: int | None = None) -> None:
        """`baud`: the speed of a real port; a pseudo-terminal has none."""
        self._line = PtyLine()
        self.port = self._line.port
        try:
            self._device = _open(device_port, baud)
        except LinkError:
            self._line.close()
            raise
        self.rule = rule
        self._lanes = {heading: _Lane(heading) for heading in Heading}
        self._said: deque[tuple[Heading, bytes]] = deque()
        self._holding = False
        self._other_end: int | None = None
        self._turns = 0
        self._stop = threading.Event()
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, name="line-tap", daemon=True)
        self._thread.start()

    @property
    def to_device(self) -> bytes:
        """All that the bench has said."""
        return bytes(self._lanes[Heading.TO_DEVICE].record)

    @property
    def from_device(self) -> bytes:
        """All that the device has said."""
        return bytes(self._lanes[Heading.FROM_DEVICE].record)

    @property
    def moved(self) -> tuple[int, int]:
        """How many bytes the bench, and the device, have said."""
        to_device, from_device = self._lanes.values()
        return len(to_device.record), len(from_device.record)

    def inject(self, heading: Heading, data: bytes) -> None:
        """Say `data` as if it came from the other side; not recorded."""
        self._said.append((heading, data))
        self._nudge()

    def plug_into(self, device_port: str) -> None:
        """Pull the device's end out and plug it in elsewhere."""
        self.plug_soon(device_port)
        self.turn()

    def plug_soon(self, device_port: str) -> None:
        """The same from within a rule: it is done when the rule has returned."""
        self._other_end = _open(device_port)

    def hold(self) -> None:
        """Let nothing through in either direction; both sides' bytes wait where they are."""
        self._holding = True

    def release(self) -> None:
        """Let what waits go on."""
        self._holding = False
        self._nudge()

    def turn(self) -> None:
        """Return when all that lay at either end has been looked at."""
        end = self._turns + 2
        while self._turns < end and self._thread.is_alive():
            self._nudge()
            time.sleep(_NAP)

    def _nudge(self) -> None:
        os.write(self._wake[1], b".")

    def _run(self) -> None:
        bench = self._line.descriptor
        while not self._stop.is_set():
            self._replug()
            lanes = {bench: self._lanes[Heading.TO_DEVICE], self._device: self._lanes[Heading.FROM_DEVICE]}
            target = {self._device: lanes[bench], bench: lanes[self._device]}
            sources = [] if self._holding else list(lanes)
            writers = [] if self._holding else [end for end, lane in target.items() if lane.pending]
            readable, writable, _ = select.select([*sources, self._wake[0]], writers, [], _POLL)
            for end in readable:
                data = self._read(end)
                if data and end in lanes:
                    lanes[end].took(data, self.rule)
            while self._said:
                heading, data = self._said.popleft()
                self._lanes[heading].pending += data
            for end in writable:
                self._write(end, target[end].pending)
            self._turns += 1

    def _replug(self) -> None:
        if self._other_end is not None:
            os.close(self._device)
            self._device, self._other_end = self._other_end, None

    @staticmethod
    def _read(end: int) -> bytes:
        try:
            return os.read(end, _CHUNK)
        except OSError:  # nothing there after all, or nobody has the port open
            return b""

    @staticmethod
    def _write(end: int, pending: bytearray) -> None:
        try:
            del pending[: os.write(end, pending)]
        except OSError:
            return

    def close(self) -> None:
        """Take the tap off."""
        self._stop.set()
        self._nudge()
        self._thread.join()
        os.close(self._device)
        for end in self._wake:
            os.close(end)
        self._line.close()

    def __enter__(self) -> LineTap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(port: str, baud: int | None = None) -> int:
    import termios
    import tty

    try:
        descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise LinkError("link.port", f"cannot tap {port}: {error.strerror}") from error
    tty.setraw(descriptor, when=0)
    speed = getattr(termios, f"B{baud}", None)
    if speed is not None:
        modes = termios.tcgetattr(descriptor)
        modes[4] = modes[5] = speed
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)
    return descriptor


def frames_of(recorded: bytes) -> list[bytes]:
    """The frames in a recording, stuffed, in order, noise included."""
    return FrameReader(frame_limit(_SEGMENT_MAX)).feed(recorded + DELIMITER)


def plain_messages(recorded: bytes) -> list[list[bytes]]:
    """The messages a recording shows in clear, one list for each connection: all that a thief of the line can read.

    Sealed frames are skipped: without the keys they say nothing.
    """
    connections: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for raw in frames_of(recorded):
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

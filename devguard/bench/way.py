"""One direction of a serial line: what it does to bytes, and when they arrive. No clock is read, no byte is real.

A `Way` paces 10 bits a byte, adds the latency, damages by seed, loses what is sent while the cable is out and counts
every byte. Bytes are handed over at each 0x00 and at the end of a write, each time when the last bit has arrived:
between two delimiters a reader of frames can tell nothing apart.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import Final

from devguard.bench.impair import UNHARMED, Damage, Impairer
from devguard.errors import LocalProtocolError
from devguard.link.parameters import BITS_PER_BYTE_ON_LINE

ADAPTER_PACKET: Final = 62  # data bytes of an FTDI-type adapter's full USB packet: it does not wait for the timer


@dataclass(frozen=True, slots=True)
class Shape:
    """A line. Times in seconds. `baud` 0: bytes take no time. `return_timer`: an FTDI-type adapter at the host hands
    over what came from the device when it has 62 bytes, else each time its timer ends (0: no such adapter). `cuts`:
    times [begin, end) at which the cable is out, from the line's first moment on."""

    baud: int = 115_200
    latency: float = 0.0
    return_timer: float = 0.0
    damage: Damage = UNHARMED
    cuts: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.baud < 0 or self.latency < 0 or self.return_timer < 0:
            raise LocalProtocolError("link.protocol", "a line has no negative speed, latency or timer")
        if any(not 0 <= begin <= end for begin, end in self.cuts):
            raise LocalProtocolError("link.protocol", "a cable is out from one time to a later one")

    @property
    def byte_time(self) -> float:
        """Seconds one byte occupies the line."""
        return BITS_PER_BYTE_ON_LINE / self.baud if self.baud else 0.0


class Way:
    """One direction. `put` what an end writes, `take` what has arrived; `sent` and `arrived` count bytes."""

    def __init__(self, shape: Shape, seed: str, *, return_timer: float = 0.0) -> None:
        self.shape = shape
        self.sent = self.arrived = 0
        self._impairer = Impairer(shape.damage, seed)
        self._adapter = _Adapter(return_timer) if return_timer else None
        self._free = -math.inf
        self._heap: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()

    def put(self, data: bytes, now: float) -> None:
        """Bytes written at `now`; they leave behind what was written before."""
        at = 0
        while at < len(data):
            end = data.find(b"\x00", at) + 1 or len(data)
            start = max(now, self._free)
            self._free = start + (end - at) * self.shape.byte_time
            self.sent += end - at
            self._carry(data[at:end], start)
            at = end

    def _carry(self, piece: bytes, start: float) -> None:
        """Bring `piece`, whose first bit leaves at `start`, to the other end."""
        step = self.shape.byte_time
        cuts = [(begin, end) for begin, end in self.shape.cuts if begin <= start + len(piece) * step and start < end]
        if cuts:
            times = (start + index * step for index in range(len(piece)))
            lost = [any(begin <= at < end for begin, end in cuts) for at in times]
            piece = bytes(byte for byte, gone in zip(piece, lost, strict=True) if not gone)
        got = self._impairer.damage(piece)
        if self._adapter is None:
            self._arrive(got, self._free)
            return
        for index in range(len(got)):
            for at, packet in self._adapter.put(got[index : index + 1], start + (index + 1) * step):
                self._arrive(packet, at)

    def _arrive(self, data: bytes, left: float, late: float = 0.0) -> None:
        if data:
            heapq.heappush(self._heap, (left + self.shape.latency + late, next(self._order), data))

    def due(self) -> float | None:
        """When the next bytes arrive, as far as is known now."""
        times = [self._heap[0][0]] if self._heap else []
        if self._adapter is not None and (at := self._adapter.due()) is not None:
            times.append(at + self.shape.latency)
        return min(times) if times else None

    def take(self, now: float) -> list[bytes]:
        """What has arrived by `now`, in order."""
        if self._adapter is not None and (at := self._adapter.due()) is not None and at + self.shape.latency <= now:
            self._arrive(self._adapter.flush(at), at)
        got = []
        while self._heap and self._heap[0][0] <= now:
            got.append(heapq.heappop(self._heap)[2])
            self.arrived += len(got[-1])
        return got


class _Adapter:
    """The chip of a USB adapter: it hands over full packets at once, and what it has when its timer ends. The timer
    runs from the last time anything was handed over."""

    __slots__ = ("_base", "_first", "_held", "_timer")

    def __init__(self, timer: float) -> None:
        self._timer = timer
        self._held = bytearray()
        self._base = self._first = 0.0

    def due(self) -> float | None:
        """When the timer hands over what is held; None when nothing is."""
        if not self._held:
            return None
        return self._base + math.ceil((self._first - self._base) / self._timer) * self._timer

    def flush(self, at: float) -> bytes:
        """Hand over at `at`."""
        packet = bytes(self._held)
        self._held.clear()
        self._base = at
        return packet

    def put(self, data: bytes, at: float) -> list[tuple[float, bytes]]:
        """One byte comes in at `at`; the packets that are complete by then."""
        packets = []
        due = self.due()
        if due is not None and due <= at:
            packets.append((due, self.flush(due)))
        if not self._held:
            self._first = at
        self._held += data
        if len(self._held) >= ADAPTER_PACKET:
            packets.append((at, self.flush(at)))
        return packets

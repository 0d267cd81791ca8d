"""Two link engines joined by a hostile line under a virtual clock, and a protector to seal their frames.

The line works frame by frame: it loses, doubles, delays, damages and precedes frames with noise, from a seeded
generator, at a paced speed, and hands them over in chunks of any size. Nothing here sleeps.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from devguard.errors import Refused
from devguard.link.channel import nearest
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Event, Failed, Message, Role
from devguard.link.parameters import LinkParameters


class CcmProtector:
    """AES-CCM with one key per direction and epoch, a fresh counter per call of `next`, and a replay set."""

    tag_size = 16

    def __init__(self, ours: bytes, theirs: bytes, per_epoch: int = 1 << 16) -> None:
        self._ours, self._theirs, self._per_epoch = ours, theirs, per_epoch
        self._count = 0
        self._highest: dict[int, int] = {}
        self._seen: set[tuple[int, int]] = set()
        self.used: list[tuple[int, int]] = []

    @classmethod
    def pair(cls, per_epoch: int = 1 << 16, seed: bytes = b"k") -> tuple[CcmProtector, CcmProtector]:
        one, two = seed * 8 + b"host-key", seed * 8 + b"dev--key"
        return cls(one, two, per_epoch), cls(two, one, per_epoch)

    def _cipher(self, key: bytes, epoch: int) -> AESCCM:
        return AESCCM(bytes(byte ^ (epoch & 255) for byte in key), tag_length=16)

    def next(self) -> tuple[int, int]:
        epoch, counter = divmod(self._count, self._per_epoch)
        self._count += 1
        self.used.append((epoch, counter))
        return epoch, counter

    def seal(self, epoch: int, counter: int, header: bytes, plaintext: bytes) -> bytes:
        return self._cipher(self._ours, epoch).encrypt(counter.to_bytes(13, "big"), plaintext, header)

    def open(self, epoch_low2: int, counter_low16: int, header: bytes, ciphertext: bytes) -> bytes:
        latest = max(self._highest, default=0)
        epoch = latest + ((epoch_low2 - latest + 1) & 3) - 1
        counter = nearest(self._highest.get(epoch, 0), counter_low16)
        if epoch < 0 or counter < 0:
            raise Refused("session.replay", "older than any record")
        try:
            nonce = counter.to_bytes(13, "big")
            plaintext = self._cipher(self._theirs, epoch).decrypt(nonce, ciphertext, header)
        except (InvalidTag, ValueError) as error:
            raise Refused("session.tampered", "tag is wrong") from error
        if (epoch, counter) in self._seen:
            raise Refused("session.replay", "opened before")
        self._seen.add((epoch, counter))
        self._highest[epoch] = max(counter, self._highest.get(epoch, 0))
        return plaintext


@dataclass
class Faults:
    """Chances per frame, except `flip` (per bit). `cuts` are times at which the cable is out."""

    loss: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    flip: float = 0.0
    noise: float = 0.0
    latency: float = 0.002
    baud: int = 115_200
    chunk: int = 0
    cuts: tuple[tuple[float, float], ...] = ()


def seeded(seed: int):
    source = random.Random(seed)
    return source.randbytes


@dataclass
class Bench:
    """Both engines, both directions of the line, one virtual clock."""

    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    parameters: LinkParameters = field(default_factory=LinkParameters)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.host = LinkEngine(Role.HOST, self.parameters, seeded(self.seed))
        self.device = LinkEngine(Role.DEVICE, self.parameters, seeded(self.seed + 1))
        self.events: dict[LinkEngine, list[Event]] = {self.host: [], self.device: []}
        self.wire: dict[LinkEngine, bytearray] = {self.host: bytearray(), self.device: bytearray()}
        self._heap: list[tuple[float, int, LinkEngine, bytes]] = []
        self._order = itertools.count()
        self._free: dict[LinkEngine, float] = {self.host: 0.0, self.device: 0.0}

    def attach(self, per_epoch: int = 1 << 16, seed: bytes = b"k") -> tuple[CcmProtector, CcmProtector]:
        host, device = CcmProtector.pair(per_epoch, seed)
        self.host.attach(host, self.now)
        self.device.attach(device, self.now)
        return host, device

    def opened(self) -> Bench:
        self.host.open(self.now)
        assert self.run(lambda: self.host.idle and self.device.idle and bool(self.events[self.host]))
        return self

    def messages(self, engine: LinkEngine, channel: Channel = Channel.SEALED) -> list[bytes]:
        return [e.data for e in self.events[engine] if isinstance(e, Message) and e.channel is channel]

    def failures(self, engine: LinkEngine) -> list[str]:
        return [event.code for event in self.events[engine] if isinstance(event, Failed)]

    def other(self, engine: LinkEngine) -> LinkEngine:
        return self.device if engine is self.host else self.host

    def inject(self, target: LinkEngine, data: bytes) -> None:
        self.events[target] += target.receive_bytes(data, self.now)

    def run(self, until, seconds: float = 600.0) -> bool:
        """Advance the virtual clock until the condition holds or nothing more can happen; whether it holds."""
        end = self.now + seconds
        while not until():
            for engine in (self.host, self.device):
                self._carry(engine, engine.data_to_send(self.now))
            times = [engine.next_timeout(self.now) for engine in (self.host, self.device)]
            times += [self._heap[0][0]] if self._heap else []
            known = [time for time in times if time is not None]
            if not known or min(known) > end:
                return until()
            self.now = max(self.now, min(known))
            self._deliver()
        return True

    def _deliver(self) -> None:
        for engine in (self.host, self.device):
            self.inject(engine, b"")
        while self._heap and self._heap[0][0] <= self.now:
            _, _, target, data = heapq.heappop(self._heap)
            size = self.faults.chunk or len(data)
            for at in range(0, len(data), size):
                self.inject(target, data[at : at + size])

    def _carry(self, engine: LinkEngine, burst: bytes) -> None:
        self.wire[engine] += burst
        for piece in burst.split(b"\x00")[:-1]:
            self._frame(engine, piece + b"\x00")

    def _frame(self, engine: LinkEngine, wire: bytes) -> None:
        faults, chance = self.faults, self.random.random
        start = max(self.now, self._free[engine])
        self._free[engine] = start + (len(wire) * 10 / faults.baud if faults.baud else 0)
        arrival = self._free[engine] + faults.latency
        if any(begin <= start < end for begin, end in faults.cuts) or chance() < faults.loss:
            return
        if chance() < faults.noise:
            wire = self.random.randbytes(self.random.randrange(1, 40)) + wire
        if faults.flip and chance() < 1 - (1 - faults.flip) ** (8 * len(wire)):
            damaged = bytearray(wire)
            damaged[self.random.randrange(len(wire))] ^= 1 << self.random.randrange(8)
            wire = bytes(damaged)
        late = self.random.uniform(0.0, 0.3) if chance() < faults.delay else 0.0
        for _ in range(2 if chance() < faults.double else 1):
            heapq.heappush(self._heap, (arrival + late, next(self._order), self.other(engine), wire))

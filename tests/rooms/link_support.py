"""Two link engines joined by a hostile line under a virtual clock, and a protector to seal their frames.

The line works frame by frame: it loses, doubles, delays, damages and precedes frames with noise, from a seeded
generator, at a paced speed, and hands them over in chunks of any size. Nothing here sleeps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from devguard.bench.line import VirtualClock, VirtualLine
from devguard.bench.way import Shape, Way
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


class FrameWay(Way):
    """A direction of the line that does harm frame by frame, as `owner.faults` says at that moment."""

    def __init__(self, owner: Any, random: Random) -> None:
        super().__init__(Shape(), "unharmed")
        self._owner = owner
        self._random = random
        self.wire = bytearray()

    def put(self, data: bytes, now: float) -> None:
        faults = self._owner.faults
        self.shape = Shape(faults.baud, faults.latency)
        self.wire += data
        super().put(data, now)

    def _carry(self, piece: bytes, start: float) -> None:
        faults, chance = self._owner.faults, self._random.random
        if any(begin <= start < end for begin, end in faults.cuts) or chance() < faults.loss:
            return
        if chance() < faults.noise:
            piece = self._random.randbytes(self._random.randrange(1, 40)) + piece
        if faults.flip and chance() < 1 - (1 - faults.flip) ** (8 * len(piece)):
            damaged = bytearray(piece)
            damaged[self._random.randrange(len(piece))] ^= 1 << self._random.randrange(8)
            piece = bytes(damaged)
        late = self._random.uniform(0.0, 0.3) if chance() < faults.delay else 0.0
        for _ in range(2 if chance() < faults.double else 1):
            self._arrive(piece, self._free, late)

    def take(self, now: float) -> list[bytes]:
        size = self._owner.faults.chunk
        pieces = super().take(now)
        return [piece[at : at + size] for piece in pieces for at in range(0, len(piece), size)] if size else pieces


def seeded(seed: int):
    return Random(seed).randbytes


@dataclass
class Bench:
    """Two engines on a `VirtualLine` of such ways, and everything they reported. `shape`: harm is done byte by byte
    instead. `other_device` in place of the usual one."""

    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    parameters: LinkParameters = field(default_factory=LinkParameters)
    other_device: LinkEngine | None = None
    shape: Shape | None = None

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.host = LinkEngine(Role.HOST, self.parameters, seeded(self.seed))
        self.device = self.other_device or LinkEngine(Role.DEVICE, self.parameters, seeded(self.seed + 1))
        ways = FrameWay(self, self.random), FrameWay(self, self.random)
        self.line = VirtualLine(VirtualClock(), *ways) if self.shape is None else VirtualLine.of(self.shape, self.seed)
        self.names = {self.host: "host", self.device: "device"}
        sides = {engine: self.line.plug(name, engine) for engine, name in self.names.items()}
        self.events: dict[LinkEngine, list[Event]] = {engine: side.events for engine, side in sides.items()}
        self.wire = {self.host: ways[0].wire, self.device: ways[1].wire}

    @property
    def now(self) -> float:
        return self.line.now

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

    def inject(self, target: LinkEngine, data: bytes) -> None:
        self.line.inject(self.names[target], data)

    def run(self, until, seconds: float = 600.0) -> bool:
        """Advance the virtual clock until the condition holds or nothing more can happen; whether it holds."""
        end = self.now + seconds
        while not until():
            self.line.carry()
            at = self.line.due()
            if at is None or at > end:
                return until()
            self.line.advance(at)
        return True


def gentle(shape: Shape) -> bool:
    """Whether a link has to get through on such a line, whatever the seed."""
    damage = shape.damage
    return not shape.cuts and damage.ber <= 2e-5 and max(damage.drop, damage.double, damage.noise) <= 2e-4


def check_line(seed: int, shape: Shape, sizes: list[int]) -> None:
    """Messages both ways at once. Each comes once, whole, in order, or the link says why not, and on a gentle line each
    does come."""
    bench = Bench(seed, shape=shape, parameters=LinkParameters(baud=shape.baud))
    bench.host.open(bench.now)
    bench.run(lambda: bool(bench.events[bench.host]) and bool(bench.events[bench.device]))
    if not bench.failures(bench.host):
        bench.attach(per_epoch=64)
        forth = [Random(seed + at).randbytes(size) for at, size in enumerate(sizes)]
        for message in forth:
            bench.host.send(Channel.SEALED, message, bench.now)
            bench.device.send(Channel.SEALED, message[::-1], bench.now)
        bench.run(lambda: (bench.host.idle or bench.host.failed) and (bench.device.idle or bench.device.failed))
        arrived, answered = bench.messages(bench.device), [message[::-1] for message in bench.messages(bench.host)]
        assert arrived == forth[: len(arrived)]
        assert answered == forth[: len(answered)]
        assert arrived == answered == forth or bench.failures(bench.host) or bench.failures(bench.device)
    failures = {*bench.failures(bench.host), *bench.failures(bench.device)}
    assert failures <= (set() if gentle(shape) else {"link.timeout"})
    for engine, way in ((bench.host, bench.line.forward), (bench.device, bench.line.back)):
        assert way.sent == engine.statistics.bytes_sent

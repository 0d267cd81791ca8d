"""MCUboot images, a legacy device in memory, and a lossy line on a virtual clock between it and devguard's SMP side."""

from __future__ import annotations

import hashlib
import heapq
import io
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from builders import NOW, describe, make_image, make_vendor, measure_images, sign_envelope
from devguard.cose.roles import RoleName
from devguard.device.flash import FlashMemory, MemoryBackend
from devguard.device.models import load_model
from devguard.device.smp_lies import Lie, LieKind
from devguard.device.smp_serve import SmpServerEngine, server_for, server_of
from devguard.device.smp_server import SmpServer
from devguard.device.smp_slots import McubootSlots
from devguard.device.smp_target import LegacyDevice
from devguard.grant.check import CheckedGrant, DeviceView
from devguard.image.measure import measure
from devguard.link.parameters import LinkParameters
from devguard.link.smp_console import FIRST
from devguard.link.smp_engine import SmpEngine, SmpEvent, smp_parameters
from devguard.link.smp_runner import SmpRunner
from devguard.manifest.build import build_envelope
from devguard.manifest.description import ComponentDescription
from devguard.manifest.envelope import Envelope, Payload
from devguard.manifest.model import Clock
from devguard.session.smp_image import JudgedImage, judged_images
from devguard.session.smp_update import Outcome, SmpUpdate, survey
from devguard.verdict.judge import Release, Target, judge
from rooms.grant_support import TESS, check, make_grant, scoped

LEGACY = "mcumgr-legacy"
DUAL = "mcumgr-legacy-dual"
SERIAL = "ML-0001"
VENDOR = make_vendor("grants", grant_epoch=3)
MAGIC = 0x96F3B83D


def mcuboot(
    size: int = 3000, version: tuple[int, int, int, int] = (1, 1, 0, 0), seed: str = "app", **more: Any
) -> bytes:
    """An unsigned MCUboot image with a SHA-256 TLV; `flags` of its header, further `tlvs` (type, value)."""
    body = make_image(size, seed)
    head = struct.pack("<IIHHIIBBHII", MAGIC, 0, 32, 0, len(body), more.get("flags", 0), *version, 0)
    digest = hashlib.sha256(head + body).digest()
    tlvs = [(0x10, more.get("digest", digest)), *more.get("tlvs", [])]
    area = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in tlvs)
    return head + body + struct.pack("<HH", 0x6907, 4 + len(area)) + area


def image_hash(image: bytes) -> bytes:
    """The value of the hash TLV that `mcuboot` wrote."""
    size = struct.unpack_from("<I", image, 12)[0]
    return image[32 + size + 8 : 32 + size + 40]


def envelope_of(images: dict[str, bytes], model: str = LEGACY, **fields: Any) -> Envelope:
    """A signed release of these images by component, with the images inside."""
    facts = load_model(model).facts
    parts = tuple(ComponentDescription(name, f"{name}.bin", "raw", (), ()) for name in images)
    measured = {name: measure(io.BytesIO(data)) for name, data in images.items()}
    envelope = build_envelope(describe(facts, components=parts, **fields), facts, measured, detached=False)
    held = {name: Payload(0, len(images[name[1:]]), images[name[1:]]) for name in envelope.payloads}
    return sign_envelope(replace(envelope, payloads=held), VENDOR.release_signers)


def release_of(images: dict[str, bytes], model: str = LEGACY, **fields: Any) -> Release:
    """The same, judged."""
    [first, *others] = images.values()
    found = measure_images(images) if others else measure(io.BytesIO(first))
    target = Target(model=load_model(model).facts)
    envelope = envelope_of(images, model, **fields)
    return judge(envelope, trust=VENDOR.trust, now=NOW, target=target, payload=found).require()


def grant_for(model: str = LEGACY, **fields: Any) -> CheckedGrant:
    """A checked grant of Tess's for the legacy device. `release`: good for the one with that manifest digest only."""
    view = DeviceView(model=model, serial=SERIAL, site=None, clock=Clock.RTC, epoch=3, nonces=None)
    release = fields.pop("release", None)
    only: dict[str, Any] = {} if release is None else {"release_digest": release, "any_release": False}
    scope = scoped(models=frozenset({model}), serials=frozenset({SERIAL}), **only)
    authority = VENDOR.signer(RoleName.TECHNICIAN_AUTHORITY)
    grant = make_grant(scope, signers=[authority], **fields)
    return check(grant, device=view, trust=VENDOR.trust, holder=fields.get("holder", TESS.key))


def legacy(model: str = LEGACY, factory: tuple[bytes, ...] = (), **more: Any) -> LegacyDevice:
    """A legacy device in memory with these images from the factory, booted."""
    facts = load_model(model)
    found = []
    for number in range(len(facts.facts.components)):
        flash = FlashMemory(facts.layout.flash, MemoryBackend(facts.layout.flash.size), more.get("fault"))
        slots = McubootSlots(flash, facts.layout)
        slots.factory(factory[number] if number < len(factory) else mcuboot(2000, (1, 0, 0, 0), f"factory{number}"))
        found.append(slots)
    device = LegacyDevice(tuple(found), facts.layout.write_size, more.get("self_test", True))
    device.boot()
    return device


@dataclass
class Line:
    """The host's end of a line to an SMP server; a `SmpPort`. Seconds are virtual.

    `ber`: bits flipped, `drop`: console lines lost, both ways. `service`: seconds the device takes for an answer.
    `boot`: seconds without any after a reset. `most_lines`: lines of a message the device's UART can hold. `tap`
    stands between the server and the line.
    """

    device: LegacyDevice
    server: SmpServer | Lie
    baud: int = 115_200
    ber: float = 0.0
    drop: float = 0.0
    seed: int = 1
    latency: float = 0.002
    service: Callable[[bytes], float] = lambda _frame: 0.005
    boot: float = 2.0
    most_lines: int | None = None
    now: float = 100.0
    resets: int = 0
    asked: list[bytes] = field(default_factory=list)
    noise: bytes = b""
    tap: Callable[[bytes, Callable[[bytes], bytes | None]], bytes | None] = lambda frame, answer: answer(frame)
    closed: int = 0
    _heap: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    _count: int = 0
    _free: dict[str, float] = field(default_factory=dict)
    _deaf: float = 0.0
    _busy: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._engine = SmpServerEngine(server_of(self.server).buffer_size)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def close(self) -> None:
        self.closed += 1

    def _carry(self, way: str, data: bytes, at: float) -> None:
        """Line by line, as a console sends them; a small device holds so many of one message."""
        held = 0
        for one in data.splitlines(keepends=True):
            begins = max(at, self._free.get(way, 0.0))
            self._free[way] = begins + len(one) * 10 / self.baud
            held = 1 if one.startswith(FIRST) else held + 1
            if way == "to" and self.most_lines is not None and held > self.most_lines:
                continue
            self._count += 1
            heapq.heappush(self._heap, (self._free[way] + self.latency, self._count, way, self._harm(one)))

    def _harm(self, line: bytes) -> bytes:
        if self.random.random() < self.drop:
            return b""
        kept, at = bytearray(line), -1
        while self.ber:
            at += 1 + int(self.random.expovariate(self.ber))
            if at >= 8 * len(kept):
                break
            kept[at // 8] ^= 1 << at % 8
        return bytes(kept)

    def pump(self, engine: SmpEngine, timeout: float) -> list[SmpEvent]:
        end = self.now + timeout
        while True:
            if data := engine.data_to_send(self.now):
                self._carry("to", data, self.now)
            due = engine.next_timeout(self.now)
            times = [end, *([due] if due is not None else []), *([self._heap[0][0]] if self._heap else [])]
            self.now = max(self.now, min(times))
            events: list[SmpEvent] = []
            while self._heap and self._heap[0][0] <= self.now:
                _, _, way, data = heapq.heappop(self._heap)
                if way == "to":
                    self._served(data)
                else:
                    events += engine.receive_bytes(data, self.now)
            events += engine.receive_bytes(b"", self.now)
            if events or self.now >= end:
                return events

    def _served(self, data: bytes) -> None:
        if self.now < self._deaf:
            return
        for frame in self._engine.receive_bytes(data, self.now):
            self.asked.append(frame)
            self._busy = max(self._busy, self.now) + self.service(frame)
            answer = self.tap(frame, self.server.answer)
            if answer is not None:
                self._engine.send(answer)
                self._carry("back", self.noise + self._engine.data_to_send(self.now), self._busy)
            if self.server.reset_wanted:
                self.server.reset_wanted = False
                self.resets += 1
                self._deaf = self.now + self.boot
                self._engine = SmpServerEngine(server_of(self.server).buffer_size)
                self.device.boot()

    def runner(self, parameters: LinkParameters | None = None) -> SmpRunner:
        """Runs scripts over this line."""
        limits = parameters or smp_parameters(self.baud)
        return SmpRunner(lambda: self, limits, bytes, self.clock, self.sleep).__enter__()


def line_to(device: LegacyDevice, model: str = LEGACY, lie: LieKind | None = None, **fields: Any) -> Line:
    """A line to the model's server in front of `device`."""
    server: SmpServer | Lie = server_for(load_model(model), device)
    return Line(device, server if lie is None else Lie(server, lie), **fields)


def judged(release: Release, images: dict[str, bytes]) -> tuple[JudgedImage, ...]:
    """The images as an update wants them."""
    return judged_images(release, {name: io.BytesIO(data) for name, data in images.items()})


def push(line: Line, images: dict[str, bytes], model: str = LEGACY, **fields: Any) -> Outcome:
    """Survey and push, as the command does."""
    release = release_of(images, model)
    update = SmpUpdate(release, grant_for(model), judged(release, images), lambda: NOW, **fields)
    runner = line.runner()
    return runner.run(update.push(runner.run(survey())))

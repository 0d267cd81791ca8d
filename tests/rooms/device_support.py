"""A small device for flash and boot tests: in-memory flash, counters, and power that can be cut at any step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from devguard.device.bootloader import Bootloader, BootResult
from devguard.device.counters import Counters, check_no_regression
from devguard.device.flash import FlashMemory, MemoryBackend, Operation, PowerCut, Tear
from devguard.device.header import SlotHeader
from devguard.device.layout import Layout
from devguard.device.models import Model, load_model

SMALL = Layout(slot_size=6 * 512, sector_size=512, page_size=64, write_size=4, envelope_size=512)
NOW = 1_790_000_000


def small_model(trial_boots: int = 1) -> Model:
    return replace(load_model("insulin-pump"), layout=SMALL, trial_boots=trial_boots)


@dataclass(frozen=True)
class Build:
    """One image with its header and envelope."""

    image: bytes
    envelope: bytes
    header: SlotHeader

    @property
    def name(self) -> str:
        return self.header.version


def make_build(version: str, sequence: int, size: int, security_version: int = 0, algorithm: int = -16) -> Build:
    image = b"".join(hashlib.sha256(f"{version} {n}".encode()).digest() for n in range(size // 32 + 1))[:size]
    envelope = f"envelope of {version}; ".encode() * 12
    name = {-16: "sha256", -43: "sha384", -44: "sha512"}[algorithm]
    header = SlotHeader.of(
        size=size,
        digest_algorithm=algorithm,
        digest=hashlib.new(name, image).digest(),
        manifest_digest=hashlib.sha256(b"manifest " + version.encode()).digest(),
        sequence=sequence,
        security_version=security_version,
        version=version,
        envelope=envelope,
    )
    return Build(image, envelope, header)


def accept(header: SlotHeader, envelope: bytes) -> None:
    """A judge that knows the builds' envelopes."""
    assert envelope.startswith(f"envelope of {header.version}; ".encode())


@dataclass
class Power:
    """Counts every flash operation and every save; cuts at number `cut_at`, in the way `how` says."""

    cut_at: int | None = None
    how: str = "before"
    count: int = 0

    def step(self) -> bool:
        self.count += 1
        return self.cut_at is not None and self.count == self.cut_at

    def fault(self, operation: Operation, address: int, length: int) -> Tear | None:
        if not self.step():
            return None
        if self.how == "before":
            raise PowerCut("cut")
        if self.how == "after":
            return Tear(length)
        if self.how == "late":
            return Tear(length - 4, 0x3C)
        return Tear(length // 2 // 4 * 4, 0x5A)


HOWS = ("before", "half", "late", "after")


class RigStore:
    """A counter store whose save is a step at which the power may go, before or after."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def load(self) -> Counters:
        return self.rig.counters

    def save(self, counters: Counters) -> None:
        check_no_regression(self.rig.counters, counters)
        power = self.rig.power
        cut = power.step()
        if cut and power.how in ("before", "half"):
            raise PowerCut("cut")
        self.rig.counters = counters
        if cut:
            raise PowerCut("cut")


@dataclass
class Rig:
    """One device. `reset` is a power cycle: only flash and counters stay."""

    model: Model = field(default_factory=small_model)
    power: Power = field(default_factory=Power)
    counters: Counters = field(default_factory=Counters)
    backend: MemoryBackend = field(init=False)
    boot_loader: Bootloader = field(init=False)

    def __post_init__(self) -> None:
        self.backend = MemoryBackend(self.model.layout.flash.size)
        self.reset()

    def reset(self) -> None:
        flash = FlashMemory(self.model.layout.flash, self.backend, self.power.fault)
        self.boot_loader = Bootloader(flash, self.model, RigStore(self))

    def snapshot(self) -> tuple[bytes, Counters]:
        return bytes(self.backend.data), self.counters

    def restore(self, state: tuple[bytes, Counters], power: Power | None = None) -> None:
        self.backend.data[:] = state[0]
        self.counters = state[1]
        self.power = power or Power()
        self.reset()

    def boot(self, verify=accept) -> BootResult:
        self.reset()
        return self.boot_loader.boot(verify, NOW)

    def download(self, build: Build, *, chunk: int = 100, now: int = NOW) -> None:
        loader = self.boot_loader
        at = loader.prepare(build.header.manifest_digest, len(build.image), now)
        while at < len(build.image):
            loader.write(at, build.image[at : at + chunk])
            at += len(build.image[at : at + chunk])
        loader.finish(build.header, build.envelope)
        loader.mark_pending()

    def trial(self, build: Build, *, confirm: bool = True) -> BootResult:
        """Download, reset, and confirm where asked."""
        self.download(build)
        result = self.boot()
        if confirm and result.header == build.header:
            assert self.boot_loader.self_test(lambda: True)
            result = self.boot_loader.confirm()
        return result

    def fresh_hour(self) -> None:
        """Forget the erase times: an hour has passed."""
        self.counters = replace(self.counters, erase_times=())

    def image(self, slot: str = "primary") -> bytes:
        place = getattr(self.model.layout, slot)
        return bytes(self.backend.data[place.image : place.image + place.image_capacity])

    def flip(self, address: int, bit: int = 0) -> None:
        self.backend.data[address] ^= 1 << bit


def with_running(build: Build, **kwargs: object) -> Rig:
    """A device that runs `build`, confirmed."""
    rig = Rig(**kwargs)  # type: ignore[arg-type]
    rig.boot()
    rig.trial(build)
    rig.fresh_hour()
    rig.boot()
    return rig

"""The world in which rows are played: a vendor, a technicians' station with its log, a device that runs a release.

It is made once for a model by the commands that people would type, over the line, then every row begins with a copy of
the station and the same device. That an honest push goes through is seen here, before anybody is accused of refusing.
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from devguard.bench.attacks.device import BenchDevice, Kept
from devguard.bench.attacks.host import Answer, BenchClock, Host
from devguard.bench.attacks.vendor import HOUR, TECHNICIANS, TRUST_OPTIONS, Vendor, write_release
from devguard.bench.stage import NOW, Build
from devguard.device.models import Model, load_model
from devguard.errors import DevguardError, Refused
from devguard.grant.claims import Grant
from devguard.manifest.model import Clock
from devguard.session.approval import ApprovalRequest, sign_approval
from devguard.trust.document import TrustDocument, read_trust

BAUD: Final = "4000000"  # of a pseudo-terminal: what a real line takes its time for is not under attack
SERIAL: Final = {"insulin-pump": "IP-4711", "pacemaker-programmer": "PP-0815"}
SITE: Final = "ward-4"
OLD, CURRENT, NEXT = ("1.0.0", 1), ("1.1.0", 2), ("1.2.0", 3)
"""Versions and sequence numbers: the slot keeps the old one, the device runs the current one, the next is honest. A
device that has come further has others under these names: see `World.shift`."""
TRUST_DAYS: Final = 365


@dataclass(slots=True)
class World:
    """All of it for one model. `station` is the home that rows get copies of; `ticks`: when rows begin.

    `shift`, `security_shift`: what is added to the sequence numbers and security versions that rows are written with,
    for a device that has come further.
    """

    model: Model
    host: Host
    folder: Path
    clock: BenchClock
    vendor: Vendor
    station: Path
    trust: bytes
    device: BenchDevice
    releases: dict[str, Build]
    kept: Kept
    ticks: float
    baud: str = BAUD
    shift: int = 0
    security_shift: int = 0

    @classmethod
    def make(cls, name: str, host: Host, folder: Path) -> World:
        """Keys, trust, device, and two honest pushes. `Refused` when an honest step does not go through."""
        model, clock = load_model(name), BenchClock(NOW)
        vendor = Vendor.make(folder / "vendor")
        trust = make_trust(model, host, vendor, clock, folder)
        station = make_station(vendor, trust, folder / "station")
        device = BenchDevice(model, folder / "device", SERIAL[name], SITE, trust, vendor.signer("factory"), clock)
        device.power_on()
        world = cls(model, host, folder, clock, vendor, station, trust, device, {}, device.kept(), 0.0)
        world.renew()
        try:
            for version, _ in (OLD, CURRENT):
                world.honest_push(world.releases[version], station)
                clock.advance(2 * HOUR)
        except DevguardError:
            device.close()
            raise
        device.settle()
        world.kept, world.ticks = device.kept(), clock.ticks()
        return world

    def renew(self) -> None:
        """Make the releases before, now and next, by the numbers that the device has reached."""
        self.releases = {}
        for version, sequence in (OLD, CURRENT, NEXT):
            number, security = sequence + self.shift, max(1, sequence - 1) + self.security_shift
            named = f"1.{number - 1}.0"
            self.releases[version] = self.vendor.release(self.model.facts, named, number, security_version=security)

    @property
    def outside(self) -> bool:
        """Whether the device is somebody else's."""
        return False

    @property
    def document(self) -> TrustDocument:
        """The trust document in force."""
        return read_trust(self.trust)

    @property
    def now(self) -> int:
        """Seconds since the epoch."""
        return int(self.clock.true_time())

    def run(self, home: Path, *args: str | Path, env: Mapping[str, str] | None = None) -> Answer:
        """A command of the host program on that home."""
        status, data = self.host.run(
            args, home, self.clock, {"DEVGUARD_PASSPHRASE": self.vendor.passphrase, **(env or {})}
        )
        return Answer(status, data)

    def must(self, home: Path, *args: str | Path) -> Mapping[str, Any]:
        """A command that has to succeed."""
        answer = self.run(home, *args)
        if answer.status != 0:
            raise Refused(
                answer.code or "internal.error", f"an honest `devguard {' '.join(map(str, args[:2]))}` failed"
            )
        return answer.data

    def grant(self, name: str = TECHNICIANS[0], **fields: Any) -> Grant:
        """A grant on the device, with its nonce where the trust document asks for one."""
        if self.model.facts.clock is Clock.NONE and "device_nonce" not in fields:
            fields["device_nonce"] = self.nonce()
        return self.vendor.grant(self.model.name, self.device.serial, name, self.now, **fields)

    def nonce(self) -> bytes | None:
        """The device's nonce, which its authority asks it for."""
        return self.device.counters.nonce

    def refresh(self) -> None:
        """Learn again what only the device knows and a push may have changed."""

    def not_noted(self, _codes: Sequence[str | None]) -> str | None:
        """What is wrong with the log of a device from outside, in which these refusals have to stand."""
        return None

    def technicians(self) -> tuple[str, ...]:
        """Who has to approve a push."""
        return TECHNICIANS[: self.model.facts.technicians]

    def push_options(self, folder: Path, grants: Sequence[Grant] | None = None) -> list[str | Path]:
        """What a push of this model is told: port, keys, and the technicians' grants, fresh ones unless given."""
        given = list(grants) if grants is not None else [self.grant(name) for name in self.technicians()]
        options: list[str | Path] = ["--port", self.device.port, "--baud", self.baud, "--progress", "none"]
        options += ["--delta", "never"]  # patches are made by a process of its own, and are not under attack here
        for name, one, prefix in zip(self.technicians(), given, ("--", "--second-"), strict=False):
            path = folder / f"{one.cti.hex()}.grant"
            path.write_bytes(one.raw)
            options += [f"{prefix}key", name, f"{prefix}grant", path]
        return options

    def honest_push(self, build: Build, home: Path) -> Mapping[str, Any]:
        """A push that has to go through, and leaves its release confirmed."""
        folder = self.folder / "honest"
        folder.mkdir(exist_ok=True)
        file = write_release(build, self.model.facts, folder / f"{build.envelope.manifest_digest.hex()}.suit")
        return self.must(home, "push", file, "--serial", self.device.serial, *self.push_options(folder))

    def key_approver(self, second: Grant) -> Callable[[ApprovalRequest], tuple[bytes, bytes]]:
        """The second technician in the same room."""
        digest = hashlib.sha256(second.untagged).digest()
        return lambda request: (sign_approval(request, self.vendor.signer("second"), digest), second.untagged)

    def another(self, folder: Path, serial: str, site: str) -> BenchDevice:
        """Another genuine device of the model, with keys of its own, in the state in which rows begin; switched on."""
        device = BenchDevice(self.model, folder, serial, site, self.trust, self.vendor.signer("factory"), self.clock)
        device.restore(self.kept)
        device.power_on()
        return device

    def begin(self, name: str) -> tuple[Path, Path]:
        """Put everything back to where rows begin: (the row's folder, its copy of the station's home)."""
        folder = self.folder / "rows" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        home = folder / "home"
        shutil.copytree(self.station, home)
        self.device.restore(self.kept)  # it is off now: no wait of its own sees the clock go back
        self.clock.set_to(self.ticks)
        self.device.power_on()
        return folder, home

    def close(self) -> None:
        """Clear the bench."""
        self.device.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_trust(model: Model, host: Host, vendor: Vendor, clock: BenchClock, folder: Path) -> bytes:
    """The trust document, made by its command: for production, with the nonce rule where a device has no clock."""
    nonce = ["--require-device-nonce"] if model.facts.clock is Clock.NONE else []
    end = int(clock.true_time()) + TRUST_DAYS * 24 * HOUR
    expires = datetime.datetime.fromtimestamp(end, datetime.UTC).isoformat()
    args: list[str | Path] = ["trust", "init", folder / "trust", *TRUST_OPTIONS, *nonce, "--expires", expires]
    status, data = host.run(args, vendor.home, clock, {"DEVGUARD_PASSPHRASE": vendor.passphrase})
    if status != 0:
        raise Refused(Answer(status, data).code or "internal.error", "the bench's trust document was not made")
    return Path(data["path"]).read_bytes()


def make_station(vendor: Vendor, trust: bytes, home: Path) -> Path:
    """A station has the technicians' keys and the trust document; it was given nobody else's."""
    for part in ("keys", "trust"):
        (home / part).mkdir(parents=True, mode=0o700)
    for name in TECHNICIANS:
        shutil.copy2(vendor.home / "keys" / f"{name}.key", home / "keys")
    for name in ("current", "1"):
        (home / "trust" / f"{name}.trust").write_bytes(trust)
    return home

"""A device that is not in the bench's hand: a vendor's own emulator, or a board. It was enrolled with the trust
document of a throw-away vendor, and the bench knows it by what it signs: its report and its log.

Its flash, its power and its clock are its own. A row that needs one of them in hand is out of reach there, and says so;
all others are played as ever, in real time. What an honest push installs stays: the next row takes it from there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from devguard.bench.attacks.device import BenchDevice, Kept
from devguard.bench.attacks.host import BenchClock, Host
from devguard.bench.attacks.row import OutOfReach
from devguard.bench.attacks.state import Snapshot
from devguard.bench.attacks.vendor import Vendor
from devguard.bench.attacks.world import CURRENT, World, make_station, make_trust
from devguard.bench.tap import LineTap
from devguard.device.audit import AuditRing
from devguard.device.counters import Counters
from devguard.device.models import Model, load_model
from devguard.errors import DevguardError, DeviceRefused, LinkError, Refused
from devguard.evidence.device_log import DeviceLog
from devguard.grant.check import DeviceView, check_grant
from devguard.grant.claims import Action, Grant
from devguard.link.driver import SerialDriver
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner
from devguard.session.connect import Bench, greet, identify
from devguard.session.read_log import ReadLog, read_log
from devguard.session.report import Report
from devguard.session.script import Script
from devguard.session.update import fetch_report
from devguard.trust.document import read_trust

T = TypeVar("T")
LONGEST_WAIT: Final = 10.0
_PATIENCE: Final = 60.0
_PAUSE: Final = 1.0
_SETTLING: Final = 0.1


class RealClock(BenchClock):
    """The machine's own clock, for devices that live by it: a short wait is waited, a long one is out of reach."""

    def __init__(self) -> None:
        super().__init__(time.time())

    def advance(self, seconds: float) -> None:
        """Wait."""
        if not 0 <= seconds <= LONGEST_WAIT:
            raise OutOfReach(f"a wait of {seconds:g} s needs the device's clock in hand")
        time.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """A wait of the host program."""
        time.sleep(seconds)

    def set_to(self, ticks: float) -> None:
        """Time goes on."""


class OutsideDevice(BenchDevice):
    """What of a device can be seen from outside. `look` asks it for its signed report and log."""

    _OWN: Final = frozenset({"model", "serial", "site", "clock", "tap", "own_port", "look"})

    def __init__(self, model: Model, port: str, baud: int, serial: str, site: str, clock: BenchClock) -> None:
        self.model, self.serial, self.site, self.clock = model, serial, site, clock
        self.own_port = port
        self.tap = LineTap(port, baud=baud)
        self.look: Callable[[], Snapshot]

    def __getattr__(self, name: str) -> NoReturn:
        raise OutOfReach(f"it needs the device's own {name.strip('_').replace('_', ' ')} in hand")

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self._OWN:
            self.__getattr__(name)
        object.__setattr__(self, name, value)

    @property
    def counters(self) -> Counters:
        """Out of reach."""
        return self.__getattr__("counters")

    def power_on(self) -> None:
        """Out of reach, as everything that follows."""
        self.__getattr__("power")

    def power_off(self) -> None:
        self.__getattr__("power")

    def kept(self) -> Kept:
        return self.__getattr__("flash")

    def restore(self, _kept: Kept) -> None:
        self.__getattr__("flash")

    def with_counters(self, _counters: Counters) -> None:
        self.__getattr__("counters")

    def busy(self) -> None:
        self.__getattr__("therapy")

    def ticks_on(self) -> bool:
        """Nobody sees its therapy from here: the settings and the history in its report have to tell."""
        return True

    def fault_of_loop(self) -> BaseException | None:
        """Whoever answers lives."""
        return None

    def running(self) -> list[bytes]:
        """See `BenchDevice.running`; by its report."""
        return [digest for digest in self.snapshot().boot if isinstance(digest, bytes)]

    def snapshot(self) -> Snapshot:
        """What it signs."""
        self.settle()
        seen = self.look()
        self.settle()
        return seen

    def settle(self) -> None:
        """Wait until nothing moves on the line."""
        while True:
            moved = self.tap.moved
            self.tap.turn()
            time.sleep(_SETTLING)
            self.tap.turn()
            if moved == self.tap.moved:
                return

    @contextlib.contextmanager
    def hurry(self) -> Iterator[None]:
        """Its time cannot be hurried."""
        yield

    def close(self) -> None:
        """Take the tap off."""
        self.tap.close()


@dataclass(slots=True)
class OutsideWorld(World):
    """A world around a device from outside. `shift` moves with every push that went through: see `World.shift`.
    `noted_before`: how many events its log had when the row began."""

    noted_before: int = 0
    said_nonce: bytes | None = None

    @classmethod
    def reach(
        cls, model: str, port: str, serial: str, host: Host, home: Path, passphrase: str, folder: Path, *, baud: int
    ) -> OutsideWorld:
        """The world of a device on `port`, whose throw-away vendor lives in `home` (see `lend`).

        Raises `Refused("device.identity")` when the device on the port proves another serial number, and whatever an
        honest first push is refused with.
        """
        clock, known = RealClock(), load_model(model)
        vendor, trust = Vendor(home / "vendor", passphrase), (home / "current.trust").read_bytes()
        station = make_station(vendor, trust, folder / "station")
        device = OutsideDevice(known, port, baud, serial, "", clock)
        nothing = Kept(b"", Counters(), b"", trust)
        world = cls(known, host, folder, clock, vendor, station, trust, device, {}, nothing, 0.0, baud=str(baud))
        device.look = world.look_outside
        try:
            world.catch_up()
        except DevguardError:
            device.close()
            raise
        return world

    @property
    def outside(self) -> bool:
        """It is."""
        return True

    def catch_up(self) -> None:
        """Take what the device runs for the current release if it is one of ours, else push one: the erase budget of an
        hour is small. A manifest is the same whenever it is made, so one that was made in another run is known."""
        self.refresh()
        for ahead in (0, 1):
            now = self.report()
            self.shift = now.sequence + ahead - CURRENT[1]
            self.security_shift = max(now.security_version, 1) - 1
            self.renew()
            if not ahead and now.manifest_digest == self.releases[CURRENT[0]].envelope.manifest_digest:
                return
        self.honest_push(self.releases[CURRENT[0]], self.station)
        self.refresh()

    def begin(self, name: str) -> tuple[Path, Path]:
        """A copy of the station. What was installed stays, and what comes next is a later release."""
        self.catch_up()
        folder = self.folder / "rows" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(self.station, folder / "home")
        self.noted_before = self.log().count
        return folder, folder / "home"

    def nonce(self) -> bytes | None:
        """As it said at hello when it was last asked: a grant that is made in the middle of an attempt says nothing."""
        return self.said_nonce

    def refresh(self) -> None:
        """Ask for its nonce."""
        self.said_nonce = self._talk(greet()).nonce

    def look_outside(self) -> Snapshot:
        """The report as a snapshot; what no report tells is left empty. Its log is read once, at the end of a row."""
        report = self.report()
        self.refresh()
        return Snapshot(
            primary=report.image_digest,
            secondary=b"",
            journal=b"",
            boot=(report.manifest_digest, report.boot_state, report.confirmed),
            previous=None,
            outcome=None,
            security_version=report.security_version,
            installed_sequence=report.sequence,
            trust_version=report.trust_version,
            trust_document=b"",
            grant_epoch=report.grant_epoch,
            spent=(report.spent_grants,),
            nonce=self.said_nonce,
            erase_times=(),
            download=None,
            settings_before=report.settings_before,
            settings=report.settings_digest,
            history=report.history_digest,
            audit=AuditRing(),
            clock_floor=report.clock_floor,
            failed_handshakes=0,
        )

    def report(self) -> Report:
        """The device's signed report."""
        return self._patiently(lambda: self._talk(fetch_report(self._bench(self.grant()))))[0]

    def log(self) -> DeviceLog:
        """The device's own log, signed. Reading it is an act: it uses a nonce up."""
        self.refresh()
        one = self.grant(actions=frozenset({Action.READ_LOG}))
        found = self._patiently(lambda: self._talk(self._reading(one)))
        self.refresh()
        return found.log

    def not_noted(self, codes: Sequence[str | None]) -> str | None:
        """See `World.not_noted`. A ring that has gone round shows the end of them."""
        log, before = self.log(), self.noted_before
        added = log.events[max(0, len(log.events) - (log.count - before)) :]
        found = [one.code for one in added if one.name == "refused"]
        wanted = list(codes) if log.count - before <= len(log.events) else list(codes)[-len(found) :] if found else []
        return None if found == wanted else f"the device's log has {found}, not {wanted}"

    def _bench(self, one: Grant) -> Bench:
        signer = self.vendor.signer("technician")
        return Bench(self.document, self.now, os.urandom, one.untagged, signer, self.device.serial)

    def _reading(self, one: Grant) -> Script[ReadLog]:
        facts = self.model.facts
        view = DeviceView(facts.name, self.device.serial, None, facts.clock, 0, None)
        checked = check_grant(one, trust=self.document, now=self.now, device=view, action=Action.READ_LOG, holder=None)
        second = None
        if facts.technicians > 1:
            second = self.key_approver(self.grant("second", actions=frozenset({Action.READ_LOG})))
        return read_log(self._bench(one), checked, second)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """A device that backs off after failed handshakes, or boots, is waited for."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return ask()
            except (DeviceRefused, LinkError) as error:
                if error.code not in ("device.busy", "link.timeout") or time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)

    def _talk(self, script: Script[T]) -> T:
        with SerialDriver.open(self.device.port, int(self.baud)) as driver:
            return ScriptRunner(driver, LinkParameters(baud=int(self.baud)), os.urandom).run(script)

    def another(self, _folder: Path, _serial: str, _site: str) -> BenchDevice:
        """There is one device."""
        raise OutOfReach("it needs a second device of the model")


def proven_serial(port: str, baud: int, home: Path) -> str:
    """The serial number that the device on `port` proves to its throw-away vendor."""
    trust = read_trust((home / "current.trust").read_bytes())
    with SerialDriver.open(port, baud) as driver:
        runner = ScriptRunner(driver, LinkParameters(baud=baud), os.urandom)
        identity, _ = runner.run(identify(Bench(trust, int(time.time()), os.urandom)))
    return identity.serial


def lend(model: str, host: Host, home: Path, passphrase: str) -> None:
    """Make the throw-away vendor with whose trust document a device has to be enrolled, in `home`, once.

    vendor/ holds everybody's keys, current.trust is what the device gets, vendor/keys/factory.key signs its credential.
    """
    if home.exists():
        raise Refused("key.exists", f"{home} is there already")
    vendor = Vendor.make(home / "vendor", passphrase)
    trust = make_trust(load_model(model), host, vendor, RealClock(), home)
    (home / "current.trust").write_bytes(trust)

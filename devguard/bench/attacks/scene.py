"""One row being played: what an attacker can do here, and the oracles that say what came of it.

An attempt is a function that gives the code it ended with, None when it went through. `refuses` looks at the device and
at both logs before and after it: the device must be what it was, the old records must be there byte for byte, and the
refusal must stand in the log exactly once, in the log of whoever refused. See `By`.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from devguard.bench.attacks.device import BenchDevice
from devguard.bench.attacks.host import Answer
from devguard.bench.attacks.state import BenchLog, Snapshot, added_events, bench_log
from devguard.bench.attacks.vendor import PEOPLE, Vendor, write_release
from devguard.bench.attacks.world import BAUD, CURRENT, NEXT, OLD, World
from devguard.bench.hostile import offer_unjudged
from devguard.bench.stage import Build
from devguard.bench.tap import LineTap, Rule
from devguard.custody.keyfile import FileSigner
from devguard.errors import DevguardError
from devguard.grant.claims import Grant
from devguard.link.driver import SerialDriver
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner
from devguard.manifest.envelope import sever
from devguard.session.connect import Bench
from devguard.session.script import Script

T = TypeVar("T")
Attempt = Callable[[], str | None]
_OPEN_SECONDS: Final = 10.0
_PATIENCE: Final = 5.0  # longer than any device backs off after failed handshakes


class By(enum.Enum):
    """Who has to refuse an attempt, and so whose log has to say it once."""

    OFFLINE = "the host program, before it opened the port"
    HOST = "the host program, after it had heard the device"
    DEVICE = "the device, and the host program recorded it"
    DEVICE_ALONE = "the device, of a host that checks and records nothing"
    NOBODY = "nobody in particular: it comes to nothing"


@dataclass(slots=True)
class Look:
    """State and logs at one moment."""

    state: Snapshot
    log: BenchLog
    said: int


@dataclass(slots=True)
class Scene:
    """What `Row.play` is given. `full`: counts in the thousands are wanted."""

    world: World
    folder: Path
    home: Path
    full: bool = False
    broken: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    refused: bool = True
    state_unchanged: bool = True
    recorded: bool = True

    def again(self) -> None:
        """Put everything back to where the row began: for rows that have to let something through."""
        self.folder, self.home = self.world.begin(self.folder.name)

    # who and what is here

    @property
    def device(self) -> BenchDevice:
        """The device under attack."""
        return self.world.device

    @property
    def tap(self) -> LineTap:
        """The tap on its line."""
        return self.world.device.tap

    @property
    def vendor(self) -> Vendor:
        """Everybody's keys: an attacker of a row may have stolen some."""
        return self.world.vendor

    @property
    def old(self) -> Build:
        """The release before the one that runs."""
        return self.world.releases[OLD[0]]

    @property
    def current(self) -> Build:
        """The release that runs."""
        return self.world.releases[CURRENT[0]]

    @property
    def next(self) -> Build:
        """The next honest release."""
        return self.world.releases[NEXT[0]]

    def release(self, version: str = "1.2.0", sequence: int = 3, **fields: Any) -> Build:
        """A release of one's own making; see `Vendor.release`."""
        return self.vendor.release(self.world.model.facts, version, sequence, **fields)

    def file(self, build: Build, name: str = "release") -> Path:
        """A release as a file."""
        return write_release(build, self.world.model.facts, self.folder / f"{name}.suit")

    def grant(self, name: str = "technician", **fields: Any) -> Grant:
        """A fresh grant; see `World.grant`."""
        return self.world.grant(name, **fields)

    # what can be done

    def run(self, *args: str | Path, env: Mapping[str, str] | None = None) -> Answer:
        """A command of the honest host program on this row's home."""
        return self.world.run(self.home, *args, env=env)

    def push(self, file: Path, *more: str | Path, grants: Sequence[Grant] | None = None) -> Answer:
        """An ordinary push over the tapped line, with fresh grants unless given; of an option the last one counts."""
        return self.run("push", file, *self.world.push_options(self.folder, grants), *more)

    def pushing(self, file: Path, *more: str | Path, grants: Sequence[Grant] | None = None) -> Attempt:
        """The same as an attempt."""
        return lambda: _code(self.push(file, *more, grants=grants))

    def commanding(self, *args: str | Path, env: Mapping[str, str] | None = None) -> Attempt:
        """A command of the host program as an attempt."""
        return lambda: _code(self.run(*args, env=env))

    def hostile(self, script: Callable[[], Script[Any]]) -> Attempt:
        """A script of a host that checks nothing, as an attempt; what the device refuses comes out as its code."""

        def attempt() -> str | None:
            try:
                self.play(script())
            except DevguardError as error:
                return error.code
            return None

        return attempt

    def offering(self, build: Build, one: Grant | None = None) -> Attempt:
        """A genuine technician's host that checks nothing offers a release to the device, as an attempt."""
        return self.hostile(lambda: offer_unjudged(self.bench(one), self.offer(build)))

    def under(self, rule: Rule, attempt: Attempt) -> Attempt:
        """The attempt while a rule of the tap holds and time flies whenever the line is quiet."""

        def meddled() -> str | None:
            self.tap.rule = rule
            try:
                with self.device.hurry():
                    return attempt()
            finally:
                self.tap.rule = None

        return meddled

    def play(self, script: Script[T]) -> T:
        """Run a script against the device; raises what it raises."""
        ticks = self.world.clock.ticks
        with SerialDriver.open(self.device.port, int(BAUD), ticks) as driver:
            parameters = LinkParameters(baud=int(BAUD))
            return ScriptRunner(driver, parameters, os.urandom, _OPEN_SECONDS).run(script)

    def bench(self, one: Grant | None = None, name: str = "technician", **fields: Any) -> Bench:
        """A host with the genuine key of a technician, a grant (a fresh one unless given) and no conscience."""
        grant = self.grant(name) if one is None else one
        given = {"grant": grant.untagged, "signer": self.signer(name), **fields}
        return Bench(self.world.document, self.world.now, os.urandom, **given)

    def signer(self, name: str) -> FileSigner:
        """Somebody's key."""
        return self.vendor.signer(name)

    def person(self, name: str) -> str:
        """Whose key it is."""
        return PEOPLE[name][0]

    @staticmethod
    def offer(build: Build) -> bytes:
        """What of a release is offered to a device."""
        return sever(build.envelope)

    # oracles

    def look(self) -> Look:
        """State and logs as they are."""
        state = self.device.snapshot()
        return Look(state, bench_log(self.home / "evidence"), len(self.tap.to_device))

    def refuses(
        self, what: str, attempt: Attempt, *codes: str, by: By, allowed: tuple[str, ...] = (), device: str | None = None
    ) -> str | None:
        """The attempt must end with one of `codes`, leave the device as it was, and stand once in the log of whoever
        refused. `allowed`: what of the state it may change all the same; `device`: the code in the device's own log,
        where the line keeps it from the host."""
        self.world.clock.advance(_PATIENCE)
        before = self.look()
        code = attempt()
        after = self.look()
        self.attempts.append(f"{what}: {code or 'went through'}")
        if code not in codes:
            self.refused = self.refused and code is not None
            self.broken.append(f"{what}: {code or 'was accepted'}, expected {' or '.join(codes)}")
        elif code is not None:
            self.codes.append(code)
        self._unchanged(what, before, after, allowed)
        self._log_of_bench(what, before.log, after.log, code, by)
        self._log_of_device(what, before.state, after.state, device or code, by)
        if by is By.OFFLINE and after.said != before.said:
            self.broken.append(f"{what}: {after.said - before.said} bytes went to the device before the refusal")
        return code

    def comes_to_nothing(self, what: str, act: Callable[[], Any], *, allowed: tuple[str, ...] = ()) -> None:
        """The act must leave the device as it was; whether anybody answers is not asked."""
        before = self.look()
        act()
        after = self.look()
        self.attempts.append(f"{what}: nothing came of it")
        self._unchanged(what, before, after, allowed)

    def holds(self, what: str, condition: bool) -> None:
        """Something that must be so."""
        self.shown.append(what)
        if not condition:
            self.broken.append(f"not so: {what}")

    def goes_through(self, what: str, act: Attempt) -> None:
        """An honest act that must succeed: a bench that refuses everything proves nothing."""
        code = act()
        self.attempts.append(f"{what}: {code or 'went through'}")
        if code is not None:
            self.broken.append(f"{what}: an honest act was refused with {code}")

    def runs_whole(self, what: str, *builds: Build) -> None:
        """The device runs one of these releases, whole and confirmed, or will after its next boot."""
        self.device.settle()
        counters = self.device.counters
        digests = {build.envelope.manifest_digest for build in builds}
        headers = [one for one in (counters.sealed, counters.pending) if one is not None]
        good = bool(headers) and all(one.manifest_digest in digests for one in headers)
        self.holds(f"{what}: it runs a judged release, whole", good)

    def _unchanged(self, what: str, before: Look, after: Look, allowed: tuple[str, ...]) -> None:
        changed = before.state.differences(after.state, allowed=allowed)
        if changed:
            self.state_unchanged = False
            self.broken.append(f"{what}: the device changed: {', '.join(changed)}")

    def _log_of_bench(self, what: str, before: BenchLog, after: BenchLog, code: str | None, by: By) -> None:
        added = before.added(after)
        if added is None:
            self._unrecorded(f"{what}: old records of the bench's log are not what they were")
            return
        refusals = [record.code for record in added if record.code is not None]
        wanted = [code] if by in (By.OFFLINE, By.HOST, By.DEVICE) else []
        if refusals != wanted:
            self._unrecorded(f"{what}: the bench's log has {refusals or 'no refusal'}, not {wanted or 'none'}")

    def _log_of_device(self, what: str, before: Snapshot, after: Snapshot, code: str | None, by: By) -> None:
        added = [event.code for event in added_events(before.audit, after.audit) if event.name == "refused"]
        wanted = [code] if by in (By.DEVICE, By.DEVICE_ALONE) else []
        if by is not By.NOBODY and added != wanted:
            self._unrecorded(f"{what}: the device's log has {added or 'no refusal'}, not {wanted or 'none'}")

    def _unrecorded(self, why: str) -> None:
        self.recorded = False
        self.broken.append(why)

    @property
    def why(self) -> str:
        """What broke, or in short what was shown."""
        if self.broken:
            return "; ".join(self.broken)
        codes = ", ".join(dict.fromkeys(self.codes))
        said = (
            [f"{len(self.attempts)} attempts" + (f", refused with {codes}" if codes else "")] if self.attempts else []
        )
        return "; ".join([*said, *self.shown])

    def end(self) -> None:
        """After every row: the device lives, its therapy went on, and the log still verifies."""
        fault = self.device.fault_of_loop()
        if fault is not None:
            self.broken.append(f"the device's loop ended: {type(fault).__name__}: {fault}")
        if self.device.beats == 0:
            self.broken.append("the therapy stood still")
        answer = self.run("evidence", "verify")
        if answer.status != 0:
            self._unrecorded(f"evidence verify: {answer.code}")


def _code(answer: Answer) -> str | None:
    """The code of a refusal; a status that is no success without a code is a bug of the program."""
    return answer.code if answer.code is not None or answer.status == 0 else f"exit {answer.status}"

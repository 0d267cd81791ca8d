"""One row being played: what an attacker, and an honest technician, can do here. What comes of it: see `oracle`."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from devguard.bench.attacks.device import BenchDevice
from devguard.bench.attacks.host import Answer
from devguard.bench.attacks.oracle import Attempt, By, Oracles
from devguard.bench.attacks.vendor import PEOPLE, Vendor, write_release
from devguard.bench.attacks.world import CURRENT, NEXT, OLD
from devguard.bench.hostile import Approval, offer_unjudged, taking_leave
from devguard.bench.stage import Build
from devguard.bench.tap import Rule
from devguard.custody.keyfile import FileSigner
from devguard.errors import DevguardError
from devguard.grant.check import DeviceView, check_grant
from devguard.grant.claims import Action, Grant
from devguard.link.driver import SerialDriver
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner
from devguard.manifest.envelope import sever
from devguard.session.approval import LIFETIME, ApprovalRequest
from devguard.session.connect import Bench, Connected
from devguard.session.script import Script
from devguard.session.update import UpdateSession
from devguard.verdict.judge import Target, judge

__all__ = ["Attempt", "By", "Scene"]

T = TypeVar("T")
_OPEN_SECONDS: Final = 10.0


@dataclass(slots=True)
class Scene(Oracles):
    """What `Row.play` is given: acts here, judgements in `Oracles`."""

    others: list[BenchDevice] = field(default_factory=list)

    def again(self) -> None:
        """Put everything back to where the row began: for rows that have to let something through."""
        self._clear()
        self.folder, self.home = self.world.begin(self.folder.name)

    def _clear(self) -> None:
        while self.others:
            self.others.pop().close()

    # who and what is here

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

    def release(self, version: str = NEXT[0], sequence: int = NEXT[1], **fields: Any) -> Build:
        """A release of one's own making; see `Vendor.release`."""
        world = self.world
        security = fields.pop("security_version", sequence) + world.security_shift
        number = sequence + world.shift
        return self.vendor.release(world.model.facts, version, number, security_version=security, **fields)

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

    def pushing(self, what: Path | Build, *more: str | Path, grants: Sequence[Grant] | None = None) -> Attempt:
        """The same as an attempt, of a file or of a release."""
        return lambda: _code(self.push(self.file(what) if isinstance(what, Build) else what, *more, grants=grants))

    def commanding(self, *args: str | Path, env: Mapping[str, str] | None = None) -> Attempt:
        """A command of the host program as an attempt."""
        return lambda: _code(self.run(*args, env=env))

    def hostile(self, script: Callable[[], Script[Any]], port: str | None = None) -> Attempt:
        """A script of a host that checks nothing, as an attempt; a refusal of the device, or of whatever is on `port`,
        comes out as its code."""

        def attempt() -> str | None:
            try:
                self.play(taking_leave(script()), port)
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

    def approval(self, build: Build, first: Grant) -> Approval | None:
        """The second technician's honest word for a hostile host, where the model asks for one."""
        if self.world.model.facts.technicians < 2:
            return None
        approver = self.world.key_approver(self.grant("second"))

        def approve(session: Connected) -> tuple[bytes, bytes]:
            request = ApprovalRequest(
                session.session_id,
                session.identity.serial,
                build.envelope.manifest_digest,
                str(Action.UPDATE),
                hashlib.sha256(first.untagged).digest(),
                self.world.now + LIFETIME,
            )
            return approver(request)

        return approve

    def update(self, build: Build, image: bytes | None = None) -> UpdateSession:
        """An honest session's push of a judged release, of which other bytes may be sent."""
        first, facts = self.grant(), self.world.model.facts
        view = DeviceView(facts.name, self.device.serial, self.device.site, facts.clock, 0, None)
        checked = check_grant(
            first, trust=self.world.document, now=self.world.now, device=view, action=Action.UPDATE, holder=None
        )
        target = Target(model=facts)
        verdict = judge(
            build.envelope, trust=self.world.document, now=self.world.now, target=target, payload=build.measured
        )
        payload = io.BytesIO(build.image if image is None else image)
        second = self.world.key_approver(self.grant("second")) if facts.technicians > 1 else None
        return UpdateSession(verdict.require(), checked, self.bench(first), self.offer(build), payload, second)

    def another(self, serial: str, site: str = "ward-9") -> BenchDevice:
        """Another genuine device of the model, running what this one runs; it goes when the row ends."""
        device = self.world.another(self.folder / f"device-{len(self.others)}", serial, site)
        self.others.append(device)
        return device

    def play(self, script: Script[T], port: str | None = None) -> T:
        """Run a script against the device, or whatever is on `port`; raises what it raises."""
        ticks = self.world.clock.ticks
        baud = int(self.world.baud)
        with SerialDriver.open(port or self.device.port, baud, ticks) as driver:
            parameters = LinkParameters(baud=baud)
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

    def end(self) -> None:
        """After every row: the device lives, its therapy went on, and the log still verifies."""
        fault = self.device.fault_of_loop()
        if fault is not None:
            self.broken.append(f"the device's loop ended: {type(fault).__name__}: {fault}")
        if not self.device.ticks_on():
            self.broken.append("the therapy stood still")
        self._clear()
        missing = None if self.noted is None else self.world.not_noted(self.noted)
        if missing is not None:
            self._unrecorded(missing)
        answer = self.run("evidence", "verify")
        if answer.status != 0:
            self._unrecorded(f"evidence verify: {answer.code}")


def _code(answer: Answer) -> str | None:
    """The code of a refusal; a status that is no success without a code is a bug of the program."""
    return answer.code if answer.code is not None or answer.status == 0 else f"exit {answer.status}"

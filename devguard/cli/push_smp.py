"""`devguard push --protocol smp`: the same verdict and grant, to a device that speaks only MCUmgr and checks neither.

What such a device cannot check is said to whoever pushes, in the result and in the evidence record. Because nobody else
does, this bench holds the grant's use as spent before the first byte goes, and has the technician sign what is about to
happen. The device proves no serial number: whoever stands before it reads the label and types (or scans) it, and the
record says who said what. Where a push ends early, it says how it leaves the device.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import printed
from devguard.errors import DevguardError, LinkError, Refused

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.cli.judging import Judged
    from devguard.cli.memory import Memory
    from devguard.cli.push import Pusher
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.check import CheckedGrant
    from devguard.link.smp_runner import SmpRunner
    from devguard.session.smp_standing import Standing
    from devguard.session.smp_update import Outcome, SmpUpdate, Survey
    from devguard.trust.document import TrustDocument
    from devguard.verdict.judge import Release

UNCHECKED: Final = (
    "this device cannot check the technician itself: it speaks only MCUmgr and knows neither grants nor signatures of "
    "releases",
    "release, grant and technician were checked on this bench, and nowhere else",
    "the device proves no serial number; whether therapy is idle and the battery full is for you to see",
)
NO_TRIAL: Final = (
    "the device's bootloader answers, no firmware: the image replaces what is there, there is no way back, and nobody "
    "can say whether what was there is newer"
)
NO_TRIALS: Final = "the device's bootloader knows no trials: it started the image by itself, and there is no way back"
NOBODY: Final = "nobody confirmed the serial number at the device: give the one on its label with --serial"
_PROBE_SECONDS: Final = 2.0


def need_smp() -> None:
    """Return when the `smp` package can be imported, else `Refused("smp.package")`."""
    if importlib.util.find_spec("smp") is None:
        raise Refused("smp.package", "devices that speak MCUmgr need the smp package, which is not installed here")


class SmpPush:
    """The rest of a push whose release and grant have been checked, in steps; each may refuse.

    Making one checks everything that can be known without a port: the package, the images, the serial number.
    """

    def __init__(
        self, pusher: Pusher, trust: TrustDocument, judged: Judged, signer: FileSigner, checked: CheckedGrant
    ) -> None:
        from devguard.session.smp_image import judged_images

        self.pusher = pusher
        self.invocation, self.wish, self.note = pusher.invocation, pusher.wish, pusher.note
        self.trust, self.judged, self.signer, self.checked = trust, judged, signer, checked
        self.note.details["protocol"] = "smp"
        self.note.details["device-checks"] = "nothing: it cannot check technician, grant or release"
        need_smp()
        self.release = self._judge(None)
        self.images = judged_images(self.release, judged.payloads, self.wish.image)
        self.second: CheckedGrant | None = None
        self.update: SmpUpdate | None = None
        self.warnings = list(UNCHECKED)

    def run(self) -> dict[str, Any]:
        """Survey, judge once more, sign, upload, try, keep; the JSON result of the contract."""
        from devguard.session.smp_update import survey

        ticks = self.invocation.ticks
        self._describe(self._confirmed_serial())
        session_id = os.urandom(32)
        self._approve(self.release, session_id)
        port = self._port()
        started = ticks()
        with self._leaving(), _runner(self.invocation, port, self.wish.baud) as runner:
            found = runner.run(survey())
            release = self._judge(found)
            self._state(release, session_id)
            update = self._begin(release, found)
            outcome = self._push(runner, update, found)
            return self._result(release, found, outcome, runner, ticks() - started)

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        """With every failure and interruption, and in its record: how this leaves the device."""
        try:
            yield
        except LinkError as error:
            standing = self._standing()
            error.hint = f"{standing.left}; {standing.onward}; {error.hint}"
            raise
        except DevguardError as error:
            error.hint = f"{error.hint}; {self._standing().left}"
            raise
        except (KeyboardInterrupt, click.exceptions.Abort):
            standing = self._standing()
            self.invocation.note(f"\ninterrupted: {standing.left}; {standing.onward}")
            raise

    def _standing(self) -> Standing:
        from devguard.session.smp_standing import Standing

        standing = Standing.UNTOUCHED if self.update is None else self.update.standing
        self.note.details["device-left"] = standing.left
        return standing

    def _confirmed_serial(self) -> str:
        """Who says that this is the device: `--serial`, or the person at the terminal, or nobody.

        Raises `Refused("device.identity")` for a label that says something else than the grant.
        """
        from devguard.cli.confirm import read_off

        serial = self._serial()
        if self.wish.serial is not None:
            return "given with --serial, not proven"
        if not self.invocation.asks:
            self.warnings.append(NOBODY)
            return "named by the grant alone, confirmed by nobody, not proven"
        if (named := read_off(self.invocation, serial, "the grant is for another serial number")) != serial:
            raise Refused("device.identity", f"the label says {named}, the grant is for {serial}")
        return "read off the label by the technician, not proven"

    def _describe(self, serial: str) -> None:
        """What is pushed, whereto and why, into every record of it, refusals too; and the warnings. `serial`: who says
        it."""
        self.note.device = self._serial()
        self.note.details["serial"] = serial
        for one in self.images:
            self.note.details[f"image-{one.number}"] = f"{one.component} {one.hash.hex()}"
        for warning in self.warnings:
            self.invocation.note(f"warning: {warning}")

    def _serial(self) -> str:
        """What the grant names, or the command line where it names several."""
        named = self.checked.grant.scope.serials
        if self.wish.serial is None and (len(named) != 1 or "*" in named):
            what = "an MCUmgr device does not say its serial number, and the grant does not name exactly one"
            raise Refused("device.identity", what, "read it off the device and give it with --serial")
        return self.checked.device.serial

    def _port(self) -> str:
        port = self.wish.port or _only_answering(self.invocation, self.wish.baud)
        self.pusher.describe(port)
        return port

    def _judge(self, found: Survey | None) -> Release:
        """The verdict again, for the model the release is for, the stated serial and what the device says it runs."""
        from devguard.device.models import load_model
        from devguard.verdict.judge import Target, judge

        if self.judged.envelope is None:
            raise Refused("envelope.malformed", "a verdict without an envelope")
        model = load_model(self.checked.device.model).facts
        target = Target(model=model, serial=self._serial(), installed_version=self._installed(found))
        now = self.invocation.now()
        return judge(
            self.judged.envelope, trust=self.trust, now=now, target=target, payload=self.judged.measured
        ).require()

    def _installed(self, found: Survey | None) -> str | None:
        """The version that runs, where the device names one: MAJOR.MINOR.REVISION.

        Not asked of a bootloader, whose image may be the broken one, nor where the judged image itself runs already,
        be it on trial: that push goes on.
        """
        from devguard.session.smp_update import version_of

        if found is None or found.recovery:
            return None
        running = found.running(self.wish.image)
        version = None if running is None else version_of(running.version)
        if running is None or version is None or not any(version):
            return None
        ours = self.images[0]
        if running.hash == ours.hash or (version[:3] == ours.version[:3] and version != ours.version):
            return None
        return ".".join(map(str, version[:3]))

    def _approve(self, release: Release, session_id: bytes) -> None:
        """The second technician, where model or release asks for one; checked as a device would."""
        from devguard.cli.grant import device_view
        from devguard.device.models import load_model
        from devguard.grant.claims import read_grant
        from devguard.session.approval import LIFETIME
        from devguard.session.approving import APPROVER_PAUSE
        from devguard.session.smp_proof import approval_request, check_second

        approver = self.pusher.approver()
        if approver is None:
            if load_model(release.model).facts.technicians > 1 or release.requirements.two_technicians:
                raise Refused("grant.quorum", "two different technicians must approve; one has")
            return
        request = approval_request(release, self.checked, session_id, self.invocation.now())
        deadline = self.invocation.ticks() + LIFETIME
        while (answer := approver(request)) is None:
            if self.invocation.ticks() > deadline:
                raise Refused("grant.quorum", "the second technician did not approve within ten minutes")
            self.invocation.pause(APPROVER_PAUSE)
        view = device_view(read_grant(answer[1]), self.trust, model=release.model, serial=self._serial())
        if self.note.memory is not None:
            view = replace(view, spent=self.note.memory.spent)
        self.second = check_second(
            answer,
            request,
            first=self.checked,
            release=release,
            trust=self.trust,
            view=view,
            now=self.invocation.now(),
        )
        self.note.details["second-technician"] = self.second.grant.subject

    def _state(self, release: Release, session_id: bytes) -> None:
        """The technician's signed statement, whole, in the record that precedes the first byte."""
        from devguard.evidence.record import Statement as Kind
        from devguard.session.smp_proof import Statement

        signed = Statement(
            session_id,
            self._serial(),
            release.manifest_digest,
            tuple((one.number, one.hash) for one in self.images),
            hashlib.sha256(self.checked.grant.untagged).digest(),
            self.invocation.now(),
        ).sign(self.signer, self.checked)
        self.note.digest("SESSION", hashlib.sha256(signed).digest())
        self.note.statements[Kind.PUSH] = signed
        self.note.statements[Kind.GRANT] = self.checked.grant.untagged

    def _begin(self, release: Release, found: Survey) -> SmpUpdate:
        """Everything that stands before the first byte: proof, warnings, the uses spent, the record."""
        from devguard.device.models import load_model
        from devguard.session.smp_update import SmpUpdate

        technicians = load_model(release.model).facts.technicians
        update = SmpUpdate(release, self.checked, self.images, self.invocation.now, self.second, technicians)
        update.check(found)
        self.update = update
        if found.recovery:
            self._no_trial(NO_TRIAL)
        self.pusher.use.offer()
        if self.note.log is not None:
            self.note.log.reserve()
        self.note.remember.append(lambda memory: self._spent(memory, release))
        self.note.commit(action="release.push-begun")
        self.note.written = False
        return update

    def _no_trial(self, why: str) -> None:
        self.warnings.append(why)
        self.note.details["trial"] = "none"
        self.invocation.note(f"warning: {why}")

    def _spent(self, memory: Memory, release: Release) -> Memory:
        """With the uses of the grants gone: no device keeps count of them."""
        spent = memory.spent
        for one in (self.checked, self.second):
            if one is not None:
                from devguard.grant.uses import spend_use

                spent = dict(spend_use(one.chain, spent, release.manifest_digest, memory.latest))
        return replace(memory, spent=spent)

    def _push(self, runner: SmpRunner, update: SmpUpdate, found: Survey) -> Outcome:
        from devguard.cli.progress import progress_bar

        release = update.release
        with progress_bar(self.invocation, release.size, self.wish.progress) as meter:
            update.progress = meter
            outcome = runner.run(update.push(found))
        if not outcome.trial and not found.recovery:
            self._no_trial(NO_TRIALS)
        self.note.remember.append(lambda memory: memory.with_push(release, self.checked))
        self.note.commit()
        return outcome

    def _result(
        self, release: Release, found: Survey, outcome: Outcome, runner: SmpRunner, seconds: float
    ) -> dict[str, Any]:
        from devguard.session.smp_update import Survey

        before = found.running(self.wish.image)
        after = Survey(None, outcome.states).running(self.wish.image)
        return {
            "accepted": True,
            "code": None,
            "protocol": "smp",
            "warnings": self.warnings,
            "device_checks_technician": False,
            "device": {
                "model": release.model,
                "serial": self._serial(),
                "serial_proven": False,
                "version_before": before.version if before is not None else None,
                "version_after": after.version if after is not None else None,
                "confirmed": True,
            },
            "report": {"signed": False, "images": [one.to_json() for one in outcome.states]},
            "link": {
                "payload_bytes": release.size,
                "wire_bytes": runner.wire_bytes,
                "retransmits": runner.retransmits,
                "seconds": round(seconds, 3),
                "encoding": "full",
                "sent_bytes": outcome.sent,
                "resumed_bytes": outcome.resumed,
                "fell_back": None,
            },
        }


def _runner(invocation: Invocation, port: str, baud: int) -> SmpRunner:
    """Runs scripts over a port, which it opens."""
    from devguard.link.driver import SerialDriver
    from devguard.link.smp_engine import smp_parameters
    from devguard.link.smp_runner import SmpRunner

    ticks = invocation.ticks
    return SmpRunner(
        lambda: SerialDriver.open(port, baud, ticks), smp_parameters(baud), os.urandom, ticks, invocation.pause
    )


def _only_answering(invocation: Invocation, baud: int) -> str:
    """The only serial port at which an SMP server answers; `LinkError("link.port")` where none or several do."""
    from devguard.link.driver import list_ports
    from devguard.session import smp_requests
    from devguard.session.smp_script import Ask, Script

    def hello() -> Script[None]:
        yield Ask(smp_requests.parameters(), _PROBE_SECONDS)

    invocation.note("no --port: asking every serial port for a device that speaks MCUmgr")
    live = []
    for port in (one.device for one in list_ports()):
        try:
            with _runner(invocation, port, baud) as runner:
                runner.run(hello())
            live.append(port)
        except DevguardError:
            continue
    if len(live) != 1:
        raise LinkError("link.port", f"{len(live) or 'no'} devices answer MCUmgr; say which with --port")
    return live[0]


def show(result: dict[str, Any]) -> None:
    """The result for people. Most of the warnings stood before it."""
    device, link = result["device"], result["link"]
    click.echo(
        printed(
            f"{device['model']} {device['serial']} (serial not proven): {device['version_before']} -> "
            f"{device['version_after']}, the device says it is confirmed"
        )
    )
    click.echo(
        f"  {link['payload_bytes']} bytes in {link['seconds']:.1f} s, {link['wire_bytes']} on the wire, "
        f"{link['retransmits']} sent again, {link['resumed_bytes']} were there already"
    )
    for one in result["report"]["images"]:
        flags = ", ".join(name for name in ("active", "confirmed", "pending", "permanent") if one[name])
        click.echo(printed(f"  image {one['image']} slot {one['slot']}: {one['version']} {one['hash']} {flags}"))
    for warning in result["warnings"]:
        if warning not in UNCHECKED[1:]:
            click.echo(f"  warning: {warning}")

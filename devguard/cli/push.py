"""`devguard push`: verify, check the grant, push, wait for the trial, fetch the signed report."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.inside import OPTIONS, check_inside, inside_options
from devguard.cli.line import choose_port, component_lines
from devguard.cli.record import Note, recorded
from devguard.cli.support import MAX_NAME, Support, support_of
from devguard.cli.visit import Errand, Visit, check_errand, visit_options
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cli.judging import Judged
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.check import CheckedGrant
    from devguard.manifest.envelope import Envelope
    from devguard.session.delta import Encoded, Sent
    from devguard.session.report import Report
    from devguard.trust.document import TrustDocument
    from devguard.verdict.judge import Release, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish(Errand):
    """What was asked on the command line."""

    file: Path
    dry_run: bool
    resume: bool
    delta: str
    delta_from: Path | None
    progress: str
    protocol: str
    image: int
    sbom: Path | None
    known_exploited: Path | None
    known: tuple[Path, ...]
    vex: tuple[Path, ...]
    accept_unsupported: str | None = None


progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="On stderr: a bar on a terminal, else one JSON line a second (auto); those lines anywhere (json); nothing.",
)


@click.command(cls=Command)
@click.argument("file", metavar="FILE.suit", type=click.Path(path_type=Path))
@click.option(
    "--resume", is_flag=True, help="Wait for a device that is still in the lost session, then go on where it stopped."
)
@click.option(
    "--delta",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Send a patch or the compressed image where that is less; the device judges what comes of it all the same.",
)
@click.option(
    "--delta-from",
    metavar="FILE.suit",
    type=click.Path(path_type=Path),
    help="The release that the device runs, to make a patch from (default: those kept in the home).",
)
@click.option("--protocol", type=click.Choice(["devguard", "smp"]), default="devguard", show_default=True)
@click.option("--image", type=click.IntRange(0, 15), default=0, help="With smp: the number of the first image.")
@progress_option
@click.option("--dry-run", is_flag=True, help="Verify and check everything a bench can; open no port.")
@click.option(
    "--accept-unsupported",
    metavar="NAME",
    help="Who answers for pushing what the vendor no longer supports; on record, and no check is left out.",
)
@inside_options
@visit_options
@click.pass_obj
def push(invocation: Invocation, /, **options: Any) -> None:
    """Push FILE.suit to a device. The device judges release, technician and grant again by itself."""
    wish = Wish(**options)
    check_errand(wish)
    if wish.delta_from is not None and (wish.delta == "never" or wish.protocol == "smp"):
        raise click.UsageError("--delta-from asks for a patch; --delta never forbids it, and MCUmgr devices take none")
    if wish.accept_unsupported is not None and not 0 < len(wish.accept_unsupported.strip()) <= MAX_NAME:
        raise click.UsageError(f"--accept-unsupported takes a person's name of 1 to {MAX_NAME} characters")
    if wish.image and wish.protocol != "smp":
        raise click.UsageError("--image goes with --protocol smp")
    run_push(invocation, wish, Pusher, "release.push")


def run_push(invocation: Invocation, wish: Wish, kind: type[Pusher], action: str) -> None:
    """One push or what is like one, recorded as `action`; its result or its refusal in the schema of the contract."""
    try:
        with recorded(invocation, action) as note, ExitStack() as stack:
            result = kind(invocation, wish, note, stack).run()
    except DevguardError as error:
        invocation.error(error, {"accepted": False, "code": error.code, "device": None, "report": None, "link": None})
        raise click.exceptions.Exit(int(error.exit_status)) from error
    invocation.result(result, lambda: _print(result))


class Pusher(Visit):
    """One run of `push`, in steps; each may refuse."""

    action = "update"

    def __init__(self, invocation: Invocation, wish: Wish, note: Note, stack: ExitStack) -> None:
        super().__init__(invocation, wish, note)
        self.wish = wish
        self.stack = stack
        self._copy: BinaryIO | None = None

    def run(self) -> dict[str, Any]:
        """All steps; the JSON result of the contract."""
        from devguard.cli.push_smp import SmpPush

        trust = self.trust()
        self.check_incidents()
        release, judged = self._verdict(trust)
        signer, one = self.technician()
        checked = self.check(one, signer, trust, self.action, release.model)
        checked.covers(release)
        smp = SmpPush(self, trust, judged, signer, checked) if self.wish.protocol == "smp" else None
        if self.wish.dry_run:
            self.note.details["dry-run"] = "yes"
            self.note.commit()
            return {"accepted": True, "code": None, "dry_run": True, "device": None, "report": None, "link": None}
        with self.reserved(checked, release.manifest_digest):
            return smp.run() if smp is not None else self._push(trust, judged, signer, checked)

    def check_incidents(self) -> None:
        """`incident.open` where the policy holds updates up; what helps a broken device is never held up."""
        if self.action == "update":
            from devguard.cli.incidents import check_blocked

            check_blocked(self.note)

    def _verdict(self, trust: TrustDocument) -> tuple[Release, Judged]:
        """The verdict on a private copy, recorded before any port is opened."""
        from devguard.cli.files import private_copy
        from devguard.cli.judging import judge_file
        from devguard.verdict.judge import Target

        copy = self._copy = self.stack.enter_context(private_copy(self.wish.file))
        judged = judge_file(
            self.wish.file, trust=trust, now=self.invocation.now(), target=Target(), stack=self.stack, opened=copy
        )
        if judged.envelope is not None:
            self.note.manifest(judged.envelope.manifest_digest)
        self.note.details["file"] = str(self.wish.file)
        release = judged.verdict.require()
        self.note.release = f"{release.model} {release.version}"
        self._look_inside(trust, judged, release)
        self.note.commit(action="release.verify")
        self.note.written = False
        return release, judged

    def _look_inside(self, trust: TrustDocument, judged: Judged, release: Release) -> None:
        from devguard.manifest.release import release_facts

        signed = None if judged.envelope is None else release_facts(judged.envelope).sbom_digest
        wish = {name: getattr(self.wish, name) for name in OPTIONS}
        check_inside(self.invocation, self.note, self.wish.file, wish, trust=trust, signed=signed, demanded=False)
        if judged.envelope is not None:
            support = support_of(judged.envelope)
            support.note(self.note, release.sequence)
            self.check_support(support)

    def check_support(self, support: Support) -> None:
        """What the vendor no longer supports is pushed on somebody's word: `release.unsupported` without one."""
        support.require(self.note, self.invocation.now(), self.wish.accept_unsupported)
        for line in support.ended(self.invocation.now()):
            self.invocation.note(f"note: {line}; {self.wish.accept_unsupported} answers for it")

    def _for_device(self, trust: TrustDocument, judged: Judged, report: Report) -> tuple[Release, Envelope]:
        """The verdict again, now for the device that answered: its model, its serial, what it runs."""
        from devguard.verdict.judge import judge

        if judged.envelope is None:
            raise Refused("envelope.malformed", "a verdict without an envelope")
        now, target = self.invocation.now(), self.target(report)
        verdict = judge(judged.envelope, trust=trust, now=now, target=target, payload=judged.measured)
        return verdict.require(), judged.envelope

    def target(self, report: Report) -> Target:
        """The device as its signed report shows it."""
        from devguard.device.models import load_model
        from devguard.verdict.judge import Target

        settled = report.manifest_digest is not None and report.boot_state != "fallback"
        return Target(
            model=load_model(report.model).facts,
            serial=report.serial,
            installed_sequence=report.sequence if settled else None,
            installed_digest=report.manifest_digest if settled else None,
            security_version=report.security_version,
            installed_version=report.version if settled else None,
        )

    def _push(self, trust: TrustDocument, judged: Judged, signer: FileSigner, checked: CheckedGrant) -> dict[str, Any]:
        from devguard.cli.confirm import confirmed
        from devguard.cli.judging import stream_of
        from devguard.cli.line import runner_on, totals
        from devguard.cli.progress import progress_bar
        from devguard.link.driver import SerialDriver
        from devguard.manifest.envelope import sever
        from devguard.session.update import UpdateSession, after_reboot

        wish, note = self.wish, self.note
        port = choose_port(self.invocation, wish.port)
        self.describe(port)
        bench = self.bench(trust, checked, signer)
        ticks = self.invocation.ticks
        started = ticks()
        with SerialDriver.open(port, wish.baud, ticks) as driver:
            runner = runner_on(driver, baud=wish.baud)
            bench = confirmed(self.invocation, self.note, runner, bench)
            before, key = self._before(runner, bench)
            bench = replace(bench, serial=before.serial, device_key=key)  # from here on this very device, or none
            note.device = before.serial
            if wish.resume and self.action == "update":
                from devguard.cli.resume import check_resumed

                check_resumed(self.invocation.home, before.serial, judged.envelope)
            release, envelope = self._for_device(trust, judged, before)
            payload = stream_of(judged, release)
            forms = self._forms(payload, release.size, before)
            self._begin(before.serial, release, checked, signer)
            note.commit(action=f"{note.action}-begun")
            note.written = False
            bench = replace(bench, now=self.invocation.now())  # an approval is asked for from here on
            with progress_bar(self.invocation, release.size, wish.progress) as meter:
                runner.engine = meter.engine
                session = UpdateSession(
                    release, checked, bench, sever(envelope), payload, self.approver(), meter, forms, meter.queued
                )
                self.use.taken = lambda: session.accepted
                self.patiently(lambda: runner.run(session.push()), wait=wish.resume)
            note.remember.append(lambda memory: memory.with_push(release, checked))
            seconds = ticks() - started
            self.invocation.note("the device boots the new image on trial ...")
            report, signed = self.report_after(runner, bench)
        self.words.report(report, signed)
        after_reboot(release, report)
        note.commit()
        self._keep(report)
        return {
            "accepted": True,
            "code": None,
            "device": {
                "model": report.model,
                "serial": report.serial,
                "version_before": before.version,
                "version_after": report.version,
                "confirmed": report.confirmed,
            },
            "report": report.to_json(),
            "link": _link(release.size, session.sent, totals(runner.statistics), seconds),
        }

    def _forms(self, image: BinaryIO, size: int, before: Report) -> tuple[Encoded, ...]:
        """Made while no session is open: a device waits thirty seconds and no longer."""
        if self.wish.delta == "never":
            return ()
        from devguard.cli.less import forms_of

        return forms_of(self.invocation, image, size, before, self.wish.delta_from, self.wish.baud)

    def _keep(self, report: Report) -> None:
        if self.wish.delta != "never" and self._copy is not None:
            from devguard.cli.less import keep

            keep(self.invocation, self._copy, report.image_digest)

    def _before(self, runner: Any, bench: Any) -> tuple[Report, bytes | None]:
        """What the device runs before the push, from its signed report, and the key it proved, by thumbprint."""
        from devguard.cose.sign import read_sign1
        from devguard.session.update import fetch_report

        report, signed = self.patiently(lambda: runner.run(fetch_report(bench)), wait=self.wish.resume)
        self.words.report(report, signed)
        self.check_device(report)
        return report, read_sign1(signed).kid

    def check_device(self, report: Report) -> None:
        """The device against what is on record of it: `device.changed` where nothing explains what differs."""
        from devguard.cli.device_change import check_unchanged

        check_unchanged(self.note, report)

    def _begin(self, serial: str, release: Release, checked: CheckedGrant, signer: FileSigner) -> None:
        """What stands before the first byte: room for the records to come, and the technician's signature."""
        from devguard.cli.device_words import sign_push

        self.use.offer()
        if self.note.log is not None:
            self.note.log.reserve()
        sign_push(self.note, serial, release.manifest_digest, checked, signer)


def _link(size: int, sent: Sent, totals: tuple[int, int], seconds: float) -> dict[str, Any]:
    """What went over the line: `payload_bytes` are the image's, `sent_bytes` those of the form it travelled in."""
    return {
        "payload_bytes": size,
        "wire_bytes": totals[0],
        "retransmits": totals[1],
        "seconds": round(seconds, 3),
        "encoding": sent.encoding,
        "sent_bytes": sent.size + sent.wasted,
        "fell_back": sent.refused,
    }


def _print(result: dict[str, Any]) -> None:
    if result.get("dry_run"):
        click.echo("good: release, grant and key pass every check a bench can make; no port was opened")
        return
    if result.get("protocol") == "smp":
        from devguard.cli.push_smp import show

        show(result)
        return
    device, link = result["device"], result["link"]
    click.echo(
        f"{device['model']} {device['serial']}: {device['version_before']} -> {device['version_after']}, "
        f"{'confirmed by the device' if device['confirmed'] else 'NOT confirmed'}"
    )
    click.echo(
        f"  {link['payload_bytes']} bytes in {link['seconds']:.1f} s, {link['wire_bytes']} on the wire, "
        f"{link['retransmits']} sent again"
    )
    if link["encoding"] != "full":
        form = "patch against what ran before" if link["encoding"] == "delta" else "compressed image"
        click.echo(f"  sent as a {form}: {link['sent_bytes']} bytes; the device checked the whole image all the same")
    if link["fell_back"] is not None:
        click.echo(f"  the device refused the smaller form ({link['fell_back']}); the whole image was sent instead")
    report = result["report"]
    click.echo(
        f"  signed report: boot {report['boot_state']}, therapy settings unchanged ({report['settings_digest'][:16]})"
    )
    for line in component_lines(report):
        click.echo(line)
    for flag in report["flags"]:
        click.echo(f"  flag: {flag}")

"""`devguard push`: verify, check the grant, push, wait for the trial, fetch the signed report."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from devguard.cli.context import DESCRIPTOR, Command, Invocation, passphrase_option
from devguard.cli.line import BAUD, choose_port, component_lines
from devguard.cli.record import Note, recorded
from devguard.errors import DevguardError, DeviceRefused, Refused

if TYPE_CHECKING:
    from devguard.cli.judging import Judged
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.check import CheckedGrant
    from devguard.grant.claims import Grant
    from devguard.manifest.envelope import Envelope
    from devguard.session.delta import Encoded, Sent
    from devguard.session.report import Report
    from devguard.session.update import Approver
    from devguard.trust.document import TrustDocument
    from devguard.verdict.judge import Release


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked on the command line."""

    file: Path
    port: str | None
    key: str | None
    grant: Path | None
    second_key: str | None
    second_grant: Path | None
    approval: Path | None
    serial: str | None
    trust: Path | None
    baud: int
    dry_run: bool
    resume: bool
    reason: str | None
    work_order: str | None
    passphrase_fd: int | None
    second_passphrase_fd: int | None
    delta: str
    delta_from: Path | None
    progress: str
    protocol: str
    image: int


@click.command(cls=Command)
@click.argument("file", metavar="FILE.suit", type=click.Path(path_type=Path))
@click.option("--port", help="Device path, socket:// or rfc2217:// URL (default: where exactly one device answers).")
@click.option("--key", metavar="TECH_KEY", help="The technician's key (default: the only one in the home).")
@click.option(
    "--grant", type=click.Path(path_type=Path), help="The grant (default: the only one in the home that fits)."
)
@click.option("--second-key", metavar="KEY", help="The second technician's key.")
@click.option("--second-grant", type=click.Path(path_type=Path), help="The second technician's grant.")
@click.option(
    "--approval",
    type=click.Path(path_type=Path),
    help="Wait for the second technician's approval in this file; the request is written beside it.",
)
@click.option("--serial", help="Push only to this proven serial number.")
@click.option("--trust", type=click.Path(path_type=Path), help="The trust document (default: the home's).")
@click.option("--baud", type=click.IntRange(300, 4_000_000), default=BAUD, show_default=True, help="Line speed.")
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
@click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="On stderr: a bar on a terminal, else one JSON line a second (auto); those lines anywhere (json); nothing.",
)
@click.option("--dry-run", is_flag=True, help="Verify and check everything a bench can; open no port.")
@click.option("--reason", help="Why, for the record.")
@click.option("--work-order", help="Work order, for the record.")
@click.option("--second-passphrase-fd", type=DESCRIPTOR, help="File descriptor for the second key's passphrase.")
@passphrase_option
@click.pass_obj
def push(invocation: Invocation, /, **options: Any) -> None:
    """Push FILE.suit to a device. The device judges release, technician and grant again by itself."""
    wish = Wish(**options)
    if (wish.second_key is None) != (wish.second_grant is None):
        raise click.UsageError("--second-key and --second-grant go together")
    if wish.delta_from is not None and (wish.delta == "never" or wish.protocol == "smp"):
        raise click.UsageError("--delta-from asks for a patch; --delta never forbids it, and MCUmgr devices take none")
    if wish.image and wish.protocol != "smp":
        raise click.UsageError("--image goes with --protocol smp")
    try:
        with recorded(invocation, "release.push") as note, ExitStack() as stack:
            result = Pusher(invocation, wish, note, stack).run()
    except DevguardError as error:
        invocation.error(error, {"accepted": False, "code": error.code, "device": None, "report": None, "link": None})
        raise click.exceptions.Exit(int(error.exit_status)) from error
    invocation.result(result, lambda: _print(result))


class Pusher:
    """One run of `push`, in steps; each may refuse."""

    def __init__(self, invocation: Invocation, wish: Wish, note: Note, stack: ExitStack) -> None:
        self.invocation = invocation
        self.wish = wish
        self.note = note
        self.stack = stack
        self._copy: BinaryIO | None = None

    def run(self) -> dict[str, Any]:
        """All steps; the JSON result of the contract."""
        from devguard.trust.document import check_time

        trust = self.invocation.home.trust(self.wish.trust)
        check_time(trust, self.invocation.now())
        release, judged = self._verdict(trust)
        signer, one = self._technician()
        checked = self._check_grant(one, signer, trust, release)
        if self.wish.dry_run:
            self.note.details["dry-run"] = "yes"
            self.note.commit()
            return {"accepted": True, "code": None, "dry_run": True, "device": None, "report": None, "link": None}
        if self.wish.protocol == "smp":
            from devguard.cli.push_smp import push_over_smp

            return push_over_smp(self, trust, judged, signer, checked)
        return self._push(trust, judged, signer, checked)

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
        self.note.commit(action="release.verify")
        self.note.written = False
        return release, judged

    def _for_device(self, trust: TrustDocument, judged: Judged, report: Report) -> tuple[Release, Envelope]:
        """The verdict again, now for the device that answered: its model, its serial, what it runs."""
        from devguard.device.models import load_model
        from devguard.verdict.judge import Target, judge

        if judged.envelope is None:
            raise Refused("envelope.malformed", "a verdict without an envelope")
        settled = report.manifest_digest is not None and report.boot_state != "fallback"
        target = Target(
            model=load_model(report.model).facts,
            serial=report.serial,
            installed_sequence=report.sequence if settled else None,
            installed_digest=report.manifest_digest if settled else None,
            security_version=report.security_version,
            installed_version=report.version if settled else None,
        )
        now = self.invocation.now()
        verdict = judge(judged.envelope, trust=trust, now=now, target=target, payload=judged.measured)
        return verdict.require(), judged.envelope

    def _technician(self) -> tuple[FileSigner, Grant]:
        from devguard.cli.files import read_grant_file

        home = self.invocation.home
        reference = self.wish.key or str(home.one_key("technician"))
        info = home.key_info(reference)
        if self.wish.grant is not None:
            one = read_grant_file(self.wish.grant)
        else:
            kept = []
            for path in home.grant_files():
                with contextlib.suppress(DevguardError):  # what cannot be read does not fit; `status` shows it
                    kept.append(read_grant_file(path))
            fitting = [
                item
                for item in kept
                if item.holder.thumbprint == info.key.thumbprint and item.expires > self.invocation.now()
            ]
            if len(fitting) != 1:
                raise Refused(
                    "grant.missing",
                    f"{len(fitting) or 'no'} grants in {home.grants} fit this key",
                    "say which with --grant",
                )
            one = fitting[0]
        self.note.actor = one.subject
        self.note.digest("GRANT", hashlib.sha256(one.untagged).digest())
        signer = self.invocation.signer(reference, self.wish.passphrase_fd)
        return signer, one

    def _check_grant(self, one: Grant, signer: FileSigner, trust: TrustDocument, release: Release) -> CheckedGrant:
        from devguard.cli.grant import device_view
        from devguard.grant.check import check_grant
        from devguard.grant.claims import Action

        view = device_view(one, trust, model=release.model, serial=self.wish.serial)
        if self.note.memory is not None:
            view = replace(view, spent=self.note.memory.spent)
        checked = check_grant(
            one, trust=trust, now=self.invocation.now(), device=view, action=Action.UPDATE, holder=signer.key
        )
        checked.covers(release)
        return checked

    def _push(self, trust: TrustDocument, judged: Judged, signer: FileSigner, checked: CheckedGrant) -> dict[str, Any]:
        from devguard.cli.judging import stream_of
        from devguard.cli.line import runner_on, totals
        from devguard.cli.progress import progress_bar
        from devguard.link.driver import SerialDriver
        from devguard.manifest.envelope import sever
        from devguard.session.connect import Bench
        from devguard.session.update import UpdateSession, after_reboot

        wish, note = self.wish, self.note
        port = choose_port(self.invocation, wish.port)
        note.details["port"] = port
        for name in ("reason", "work_order"):
            if (text := getattr(wish, name)) is not None:
                note.details[name.replace("_", "-")] = text
        bench = Bench(trust, self.invocation.now(), os.urandom, checked.grant.untagged, signer, wish.serial)
        started = time.monotonic()
        with SerialDriver.open(port, wish.baud) as driver:
            runner = runner_on(driver, baud=wish.baud)
            before = self._before(runner, bench)
            bench = replace(bench, serial=before.serial)  # from here on this very device, or none
            note.device = before.serial
            if wish.resume:
                from devguard.cli.resume import check_resumed

                check_resumed(self.invocation.home, before.serial, judged.envelope)
            release, envelope = self._for_device(trust, judged, before)
            payload = stream_of(judged, release)
            forms = self._forms(payload, release.size, before)
            note.commit(action="release.push-begun")
            note.written = False
            with progress_bar(self.invocation, release.size, wish.progress) as meter:
                runner.engine = meter.engine
                session = UpdateSession(
                    release, checked, bench, sever(envelope), payload, self.approver(), meter, forms, meter.queued
                )
                self._patiently(lambda: runner.run(session.push()))
            note.remember.append(lambda memory: memory.with_push(release, checked))
            seconds = time.monotonic() - started
            self.invocation.note("the device boots the new image on trial ...")
            report, signed = self._report(runner, bench)
        note.digest("REPORT", hashlib.sha256(signed).digest())
        note.digest("DEVICE_HEAD", report.log_head)
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

    def _before(self, runner: Any, bench: Any) -> Any:
        """What the device runs before the push, from its signed report: for the result and to refuse early."""
        from devguard.session.update import fetch_report

        report, _ = self._patiently(lambda: runner.run(fetch_report(bench)))
        return report

    def _patiently(self, attempt: Any) -> Any:
        """With --resume a device that is still in the lost session, or backs off, is waited for."""
        deadline = time.monotonic() + 45
        while True:
            try:
                return attempt()
            except DeviceRefused as error:
                if error.code != "device.busy" or not self.wish.resume or time.monotonic() > deadline:
                    raise
                time.sleep(2)

    def _report(self, runner: Any, bench: Any) -> Any:
        """The report after the trial boot: the device may need a moment before it answers again."""
        from devguard.errors import LinkError
        from devguard.session.update import fetch_report

        deadline = time.monotonic() + 60
        while True:
            try:
                return runner.run(fetch_report(bench))
            except LinkError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def approver(self) -> Approver | None:
        from devguard.cli.approve import file_approver, key_approver

        wish = self.wish
        if wish.second_key is not None and wish.second_grant is not None:
            signer = self.invocation.signer(wish.second_key, wish.second_passphrase_fd)
            return key_approver(signer, wish.second_grant)
        if wish.approval is not None:
            return file_approver(self.invocation, wish.approval)
        return None


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

"""What every visit to a device shares: who comes, with which key and grant, over which port, and a second technician.

`Errand` is what was asked on the command line, `Visit` the steps before a session and after one. `push` and the actions
of `device` are visits; each adds its own. Nothing here decides: the rooms do, and the device again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from devguard.cli.context import DESCRIPTOR, Invocation, passphrase_option
from devguard.cli.device_words import Words
from devguard.cli.line import BAUD
from devguard.cli.record import Note
from devguard.cli.reserve import Reservation, reserving
from devguard.cli.times import Moment
from devguard.errors import DevguardError, DeviceRefused, LinkError, Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.check import CheckedGrant
    from devguard.grant.claims import Grant
    from devguard.link.runner import ScriptRunner
    from devguard.session.approval import ApprovalRequest
    from devguard.session.approving import Approver
    from devguard.session.connect import Bench
    from devguard.session.report import Report
    from devguard.trust.document import TrustDocument

T = TypeVar("T")
REBOOT_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What was asked on the command line, of any action."""

    port: str | None
    key: str | None
    grant: Path | None
    second_key: str | None
    second_grant: Path | None
    approval: Path | None
    qr: bool
    serial: str | None
    device_clock: int | None
    trust: Path | None
    baud: int
    reason: str | None
    work_order: str | None
    passphrase_fd: int | None
    second_passphrase_fd: int | None


_OPTIONS = (
    click.option(
        "--port", help="Device path, socket:// or rfc2217:// URL (default: where exactly one device answers)."
    ),
    click.option("--key", metavar="TECH_KEY", help="The technician's key (default: the only one in the home)."),
    click.option(
        "--grant", type=click.Path(path_type=Path), help="The grant (default: the only one in the home that fits)."
    ),
    click.option("--second-key", metavar="KEY", help="The second technician's key."),
    click.option("--second-grant", type=click.Path(path_type=Path), help="The second technician's grant."),
    click.option(
        "--approval",
        type=click.Path(path_type=Path),
        help="Wait for the second technician's approval in this file, the request beside it; - for text typed here.",
    ),
    click.option("--qr", is_flag=True, help="Draw what the second technician is asked as a QR code too."),
    click.option("--serial", help="This proven serial number, or none (default: asked for at a terminal)."),
    click.option(
        "--device-clock", type=Moment(), help="The time on the device, where it stands ahead of this machine's."
    ),
    click.option("--trust", type=click.Path(path_type=Path), help="The trust document (default: the home's)."),
    click.option("--baud", type=click.IntRange(300, 4_000_000), default=BAUD, show_default=True, help="Line speed."),
    click.option("--reason", help="Why, for the record."),
    click.option("--work-order", help="Work order, for the record."),
    click.option("--second-passphrase-fd", type=DESCRIPTOR, help="File descriptor for the second key's passphrase."),
    passphrase_option,
)


def visit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of an `Errand`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_errand(errand: Errand) -> None:
    """A usage error where options contradict each other."""
    typed = errand.second_key is None and errand.approval is not None  # a grant at hand makes a short answer enough
    if (errand.second_key is None) != (errand.second_grant is None) and not typed:
        raise click.UsageError("--second-key and --second-grant go together")


class Visit:
    """The steps of an errand that are the same whatever it is; each may refuse."""

    def __init__(self, invocation: Invocation, errand: Errand, note: Note) -> None:
        self.invocation = invocation
        self.errand = errand
        self.note = note
        self.words = Words(note)
        self.use = Reservation()
        if errand.qr:
            from devguard.cli.qr import need_segno

            need_segno()

    def trust(self) -> TrustDocument:
        """The trust document, in its time."""
        from devguard.trust.document import check_time

        trust = self.invocation.home.trust(self.errand.trust)
        check_time(trust, self.invocation.now())
        return trust

    def technician(self) -> tuple[FileSigner, Grant]:
        """The first technician's key and grant; both are in the record from here on."""
        from devguard.cli.files import read_grant_file
        from devguard.evidence.rules import ASKED

        if self.errand.serial is not None:
            self.note.details[ASKED] = self.errand.serial
        home = self.invocation.home
        reference = self.errand.key or str(home.one_key("technician"))
        info = home.key_info(reference)
        if self.errand.grant is not None:
            one = read_grant_file(self.errand.grant)
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
        signer = self.invocation.signer(reference, self.errand.passphrase_fd)
        return signer, one

    def check(
        self, one: Grant, signer: FileSigner, trust: TrustDocument, action: str, model: str | None = None
    ) -> CheckedGrant:
        """The bench's check of a grant for an action; `model` None: the one that the grant names."""
        from devguard.cli.grant import device_view
        from devguard.cli.standing import check_standing
        from devguard.grant.check import check_grant
        from devguard.grant.claims import Action

        check_standing(self.note, one)
        view = device_view(one, trust, model=model, serial=self.errand.serial)
        if self.note.memory is not None:
            view = replace(view, spent=self.note.memory.spent)
        now = max(self.invocation.now(), self.errand.device_clock or 0)
        checked = check_grant(one, trust=trust, now=now, device=view, action=Action(action), holder=signer.key)
        self._check_second(checked, trust, now)
        return checked

    def _check_second(self, first: CheckedGrant, trust: TrustDocument, now: int) -> None:
        """Where both grants are here, what the device would refuse of the pair is refused before a port is opened."""
        from devguard.cli.files import read_grant_file
        from devguard.grant.check import check_grant, check_pair

        errand = self.errand
        if errand.second_grant is None:
            return
        grant = read_grant_file(errand.second_grant)
        holder = None if errand.second_key is None else self.invocation.home.key_info(errand.second_key).key
        second = check_grant(grant, trust=trust, now=now, device=first.device, action=first.action, holder=holder)
        check_pair(first, second)

    @contextlib.contextmanager
    def reserved(self, checked: CheckedGrant, what: bytes) -> Iterator[None]:
        """What is done under a use of the grant that the group's store holds for this visit; see `cli.reserve`. `what`:
        the release's manifest digest, or what else the use is bound to."""
        with reserving(self, checked, what) as self.use:
            yield

    def describe(self, port: str) -> None:
        """Port, reason and work order into the record."""
        self.note.details["port"] = port
        for name in ("reason", "work_order"):
            if (text := getattr(self.errand, name)) is not None:
                self.note.details[name.replace("_", "-")] = text

    def bench(self, trust: TrustDocument, checked: CheckedGrant, signer: FileSigner) -> Bench:
        """Who comes, for a conversation; `device.identity` where nobody said to which of several devices."""
        from devguard.cli.confirm import need_serial
        from devguard.session.connect import Bench

        need_serial(self.invocation, self.errand.serial, checked.grant)
        now, serial = self.invocation.now(), self.errand.serial
        return self.words.on(Bench(trust, now, os.urandom, checked.grant.untagged, signer, serial))

    def approver(self) -> Approver | None:
        """The second technician, in this room or another; None where nobody was named."""
        from devguard.cli.approvers import TYPED, KeyApprover, WaitingApprover
        from devguard.cli.files import read_grant_file

        errand = self.errand
        grant = None if errand.second_grant is None else read_grant_file(errand.second_grant)
        if errand.second_key is not None and grant is not None:
            signer = self.invocation.signer(errand.second_key, errand.second_passphrase_fd)
            return self._on_record(KeyApprover(signer, grant, self._second))
        if errand.approval is not None:
            place = None if str(errand.approval) == TYPED else errand.approval
            return self._on_record(WaitingApprover(self.invocation, self._second, grant, place, errand.qr))
        return None

    def _on_record(self, approver: Approver) -> Approver:
        """The same; what the second technician signs goes into the next record."""
        from devguard.evidence.record import Statement

        def asked(request: ApprovalRequest) -> tuple[bytes, bytes] | None:
            answer = approver(request)
            if answer is not None:
                self.note.statements[Statement.APPROVAL], self.note.statements[Statement.SECOND_GRANT] = answer
            return answer

        return asked

    def _second(self, grant: Grant) -> None:
        """What stands against the second technician here; their grant is in the record from here on."""
        from devguard.cli.standing import check_standing

        self.note.digest("SECOND_GRANT", hashlib.sha256(grant.untagged).digest())
        check_standing(self.note, grant)

    def patiently(self, attempt: Callable[[], T], *, wait: bool) -> T:
        """With `wait` a device that is still in a lost session, or backs off, is waited for."""
        deadline = self.invocation.ticks() + 45
        while True:
            try:
                return attempt()
            except DeviceRefused as error:
                if error.code != "device.busy" or not wait or self.invocation.ticks() > deadline:
                    raise
                self.invocation.pause(2)

    def report_after(self, runner: ScriptRunner, bench: Bench) -> tuple[Report, bytes]:
        """The report after a boot: the device may need a moment before it answers again."""
        from devguard.session.update import fetch_report

        deadline = self.invocation.ticks() + REBOOT_SECONDS
        while True:
            try:
                return runner.run(fetch_report(bench))
            except LinkError:
                if self.invocation.ticks() > deadline:
                    raise
                self.invocation.pause(1)

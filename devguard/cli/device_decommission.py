"""`devguard device decommission`: a device erases itself on the word of two; `device erasure` reads what it said.

There is no way back: the serial number is named before a port is opened, and the certificate is written, on record and
kept by the device too, for whoever did not hear the answer.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.line import choose_port
from devguard.cli.record import recorded
from devguard.cli.times import iso
from devguard.cli.visit import Errand, Visit, check_errand, visit_options
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.link.runner import ScriptRunner
    from devguard.session.erasure import Erased
    from devguard.trust.document import TrustDocument

LIMIT = 64 * 1024


@click.command(cls=Command)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The certificate to write.")
@visit_options
@click.pass_obj
def decommission(invocation: Invocation, /, out: Path, **options: Any) -> None:
    """Have a device erase its keys, credential, trust and therapy for good, and sign that it did.

    Two technicians, each with a grant for `decommission`, on every model. A device that has done it already gives its
    certificate once more.
    """
    from devguard.custody.files import write_atomic

    errand = Errand(**options)
    check_errand(errand)
    if errand.serial is None:
        raise click.UsageError("--serial names the device that is to be erased: there is no way back")
    with recorded(invocation, "device.decommission") as note:
        note.device = errand.serial
        found, certificate = _erased(Visit(invocation, errand, note))
        note.digest("PAYLOAD", hashlib.sha256(certificate).digest())
        note.digest("DEVICE_HEAD", found.log_head)
        note.commit()
        write_atomic(out, certificate)
    invocation.result({**found.to_json(), "decommissioned": True, "path": str(out)}, _text(found, str(out)))


def _erased(visit: Visit) -> tuple[Erased, bytes]:
    from devguard.cli.line import runner_on
    from devguard.link.driver import SerialDriver
    from devguard.session.connect import greet
    from devguard.session.erasure import decommission

    errand, note = visit.errand, visit.note
    trust = visit.trust()
    signer, one = visit.technician()
    checked = visit.check(one, signer, trust, "decommission")
    approver = visit.approver()
    if approver is None:
        raise Refused("grant.quorum", "a device is erased on the word of two technicians, and one came")
    port = choose_port(visit.invocation, errand.port)
    visit.describe(port)
    with (
        visit.reserved(checked, os.urandom(32)),
        SerialDriver.open(port, errand.baud, visit.invocation.ticks) as driver,
    ):
        runner = runner_on(driver, baud=errand.baud)
        if runner.run(greet()).boot_state == "decommissioned":
            return _again(runner, trust, visit)
        visit.use.offer()
        note.commit(action="device.decommission-begun")
        note.written = False
        bench = replace(visit.bench(trust, checked, signer), serial=errand.serial)
        return runner.run(decommission(bench, checked, approver))


def _again(runner: ScriptRunner, trust: TrustDocument, visit: Visit) -> tuple[Erased, bytes]:
    """The certificate of a device that has erased itself before, if it is the one meant."""
    from devguard.session.erasure import fetch_erasure

    found, certificate = runner.run(fetch_erasure(trust, visit.invocation.now()))
    if found.serial != visit.errand.serial:
        raise Refused(
            "device.identity", f"asked for serial {visit.errand.serial}, what was erased here is another device"
        )
    return found, certificate


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@click.pass_obj
def erasure(invocation: Invocation, file: Path, trust_file: Path | None) -> None:
    """Verify a certificate of erasure with the trust document alone, and show what it says."""
    from devguard.custody.files import read_limited
    from devguard.session.erasure import read_erasure

    found = read_erasure(read_limited(file, LIMIT), invocation.home.trust(trust_file), invocation.now())
    invocation.result({**found.to_json(), "path": str(file)}, _text(found, str(file)))


def _text(found: Erased, path: str) -> str:
    lines = [
        f"{found.model} {found.revision}, serial {found.serial}: erased at {iso(found.time)}, by its own signature",
        f"  gone: {', '.join(found.erased)}",
        *(f"  key {one.hex()} proves nothing any more" for one in found.keys),
        f"  last event of its log: number {found.log_count}, head {found.log_head.hex()}",
        f"  certificate {path}",
    ]
    return "\n".join(lines)

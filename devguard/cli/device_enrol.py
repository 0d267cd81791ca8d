"""`devguard device enrol`: in the factory, over the line, a device with no name becomes somebody, once.

The keys are made on the device. What is signed here is on record before it is sent, and afterwards the device has to
prove each key under its new name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.line import BAUD, choose_port
from devguard.cli.record import Note, recorded
from devguard.errors import LinkError, Refused

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.credential import DeviceIdentity
    from devguard.link.runner import ScriptRunner
    from devguard.session.connect import Bench
    from devguard.session.enrolment import Name
    from devguard.trust.document import TrustDocument

START_SECONDS = 20


@click.command(cls=Command)
@click.argument("model")
@click.option("--serial", required=True, help="The serial number, as it stands on the device.")
@click.option("--port", help="Device path, socket:// or rfc2217:// URL (default: where exactly one device answers).")
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document it is to go by.")
@click.option(
    "--device-authority",
    "authorities",
    multiple=True,
    metavar="KEY",
    help="Signs its credentials; two persons for a device that was decommissioned (default: the only one in the home).",
)
@click.option("--site", help="Where the device will stand.")
@click.option("--revision", help="Hardware revision (default: the model's first).")
@click.option("--baud", type=click.IntRange(300, 4_000_000), default=BAUD, show_default=True, help="Line speed.")
@passphrase_option
@click.pass_obj
def enrol(invocation: Invocation, /, **wish: Any) -> None:
    """Enrol the MODEL on the port: keys made on it, credentials, site and trust document, once and never again."""
    from devguard.cli.emulate import PLAIN
    from devguard.device.models import load_model
    from devguard.session.enrolment import Name

    if not PLAIN.fullmatch(wish["serial"]):
        raise click.BadParameter(f"{wish['serial'][:80]!r} is not a plain serial number", param_hint="--serial")
    model = load_model(wish["model"])
    name = Name(model.name, wish["revision"] or model.default_revision, wish["serial"], wish["site"])
    with recorded(invocation, "device.enrol") as note:
        note.device = name.serial
        keys, document = Enrolment(invocation, note, name, wish).run()
    data = {
        "model": name.model,
        "revision": name.revision,
        "serial": name.serial,
        "site": name.site,
        "keys": [{"alg": one.algorithm.label, "fingerprint": one.fingerprint} for one in keys],
        "trust_version": document.version,
        "enrolled": True,
    }
    lines = [f"{name.model} {name.revision}, serial {name.serial}, is enrolled and has proved it"]
    lines += [f"  {one.algorithm.label} key {one.fingerprint}" for one in keys]
    lines.append(f"  trust document version {document.version}, site {name.site or 'not said'}")
    invocation.result(data, "\n".join(lines))


class Enrolment:
    """One run of `device enrol`, in steps; each may refuse."""

    def __init__(self, invocation: Invocation, note: Note, name: Name, wish: dict[str, Any]) -> None:
        self.invocation, self.note, self.name, self.wish = invocation, note, name, wish

    def run(self) -> tuple[tuple[CoseKey, ...], TrustDocument]:
        """The device's keys and the document it goes by."""
        from devguard.cli.home import TRUST_LIMIT
        from devguard.cli.line import runner_on
        from devguard.custody.files import read_limited
        from devguard.link.driver import SerialDriver
        from devguard.session.enrolment import enrol
        from devguard.trust.document import check_time

        invocation, wish = self.invocation, self.wish
        document = invocation.home.trust(wish["trust_file"])
        check_time(document, invocation.now())
        trust = read_limited(wish["trust_file"] or invocation.home.trust_file, TRUST_LIMIT)
        signers = self._signers()
        port = choose_port(invocation, wish["port"])
        self.note.details["port"] = port
        self.note.document(document)
        with SerialDriver.open(port, wish["baud"], invocation.ticks) as driver:
            runner = runner_on(driver, baud=wish["baud"])
            keys = runner.run(enrol(self.name, trust, lambda made: self._issue(made, signers, document), os.urandom))
            self._proved(runner, document, keys)
        self.note.commit()
        return keys, document

    def _signers(self) -> list[FileSigner]:
        from devguard.cli.emulate import device_authority

        fd, given = self.wish["passphrase_fd"], self.wish["authorities"]
        signers = [device_authority(self.invocation, self.wish["trust_file"], one, fd) for one in given or [None]]
        self.note.actor = ", ".join(one.info.person for one in signers)
        return signers

    def _issue(self, keys: Sequence[CoseKey], signers: Sequence[FileSigner], document: TrustDocument) -> list[bytes]:
        """The credential of each key, judged as the device will judge it; on record before the device has it."""
        from devguard.device.models import load_model
        from devguard.grant.credential import check_credential, issue_credential, read_credential

        now, made = self.invocation.now(), []
        for key in keys:
            data = issue_credential(
                signers,
                issuer=self.note.actor,
                vendor=load_model(self.name.model).facts.vendor,
                model=self.name.model,
                revision=self.name.revision,
                serial=self.name.serial,
                key=key,
                now=now,
            )
            check_credential(read_credential(data), document, now)
            made.append(data)
        # The one place where they stand when the device is out of reach and they are to be revoked.
        self.note.details["keys"] = ", ".join(key.fingerprint for key in keys)
        self.note.commit(action="device.enrol-begun")
        self.note.written = False
        return made

    def _proved(self, runner: ScriptRunner, document: TrustDocument, keys: tuple[CoseKey, ...]) -> None:
        """The device under its new name, by a handshake for each key; it may need a moment to start."""
        from devguard.session.connect import EDWARDS_SUITES, IDENTIFY_SUITES, Bench

        bench = Bench(document, self.invocation.now(), os.urandom, serial=self.name.serial)
        found = {self._identity(runner, bench, suites).key.thumbprint for suites in (IDENTIFY_SUITES, EDWARDS_SUITES)}
        if found != {key.thumbprint for key in keys}:
            raise Refused("device.identity", "the device proves other keys than those that were enrolled")

    def _identity(self, runner: ScriptRunner, bench: Bench, suites: tuple[int, ...]) -> DeviceIdentity:
        from devguard.session.connect import identify

        deadline = self.invocation.ticks() + START_SECONDS
        while True:
            try:
                return runner.run(identify(bench, suites))[0]
            except LinkError:
                if self.invocation.ticks() > deadline:
                    raise
                self.invocation.pause(0.2)

"""`devguard device list|info`: which ports carry a device, and which device it proves to be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.line import BAUD, choose_port

if TYPE_CHECKING:
    pass


@click.group()
def device() -> None:
    """Find devices and ask them who they are."""


@device.command("list", cls=Command)
@click.pass_obj
def list_devices(invocation: Invocation) -> None:
    """List serial ports and the devices that answer on them. Nothing is proven by an answer."""
    from devguard.cli.line import answering
    from devguard.link.driver import list_ports

    rows = [
        {"port": port.device, "description": port.description, "answers": state is not None, "boot_state": state}
        for port, state in answering(list_ports())
    ]
    lines = [
        f"{row['port']:20} {'device, ' + str(row['boot_state']) if row['answers'] else 'no device':24} "
        f"{row['description']}"
        for row in rows
    ]
    invocation.result({"ports": rows}, "\n".join(lines) or "no serial ports on this machine")


@device.command("info", cls=Command)
@click.option("--port", help="Device path or URL (default: where exactly one device answers).")
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@click.option("--serial", help="Refuse any other proven serial.")
@click.option("--key", metavar="TECH_KEY", help="With --grant: open a session and read the device's signed report.")
@click.option("--grant", "grant_file", type=click.Path(path_type=Path), help="The grant of that key.")
@click.option("--baud", type=click.IntRange(300, 4_000_000), default=BAUD, show_default=True, help="Line speed.")
@passphrase_option
@click.pass_obj
def info(
    invocation: Invocation,
    port: str | None,
    trust_file: Path | None,
    serial: str | None,
    key: str | None,
    grant_file: Path | None,
    baud: int,
    passphrase_fd: int | None,
) -> None:
    """Show the serial a device proves; with a technician's key and grant also what it runs."""
    from devguard.cli.home import GRANT_LIMIT
    from devguard.cli.line import runner_on
    from devguard.custody.files import read_limited
    from devguard.grant.claims import read_grant
    from devguard.link.driver import SerialDriver
    from devguard.session.connect import Bench, identify
    from devguard.session.update import fetch_report

    if (key is None) != (grant_file is None):
        raise click.UsageError("--key and --grant go together")
    trust = invocation.home.trust(trust_file)
    bench = Bench(trust, invocation.now(), os.urandom, serial=serial)
    shown: dict[str, Any] = {}
    with SerialDriver.open(choose_port(invocation, port), baud) as driver:
        runner = runner_on(driver, baud=baud)
        identity, hello = runner.run(identify(bench))
        if key is not None and grant_file is not None:
            signer = invocation.signer(key, passphrase_fd)
            one = read_grant(read_limited(grant_file, GRANT_LIMIT))
            full = Bench(trust, invocation.now(), os.urandom, one.untagged, signer, identity.serial)
            shown = runner.run(fetch_report(full))[0].to_json()
    data = {
        "model": identity.model,
        "serial": identity.serial,
        "vendor": identity.vendor,
        "revision": identity.revision,
        "boot_state": hello.boot_state,
        "nonce": hello.nonce.hex(),
        "report": shown or None,
    }
    lines = [
        f"{identity.model} {identity.revision} of {identity.vendor}, serial {identity.serial} (proven)",
        f"boot state {hello.boot_state} (not proven), nonce {hello.nonce.hex()}",
    ]
    lines += [f"  {name:18} {value}" for name, value in shown.items()]
    if not shown:
        lines.append("version and counters: with --key and --grant")
    invocation.result(data, "\n".join(lines))

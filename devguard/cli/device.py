"""`devguard device list|info`: which ports carry a device, and which device it proves to be; the rest in `device_*`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, LazyGroup, passphrase_option
from devguard.cli.line import BAUD, choose_port, component_lines
from devguard.cli.record import recorded

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.cose.sign import Signer
    from devguard.grant.credential import DeviceIdentity
    from devguard.link.runner import ScriptRunner
    from devguard.session.connect import Bench
    from devguard.session.verbs import HelloReply


_TABLE = {
    "acknowledge": ("devguard.cli.device_change", "acknowledge", "Take note, by name, that a device was changed."),
    "recover": ("devguard.cli.device_recover", "recover", "Put back the release confirmed last, after damage."),
    "enrol": ("devguard.cli.device_enrol", "enrol", "In the factory: make a device with no name somebody, once."),
    "decommission": ("devguard.cli.device_decommission", "decommission", "Have a device erase itself, on two words."),
    "erasure": ("devguard.cli.device_decommission", "erasure", "Verify a certificate of erasure."),
    "log": ("devguard.cli.device_log", "log", "Read the device's own log, verified against its signed report."),
}


@click.group(cls=LazyGroup, table=_TABLE)
def device() -> None:
    """Find devices and ask them who they are; enrol, mend and decommission them; read their log."""


@device.command("list", cls=Command)
@click.option(
    "--port", "only", multiple=True, metavar="PORT", help="Ask this port and no other, also one that no list shows."
)
@click.pass_obj
def list_devices(invocation: Invocation, only: tuple[str, ...]) -> None:
    """List serial ports and the devices that answer on them. Nothing is proven by an answer."""
    from devguard.cli.line import answering
    from devguard.link.driver import PortInfo, list_ports

    found = list_ports()
    known = {port.device: port for port in found}
    if only:
        found = [known.get(port, PortInfo(port, "", None, None, None)) for port in dict.fromkeys(only)]
    rows = [
        {"port": port.device, "description": port.description, "answers": state is not None, "boot_state": state}
        for port, state in answering(found)
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
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Keep the signed report, to hold a log against.")
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
    out: Path | None,
    baud: int,
    passphrase_fd: int | None,
) -> None:
    """Show the serial a device proves, and with which keys; with a technician's key and grant also what it runs.

    A key's fingerprint is what `devguard trust revoke` takes when the device or its key was stolen.
    """
    from devguard.cli.line import runner_on
    from devguard.link.driver import SerialDriver
    from devguard.session.connect import Bench

    if (key is None) != (grant_file is None):
        raise click.UsageError("--key and --grant go together")
    if out is not None and key is None:
        raise click.UsageError("-o keeps the report, which takes --key and --grant")
    bench = Bench(invocation.home.trust(trust_file), invocation.now(), os.urandom, serial=serial)
    shown: dict[str, Any] = {}
    changed: list[dict[str, Any]] = []
    with SerialDriver.open(choose_port(invocation, port), baud, invocation.ticks) as driver:
        runner = runner_on(driver, baud=baud)
        identity, hello, keys = _identified(runner, bench)
        if key is not None and grant_file is not None:
            full = replace(bench, serial=identity.serial)
            signer = partial(invocation.signer, key, passphrase_fd)
            shown, changed = _report(invocation, runner, full, grant_file, signer, out)
    data = {
        "model": identity.model,
        "serial": identity.serial,
        "vendor": identity.vendor,
        "revision": identity.revision,
        "keys": [{"alg": one.algorithm.label, "fingerprint": one.fingerprint} for one in keys],
        "boot_state": hello.boot_state,
        "nonce": hello.nonce.hex(),
        "report": shown or None,
        "changed": changed,
    }
    lines = [
        f"{identity.model} {identity.revision} of {identity.vendor}, serial {identity.serial} (proven)",
        *(f"  {one.algorithm.label} key {one.fingerprint} (proven)" for one in keys),
        f"boot state {hello.boot_state} (not proven), nonce {hello.nonce.hex()}",
    ]
    lines += [f"  {name:18} {value}" for name, value in shown.items() if name != "components"]
    lines += component_lines(shown)
    if not shown:
        lines.append("version and counters: with --key and --grant")
    if changed:
        lines.append("CHANGED by somebody else since the last record here; no push until an authority acknowledges it:")
        lines += [f"  {one['name']:18} {one['before']} on record, {one['after']} found" for one in changed]
    invocation.result(data, "\n".join(lines))


def _identified(runner: ScriptRunner, bench: Bench) -> tuple[DeviceIdentity, HelloReply, list[CoseKey]]:
    """Which device it is, and every key it proves that with: whoever revokes a stolen device revokes them all."""
    from devguard.session.connect import EDWARDS_SUITES, identify

    identity, hello = runner.run(identify(bench))
    keys = [identity.key]
    if not set(EDWARDS_SUITES).isdisjoint(hello.suites):
        other, _ = runner.run(identify(replace(bench, serial=identity.serial), EDWARDS_SUITES))
        keys.append(other.key)
    return identity, hello, keys


def _report(
    invocation: Invocation,
    runner: ScriptRunner,
    bench: Bench,
    grant_file: Path,
    signer: Callable[[], Signer],
    out: Path | None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what the device says of itself in a session, which is on record before it is opened; what nobody here did)."""
    import hashlib

    from devguard.cli.device_change import as_dicts, note_change
    from devguard.cli.device_words import Words
    from devguard.cli.files import read_grant_file
    from devguard.cli.standing import check_standing
    from devguard.custody.files import write_atomic
    from devguard.session.update import fetch_report

    with recorded(invocation, "device.info") as note:
        one = read_grant_file(grant_file)
        note.actor, note.device = one.subject, bench.serial
        note.digest("GRANT", hashlib.sha256(one.untagged).digest())
        check_standing(note, one)
        words = Words(note)
        full = words.on(replace(bench, grant=one.untagged, signer=signer()))
        note.commit()
        report, signed = runner.run(fetch_report(full))
        kept = words.report(report, signed)
        changed = note_change(note, report)
        if not changed:
            note.commit(action="device.report")
        if out is not None:
            write_atomic(out, kept.encode())
    return report.to_json(), as_dicts(changed)

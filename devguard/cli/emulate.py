"""`devguard emulate`: serve an emulated device; its first start enrols it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devguard.cli.context import Command, Invocation, VerdictExit, passphrase_option
from devguard.cli.faults import KNOWN, Faults
from devguard.errors import Exit, Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import FileSigner
    from devguard.device.emulator import PtyLine, SocketLine
    from devguard.device.models import Model
    from devguard.device.storage import DeviceDirectory
    from devguard.device.therapy_loop import TherapyLoop
    from devguard.device.unit import Unit

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # a serial number that is also a folder's name


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document the device is enrolled with."
)
@click.option(
    "--device-authority", "authority", metavar="KEY", help="Signs the device's credential at its first start."
)
@click.option("--serial", help="Serial number at its first start (default: a random one).")
@click.option("--site", help="Where the device stands.")
@click.option(
    "--unprovisioned", is_flag=True, help="Do not enrol it at its first start: wait for `devguard device enrol`."
)
@click.option("--revision", help="Hardware revision (default: the model's first).")
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), help="State directory (default: in the home)."
)
@click.option("--link", default="pty", show_default=True, help="pty or socket://127.0.0.1:PORT.")
@click.option("--protocol", type=click.Choice(["devguard", "smp"]), default="devguard", show_default=True)
@click.option(
    "--firmware",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What a model that speaks only MCUmgr runs at its first start: one MCUboot image for each of its images.",
)
@click.option(
    "--fault", "faults", multiple=True, metavar="SPEC", help=f"Something wrong on purpose: {', '.join(KNOWN)}."
)
@passphrase_option
@click.pass_obj
def emulate(
    invocation: Invocation,
    model: str,
    trust_file: Path | None,
    authority: str | None,
    serial: str | None,
    site: str | None,
    unprovisioned: bool,
    revision: str | None,
    state: Path | None,
    link: str,
    protocol: str,
    firmware: tuple[Path, ...],
    faults: tuple[str, ...],
    passphrase_fd: int | None,
) -> None:
    """Serve an emulated MODEL on a pseudo-terminal until SIGTERM; its state survives."""
    from devguard.device.models import load_model
    from devguard.device.storage import DeviceDirectory

    known = load_model(model)
    wrong = Faults.of(faults)
    _check_link(link)
    if serial is not None and not PLAIN.fullmatch(serial):
        raise click.BadParameter(f"{serial[:80]!r} is not a plain serial number", param_hint="--serial")
    name = serial or f"{model.split('-')[0].upper()}-{os.urandom(4).hex().upper()}"
    folder = state or invocation.home.make(invocation.home.path / "devices") / name
    if known.smp.only or firmware:
        from devguard.cli.emulate_smp import run_legacy

        run_legacy(invocation, known, protocol, folder, name, wrong, firmware, link)
        return
    with DeviceDirectory(folder, known) as directory:
        if directory.identity is None and not unprovisioned and not directory.erasing.begun:
            signer = device_authority(invocation, trust_file, authority, passphrase_fd)
            _enrol(invocation, directory, known, trust_file, signer, name, site, revision)
        elif serial is not None and directory.identity is not None and directory.identity.serial != serial:
            raise Refused("device.provisioned", f"{folder} belongs to serial {directory.identity.serial}, not {serial}")
        _serve(invocation, directory, link, wrong, protocol)


def _check_link(link: str) -> None:
    """A usage error for anything but a pseudo-terminal or a TCP port of this machine."""
    match = re.fullmatch(r"socket://(?:127\.0\.0\.1|localhost|\[::1\]):([0-9]{1,5})", link)
    if link != "pty" and (match is None or int(match[1]) > 65_535):
        raise click.BadParameter(f"{link[:80]!r} is neither pty nor socket://127.0.0.1:PORT", param_hint="--link")


def device_authority(
    invocation: Invocation, trust_file: Path | None, authority: str | None, fd: int | None
) -> FileSigner:
    """The key given, or the only one in the home that the trust document lets enrol devices."""
    from devguard.cose.roles import RoleName
    from devguard.custody.keyfile import read_info

    if authority is not None:
        return invocation.signer(authority, fd)
    role = invocation.home.trust(trust_file).role(RoleName.DEVICE_AUTHORITY)
    wanted = {entry.thumbprint for entry in role.keys} if role is not None else set()
    found = [path for path in invocation.home.private_keys() if read_info(path).key.thumbprint in wanted]
    if len(found) != 1:
        raise Refused(
            "device.unprovisioned",
            f"a new device needs a device authority, and {len(found) or 'none'} of the trust document's is here",
            "say which with --device-authority KEY",
        )
    return invocation.signer(str(found[0]), fd)


def _enrol(
    invocation: Invocation,
    directory: DeviceDirectory,
    model: Model,
    trust_file: Path | None,
    signer: FileSigner,
    serial: str,
    site: str | None,
    revision: str | None,
) -> None:
    from devguard.cli.home import TRUST_LIMIT
    from devguard.cli.record import recorded
    from devguard.custody.files import read_limited
    from devguard.device.provision import provision
    from devguard.grant.credential import read_credential

    invocation.home.trust(trust_file)
    trust = read_limited(trust_file or invocation.home.trust_file, TRUST_LIMIT)
    with recorded(invocation, "device.enrol", actor=signer.info.person) as note:
        note.device = serial
        provision(
            directory,
            serial=serial,
            revision=revision or model.default_revision,
            site=site,
            trust=trust,
            authority=signer,
            issuer=signer.info.person,
            now=invocation.now(),
            random=os.urandom,
        )
        keys = () if directory.identity is None else directory.identity.keys
        # The one place where they stand when the device is out of reach and they are to be revoked.
        note.details["keys"] = ", ".join(read_credential(one.credential).key.fingerprint for one in keys)


def _serve(invocation: Invocation, directory: DeviceDirectory, link: str, faults: Faults, protocol: str) -> None:
    """The device's two loops: its therapy, and its guard, which is started again when it dies."""
    from devguard.device.emulator import PtyLine, SocketLine
    from devguard.device.flash import PowerCut
    from devguard.device.therapy_loop import TherapyLoop
    from devguard.device.watchdog import keep_guard

    stopping = stop_signals()
    therapy = TherapyLoop(directory.load_therapy(), invocation.now, directory.save_therapy)
    therapy.change(lambda one: faults.trouble(one, invocation.now()))
    faults.harm(directory.cells)
    line = PtyLine() if link == "pty" else SocketLine(link)
    guard = Guard(invocation, directory, therapy, line, faults, protocol)
    therapy.start()
    try:
        keep_guard(guard, therapy, lambda: bool(stopping), guard.died)
    except PowerCut as cut:
        raise power_went(invocation, faults, cut) from None
    finally:
        line.close()
        therapy.stop()
    if signal.SIGINT in stopping:
        raise KeyboardInterrupt


class Guard:
    """What boots, judges and answers the line, from power-on to the stop or its death; called anew after that."""

    def __init__(
        self,
        invocation: Invocation,
        directory: DeviceDirectory,
        therapy: TherapyLoop,
        line: PtyLine | SocketLine,
        faults: Faults,
        protocol: str,
    ) -> None:
        self._invocation, self._directory, self._therapy, self._line = invocation, directory, therapy, line
        self._faults, self._protocol = faults, protocol
        self._power, self._crash = faults.power(), faults.crash()
        self._deaths = 0

    def __call__(self, stop: Callable[[], bool]) -> None:
        """Boot the device and serve it until `stop()`."""
        from devguard.device.emulator import serve_line
        from devguard.device.node import DeviceNode

        unit = self._unit()
        unit.boot()
        now = unit.now
        enrolled = now if isinstance(now, DeviceNode) else None
        if self._deaths and enrolled is not None:
            enrolled.store.save(enrolled.store.load().event(enrolled.now(), "guard-restarted", "internal.error"))
        if not self._invocation.printed:
            serial = None if enrolled is None else enrolled.identity.serial
            announce(self._invocation, self._line.port, unit.model.name, serial, self._directory.path)
        if self._protocol != "smp":
            serve_line(self._line, unit, os.urandom, stop, self._crash)
            return
        from devguard.cli.emulate_smp import serve_guarded

        if enrolled is None:
            raise Refused("device.unprovisioned", "a device that is not enrolled speaks no SMP")
        serve_guarded(enrolled, self._faults, self._line, stop)

    def died(self, error: BaseException) -> None:
        """Say so; it is started again, and the therapy has gone on."""
        self._deaths += 1
        why = f"{type(error).__name__}: {error}"
        self._invocation.note(f"the guard died ({why}) and is started again; the therapy goes on")

    def _unit(self) -> Unit:
        from devguard.device.node import Surroundings
        from devguard.device.unit import Unit

        faults, model = self._faults, self._directory.model
        battery = model.battery_percent if faults.battery is None else faults.battery
        surroundings = Surroundings(
            clock=self._invocation.now,
            uptime=self._invocation.ticks,
            battery_percent=lambda: battery,
            random=os.urandom,
            self_test=lambda: not faults.self_test,
            charging=lambda: faults.charging,
        )
        return Unit(self._directory, surroundings, self._therapy, self._power)


def stop_signals() -> list[int]:
    """Filled by the signals that end an emulator."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stopping.append(got))
    return stopping


def power_went(invocation: Invocation, faults: Faults, cut: Exception) -> VerdictExit:
    """Say that the power was cut as asked; what the emulator ends with."""
    at = faults.power_cut[0] if faults.power_cut else 0
    invocation.note(f"the power went at flash operation {at} ({cut}); start the emulator again to switch it on")
    return VerdictExit(Exit.RETRY)


def announce(invocation: Invocation, port: str, model: str, serial: str | None, state: Path) -> None:
    """The contract's first line, flushed: tools wait for it. `serial`: None of a device that is nobody."""
    invocation.printed = True
    click.echo(json.dumps({"port": port, "model": model, "serial": serial, "state": str(state)}))
    sys.stdout.flush()

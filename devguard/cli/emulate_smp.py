"""`devguard emulate --protocol smp`: an emulated device's SMP server on a line.

A model that speaks nothing else (`mcumgr-legacy`) needs no enrolment: it has no key, no credential, no trust document.
A model that demands authorisation is enrolled as always; over SMP it can be looked at and takes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devguard.cli.files import open_input
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.cli.faults import Faults
    from devguard.device.emulator import PtyLine, SocketLine
    from devguard.device.models import Model
    from devguard.device.node import DeviceNode
    from devguard.device.smp_lies import Lie
    from devguard.device.smp_server import SmpServer
    from devguard.device.smp_target import LegacyDevice


def run_legacy(
    invocation: Invocation,
    model: Model,
    protocol: str,
    path: Path,
    serial: str,
    faults: Faults,
    firmware: tuple[Path, ...],
    link: str,
) -> None:
    """Serve a model that speaks only MCUmgr until a signal ends it; a usage error for what only others have."""
    from devguard.cli.emulate import announce, power_went, stop_signals
    from devguard.device.emulator import PtyLine, SocketLine
    from devguard.device.flash import PowerCut

    if not model.smp.only:
        raise click.UsageError("--firmware is for models that speak only MCUmgr; others get a release pushed")
    if protocol != "smp":
        raise click.UsageError(f"a {model.name} speaks only MCUmgr: --protocol smp")
    if faults.therapy_active or faults.charging or (faults.battery, faults.alarm) != (None, None):
        raise click.BadParameter("this model shows neither therapy nor battery", param_hint="--fault")
    stopping = stop_signals()
    with ExitStack() as stack:
        device = _legacy_device(path, model, faults, firmware, stack)
        line = PtyLine() if link == "pty" else SocketLine(link)
        stack.callback(line.close)
        try:
            device.boot()
            announce(invocation, line.port, model.name, serial, path)
            _serve_legacy(device, model, faults, line, lambda: bool(stopping))
        except PowerCut as cut:
            raise power_went(invocation, faults, cut) from None
    if signal.SIGINT in stopping:
        raise KeyboardInterrupt


def _legacy_device(
    path: Path, model: Model, faults: Faults, firmware: tuple[Path, ...], stack: ExitStack
) -> LegacyDevice:
    """The legacy device in a state directory, not booted. At its first start its images are those of `firmware`, or
    small ones that stand for what the factory wrote."""
    from devguard.device.smp_serve import open_legacy
    from devguard.device.smp_slots import factory_image

    device = open_legacy(path, model, stack, fault=faults.power(), self_test=not faults.self_test, harm=faults.harm)
    if len(firmware) > len(device.images):
        raise click.BadParameter(f"{model.name} has {len(device.images)} image(s)", param_hint="--firmware")
    for number, slots in enumerate(device.images):
        if slots.new:
            slots.factory(_read(firmware[number], slots.capacity) if number < len(firmware) else factory_image(number))
    return device


def _read(file: Path, most: int) -> bytes:
    with open_input(file) as opened:
        data = opened.read(most + 1)
    if len(data) > most:
        raise Refused("device.slot", f"{file} does not fit a slot of {most} bytes")
    return data


def _lying(server: SmpServer, faults: Faults) -> SmpServer | Lie:
    """The server as it is, or behind the lie that was asked for."""
    from devguard.device.smp_lies import Lie, LieKind

    return server if faults.smp_lies is None else Lie(server, LieKind(faults.smp_lies))


def _serve_legacy(
    device: LegacyDevice,
    model: Model,
    faults: Faults,
    line: PtyLine | SocketLine,
    stop: Callable[[], bool],
) -> None:
    """Serve a booted legacy device until `stop()`."""
    from devguard.device.smp_serve import serve_line, server_for

    serve_line(line, _lying(server_for(model, device), faults), device.boot, stop)


def serve_guarded(
    node: DeviceNode,
    faults: Faults,
    line: PtyLine | SocketLine,
    stop: Callable[[], bool],
) -> None:
    """Serve a booted device of devguard's own kind, which denies everything but looking."""
    from devguard.device.smp_serve import serve_line
    from devguard.device.smp_server import SmpServer
    from devguard.device.smp_target import GuardedDevice

    smp = node.model.smp
    server = _lying(SmpServer(GuardedDevice(node), smp.buffer_size, smp.buffer_count), faults)
    serve_line(line, server, lambda: None, stop)

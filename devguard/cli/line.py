"""Which port, which speed, and running a conversation over it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from devguard.cli.context import printed
from devguard.errors import DevguardError, LinkError

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.link.driver import PortInfo, SerialDriver
    from devguard.link.events import LinkStatistics
    from devguard.link.runner import ScriptRunner

BAUD = 115_200
PROBE_SECONDS = 2.0


def runner_on(driver: SerialDriver, *, open_timeout: float = 10.0, baud: int = BAUD) -> ScriptRunner:
    """A runner over an open port."""
    from devguard.link.parameters import LinkParameters
    from devguard.link.runner import ScriptRunner

    return ScriptRunner(driver, LinkParameters(baud=baud), os.urandom, open_timeout)


def probe(port: str, baud: int = BAUD, ticks: Callable[[], float] = time.monotonic) -> str:
    """The boot state a device on this port says hello with; `LinkError` where none answers."""
    from devguard.link.driver import SerialDriver
    from devguard.session.connect import greet

    with SerialDriver.open(port, baud, ticks) as driver:
        return runner_on(driver, open_timeout=PROBE_SECONDS, baud=baud).run(greet()).boot_state


def answering(ports: list[PortInfo]) -> list[tuple[PortInfo, str | None]]:
    """Every port with the boot state of the device on it, or None where nobody speaks devguard."""
    found: list[tuple[PortInfo, str | None]] = []
    for port in ports:
        try:
            found.append((port, probe(port.device)))
        except DevguardError:
            found.append((port, None))
    return found


def choose_port(invocation: Invocation, given: str | None) -> str:
    """The port given, or the one on which exactly one device answers."""
    if given is not None:
        return given
    from devguard.link.driver import list_ports

    invocation.note("no --port: asking every serial port for a device")
    live = [port.device for port, state in answering(list_ports()) if state is not None]
    if len(live) != 1:
        raise LinkError("link.port", f"{len(live) or 'no'} devices answer; say which with --port", None)
    return live[0]


def totals(statistics: list[LinkStatistics]) -> tuple[int, int]:
    """(wire bytes both ways, retransmits) over all engines of a push."""
    sent = sum(one.bytes_sent + one.bytes_received for one in statistics)
    return sent, sum(one.retransmits for one in statistics)


def component_lines(report: Mapping[str, Any]) -> list[str]:
    """A device's components, for people; nothing where it has one, which is the image itself."""
    return [
        f"  runs {printed(one['id'])} {printed(one['version'])}: {one['size']} bytes, digest {one['digest'][:16]}"
        for one in report.get("components", ())
    ]

"""Which device is meant: the serial number that a person names has to be the one the device proves.

With `--serial` the rule stands before a port is opened. At a terminal a push without it proves the device first (EDHOC
up to message_2, which opens no session) and asks for the number on its label, typed or scanned; the proven one is not
shown before, for then it would only be copied. Where nobody can be asked, the grant has to name exactly one device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.cli.record import Note
    from devguard.grant.claims import Grant
    from devguard.link.runner import ScriptRunner
    from devguard.session.connect import Bench

TRIES: Final = 3
LONGEST: Final = 128


def need_serial(invocation: Invocation, given: str | None, grant: Grant) -> None:
    """Return when it can be known which device is meant; `device.identity` before any port is opened."""
    serials = grant.scope.serials
    if given is not None or invocation.asks or (len(serials) == 1 and "*" not in serials):
        return
    raise Refused(
        "device.identity",
        "the grant covers more than one device, and nobody is here to say which is meant",
        "name it: --serial, as it stands on the device",
    )


def confirmed(invocation: Invocation, note: Note, runner: ScriptRunner, bench: Bench) -> Bench:
    """`bench`, for the one device that a person has named; asked of them at a terminal.

    Raises `Refused("device.identity")` when the device proves another number; nothing has been sent to it then but
    what anybody may ask.
    """
    if bench.serial is not None:
        note.details["serial"] = "named by a person"
    if bench.serial is not None or not invocation.asks:
        return bench
    from devguard.session.connect import identify

    identity, _ = runner.run(identify(replace(bench, grant=None, signer=None)))
    named = read_off(invocation, identity.serial, "the device on this port proves another serial number")
    if named == identity.serial:
        note.details["serial"] = "named by a person"
        return replace(bench, serial=identity.serial)
    raise Refused("device.identity", f"asked for serial {named}, the device on this port proved {identity.serial}")


def read_off(invocation: Invocation, right: str, slip: str) -> str:
    """What the person at the terminal reads off the device, `right` or the last of three others."""
    for left in range(TRIES, 0, -1):
        named: str = click.prompt("serial number on the device, typed or scanned", err=True, type=str).strip()
        if named == right:
            break
        if left > 1:
            invocation.note(f"{slip}; look at the label again")
    return named[:LONGEST]

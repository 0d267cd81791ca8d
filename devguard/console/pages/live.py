"""A fresh signed report of a device, read by its technician, against what is on record of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from devguard.console.app import Console, console_of
from devguard.console.homekeys import keys_of
from devguard.console.inventory import Row
from devguard.console.pages.devices import device_of, ports_of, shown
from devguard.errors import DevguardError, Malformed

COMPARED: Final = ("model", "version", "sequence", "security_version", "boot_state", "confirmed", "trust_version",
                   "image_digest", "flags")  # fmt: skip
TECHNICIAN: Final = "technician"


@dataclass(frozen=True, slots=True)
class Live:
    """The comparison. rows: {"name", "before", "after", "same"}; what the record has nothing of is left out."""

    rows: tuple[Row, ...]

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return any(not row["same"] for row in self.rows)


async def compare(request: Request) -> Response:
    """`devguard device info` with a grant, and the device's page with what it said."""
    console, serial = console_of(request), request.path_params["serial"]
    args, passphrase = await run_in_threadpool(_args, console, serial, request.state.form)
    before = await _known(console, serial)
    answer = await console.commands.ask(args, passphrase=passphrase)
    if answer.error is not None or before is None:
        return await shown(request, serial, refused=answer.error, command=answer.shown)
    return await shown(request, serial, live=compared(before, answer.require()), command=answer.shown)


async def _known(console: Console, serial: str) -> Row | None:
    """What is on record, before the device's answer is."""
    try:
        found = await device_of(console, serial)
    except DevguardError:
        return None
    return None if found is None else found[0]


def compared(before: Row, said: dict[str, Any]) -> Live:
    """What is on record against `devguard device info --json`; a command that gave no report is refused."""
    report = said.get("report")
    if not isinstance(report, dict):
        raise Malformed("console.request", "the device gave no signed report")
    after = {"model": said.get("model"), **report}
    rows = [
        {
            "name": name,
            "before": _told(before[name]),
            "after": _told(after.get(name)),
            "same": before[name] == after.get(name),
        }
        for name in COMPARED
        if before.get(name) is not None
    ]
    return Live(tuple(rows))


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _args(console: Console, serial: str, form: dict[str, str]) -> tuple[list[str], str]:
    """The command of the form; `Malformed("console.request")` for what it did not offer."""
    grants = {path.name: path for path in console.settings.home.grant_files()}
    port, key, grant = form.get("port", ""), form.get("key", ""), grants.get(form.get("grant", ""))
    if (
        port not in ports_of(console)
        or grant is None
        or not any(one["name"] == key for one in keys_of(console.settings.home, TECHNICIAN))
    ):
        raise Malformed("console.request", "the form offered no such port, key or grant")
    args = ["device", "info", f"--port={port}", f"--serial={serial}", f"--key={key}", f"--grant={grant}"]
    return args, form.get("passphrase", "")

"""Devices: what runs where, how old that knowledge is, until when it is supported; one device with its history."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from devguard.console import inventory, timeline
from devguard.console.app import Console, console_of
from devguard.console.charts import bars
from devguard.console.homekeys import keys_of
from devguard.console.inventory import SORTS, STATES, Inventory, Row, Wish
from devguard.console.render import page
from devguard.errors import DevguardError, Malformed
from devguard.link.driver import list_ports

_LONGEST: Final = 200
_DEEPEST: Final = 100_000_000
_HISTORY: Final = 50


async def show(request: Request) -> Response:
    """The inventory: a page of it, filtered and sorted."""
    console = console_of(request)
    wish = wish_of(request)
    try:
        found = await devices_of(console, wish)
    except DevguardError as error:
        found = Inventory(source="none", error=error)
    versions = await versions_of(console) if found.source == "ledger" else _versions(found.rows)
    t = request.state.t
    return page(
        request,
        "devices.html",
        wish=wish,
        found=found,
        states=STATES,
        sorts=SORTS,
        now=console.facts.now,
        link=lambda **more: _link(replace(wish, **more)),
        chart=bars(
            t("devices.versions"),
            t("devices.versions_about"),
            [(label, count, "") for label, count in versions],
            (t("devices.version"), t("devices.how_many")),
        ),
        age=lambda text: (console.facts.now - inventory.seconds(text)) // 86_400,
        support=lambda row: inventory.support_state(row, console.facts.now),
    )


async def show_one(request: Request) -> Response:
    """One device: what it runs, what is on record of it, with proofs."""
    return await shown(request, request.path_params["serial"])


async def shown(request: Request, serial: str, **more: Any) -> Response:
    """The page of one device; `more`: what the device itself said (`pages.live`)."""
    console = console_of(request)
    facts, found, error = console.facts, None, None
    try:
        found = await device_of(console, serial)
    except DevguardError as fault:
        error = fault
    wish = timeline.Wish(device=serial, limit=_HISTORY)
    history = await run_in_threadpool(timeline.read, facts.log, wish, facts.good())
    if found is None and not history.rows and error is None:
        raise Malformed("console.missing", "no device of that serial number is on record here")
    row, source = found if found is not None else (None, "none")
    given = {"live": None, "refused": None, "command": "", **more}
    return page(
        request,
        "device.html",
        403 if given["refused"] is not None else 200,
        serial=serial,
        row=row,
        source=source,
        error=error,
        history=history,
        now=facts.now,
        ports=await run_in_threadpool(ports_of, console),
        keys=await run_in_threadpool(keys_of, console.settings.home, "technician"),
        grants=[path.name for path in console.settings.home.grant_files()],
        age=lambda text: (facts.now - inventory.seconds(text)) // 86_400,
        **given,
    )


async def devices_of(console: Console, wish: Wish) -> Inventory:
    """A page of devices, from the ledger or from the log; `Inventory.error` says why not from the ledger.

    Raises what `devguard fleet age` refuses where there is no ledger either.
    """
    facts = console.facts
    try:
        return await facts.from_ledger(lambda conn: inventory.of_ledger(conn, wish, facts.now))
    except DevguardError as error:
        why = error
    try:
        data = await facts.reads.data(("fleet", "age"), facts.fleet_files(), "devices")
    except DevguardError as error:
        if error.code != "log.missing":
            raise
        data = {"devices": []}  # a station that has met no device yet
    return inventory.of_log(data, wish, facts.now, why)


async def device_of(console: Console, serial: str) -> tuple[Row, str] | None:
    """(one device, `ledger` or `log`); None where nobody has met it. Raises as `devices_of`."""
    facts = console.facts
    with suppress(DevguardError):  # then the log says it
        row = await facts.from_ledger(lambda conn: inventory.device_of_ledger(conn, serial, facts.now))
        return None if row is None else (row, "ledger")
    found = await devices_of(console, Wish(words=serial, limit=_DEEPEST))
    row = next((one for one in found.rows if one["serial"] == serial), None)
    return None if row is None else (row, "log")


def ports_of(console: Console) -> list[str]:
    """The ports of this machine, and those that the console was told of. None is opened."""
    return [*console.settings.ports, *(port.device for port in list_ports())]


async def versions_of(console: Console) -> list[tuple[str, int]]:
    """How many devices run which version, most first; none without a ledger."""
    try:
        return await console.facts.from_ledger(inventory.versions)
    except DevguardError:
        return []


def _versions(rows: tuple[Row, ...]) -> list[tuple[str, int]]:
    counted: dict[str, int] = {}
    for row in rows:
        if row["version"] is not None:
            label = f"{row['model']} {row['version']}"
            counted[label] = counted.get(label, 0) + 1
    return sorted(counted.items(), key=lambda one: (-one[1], one[0]))[: inventory.MOST_VERSIONS]


# what was asked


def wish_of(request: Request) -> Wish:
    """What the query asks for; `Malformed("console.request")` for what is no choice of the page."""
    asked = request.query_params
    given = {name: text(asked.get(name, "")) for name in ("q", "model", "site", "version", "state", "sort", "down")}
    if given["state"] not in ("", *STATES) or given["sort"] not in ("", *SORTS) or given["down"] not in ("", "1"):
        raise Malformed("console.request", "there is no such state or order")
    return Wish(
        words=given["q"].strip(),
        model=given["model"].strip(),
        site=given["site"].strip(),
        version=given["version"].strip(),
        state=given["state"],
        sort=given["sort"] or "serial",
        down=given["down"] == "1",
        offset=number(asked.get("offset", ""), 0, _DEEPEST),
    )


def text(value: str) -> str:
    """A text of a query in bounds."""
    if len(value) > _LONGEST or not (value.isprintable() or value == ""):
        raise Malformed("console.request", f"a field has more than {_LONGEST} characters, or some that cannot be seen")
    return value


def number(value: str, default: int, most: int) -> int:
    """A whole number of a query in bounds; `default` where it is left out."""
    if value == "":
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 15 or int(value) > most:
        raise Malformed("console.request", "that is not a number of the page")
    return int(value)


def _link(wish: Wish) -> str:
    named: dict[str, Any] = {
        "q": wish.words,
        "model": wish.model,
        "site": wish.site,
        "version": wish.version,
        "state": wish.state,
        "sort": "" if wish.sort == "serial" else wish.sort,
        "down": "1" if wish.down else "",
        "offset": wish.offset or "",
    }
    query = urlencode({name: value for name, value in named.items() if value != ""})
    return "/devices" + (f"?{query}" if query else "")

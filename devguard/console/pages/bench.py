"""The bench: ports and what answers on them, a push, and everything that is done to one while it goes on.

The serial number is typed or scanned from the device by the person, and proven by the device; it is not shown before.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from devguard.console import stock
from devguard.console.app import Console, console_of
from devguard.console.journal import Run
from devguard.console.pages.verify import checked
from devguard.console.render import page, rendered
from devguard.console.runs import Phase, State, Wish, same_port
from devguard.console.uploads import Upload, uploaded
from devguard.errors import DevguardError, LinkError, Malformed, Refused
from devguard.trust.model import same_person

_TICK: Final = 0.3  # seconds between two looks at a run that somebody watches
_GRACE: Final = 2.0  # seconds in which a watcher is told that the console ends
_RECENT: Final = 12
_SHELF: Final = "shelf:"
_KEPT: Final = "kept:"


async def show(request: Request) -> Response:
    """Ports, the form of a push, and the last runs."""
    console = console_of(request)
    settings = console.settings
    runs = console.runs.journal.all()
    offered = await run_in_threadpool(stock.ports, settings)
    rows = [
        {
            "port": port,
            "description": description,
            "run": next((run for run in runs if run.ended is None and same_port(run.port, port)), None),
            "seen": console.seen.get(port),
        }
        for port, description in offered
    ]
    return page(
        request,
        "bench.html",
        ports=rows,
        keys=await run_in_threadpool(stock.technician_keys, settings.home),
        grants=await run_in_threadpool(stock.grants, settings.home, settings.clock()),
        kept=await run_in_threadpool(stock.kept_releases, settings.home),
        shelf=console.shelf,
        followed=settings.home.shelf_state.exists(),
        live=[(run, console.runs.state(run)) for run in runs if run.ended is None],
        past=[run for run in runs if run.ended is not None][:_RECENT],
        limit=settings.limits.upload,
    )


async def look(request: Request) -> Response:
    """Ask every port that no push holds, and the shelf that is followed, what there is."""
    console = console_of(request)
    offered = await run_in_threadpool(stock.ports, console.settings)
    free = [port for port, _ in offered if console.runs.busy(port) is None]
    with console.asking():
        answer = await console.commands.ask(["device", "list", *(f"--port={port}" for port in free)]) if free else None
        if answer is not None:
            rows = answer.require()["ports"]
            console.seen.clear()
            console.seen.update({str(row["port"]): row for row in rows})
        if console.settings.home.shelf_state.exists():
            listed = await console.commands.ask(["shelf", "list"])
            console.shelf = [(str(row["model"]), str(row["version"])) for row in listed.data.get("releases", [])]
    return RedirectResponse("/bench", 303)


async def push(request: Request) -> Response:
    """Begin a push; where it goes on is the run's page."""
    console = console_of(request)
    async with uploaded(request, console.settings, ("file",)) as upload:
        fields = upload.fields
        offered = [port for port, _ in await run_in_threadpool(stock.ports, console.settings)]
        port = stock.chosen(fields.get("port", ""), offered, "port")
        if console.is_asking:
            raise LinkError("console.busy", "the ports are being asked what is on them; try again in a moment")
        name, place = await _release(console, upload)
        run = console.runs.start(_wish(request, fields, port=port, name=name), place)
    return RedirectResponse(f"/bench/runs/{run.id}", 303)


def _wish(request: Request, fields: dict[str, str], *, port: str, name: str) -> Wish:
    console = console_of(request)
    home = console.settings.home
    serial = checked(fields.get("serial", "").strip())
    if not serial:
        raise Malformed("console.request", "the serial number on the device is missing", "read it off the device")
    key, grant = fields.get("key", ""), fields.get("grant", "")
    return Wish(
        person=request.state.session.person,
        port=port,
        serial=serial,
        name=name,
        key=stock.chosen(key, ["", *(one.name for one in stock.technician_keys(home))], "key"),
        grant=stock.chosen(grant, ["", *(one.name for one in stock.grants(home, console.settings.clock()))], "grant"),
        passphrase=fields.get("passphrase", ""),
        reason=checked(fields.get("reason", "").strip()),
        work_order=checked(fields.get("work_order", "").strip()),
    )


async def _release(console: Console, upload: Upload) -> tuple[str, Callable[[Path], None]]:
    """(what people call the release, what puts it into a folder): sent along, kept in the home, or on the shelf."""
    home, wish = console.settings.home, upload.fields.get("release", "")
    if (file := upload.files.get("file")) is not None:
        if wish:
            raise Malformed("console.request", "a file was sent and another release was chosen; take one of them")
        return file.name, partial(os.rename, file.path)
    if wish.startswith(_KEPT):
        kept = stock.kept_releases(home)
        name = stock.chosen(wish.removeprefix(_KEPT), [one.name for one in kept], "release")
        one = next(one for one in kept if one.name == name)
        return f"{one.model}-{one.version}.suit", partial(stock.place_kept, home, name)
    if wish.startswith(_SHELF):
        offered = [f"{_SHELF}{model} {version}" for model, version in console.shelf]
        model, _, version = stock.chosen(wish, offered, "release").removeprefix(_SHELF).partition(" ")
        got = upload.folder / "shelf.suit"
        (await console.commands.ask(["shelf", "get", model, version, f"--out={got}"])).require()
        return f"{model}-{version}.suit", partial(os.rename, got)
    raise Malformed("console.upload", "no release was chosen")


async def run(request: Request) -> Response:
    """One push, for whoever may look: how far it is, or how it ended."""
    console = console_of(request)
    one, state = _found(console, request)
    return page(request, "run.html", **_shown(console, request, one, state))


async def events(request: Request) -> Response:
    """The same as it changes. Ends with the run, or with the session of who watches."""
    console = console_of(request)
    one, _ = _found(console, request)
    cookie = request.cookies.get(console.settings.cookie)
    if console.streams >= console.settings.limits.streams:
        raise LinkError("console.busy", "too many browsers watch already; open the page again later")

    ending = anyio.Event()  # the console ends

    async def changes() -> AsyncIterator[dict[str, str]]:
        console.streams += 1
        last = ""
        try:
            while not ending.is_set() and console.sessions.find(cookie, passive=True) is not None:
                now = console.runs.journal.get(one.id)
                state = console.runs.state(now)
                data = json.dumps(_event(request, now, state))
                if data != last:
                    last = data
                    yield {"event": "state", "data": data}
                if state.phase is Phase.ENDED:
                    return
                await asyncio.sleep(_TICK)
            yield {"event": "ending" if ending.is_set() else "signed-out", "data": "{}"}
        finally:
            console.streams -= 1

    return EventSourceResponse(
        changes(), headers={"Cache-Control": "no-store"}, shutdown_event=ending, shutdown_grace_period=_GRACE
    )


def _event(request: Request, one: Run, state: State) -> dict[str, Any]:
    """What a watcher's page needs: the live part, and what is read out, which changes rarely."""
    t = request.state.t
    tens = state.percent // 10 * 10
    return {
        "phase": state.phase,
        "percent": state.percent,
        "html": rendered(request, "run_live.html", run=one, state=state, Phase=Phase),
        "say": t(f"run.phase.{state.phase}") + (f" {t('run.percent', n=tens)}" if state.phase is Phase.SENDING else ""),
    }


async def stop(request: Request) -> Response:
    """The stop button."""
    console = console_of(request)
    one, _ = _found(console, request)
    console.runs.stop(one, request.state.session.person)
    return RedirectResponse(f"/bench/runs/{one.id}", 303)


async def approve(request: Request) -> Response:
    """The second technician's word."""
    console = console_of(request)
    one, _ = _found(console, request)
    form, home = request.state.form, console.settings.home
    key = stock.chosen(form.get("key", ""), [choice.name for choice in stock.technician_keys(home)], "key")
    offered = [choice.name for choice in stock.grants(home, console.settings.clock())]
    grant = stock.chosen(form.get("grant", ""), offered, "grant")
    await console.runs.approve(one, request.state.session.person, key, grant, form.get("passphrase", ""))
    return RedirectResponse(f"/bench/runs/{one.id}", 303)


async def follow(request: Request) -> Response:
    """Go on with a push that was cut off, or try once more what was refused for what is not the release."""
    console = console_of(request)
    old, _ = _found(console, request)
    new = console.runs.follow(old, request.state.session.person, request.state.form.get("passphrase", ""))
    return RedirectResponse(f"/bench/runs/{new.id}", 303)


def _found(console: Console, request: Request) -> tuple[Run, State]:
    one = console.runs.journal.get(request.path_params["run"])
    return one, console.runs.state(one)


def _shown(console: Console, request: Request, one: Run, state: State) -> dict[str, Any]:
    """What the page of a run is made of."""
    own = same_person(one.person) == same_person(request.state.session.person)
    home = console.settings.home
    asked = None
    if state.phase is Phase.APPROVAL:
        asked = _asked(one)
    return {
        "run": one,
        "state": state,
        "Phase": Phase,
        "own": own,
        "asked": asked,
        "keys": stock.technician_keys(home) if asked else [],
        "grants": stock.grants(home, console.settings.clock()) if asked else [],
        "result": console.runs.result(one) if one.ended else {},
        "resumable": one.ended is not None and one.ended.how.resumable and one.suit.exists(),
        "repeatable": one.ended is not None and one.ended.repeatable and one.suit.exists(),
        "error": None
        if one.ended is None or one.ended.code is None
        else DevguardError(one.ended.code, one.ended.message, one.ended.hint or None),
    }


def _asked(one: Run) -> dict[str, Any] | None:
    """What the second technician is asked, as the device put it; None while it is being written."""
    from devguard.custody.files import read_limited
    from devguard.session.approval import read_request

    try:
        wanted = read_request(read_limited(one.request, 64 * 1024))
    except (Malformed, Refused):
        return None
    return {
        "serial": wanted.serial,
        "action": wanted.action,
        "digest": wanted.manifest_digest.hex(),
        "person": wanted.asking.person if wanted.asking is not None else "",
        "expires": wanted.expires,
        "command": f"devguard approve {one.request} --key K --grant G -o {one.approval}",
    }

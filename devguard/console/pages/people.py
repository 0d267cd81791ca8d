"""People: technicians, their training and grants, who is suspended. What changes anything is a command.

No private key is shown, sent or kept here: an authority's passphrase goes to the one command that signs, over a pipe.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from devguard.console.app import Console, console_of
from devguard.console.homekeys import keys_of
from devguard.console.pages.devices import text
from devguard.console.render import page
from devguard.cose.names import same_person
from devguard.custody.files import read_limited
from devguard.device.models import all_names
from devguard.errors import DevguardError, Malformed
from devguard.grant.claims import MAX_LIFE

LISTING: Final = ("technician", "list")
GRANTS: Final = ("grant", "list")
AUTHORITY: Final = "technician-authority"
ACTIONS: Final = ("update", "recover", "read-log")
_FILE: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_GRANT: Final = 64 * 1024
_KEPT: Final = 86_400  # seconds that a grant made here lies there to be fetched
_SOON: Final = 30 * 86_400
Row = dict[str, Any]


async def show(request: Request) -> Response:
    """Everybody, and what they may do until when."""
    return await _page(request)


async def suspend(request: Request) -> Response:
    """`devguard technician suspend`."""
    return await _said(request, "suspend")


async def reinstate(request: Request) -> Response:
    """`devguard technician reinstate`."""
    return await _said(request, "reinstate")


async def issue(request: Request) -> Response:
    """`devguard grant issue`; the grant lies here for a day, to be fetched."""
    console, form = console_of(request), request.state.form
    args = await issue_args(console, form)
    folder = console.settings.home.make(console.settings.folder / "grants")
    await run_in_threadpool(_sweep, folder)
    name = secrets.token_urlsafe(16)
    out = folder / f"{name}.grant"
    passphrase = form.get("passphrase", "")
    answer = await console.commands.ask(
        [*args, "-o", str(out)], passphrase=passphrase, shown=[*args, "-o", "FILE.grant"]
    )
    return await _page(request, answer.error, answer.shown, None if answer.error is not None else (name, answer.data))


async def fetch(request: Request) -> Response:
    """A grant that was made here, as the file."""
    name = request.path_params["name"]
    path = console_of(request).settings.folder / "grants" / f"{name}.grant"
    if not _FILE.fullmatch(name) or not path.is_file():
        raise Malformed("console.missing", "there is no such grant here, or its day is over")
    data = await run_in_threadpool(read_limited, path, _GRANT)
    headers = {"Content-Disposition": 'attachment; filename="technician.grant"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


# what the API asks for too


async def technicians_of(console: Console) -> Row:
    """What `devguard technician list` says."""
    return await console.facts.reads.data(LISTING, console.facts.people_files(), "technicians", "suspended")


async def grants_of(console: Console) -> Row:
    """What `devguard grant list` says; minutes are those of now."""
    data = await console.facts.reads.data(GRANTS, console.facts.people_files(), "grants", "issued")
    now = console.facts.now
    return {
        kind: [
            {**row, "minutes_left": max(0, (_seconds(row["expires"]) - now) // 60)} if "expires" in row else row
            for row in data[kind]
        ]
        for kind in ("grants", "issued")
    }


# the page


async def _page(
    request: Request,
    refused: DevguardError | None = None,
    command: str | None = None,
    made: tuple[str, Row] | None = None,
    said: Row | None = None,
) -> Response:
    console = console_of(request)
    listed, granted = await asyncio.gather(_or_error(technicians_of(console)), _or_error(grants_of(console)))
    tally = await console.facts.tally()
    people = (
        []
        if isinstance(listed, DevguardError)
        else [_person(row, granted, console.facts.now) for row in listed["technicians"]]
    )
    issued = (
        []
        if isinstance(granted, DevguardError)
        else [{**row, "uses": tally.used(row["cti"])} for row in granted["issued"]]
    )
    return page(
        request,
        "people.html",
        200 if refused is None else 403,
        people=people,
        others=[] if isinstance(listed, DevguardError) else listed["suspended"],
        epoch=None if isinstance(listed, DevguardError) else listed["epoch"],
        issued=issued,
        kept=[] if isinstance(granted, DevguardError) else granted["grants"],
        errors=[one for one in (listed, granted) if isinstance(one, DevguardError)],
        authorities=await run_in_threadpool(keys_of, console.settings.home, AUTHORITY),
        models=all_names(),
        actions=ACTIONS,
        refused=refused,
        command=command,
        made=made,
        said=said,
        now=console.facts.now,
    )


async def _or_error(asking: Any) -> Any:
    try:
        return await asking
    except DevguardError as error:
        return error


def _person(row: Row, granted: Any, now: int) -> Row:
    """A technician with what is about the time: training that lapses, and how long a suspension may not be known."""
    training = [
        {"model": model, "until": until, "state": _lapse(_seconds(until), now)}
        for model, until in row["training"].items()
    ]
    ends = (
        []
        if isinstance(granted, DevguardError)
        else [
            one["expires"]
            for one in [*granted["issued"], *granted["grants"]]
            if "expires" in one
            and same_person(one.get("technician", "")) == same_person(row["person"])
            and _seconds(one["expires"]) > now
        ]
    )
    latest = None if row["since"] is None else _seconds(row["since"]) + MAX_LIFE
    return {**row, "training": training, "last_grant": max(ends, default=None), "latest": latest}


def _lapse(until: int, now: int) -> str:
    return "lapsed" if until <= now else "soon" if until <= now + _SOON else "good"


def _seconds(text_: str) -> int:
    return int(datetime.fromisoformat(text_).timestamp())


# commands


async def _said(request: Request, verb: str) -> Response:
    console, form = console_of(request), request.state.form
    name = await _listed(console, form.get("name", ""))
    args = ["technician", verb, name, f"--reason={text(form.get('reason', '').strip())}"]
    answer = await console.commands.ask(args)
    return await _page(request, answer.error, answer.shown, said=None if answer.error is not None else answer.data)


async def _listed(console: Console, name: str) -> str:
    """A name that is on the list: what was typed goes into no command as it is."""
    known = {row["name"] for row in (await technicians_of(console))["technicians"]}
    if name not in known:
        raise Malformed("console.request", "nobody of that name is on the list of technicians here")
    return name


async def issue_args(console: Console, form: dict[str, str]) -> list[str]:
    """The command of a form; `Malformed("console.request")` for what the form did not offer."""
    name = await _listed(console, form.get("technician", ""))
    authority = form.get("authority", "")
    if authority not in {row["name"] for row in keys_of(console.settings.home, AUTHORITY)}:
        raise Malformed("console.request", "that is no authority's key of this home")
    if form.get("model") not in all_names() or form.get("action") not in ACTIONS:
        raise Malformed("console.request", "there is no such model or action")
    serials = [text(one) for one in re.split(r"[\s,;]+", form.get("serials", "")) if one]
    if not 0 < len(serials) <= 50:
        raise Malformed("console.request", "name 1 to 50 serial numbers")
    hours, uses = form.get("hours", ""), form.get("uses", "")
    if hours not in {str(one) for one in range(1, 13)} or (uses and not re.fullmatch(r"[1-9][0-9]{0,3}", uses)):
        raise Malformed("console.request", "a grant holds for 1 to 12 hours, and for a number of uses")
    args = ["grant", "issue", f"--authority={authority}", f"--technician={name}", f"--model={form['model']}"]
    args += [f"--serial={one}" for one in serials]
    args += [f"--action={form['action']}", f"--expires={hours}h"]
    site = text(form.get("site", "").strip())
    return [*args, *([f"--site={site}"] if site else []), *([f"--max-uses={uses}"] if uses else [])]


def _sweep(folder: Path) -> None:
    """Grants that were made here longer ago than a day go."""
    now = time.time()
    for path in folder.glob("*.grant"):
        try:
            if now - path.stat().st_mtime > _KEPT:
                path.unlink()
        except OSError:
            continue

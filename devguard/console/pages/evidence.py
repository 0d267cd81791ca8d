"""Evidence: what happened here, record by record, with proofs; whether the log holds; incidents with their clocks."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from devguard.console import timeline
from devguard.console.app import Console, console_of
from devguard.console.charts import Chart, columns
from devguard.console.i18n import Translator
from devguard.console.pages.devices import number, text
from devguard.console.render import page
from devguard.console.standing import Standing
from devguard.console.tally import WEEK, Tally, week_of
from devguard.custody.files import file_error, read_limited
from devguard.errors import CODES, DevguardError, Malformed, Refused

IDENTIFIER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
WEEKS: Final = 26
_INDEX: Final = 1 << 53
_PROOF: Final = 1 << 20
_DAY: Final = 86_400


async def show(request: Request) -> Response:
    """The timeline, newest first, and how the log stands."""
    console = console_of(request)
    facts = console.facts
    wish, since, until = wish_of(request)
    standing = await facts.watch.now()
    good = standing.records if standing.state == "bad" else None
    found = await run_in_threadpool(timeline.read, facts.log, wish, good)
    tally = await facts.tally()
    return page(
        request,
        "evidence.html",
        wish=wish,
        since=since,
        until=until,
        found=found,
        standing=standing,
        tally=tally,
        chart=weeks(request.state.t, tally, facts.now),
        older=None if found.older is None else _link(replace(wish, before=found.older), since, until),
        newest=_link(replace(wish, before=None), since, until),
        cause=_cause,
    )


async def show_record(request: Request) -> Response:
    """One record, whole."""
    facts = console_of(request).facts
    index = number(request.path_params["index"], -1, _INDEX)
    record = await run_in_threadpool(timeline.one, facts.log, index, facts.good())
    if record is None:
        raise Malformed("console.missing", f"there is no record {index}")
    return page(
        request,
        "record.html",
        index=index,
        record=record,
        told=record.to_json(),
        standing=facts.watch.look(),
        cause=_cause(record.code),
    )


async def proof(request: Request) -> Response:
    """The proof of a record, to be kept and verified anywhere."""
    index = number(request.path_params["index"], -1, _INDEX)
    text_ = await proof_of(console_of(request), index)
    name = f'attachment; filename="record-{index}.tlog-proof"'
    return PlainTextResponse(text_, headers={"Content-Disposition": name})


async def show_incidents(request: Request) -> Response:
    """Every incident, those that wait for an officer first, with the clocks at 30 and 60 days."""
    console = console_of(request)
    rows: list[dict[str, Any]] = []
    error = None
    standing = await console.facts.watch.now()
    try:
        rows = await (_good_incidents(console, standing) if standing.state == "bad" else incidents_of(console))
    except DevguardError as fault:
        error = fault
    rows.sort(key=lambda row: (not row["open"], row["time"]))
    return page(
        request, "incidents.html", rows=rows, standing=standing, error=error, now=console.facts.now, left=_left(console)
    )


async def show_incident(request: Request) -> Response:
    """One incident with its records."""
    console = console_of(request)
    found = await incident_of(console, request.path_params["identifier"])
    return page(request, "incident.html", one=found, left=_left(console))


# what the API asks for too


async def proof_of(console: Console, index: int) -> str:
    """The proof that `devguard evidence prove` writes; `console.missing` where there is no such record."""
    facts = console.facts
    if await run_in_threadpool(timeline.one, facts.log, index) is None:
        raise Malformed("console.missing", f"there is no record {index}")
    kept = facts.settings.home.make(facts.settings.folder / "uploads")  # what a crash leaves there goes at the start
    try:
        with tempfile.TemporaryDirectory(dir=kept, prefix="p-") as folder:
            out = Path(folder) / "proof"
            answer = await console.commands.ask(["evidence", "prove", str(index), "-o", str(out)])
            answer.require()
            return read_limited(out, _PROOF).decode()
    except OSError as error:
        raise file_error(kept, error) from None


async def incidents_of(console: Console) -> list[dict[str, Any]]:
    """Every incident, as `devguard evidence incident list --all` says; none where there is no log."""
    facts = console.facts
    try:
        data = await facts.reads.data(("evidence", "incident", "list", "--all"), facts.fleet_files(), "incidents")
    except DevguardError as error:
        if error.code == "log.missing":
            return []
        raise
    rows: list[dict[str, Any]] = list(data["incidents"])
    return rows


async def incident_of(console: Console, identifier: str) -> dict[str, Any]:
    """One incident, as `devguard evidence incident show` says; `incident.unknown`."""
    if not IDENTIFIER.fullmatch(identifier):
        raise Refused("incident.unknown", "no incident has such an id")
    facts = console.facts
    return await facts.reads.data(("evidence", "incident", "show", identifier), facts.fleet_files(), "timeline")


async def _good_incidents(console: Console, standing: Standing) -> list[dict[str, Any]]:
    """The incidents before the first bad record of a log that does not hold."""
    facts = console.facts
    found = await run_in_threadpool(timeline.incidents, facts.log, standing.records)
    return [{**one.to_json(facts.now), "blocks": None} for one in found.values()]


def weeks(t: Translator, tally: Tally, now: int) -> Chart:
    """Pushes that were done and refusals, of the last weeks."""
    first = week_of(now) - (WEEKS - 1) * WEEK
    rows = [
        (
            datetime.fromtimestamp(monday, UTC).strftime("%Y-%m-%d"),
            tally.done_weeks.get(monday, 0),
            tally.refused_weeks.get(monday, 0),
        )
        for monday in range(first, first + WEEKS * WEEK, WEEK)
    ]
    if not any(done or refused for _, done, refused in rows):
        rows = []
    heads = (t("evidence.week"), t("evidence.done"), t("evidence.refusals"))
    return columns(t("evidence.weeks"), t("evidence.weeks_about"), rows, heads, ("good", "bad"))


def _cause(code: str | None) -> str:
    return CODES[code].cause if code in CODES else ""


def _left(console: Console) -> Any:
    def left(due: str) -> int:
        """Whole days until then; below 0: since then."""
        return int((datetime.fromisoformat(due).timestamp() - console.facts.now) / _DAY)

    return left


# what was asked


def wish_of(request: Request) -> tuple[timeline.Wish, str, str]:
    """(which records, since and until as they were typed)."""
    asked = request.query_params
    given = {
        name: text(asked.get(name, "")).strip() for name in ("device", "release", "actor", "action", "since", "until")
    }
    since, until = _day(given.pop("since")), _day(given.pop("until"))
    before = asked.get("before", "")
    wish = timeline.Wish(
        device=given["device"],
        release=given["release"],
        actor=given["actor"],
        action=given["action"],
        refused=asked.get("refused", "") == "1",
        since=None if since is None else since[0],
        until=None if until is None else until[0] + _DAY - 1,
        before=number(before, 0, _INDEX) if before else None,
    )
    return wish, "" if since is None else since[1], "" if until is None else until[1]


def _day(text_: str) -> tuple[int, str] | None:
    """(first second, as written) of a day such as 2027-01-31; None for none."""
    if not text_:
        return None
    try:
        day = datetime.strptime(text_, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Malformed("console.request", "a day is written 2027-01-31") from None
    return int(day.timestamp()), text_


def _link(wish: timeline.Wish, since: str, until: str) -> str:
    named = {
        "device": wish.device,
        "release": wish.release,
        "actor": wish.actor,
        "action": wish.action,
        "refused": "1" if wish.refused else "",
        "since": since,
        "until": until,
        "before": "" if wish.before is None else str(wish.before),
    }
    query = urlencode({name: value for name, value in named.items() if value})
    return "/evidence" + (f"?{query}" if query else "")

"""Campaigns: rings, progress, what waits for what, what stops them. What moves one is a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from devguard.console.app import Console, console_of
from devguard.console.charts import Chart, parted
from devguard.console.i18n import Translator
from devguard.console.pages.devices import text
from devguard.console.render import page
from devguard.errors import DevguardError, Malformed, Refused
from devguard.manifest.fields import NAME

if TYPE_CHECKING:
    from sqlalchemy import Connection

PHASES: Final = ("done", "claimed", "due", "failed", "refused", "skipped")
_COLOURS: Final = {"done": "good", "claimed": "", "due": "rest", "failed": "bad", "refused": "bad", "skipped": "warn"}
ORDERS: Final = {"draft": ("start", "stop"), "running": ("open", "pause", "stop"), "paused": ("start", "open", "stop")}
_REASONED: Final = ("pause", "stop")
_MOST: Final = 100
Row = dict[str, Any]


async def show(request: Request) -> Response:
    """Every campaign with its progress, the newest first."""
    rows: list[Row] = []
    error = None
    try:
        rows = await campaigns_of(console_of(request))
    except DevguardError as fault:
        error = fault
    t = request.state.t
    charts = {row["campaign"]: _chart(t, row["campaign"], row["progress"]) for row in rows}
    return page(request, "campaigns.html", rows=rows, charts=charts, error=error)


async def show_one(request: Request) -> Response:
    """One campaign."""
    return await _page(request, request.path_params["name"])


async def order(request: Request) -> Response:
    """`devguard campaign start|open|pause|stop`."""
    console, form, name = console_of(request), request.state.form, request.path_params["name"]
    what = form.get("order", "")
    known = await campaign_of(console, name)
    if what not in ORDERS.get(known["state"], ()):
        raise Malformed("console.request", f"a campaign that is {known['state']} takes no such order")
    if what == "stop" and form.get("sure") != "1":
        raise Malformed("console.request", "a campaign that is stopped stays so; say that you are sure")
    reason = [f"--reason={text(form.get('reason', '').strip())}"] if what in _REASONED else []
    answer = await console.commands.ask(["campaign", what, name, *reason])
    return await _page(request, name, refused=answer.error, command=answer.shown)


async def campaigns_of(console: Console) -> list[Row]:
    """Every campaign as `devguard campaign status` lists it, with `progress`; none where there is no ledger yet.

    Raises what the ledger's store raises otherwise.
    """
    try:
        return await console.facts.from_ledger(_all)
    except DevguardError as error:
        if error.code == "ledger.missing":
            return []
        raise


async def campaign_of(console: Console, name: str) -> Row:
    """One campaign as `devguard campaign status NAME` shows it; `campaign.unknown`."""
    if not NAME.fullmatch(name):
        raise Refused("campaign.unknown", "no campaign has such a name")
    now = console.facts.now
    try:
        return await console.facts.from_ledger(lambda conn: _one(conn, name, now))
    except DevguardError as error:
        if error.code == "ledger.missing":
            raise Refused("campaign.unknown", f"there is no campaign {name!r}") from None
        raise


def _all(conn: Connection) -> list[Row]:
    from devguard.campaign.standing import line, progress
    from devguard.campaign.store import everything

    return [{**line(one), "progress": progress(conn, one.name)} for one in everything(conn)[:_MOST]]


def _one(conn: Connection, name: str, now: int) -> Row:
    from devguard.campaign.standing import progress, standing
    from devguard.campaign.store import load

    return {**standing(conn, load(conn, name), now), "progress": progress(conn, name)}


async def _page(
    request: Request, name: str, refused: DevguardError | None = None, command: str | None = None
) -> Response:
    found = await campaign_of(console_of(request), name)
    t = request.state.t
    return page(
        request,
        "campaign.html",
        200 if refused is None else 403,
        one=found,
        chart=_chart(t, name, found["progress"]),
        phases=PHASES,
        waits=_waiting(found),
        orders=ORDERS.get(found["state"], ()),
        reasoned=_REASONED,
        refused=refused,
        command=command,
    )


def _waiting(found: Row) -> list[Row]:
    """Each ring with what it waits for: `open`, `person`, `confirmed` (so many of the ring before), `before`."""
    rows: list[Row] = []
    for at, (ring, plan) in enumerate(zip(found["rings"], found["plan"]["ring"], strict=True)):
        before = at == 0 or found["rings"][at - 1]["opened"] is not None
        kind = "open" if ring["opened"] else "start" if at == 0 else plan["opens"] if before else "before"
        rows.append({**ring, "waits": kind, "confirmed": plan.get("confirmed"), "minutes": plan.get("wait_minutes")})
    return rows


def _chart(t: Translator, name: str, progress: dict[str, int]) -> Chart:
    rows = [(t(f"campaigns.phase.{phase}"), progress[phase], _COLOURS[phase]) for phase in PHASES]
    heads = (t("campaigns.phase"), t("devices.how_many"))
    return parted(t("campaigns.progress_of", name=name), t("campaigns.progress_about"), rows, heads)

"""`/metrics`: from this machine as it is, from any other with a token."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from devguard.console import inventory
from devguard.console.apidoc import documented
from devguard.console.app import Console, console_of
from devguard.console.inventory import Wish
from devguard.console.metrics import TYPE, Scene, bounded, text
from devguard.console.pages.campaigns import campaigns_of
from devguard.console.pages.evidence import incidents_of
from devguard.errors import DevguardError, Refused

MOST: Final = 100
MOST_CAMPAIGNS: Final = 20
_EVERYTHING: Final = 100_000_000
_HOUR: Final = 3600.0
_DAY: Final = 86_400
_PATIENCE: Final = 5.0  # a scrape waits ten seconds as a rule


@documented(text="text/plain", tag="metrics")
async def show_metrics(request: Request) -> Response:
    """The metrics, in the text format of Prometheus."""
    console = console_of(request)
    if not console.settings.loopback and request.state.session is None:
        raise Refused("console.login", "over the network metrics take a token")
    facts = console.facts
    scene = Scene(
        tally=await facts.tally(_PATIENCE),
        standing=await facts.watch.now(older=_HOUR),
        now=facts.now,
        incidents=await _incidents(console),
        devices=await _devices(console),
        campaigns=await _campaigns(console),
        ages=await _ages(console),
    )
    return Response(text(scene), media_type=TYPE)


async def _incidents(console: Console) -> int | None:
    try:
        return sum(bool(row["open"]) for row in await incidents_of(console))
    except DevguardError:
        return None


async def _devices(console: Console) -> list[tuple[tuple[str, str, str], int]]:
    """By model, version and state of support; none where neither ledger nor log can be read."""
    facts = console.facts
    try:
        counted = await facts.from_ledger(lambda conn: inventory.by_support(conn, facts.now))
    except DevguardError:
        counted = {}
        try:
            data = await facts.reads.data(("fleet", "age"), facts.fleet_files(), "devices")
        except DevguardError:
            return []
        for row in inventory.of_log(data, Wish(limit=_EVERYTHING), facts.now).rows:
            labels = (row["model"] or "unknown", row["version"] or "unknown", inventory.support_state(row, facts.now))
            counted[labels] = counted.get(labels, 0) + 1
    return bounded(counted, MOST)


async def _campaigns(console: Console) -> list[tuple[tuple[str, str], int]]:
    """Of the newest campaigns, how many devices are in which phase."""
    try:
        rows = (await campaigns_of(console))[:MOST_CAMPAIGNS]
    except DevguardError:
        return []
    return [((row["campaign"], phase), count) for row in rows for phase, count in row["progress"].items()]


async def _ages(console: Console) -> dict[str, float]:
    """Of the trust document, the shelf, and what the ledger took last."""
    facts, found = console.facts, {}
    try:
        data = (await facts.reads.answer(("status", "--no-ports"), facts.people_files(), _HOUR / 12)).data
    except DevguardError:
        data = {}
    trust, shelf = data.get("trust") or {}, data.get("shelf") or {}
    if trust.get("ok"):
        found["trust"] = float(trust["age_days"] * _DAY)
    if isinstance(shelf.get("age_seconds"), int):
        found["shelf"] = float(shelf["age_seconds"])
    try:
        taken = await facts.from_ledger(inventory.taken_at)
    except DevguardError:
        taken = None
    if taken is not None:
        found["ledger"] = float(facts.now - taken)
    return found

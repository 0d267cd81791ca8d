"""What `devguard status` says of the group's store: heard or silent, what waits, how old what is known here is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devguard.cli.context import Invocation
from devguard.cli.group import SILENT, anchor_in, contact, group_url, open_group, waiting
from devguard.cli.times import iso, left
from devguard.errors import DevguardError

if TYPE_CHECKING:
    from devguard.ledger.store import Store


def store_status(invocation: Invocation) -> dict[str, Any] | None:
    """As plain values; None where no store is named. Nothing is written by looking."""
    said = contact(invocation.home)
    known: dict[str, Any] = {
        "heard": None if said.heard is None else iso(said.heard),
        "silent_since": None,
        "waiting": None,
        "findings": [],
        **ages(invocation),
    }
    try:
        if group_url(invocation.home) is None:
            return None
        with open_group(invocation, create=False) as store:
            return {"reachable": True, **known, **_asked(invocation, store)}
    except DevguardError as error:
        since = said.lost if said.lost is not None else invocation.now()
        known |= {"silent_since": iso(since), "waiting": _since_last(invocation)}
        return {"reachable": False, "code": error.code, "message": error.message, **known}


def ages(invocation: Invocation) -> dict[str, Any]:
    """What this station goes by without its store: trust document, grant epoch, the newest word on a suspension, the
    shelf."""
    from devguard.cli.standing import look
    from devguard.shelf.store import Store as Shelf

    now = invocation.now()
    found: dict[str, Any] = {"trust_version": None, "trust_age_days": None, "epoch": None, "suspensions_age_days": None}
    found["shelf_age_days"] = None
    try:
        trust = invocation.home.trust(None)
        roster = look(invocation.home)
        fresh = Shelf(invocation.home.path / "shelf").freshness()
    except DevguardError:
        return found  # `status` says elsewhere what is wrong with them
    shelf = None if fresh is None else fresh.as_dict(now)["age_seconds"]
    newest = max((one.at for one in roster.statements.values()), default=None)
    return {
        "trust_version": trust.version,
        "trust_age_days": (now - trust.issued) // 86_400,
        "epoch": roster.in_force(trust.grant_epoch),
        "suspensions_age_days": None if newest is None else (now - newest) // 86_400,
        "shelf_age_days": None if shelf is None else shelf // 86_400,
    }


def _asked(invocation: Invocation, store: Store) -> dict[str, Any]:
    """What the store says now."""
    from devguard.cli.ledger_fetch import trust_findings
    from devguard.cli.ledger_send import skew_findings
    from devguard.cli.memory import origin
    from devguard.ledger.handover import look

    mine = origin(invocation.home)
    there = look(store, mine or "")
    skew = invocation.now() - there.time
    return {
        "name": store.name,
        "waiting": waiting(invocation.home.evidence_folder, there.held.records),
        "skew_seconds": skew,
        "findings": [*skew_findings(skew), *trust_findings(invocation, store)],
    }


def _since_last(invocation: Invocation) -> int | None:
    """How many records the store has not acknowledged, by the log alone; None where that cannot be said."""
    from devguard.ledger.package import need_ledger

    folder = invocation.home.evidence_folder
    try:
        need_ledger()
        anchor = anchor_in(folder, None)
        return waiting(folder, 0 if anchor is None else anchor.records)
    except DevguardError:
        return None


def store_lines(data: dict[str, Any] | None) -> list[str]:
    """The same for people."""
    if data is None:
        return []
    count = data["waiting"]
    waits = "" if not count else f", {count} record{' waits' if count == 1 else 's wait'} to be sent"
    if data["reachable"]:
        lines = [f"store  {data['name']} answers{waits}"]
    else:
        heard = "never" if data["heard"] is None else data["heard"]
        state = f"SILENT since {data['silent_since']}" if data["code"] in SILENT else "OF NO USE"
        lines = [f"store  {state}, heard {heard}{waits}: {data['code']}: {data['message']}"]
        lines.append(f"store  {held_text(data)}")
    return [*lines, *(f"store  {one['code']}: {one['message']}; {one['hint']}" for one in data["findings"])]


def held_text(known: dict[str, Any]) -> str:
    """What this station goes by meanwhile, and how old that is."""
    day = 86_400
    if known["trust_version"] is None:
        return "nothing that this station holds may be gone by"
    word = "none known"
    if known["suspensions_age_days"] is not None:
        word = f"the newest {left(known['suspensions_age_days'] * day)} old"
    shelf = "" if known["shelf_age_days"] is None else f"; shelf: {left(known['shelf_age_days'] * day)} old"
    return (
        f"held here: trust version {known['trust_version']}, {left(known['trust_age_days'] * day)} old; "
        f"grant epoch {known['epoch']}; suspensions: {word}{shelf}"
    )

"""Campaigns as rows: made, found, ordered about, their rings opened. Each function works in its caller's transaction.

The connection is one of the ledger's store; SQLite and PostgreSQL alike. What is decided is decided in `plan` and
`state`; here it is written down.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, text, update

from devguard.campaign.plan import Candidate, Goal, Plan, assign, choose
from devguard.campaign.plan_file import plan_from_json, plan_to_json
from devguard.campaign.report import Member, Report, Said, add_up
from devguard.campaign.state import ENDS, Order, Outcome, Phase, RingFacts, State, moved, opened_by_hand
from devguard.campaign.tables import campaigns, members, outcomes, rings
from devguard.errors import Malformed, Refused
from devguard.ledger.schema import devices

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as it stands. devices: how many it began with; started, changed: epoch seconds."""

    name: str
    state: State
    goal: Goal
    plan: Plan
    devices: int
    created: int
    created_by: str
    started: int | None
    changed: int
    changed_by: str
    reason: str | None


def inventory(conn: Connection, model: str) -> list[Candidate]:
    """The devices of a model that the ledger knows, as of their last signed reports."""
    wanted = (devices.c.serial, devices.c.model, devices.c.site, devices.c.version, devices.c.sequence)
    query = select(*wanted, devices.c.manifest_digest).where(devices.c.model == model)
    return [
        Candidate(row.serial, row.model, sites_of(row.site), row.version, row.sequence, row.manifest_digest)
        for row in conn.execute(query)
    ]


def moment(conn: Connection, own: int) -> int:
    """The time that campaigns go by, epoch seconds: the server's own on PostgreSQL, so that no station whose clock is
    ahead ends another one's lease; on SQLite, which is one station's, its own."""
    if conn.dialect.name != "postgresql":
        return own
    return int(conn.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def sites_of(text: str | None) -> frozenset[str]:
    """The sites of a column that has a comma between them, as the ledger and this room write them."""
    return frozenset(filter(None, map(str.strip, (text or "").split(","))))


def create(
    conn: Connection, plan: Plan, goal: Goal, candidates: Sequence[Candidate], by: str, now: int
) -> dict[str, int]:
    """A draft of the plan over the inventory; the ring of every device, by its serial.

    Raises `Refused`: `campaign.exists`, `campaign.release`, `campaign.empty`, `campaign.rings`.
    """
    if conn.execute(select(campaigns.c.name).where(campaigns.c.name == plan.name)).first() is not None:
        raise Refused("campaign.exists", f"there is a campaign {plan.name} already")
    chosen = choose(plan, goal, candidates)
    placed = assign(plan, chosen)
    row = {"model": goal.model, "version": goal.version, "sequence": goal.sequence, "digest": goal.digest}
    row |= {"file": goal.file, "plan": json.dumps(plan_to_json(plan)), "state": State.DRAFT.value}
    row |= {"devices": len(chosen), "created": now, "created_by": by, "changed": now, "changed_by": by}
    conn.execute(insert(campaigns).values(name=plan.name, **row))
    conn.execute(
        insert(rings), [{"campaign": plan.name, "number": at, "name": ring.name} for at, ring in enumerate(plan.rings)]
    )
    for start in range(0, len(chosen), BATCH):
        conn.execute(insert(members), [_member(plan.name, one, placed) for one in chosen[start : start + BATCH]])
    return placed


def _member(name: str, device: Candidate, placed: dict[str, int]) -> dict[str, Any]:
    site = ",".join(sorted(device.sites)) or None
    start = {"phase": Phase.DUE.value, "tries": 0}
    return {"campaign": name, "serial": device.serial, "ring": placed[device.serial], "site": site, **start}


def load(conn: Connection, name: str, *, change: bool = False, hold: bool = False) -> Campaign:
    """The campaign of that name; `Refused("campaign.unknown")`.

    hold: nobody changes it until the transaction ends. change: nor hands out by it, or changes it, but the caller.
    """
    query = select(campaigns).where(campaigns.c.name == name)
    if change:  # rows that refer to it may still be written meanwhile
        query = query.with_for_update(key_share=True)
    elif hold:
        query = query.with_for_update(read=True)
    row = conn.execute(query).first()
    if row is None:
        raise Refused("campaign.unknown", f"there is no campaign {name!r}")
    return _campaign(row)


def everything(conn: Connection) -> list[Campaign]:
    """Every campaign, the newest first."""
    return [_campaign(row) for row in conn.execute(select(campaigns).order_by(campaigns.c.created.desc()))]


def running(conn: Connection) -> list[str]:
    """The names of campaigns that something may still happen in: those that run, and those stopped with leases out."""
    out = select(members.c.campaign).where(members.c.phase == Phase.CLAIMED.value)
    query = select(campaigns.c.name).where(
        (campaigns.c.state == State.RUNNING.value)
        | (campaigns.c.state.in_([State.STOPPED.value, State.PAUSED.value]) & campaigns.c.name.in_(out))
    )
    return sorted(conn.execute(query).scalars())


@functools.lru_cache(maxsize=64)
def _plan(text: str) -> Plan:
    """The plan that is kept as `text`; read for every device that is handed out, so it is parsed once."""
    try:
        return plan_from_json(json.loads(text))
    except (ValueError, RecursionError):
        raise Malformed("campaign.malformed", "the plan that is kept of a campaign is none") from None


def _campaign(row: Any) -> Campaign:
    plan = _plan(row.plan)
    goal = Goal(row.model, row.version, row.sequence, bytes(row.digest), row.file)
    times = (row.created, row.created_by, row.started, row.changed, row.changed_by, row.reason)
    return Campaign(row.name, State(row.state), goal, plan, row.devices, *times)


def order(conn: Connection, name: str, what: Order, by: str, now: int, reason: str | None = None) -> Campaign:
    """The campaign after an order, which is written down. A start opens the first ring; a stop leaves out who waits.

    Raises `Refused`: `campaign.unknown`; `campaign.order` where the order is none in that state; `campaign.overlap`
    where a device waits in another campaign.
    """
    campaign = load(conn, name, change=True)
    after = moved(campaign.state, what)
    values: dict[str, Any] = {"state": after.value, "changed": now, "changed_by": by, "reason": reason}
    if what is Order.START:
        _check_alone(conn, name)
        if campaign.started is None:
            values["started"] = now
    conn.execute(update(campaigns).where(campaigns.c.name == name).values(**values))
    if what is Order.START and campaign.started is None:
        _open(conn, name, 0, by, now)
    if after is State.STOPPED:
        leave_out(conn, name, now)
    return load(conn, name)


def _check_alone(conn: Connection, name: str) -> None:
    """Two campaigns with one device would push two releases to it, each after the other."""
    waiting = members.c.phase.in_([Phase.DUE.value, Phase.CLAIMED.value])
    own = select(members.c.serial).where(members.c.campaign == name, waiting)
    active = select(campaigns.c.name).where(
        campaigns.c.state.in_([State.RUNNING.value, State.PAUSED.value]), campaigns.c.name != name
    )
    query = select(members.c.campaign, members.c.serial).where(
        members.c.campaign.in_(active), waiting, members.c.serial.in_(own)
    )
    found = conn.execute(query.limit(1)).first()
    if found is not None:
        raise Refused("campaign.overlap", f"device {found.serial} waits in campaign {found.campaign}")


def leave_out(conn: Connection, name: str, now: int) -> int:
    """Skip every device of a stopped campaign that nobody holds; how many."""
    done = conn.execute(
        update(members)
        .where(members.c.campaign == name, members.c.phase == Phase.DUE.value)
        .values(phase=Phase.SKIPPED.value, code="campaign.stopped", ended=now)
    )
    return int(done.rowcount)


def ring_facts(conn: Connection, campaign: Campaign) -> list[RingFacts]:
    """The rings in their order, with the moments of the confirmations that the next one waits for."""
    query = select(rings.c.number, rings.c.opened).where(rings.c.campaign == campaign.name)
    opened: dict[int, int | None] = {row.number: row.opened for row in conn.execute(query)}
    sizes = {ring: sum(found.values()) for ring, found in counts(conn, campaign.name).items()}
    numbers = range(len(campaign.plan.rings))
    closed = next((at for at in numbers if opened.get(at) is None), 0)
    opening = campaign.plan.rings[closed].opening
    times = {}
    if opening is not None and closed > 0:
        times[closed - 1] = _first(conn, campaign, closed - 1, opening.confirmed)
    return [RingFacts(opened.get(at), sizes.get(at, 0), times.get(at, ())) for at in numbers]


def _first(conn: Connection, campaign: Campaign, ring: int, most: int) -> tuple[int, ...]:
    query = select(members.c.ended).where(
        members.c.campaign == campaign.name, members.c.ring == ring, members.c.phase == Phase.DONE.value
    )
    return tuple(conn.execute(query.order_by(members.c.ended).limit(most)).scalars())


def open_by_hand(conn: Connection, name: str, ring: str | None, by: str, now: int) -> str:
    """Open the next ring, which `ring` may name; its name. Raises `Refused`: `campaign.stopped`, `campaign.rings`."""
    campaign = load(conn, name, change=True)
    if campaign.state not in (State.RUNNING, State.PAUSED):
        raise Refused("campaign.stopped", f"campaign {name} is {campaign.state}; its rings stay as they are")
    number = opened_by_hand(campaign.plan, ring_facts(conn, campaign), ring)
    _open(conn, name, number, by, now)
    return campaign.plan.rings[number].name


def open_ring(conn: Connection, name: str, number: int, now: int) -> None:
    """Write down that a ring opened by itself."""
    _open(conn, name, number, "devguard", now)


def _open(conn: Connection, name: str, number: int, by: str, now: int) -> None:
    where = (rings.c.campaign == name, rings.c.number == number, rings.c.opened.is_(None))
    conn.execute(update(rings).where(*where).values(opened=now, opened_by=by))


def open_rings(conn: Connection, name: str) -> list[int]:
    """The numbers of the rings that are open."""
    query = select(rings.c.number).where(rings.c.campaign == name, rings.c.opened.is_not(None))
    return sorted(conn.execute(query).scalars())


def counts(conn: Connection, name: str, within: Iterable[int] | None = None) -> dict[int, dict[Phase, int]]:
    """How many devices are in which phase, by ring; `within`: these rings alone."""
    query = select(members.c.ring, members.c.phase, func.count()).where(members.c.campaign == name)
    if within is not None:
        query = query.where(members.c.ring.in_(list(within)))
    found: dict[int, dict[Phase, int]] = {}
    for ring, phase, count in conn.execute(query.group_by(members.c.ring, members.c.phase)):
        found.setdefault(ring, {})[Phase(phase)] = count
    return found


def waiting(conn: Connection, name: str) -> int:
    """How many devices have not reached an end."""
    query = select(func.count()).where(
        members.c.campaign == name, members.c.phase.not_in([phase.value for phase in ENDS])
    )
    return int(conn.execute(query).scalar_one())


def rows_of(conn: Connection, campaign: Campaign) -> tuple[list[Member], list[Said]]:
    """Every device of the campaign, and everything that benches said."""
    query = select(members).where(members.c.campaign == campaign.name).order_by(members.c.ring, members.c.serial)
    own = [
        Member(
            serial=row.serial,
            ring=row.ring,
            site=row.site,
            phase=Phase(row.phase),
            tries=row.tries,
            leased=row.lease is not None,
            code=row.code,
            ended=row.ended,
            evidence=row.evidence,
        )
        for row in conn.execute(query)
    ]
    heard = select(outcomes).where(outcomes.c.campaign == campaign.name).order_by(outcomes.c.time, outcomes.c.lease)
    said = [
        Said(row.lease, row.serial, Outcome(row.outcome), row.code, row.by, row.time, row.counted)
        for row in conn.execute(heard)
    ]
    return own, said


def report_of(conn: Connection, campaign: Campaign) -> Report:
    """The campaign added up, from every row of it."""
    return add_up(campaign.state, *rows_of(conn, campaign), campaign.devices)

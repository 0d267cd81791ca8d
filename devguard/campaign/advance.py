"""A campaign moves on: devices that signed are done, leases run out, the stop rule stops, rings open, the end comes.

`advance` may be called by anybody at any time and as often as they like; what it does depends on the rows and the
moment alone. In the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, func, select, update

from devguard.campaign.leases import NO_LEASE, done_values
from devguard.campaign.state import Facts, Order, Phase, State, opens, trips
from devguard.campaign.store import (
    Campaign,
    counts,
    leave_out,
    load,
    moment,
    open_ring,
    open_rings,
    order,
    ring_facts,
    running,
    waiting,
)
from devguard.campaign.tables import members
from devguard.ledger.schema import devices, incidents
from devguard.ledger.store import Store

BY = "devguard"


@dataclass(frozen=True, slots=True)
class Advance:
    """What happened: devices that are done now, leases that ran out, rings that opened, why it stopped, and the state
    after it."""

    state: State
    confirmed: int = 0
    expired: int = 0
    opened: tuple[str, ...] = ()
    stopped: str | None = None


def advance(conn: Connection, name: str, now: int) -> Advance:
    """Move the campaign on as of `now`. Raises `Refused("campaign.unknown")`."""
    campaign = load(conn, name, change=True)
    confirmed, expired = _confirm(conn, campaign, now), _expire(conn, name, now)
    opened: list[str] = []
    why = None
    if campaign.state is State.RUNNING:
        why = trips(campaign.plan.stop, facts(conn, campaign))
        if why is not None:
            campaign = order(conn, name, Order.TRIP, BY, now, why)
        else:
            opened = _open_due(conn, campaign, now)
            if not waiting(conn, name):
                campaign = order(conn, name, Order.FINISH, BY, now)
    if campaign.state is State.STOPPED:
        leave_out(conn, name, now)
    return Advance(campaign.state, confirmed, expired, tuple(opened), why)


def advance_all(store: Store, own: int) -> dict[str, Advance]:
    """Move every campaign on that something may still happen in, each in a transaction of its own. own: the caller's
    clock, see `moment`. Raises as `Store.run`."""
    with store.read() as conn:
        names, now = running(conn), moment(conn, own)
    return {name: store.run(partial(advance, name=name, now=now)) for name in names}


def _confirm(conn: Connection, campaign: Campaign, now: int) -> int:
    """Whoever signed that it runs the release, confirmed, is done, whatever a bench said of it."""
    goal = campaign.goal
    report = select(devices.c.report_digest).where(
        devices.c.serial == members.c.serial,
        devices.c.model == goal.model,
        devices.c.manifest_digest == goal.digest,
        devices.c.confirmed.is_(True),
        devices.c.report_digest.is_not(None),
    )
    where = (members.c.campaign == campaign.name, members.c.phase != Phase.DONE.value, report.exists())
    done = conn.execute(update(members).where(*where).values(**done_values(report.scalar_subquery(), now)))
    return int(done.rowcount)


def _expire(conn: Connection, name: str, now: int) -> int:
    where = (members.c.campaign == name, members.c.phase == Phase.CLAIMED.value, members.c.lease_until <= now)
    return int(conn.execute(update(members).where(*where).values(phase=Phase.DUE.value, **NO_LEASE)).rowcount)


def _open_due(conn: Connection, campaign: Campaign, now: int) -> list[str]:
    found: list[str] = []
    while (number := opens(campaign.plan, ring_facts(conn, campaign), now)) is not None:
        open_ring(conn, campaign.name, number, now)
        found.append(campaign.plan.rings[number].name)
    return found


def facts(conn: Connection, campaign: Campaign) -> Facts:
    """What the stop rule is asked about: the devices of open rings, and the incidents the ledger knows."""
    totals: dict[Phase, int] = {}
    for one in counts(conn, campaign.name, open_rings(conn, campaign.name)).values():
        for phase, count in one.items():
            totals[phase] = totals.get(phase, 0) + count
    own = select(members.c.serial).where(members.c.campaign == campaign.name)
    since = campaign.started or campaign.created
    about = select(func.count()).where(incidents.c.device.in_(own), incidents.c.time >= since)
    blocking = select(incidents.c.kind).where(incidents.c.open.is_(True)).distinct()
    return Facts(
        devices=sum(totals.values()),
        counts=totals,
        incidents=int(conn.execute(about).scalar_one()),
        blocking=frozenset(conn.execute(blocking).scalars()),
    )

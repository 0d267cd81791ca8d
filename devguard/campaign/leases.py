"""Who works on which device: leases, and what benches say became of them. In the caller's transaction.

A lease names one bench's turn at one device and ends by itself, so that a bench that died costs time and nothing else.
An outcome counts once for its lease, however often it comes. "confirmed" is a hint to look: a device is done when the
ledger has its own signed report that it runs the release, confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from devguard.campaign.state import Event, Outcome, Phase, becomes, event_of, may_hand_out
from devguard.campaign.store import Campaign, load, open_rings
from devguard.campaign.tables import members, outcomes
from devguard.errors import Refused
from devguard.ledger.schema import devices


@dataclass(frozen=True, slots=True)
class Lease:
    """One bench's turn at one device. token: names it, random; until: epoch seconds."""

    campaign: str
    serial: str
    token: str
    by: str
    until: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """What an outcome did. counted: false for one that came before, or after its lease was lost; phase: of the device
    now."""

    counted: bool
    phase: Phase


def claim(
    conn: Connection, name: str, by: str, now: int, token: str, *, site: str | None = None, serial: str | None = None
) -> Lease | None:
    """The next due device, for a while; None where none is due. `serial`: this one or none; `site`: of that site.

    Raises `Refused`: `campaign.unknown`, `campaign.stopped`, `campaign.window`.
    """
    campaign = load(conn, name, hold=True)
    may_hand_out(name, campaign.state, campaign.plan, now)
    free = or_(
        members.c.phase == Phase.DUE.value,
        and_(members.c.phase == Phase.CLAIMED.value, members.c.lease_until <= now),
    )
    where = [members.c.campaign == name, members.c.ring.in_(open_rings(conn, name)), free]
    if site is not None:
        listed = literal(",") + members.c.site + literal(",")
        where.append(listed.contains(f",{site},", autoescape=True))
    if serial is not None:
        where.append(members.c.serial == serial)
    query = select(members.c.serial).where(*where).order_by(members.c.ring, members.c.tries, members.c.serial)
    found = conn.execute(query.limit(1).with_for_update(skip_locked=True)).scalar()
    if found is None:
        return None
    until = now + campaign.plan.lease
    values = {"phase": Phase.CLAIMED.value, "tries": members.c.tries + 1, "lease": token, "lease_by": by}
    _set(conn, name, found, lease_until=until, code=None, **values)
    return Lease(name, found, token, by, until)


def _set(conn: Connection, name: str, serial: str, **values: Any) -> None:
    conn.execute(update(members).where(members.c.campaign == name, members.c.serial == serial).values(**values))


NO_LEASE: dict[str, Any] = {"lease": None, "lease_by": None, "lease_until": None}


def give_back(conn: Connection, lease: Lease) -> bool:
    """Hand a device back that nothing was done with; it counts as no try.

    False where the lease was lost, or its outcome is said already.
    """
    said = select(outcomes.c.lease).where(outcomes.c.campaign == lease.campaign, outcomes.c.lease == lease.token)
    if conn.execute(said).first() is not None:
        return False
    where = (members.c.campaign == lease.campaign, members.c.serial == lease.serial, members.c.lease == lease.token)
    values = {"phase": Phase.DUE.value, "tries": members.c.tries - 1, **NO_LEASE}
    done = conn.execute(update(members).where(*where, members.c.phase == Phase.CLAIMED.value).values(**values))
    return done.rowcount == 1


def deliver(conn: Connection, lease: Lease, outcome: Outcome, code: str | None, now: int) -> Delivery:
    """Take what a bench says became of a device, once; what the device signed goes before it.

    Raises `Refused("campaign.unknown")`, for a device that is in no such campaign too.
    """
    campaign = load(conn, lease.campaign)
    query = select(members).where(members.c.campaign == lease.campaign, members.c.serial == lease.serial)
    row = conn.execute(query.with_for_update()).first()
    if row is None:
        raise Refused("campaign.unknown", f"device {lease.serial} is not in campaign {lease.campaign}")
    phase, holds = Phase(row.phase), row.lease == lease.token and row.phase == Phase.CLAIMED.value
    first = _write(conn, lease, outcome, code, now, holds)
    evidence = confirmation(conn, campaign, lease.serial)
    if evidence is not None and phase is not Phase.DONE:
        _set(conn, lease.campaign, lease.serial, **done_values(evidence, now))
        return Delivery(first and holds, Phase.DONE)
    if not first or not holds:
        return Delivery(False, phase)
    if outcome is Outcome.CONFIRMED:  # its report is on the way; until it is here the device is nobody else's
        _set(conn, lease.campaign, lease.serial, lease_until=now + campaign.plan.lease)
        return Delivery(True, phase)
    event = event_of(outcome, _failures(conn, lease), campaign.plan.tries)
    after = becomes(phase, event) or phase
    ended = None if event is Event.FAIL else now
    _set(conn, lease.campaign, lease.serial, phase=after.value, code=code, ended=ended, **NO_LEASE)
    return Delivery(True, after)


def done_values(evidence: Any, now: int) -> dict[str, Any]:
    """The columns of a device that is done. evidence: a digest, or a query for one."""
    return {"phase": Phase.DONE.value, "evidence": evidence, "ended": now, "code": None, **NO_LEASE}


def _write(conn: Connection, lease: Lease, outcome: Outcome, code: str | None, now: int, counted: bool) -> bool:
    """Whether this is the first outcome of the lease; it is kept then."""
    row = {"campaign": lease.campaign, "lease": lease.token, "serial": lease.serial, "outcome": outcome.value}
    try:
        with conn.begin_nested():
            conn.execute(insert(outcomes).values(code=code, by=lease.by, time=now, counted=counted, **row))
    except IntegrityError:
        return False
    return True


def _failures(conn: Connection, lease: Lease) -> int:
    """How often benches said that a push of the device failed, while they held it."""
    mine = (outcomes.c.campaign == lease.campaign, outcomes.c.serial == lease.serial, outcomes.c.counted.is_(True))
    query = select(func.count()).where(*mine, outcomes.c.outcome == Outcome.FAILED.value)
    return int(conn.execute(query).scalar_one())


def confirmation(conn: Connection, campaign: Campaign, serial: str) -> bytes | None:
    """The digest of the device's last signed report, where that says it runs the release, confirmed."""
    query = select(devices.c.report_digest).where(
        devices.c.serial == serial,
        devices.c.model == campaign.goal.model,
        devices.c.manifest_digest == campaign.goal.digest,
        devices.c.confirmed.is_(True),
    )
    found = conn.execute(query).scalar()
    return None if found is None else bytes(found)


def skip(conn: Connection, name: str, serial: str, now: int) -> None:
    """Leave a device out for good. Raises `Refused`: `campaign.unknown`; `campaign.order` unless it is due."""
    load(conn, name)
    where = (members.c.campaign == name, members.c.serial == serial)
    row = conn.execute(select(members.c.phase).where(*where).with_for_update()).first()
    if row is None:
        raise Refused("campaign.unknown", f"device {serial} is not in campaign {name}")
    after = becomes(Phase(row.phase), Event.SKIP)
    if after is None:
        raise Refused("campaign.order", f"device {serial} is {row.phase}; only one that is due is left out")
    _set(conn, name, serial, phase=after.value, code="campaign.skipped", ended=now)

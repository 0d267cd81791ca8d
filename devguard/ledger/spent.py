"""Uses of counted grants held for one push at a time, so that a second station is refused at once.

A use has a number, 1 to the grant's limit, and a row of that grant and number can be there once: that is the whole
rule, and the database keeps it. A use is bound to a device and a release, as devices bind it (`grant.uses`): the same
device and release again is the same use. A row is held by one push until its lease ends, which the push renews while it
lives. What was never offered to a device is free again when it is given back or its lease has ended, unless evidence of
that push says otherwise; what was offered may be spent, and stays bound.

It makes refusals early. The device is the last judge, here or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from devguard.errors import LinkError, Refused
from devguard.evidence.export import rfc3339
from devguard.evidence.record import printable
from devguard.ledger.group_tables import uses
from devguard.ledger.moment import database_time
from devguard.ledger.schema import grant_uses

LEASE: Final = 120
"""Seconds that a use is held without being renewed."""
_TRIES: Final = 16
_SHOWN: Final = 64
_INSERT: Final[dict[str, Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A use that a push wants of one grant. under: what its uses are remembered under; grant: SHA-256 of its untagged
    form; limit: how many there are; release: the manifest digest, or what else the use is bound to; serial: a counted
    grant names exactly one."""

    under: bytes
    grant: bytes
    limit: int
    action: str
    release: bytes
    serial: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds it: the station, by the origin of its log, and the push, by the request id of its records."""

    origin: str
    request: str


@dataclass(frozen=True, slots=True)
class Use:
    """A use that is held. before: it was offered to the device by an earlier push already."""

    wanted: Wanted
    number: int
    before: bool


def reserve(conn: Connection, wanted: Sequence[Wanted], holder: Holder) -> tuple[Use, ...]:
    """Hold a use of each grant, for the holder alone; all or none (roll back where this raises).

    Raises `Refused("grant.replay")` where a push holds it elsewhere, or all uses are bound to something else;
    `LinkError("ledger.busy")` where others are faster again and again; and what a transaction raises.
    """
    return tuple(_reserve(conn, one, holder) for one in wanted)


def _reserve(conn: Connection, wanted: Wanted, holder: Holder) -> Use:
    for _ in range(_TRIES):
        now = database_time(conn)
        rows = _rows(conn, wanted)
        bound_to = (wanted.action, wanted.release, wanted.serial)
        same = next((row for row in rows if (row["action"], row["release"], row["serial"]) == bound_to), None)
        if same is not None:
            _check_free(same, holder, now)
            if _change(conn, same, _held(holder, now)):
                return Use(wanted, same["number"], same["spent"])
        elif (number := _taken(conn, wanted, holder, rows, now)) is not None:
            return Use(wanted, number, before=False)
    raise LinkError("ledger.busy", "others took the uses of the grant faster than this station")


def offered(conn: Connection, use: Use, holder: Holder) -> Use:
    """The device is about to be asked: from now on it may have spent the use. Raises as `reserve` where the lease had
    ended and somebody else has taken it."""
    row = _row(conn, use)
    if row is None or not _is_mine(row, holder):
        use = _reserve(conn, use.wanted, holder)
        row = _row(conn, use)
    if row is None or not _change(conn, row, {"spent": True}):
        raise LinkError("ledger.busy", "the use of the grant was lost to somebody else")
    return use


def renew(conn: Connection, found: Sequence[Use], holder: Holder) -> None:
    """Hold them for another lease."""
    until = database_time(conn) + LEASE
    for use in found:
        row = _row(conn, use)
        if row is not None and _is_mine(row, holder):
            _change(conn, row, {"until": until})


def give_back(conn: Connection, found: Sequence[Use], holder: Holder, *, unspent: bool) -> None:
    """The push has ended. unspent: the device has not spent them, or was never asked; else they stay bound to it."""
    for use in found:
        row = _row(conn, use)
        if row is not None and _is_mine(row, holder):
            _change(conn, row, {"until": 0, **({"spent": use.before} if unspent else {})})


def _rows(conn: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    found = conn.execute(select(uses).where(uses.c.under == wanted.under).order_by(uses.c.number)).mappings()
    return [dict(row) for row in found]


def _row(conn: Connection, use: Use) -> dict[str, Any] | None:
    where = (uses.c.under == use.wanted.under) & (uses.c.number == use.number)
    found = conn.execute(select(uses).where(where)).mappings().one_or_none()
    return None if found is None else dict(found)


def _is_mine(row: dict[str, Any], holder: Holder) -> bool:
    return (row["origin"], row["request"]) == (holder.origin, holder.request)


def _check_free(row: dict[str, Any], holder: Holder, now: int) -> None:
    # A station that died in a push and is back goes on at once.
    if row["until"] > now and row["origin"] != holder.origin:
        raise Refused(
            "grant.replay",
            f"station {_who(row)} is using the grant: use {row['number']}",
            "wait for that push to end; one whose station died is free some minutes later",
        )


def _held(holder: Holder, now: int) -> dict[str, Any]:
    return {"origin": holder.origin, "request": holder.request, "time": now, "until": now + LEASE}


def _taken(conn: Connection, wanted: Wanted, holder: Holder, rows: list[dict[str, Any]], now: int) -> int | None:
    """A number of the grant that was free, or None where somebody was faster."""
    begun = _begun(conn, wanted)
    bound = [row for row in rows if not _is_free(row, now, begun)]
    elsewhere = begun - {(row["serial"], row["release"]) for row in bound}
    mine = (wanted.serial, wanted.release) in elsewhere
    if len(bound) + len(elsewhere) - mine >= wanted.limit:
        raise Refused("grant.replay", _why(wanted, bound))
    fresh = {"grant": wanted.grant, "action": wanted.action, "release": wanted.release, "serial": wanted.serial}
    values = {**fresh, "spent": mine, **_held(holder, now)}
    numbers = {row["number"] for row in bound}
    number = next(one for one in range(1, wanted.limit + 1) if one not in numbers)
    old = next((row for row in rows if row["number"] == number), None)
    if old is not None:
        return number if _change(conn, old, values) else None
    made = _INSERT[conn.dialect.name](uses).values(under=wanted.under, number=number, **values)
    return number if conn.execute(made.on_conflict_do_nothing()).rowcount == 1 else None


def _begun(conn: Connection, wanted: Wanted) -> set[tuple[str, bytes]]:
    """(serial, release) of every push under the grant that a technician signed for, by the evidence of all stations:
    with or without this store, a device may have spent it. One that the device refused counts as well: a record does
    not say how far the device had gone."""
    found = conn.execute(select(grant_uses.c.serial, grant_uses.c.release).where(grant_uses.c.grant == wanted.grant))
    return {(str(serial), bytes(release)) for serial, release in found}


def _is_free(row: dict[str, Any], now: int, begun: set[tuple[str, bytes]]) -> bool:
    """Whether nobody holds it and no device can have spent it, as far as anybody has said."""
    if row["spent"] or row["until"] > now:
        return False
    return (row["serial"], row["release"]) not in begun


def _why(wanted: Wanted, bound: list[dict[str, Any]]) -> str:
    last = max(bound, key=lambda row: row["time"], default=None)
    count = "the one use" if wanted.limit == 1 else f"all {wanted.limit} uses"
    if last is None:
        return f"{count} of the grant went elsewhere, by the group's records"
    return f"{count} of the grant went elsewhere: station {_who(last)}"


def _who(row: dict[str, Any]) -> str:
    """Which station, and since when; what stands there anybody may have written who can write there."""
    return f"{printable(row['origin'], _SHOWN)} since {rfc3339(max(row['time'], 0))}"


def _change(conn: Connection, row: dict[str, Any], values: dict[str, Any]) -> bool:
    """Change a row that nobody has changed since it was read; whether it was so."""
    same = [uses.c[name] == row[name] for name in ("under", "number", "origin", "request", "time", "until", "spent")]
    return conn.execute(uses.update().where(*same).values(values)).rowcount == 1

"""What people and programs ask of the ledger: rows as plain values, a page at a time. Writes nothing.

Every function takes a connection of `Store.read` and answers with dictionaries whose values are text, numbers, bytes,
True, False and None; times are epoch seconds, lists are lists. Pages are in the order of the key, `offset` rows left
out, at most `limit` given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, true

from devguard.device.models import all_names
from devguard.device.supported import model_support
from devguard.ledger import schema
from devguard.ledger.derive import ANY

PAGE: Final = 100
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which devices. serial, model, site, version: as they are written; words: part of the serial number, whatever its
    case; changed: only those of which no record explains a change; reported_before: epoch seconds, None for any time;
    behind: only those that run another release than the newest their model is known to have; unconfirmed: only those
    whose last report says so; unsupported_at: only those whose release, model or first part has no support any more at
    that time (epoch seconds)."""

    serial: str | None = None
    model: str | None = None
    site: str | None = None
    version: str | None = None
    words: str | None = None
    changed: bool = False
    reported_before: int | None = None
    behind: bool = False
    unconfirmed: bool = False
    unsupported_at: int | None = None


ALL: Final = Filter()


def devices(
    conn: Connection,
    filter_: Filter = ALL,
    offset: int = 0,
    limit: int = PAGE,
    *,
    order: str = "serial",
    down: bool = False,
) -> list[Row]:
    """Devices by a column, of equals by serial number; `down`: the last first. With what their release is known
    for, and until when it, its model and its first part are supported."""
    one, release = schema.devices.c, schema.releases.c
    joined = schema.devices.outerjoin(schema.releases, and_(release.model == one.model, release.version == one.version))
    columns = [
        *schema.devices.columns,
        release.supported_until,
        release.parts_until,
        release.first_part,
        release.revoked,
        release.sequence.label("release_sequence"),
    ]
    sorting = [column.desc() if down else column for column in (one[order], one.serial)]
    wanted = select(*columns).select_from(joined).where(_where(filter_)).order_by(*sorting)
    found = [dict(row) for row in conn.execute(wanted.offset(offset).limit(limit)).mappings()]
    known = {model: model_support(model) for model in {row["model"] for row in found} if model is not None}
    latest = newest_releases(conn)
    for row in found:
        row["site"] = _list(row["site"])
        row["flags"] = _list(row["flags"])
        row["model_until"] = known.get(row["model"])
        row["revoked"] = bool(row["revoked"])
        row["newest"] = latest.get(row["model"])
        row["behind"] = _behind(row, latest)
    return found


def count_devices(conn: Connection, filter_: Filter = ALL) -> int:
    """How many devices there are in all pages."""
    return int(conn.execute(select(func.count()).select_from(schema.devices).where(_where(filter_))).scalar_one())


def device(conn: Connection, serial: str) -> Row | None:
    """One device with its components, its last reports and pushes; None where nobody has met it."""
    found = devices(conn, Filter(serial=serial), limit=1)
    if not found:
        return None
    row, one = found[0], schema.components.c
    parts = select(one.id, one.digest, one.size).where(one.report == row["report_digest"]).order_by(one.place)
    row["components"] = [dict(part) | {"version": row["version"]} for part in conn.execute(parts).mappings()]
    row["reports"] = reports(conn, serial)
    row["pushes"] = pushes(conn, serial=serial)
    return row


def _where(filter_: Filter) -> ColumnElement[bool]:
    one = schema.devices.c
    asked: list[ColumnElement[bool]] = []
    for column, value in ((one.serial, filter_.serial), (one.model, filter_.model), (one.version, filter_.version)):
        asked += [] if value is None else [column == value]
    if filter_.site is not None:
        asked.append(_has(one.site, filter_.site))
    if filter_.words:
        asked.append(func.lower(one.serial).contains(filter_.words.lower(), autoescape=True))
    if filter_.changed:
        asked.append(one.changed.is_not(None))
    if filter_.reported_before is not None:
        asked.append(or_(one.reported.is_(None), one.reported < filter_.reported_before))
    if filter_.behind:
        release = schema.releases.alias()
        newer = and_(release.c.model == one.model, release.c.sequence > one.sequence, ~release.c.revoked)
        asked.append(exists().where(newer))
    if filter_.unconfirmed:
        asked.append(~one.confirmed)
    if filter_.unsupported_at is not None:
        asked.append(_unsupported(filter_.unsupported_at))
    return and_(true(), *asked)


def _unsupported(now: int) -> ColumnElement[bool]:
    """Support has ended of the release that a device runs, of one of its parts, or of its model."""
    one, release = schema.devices.c, schema.releases.alias()
    ended = or_(release.c.supported_until <= now, release.c.parts_until <= now)
    mine = and_(release.c.model == one.model, release.c.version == one.version)
    over = [name for name in all_names() if (end := model_support(name)) is not None and end <= now]
    return or_(exists().where(mine, ended), one.model.in_(over))


def components(conn: Connection, digests: Sequence[bytes]) -> dict[bytes, list[Row]]:
    """The components that reports name, by the digest of the report."""
    one = schema.components.c
    wanted = select(one.report, one.id, one.digest, one.size).where(one.report.in_(list(digests)))
    found: dict[bytes, list[Row]] = {}
    for row in conn.execute(wanted.order_by(one.report, one.place)).mappings():
        found.setdefault(row["report"], []).append({name: row[name] for name in ("id", "digest", "size")})
    return found


def _has(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a list with commas between names it."""
    inside = f", {name}"
    return or_(
        column == name,
        column.startswith(f"{name}, ", autoescape=True),
        column.endswith(inside, autoescape=True),
        column.contains(f"{inside}, ", autoescape=True),
    )


def newest_releases(conn: Connection) -> dict[str, Row]:
    """Of each model the release with the highest sequence number that is not taken back."""
    one = schema.releases.c
    wanted = select(one.model, one.version, one.sequence, one.since).where(~one.revoked, one.sequence.is_not(None))
    found: dict[str, Row] = {}
    for row in conn.execute(wanted.order_by(one.model, one.sequence, one.version)).mappings():
        found[row["model"]] = dict(row)
    return found


def _behind(row: Mapping[str, Any], latest: Mapping[str, Row]) -> bool:
    newest = latest.get(row["model"])
    return newest is not None and row["sequence"] is not None and newest["sequence"] > row["sequence"]


def _list(text: str | None) -> list[str]:
    return text.split(", ") if text else []


def reports(conn: Connection, serial: str, limit: int = 20) -> list[Row]:
    """The last signed reports of a device, the newest first."""
    one = schema.reports.c
    wanted = select(schema.reports).where(one.serial == serial).order_by(one.time.desc(), one.origin, one.index.desc())
    return _rows(conn, wanted.limit(limit))


def stations(conn: Connection, offset: int = 0, limit: int = PAGE) -> list[Row]:
    """Stations, with the trust version that each had in hand last."""
    one = schema.stations.c
    columns = [column for column in schema.stations.columns if column.name not in ("frontier", "key")]
    found = _rows(conn, select(*columns).order_by(one.origin).offset(offset).limit(limit))
    for row in found:
        seen = schema.trust_versions.c
        wanted = select(seen.version).where(seen.origin == row["origin"])
        row["trust_version"] = conn.execute(wanted.order_by(seen.time.desc(), seen.index.desc()).limit(1)).scalar()
        # Its newest record against when that came: a clock that is ahead says so by itself.
        row["ahead"] = max(0, (row["latest"] or 0) - (row["seen"] or 0))
    return found


def technicians(conn: Connection, offset: int = 0, limit: int = PAGE) -> list[Row]:
    """People: on a list of technicians, granted something, suspended."""
    one = schema.technicians.c
    return _rows(conn, select(schema.technicians).order_by(one.person).offset(offset).limit(limit))


def grants(
    conn: Connection, *, open_at: int | None = None, technician: str | None = None, offset: int = 0, limit: int = PAGE
) -> list[Row]:
    """Grants, those that end last first, with their uses and whether they were taken back. `open_at`: only those that
    have not expired at that time (epoch seconds) and were not taken back."""
    one, word, all_ = schema.grants.c, schema.revocations.c, schema.epochs.c
    back = or_(exists().where(word.cti == one.cti), exists().where(all_.epoch > one.epoch))
    wanted = select(schema.grants, back.label("revoked"))
    if open_at is not None:
        wanted = wanted.where(one.expires > open_at, ~back)
    if technician is not None:
        wanted = wanted.where(one.technician == technician)
    found = _rows(conn, wanted.order_by(one.expires.desc(), one.digest).offset(offset).limit(limit))
    for row in found:
        row["uses"] = grant_uses(conn, row["digest"])
        row["revoked"] = bool(row["revoked"])
        for name in ("models", "serials", "sites"):
            row[name] = _list(row[name])
        row["any"] = [name for name in ("models", "serials", "sites") if ANY in row[name]]
    return found


def grant_uses(conn: Connection, digest: bytes) -> list[Row]:
    """What one grant was used for; `done`: whether a record says that the device took it."""
    one, push = schema.grant_uses.c, schema.pushes.c
    done = exists().where(
        push.grant == one.grant, push.serial == one.serial, push.manifest_digest == one.release, push.state == "done"
    )
    wanted = select(schema.grant_uses, done.label("done")).where(one.grant == digest)
    return [
        row | {"done": bool(row["done"])} for row in _rows(conn, wanted.order_by(one.time, one.serial, one.release))
    ]


def releases(conn: Connection, model: str | None = None, offset: int = 0, limit: int = PAGE) -> list[Row]:
    """Releases that are known here, and on how many devices each runs."""
    one, running = schema.releases.c, schema.devices.c
    count = select(func.count()).where(running.model == one.model, running.version == one.version).scalar_subquery()
    dates = (one.since, one.supported_until, one.parts_until, one.first_part)
    columns = [one.model, one.version, one.sequence, one.digest, *dates, one.revoked]
    wanted = select(*columns, count.label("devices"))
    wanted = wanted if model is None else wanted.where(one.model == model)
    found = _rows(conn, wanted.order_by(one.model, one.sequence.desc(), one.version).offset(offset).limit(limit))
    return [row | {"model_until": model_support(row["model"])} for row in found]


def pushes(conn: Connection, *, serial: str | None = None, offset: int = 0, limit: int = PAGE) -> list[Row]:
    """Pushes, the newest first: begun, done or refused."""
    one = schema.pushes.c
    when = func.coalesce(one.begun, one.ended)
    wanted = select(schema.pushes) if serial is None else select(schema.pushes).where(one.serial == serial)
    return _rows(conn, wanted.order_by(when.desc(), one.origin, one.request).offset(offset).limit(limit))


def incidents(conn: Connection, *, only_open: bool = False, offset: int = 0, limit: int = PAGE) -> list[Row]:
    """Incidents, the newest first, `records` and `own` as lists of numbers."""
    one = schema.incidents.c
    wanted = select(schema.incidents).where(one.open) if only_open else select(schema.incidents)
    found = _rows(conn, wanted.order_by(one.time.desc(), one.origin, one.id).offset(offset).limit(limit))
    for row in found:
        row["open"] = bool(row["open"])
        for name in ("records", "own"):
            row[name] = [int(word) for word in row[name].split()]
    return found


def trust_versions(conn: Connection, offset: int = 0, limit: int = PAGE) -> list[Row]:
    """Which trust document which station has had in hand, the newest version first."""
    one = schema.trust_versions.c
    order = (one.version.desc(), one.origin, one.digest)
    return _rows(conn, select(schema.trust_versions).order_by(*order).offset(offset).limit(limit))


def doubts(conn: Connection, offset: int = 0, limit: int = PAGE) -> list[Row]:
    """What others signed inside records, and nobody here can vouch for; the newest first."""
    one = schema.doubts.c
    order = (one.time.desc(), one.origin, one.index, one.what)
    return _rows(conn, select(schema.doubts).order_by(*order).offset(offset).limit(limit))


def generation(conn: Connection) -> int:
    """A number that grows with whatever is taken: pages that were made of the same one are the same."""
    return int(conn.execute(select(schema.ledger.c.generation)).scalar_one())


def counts(conn: Connection) -> dict[str, int]:
    """How many rows each table has."""
    tables = (*schema.PRIMARY[1:], *schema.DERIVED)
    return {table.name: int(conn.execute(select(func.count()).select_from(table)).scalar_one()) for table in tables}


def _rows(conn: Connection, wanted: Select[Any]) -> list[Row]:
    return [dict(row) for row in conn.execute(wanted).mappings()]

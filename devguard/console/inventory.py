"""Devices for the page and the API: from the ledger where there is one, else from what `devguard fleet age` says.

Rows have the keys of `devguard fleet age --json`, and more where the ledger knows more. Filter, order and paging are
the database's; of a home without a ledger they are done here, on the devices of one station.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from devguard.errors import DevguardError, Refused
from devguard.evidence.export import rfc3339
from devguard.evidence.fleet import DAY, Fleet, Known, Sighting, red

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE: Final = 50
BEHIND: Final = 90 * DAY
SILENT: Final = 180 * DAY
STATES: Final = ("behind", "changed", "silent", "unconfirmed", "unsupported")
SORTS: Final = ("serial", "model", "version", "site", "reported")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """Which devices, in which order, from which one on. words: part of a serial number. state: one of STATES or ""."""

    words: str = ""
    model: str = ""
    site: str = ""
    version: str = ""
    state: str = ""
    sort: str = "serial"
    down: bool = False
    offset: int = 0
    limit: int = PAGE


@dataclass(frozen=True, slots=True)
class Inventory:
    """A page. total: on all pages; models: what there is to choose from; source: `ledger` or `log`; taken: when the
    ledger last took something of a station, epoch seconds; error: why it is not the ledger's, or why there is nothing.
    """

    rows: tuple[Row, ...] = ()
    total: int = 0
    models: tuple[str, ...] = ()
    source: str = "ledger"
    taken: int | None = None
    error: DevguardError | None = None


@dataclass(frozen=True, slots=True)
class _Runs:
    """What a device runs, as `evidence.fleet` asks for it."""

    serial: str
    model: str
    version: str
    sequence: int
    manifest_digest: bytes | None


# from the ledger


def of_ledger(conn: Connection, wish: Wish, now: int) -> Inventory:
    """A page of the ledger's devices. `Refused("ledger.missing")` where it has taken no log yet."""
    from sqlalchemy import select

    from devguard.ledger.rows import count_devices, devices
    from devguard.ledger.schema import devices as table

    taken = taken_at(conn)
    wanted = _filter(wish, now)
    found = devices(conn, wanted, wish.offset, wish.limit, order=wish.sort, down=wish.down)
    models = conn.execute(select(table.c.model).distinct().where(table.c.model.is_not(None))).scalars().all()
    rows = _rows(conn, found, now)
    return Inventory(tuple(rows), count_devices(conn, wanted), tuple(sorted(models)), taken=taken)


def taken_at(conn: Connection) -> int | None:
    """When something was last taken from a station; None where nobody dated that. `Refused("ledger.missing")`."""
    from sqlalchemy import func, select

    from devguard.ledger.schema import stations

    count, seen = conn.execute(select(func.count(), func.max(stations.c.seen)).select_from(stations)).one()
    if not count:
        raise Refused("ledger.missing", "the ledger has taken no station's log yet")
    return None if seen is None else int(seen)


def device_of_ledger(conn: Connection, serial: str, now: int) -> Row | None:
    """One device with its last reports and pushes; None where nobody has met it. Raises as `of_ledger`."""
    from devguard.ledger.rows import device

    taken_at(conn)
    found = device(conn, serial)
    if found is None:
        return None
    row = _rows(conn, [found], now)[0]
    return row | {"reports": [_plain(one) for one in found["reports"]], "pushes": [_plain(p) for p in found["pushes"]]}


def _filter(wish: Wish, now: int) -> Any:
    from devguard.ledger.rows import Filter

    return Filter(
        model=wish.model or None,
        site=wish.site or None,
        version=wish.version or None,
        words=wish.words or None,
        changed=wish.state == "changed",
        behind=wish.state == "behind",
        reported_before=now - SILENT if wish.state == "silent" else None,
        unconfirmed=wish.state == "unconfirmed",
        unsupported_at=now if wish.state == "unsupported" else None,
    )


def _rows(conn: Connection, found: list[Row], now: int) -> list[Row]:
    from devguard.ledger.rows import components

    fleet = Fleet(releases=_known(conn, {row["model"] for row in found}))
    parts = components(conn, [row["report_digest"] for row in found if row["report_digest"] is not None])
    return [_row(one, fleet, parts.get(one["report_digest"], []), now) for one in found]


def _known(conn: Connection, models: Iterable[str | None]) -> dict[tuple[str, str], Known]:
    """The releases of these models that are not taken back."""
    from sqlalchemy import select

    from devguard.ledger.schema import releases

    one = releases.c
    wanted = select(one.model, one.version, one.sequence, one.since).where(one.model.in_(list(models)), ~one.revoked)
    return {(row.model, row.version): Known(*row) for row in conn.execute(wanted)}


def _row(one: Row, fleet: Fleet, parts: list[Row], now: int) -> Row:
    """A row of the ledger with the keys of the command line."""
    runs = None
    if one["version"] is not None:
        runs = _Runs(one["serial"], one["model"], one["version"], one["sequence"], one["manifest_digest"])
    lag = fleet.lag(Sighting(one["serial"], one["index"], one["seen"], runs), now)
    ends = {"release": one["supported_until"], "model": one["model_until"], "parts": one["parts_until"]}
    back = [] if not one["revoked"] else ["its release was taken back"]
    return {
        "serial": one["serial"],
        "model": one["model"],
        "version": one["version"],
        "sequence": one["sequence"],
        "boot_state": one["boot_state"],
        "confirmed": one["confirmed"],
        "components": [{**part, "digest": part["digest"].hex(), "version": one["version"]} for part in parts],
        "flags": one["flags"],
        "reported": None if one["reported"] is None else rfc3339(one["reported"]),
        "record": one["index"] if one["report_index"] is None else one["report_index"],
        "sites": one["site"],
        "newest": None if lag is None else lag.newest.version,
        "behind": None if lag is None else {"versions": lag.versions, "days": lag.days},
        "support": {name: None if end is None else rfc3339(end) for name, end in ends.items()}
        | {"first_part": one["first_part"]},
        "red": [*red(lag, BEHIND, ends, one["first_part"], now), *back],
        "seen": rfc3339(one["seen"]),
        "station": one["station"],
        "changed": one["changed"],
        "life": one["life"],
        "security_version": one["security_version"],
        "trust_version": one["trust_version"],
        "image_digest": None if one["image_digest"] is None else one["image_digest"].hex(),
    }


def _plain(row: Mapping[str, Any]) -> Row:
    """A row of the ledger as plain values: bytes as hexadecimal, times as text."""
    times = {"time", "begun", "ended"}
    return {
        name: value.hex() if isinstance(value, bytes) else rfc3339(value) if name in times and value else value
        for name, value in row.items()
    }


# from a station's own log


def of_log(data: Mapping[str, Any], wish: Wish, now: int, error: DevguardError | None = None) -> Inventory:
    """A page of what `devguard fleet age --json` said."""
    rows = [{**_MORE, **row} for row in data["devices"]]
    chosen = [row for row in rows if _has(row, wish, now)]
    chosen.sort(key=lambda row: (_sorted_by(row, wish.sort), row["serial"]), reverse=wish.down)
    models = sorted({row["model"] for row in rows if row["model"] is not None})
    page = chosen[wish.offset : wish.offset + wish.limit]
    return Inventory(tuple(page), len(chosen), tuple(models), "log", error=error)


_MORE: Final[Mapping[str, Any]] = {
    "seen": None,
    "station": None,
    "changed": None,
    "life": None,
    "security_version": None,
    "trust_version": None,
    "image_digest": None,
}


def _sorted_by(row: Row, sort: str) -> str:
    value = ", ".join(row["sites"]) if sort == "site" else row[sort]
    return "" if value is None else str(value)


def _has(row: Row, wish: Wish, now: int) -> bool:
    states = {
        "": True,
        "behind": row["behind"] is not None,
        "changed": row["changed"] is not None,
        "silent": row["reported"] is None or now - seconds(row["reported"]) > SILENT,
        "unconfirmed": row["confirmed"] is False,
        "unsupported": any(end is not None and seconds(end) <= now for end in _ends(row)),
    }
    return (
        wish.words.lower() in row["serial"].lower()
        and wish.model in ("", row["model"])
        and wish.version in ("", row["version"])
        and (not wish.site or wish.site in row["sites"])
        and states[wish.state]
    )


def _ends(row: Row) -> list[str | None]:
    return [row["support"][name] for name in ("release", "model", "parts")]


def seconds(text: str) -> int:
    """Epoch seconds of a time as rows have it."""
    return int(datetime.fromisoformat(text).timestamp())


def support_state(row: Row, now: int) -> str:
    """`ended`, `supported`, or `unstated` where nobody said until when."""
    ends = [seconds(end) for end in _ends(row) if end is not None]
    return "unstated" if not ends else "ended" if min(ends) <= now else "supported"


MOST_VERSIONS: Final = 20


def versions(conn: Connection) -> list[tuple[str, int]]:
    """(model and version, how many devices run it), most first, at most MOST_VERSIONS."""
    from sqlalchemy import func, select

    from devguard.ledger.schema import devices

    one, count = devices.c, func.count()
    wanted = select(one.model, one.version, count).where(one.version.is_not(None)).group_by(one.model, one.version)
    found = conn.execute(wanted.order_by(count.desc(), one.model, one.version).limit(MOST_VERSIONS))
    return [(f"{model} {version}", number) for model, version, number in found]


def by_support(conn: Connection, now: int) -> dict[tuple[str, str, str], int]:
    """How many devices there are of each model, version and state of support. Raises as `of_ledger`."""
    from sqlalchemy import and_, func, select

    from devguard.device.supported import model_support
    from devguard.ledger.schema import devices, releases

    taken_at(conn)
    one, release, count = devices.c, releases.c, func.count()
    joined = devices.outerjoin(releases, and_(release.model == one.model, release.version == one.version))
    columns = (one.model, one.version, release.supported_until, release.parts_until)
    found: dict[tuple[str, str, str], int] = {}
    for model, version, until, parts, number in conn.execute(
        select(*columns, count).select_from(joined).group_by(*columns)
    ):
        ends = [end for end in (until, parts, model_support(model) if model else None) if end is not None]
        state = "unstated" if not ends else "ended" if min(ends) <= now else "supported"
        labels = (model or "unknown", version or "unknown", state)
        found[labels] = found.get(labels, 0) + number
    return found

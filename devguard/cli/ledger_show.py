"""`devguard ledger show`: what the ledger holds, a page at a time. Writes nothing and records nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, printed
from devguard.cli.ledger_store import open_store
from devguard.cli.times import iso

if TYPE_CHECKING:
    from sqlalchemy import Connection

WHAT: Final = ("devices", "grants", "releases", "technicians", "incidents", "pushes", "stations", "trust", "doubts")
_TIMES: Final = frozenset(
    {
        "reported",
        "seen",
        "since",
        "supported_until",
        "parts_until",
        "model_until",
        "latest",
        "expires",
        "time",
        "listed",
    }
    | {"granted", "said", "begun", "ended", "released", "site_time", "changed_time", "life_time"}
)
_COLUMNS: Final = {
    "devices": ("serial", "model", "version", "boot_state", "reported", "site", "changed"),
    "grants": ("technician", "serials", "expires", "epoch", "max_uses", "revoked", "proved"),
    "releases": ("model", "version", "sequence", "since", "supported_until", "devices", "revoked"),
    "technicians": ("shown", "name", "sites", "training", "suspended", "reason"),
    "incidents": ("id", "kind", "subject", "time", "decision", "open"),
    "pushes": ("begun", "serial", "release", "actor", "state", "code"),
    "stations": ("origin", "name", "records", "latest", "seen", "trust_version"),
    "trust": ("version", "origin", "time", "digest"),
    "doubts": ("time", "origin", "index", "what", "code", "message"),
}


@click.command("show", cls=Command)
@click.argument("what", type=click.Choice(WHAT), required=False)
@click.option("--serial", help="Only devices, or pushes, with this serial number.")
@click.option("--model", help="Only devices, or releases, of this model.")
@click.option("--site", help="Only devices that were last pushed to under a grant that names this site.")
@click.option("--version", help="Only devices that run this version.")
@click.option("--open", "only_open", is_flag=True, help="Only open incidents; only grants that can still be used.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave so many rows out.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Show so many rows.")
@click.pass_obj
def show(invocation: Invocation, /, what: str | None, offset: int, limit: int, **wish: Any) -> None:
    """Show what the ledger holds; without a word, how much of everything."""
    with open_store(invocation, create=False) as store:
        from devguard.ledger import rows

        with store.read() as conn:
            counts = rows.counts(conn)
            found = [] if what is None else _asked(conn, what, invocation.now(), wish, offset, limit)
            name, number = store.name, rows.generation(conn)
    data = {"store": name, "generation": number, "counts": counts}
    if what is None:
        invocation.result(data, "\n".join([name, *(f"  {one}: {count}" for one, count in counts.items())]))
        return
    plain = [_plain(row) for row in found]
    invocation.result({**data, "table": what, "offset": offset, "rows": plain}, lambda: _print(what, plain))


def _asked(
    conn: Connection, what: str, now: int, wish: dict[str, Any], offset: int, limit: int
) -> list[dict[str, Any]]:
    """One page."""
    from devguard.ledger import rows

    page: dict[str, Any] = {"offset": offset, "limit": limit}
    if what == "devices":
        named = {name: wish[name] for name in ("serial", "model", "site", "version")}
        return rows.devices(conn, rows.Filter(**named), offset, limit)
    if what == "grants":
        return rows.grants(conn, open_at=now if wish["only_open"] else None, **page)
    if what == "releases":
        return rows.releases(conn, wish["model"], offset, limit)
    if what == "pushes":
        return rows.pushes(conn, serial=wish["serial"], **page)
    if what == "incidents":
        return rows.incidents(conn, only_open=wish["only_open"], **page)
    others = {
        "technicians": rows.technicians,
        "stations": rows.stations,
        "trust": rows.trust_versions,
        "doubts": rows.doubts,
    }
    return others[what](conn, offset, limit)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON: bytes in hexadecimal, times as text."""
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list):
        return [_plain(one) if isinstance(one, dict) else one for one in value]
    if name in _TIMES and isinstance(value, int):
        return iso(value)
    return value


def _print(what: str, found: list[dict[str, Any]]) -> None:
    names = _COLUMNS[what]
    lines = [
        tuple(name.replace("_", " ") for name in names),
        *(tuple(_cell(row[name]) for name in names) for row in found),
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    for line in lines:
        click.echo(printed("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()))
    click.echo(f"{len(found)} row{'' if len(found) == 1 else 's'}")


def _cell(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"

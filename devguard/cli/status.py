"""`devguard status`: what can be done from this home now."""

from __future__ import annotations

from typing import Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.grant_revoke import kept_grants, kept_line
from devguard.cli.status_store import store_lines, store_status
from devguard.cli.times import iso, left
from devguard.errors import DevguardError


@click.command(cls=Command)
@click.option("--no-ports", is_flag=True, help="Do not ask the serial ports.")
@click.pass_obj
def status(invocation: Invocation, no_ports: bool) -> None:
    """Show grants with minutes left, who is suspended and whose training lapses, trust, keys, ports with devices."""
    now = invocation.now()
    data = {
        "home": str(invocation.home.path),
        "trust": _trust(invocation, now),
        "memory": _memory(invocation, now),
        "grants": kept_grants(invocation, now),
        "technicians": _technicians(invocation, now),
        "keys": _keys(invocation),
        "shelf": _shelf(invocation, now),
        "store": store_status(invocation),
        "ports": [] if no_ports else _ports(),
    }
    invocation.result(data, _text(data))


def _shelf(invocation: Invocation, now: int) -> dict[str, Any] | None:
    """How fresh the shelf of the last refresh is; None where there was none."""
    from devguard.shelf.store import Store

    try:
        fresh = Store(invocation.home.path / "shelf").freshness()
        return None if fresh is None else fresh.as_dict(now)
    except DevguardError as error:
        return {"fresh": False, "code": error.code, "message": error.message}


def _shelf_text(data: dict[str, Any] | None) -> list[str]:
    if data is None:
        return []
    if "code" in data:
        return [f"shelf  {data['code']}: {data['message']}"]
    age = "" if data["age_seconds"] is None else f"signed {left(data['age_seconds'])} ago, "
    state = f"{left(data['seconds_left'])} left" if data["fresh"] else "expired: devguard shelf refresh"
    return [f"shelf  version {data['version']}, {age}{state}"]


def _trust(invocation: Invocation, now: int) -> dict[str, Any]:
    from devguard.trust.document import check_time

    try:
        document = invocation.home.trust(None)
        check_time(document, now)
    except DevguardError as error:
        return {"ok": False, "code": error.code, "message": error.message}
    return {
        "ok": True,
        "version": document.version,
        "development": document.development,
        "age_days": (now - document.issued) // 86_400,
        "days_left": (document.expires - now) // 86_400,
    }


def _memory(invocation: Invocation, now: int) -> dict[str, Any]:
    """What this station remembers, compared with its log and the clock; nothing is written by looking."""
    from devguard.cli.memory import check_clock, origin, recall

    try:
        mine = origin(invocation.home)
        if mine is None:
            return {"ok": True, "trust_version": None, "latest": None, "sequences": {}}
        memory = recall(invocation.home, mine)
        check_clock(memory, now)
    except DevguardError as error:
        return {"ok": False, "code": error.code, "message": error.message}
    known = {"trust_version": memory.trust_version, "sequences": dict(memory.sequences)}
    return {"ok": True, "latest": iso(memory.latest), **known}


def _technicians(invocation: Invocation, now: int) -> dict[str, Any]:
    """Everybody who is suspended here, and every training that has lapsed or lapses within thirty days."""
    from devguard.cli.standing import lapsing, look
    from devguard.cli.technician import suspended_persons

    try:
        roster = look(invocation.home)
    except DevguardError as error:
        return {"ok": False, "code": error.code, "message": error.message}
    training = [{"name": name, "model": model, "until": iso(until)} for name, model, until in lapsing(roster, now)]
    return {"ok": True, "known": len(roster.technicians), "suspended": suspended_persons(roster), "training": training}


def _technicians_text(data: dict[str, Any]) -> list[str]:
    if not data["ok"]:
        return [f"people {data['code']}: {data['message']}"]
    lines = []
    for row in data["suspended"]:
        reason = f": {row['reason']}" if row["reason"] else ""
        lines.append(f"people SUSPENDED {row['person']} since {row['since']}{reason}")
    for row in data["training"]:
        model = "every model" if row["model"] == "*" else row["model"]
        lines.append(f"people training of {row['name']} for {model} until {row['until']}")
    return lines


def _keys(invocation: Invocation) -> list[dict[str, Any]]:
    from devguard.cli.key import as_dict
    from devguard.custody.keyfile import read_info

    rows: list[dict[str, Any]] = []
    for path in invocation.home.private_keys():
        try:
            rows.append(as_dict(read_info(path)))
        except DevguardError as error:
            rows.append({"name": path.stem, "code": error.code})
    return rows


def _ports() -> list[dict[str, Any]]:
    from devguard.cli.line import answering
    from devguard.link.driver import list_ports

    return [{"port": port.device, "boot_state": state} for port, state in answering(list_ports())]


def _text(data: dict[str, Any]) -> str:
    trust = data["trust"]
    lines = [f"home   {data['home']}"]
    if trust["ok"]:
        kind = " (development)" if trust["development"] else ""
        lines.append(
            f"trust  version {trust['version']}{kind}, {trust['age_days']} d old, "
            f"{left(trust['days_left'] * 86_400)} left"
        )
    else:
        lines.append(f"trust  {trust['code']}: {trust['message']}")
    memory = data["memory"]
    if not memory["ok"]:
        lines.append(f"memory {memory['code']}: {memory['message']}")
    elif memory["latest"] is not None:
        lines.append(f"memory trust version {memory['trust_version']}, latest time {memory['latest']}")
    lines += _shelf_text(data["shelf"])
    lines += store_lines(data["store"])
    lines += _technicians_text(data["technicians"])
    lines += [f"grant  {kept_line(row)}" for row in data["grants"]]
    if not data["grants"]:
        lines.append("grant  none kept")
    lines += [f"key    {row['name']}: {row.get('alg', row.get('code'))} {row.get('role', '')}" for row in data["keys"]]
    lines += [f"port   {row['port']}: {row['boot_state'] or 'no device'}" for row in data["ports"]]
    return "\n".join(lines)

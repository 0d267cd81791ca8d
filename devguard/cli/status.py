"""`devguard status`: what can be done from this home now."""

from __future__ import annotations

from typing import Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.times import iso, left
from devguard.errors import DevguardError


@click.command(cls=Command)
@click.option("--no-ports", is_flag=True, help="Do not ask the serial ports.")
@click.pass_obj
def status(invocation: Invocation, no_ports: bool) -> None:
    """Show valid grants with minutes left, trust version and age, keys, and ports with devices."""
    now = invocation.now()
    data = {
        "home": str(invocation.home.path),
        "trust": _trust(invocation, now),
        "memory": _memory(invocation, now),
        "grants": _grants(invocation, now),
        "keys": _keys(invocation),
        "shelf": _shelf(invocation, now),
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


def _grants(invocation: Invocation, now: int) -> list[dict[str, Any]]:
    from devguard.cli.files import read_grant_file

    rows: list[dict[str, Any]] = []
    for path in invocation.home.grant_files():
        try:
            one = read_grant_file(path)
        except DevguardError as error:
            rows.append({"file": path.name, "code": error.code})
            continue
        rows.append(
            {
                "file": path.name,
                "technician": one.subject,
                "serials": sorted(one.scope.serials),
                "minutes_left": max(0, (one.expires - now) // 60),
            }
        )
    return rows


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
    for row in data["grants"]:
        if "code" in row:
            lines.append(f"grant  {row['file']}: {row['code']}")
        else:
            serials = ", ".join(row["serials"])
            lines.append(f"grant  {row['file']}: {row['technician']} on {serials}, {row['minutes_left']} min left")
    if not data["grants"]:
        lines.append("grant  none kept")
    lines += [f"key    {row['name']}: {row.get('alg', row.get('code'))} {row.get('role', '')}" for row in data["keys"]]
    lines += [f"port   {row['port']}: {row['boot_state'] or 'no device'}" for row in data["ports"]]
    return "\n".join(lines)

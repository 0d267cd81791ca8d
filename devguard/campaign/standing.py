"""How campaigns stand, as plain values: what `devguard campaign status --json` and the console show. Writes nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from devguard.campaign.advance import facts
from devguard.campaign.plan_file import plan_to_json
from devguard.campaign.state import Phase
from devguard.campaign.store import Campaign, counts, ring_facts
from devguard.evidence.export import rfc3339


def line(one: Campaign) -> dict[str, Any]:
    """One campaign among others."""
    release = f"{one.goal.model} {one.goal.version}"
    return {"campaign": one.name, "state": one.state.value, "release": release, "devices": one.devices}


def progress(conn: Connection, name: str) -> dict[str, int]:
    """How many devices of a campaign are in which phase."""
    total = dict.fromkeys((phase.value for phase in Phase), 0)
    for found in counts(conn, name).values():
        for phase, count in found.items():
            total[phase.value] += count
    return total


def standing(conn: Connection, one: Campaign, now: int) -> dict[str, Any]:
    """One campaign: its rings and their devices by phase, what stops it, when it goes on."""
    found, rings = counts(conn, one.name), ring_facts(conn, one)
    window, held = one.plan.window, facts(conn, one)
    opens = None if window is None else window.next_open(now)
    return {
        **line(one),
        "digest": one.goal.digest.hex(),
        "reason": one.reason,
        "changed": rfc3339(one.changed),
        "changed_by": one.changed_by,
        "rings": [
            {
                "name": ring.name,
                "opened": None if rings[at].opened is None else rfc3339(rings[at].opened or 0),
                "devices": rings[at].devices,
                **{phase.value: found.get(at, {}).get(phase, 0) for phase in Phase},
            }
            for at, ring in enumerate(one.plan.rings)
        ],
        "incidents": held.incidents,
        "window": None if window is None else {"hours": str(window), "open": window.is_open(now)},
        "next_open": None if opens is None else rfc3339(opens),
        "plan": plan_to_json(one.plan),
    }

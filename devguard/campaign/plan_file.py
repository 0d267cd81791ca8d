"""A plan as TOML, the file that people write and review: text to a checked `Plan`, and a plan as JSON and back.

Pure: it opens no file. Format: docs/campaigns.md. No value is converted and no unknown key is taken; where a field may
be absent, its default is the safer value.
"""

from __future__ import annotations

import re
import zoneinfo
from typing import Any, Final

from devguard.campaign.plan import LEASE, MAX_RINGS, TRIES, Chosen, Limit, Opening, Plan, Ring, StopRule
from devguard.campaign.windows import DAYS, Hours, Window
from devguard.errors import Malformed
from devguard.manifest import fields
from devguard.manifest.fields import Table, fail, load

MAX_LINE: Final = 65_536  # serial numbers may be many
MAX_COUNT: Final = 1_000_000
YEAR_MINUTES: Final = 525_600
DAY: Final = 86_400
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_LIMIT: Final = re.compile(r"[1-9]\d{0,5}|[1-9]\d?%|100%")
_LIMIT_HELP: Final = 'a count such as "3" or a share such as "5%"'
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
_KIND: Final = re.compile(r"[a-z][a-z-]{0,31}")
_KEYS: Final = {
    "": ("campaign", "ring", "stop", "window"),
    "campaign": ("name", "model", "release", "sites", "serials", "versions", "lease_seconds", "tries"),
    "ring": ("name", "sites", "serials", "share", "opens", "confirmed", "wait_minutes"),
    "stop": ("failures", "refusals", "incidents", "kinds"),
    "window": ("zone", "days", "hours"),
}


def parse_plan(text: bytes) -> Plan:
    """The plan in UTF-8 TOML `text`; `Malformed("campaign.malformed")`, which names the field."""
    try:
        return _plan(Table("", load(text, "a plan", MAX_LINE), _KEYS[""]))
    except Malformed as error:
        raise Malformed("campaign.malformed", error.message) from None


def _plan(top: Table) -> Plan:
    head = top.table("campaign", _KEYS["campaign"])
    rings = tuple(_ring(one, number) for number, one in enumerate(top.tables("ring", _KEYS["ring"], MAX_RINGS)))
    names = [ring.name for ring in rings]
    if len(set(names)) != len(names):
        raise fail("ring.name", "a name appears twice")
    return Plan(
        name=head.matching("name", fields.NAME, fields.NAME_HELP),
        chosen=Chosen(
            model=head.matching("model", fields.NAME, fields.NAME_HELP),
            sites=_labels(head, "sites"),
            serials=_labels(head, "serials"),
            versions=frozenset(head.names("versions", fields.SEMVER, "a semantic version such as 1.4.0")),
        ),
        rings=rings,
        stop=_stop(top.table("stop", _KEYS["stop"])),
        window=_window(top.table("window", _KEYS["window"])) if "window" in top.keys() else None,  # noqa: SIM118
        lease=head.integer("lease_seconds", 1, DAY, default=LEASE),
        tries=head.integer("tries", 1, 10, default=TRIES),
        release=head.text("release", 1024),
    )


def _labels(table: Table, key: str) -> frozenset[str]:
    return frozenset(table.names(key, fields.LABEL, fields.LABEL_HELP))


def _ring(table: Table, number: int) -> Ring:
    opens = table.choice("opens", ("person", "confirmed"), default="person")
    opening = None
    if opens == "confirmed":
        if number == 0:
            raise fail("ring.opens", "the first ring is opened by a person: there is none before it")
        wait = table.integer("wait_minutes", 0, YEAR_MINUTES) * 60
        opening = Opening(table.integer("confirmed", 1, MAX_COUNT), wait)
    elif {"confirmed", "wait_minutes"} & set(table.keys()):
        raise fail("ring.opens", 'confirmed and wait_minutes go with opens = "confirmed"')
    return Ring(
        name=table.matching("name", fields.NAME, fields.NAME_HELP),
        sites=_labels(table, "sites"),
        serials=_labels(table, "serials"),
        share=table.integer("share", 1, 100, default=100),
        opening=opening,
    )


def _stop(table: Table) -> StopRule:
    kinds = table.names("kinds", _KIND, "a kind of incident such as burst")
    found = {key: _limit(table, key) for key in ("failures", "refusals", "incidents")}
    return StopRule(kinds=frozenset(kinds), **found)


def _limit(table: Table, key: str) -> Limit | None:
    text = table.matching(key, _LIMIT, _LIMIT_HELP, default="")
    if not text:
        return None
    return Limit(percent=int(text[:-1])) if text.endswith("%") else Limit(count=int(text))


def _window(table: Table) -> Window:
    days = table.names("days", re.compile("|".join(DAYS)), f"one of {', '.join(DAYS)}") or DAYS
    hours = table.names("hours", _HOURS, 'hours such as "22:00-05:00"', required=True)
    name = table.matching("zone", _ZONE, "a time zone such as Europe/Berlin")
    try:
        zone = zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise fail("window.zone", f"no time zone {name!r} is known here") from None
    return Window(zone, frozenset(DAYS.index(day) for day in days), tuple(map(_hours, hours)))


def _hours(text: str) -> Hours:
    match = _HOURS.fullmatch(text)
    if match is None:
        raise fail("window.hours", f"{text!r} are no hours")
    start_hour, start, end_hour, end = map(int, match.groups())
    return Hours(start_hour * 60 + start, end_hour * 60 + end)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan in the shape of its file: what the store keeps and `status --json` shows."""
    chosen, stop = plan.chosen, plan.stop
    limits = {"failures": stop.failures, "refusals": stop.refusals, "incidents": stop.incidents}
    data: dict[str, Any] = {
        "campaign": {
            "name": plan.name,
            "model": chosen.model,
            "release": plan.release,
            "sites": sorted(chosen.sites),
            "serials": sorted(chosen.serials),
            "versions": sorted(chosen.versions),
            "lease_seconds": plan.lease,
            "tries": plan.tries,
        },
        "ring": [_ring_to_json(ring) for ring in plan.rings],
        "stop": {key: str(one) for key, one in limits.items() if one is not None} | {"kinds": sorted(stop.kinds)},
    }
    if plan.window is not None:
        window = plan.window
        days = [DAYS[day] for day in sorted(window.days)]
        data["window"] = {"zone": window.zone.key, "days": days, "hours": [str(one) for one in window.hours]}
    return data


def _ring_to_json(ring: Ring) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": ring.name,
        "sites": sorted(ring.sites),
        "serials": sorted(ring.serials),
        "share": ring.share,
    }
    opening = ring.opening
    if opening is None:
        return data | {"opens": "person"}
    return data | {"opens": "confirmed", "confirmed": opening.confirmed, "wait_minutes": opening.wait // 60}


def plan_from_json(data: object) -> Plan:
    """The plan that `plan_to_json` gave, checked again; `Malformed("campaign.malformed")`."""
    if not isinstance(data, dict):
        raise Malformed("campaign.malformed", "the plan that is kept is none")
    try:
        return _plan(Table("", data, _KEYS[""]))
    except Malformed as error:
        raise Malformed("campaign.malformed", error.message) from None

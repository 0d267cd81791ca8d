"""Records as lines for other systems: JSON Lines, ArcSight CEF, OCSF events. Pure: an entry in, one line out.

What people type in or name (file names, reasons, work orders, the text of an error, which quotes them) may hold a
patient's name, and stays in the log: `shared` gives names of details whose values devguard itself makes, and says by
name what it withheld. The leaf hash in every line ties it to the record, which a proof shows whole.
Sources: RFC 3339; RFC 5424; ArcSight "Common Event Format" rev. 25; OCSF 1.3.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from devguard.errors import CODES
from devguard.evidence.record import SET_BACK, Entry, Record, encode_entry
from devguard.evidence.tree import leaf_hash

OCSF_VERSION: Final = "1.3.0"
_MADE: Final = frozenset(
    f"""{SET_BACK} clock sessions version protocol device-checks device-left trial dry-run since effect events
    removed-bytes removed-sha256 dropped records grants request keys format kind subject window decision lines
    technician second-technician""".split()
)
"""Details whose values devguard makes: numbers, digests, ids, words of its own, names of staff."""
_MADE_BEGINNINGS: Final = ("image-", "changed-", "section-")
_ALARMING: Final = ("log.", "session.tampered", "session.replay", "signature.", "device.changed", "device.log", "key.")
_HEADER: Final = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": " ", "\r": " "})
_EXTENSION: Final = str.maketrans({"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"})
_AUDIT: Final = 13 * 8  # syslog facility "log audit"; severities 4 warning, 6 informational


@dataclass(frozen=True, slots=True)
class Shared:
    """Of a record's details what may leave the station, and the names of what stays."""

    details: Mapping[str, str]
    withheld: tuple[str, ...]


def shared(record: Record) -> Shared:
    """The details of `record`, parted."""
    kept = {name: text for name, text in record.details.items() if _is_made(name)}
    return Shared(MappingProxyType(kept), tuple(sorted(record.details.keys() - kept.keys())))


def _is_made(name: str) -> bool:
    return name in _MADE or name.startswith(_MADE_BEGINNINGS)


def rfc3339(seconds: int) -> str:
    """Epoch seconds as RFC 3339 in UTC; beyond the year 9999, which it cannot say, the last moment of that year."""
    return datetime.fromtimestamp(min(seconds, 253_402_300_799), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def severity(record: Record) -> int:
    """Informational 1, medium 3 (a refusal), high 4 (one that nobody causes by mistake, or an incident); OCSF."""
    if record.action in ("incident.open", "incident.new"):
        return 4
    if record.code is None:
        return 1
    return 4 if record.code.startswith(_ALARMING) else 3


def excerpt(entry: Entry) -> dict[str, Any]:
    """An entry as plain values, without what people typed: place, leaf hash, time and the record's fields."""
    record = entry.record
    parted = shared(record)
    plain = record.to_json()
    return {
        "index": entry.index,
        "leaf": leaf_hash(encode_entry(entry)).hex(),
        **plain,
        "time": rfc3339(record.time),
        "details": dict(parted.details),
        "withheld": list(parted.withheld),
    }


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log it is (its origin line), and the version of devguard that exports it."""

    origin: str
    version: str


def json_line(entry: Entry, source: Source) -> str:
    """One JSON object."""
    return _json({"log": source.origin, **excerpt(entry)})


def cef_line(entry: Entry, source: Source) -> str:
    """One CEF event, version 0."""
    record, plain = entry.record, excerpt(entry)
    name = record.action if record.code is None else f"{record.action} refused"
    head = ["CEF:0", "devguard", "devguard", source.version, record.code or record.action, name]
    pairs = {
        "rt": str(record.time * 1000),
        "suser": record.actor,
        "act": record.action,
        "outcome": "success" if record.ok else "failure",
        "reason": record.code,
        "deviceExternalId": record.device,
        "externalId": str(entry.index),
        "cs1Label": None if record.release is None else "release",
        "cs1": record.release,
        "cs2Label": "request",
        "cs2": record.request,
        "cs3Label": "leaf",
        "cs3": plain["leaf"],
        "cs4Label": "log",
        "cs4": source.origin,
        "fileHash": plain["digests"].get("manifest"),
        "msg": "; ".join(f"{one}: {text}" for one, text in plain["details"].items()) or None,
    }
    told = " ".join(f"{key}={text.translate(_EXTENSION)}" for key, text in pairs.items() if text is not None)
    fields = [part.translate(_HEADER) for part in head]
    return "|".join([*fields, str({1: 2, 3: 6, 4: 9}[severity(record)]), told])


def syslog_line(entry: Entry, source: Source) -> str:
    """The same behind a syslog header of RFC 5424; the host is the log."""
    level = 6 if severity(entry.record) == 1 else 4
    host = source.origin.replace("/", "-")
    return f"<{_AUDIT + level}>1 {rfc3339(entry.record.time)} {host} devguard - - - {cef_line(entry, source)}"


# OCSF


@dataclass(frozen=True, slots=True)
class _Class:
    """category_uid, class_uid and activity_id of an OCSF event."""

    category: int
    uid: int
    activity: int
    name: str


_CLASSES: Final[tuple[tuple[str, _Class], ...]] = (
    ("release.push", _Class(6, 6002, 8, "Update")),  # Application Lifecycle
    ("device.recover", _Class(6, 6002, 8, "Update")),
    ("device.", _Class(5, 5001, 2, "Collect")),  # Device Inventory Info
    ("grant.revoke", _Class(3, 3005, 2, "Revoke Privileges")),  # User Access Management
    ("technician.suspend", _Class(3, 3005, 2, "Revoke Privileges")),
    ("grant.", _Class(3, 3005, 1, "Assign Privileges")),
    ("technician.", _Class(3, 3005, 99, "Other")),
    ("incident.release", _Class(2, 2005, 3, "Close")),  # Incident Finding
    ("incident.export", _Class(2, 2005, 2, "Update")),
    ("incident.", _Class(2, 2005, 1, "Create")),
)
_BASE: Final = _Class(0, 0, 99, "Other")


def _class_of(record: Record) -> _Class:
    found = next((one for start, one in _CLASSES if record.action.startswith(start)), _BASE)
    # A device that never named itself is no inventory; the schema demands one.
    return _BASE if found.uid == 5001 and record.device is None else found


def ocsf_line(entry: Entry, source: Source) -> str:
    """One OCSF event as a JSON object."""
    record, plain = entry.record, excerpt(entry)
    kind = _class_of(record)
    event: dict[str, Any] = {
        "activity_id": kind.activity,
        "activity_name": kind.name,
        "category_uid": kind.category,
        "class_uid": kind.uid,
        "type_uid": kind.uid * 100 + kind.activity,
        "time": record.time * 1000,
        "severity_id": severity(record),
        "status_id": 1 if record.ok else 2,
        "message": record.action,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "devguard", "vendor_name": "devguard", "version": source.version},
            "uid": plain["leaf"],
            "log_name": source.origin,
            "sequence": entry.index,
            "correlation_uid": record.request,
        },
        "actor": {"user": {"name": record.actor}},
        "observables": _observables(record, plain),
        "unmapped": {"digests": plain["digests"], "details": plain["details"], "withheld": plain["withheld"]},
    }
    if record.code is not None:
        event["status_code"] = record.code
        known = CODES.get(record.code)
        event["status_detail"] = known.cause if known is not None else "a code of a newer devguard"
    if record.device is not None:
        event["device"] = {"type_id": 99, "type": "medical device", "uid": record.device}
    return _json({**event, **_of_class(kind.uid, record)})


def _of_class(uid: int, record: Record) -> dict[str, Any]:
    """What a class demands beyond the base event."""
    if uid == 6002:
        model, _, version = (record.release or "unknown").rpartition(" ")
        return {"app": {"name": model or version, "vendor_name": "unknown", "version": version}}
    if uid == 3005:
        return {"user": {"name": record.details.get("technician", record.actor)}, "privileges": [record.action]}
    if uid == 2005:
        closed = record.action == "incident.release" and record.ok
        title = f"incident {record.details.get('kind', 'manual')}"
        return {"status_id": 4 if closed else 1, "finding_info_list": [{"uid": record.request, "title": title}]}
    return {}


def _observables(record: Record, plain: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [{"name": "actor.user.name", "type": "User Name", "type_id": 4, "value": record.actor}]
    if record.device is not None:
        found.append({"name": "device.uid", "type": "Resource UID", "type_id": 10, "value": record.device})
    found += [
        {"name": f"unmapped.digests.{name}", "type": "Hash", "type_id": 8, "value": digest}
        for name, digest in plain["digests"].items()
    ]
    return found


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


LINES: Final[Mapping[str, Callable[[Entry, Source], str]]] = MappingProxyType(
    {"jsonl": json_line, "cef": cef_line, "ocsf": ocsf_line}
)

"""Snapshots of what is known to be broken: CISA's catalogue of known exploited vulnerabilities, and OSV records.

A snapshot is a file that a person brings; it is dated by its own content and named by its SHA-256, so that a verdict
can say by which knowledge it was reached, and refuses when that knowledge is stale. Nothing is fetched here.
Source: CISA KEV JSON schema (catalogVersion, dateReleased, vulnerabilities[]); OSV schema 1.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from devguard.errors import Malformed, Refused
from devguard.sbom.dates import epoch
from devguard.sbom.documents import list_of, object_of, read_value, text_of

CODE: Final = "sbom.snapshot"
MAX_SNAPSHOT: Final = 256 << 20
MAX_ENTRIES: Final = 500_000
MAX_AGE: Final = 30 * 86_400
AHEAD: Final = 86_400
"""Seconds that a snapshot's date may lie ahead of this clock: time zones, not the future."""


@dataclass(frozen=True, slots=True)
class Exploited:
    """One row of the catalogue: what was exploited, by name of vendor and product."""

    cve: str
    vendor: str
    product: str
    title: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Known exploited vulnerabilities by CVE id. `released`: epoch seconds; `digest`: SHA-256 of the file."""

    digest: bytes
    released: int
    version: str
    entries: Mapping[str, Exploited]


@dataclass(frozen=True, slots=True)
class Affected:
    """What one record says of one package: its purl or ecosystem and name, versions by name, ranges as (type, events).
    An event is (kind, version) with kind introduced, fixed, last_affected or limit."""

    purl: str | None
    ecosystem: str
    name: str
    versions: frozenset[str]
    ranges: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class Advisory:
    """One OSV record. `aliases`: its other names, CVE ids among them."""

    id: str
    aliases: tuple[str, ...]
    summary: str
    affected: tuple[Affected, ...]


@dataclass(frozen=True, slots=True)
class Advisories:
    """OSV records. `released`: the newest `modified` among them, epoch seconds; `digest`: SHA-256 of the file."""

    digest: bytes
    released: int
    entries: tuple[Advisory, ...]


def read_catalogue(data: bytes) -> Catalogue:
    """CISA's catalogue in JSON. `Malformed("sbom.snapshot")` for anything else, and for one cut short: its own count
    has to be met."""
    what = "the catalogue of known exploited vulnerabilities"
    document = object_of(read_value(data, limit=MAX_SNAPSHOT, code=CODE, what=what), what, code=CODE, what=what)
    rows = list_of(document.get("vulnerabilities"), "vulnerabilities", code=CODE, what=what, most=MAX_ENTRIES)
    if "vulnerabilities" not in document or document.get("count") != len(rows):
        raise Malformed(CODE, f"{what} does not hold as many entries as it counts")
    entries: dict[str, Exploited] = {}
    for row in rows:
        one = object_of(row, "an entry", code=CODE, what=what)
        texts = {
            name: text_of(one.get(key), key, code=CODE, what=what)
            for name, key in (("cve", "cveID"), ("vendor", "vendorProject"), ("product", "product"))
        }
        entries[texts["cve"]] = Exploited(**texts, title=str(one.get("vulnerabilityName", ""))[:256])
    if len(entries) != len(rows):
        raise Malformed(CODE, f"{what} lists one CVE twice")
    released = epoch(text_of(document.get("dateReleased"), "dateReleased", code=CODE, what=what), code=CODE, what=what)
    version = text_of(document.get("catalogVersion"), "catalogVersion", code=CODE, what=what)
    return Catalogue(hashlib.sha256(data).digest(), released, version, entries)


def read_advisories(data: bytes) -> Advisories:
    """OSV records: one, a list of them, or an object with a list `vulns`. `Malformed("sbom.snapshot")` otherwise."""
    what = "the OSV file"
    value: Any = read_value(data, limit=MAX_SNAPSHOT, code=CODE, what=what)
    if isinstance(value, dict):
        value = value.get("vulns", [value])
    rows = list_of(value, "vulns", code=CODE, what=what, most=MAX_ENTRIES)
    if not rows:
        raise Malformed(CODE, f"{what} holds no record, so nothing says how old it is")
    entries, newest = [], 0
    for row in rows:
        one = object_of(row, "a record", code=CODE, what=what)
        modified = text_of(one.get("modified"), "modified", code=CODE, what=what)
        newest = max(newest, epoch(modified, code=CODE, what=what))
        if one.get("withdrawn") is None:
            entries.append(_advisory(one, what))
    return Advisories(hashlib.sha256(data).digest(), newest, tuple(entries))


def _advisory(one: dict[str, Any], what: str) -> Advisory:
    name = text_of(one.get("id"), "id", code=CODE, what=what)
    aliases = list_of(one.get("aliases"), "aliases", code=CODE, what=what, most=256)
    affected = list_of(one.get("affected"), "affected", code=CODE, what=what, most=4096)
    return Advisory(
        id=name,
        aliases=tuple(text_of(alias, "an alias", code=CODE, what=what) for alias in aliases),
        summary=str(one.get("summary", ""))[:256],
        affected=tuple(_affected(object_of(entry, "affected", code=CODE, what=what), what) for entry in affected),
    )


def _affected(one: dict[str, Any], what: str) -> Affected:
    package = object_of(one.get("package"), "package", code=CODE, what=what)
    versions = list_of(one.get("versions"), "versions", code=CODE, what=what, most=MAX_ENTRIES)
    ranges = list_of(one.get("ranges"), "ranges", code=CODE, what=what, most=4096)
    purl = package.get("purl")
    return Affected(
        purl=purl if isinstance(purl, str) else None,
        ecosystem=str(package.get("ecosystem", "")),
        name=str(package.get("name", "")),
        versions=frozenset(text_of(version, "a version", code=CODE, what=what) for version in versions),
        ranges=tuple(_range(object_of(entry, "a range", code=CODE, what=what), what) for entry in ranges),
    )


def _range(one: dict[str, Any], what: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    kind = text_of(one.get("type"), "a range's type", code=CODE, what=what)
    events = []
    for entry in list_of(one.get("events"), "events", code=CODE, what=what, most=4096):
        event = object_of(entry, "an event", code=CODE, what=what)
        if len(event) != 1:
            raise Malformed(CODE, f"{what}: an event says {len(event)} things, not one")
        ((word, version),) = event.items()
        events.append((word, text_of(version, "an event's version", code=CODE, what=what)))
    return kind, tuple(events)


def check_fresh(name: str, released: int, now: int, max_age: int = MAX_AGE) -> str:
    """Why a snapshot is fresh enough at `now`, or `Refused("sbom.stale")`: older than `max_age` seconds, or of a day
    that has not come yet."""
    if released > now + AHEAD:
        days = (released - now) // 86_400
        raise Refused("sbom.stale", f"{name} is dated {days} days ahead of this clock: one of the two is wrong")
    age = max(0, now - released)
    if age > max_age:
        raise Refused("sbom.stale", f"{name} is {age // 86_400} days old; at most {max_age // 86_400} are taken")
    return f"{name}, {age // 86_400} day(s) old"

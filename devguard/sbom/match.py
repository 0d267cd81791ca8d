"""Which known holes touch which parts. Where nobody can tell, a part counts as touched: a person has to say it is not.

Package URLs are compared without version, qualifiers and subpath; versions by name first, then by ranges. Only the
order of SEMVER ranges is known here; of every other range without versions by name the answer is "may be touched".
Source: OSV schema 1.7, "Evaluation"; package-url specification; Semantic Versioning 2.0.0 section 11; NISTIR 7695.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from devguard.sbom.bom import Bill, Part
from devguard.sbom.snapshot import Advisories, Advisory, Affected, Catalogue

ECOSYSTEMS: Final = {
    "pypi": "PyPI",
    "npm": "npm",
    "cargo": "crates.io",
    "golang": "Go",
    "maven": "Maven",
    "nuget": "NuGet",
    "gem": "RubyGems",
    "composer": "Packagist",
    "hex": "Hex",
    "deb": "Debian",
    "apk": "Alpine",
    "conan": "ConanCenter",
}
_SEMVER: Final = re.compile(
    r"v?(0|[1-9]\d{0,17})(?:\.(0|[1-9]\d{0,17}))?(?:\.(0|[1-9]\d{0,17}))?(?:-([0-9A-Za-z.-]{1,64}))?(?:\+[0-9A-Za-z.-]{1,64})?"
)
_OTHER: Final = re.compile(r"[^a-z0-9]+")
Order = tuple[int, int, int, tuple[tuple[int, int, str], ...]]


@dataclass(frozen=True, slots=True)
class Hole:
    """One hole that touches, or may touch, one part. `names`: its id and every alias; `exploited`: the CVE by which the
    catalogue of known exploited ones lists it, or None; `why`: how it was found, for people."""

    id: str
    names: frozenset[str]
    part: Part
    exploited: str | None
    why: str


def holes(bill: Bill, catalogue: Catalogue, advisories: Iterable[Advisories] = ()) -> tuple[Hole, ...]:
    """Every hole of `bill` that the snapshots or the bill itself know, each once for each part, by name of the hole."""
    found: dict[tuple[str, str], Hole] = {}
    for hole in (*_by_name(bill, catalogue), *_by_record(bill, advisories, catalogue), *_stated(bill, catalogue)):
        known = next((found[name, hole.part.ref] for name in hole.names if (name, hole.part.ref) in found), None)
        merged = hole if known is None else _merged(known, hole)
        found |= {(name, hole.part.ref): merged for name in merged.names}
    once = {(one.id, one.part.ref): one for one in found.values()}
    return tuple(sorted(once.values(), key=lambda one: (one.exploited is None, one.id, one.part.ref)))


def _merged(known: Hole, again: Hole) -> Hole:
    """One hole under all its names: two records of it are not two holes, and what either knows counts."""
    return replace(known, names=known.names | again.names, exploited=known.exploited or again.exploited)


def _by_name(bill: Bill, catalogue: Catalogue) -> Iterator[Hole]:
    """The catalogue names vendor and product, not versions: whatever bears the name may be touched."""
    rows = defaultdict(list)
    for row in catalogue.entries.values():
        rows[_folded(row.product)].append(row)
        rows[_folded(f"{row.vendor} {row.product}")].append(row)
    for part in bill.parts:
        vendors, products = _names(part)
        for row in {row.cve: row for product in sorted(products) for row in rows.get(product, ())}.values():
            whole = _folded(f"{row.vendor} {row.product}") in products
            if whole or not vendors or _folded(row.vendor) in vendors:
                why = f"the catalogue lists {row.vendor} {row.product}"
                yield Hole(row.cve, frozenset({row.cve}), part, row.cve, why)


def _names(part: Part) -> tuple[set[str], set[str]]:
    """The names of who makes a part, and of the part."""
    vendors, products = {_folded(part.supplier)}, {_folded(part.name), _folded(f"{part.supplier} {part.name}")}
    fields = re.split(r"(?<!\\):", part.cpe or "")
    if len(fields) > 4 and fields[0] == "cpe":
        start = 3 if fields[1] == "2.3" else 2
        vendors.add(_folded(fields[start]))
        products |= {_folded(fields[start + 1]), _folded(f"{fields[start]} {fields[start + 1]}")}
    return vendors - {""}, products - {""}


def _folded(name: str) -> str:
    return _OTHER.sub("", name.lower())


def _by_record(bill: Bill, advisories: Iterable[Advisories], catalogue: Catalogue) -> Iterator[Hole]:
    packages = defaultdict(list)
    for part in bill.parts:
        for key in _keys(part):
            packages[key].append(part)
    for advisory in (one for file in advisories for one in file.entries):
        for affected in advisory.affected:
            touched = {part.ref: part for key in _keys_of(affected) for part in packages.get(key, ())}
            for part in touched.values():
                why = touches(affected, part.version)
                if why is not None:
                    yield _hole(advisory, part, catalogue, why)


def _hole(advisory: Advisory, part: Part, catalogue: Catalogue, why: str) -> Hole:
    names = frozenset({advisory.id, *advisory.aliases})
    exploited = next((name for name in sorted(names) if name in catalogue.entries), None)
    return Hole(advisory.id, names, part, exploited, f"{advisory.id}: {why}")


def _stated(bill: Bill, catalogue: Catalogue) -> Iterator[Hole]:
    parts = {part.ref: part for part in bill.parts}
    for name, refs in bill.stated:
        exploited = name if name in catalogue.entries else None
        for ref in refs:
            if ref in parts:
                yield Hole(name, frozenset({name}), parts[ref], exploited, "the bill of materials names it")


def _keys(part: Part) -> set[str]:
    kind, name = _package(part.purl) if part.purl else ("", "")
    return {f"{kind}/{name}", f"{ECOSYSTEMS.get(kind, '')}/{name}"} - {"/"} if name else set()


def _keys_of(affected: Affected) -> set[str]:
    kind, name = _package(affected.purl) if affected.purl else ("", "")
    keys = {f"{kind}/{name}"} if name else set()
    if affected.name:
        ecosystem = affected.ecosystem.split(":")[0]
        keys.add(f"{ecosystem}/{affected.name if ecosystem != 'PyPI' else _pypi(affected.name)}")
    return keys


def _package(purl: str) -> tuple[str, str]:
    """Type and full name of a package URL; ("", "") for what is none."""
    if not purl.lower().startswith("pkg:"):
        return "", ""
    path = purl[4:].split("?")[0].split("#")[0].lstrip("/")
    head, at, version = path.rpartition("@")
    path = head if at and "/" not in version else path
    kind, _, name = path.partition("/")
    kind, name = kind.lower(), unquote(name.strip("/"))
    return kind, _pypi(name) if kind == "pypi" else name.replace("/", ":") if kind == "maven" else name


def _pypi(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def touches(affected: Affected, version: str) -> str | None:
    """Why `version` is, or may be, one that a record means; None when it is not."""
    if version in affected.versions:
        return f"version {version} is listed"
    if not version:
        return "the part has no version"
    ordered = [events for kind, events in affected.ranges if kind == "SEMVER"]
    others = [kind for kind, _ in affected.ranges if kind != "SEMVER"]
    order = semver(version)
    for events in ordered:
        if order is None:
            return f"{version!r} has no place in a range of semantic versions"
        if _inside(order, events) is not False:
            return f"version {version} is in a listed range"
    if others and not affected.versions:
        return f"a range of kind {others[0]} is listed, whose order is not known here"
    if not affected.ranges and not affected.versions:
        return "every version is meant"
    return None


def _inside(order: Order, events: Iterable[tuple[str, str]]) -> bool | None:
    """Whether a version is inside a range; None when an event's own version has no order.

    Events are taken in the order of their versions: introduced opens, fixed closes, last_affected closes behind itself.
    """
    placed = []
    for kind, text in events:
        at: Order | None = (0, 0, 0, ((-1, 0, ""),)) if text == "0" else semver(text)
        if at is None:
            if kind == "limit" and text == "*":
                continue
            return None
        placed.append((at, kind))
    inside = False
    for at, kind in sorted(placed, key=lambda one: one[0]):
        if kind == "introduced" and order >= at:
            inside = True
        elif (kind in ("fixed", "limit") and order >= at) or (kind == "last_affected" and order > at):
            inside = False
    return inside


def semver(text: str) -> Order | None:
    """A key that orders semantic versions, or None for what is none. Missing numbers are 0, a leading v is taken."""
    match = _SEMVER.fullmatch(text)
    if match is None:
        return None
    major, minor, patch = (int(number or 0) for number in match.group(1, 2, 3))
    if match.group(4) is None:
        return major, minor, patch, ((1, 0, ""),)
    words = match.group(4).split(".")
    # Numbers sort below words, and fewer fields below more with the same beginning.
    return (
        major,
        minor,
        patch,
        (
            (0, 0, ""),
            *((0, int(word), "") if word.isdigit() else (1, 0, word) for word in words),
        ),
    )

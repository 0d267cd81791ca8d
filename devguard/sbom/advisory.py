"""A security advisory on a release, begun: what is known is filled in, what people have to say is marked.

CSAF 2.0 (OASIS standard, section 4.4, profile "security advisory"), status draft. A product is a release; its id is the
manifest digest, so that an advisory and a verdict speak of the same thing. Each finding becomes a vulnerability with
the status that a signed statement gives it; one that nobody has stated is under investigation. Pure: bytes, keys and
the clock are the caller's.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard.sbom.judge import Finding
from devguard.sbom.vex import Status

_CVE: Final = re.compile(r"CVE-[0-9]{4}-[0-9]{4,}")
TO_WRITE: Final = "TO BE WRITTEN"
"""Stands wherever a person has to say something before the advisory goes out."""
_ORDER: Final = (Status.AFFECTED, Status.UNDER_INVESTIGATION, Status.FIXED, Status.NOT_AFFECTED)
_PRODUCT_STATUS: Final[Mapping[Status, str]] = {
    Status.NOT_AFFECTED: "known_not_affected",
    Status.AFFECTED: "known_affected",
    Status.FIXED: "fixed",
    Status.UNDER_INVESTIGATION: "under_investigation",
}


@dataclass(frozen=True, slots=True)
class Product:
    """The release an advisory is about. `images`: file name -> SHA-256, as hexadecimal."""

    vendor: str
    model: str
    version: str
    manifest_digest: bytes
    images: Mapping[str, str]

    @property
    def id(self) -> str:
        """The product id: the manifest digest in hexadecimal."""
        return self.manifest_digest.hex()


def advisory(
    product: Product,
    findings: Sequence[Finding],
    *,
    identifier: str,
    namespace: str,
    title: str | None,
    now: int,
    version: str,
) -> dict[str, Any]:
    """The CSAF document as JSON values. `namespace`: the publisher's address; `version`: of this program; `now`: epoch
    seconds."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = f"{product.vendor} {product.model} {product.version}"
    holes = _by_hole(findings)
    shown = ", ".join(sorted(_cve(hole) or hole for hole in holes)) or "no vulnerability that is known"
    told = {"vulnerabilities": [_vulnerability(hole, told, product) for hole, told in sorted(holes.items())]}
    return {
        "document": {
            "category": _category(holes),
            "csaf_version": "2.0",
            "distribution": {"tlp": {"label": "AMBER"}},
            "lang": "en",
            "notes": [
                {"category": "summary", "title": "Summary", "text": f"{name}: {shown}. {TO_WRITE}: what it means."},
                {"category": "general", "title": "Recommendation", "text": f"{TO_WRITE}: what a hospital does now."},
            ],
            "publisher": {"category": "vendor", "name": product.vendor, "namespace": namespace},
            "title": title or f"{name}: {shown}",
            "tracking": {
                "current_release_date": moment,
                "generator": {"date": moment, "engine": {"name": "devguard", "version": version}},
                "id": identifier,
                "initial_release_date": moment,
                "revision_history": [{"date": moment, "number": "1", "summary": "Draft made from the release."}],
                "status": "draft",
                "version": "1",
            },
        },
        "product_tree": {"branches": [_tree(product, name)]},
        **(told if holes else {}),
    }


def _category(holes: Mapping[str, list[Finding]]) -> str:
    """The profile (section 4): a security advisory is for what is known for certain; VEX takes open questions too."""
    if not holes:
        return "csaf_base"
    open_questions = any(_worst(told)[1] is Status.UNDER_INVESTIGATION for told in holes.values())
    return "csaf_vex" if open_questions else "csaf_security_advisory"


def _by_hole(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for one in findings:
        found.setdefault(one.hole.id, []).append(one)
    return found


def _tree(product: Product, name: str) -> dict[str, Any]:
    """Vendor, product name, product version: the release is the leaf."""
    files = [
        {"file_hashes": [{"algorithm": "sha256", "value": digest}], "filename": file}
        for file, digest in sorted(product.images.items())
    ]
    leaf: dict[str, Any] = {"name": name, "product_id": product.id}
    if files:
        leaf["product_identification_helper"] = {"hashes": files}
    version = {"category": "product_version", "name": product.version, "product": leaf}
    model = {"branches": [version], "category": "product_name", "name": product.model}
    return {"branches": [model], "category": "vendor", "name": product.vendor}


def _cve(hole: str, names: Sequence[str] = ()) -> str | None:
    return next((one for one in (hole, *sorted(names)) if _CVE.fullmatch(one)), None)


def _vulnerability(hole: str, told: list[Finding], product: Product) -> dict[str, Any]:
    """One vulnerability. Of several parts with different statuses the worst is the product's."""
    worst, status = _worst(told)
    cve = _cve(hole, sorted(worst.hole.names))
    parts = ", ".join(sorted(one.hole.part.label for one in told))
    said = worst.statement.note if worst.statement is not None else ""
    made: dict[str, Any] = {
        "notes": [{"category": "description", "title": "Parts", "text": f"{parts}: {worst.hole.why}"}],
        "product_status": {_PRODUCT_STATUS[status]: [product.id]},
    }
    made |= {"cve": cve} if cve is not None else {"ids": [{"system_name": "OSV", "text": hole}]}
    if worst.hole.exploited is not None:
        listed = "Listed as known to be exploited."
        made["threats"] = [{"category": "exploit_status", "details": listed, "product_ids": [product.id]}]
    if status is Status.NOT_AFFECTED and worst.statement is not None and worst.statement.justification is not None:
        made["flags"] = [{"label": worst.statement.justification.word, "product_ids": [product.id]}]
        impact = {"category": "impact", "details": said or parts, "product_ids": [product.id]}
        made["threats"] = [*made.get("threats", []), impact]
    if status is Status.FIXED:
        details = said or "Fixed in this release."
        made["remediations"] = [{"category": "vendor_fix", "details": details, "product_ids": [product.id]}]
    if status is Status.AFFECTED:
        details = f"{said} {TO_WRITE}: when a fixed release comes, and what to do until then.".strip()
        made["remediations"] = [{"category": "none_available", "details": details, "product_ids": [product.id]}]
    return made


def _worst(told: list[Finding]) -> tuple[Finding, Status]:
    worst = min(told, key=lambda one: _ORDER.index(_status(one)))
    return worst, _status(worst)


def _status(one: Finding) -> Status:
    return one.statement.status if one.statement is not None else Status.UNDER_INVESTIGATION

"""Bills of materials and snapshots of known holes, made for tests."""

from __future__ import annotations

import json
from typing import Any

RELEASED = "2026-11-20T12:00:00Z"
RELEASED_AT = 1_795_176_000


def component(name: str, version: str, **more: Any) -> dict[str, Any]:
    """One CycloneDX component; `purl` and `cpe` as given."""
    return {"type": "library", "bom-ref": f"{name}-ref", "name": name, "version": version, **more}


def bill(*components: dict[str, Any], **more: Any) -> bytes:
    """A CycloneDX 1.6 bill of a pump's firmware."""
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
        "version": 1,
        "metadata": {"component": {"type": "firmware", "bom-ref": "fw", "name": "pump-firmware", "version": "1.1.0"}},
        "components": list(components),
        **more,
    }
    return json.dumps(document).encode()


def catalogue(*rows: tuple[str, str, str], released: str = RELEASED) -> bytes:
    """CISA's catalogue with rows of CVE, vendor and product."""
    entries = [
        {
            "cveID": cve,
            "vendorProject": vendor,
            "product": product,
            "vulnerabilityName": f"{product} hole",
            "dateAdded": "2026-01-01",
            "shortDescription": "a hole",
            "requiredAction": "apply updates",
            "dueDate": "2026-02-01",
        }
        for cve, vendor, product in rows
    ]
    document = {"title": "KEV", "catalogVersion": "2026.11.20", "dateReleased": released, "count": len(entries)}
    return json.dumps({**document, "vulnerabilities": entries}).encode()


def record(name: str, *affected: dict[str, Any], aliases: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """One OSV record."""
    base = {"schema_version": "1.7.0", "id": name, "modified": RELEASED, "aliases": list(aliases)}
    return {**base, "affected": list(affected), **more}


def affected(
    purl: str, *events: dict[str, str], kind: str = "SEMVER", versions: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What a record says of one package."""
    ranges = [{"type": kind, "events": list(events)}] if events else []
    return {"package": {"ecosystem": "", "name": "", "purl": purl}, "ranges": ranges, "versions": list(versions)}


def osv(*records: dict[str, Any]) -> bytes:
    """OSV records in one file."""
    return json.dumps({"vulns": list(records)}).encode()

"""A trust document as plain data, for `trust show` and `inspect`. Public facts only; nothing is judged here."""

from __future__ import annotations

from datetime import UTC, datetime

from devguard.trust.model import KeyEntry, TrustDocument
from devguard.trust.quorum import Quorum


def as_dict(doc: TrustDocument, root: Quorum | None = None) -> dict[str, object]:
    """JSON-ready facts of `doc`: times as ISO 8601 UTC, keys by thumbprint in hexadecimal.

    With `root` (see `peek_trust`) the state of the root signatures is added under "signed".
    """
    shown: dict[str, object] = {
        "version": doc.version,
        "digest": doc.digest.hex(),
        "issued": iso(doc.issued),
        "expires": iso(doc.expires),
        "development": doc.development,
        "roles": {
            str(name): {"threshold": role.threshold, "keys": [_key(doc, entry) for entry in role.keys]}
            for name, role in doc.roles.items()
        },
        "revoked_keys": sorted(item.hex() for item in doc.revoked),
        "floors": dict(doc.floors),
        "max_step": doc.max_step,
        "revoked_releases": sorted(item.hex() for item in doc.revoked_releases),
        "kept_releases": sorted(item.hex() for item in doc.kept_releases),
        "grant_epoch": doc.grant_epoch,
        "require_device_nonce": doc.require_device_nonce,
        "require_sbom": doc.require_sbom,
    }
    if root is not None:
        shown["signed"] = {"enough": bool(root), "persons": list(root.persons), "missing": root.missing}
    return shown


def _key(doc: TrustDocument, entry: KeyEntry) -> dict[str, object]:
    return {
        "person": entry.person,
        "thumbprint": entry.thumbprint.hex(),
        "alg": entry.key.algorithm.label,
        "development": entry.development,
        "not_before": None if entry.not_before is None else iso(entry.not_before),
        "not_after": None if entry.not_after is None else iso(entry.not_after),
        "revoked": doc.is_revoked(entry.thumbprint),
    }


def iso(seconds: int) -> str:
    """Epoch seconds as ISO 8601 in UTC, for example 2030-01-01T00:00:00Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""How fresh a kept shelf is, read from what was verified when it was stored. No signature is checked here and no
heavy package imported: `devguard status` shows it, nothing is decided by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from devguard.errors import Malformed

ISSUED: Final = "x-devguard-issued"
TOP: Final = ("root", "targets", "snapshot", "timestamp")
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Freshness:
    """Epoch seconds UTC. `issued`: when the vendor's online key last spoke, None where it does not say;
    `expires`: the first end among root, targets, snapshot and timestamp."""

    version: int
    issued: int | None
    expires: int
    root_version: int

    def as_dict(self, now: int) -> dict[str, Any]:
        """For JSON."""
        return {
            "version": self.version,
            "root_version": self.root_version,
            "issued": self.issued,
            "expires": self.expires,
            "age_seconds": None if self.issued is None else max(0, now - self.issued),
            "seconds_left": max(0, self.expires - now),
            "fresh": now < self.expires,
        }


def freshness_of(signed: Mapping[str, Mapping[str, Any]]) -> Freshness:
    """The freshness that the signed parts of the `TOP` roles say; `Malformed("shelf.malformed")` when they do not."""
    try:
        return Freshness(
            int(signed["timestamp"]["version"]),
            seconds_of(signed["timestamp"].get(ISSUED)),
            min(_seconds(str(one["expires"])) for one in signed.values()),
            int(signed["root"]["version"]),
        )
    except (KeyError, TypeError, ValueError):
        raise Malformed("shelf.malformed", "the shelf's metadata does not say how fresh it is") from None


def signed_part(data: bytes, role: str) -> dict[str, Any]:
    """The signed part of a role's metadata, unverified; `Malformed("shelf.malformed")` where there is none."""
    try:
        signed = json.loads(data)["signed"]
    except (ValueError, KeyError, TypeError, RecursionError):
        signed = None
    if not isinstance(signed, dict):
        raise Malformed("shelf.malformed", f"{role} is not TUF metadata")
    return signed


def moment(seconds: int) -> datetime:
    """Epoch seconds as TUF's `expires` wants them."""
    return datetime.fromtimestamp(seconds, UTC)


def issued_text(now: int) -> str:
    """The value of the timestamp's own field for when it was signed."""
    return moment(now).strftime(_FORM)


def seconds_of(text: object) -> int | None:
    """Epoch seconds of an `issued_text`; None for anything else."""
    try:
        return _seconds(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _seconds(text: str) -> int:
    return int(datetime.strptime(text, _FORM).replace(tzinfo=UTC).timestamp())

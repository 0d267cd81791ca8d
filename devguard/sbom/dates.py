"""Times as bills and snapshots write them: ISO 8601 with a zone, or a day (RFC 3339)."""

from __future__ import annotations

import datetime

from devguard.errors import Malformed


def epoch(text: str, *, code: str, what: str) -> int:
    """Epoch seconds of `2026-11-29T10:00:00Z` (any zone; none means UTC) or of the start of the day `2026-11-29`.

    Raises `Malformed(code)`.
    """
    try:
        found = datetime.datetime.fromisoformat(text[:64])
        zoned = found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
        return int(zoned.timestamp())
    except (ValueError, OverflowError):
        raise Malformed(code, f"{what}: {text[:40]!r} is not a time of RFC 3339") from None

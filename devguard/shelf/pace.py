"""Slow retrieval: how long a repository may take to send its bytes.

After a grace, the average rate since the request may not fall under a floor; silence is bounded by the socket's own
time-out. Counted below HTTP, so headers that drip in one byte at a time end as soon as a body that does.
Source: TUF 1.0.34 section 1.5.2, "slow retrieval attacks".
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

from devguard.errors import LinkError, Refused
from devguard.shelf.limits import Limits

_FRAMING: Final = 8  # bytes on the wire for a byte of content: chunks of a single byte take six


class Pace:
    """Bytes against a clock, and against what they are good for."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._start = clock()
        self._count = 0
        self._allowed = limits.framing

    def gave(self, count: int) -> None:
        """So many bytes of a body came of what arrived."""
        self._allowed += _FRAMING * count

    def took(self, count: int) -> None:
        """Count what arrived: `LinkError("shelf.slow")` when that is too little for the time it took,
        `Refused("shelf.endless")` when headers and framing go on and on and no body comes of them."""
        self._count += count
        if self._count > self._allowed:
            raise Refused("shelf.endless", f"{self._count} bytes from the repository are next to no content")
        passed = self._clock() - self._start
        if passed > self._limits.grace and self._count < passed * self._limits.slowest:
            raise LinkError("shelf.slow", f"{self._count} bytes in {passed:.0f} s from the repository")


class PacedReader(io.RawIOBase):
    """A raw stream whose every read counts against a `Pace`."""

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        super().__init__()
        self._raw = raw
        self._pace = pace

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Whatever arrives next."""
        count = self._raw.readinto(buffer)
        self._pace.took(count or 0)
        return count

    def close(self) -> None:
        """Close what is below too."""
        self._raw.close()
        super().close()

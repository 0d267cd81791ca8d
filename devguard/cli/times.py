"""Dates and durations as people write them on a command line: ISO 8601, or 30m, 8h, 30d."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import click

SEQUENCE: Final = re.compile(r"[0-9]{1,20}")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Moment(click.ParamType[int]):
    """An ISO 8601 date or date-time (UTC unless it says otherwise) as epoch seconds."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Epoch seconds."""
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not an ISO 8601 date such as 2027-01-31 or 2027-01-31T12:00:00Z", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


class Duration(click.ParamType[int]):
    """A span such as 90s, 30m, 8h or 2d in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,9})([smhd])", value)
        if match is None:
            self.fail(f"{value!r} is not a span such as 30m, 8h or 2d", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


class Installed(click.ParamType[str]):
    """What a device runs now: a sequence number, or a semantic version."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, in one of the two forms."""
        from devguard.manifest.fields import SEMVER

        text = str(value)
        if not SEQUENCE.fullmatch(text) and not SEMVER.fullmatch(text):
            self.fail(f"{text[:80]!r} is neither a sequence number nor a version such as 1.4.0", param, ctx)
        return text


class AddressRange(click.ParamType[tuple[int, int]]):
    """START-END, two addresses such as 0x10001000-0x10002000; the end is not included."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(start, end)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})-(0x[0-9a-fA-F]{1,9}|[0-9]{1,10})", value)
        if match is None or int(match[1], 0) >= int(match[2], 0):
            self.fail(f"{value!r} is not a range such as 0x10001000-0x10002000", param, ctx)
        return int(match[1], 0), int(match[2], 0)


def iso(seconds: int) -> str:
    """Epoch seconds as ISO 8601 in UTC; a moment beyond every calendar stays a number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def left(seconds: int) -> str:
    """A span for people: `7 h 59 min`, `12 d`, `45 s`."""
    if seconds < 0:
        return "none"
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    if seconds < 172_800:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d"

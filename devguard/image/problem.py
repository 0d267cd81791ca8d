"""One finding about a file: what `devguard inspect` lists. Not an error: a report may hold many."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that a file breaks: refusal code, what was expected and found, and the byte offset when known."""

    code: str
    detail: str
    offset: int | None = None

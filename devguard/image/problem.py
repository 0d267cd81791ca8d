"""Findings about a file: what `devguard inspect` lists. Not errors: a report may hold many."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that a file breaks: refusal code, what was expected and found, and the byte offset when known."""

    code: str
    detail: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class ImageReport:
    """Fields ready for JSON (integers, text, booleans, lists, maps) and the problems found, in file order."""

    fields: dict[str, object]
    problems: tuple[Problem, ...]

"""JSON from strangers: bounded, without duplicate names, without numbers JSON does not have.

Bills of materials and snapshots come from other people's tools; two readers must never see two things in one file.
Source: RFC 8259 section 4 (names should be unique), RFC 7493 section 2.3 (I-JSON: must be).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from devguard.errors import Malformed

MAX_DEPTH: Final = 64
MAX_NUMBER: Final = 64
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_SHOWN: Final = 60


def read_json(data: bytes, *, limit: int, code: str, what: str) -> dict[str, Any]:
    """The JSON object that `data` is. `limit`: bytes that are read at most; `what` names the file for people.

    Raises `Malformed(code)` for anything else: too large, no UTF-8, nested deeper than 64, a name twice in one object,
    NaN or Infinity, a number of more than 64 digits, another value than an object at the top.
    """
    value = read_value(data, limit=limit, code=code, what=what)
    if not isinstance(value, dict):
        raise Malformed(code, f"{what} is a JSON {type(value).__name__}, not an object")
    return value


def read_value(data: bytes, *, limit: int, code: str, what: str) -> Any:
    """As `read_json`, any value at the top."""
    if len(data) > limit:
        raise Malformed(code, f"{what} has {len(data)} bytes; at most {limit} are read")
    _check_depth(data, code, what)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise Malformed(code, f"{what} has {twice[:_SHOWN]!r} twice in one object")
        return found

    def never(word: str) -> NoReturn:
        raise Malformed(code, f"{what} holds {word}, which is no JSON")

    def number(digits: str) -> int:
        if len(digits) > MAX_NUMBER:
            raise Malformed(code, f"{what} holds a number of {len(digits)} digits")
        return int(digits)

    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=once, parse_constant=never, parse_int=number)
    except ValueError as error:  # of the decoder, or bytes that are no UTF-8
        raise Malformed(code, f"{what} is not JSON: {str(error)[:_SHOWN]}") from None


def _check_depth(data: bytes, code: str, what: str) -> None:
    """Refuse deep nesting before a recursive parser meets it."""
    depth = 0
    for match in _STRUCTURE.finditer(data):
        first = match.group()[:1]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Malformed(code, f"{what} is nested deeper than {MAX_DEPTH}")
        elif first in b"]}":
            depth -= 1


def text_of(value: Any, name: str, *, code: str, what: str, longest: int = 512) -> str:
    """A member that must be text of 1 to `longest` characters; `Malformed(code)` otherwise."""
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise Malformed(code, f"{what}: {name} is not a text of 1 to {longest} characters")
    return value


def list_of(value: Any, name: str, *, code: str, what: str, most: int) -> list[Any]:
    """A member that must be a list of at most `most` entries; None counts as empty."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise Malformed(code, f"{what}: {name} is not a list of at most {most} entries")
    return value


def object_of(value: Any, name: str, *, code: str, what: str) -> dict[str, Any]:
    """A member that must be an object; None counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(code, f"{what}: {name} is not an object")
    return value

"""Strictly typed access to the tables of a TOML document, with errors that name the field.

A `Table` refuses keys it does not know and names the nearest known one. No value is converted: a number in
quotes is text, true is no number, a float is nothing.
"""

from __future__ import annotations

import datetime
import difflib
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from typing import Final

from devguard.errors import Malformed

DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
NAME_HELP: Final = "1 to 64 lower case letters, digits, dots, dashes or underscores, a letter or digit at both ends"
LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,63})")
LABEL_HELP: Final = "1 to 64 letters, digits, dots, dashes, colons or underscores, first a letter or digit"
SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,17})"
_PRE: Final = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
SEMVER: Final = re.compile(
    rf"(?=.{{1,128}}\Z){_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRE}(?:\.{_PRE})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
MAX_SIZE: Final = 262_144
MAX_NAMES: Final = 1024
MAX_RANGES: Final = 64
_WORDS: Final[dict[type, str]] = {
    int: "an integer",
    bool: "true or false",
    str: "text in quotes",
    float: "a number with a fraction",
    list: "a list",
    dict: "a table",
    datetime.datetime: "a date, or a date and time with an offset such as Z",
}
# Characters that turn the direction of text: they make a terminal show something else than what is signed.
_DIRECTIONS: Final = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C]))
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def fail(field: str, what: str, code: str = "description.malformed", hint: str | None = None) -> Malformed:
    """The error to raise for a field, which is named first in the message."""
    return Malformed(code, f"{field}: {what}" if field else what, hint)


def load(text: bytes, what: str, longest: int) -> dict[str, object]:
    """The document in UTF-8 TOML `text`; `Malformed("description.malformed")`. what: what it is, for the message;
    longest: bytes that a line may have."""
    if len(text) > MAX_SIZE:
        raise fail("", f"{what} has at most {MAX_SIZE} bytes, found {len(text)}")
    # A TOML parser may take quadratic time on one endless line of dotted keys.
    for number, line in enumerate(text.split(b"\n"), 1):
        if len(line) > longest:
            raise fail("", f"line {number} has {len(line)} bytes, at most {longest} are allowed")
    try:
        return tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise fail("", f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise fail("", f"not TOML: {reason}") from None


class Table:
    """One TOML table at the dotted path `where` ("" is the document).

    Refuses any key outside `known` at once, naming the nearest known one; None takes any key.
    """

    def __init__(self, where: str, values: dict[str, object], known: Sequence[str] | None) -> None:
        self._where = where
        self._values = values
        for key in values if known is not None else ():
            if key not in (known or ()):
                nearest = difflib.get_close_matches(key[:64], known or (), 1, 0.0)
                place = f" in [{where}]" if where else ""
                raise fail(self._name(key[:64]), f"unknown key{place}; the nearest known key is {nearest[0]!r}")

    def keys(self) -> list[str]:
        """The keys that are present, in document order."""
        return list(self._values)

    def _name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def _take(self, key: str, kind: type) -> object:
        """The value, checked to be exactly of `kind`; None when the key is absent (TOML has no null)."""
        value = self._values.get(key)
        if value is not None and type(value) is not kind:
            raise fail(self._name(key), f"expected {_word(kind)}, found {_word(type(value))}")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """An integer of low..high; without `default` it is mandatory."""
        value = self._take(key, int)
        value = default if value is None else value
        if not isinstance(value, int):
            raise fail(self._name(key), "missing")
        if not low <= value <= high:
            shown = value if value.bit_length() <= 128 else "a number of more than 128 bits"
            raise fail(self._name(key), f"expected {low} to {high}, found {shown}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._take(key, bool)
        return default if value is None else value is True

    def text(self, key: str, limit: int) -> str:
        """Mandatory text of 1..`limit` characters without control or text-direction characters (newline apart)."""
        value = self._take(key, str)
        if not isinstance(value, str):
            raise fail(self._name(key), "missing")
        if not 0 < len(value) <= limit:
            raise fail(self._name(key), f"expected 1 to {limit} characters, found {len(value)}")
        for char in value:
            if (unicodedata.category(char) == "Cc" and char != "\n") or char in _DIRECTIONS:
                raise fail(self._name(key), f"the character U+{ord(char):04X} is not allowed")
        return value

    def matching(self, key: str, pattern: re.Pattern[str], what: str, default: str | None = None) -> str:
        """Text that `pattern` matches whole; `what` says in the error what was expected."""
        value = self._take(key, str)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise fail(self._name(key), "missing")
        if not pattern.fullmatch(value):
            raise fail(self._name(key), f"expected {what}, found {value[:80]!r}")
        return value

    def choice(self, key: str, options: Sequence[str], default: str) -> str:
        """One of a few words."""
        value = self._take(key, str)
        if value is None:
            return default
        if not isinstance(value, str) or value not in options:
            raise fail(self._name(key), f"expected one of {', '.join(options)}, found {str(value)[:80]!r}")
        return value

    def _items(self, key: str, limit: int) -> list[object]:
        value = self._take(key, list)
        items = value if isinstance(value, list) else []
        if len(items) > limit:
            raise fail(self._name(key), f"at most {limit} entries, found {len(items)}")
        return items

    def names(self, key: str, pattern: re.Pattern[str], what: str, required: bool = False) -> tuple[str, ...]:
        """A list of different words that `pattern` matches whole."""
        found: list[str] = []
        for item in self._items(key, MAX_NAMES):
            if not isinstance(item, str) or not pattern.fullmatch(item):
                raise fail(self._name(key), f"expected {what}, found {str(item)[:80]!r}")
            found.append(item)
        if required and not found:
            raise fail(self._name(key), "missing or empty")
        if len(set(found)) != len(found):
            raise fail(self._name(key), "an entry appears twice")
        return tuple(found)

    def ranges(self, key: str) -> tuple[tuple[int, int], ...]:
        """A list of half-open address ranges [start, end) below 2**32."""
        found = []
        for item in self._items(key, MAX_RANGES):
            pair = item if isinstance(item, list) else []
            if len(pair) != 2 or any(type(bound) is not int for bound in pair):
                raise fail(self._name(key), "expected pairs [start, end] of integers")
            if not 0 <= pair[0] < pair[1] <= 1 << 32:
                raise fail(self._name(key), "expected 0 <= start < end <= 0x100000000")
            found.append((pair[0], pair[1]))
        return tuple(found)

    def moment(self, key: str) -> int | None:
        """A date (its first second, UTC) or a date and time with offset, as seconds since the epoch."""
        value = self._values.get(key)
        if value is None:
            return None
        if type(value) is datetime.date:
            value = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
        if not isinstance(value, datetime.datetime) or value.tzinfo is None:
            raise fail(self._name(key), f"expected {_word(datetime.datetime)}")
        seconds = (value - _EPOCH) // datetime.timedelta(seconds=1)
        if seconds <= 0:
            raise fail(self._name(key), "expected a moment after 1970")
        return seconds

    def path(self, key: str) -> str:
        """A mandatory relative path with forward slashes that stays inside its folder by its letters alone.

        Raises `Malformed("description.path")` for a path that does not.
        """
        value = self._take(key, str)
        if not isinstance(value, str):
            raise fail(self._name(key), "missing")
        reason = _path_fault(value)
        if reason:
            raise fail(self._name(key), f"{value[:80]!r}: {reason}", "description.path")
        return value

    def table(self, key: str, known: Sequence[str] | None) -> Table:
        """The inner table; an absent one is empty."""
        value = self._take(key, dict)
        return Table(self._name(key), value if isinstance(value, dict) else {}, known)

    def tables(self, key: str, known: Sequence[str], limit: int) -> list[Table]:
        """An array of 1..`limit` tables."""
        items = self._items(key, limit)
        if not items:
            raise fail(self._name(key), "missing: at least one [[" + self._name(key) + "]] is needed")
        if not all(isinstance(item, dict) for item in items):
            raise fail(self._name(key), "expected tables")
        return [Table(self._name(key), item, known) for item in items if isinstance(item, dict)]


def _word(kind: type) -> str:
    return _WORDS.get(kind, "another type")


def _path_fault(path: str) -> str | None:
    """Why a path may not stand in a description, or None. Judges letters only: links are the caller's."""
    if not 0 < len(path) <= 1024:
        return "a path has 1 to 1024 characters"
    if any(unicodedata.category(char) == "Cc" or char in _DIRECTIONS for char in path):
        return "control characters are not allowed"
    if "\\" in path:
        return "backslashes are not allowed, use forward slashes"
    if path.startswith(("/", "~")) or path[1:2] == ":":
        return "absolute paths are not allowed"
    parts = path.split("/")
    if ".." in parts:
        return "'..' leaves the description's folder"
    if "" in parts or parts[-1] == ".":
        return "it names no file"
    return None

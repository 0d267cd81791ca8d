"""Where each field of a file stands, what it holds and what it means: for people with a hex dump beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import construct

MAX_PLACES: Final = 256
Place = dict[str, object]
"""offset (in the file), size (bytes), name, value (a number, text in quotes, or hex), meaning."""


def place(offset: int, size: int, name: str, value: object, meaning: str) -> Place:
    """One row; bytes become text in quotes where they are one, else hex; long ones are cut."""
    if isinstance(value, (bytes, bytearray)):
        text = bytes(value).rstrip(b"\x00")
        if len(text) > 1 and text.isascii() and text.decode("ascii").isprintable():
            value = f'"{text.decode("ascii")}"'
        else:
            value = value[:32].hex() + ("..." if len(value) > 32 else "")
    return {"offset": offset, "size": size, "name": name, "value": value, "meaning": meaning}


def places(layout: construct.Struct, got: Any, at: int, meanings: Mapping[str, str]) -> list[Place]:
    """The rows of a parsed fixed-size struct that begins at `at`; `meanings` has a line for every field of it."""
    rows, offset = [], at
    for field in layout.subcons:
        size = field.sizeof()
        if field.name is not None:
            rows.append(place(offset, size, field.name, got[field.name], meanings[field.name]))
        offset += size
    return rows


def limited(rows: Iterable[Place]) -> list[Place]:
    """The first of them."""
    return [row for row, _ in zip(rows, range(MAX_PLACES), strict=False)]

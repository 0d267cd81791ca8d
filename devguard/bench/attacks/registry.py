"""Every row of the catalogue, in its order; each class of attack has a file of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from devguard.bench.attacks import (
    audit,
    authorisation,
    availability,
    confidentiality,
    device_boot,
    image_integrity,
    keys,
    line,
    parser,
    rollback,
)
from devguard.bench.attacks.row import Row
from devguard.errors import Refused

CLASSES: Final = {
    "image integrity": image_integrity,
    "image confidentiality": confidentiality,
    "rollback/freeze/mix-and-match": rollback,
    "key compromise": keys,
    "authorisation/insider": authorisation,
    "session/link": line,
    "device boot": device_boot,
    "packet/parser": parser,
    "availability/fault": availability,
    "audit/forensics": audit,
}
"""Class of attack -> the module with its rows."""


ROWS: Final[tuple[type[Row], ...]] = tuple(
    sorted((row for module in CLASSES.values() for row in module.ROWS), key=lambda row: row.id)
)


def class_of(row: type[Row]) -> str:
    """Its class of attack."""
    return next(name for name, module in CLASSES.items() if row in module.ROWS)


def rows_named(ids: Iterable[str]) -> list[type[Row]]:
    """The rows with these ids, in the catalogue's order; all of them where none is named.

    Raises `Refused("file.missing")` for an id that the catalogue does not have.
    """
    wanted = {one.upper() for one in ids}
    unknown = wanted - {row.id for row in ROWS}
    if unknown:
        known = ", ".join(row.id for row in ROWS)
        raise Refused("file.missing", f"no attack {', '.join(sorted(unknown))} in the catalogue", f"known: {known}")
    return [row for row in ROWS if not wanted or row.id in wanted]

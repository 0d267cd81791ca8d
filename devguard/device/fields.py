"""Typed reads from decoded CBOR for what a device stores; every mismatch is `Refused("device.state")`.

Stored state is never repaired: a field of the wrong type means the store is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from devguard import wire
from devguard.errors import Malformed, Refused

UINT64: Final = (1 << 64) - 1


def damaged(what: str) -> Refused:
    """The error for stored state that is not what was stored."""
    return Refused("device.state", f"stored {what} is damaged")


def load(data: bytes, what: str) -> Any:
    """The CBOR item in `data`."""
    try:
        return wire.decode(data, code="device.state")
    except Malformed as error:
        raise damaged(f"{what} ({error.message})") from error


def fields(value: object, labels: range, what: str) -> Mapping[int, Any]:
    """A map with exactly these integer labels."""
    if not isinstance(value, dict) or set(value) != set(labels):
        raise damaged(what)
    return value


def items(value: object, what: str, *, count: int | None = None, limit: int = 65_536) -> list[Any]:
    """A list, of exactly `count` items where given, never more than `limit`."""
    if not isinstance(value, list) or len(value) > limit or (count is not None and len(value) != count):
        raise damaged(what)
    return value


def uint(value: object, what: str, limit: int = UINT64) -> int:
    """An integer of 0 to `limit`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise damaged(what)
    return value


def optional_uint(value: object, what: str, limit: int = UINT64) -> int | None:
    """An integer of 0 to `limit`, or nothing."""
    return None if value is None else uint(value, what, limit)


def flag(value: object, what: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise damaged(what)
    return value


def blob(value: object, what: str, *sizes: int, limit: int = 65_536) -> bytes:
    """Bytes of one of `sizes`; with none given, of 0 to `limit`."""
    if not isinstance(value, bytes) or (len(value) not in sizes if sizes else len(value) > limit):
        raise damaged(what)
    return value


def text(value: object, what: str, limit: int = 128) -> str:
    """Text of at most `limit` characters, all printable."""
    if not isinstance(value, str) or len(value) > limit or not (value.isprintable()):
        raise damaged(what)
    return value

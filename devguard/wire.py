"""Strict helpers over CBOR (cbor2) and fixed layouts (construct).

Everything devguard emits and judges is deterministic CBOR (RFC 8949 section 4.2.1): shortest heads, definite
lengths, map keys in bytewise order of their encodings, no duplicate keys, nothing after the item. `decode`
walks the heads first, so depth, item count and lengths are bounded before any value is built; only then
cbor2 makes the values. What a map *means* is not this module's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import cbor2

from devguard.errors import LocalProtocolError, Malformed

if TYPE_CHECKING:
    from construct import Construct

MAX_DEPTH: Final = 16
MAX_ITEMS: Final = 65_536
_SIMPLE: Final = frozenset({20, 21, 22})  # false, true, null: all that our formats use


def encode(value: object) -> bytes:
    """Deterministic CBOR of ints, byte and text strings, bools, None, lists, tuples, maps and CBORTag.

    Raises `LocalProtocolError` for any other type (floats included: no format of ours has one).
    """
    return cbor2.dumps(_ordered(value))


def _ordered(value: object) -> object:
    if isinstance(value, (bool, int, bytes, str)) or value is None:
        return value
    if isinstance(value, Mapping):
        pairs = sorted(((encode(key), key, item) for key, item in value.items()), key=lambda pair: pair[0])
        return {key: _ordered(item) for _, key, item in pairs}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, _ordered(value.value))
    raise LocalProtocolError("wire.malformed", f"no deterministic encoding for {type(value).__name__}")


class Walker:
    """Walks CBOR heads in `data` and refuses what is not well-formed, too deep, too large or (when
    `deterministic`) not in the one allowed encoding. Keeps no values."""

    def __init__(self, data: bytes, code: str, *, deterministic: bool, tags: Collection[int] | None) -> None:
        self.data = data
        self.code = code
        self.deterministic = deterministic
        self.tags = tags
        self.items = 0
        self.simples = 0

    def head(self, at: int) -> tuple[int, int, int]:
        """(major type, argument, offset after the head) at offset `at`."""
        if at >= len(self.data):
            raise Malformed(self.code, f"CBOR ends early at offset {at}")
        initial = self.data[at]
        major, info = initial >> 5, initial & 31
        at += 1
        if info < 24:
            return major, info, at
        if info > 27:
            raise self._unusual(f"indefinite or reserved length at offset {at - 1}")
        width = 1 << (info - 24)
        if at + width > len(self.data):
            raise Malformed(self.code, f"CBOR ends early at offset {at}")
        argument = int.from_bytes(self.data[at : at + width], "big")
        if major != 7 and self.deterministic and (argument < 24 or (width > 1 and argument < 1 << (4 * width))):
            raise self._unusual(f"length or integer not in shortest form at offset {at - 1}")
        if major == 7:
            raise Malformed(self.code, f"floating point or unusual simple value at offset {at - 1}")
        return major, argument, at + width

    def _unusual(self, what: str) -> Malformed:
        code = "envelope.not-deterministic" if self.code == "envelope.malformed" and self.deterministic else self.code
        return Malformed(code, f"not deterministic CBOR: {what}")

    def skip(self, at: int, depth: int) -> int:
        """Offset after the item that starts at `at`."""
        self.items += 1
        if depth < 0 or self.items > MAX_ITEMS:
            raise Malformed(self.code, f"CBOR nested too deeply or with too many items at offset {at}")
        major, argument, after = self.head(at)
        if major in (2, 3):
            if argument > len(self.data) - after:
                raise Malformed(self.code, f"string of {argument} bytes at offset {at} runs past the end")
            return after + argument
        if major == 4:
            self._room(argument, after)
            for _ in range(argument):
                after = self.skip(after, depth - 1)
        elif major == 5:
            self._room(2 * argument, after)
            after = self._skip_map(argument, after, depth)
        elif major == 6:
            if self.tags is not None and argument not in self.tags:
                raise Malformed(self.code, f"unexpected CBOR tag {argument} at offset {at}")
            after = self.skip(after, depth - 1)
        elif major == 7:
            self.simples += 1
            if argument not in _SIMPLE:
                raise Malformed(self.code, f"unexpected simple value {argument} at offset {at}")
        return after

    def _room(self, count: int, at: int) -> None:
        if count > len(self.data) - at:
            raise Malformed(self.code, f"{count} items announced at offset {at}, more than the bytes that follow")

    def _skip_map(self, count: int, at: int, depth: int) -> int:
        seen: set[bytes] = set()
        previous = b""
        for _ in range(count):
            simples = self.simples
            end = self.skip(at, depth - 1)
            key = bytes(self.data[at:end])
            if self.simples != simples:  # true and 1, [true] and [1] would be one key of a Python dict
                raise Malformed(self.code, f"a map key at offset {at} holds what is no number or string")
            if key in seen:
                raise Malformed(self.code, f"duplicate map key at offset {at}")
            if self.deterministic and seen and key < previous:
                raise self._unusual(f"map keys out of order at offset {at}")
            seen.add(key)
            previous = key
            at = self.skip(end, depth - 1)
        return at


def decode(
    data: bytes,
    *,
    code: str = "wire.malformed",
    deterministic: bool = True,
    tags: Collection[int] | None = (),
    max_depth: int = MAX_DEPTH,
) -> Any:
    """The one CBOR item in `data`; `Malformed(code)` for anything else.

    `tags` lists the tags that may appear (None: any that cbor2 leaves alone is still built as CBORTag).
    `deterministic=False` is for third-party objects that devguard reads but never judges.
    """
    walker = Walker(bytes(data), code, deterministic=deterministic, tags=tags)
    end = walker.skip(0, max_depth)
    if end != len(data):
        raise Malformed(code, f"{len(data) - end} trailing bytes after the CBOR item")
    return _build(walker.data, code)


def decode_sequence(data: bytes, *, code: str = "wire.malformed", max_depth: int = MAX_DEPTH) -> list[Any]:
    """All items of a deterministic CBOR sequence (RFC 8742), in order."""
    walker = Walker(bytes(data), code, deterministic=True, tags=())
    items: list[Any] = []
    at = 0
    while at < len(walker.data):
        end = walker.skip(at, max_depth)
        items.append(_build(walker.data[at:end], code))
        at = end
    return items


def _build(data: bytes, code: str) -> Any:
    try:
        return cbor2.loads(data)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Malformed(code, f"CBOR value refused: {error}") from error


def parse_exact(layout: Construct[Any, Any], data: bytes, code: str) -> Any:
    """`data` parsed by a construct layout, all of it; `Malformed(code)` on any mismatch or trailing byte."""
    import struct

    import construct

    whole = construct.Struct("value" / layout, "end" / construct.Tell)
    try:
        parsed = whole.parse(data)
    except (construct.ConstructError, struct.error) as error:
        raise Malformed(code, f"layout mismatch: {str(error).splitlines()[0]}") from error
    if parsed.end != len(data):
        raise Malformed(code, f"{len(data) - parsed.end} trailing bytes")
    return parsed.value

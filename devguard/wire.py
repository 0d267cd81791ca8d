"""Strict helpers over CBOR (cbor2) and fixed layouts (construct).

Everything devguard emits and judges is deterministic CBOR (RFC 8949 section 4.2.1): shortest heads, definite
lengths, map keys in bytewise order of their encodings, no duplicate keys, nothing after the item. `decode`
walks the heads first, so depth, item count and lengths are bounded before any value is built; only then
cbor2 makes the values. `encode` writes that one form itself, in one pass. What a map *means* is not this module's
business.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import cbor2

from devguard.errors import LocalProtocolError, Malformed

if TYPE_CHECKING:
    from construct import Construct

MAX_DEPTH: Final = 16
MAX_ITEMS: Final = 65_536
_BYTES: Final = tuple(bytes((value,)) for value in range(256))
_SHORT_INTEGERS: Final = frozenset({*range(24), *range(32, 56)})  # one byte each
_LONG: Final = ((24, 1), (1 << 8, 2), (1 << 16, 4), (1 << 32, 8))  # least argument and bytes of the longer heads
_SIMPLE: Final = frozenset({20, 21, 22})  # false, true, null: all that our formats use


def encode(value: object) -> bytes:
    """Deterministic CBOR of ints, byte and text strings, bools, None, lists, tuples, maps and CBORTag.

    Raises `LocalProtocolError` for any other type (floats included: no format of ours has one).
    """
    if isinstance(value, int):
        if isinstance(value, bool):
            return b"\xf5" if value else b"\xf4"
        try:
            return head(0, value) if value >= 0 else head(1, -1 - value)
        except OverflowError:
            return cbor2.dumps(value)  # a bignum
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return head(3, len(text)) + text
    if value is None:
        return b"\xf6"
    if isinstance(value, (list, tuple)):
        return head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, Mapping):
        pairs = sorted(zip(map(encode, value), map(encode, value.values()), strict=True))
        return head(5, len(pairs)) + b"".join(chain.from_iterable(pairs))
    if isinstance(value, cbor2.CBORTag):
        return head(6, value.tag) + encode(value.value)
    raise LocalProtocolError("wire.malformed", f"no deterministic encoding for {type(value).__name__}")


def head(major: int, argument: int) -> bytes:
    """The shortest head of a major type with an argument (RFC 8949 section 3); `OverflowError` from 2^64 on."""
    if argument < 24:
        return _BYTES[major << 5 | argument]
    width = 1 if argument < 1 << 8 else 2 if argument < 1 << 16 else 4 if argument < 1 << 32 else 8
    return bytes((major << 5 | 23 + width.bit_length(),)) + argument.to_bytes(width, "big")


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

    def _unusual(self, what: str) -> Malformed:
        code = "envelope.not-deterministic" if self.code == "envelope.malformed" and self.deterministic else self.code
        return Malformed(code, f"not deterministic CBOR: {what}")

    def item(self, at: int, depth: int) -> int:
        """Offset after one of several items that stand in no other."""
        self._enter(1, at, depth + 1)
        return self.skip(at, depth)

    def skip(self, at: int, depth: int) -> int:
        """Offset after the item that starts at `at`; whatever it stands in has counted it."""
        try:
            initial = self.data[at]
        except IndexError:
            raise Malformed(self.code, f"CBOR ends early at offset {at}") from None
        if initial in _SHORT_INTEGERS:
            return at + 1
        major, argument, after = initial >> 5, initial & 31, at + 1
        if argument > 23:
            argument, after = self._long(at, major, argument)
        if major in (2, 3):
            if argument > len(self.data) - after:
                raise Malformed(self.code, f"string of {argument} bytes at offset {at} runs past the end")
            return after + argument
        if major == 4:
            self._enter(argument, after, depth)
            for _ in range(argument):
                after = self.skip(after, depth - 1)
        elif major == 5:
            self._enter(2 * argument, after, depth)
            after = self._skip_map(argument, after, depth)
        elif major == 6:
            after = self._skip_tag(argument, after, depth)
        elif major == 7:
            self.simples += 1
            if argument not in _SIMPLE:
                raise Malformed(self.code, f"unexpected simple value {argument} at offset {at}")
        return after

    def _long(self, at: int, major: int, info: int) -> tuple[int, int]:
        """(argument, offset after the head) of a head of more than one byte."""
        if info > 27:
            raise self._unusual(f"indefinite or reserved length at offset {at}")
        least, width = _LONG[info - 24]
        end = at + 1 + width
        if end > len(self.data):
            raise Malformed(self.code, f"CBOR ends early at offset {at + 1}")
        if major == 7:
            raise Malformed(self.code, f"floating point or unusual simple value at offset {at}")
        argument = int.from_bytes(self.data[at + 1 : end], "big")
        if argument < least and self.deterministic:
            raise self._unusual(f"length or integer not in shortest form at offset {at}")
        return argument, end

    def _enter(self, count: int, at: int, depth: int) -> None:
        """Before the `count` items of an array, a map or a tag."""
        if count > len(self.data) - at:
            raise Malformed(self.code, f"{count} items announced at offset {at}, more than the bytes that follow")
        self.items += count
        if self.items > MAX_ITEMS or (count and depth < 1):
            raise Malformed(self.code, f"CBOR nested too deeply or with too many items at offset {at}")

    def _skip_tag(self, tag: int, at: int, depth: int) -> int:
        if self.tags is not None and tag not in self.tags:
            raise Malformed(self.code, f"unexpected CBOR tag {tag} before offset {at}")
        self._enter(1, at, depth)
        return self.skip(at, depth - 1)

    def _skip_map(self, count: int, at: int, depth: int) -> int:
        seen: set[bytes] = set()
        previous = b""
        for _ in range(count):
            simples = self.simples
            end = self.skip(at, depth - 1)
            key = self.data[at:end]
            if self.simples != simples:  # true and 1, [true] and [1] would be one key of a Python dict
                raise Malformed(self.code, f"a map key at offset {at} holds what is no number or string")
            if key in seen:
                raise Malformed(self.code, f"duplicate map key at offset {at}")
            if key < previous and self.deterministic:
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
        end = walker.item(at, max_depth)
        items.append(_build(walker.data[at:end], code))
        at = end
    return items


def decode_foreign(data: bytes, *, code: str = "wire.malformed") -> Any:
    """The one CBOR item in `data` of a protocol that is not ours, in whatever encoding it chose: indefinite lengths,
    floats and tags included. For showing, never for judging. `data` is bounded by the caller; `Malformed(code)`."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.load(stream)
    except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise Malformed(code, f"no CBOR: {error}") from error
    if stream.tell() != len(data):
        raise Malformed(code, f"{len(data) - stream.tell()} trailing bytes after the CBOR item")
    return value


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

"""Layouts: construct with `RawCopy`, `Checksum` and `Rebuild`, read so that damage is an answer and not an exception.

A `Layout` is a body, what its checksum covers and how it is written. It is parsed strictly first; where only the
checksum is wrong it is parsed again without it, so that a person still sees what the packet would have said.
Whatever construct raises for bad bytes becomes `Damaged` with the packet code that fits.
"""

from __future__ import annotations

import collections
import struct
from collections.abc import Callable
from typing import Any

import construct

from devguard.errors import Malformed


class Damaged(Malformed):
    """A packet that cannot be read: `packet.length` or `packet.unknown`, with what was expected."""


def parse(layout: construct.Construct, data: bytes) -> Any:
    """`layout` over `data` from its start; raises `Damaged`, and `construct.ChecksumError` for a wrong checksum."""
    try:
        return layout.parse(data, size=len(data))
    except construct.ChecksumError:
        raise
    except (construct.StreamError, construct.RangeError) as error:
        raise Damaged("packet.length", f"the packet ends too early: {_reason(error)}") from error
    except construct.ConstructError as error:
        raise Damaged("packet.unknown", _reason(error)) from error
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise Damaged("packet.unknown", f"a value no field can hold: {error}") from error


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__


def rest(name: str, spare: int) -> construct.Renamed:
    """A field of all bytes of the packet but `spare`: for bodies whose length the record says and not the packet."""

    def length(this: Any) -> int:
        return int(this._params.size) - spare if this._parsing else len(this[name])

    return name / construct.Bytes(length)


class Layout:
    """A body and the checksum after it. `algorithm` takes the bytes covered, from `cover(body bytes)`."""

    def __init__(
        self,
        body: construct.Construct,
        trailer: construct.Construct,
        algorithm: Callable[[bytes], int],
        *,
        cover: Callable[[bytes], bytes] = lambda data: data,
    ) -> None:
        copy = "body" / construct.RawCopy(body)

        def expected(context: Any) -> int:
            return algorithm(cover(context.body.data))

        whole = construct.Checksum(trailer, lambda covered: algorithm(cover(covered)), construct.this.body.data)
        self._strict = construct.Struct(copy, "checksum" / whole)
        self._lenient = construct.Struct(copy, "checksum" / trailer, "expected" / construct.Computed(expected))

    def read(self, data: bytes) -> tuple[Any, int, int]:
        """(body, checksum found, checksum expected). Raises `Damaged`; a wrong checksum is no exception."""
        try:
            got = parse(self._strict, data)
        except construct.ChecksumError:
            got = parse(self._lenient, data)
            return got.body.value, got.checksum, got.expected
        return got.body.value, got.checksum, got.checksum

    def write(self, **values: Any) -> bytes:
        """The bytes of a packet with these body values, lengths and checksum rebuilt. For tests and made vectors."""
        built: bytes = self._strict.build({"body": {"value": values}})
        return built


def _record(names: str) -> Callable[..., Any]:
    return collections.namedtuple("Body", names)


class Swift:
    """The bulk reader beside a `Layout`: the head as one compiled `struct`, the checksum over the same bytes.

    `names`: the head's fields in order; `inner`: the field of all bytes between head and trailer; `start`: the first
    byte the checksum covers; `mark`: what stands before the trailer. Whatever is unusual (a head cut off, a constant
    that is none, `usual` false) is handed to the layout itself, so both readers say the same of every packet.
    """

    def __init__(
        self,
        slow: Layout,
        head: str,
        names: str,
        trailer: str,
        algorithm: Callable[[bytes], int],
        *,
        inner: str = "inner",
        start: int = 0,
        mark: bytes = b"",
        usual: Callable[[Any], bool],
    ) -> None:
        self._slow = slow
        self._mark = mark
        self._head, self._trailer = struct.Struct(head), struct.Struct(trailer)
        self._algorithm, self._start, self._usual = algorithm, start, usual
        self._body: Callable[..., Any] = _record(f"{names} {inner}")
        self._least = self._head.size + len(mark) + self._trailer.size

    def read(self, data: bytes) -> tuple[Any, int, int]:
        """See `Layout.read`."""
        end = len(data) - self._trailer.size
        if len(data) < self._least:
            return self._slow.read(data)
        body = self._body(*self._head.unpack_from(data), data[self._head.size : end - len(self._mark)])
        if not data.endswith(self._mark, 0, end) or not self._usual(body):
            return self._slow.read(data)
        return body, self._trailer.unpack_from(data, end)[0], self._algorithm(data[self._start : end])

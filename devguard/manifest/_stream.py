"""A cursor over CBOR heads in an open seekable reader: shortest heads only, nothing read that is not asked for.

The streaming twin of `devguard.wire.Walker` for the one map that may be larger than memory, the outer map of an
envelope (RFC 8949 section 4.2.1).
"""

from __future__ import annotations

import io
from typing import BinaryIO

from devguard import wire
from devguard.errors import Malformed, Refused

_CODE = "envelope.malformed"
_LOOSE = "envelope.not-deterministic"


class Cursor:
    """Position `at` in a reader that ends at `end`; both are absolute offsets of the reader.

    A reader that fails raises `Refused("file.unreadable")`.
    """

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader
        try:
            self.at = reader.tell()
            self.end = reader.seek(0, io.SEEK_END)
            reader.seek(self.at)
        except OSError as error:
            raise _unreadable(error) from error

    def take(self, size: int) -> bytes:
        """The next `size` bytes; `Malformed` when the reader ends before."""
        if size > self.end - self.at:
            raise Malformed(_CODE, f"the envelope ends early at offset {self.end}")
        try:
            data = self._reader.read(size)
        except OSError as error:
            raise _unreadable(error) from error
        if len(data) != size:
            raise Malformed(_CODE, f"the envelope ends early at offset {self.at + len(data)}")
        self.at += size
        return data

    def jump(self, offset: int) -> None:
        """Moves to an offset that `byte_string` has proved to lie inside the reader."""
        if offset != self.at:
            try:
                self._reader.seek(offset)
            except OSError as error:
                raise _unreadable(error) from error
            self.at = offset

    def head(self) -> tuple[int, int]:
        """(major type, argument) of the next item; only shortest, definite heads pass."""
        start = self.at
        initial = self.take(1)[0]
        major, info = initial >> 5, initial & 31
        if info < 24:
            return major, info
        if info > 27:
            raise Malformed(_LOOSE, f"indefinite or reserved length at offset {start}")
        width = 1 << (info - 24)
        argument = int.from_bytes(self.take(width), "big")
        if major != 7 and (argument < 24 or (width > 1 and argument < 1 << (4 * width))):
            raise Malformed(_LOOSE, f"length or integer not in shortest form at offset {start}")
        return major, argument

    def key(self, longest: int) -> tuple[int | str, bytes]:
        """An integer or text map key and its encoding; texts over `longest` bytes are refused."""
        start = self.at
        major, argument = self.head()
        key: int | str
        if major == 3:
            if argument > longest:
                raise Malformed(_CODE, f"a payload name of {argument} bytes at offset {start}")
            key = _text(self.take(argument), start)
        elif major in (0, 1):
            key = argument if major == 0 else -1 - argument
        else:
            raise Malformed(_CODE, f"an envelope key is an integer or a text, not major type {major}")
        return key, wire.encode(key)  # heads are shortest, so encoding again gives the bytes that were read

    def byte_string(self) -> tuple[int, int]:
        """(offset, size) of the content of the next item, a byte string that lies wholly inside the reader."""
        start = self.at
        major, size = self.head()
        if major != 2:
            raise Malformed(_CODE, f"an envelope member is a byte string, not major type {major}, at offset {start}")
        if size > self.end - self.at:
            raise Malformed(_CODE, f"a byte string of {size} bytes at offset {start} runs past the end")
        return self.at, size


def _unreadable(error: OSError) -> Refused:
    return Refused("file.unreadable", f"the envelope cannot be read: {error.strerror or error}")


def _text(data: bytes, at: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(_CODE, f"a payload name at offset {at} is not UTF-8") from error

"""Decodes an image that came as a patch or compressed: encoded bytes and the running image in, the image out.

Reads one form of the sequential patch format of `detools` and nothing else: LZMA with a small dictionary, no data
format. It runs before anybody has found the bytes to be good, so it is strict: memory is bounded by `DICTIONARY`, a
piece and a few numbers, time by the sizes of patch and image. What it gives is judged by its digest, elsewhere.

    01 | image size | LZMA (the .lzma form, size unknown, end marker) of
         00 | then until the image is whole:  n, n bytes to add to the running image's | n, n bytes as they are | move

Numbers: six bits, then seven in each byte, least first; 0x80 says that more follow, 0x40 of the first is the sign.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from devguard.errors import Refused

DICTIONARY: Final = 256 * 1024
PIECE: Final = 4096
_MEMORY: Final = DICTIONARY + 128 * 1024  # the dictionary and the decoder's own tables
_SEQUENTIAL_LZMA: Final = 0x01
_NUMBER_BYTES: Final = 5
_LZMA_HEADER: Final = 13
_UNKNOWN_SIZE: Final = b"\xff" * 8
_INPUT: Final = 1024
_FREE_STEPS: Final = 1024
_BYTES_A_STEP: Final = 8  # a patch maker ends a match only where that gains more than this

Read = Callable[[int, int], bytes]
"""(offset, length) -> exactly these bytes; only ever asked for what lies inside."""


def rebuild(read: Read, encoded_size: int, source: Read, source_size: int, size: int) -> Iterator[bytes]:
    """The image of `size` bytes, in pieces of 1 to `PIECE` bytes, from `encoded_size` bytes that `read` gives.

    `source`: the running image, `source_size` bytes (0: none). Raises `Refused("device.transfer")` as soon as the
    encoded bytes leave the form, their own size or the running image, or do not give exactly `size` bytes.
    """
    packed = _Packed(read, encoded_size)
    if packed.byte() != _SEQUENTIAL_LZMA:
        _wrong("neither a patch nor a compressed image of the known form")
    if (named := _number(packed.byte)) != size:
        _wrong(f"it is for an image of {named} bytes, the release's has {size}")
    body = _Unpacked(packed)
    if _number(body.byte) != 0:
        _wrong("it uses a data format, which this device does not take")
    yield from _steps(body, source, source_size, size)
    body.end()


def _steps(body: _Unpacked, source: Read, source_size: int, size: int) -> Iterator[bytes]:
    done = position = steps = 0
    while done < size:
        steps += 1
        if steps > _FREE_STEPS + size // _BYTES_A_STEP:
            _wrong("too many steps for its image")
        count = _count(body, size - done)
        if count and not 0 <= position <= source_size - count:
            _wrong("it reads outside the running image")
        for at in range(0, count, PIECE):
            length = min(PIECE, count - at)
            yield _sum(body.take(length), source(position + at, length))
        done += count
        position += count
        count = _count(body, size - done)
        for at in range(0, count, PIECE):
            yield body.take(min(PIECE, count - at))
        done += count
        position += _number(body.byte)


def _count(body: _Unpacked, most: int) -> int:
    count = _number(body.byte)
    if not 0 <= count <= most:
        _wrong("it gives more than the image")
    return count


def _number(byte: Callable[[], int]) -> int:
    first = last = byte()
    value, shift = first & 0x3F, 6
    while last & 0x80:
        if shift > 6 + 7 * (_NUMBER_BYTES - 2):
            _wrong("a number without an end")
        last = byte()
        value |= (last & 0x7F) << shift
        shift += 7
    return -value if first & 0x40 else value


def _sum(one: bytes, other: bytes) -> bytes:
    """Byte by byte, modulo 256, all at once: the low seven bits are added, the top ones joined without a carry."""
    low, top = _masks(len(one))
    a, b = int.from_bytes(one, "little"), int.from_bytes(other, "little")
    return (((a & low) + (b & low)) ^ ((a ^ b) & top)).to_bytes(len(one), "little")


@functools.lru_cache(maxsize=8)
def _masks(length: int) -> tuple[int, int]:
    return int.from_bytes(b"\x7f" * length, "little"), int.from_bytes(b"\x80" * length, "little")


class _Packed:
    """The encoded bytes, in order."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._at = 0

    def some(self, most: int) -> bytes:
        """The next bytes, at most `most`; none at the end."""
        length = min(most, self._size - self._at)
        data = self._read(self._at, length) if length else b""
        self._at += length
        return data

    def byte(self) -> int:
        """The next byte."""
        data = self.some(1)
        if not data:
            _wrong("it ends early")
        return data[0]


class _Unpacked:
    """What the LZMA stream holds, in order; its header is looked at before anything is decoded."""

    def __init__(self, packed: _Packed) -> None:
        self._packed = packed
        self._first = packed.some(_LZMA_HEADER)
        if len(self._first) < _LZMA_HEADER or self._first[5:] != _UNKNOWN_SIZE:
            _wrong("not an LZMA stream with an end marker")
        if int.from_bytes(self._first[1:5], "little") > DICTIONARY:
            _wrong(f"it asks for a dictionary of more than {DICTIONARY} bytes")
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY)
        self._ready = b""
        self._used = 0

    def byte(self) -> int:
        """The next byte."""
        if self._used == len(self._ready):
            self._more()
        self._used += 1
        return self._ready[self._used - 1]

    def take(self, size: int) -> bytes:
        """The next `size` bytes, at most `PIECE`."""
        found = self._ready[self._used : self._used + size]
        self._used += len(found)
        while len(found) < size:
            self._more()
            rest = self._ready[: size - len(found)]
            found, self._used = found + rest, len(rest)
        return found

    def end(self) -> None:
        """Return when nothing follows."""
        if self._used < len(self._ready):
            _wrong("bytes follow the image")
        while not self._decoder.eof:
            if self._decode():
                _wrong("bytes follow the image")
        if self._decoder.unused_data or self._packed.some(1):
            _wrong("bytes follow the end marker")

    def _more(self) -> None:
        """At least one byte more is ready; every turn takes input or gives output, so this ends."""
        self._ready, self._used = b"", 0
        while not self._ready:
            self._ready = self._decode()

    def _decode(self) -> bytes:
        data = b""
        if self._decoder.eof:
            _wrong("it ends before the image is whole")
        if self._decoder.needs_input:
            data, self._first = self._first or self._packed.some(_INPUT), b""
            if not data:
                _wrong("it ends early")
        try:
            return self._decoder.decompress(data, PIECE)
        except lzma.LZMAError as error:
            raise Refused("device.transfer", f"the LZMA stream is damaged: {error}") from None


def _wrong(why: str) -> NoReturn:
    raise Refused("device.transfer", f"the encoded image is not one this device takes: {why}")

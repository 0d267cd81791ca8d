"""From a firmware file to the flat image: the very bytes that are measured, signed and flashed.

A raw or MCUboot file is its own flat image and is never copied into memory. An Intel HEX file is decoded over
the model's flash range, gaps 0xff. Formats that need a linker's or a loader's knowledge are refused, not
guessed at. The quality of an MCUboot image is judged by `image.mcuboot`, not here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from devguard.errors import Malformed, Refused
from devguard.image.kind import HEAD_SIZE, Kind, recognise

FORMATS: Final = ("auto", "raw", "ihex", "mcuboot")


@dataclass(frozen=True, slots=True)
class FlashRange:
    """A range of a device's address space: first address and number of bytes."""

    base: int
    size: int


@dataclass(frozen=True, slots=True)
class FlatImage:
    """An image ready to measure: reader at position 0, size in bytes, the kind of file it came from, and
    what a person should know about the conversion."""

    reader: BinaryIO
    size: int
    kind: Kind
    notes: tuple[str, ...]


def flatten(
    reader: BinaryIO, *, fmt: str = "auto", flash: FlashRange, ignore: Sequence[tuple[int, int]] = ()
) -> FlatImage:
    """The flat image in a seekable `reader`, read from its start.

    `fmt` is one of `FORMATS`; `ignore` lists half-open address ranges [start, end) whose Intel HEX records are
    left out and noted. Raises `Malformed` image.format, image.range or image.trailing, `Refused` device.slot
    when the image is larger than the flash range, file.unreadable when reading fails.
    """
    if fmt not in FORMATS:
        raise Malformed("image.format", f"format {fmt!r} is not one of {', '.join(FORMATS)}")
    head, size = _look(reader)
    if size == 0:
        raise Malformed("image.format", "the image is empty")
    seen = recognise(head)
    kind = _kind(fmt, seen)
    if kind is Kind.IHEX:
        from devguard.image.ihex import decode_ihex

        data, notes = decode_ihex(reader, flash, ignore)
        return FlatImage(io.BytesIO(data), len(data), kind, notes)
    if size > flash.size:
        raise Refused("device.slot", f"the image has {size} bytes, the model has room for {flash.size}")
    unsure = fmt == "auto" and seen is Kind.UNKNOWN
    return FlatImage(reader, size, kind, ("no known format: taken as raw bytes",) if unsure else ())


def _look(reader: BinaryIO) -> tuple[bytes, int]:
    try:
        size = reader.seek(0, io.SEEK_END)
        reader.seek(0)
        head = reader.read(HEAD_SIZE)
        reader.seek(0)
    except OSError as error:
        raise Refused("file.unreadable", f"the image cannot be read: {error.strerror or error}") from error
    return head, size


def _kind(fmt: str, seen: Kind) -> Kind:
    """The reading to apply: what was asked for, or under "auto" what the content says."""
    if fmt == "raw":
        return Kind.RAW
    if fmt == "auto":
        if seen in (Kind.IHEX, Kind.MCUBOOT):
            return seen
        if seen in (Kind.RAW, Kind.UNKNOWN):
            return Kind.RAW
        raise Malformed(
            "image.format",
            f"the file is of kind {seen}, which is no flat firmware image",
            'convert it to a raw binary or Intel HEX; format = "raw" takes the bytes as they are',
        )
    if seen.value != fmt:
        raise Malformed("image.format", f"expected an image of format {fmt}, the content is {seen}")
    return seen

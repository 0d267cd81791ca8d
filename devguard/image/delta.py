"""Makes smaller forms of an image: a patch against another image, or the image compressed. Bytes in, bytes out.

Both are the sequential patch format of the `detools` package with LZMA; a compressed image is a patch against nothing
and needs no package. The patch is `detools`'s own; its packing is ours: a dictionary that a device can hold
(decision 0018), and the literal and position bits that suit machine code best. The same input gives the same bytes.
Nothing here is bounded in time: repetitive images make patches slowly, so callers run it in a process of its own.
"""

from __future__ import annotations

import importlib.util
import io
import lzma
from typing import Final

from devguard.errors import Refused

DICTIONARY: Final = 256 * 1024
MAX_IMAGE: Final = 16 * 1024 * 1024
# (literal context, literal position, position) bits: what suits differences, and what suits machine code
_OF_PATCHES: Final = ((3, 0, 0), (0, 0, 0), (1, 1, 1), (4, 0, 1))
_OF_IMAGES: Final = ((2, 1, 1),)
_SEQUENTIAL_LZMA: Final = b"\x01"


def can_patch() -> bool:
    """Whether the `detools` package is here; without it images can be compressed, not patched."""
    return importlib.util.find_spec("detools") is not None


def make_patch(source: bytes, image: bytes) -> bytes:
    """A patch that gives `image` from `source`. `Refused("image.size")` for images over `MAX_IMAGE` or empty ones."""
    _check(source, image)
    from detools import create_patch  # type: ignore[import-untyped]  # it has no types

    plain = io.BytesIO()
    create_patch(io.BytesIO(source), io.BytesIO(image), plain, compression="none", use_mmap=False)
    head = len(_SEQUENTIAL_LZMA) + len(_number(len(image)))
    return _packed(image, plain.getvalue()[head:], _OF_PATCHES)


def patch_in_place(source: bytes, image: bytes) -> bytes:
    """A patch in which every byte is against the one at its place; it needs no package, and is small where nothing has
    moved. `Refused("image.size")` as `make_patch`, and for an image longer than its source."""
    _check(source, image)
    if len(image) > len(source):
        raise Refused("image.size", f"{len(image)} bytes have no place in {len(source)}")
    differences = bytes((new - old) & 0xFF for new, old in zip(image, source, strict=False))
    return _packed(image, _number(0) + _number(len(image)) + differences + _number(0) * 2, _OF_PATCHES)


def compress(image: bytes) -> bytes:
    """`image` compressed. `Refused("image.size")` for images over `MAX_IMAGE` or empty ones."""
    _check(image)
    return _packed(image, _number(0) + _number(0) + _number(len(image)) + image + _number(0), _OF_IMAGES)


def _check(*images: bytes) -> None:
    for image in images:
        if not 0 < len(image) <= MAX_IMAGE:
            raise Refused("image.size", f"no patch is made of {len(image)} bytes, at most {MAX_IMAGE} are taken")


def _packed(image: bytes, body: bytes, ways: tuple[tuple[int, int, int], ...]) -> bytes:
    return _SEQUENTIAL_LZMA + _number(len(image)) + min((_lzma(body, *way) for way in ways), key=len)


def _lzma(body: bytes, literal_context: int, literal_position: int, position: int) -> bytes:
    chain = {
        "id": lzma.FILTER_LZMA1,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": DICTIONARY,
        "lc": literal_context,
        "lp": literal_position,
        "pb": position,
    }
    return lzma.compress(body, lzma.FORMAT_ALONE, filters=[chain])


def _number(value: int) -> bytes:
    """A size as the format writes it: six bits, then seven in each byte, least first; 0x80 where more follow."""
    data, value = [value & 0x3F], value >> 6
    while value:
        data[-1] |= 0x80
        data.append(value & 0x7F)
        value >>= 7
    return bytes(data)

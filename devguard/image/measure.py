"""Size and digest of a stream, in flat memory whatever its length.

Not a format parser: it hashes the bytes from the reader's position onward. Algorithms are the COSE hash
identifiers of RFC 9054 that draft-ietf-suit-manifest uses in SUIT_Digest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from devguard.errors import Malformed, Refused

if TYPE_CHECKING:
    from hashlib import _Hash

    from devguard.image.inside import Inside

SHA_256: Final = -16
SHA_384: Final = -43
SHA_512: Final = -44
HASH_NAMES: Final[dict[int, str]] = {SHA_256: "sha256", SHA_384: "sha384", SHA_512: "sha512"}
_MCUBOOT: Final = (b"\x3d\xb8\xf3\x96", b"\x96\xf3\xb8\x3d")  # the magic numbers of images that say what they are
BUFFER_SIZE: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Measured:
    """What was read: COSE hash algorithm, digest, and size in bytes; `inside` is what an MCUboot image says of itself,
    where somebody looked."""

    algorithm: int
    digest: bytes
    size: int
    inside: Inside | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class MeasuredStream:
    """What was read of several images back to back: each by its id, in their order, and SHA-256 over all of them.

    Of a single image `whole` is what was measured of that.
    """

    parts: Mapping[str, Measured]
    whole: Measured


def new_hash(algorithm: int) -> _Hash:
    """A running hash for a COSE hash algorithm; `Malformed("signature.algorithm")` when devguard has none."""
    name = HASH_NAMES.get(algorithm)
    if name is None:
        known = ", ".join(f"{number} ({label})" for number, label in HASH_NAMES.items())
        raise Malformed("signature.algorithm", f"hash algorithm {algorithm} is not one of {known}")
    return hashlib.new(name)


def measure(reader: BinaryIO, size: int | None = None, algorithm: int = SHA_256, also: _Hash | None = None) -> Measured:
    """Digest of exactly `size` bytes from the current position, or of everything to the end when None.

    `also`: a running hash that takes the same bytes. Memory use is one buffer of 128 KiB.
    Raises `Refused("image.size")` when the stream ends before `size`,
    `Refused("file.unreadable")` when reading fails, `Malformed("signature.algorithm")` for an unknown hash.
    """
    running = new_hash(algorithm)
    if size is not None and size < 0:
        raise Refused("image.size", f"an image cannot have {size} bytes")
    buffer = memoryview(bytearray(BUFFER_SIZE if size is None else max(1, min(BUFFER_SIZE, size))))
    total = 0
    while size is None or total < size:
        window = buffer if size is None else buffer[: min(len(buffer), size - total)]
        count = _fill(reader, window)
        if count == 0:
            break
        running.update(window[:count])
        if also is not None:
            also.update(window[:count])
        total += count
    if size is not None and total != size:
        raise Refused("image.size", f"expected {size} bytes, the stream ends after {total}")
    return Measured(algorithm, running.digest(), total)


def measure_image(reader: BinaryIO, algorithm: int = SHA_256, also: _Hash | None = None) -> Measured:
    """`measure` of a whole image from the current position, and what it says of itself; raises the same."""
    if not reader.seekable():
        return measure(reader, algorithm=algorithm, also=also)
    position = reader.tell()
    measured = measure(reader, algorithm=algorithm, also=also)
    try:
        reader.seek(position)
        head = reader.read(len(_MCUBOOT[0]))
        reader.seek(position + measured.size)
    except OSError as error:
        raise Refused("file.unreadable", f"reading failed: {error.strerror or error}") from error
    if head not in _MCUBOOT:
        return measured
    from devguard.image.inside import look_inside  # its parser costs a plain image nothing

    return replace(measured, inside=look_inside(reader))


def measure_stream(images: Iterable[tuple[str, BinaryIO, int]]) -> MeasuredStream:
    """Several images read to their ends in one pass, each (id, reader, COSE hash algorithm); ids differ.

    Raises what `measure` raises.
    """
    given = list(images)
    if len(given) == 1:
        name, reader, algorithm = given[0]
        only = measure_image(reader, algorithm)
        return MeasuredStream({name: only}, only)
    stream = new_hash(SHA_256)
    parts = {name: measure_image(reader, algorithm, stream) for name, reader, algorithm in given}
    return MeasuredStream(parts, Measured(SHA_256, stream.digest(), sum(one.size for one in parts.values())))


def _fill(reader: BinaryIO, window: memoryview) -> int:
    try:
        if isinstance(reader, (io.RawIOBase, io.BufferedIOBase)):
            return reader.readinto(window) or 0
        data = reader.read(len(window))
    except OSError as error:
        raise Refused("file.unreadable", f"reading failed: {error.strerror or error}") from error
    window[: len(data)] = data
    return len(data)

"""Size and digest of a stream, in flat memory whatever its length.

Not a format parser: it hashes the bytes from the reader's position onward. Algorithms are the COSE hash
identifiers of RFC 9054 that draft-ietf-suit-manifest uses in SUIT_Digest.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from devguard.errors import Malformed, Refused

if TYPE_CHECKING:
    from hashlib import _Hash

SHA_256: Final = -16
SHA_384: Final = -43
SHA_512: Final = -44
HASH_NAMES: Final[dict[int, str]] = {SHA_256: "sha256", SHA_384: "sha384", SHA_512: "sha512"}
BUFFER_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """What was read: COSE hash algorithm, digest, and size in bytes."""

    algorithm: int
    digest: bytes
    size: int


def new_hash(algorithm: int) -> _Hash:
    """A running hash for a COSE hash algorithm; `Malformed("signature.algorithm")` when devguard has none."""
    name = HASH_NAMES.get(algorithm)
    if name is None:
        known = ", ".join(f"{number} ({label})" for number, label in HASH_NAMES.items())
        raise Malformed("signature.algorithm", f"hash algorithm {algorithm} is not one of {known}")
    return hashlib.new(name)


def measure(reader: BinaryIO, size: int | None = None, algorithm: int = SHA_256) -> Measured:
    """Digest of exactly `size` bytes from the current position, or of everything to the end when None.

    Memory use is one buffer of 1 MiB. Raises `Refused("image.size")` when the stream ends before `size`,
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
        total += count
    if size is not None and total != size:
        raise Refused("image.size", f"expected {size} bytes, the stream ends after {total}")
    return Measured(algorithm, running.digest(), total)


def _fill(reader: BinaryIO, window: memoryview) -> int:
    try:
        if isinstance(reader, (io.RawIOBase, io.BufferedIOBase)):
            return reader.readinto(window) or 0
        data = reader.read(len(window))
    except OSError as error:
        raise Refused("file.unreadable", f"reading failed: {error.strerror or error}") from error
    window[: len(data)] = data
    return len(data)

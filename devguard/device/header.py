"""What a slot says of the image in it: the slot header, also kept as the verdict sealed at confirm.

One record, two uses: in flash it stands in a slot's first sector, written last so that a partial slot is never
valid; in the counters, outside the slots, the same record is what the device judged. Boot compares the two.
Form in flash: magic, length (2 bytes, big endian), deterministic CBOR, CRC-32. The CRC finds noise only; what
makes an image trustworthy is the sealed copy and the digest, never this header alone.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Final

from devguard import wire
from devguard.device import fields
from devguard.errors import LocalProtocolError, Refused

MAGIC: Final = b"DGSLOT\x00\x01"
MAX_HEADER: Final = 480
MAX_VERSION: Final = 64
_HASHES: Final = {-16: ("sha256", 32), -43: ("sha384", 48), -44: ("sha512", 64)}  # RFC 9054 section 2.1
_SHA256_SIZE: Final = 32
_DIGEST_SIZES: Final = tuple(size for _, size in _HASHES.values())


def digest_name(algorithm: int) -> str:
    """hashlib's name of a COSE hash algorithm; `Refused("image.digest")` for any other."""
    if algorithm not in _HASHES:
        raise Refused("image.digest", f"the device has no hash algorithm {algorithm}")
    return _HASHES[algorithm][0]


@dataclass(frozen=True, slots=True)
class SlotHeader:
    """An image and the judged manifest it belongs to. Sizes in bytes, digests raw."""

    size: int
    digest_algorithm: int
    digest: bytes
    manifest_digest: bytes
    sequence: int
    security_version: int
    version: str
    envelope_size: int
    envelope_digest: bytes

    def __post_init__(self) -> None:
        name = digest_name(self.digest_algorithm)
        whole = (
            0 < self.size < 1 << 32
            and len(self.digest) == _HASHES[self.digest_algorithm][1]
            and len(self.manifest_digest) in _DIGEST_SIZES
            and len(self.envelope_digest) == _SHA256_SIZE
            and 0 <= self.sequence <= fields.UINT64
            and 0 <= self.security_version < 1 << 31
            and len(self.version) <= MAX_VERSION
            and (self.version.isprintable() or not self.version)
            and 0 <= self.envelope_size < 1 << 32
        )
        if not whole:
            raise LocalProtocolError("device.slot", f"slot header with {name} digest breaks its limits")

    @classmethod
    def of(
        cls,
        *,
        size: int,
        digest_algorithm: int,
        digest: bytes,
        manifest_digest: bytes,
        sequence: int,
        security_version: int,
        version: str,
        envelope: bytes,
    ) -> SlotHeader:
        """The header of a judged release; `envelope` is the offer whose copy stays in the slot."""
        own = cls.of_envelope(envelope)
        return cls(
            size, digest_algorithm, digest, manifest_digest, sequence, security_version, version, len(envelope), own
        )

    @staticmethod
    def of_envelope(envelope: bytes) -> bytes:
        """The digest (SHA-256) that a header keeps of its envelope copy."""
        return hashlib.sha256(envelope).digest()

    def to_list(self) -> list[object]:
        """The CBOR array of the nine fields in order."""
        return [
            self.size,
            self.digest_algorithm,
            self.digest,
            self.manifest_digest,
            self.sequence,
            self.security_version,
            self.version,
            self.envelope_size,
            self.envelope_digest,
        ]

    @classmethod
    def from_list(cls, value: object) -> SlotHeader:
        """The header in a decoded array; `Refused("device.state")` when it is none."""
        parts = fields.items(value, "slot header", count=9)
        algorithm = parts[1]
        if not isinstance(algorithm, int) or isinstance(algorithm, bool) or algorithm not in _HASHES:
            raise fields.damaged("slot header")
        size = fields.uint(parts[0], "slot header", (1 << 32) - 1)
        if size == 0:
            raise fields.damaged("slot header")
        return cls(
            size,
            algorithm,
            fields.blob(parts[2], "slot header", _HASHES[algorithm][1]),
            fields.blob(parts[3], "slot header", *_DIGEST_SIZES),
            fields.uint(parts[4], "slot header"),
            fields.uint(parts[5], "slot header", (1 << 31) - 1),
            fields.text(parts[6], "slot header", MAX_VERSION),
            fields.uint(parts[7], "slot header", (1 << 32) - 1),
            fields.blob(parts[8], "slot header", _SHA256_SIZE),
        )


def encode_block(magic: bytes, value: object, unit: int, limit: int = MAX_HEADER) -> bytes:
    """Magic, length, CBOR and CRC-32, padded with 0xff to whole write units."""
    body = wire.encode(value)
    block = magic + len(body).to_bytes(2, "big") + body
    block += zlib.crc32(block).to_bytes(4, "big")
    block += b"\xff" * (-len(block) % unit)
    if len(block) > limit:
        raise LocalProtocolError("device.slot", f"block of {len(block)} bytes, at most {limit} fit")
    return block


def decode_block(magic: bytes, data: bytes) -> object | None:
    """The CBOR value at the start of `data`, or None where no whole block stands (erased, torn, foreign)."""
    start = len(magic) + 2
    if len(data) < start or not data.startswith(magic):
        return None
    end = start + int.from_bytes(data[len(magic) : start], "big")
    if end + 4 > len(data) or zlib.crc32(data[:end]).to_bytes(4, "big") != data[end : end + 4]:
        return None
    try:
        value: object = fields.load(data[start:end], "block")
    except Refused:
        return None
    return value

"""What a slot says of the image in it: the slot header, also kept as the verdict sealed at confirm.

One record, two uses: in flash it stands in a slot's first sector, written last so that a partial slot is never
valid; in the counters, outside the slots, the same record is what the device judged. Boot compares the two.
Form in flash: magic, length (2 bytes, big endian), deterministic CBOR, CRC-32. The CRC finds noise only; what
makes an image trustworthy is the sealed copy and the digest, never this header alone. A slot of several components
holds their images back to back, and its header lists them (decision 0017).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from devguard import wire
from devguard.device import fields
from devguard.errors import LocalProtocolError, Refused
from devguard.image.measure import SHA_256
from devguard.manifest.release import ComponentFacts

MAGIC: Final = b"DGSLOT\x00\x01"
MAX_HEADER: Final = 1024  # the largest header of `MAX_PARTS` parts has 866 bytes
MAX_VERSION: Final = 64
MAX_PARTS: Final = 4
PART_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?")
_LIMIT: Final = (1 << 32) - 1
_HASHES: Final = {-16: ("sha256", 32), -43: ("sha384", 48), -44: ("sha512", 64)}  # RFC 9054 section 2.1
_SHA256_SIZE: Final = 32
_DIGEST_SIZES: Final = tuple(size for _, size in _HASHES.values())


def digest_name(algorithm: int) -> str:
    """hashlib's name of a COSE hash algorithm; `Refused("image.digest")` for any other."""
    if algorithm not in _HASHES:
        raise Refused("image.digest", f"the device has no hash algorithm {algorithm}")
    return _HASHES[algorithm][0]


@dataclass(frozen=True, slots=True)
class Part:
    """One component's image among several in a slot: component id, size in bytes, COSE hash algorithm, raw digest."""

    id: str
    size: int
    digest_algorithm: int
    digest: bytes

    def __post_init__(self) -> None:
        name = digest_name(self.digest_algorithm)
        fitting = len(self.digest) == _HASHES[self.digest_algorithm][1] and 0 < self.size <= _LIMIT
        if not fitting or PART_ID.fullmatch(self.id) is None:
            raise LocalProtocolError("device.slot", f"part {self.id[:80]!r} with {name} digest breaks its limits")

    def to_list(self) -> list[object]:
        """The CBOR array of the four fields in order."""
        return [self.id, self.size, self.digest_algorithm, self.digest]

    @classmethod
    def from_list(cls, value: object) -> Part:
        """The part in a decoded array; `Refused("device.state")` when it is none."""
        name, size, algorithm, digest = fields.items(value, "slot header", count=4)
        text, known = fields.text(name, "slot header"), _algorithm(algorithm)
        if PART_ID.fullmatch(text) is None:
            raise fields.damaged("slot header")
        return cls(text, _size(size), known, fields.blob(digest, "slot header", _HASHES[known][1]))


def parts_of(components: Iterable[ComponentFacts]) -> tuple[Part, ...]:
    """The parts of a judged release of several components; none of a release of one."""
    found = tuple(Part(one.id, one.size, one.digest_algorithm, one.digest) for one in components)
    return found if len(found) > 1 else ()


def _algorithm(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _HASHES:
        raise fields.damaged("slot header")
    return value


def _size(value: object) -> int:
    size = fields.uint(value, "slot header", _LIMIT)
    if size == 0:
        raise fields.damaged("slot header")
    return size


def _parts(tail: list[object]) -> tuple[Part, ...]:
    """What follows the nine fields: nothing, or the list of parts; an empty list would be a second nothing."""
    if not tail:
        return ()
    found = tuple(Part.from_list(one) for one in fields.items(tail[0], "slot header", limit=MAX_PARTS))
    if not found:
        raise fields.damaged("slot header")
    return found


@dataclass(frozen=True, slots=True)
class SlotHeader:
    """What the slot holds and the judged manifest it belongs to. Sizes in bytes, digests raw.

    One component: `size` and `digest` are its image's, `parts` is empty. Several: `parts` in the order in which their
    images lie, `size` is their sum and `digest` SHA-256 over all of them.
    """

    size: int
    digest_algorithm: int
    digest: bytes
    manifest_digest: bytes
    sequence: int
    security_version: int
    version: str
    envelope_size: int
    envelope_digest: bytes
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        name = digest_name(self.digest_algorithm)
        whole = (
            0 < self.size <= _LIMIT
            and len(self.digest) == _HASHES[self.digest_algorithm][1]
            and len(self.manifest_digest) in _DIGEST_SIZES
            and len(self.envelope_digest) == _SHA256_SIZE
            and 0 <= self.sequence <= fields.UINT64
            and 0 <= self.security_version < 1 << 31
            and len(self.version) <= MAX_VERSION
            and (self.version.isprintable() or not self.version)
            and 0 <= self.envelope_size <= _LIMIT
            and (not self.parts or self._is_sum())
        )
        if not whole:
            raise LocalProtocolError("device.slot", f"slot header with {name} digest breaks its limits")

    def _is_sum(self) -> bool:
        """Whether the parts are several different ones and make up the whole."""
        return (
            2 <= len({part.id for part in self.parts}) == len(self.parts) <= MAX_PARTS
            and sum(part.size for part in self.parts) == self.size
            and self.digest_algorithm == SHA_256
        )

    def is_of(self, components: tuple[ComponentFacts, ...]) -> bool:
        """Whether these are the images that a judged release names, in its order."""
        if self.parts:
            return self.parts == parts_of(components)
        return [(self.size, self.digest_algorithm, self.digest)] == [
            (one.size, one.digest_algorithm, one.digest) for one in components
        ]

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
        parts: tuple[Part, ...] = (),
    ) -> SlotHeader:
        """The header of a judged release; `envelope` is the offer whose copy stays in the slot."""
        return cls(
            size, digest_algorithm, digest, manifest_digest, sequence, security_version, version,
            len(envelope), cls.of_envelope(envelope), parts,
        )  # fmt: skip

    @staticmethod
    def of_envelope(envelope: bytes) -> bytes:
        """The digest (SHA-256) that a header keeps of its envelope copy."""
        return hashlib.sha256(envelope).digest()

    def to_list(self) -> list[object]:
        """The CBOR array of the nine fields in order, and of the parts where there are several components."""
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
            *([[part.to_list() for part in self.parts]] if self.parts else ()),
        ]

    @classmethod
    def from_list(cls, value: object) -> SlotHeader:
        """The header in a decoded array; `Refused("device.state")` when it is none."""
        items = fields.items(value, "slot header", limit=10)
        parts = fields.items(items[:9], "slot header", count=9)
        algorithm = _algorithm(parts[1])
        try:
            return cls(
                _size(parts[0]),
                algorithm,
                fields.blob(parts[2], "slot header", _HASHES[algorithm][1]),
                fields.blob(parts[3], "slot header", *_DIGEST_SIZES),
                fields.uint(parts[4], "slot header"),
                fields.uint(parts[5], "slot header", (1 << 31) - 1),
                fields.text(parts[6], "slot header", MAX_VERSION),
                fields.uint(parts[7], "slot header", _LIMIT),
                fields.blob(parts[8], "slot header", _SHA256_SIZE),
                _parts(items[9:]),
            )
        except LocalProtocolError as error:
            raise fields.damaged("slot header") from error


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

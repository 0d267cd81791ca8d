"""The images of a judged release as MCUmgr devices know them: an image number, an MCUboot image, its hash.

An MCUmgr device names an image by the hash in its TLV area and says nothing else of it, so that hash is taken here from
the very bytes that were judged; where the image is not encrypted it is computed too and has to agree. A release of
several components is a target of several images: the first component is image 0 (or the number asked for), and so on.
Reads from open readers; decides nothing about the release. Source: MCUboot design, "Image format".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from devguard.errors import Refused
from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot_parse import Parsed, hash_signed_part, parse, read_at
from devguard.image.mcuboot_trailer import check_tail
from devguard.image.measure import SHA_256, measure
from devguard.manifest.release import ComponentFacts
from devguard.verdict.release import Release

MAX_IMAGE_NUMBER: Final = 15


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """One image of an accepted release. `sha256`: of the whole file, which names its upload; `hash`: of the image, by
    which the device names it; `version`: major, minor, revision, build of its header."""

    number: int
    component: str
    size: int
    sha256: bytes
    hash: bytes
    version: tuple[int, int, int, int]
    encrypted: bool
    reader: BinaryIO

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`, never past the image's end; `Refused("file.unreadable")`."""
        return read_at(self.reader, offset, min(size, self.size - offset))


def judged_images(release: Release, payloads: Mapping[str, BinaryIO], first: int = 0) -> tuple[JudgedImage, ...]:
    """The images of `release`, whose bytes are in `payloads` by component id.

    Raises `Refused`: image.format for what is no whole MCUboot image or has no hash to be known by, image.digest where
    hash and bytes disagree or the bytes are not the judged ones, image.trailing for an image that brings its own boot
    trailer (the device would keep it without a trial) or other bytes behind its end.
    """
    if first + len(release.components) - 1 > MAX_IMAGE_NUMBER:
        raise Refused("image.format", f"an MCUmgr device has no image {first + len(release.components) - 1}")
    return tuple(_judged(one, payloads[one.id], first + at) for at, one in enumerate(release.components))


def _judged(component: ComponentFacts, reader: BinaryIO, number: int) -> JudgedImage:
    parsed = parse(reader)
    if not parsed.complete or parsed.size != component.size:
        why = parsed.problems[0].detail if parsed.problems else f"it has {parsed.size} bytes"
        hint = "an MCUmgr device takes MCUboot images only; ask the vendor for the image signed for its bootloader"
        raise Refused("image.format", f"the image of {component.id} is no MCUboot image: {why}", hint)
    encrypted = bool(parsed.header.flags & layout.ENCRYPTED_FLAGS) or bool(parsed.of_type(*layout.ENCRYPTION_TLVS))
    digest = _image_hash(reader, parsed, component.id, encrypted)
    trailer, problems = check_tail(reader, parsed)
    if trailer is not None or problems:
        what = "its own boot trailer, so the device might keep it without a trial" if trailer else problems[0].detail
        raise Refused("image.trailing", f"the image of {component.id} has {what}")
    header = parsed.header
    version = (header.major, header.minor, header.revision, header.build)
    sha256 = _measured(reader, component)
    return JudgedImage(number, component.id, component.size, sha256, digest, version, encrypted, reader)


def _image_hash(reader: BinaryIO, parsed: Parsed, name: str, encrypted: bool) -> bytes:
    """The hash TLV's value. Of an encrypted image it covers the plain bytes, which only the device can see."""
    stated = parsed.of_type(*layout.HASH_TLVS)
    if len(stated) != 1:
        what = f"the image of {name} has {len(stated)} hashes, and an MCUmgr device knows an image by its one"
        raise Refused("image.format", what)
    tlv = stated[0]
    if not encrypted and hash_signed_part(reader, parsed, layout.HASH_TLVS[tlv.type]) != tlv.value:
        raise Refused("image.digest", f"the hash in the image of {name} is not that of its bytes")
    return tlv.value


def _measured(reader: BinaryIO, component: ComponentFacts) -> bytes:
    """SHA-256 of what is sent, once more the judged bytes."""
    read_at(reader, 0, 0)
    sha256 = measure(reader, component.size, SHA_256).digest
    found = sha256
    if component.digest_algorithm != SHA_256:
        read_at(reader, 0, 0)
        found = measure(reader, component.size, component.digest_algorithm).digest
    if found != component.digest:
        raise Refused("image.digest", f"the image of {component.id} is not the one that was judged")
    return sha256

"""Compressed MCUboot images: what the bootloader unpacks into the primary slot, hashed and checked as it will be.

The body is an LZMA2 stream behind two bytes (dictionary size, properties), through the ARM Thumb filter where a flag
says so. Protected TLVs give the size, hash and signature of the image that comes of it: its header without compression
flags and with its own sizes, its body, and the protected TLVs that are not about compression. Nothing unpacked is
kept.
Source: MCUboot's public header image.h, and the images that imgtool makes.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from typing import BinaryIO, Final

from devguard.errors import Malformed
from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot_parse import Parsed, Tlv, read_at
from devguard.image.problem import Problem

MAX_UNPACKED: Final = 64 << 20
MAX_DICTIONARY: Final = 4 << 20
_HASHES: Final = {32: "sha256", 48: "sha384", 64: "sha512"}
_HEAD: Final = 2
_CHUNK: Final = 1 << 16
_PIECE: Final = 4096


def check_compressed(reader: BinaryIO, parsed: Parsed) -> tuple[bytes | None, list[Problem]]:
    """(hash of the unpacked image, problems). `reader` gives the image in plain; the hash is None where it could not be
    made. An image without a compression flag has neither."""
    if not parsed.header.flags & layout.COMPRESSED_FLAGS:
        return None, []
    stated, problems = _stated(parsed)
    if problems:
        return None, problems
    size_tlv, hash_tlv = stated
    size = int.from_bytes(size_tlv.value, parsed.layouts.order)
    running = hashlib.new(_HASHES[len(hash_tlv.value)])
    try:
        if size > MAX_UNPACKED:
            raise Malformed(
                "image.size", f"it unpacks to {size} bytes, more than the {MAX_UNPACKED} that are looked at"
            )
        for part in _unpacked_image(reader, parsed, size):
            running.update(part)
    except Malformed as error:
        return None, [Problem(error.code, error.message, size_tlv.offset)]
    found = running.digest()
    if found != hash_tlv.value:
        detail = f"the unpacked image's hash is {found.hex()}, the TLV says {hash_tlv.value.hex()}"
        problems.append(Problem("image.digest", detail, hash_tlv.offset))
    return found, problems


def _stated(parsed: Parsed) -> tuple[list[Tlv], list[Problem]]:
    """The TLVs of size and hash, both protected and of their lengths, or what is wrong with them."""
    found, problems = [], []
    both = parsed.header.flags & layout.LZMA_FLAGS == layout.LZMA_FLAGS
    if both or not parsed.header.flags & layout.LZMA2_FLAG:
        what = "both LZMA1 and LZMA2" if both else "a compression that is not LZMA2"
        problems.append(Problem("image.format", f"the header asks for {what}", 16))
    sizes = {layout.DECOMPRESSED_SIZE: (4,), layout.DECOMPRESSED_HASH: tuple(_HASHES)}
    for kind, lengths in sizes.items():
        name = layout.tlv_name(kind)
        tlvs = [tlv for tlv in parsed.of_type(kind) if tlv.protected]
        if len(tlvs) != 1 or len(tlvs[0].value) not in lengths:
            detail = (
                f"a compressed image has one protected TLV {name} of {lengths[0]} bytes or more, there are {len(tlvs)}"
            )
            problems.append(Problem("image.format", detail, tlvs[0].offset if tlvs else parsed.signed_size))
        found += tlvs[:1]
    return found, problems


def _unpacked_image(reader: BinaryIO, parsed: Parsed, size: int) -> Iterator[bytes]:
    """Header, body and protected TLVs as the bootloader will have them in the primary slot."""
    kept = [tlv for tlv in parsed.tlvs if tlv.protected and tlv.type not in layout.COMPRESSION_TLVS]
    order = parsed.layouts.order
    area = b"".join(_encoded(reader, tlv) for tlv in kept)
    protected = len(area) + layout.INFO_SIZE if kept else 0
    header = bytearray(read_at(reader, 0, parsed.header.header_size))
    header[10:12] = protected.to_bytes(2, order)
    header[12:16] = size.to_bytes(4, order)
    header[16:20] = (parsed.header.flags & ~layout.COMPRESSED_FLAGS).to_bytes(4, order)
    yield bytes(header)
    yield from _unpacked(reader, parsed, size)
    if kept:
        yield layout.PROTECTED_MAGIC.to_bytes(2, order) + protected.to_bytes(2, order) + area


def _encoded(reader: BinaryIO, tlv: Tlv) -> bytes:
    return read_at(reader, tlv.offset, 4 + len(tlv.value))


def _unpacked(reader: BinaryIO, parsed: Parsed, size: int) -> Iterator[bytes]:
    """The body's bytes, exactly `size` of them; `Malformed` image.format otherwise."""
    head = read_at(reader, parsed.header.header_size, _HEAD)
    at, end = parsed.header.header_size + _HEAD, parsed.header.header_size + parsed.header.image_size
    if len(head) < _HEAD or parsed.header.image_size < _HEAD:
        raise Malformed("image.format", "a compressed body has at least its two bytes of properties")
    decoder, done = _decoder(head, thumb=bool(parsed.header.flags & layout.THUMB_FLAG)), 0
    try:
        while not decoder.eof and done <= size:
            packed = read_at(reader, at, min(_PIECE, end - at)) if decoder.needs_input else b""
            if decoder.needs_input and not packed:
                break
            at += len(packed)
            plain = decoder.decompress(packed, max_length=_CHUNK)
            done += len(plain)
            yield plain
    except lzma.LZMAError as error:
        raise Malformed("image.format", f"the compressed body cannot be unpacked: {error}") from error
    if done != size or not decoder.eof:
        raise Malformed("image.format", f"the body unpacks to {done} bytes or more, the TLV says {size}")


def _decoder(head: bytes, *, thumb: bool) -> lzma.LZMADecompressor:
    code, properties = head
    dictionary = (2 | code & 1) << code // 2 + 11 if code < 40 else 0
    literal, position = properties % 9, properties // 9
    if not 0 < dictionary <= MAX_DICTIONARY or position // 5 > 4:
        raise Malformed("image.format", f"no LZMA2 properties that are read: {head.hex()}")
    options = {"id": lzma.FILTER_LZMA2, "dict_size": dictionary}
    options |= {"lc": literal, "lp": position % 5, "pb": position // 5}
    filters = [{"id": lzma.FILTER_ARMTHUMB}, options] if thumb else [options]
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    except lzma.LZMAError as error:
        raise Malformed("image.format", f"no LZMA2 properties that are read: {head.hex()}") from error

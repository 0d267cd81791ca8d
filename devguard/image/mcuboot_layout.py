"""MCUboot's on-flash structures: image header, TLV areas and TLV types. Layout only, no rule.

Source: MCUboot's design document ("Image format") and the numbers of its public header image.h. Fields are in the
device's byte order, little or big; a TLV type has TWO bytes, and vendor types use both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import construct

IMAGE_MAGIC: Final = 0x96F3B83D
INFO_MAGIC: Final = 0x6907
PROTECTED_MAGIC: Final = 0x6908
HEADER_SIZE: Final = 32
INFO_SIZE: Final = 4


@dataclass(frozen=True, slots=True)
class Layouts:
    """The structures in one byte order: an image keeps to one throughout, its header's."""

    order: Literal["little", "big"]
    header: Any
    info: Any
    tlv: Any
    dependency: Any


def _layouts(order: Literal["little", "big"]) -> Layouts:
    int16, int32 = (
        (construct.Int16ul, construct.Int32ul) if order == "little" else (construct.Int16ub, construct.Int32ub)
    )
    version = ("major" / construct.Int8ub, "minor" / construct.Int8ub, "revision" / int16, "build" / int32)
    return Layouts(
        order,
        construct.Struct(
            "magic" / int32,
            "load_address" / int32,
            "header_size" / int16,
            "protected_size" / int16,
            "image_size" / int32,
            "flags" / int32,
            *version,
            "padding" / int32,
        ),
        construct.Struct("magic" / int16, "total" / int16),
        construct.Struct("type" / int16, "length" / int16, "value" / construct.Bytes(construct.this.length)),
        construct.Struct("image" / construct.Int8ub, construct.Padding(3), *version),
    )


LITTLE: Final = _layouts("little")
BIG: Final = _layouts("big")
HEADER: Final = LITTLE.header


def order_of(magic: bytes) -> Layouts:
    """The byte order an image's first four bytes are in; little where they are no magic number at all."""
    return BIG if magic == IMAGE_MAGIC.to_bytes(4, "big") else LITTLE


HEADER_MEANINGS: Final = {
    "magic": "begins an image; its byte order is the image's",
    "load_address": "where it runs, with the flags ram-load and rom-fixed",
    "header_size": "where the body begins",
    "protected_size": "bytes of the protected TLV area, its head among them",
    "image_size": "bytes of the body",
    "flags": "encryption, compression, where it runs",
    "major": "version",
    "minor": "version",
    "revision": "version",
    "build": "version: build number",
    "padding": "zero",
}
TLV_MEANINGS: Final = {
    "keyhash": "hash of the public key that the next signature is by",
    "pubkey": "the public key that the next signature is by",
    "sha256": "hash of header, body and protected TLVs",
    "sha384": "hash of header, body and protected TLVs",
    "sha512": "hash of header, body and protected TLVs",
    "rsa2048-pss": "signature",
    "ecdsa224": "signature, of a kind no longer taken",
    "ecdsa": "signature",
    "rsa3072-pss": "signature",
    "ed25519": "signature",
    "sig-pure": "01: the signature is over the image, not its hash",
    "enc-rsa2048": "the image's key, wrapped by RSA-OAEP",
    "enc-kw": "the image's key, wrapped by AES-KW",
    "enc-ec256": "the image's key, wrapped by ECIES-P256",
    "enc-x25519": "the image's key, wrapped by ECIES-X25519",
    "enc-x25519-sha512": "the image's key, wrapped by ECIES-X25519 with SHA-512",
    "dependency": "another image that has to be there, of this version or newer",
    "security-counter": "refused where the device's counter is higher",
    "boot-record": "claims for measured boot",
    "decompressed-size": "bytes of the unpacked body",
    "decompressed-sha": "hash of the unpacked image",
    "decompressed-signature": "signature of the unpacked image",
    "compressed-decrypted-size": "bytes of the compressed body once decrypted",
    "vendor-id": "whose devices it is for",
    "class-id": "which devices it is for",
}
FLAGS: Final = {
    0x001: "pic",
    0x004: "encrypted-aes128",
    0x008: "encrypted-aes256",
    0x010: "non-bootable",
    0x020: "ram-load",
    0x100: "rom-fixed",
    0x200: "compressed-lzma1",
    0x400: "compressed-lzma2",
    0x800: "compressed-arm-thumb",
}
ENCRYPTED_FLAGS: Final = 0x00C
LZMA2_FLAG: Final = 0x400
LZMA_FLAGS: Final = 0x600
THUMB_FLAG: Final = 0x800
COMPRESSED_FLAGS: Final = 0xE00

KEYHASH: Final = 0x01
PUBKEY: Final = 0x02
SHA256: Final = 0x10
SHA384: Final = 0x11
SHA512: Final = 0x12
RSA2048_PSS: Final = 0x20
ECDSA: Final = 0x22
RSA3072_PSS: Final = 0x23
ED25519: Final = 0x24
SIG_PURE: Final = 0x25
DEPENDENCY_TYPE: Final = 0x40
SECURITY_COUNTER: Final = 0x50
BOOT_RECORD: Final = 0x60
DECOMPRESSED_SIZE: Final = 0x70
DECOMPRESSED_HASH: Final = 0x71
DECOMPRESSED_SIGNATURE: Final = 0x72
VENDOR_ID: Final = 0x74
CLASS_ID: Final = 0x75

TLV_NAMES: Final = {
    KEYHASH: "keyhash",
    PUBKEY: "pubkey",
    SHA256: "sha256",
    SHA384: "sha384",
    SHA512: "sha512",
    RSA2048_PSS: "rsa2048-pss",
    0x21: "ecdsa224",
    ECDSA: "ecdsa",
    RSA3072_PSS: "rsa3072-pss",
    ED25519: "ed25519",
    SIG_PURE: "sig-pure",
    0x30: "enc-rsa2048",
    0x31: "enc-kw",
    0x32: "enc-ec256",
    0x33: "enc-x25519",
    0x34: "enc-x25519-sha512",
    DEPENDENCY_TYPE: "dependency",
    SECURITY_COUNTER: "security-counter",
    BOOT_RECORD: "boot-record",
    DECOMPRESSED_SIZE: "decompressed-size",
    DECOMPRESSED_HASH: "decompressed-sha",
    DECOMPRESSED_SIGNATURE: "decompressed-signature",
    0x73: "compressed-decrypted-size",
    VENDOR_ID: "vendor-id",
    CLASS_ID: "class-id",
}
HASH_TLVS: Final = {SHA256: -16, SHA384: -43, SHA512: -44}
COMPRESSION_TLVS: Final = frozenset({DECOMPRESSED_SIZE, DECOMPRESSED_HASH, DECOMPRESSED_SIGNATURE, 0x73})
SIGNATURE_TLVS: Final = frozenset({RSA2048_PSS, 0x21, ECDSA, RSA3072_PSS, ED25519})
ENCRYPTION_TLVS: Final = frozenset({0x30, 0x31, 0x32, 0x33, 0x34})
# The bootloader's allow list: everything else counts only where the hash covers it.
UNPROTECTED_TLVS: Final = (
    frozenset({KEYHASH, PUBKEY, SIG_PURE}) | frozenset(HASH_TLVS) | SIGNATURE_TLVS | ENCRYPTION_TLVS
)


def tlv_name(number: int) -> str:
    """The name of a TLV type; "vendor-01a1" for the reserved vendor ranges xxA0 to xxFF, "unknown-..." else."""
    known = TLV_NAMES.get(number)
    if known is not None:
        return known
    return f"{'vendor' if number & 0xFF >= 0xA0 else 'unknown'}-{number:04x}"

"""Public keys as MCUboot knows them, and the signature check of one TLV.

MCUboot names a key by the hash of its DER encoding (SubjectPublicKeyInfo; PKCS#1 for RSA) and signs the image
hash: ECDSA in DER form, RSA-PSS with a 32-byte salt, Ed25519 over the digest, or over the whole image where
the SIG_PURE TLV says so. Of a private PEM file only the public half is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from devguard.cose.keys import CoseKey
from devguard.errors import Malformed
from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot_parse import Parsed, Tlv, hash_signed_part, read_at
from devguard.image.problem import Problem

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
MAX_PURE: Final = 64 << 20  # Ed25519 needs the whole message at once
_HASHERS: Final[dict[int, hashes.HashAlgorithm]] = {layout.SHA256: hashes.SHA256(), layout.SHA384: hashes.SHA384()}


@dataclass(frozen=True, slots=True)
class ImageKey:
    """A key that a bootloader could hold. `signature_type` is the TLV type it signs with, `hash_types` the hash
    TLVs it may sign over; `encoded` its DER form, `hashes` the values a KEYHASH TLV may have for it."""

    public: PublicKey
    name: str
    signature_type: int
    hash_types: tuple[int, ...]
    encoded: bytes
    hashes: tuple[bytes, ...]

    def check(
        self, reader: BinaryIO, parsed: Parsed, tlv: Tlv, digests: dict[int, bytes], pure: bool
    ) -> Problem | None:
        """None when the signature in `tlv` is this key's over the image; else the problem.

        `digests` maps hash TLV types to the image's true digests.
        """
        if tlv.type != self.signature_type:
            detail = f"a {layout.tlv_name(tlv.type)} signature behind the name of a key of type {self.name}"
            return Problem("signature.algorithm", detail, tlv.offset)
        if pure and isinstance(self.public, ed25519.Ed25519PublicKey):
            if parsed.signed_size > MAX_PURE:
                detail = f"a pure Ed25519 signature over {parsed.signed_size} bytes, more than {MAX_PURE}"
                return Problem("image.size", detail, tlv.offset)
            messages = [(layout.SHA512, read_at(reader, 0, parsed.signed_size))]
        else:
            messages = [(number, digests[number]) for number in self.hash_types if number in digests]
            if pure and not messages:
                number = self.hash_types[0]
                messages = [(number, hash_signed_part(reader, parsed, layout.HASH_TLVS[number]))]
        return self._checked(messages, tlv)

    def check_digests(self, digests: dict[int, bytes], tlv: Tlv) -> Problem | None:
        """The same of a signature over one of these digests, by their hash TLV types."""
        return self._checked([(number, digests[number]) for number in self.hash_types if number in digests], tlv)

    def _checked(self, messages: list[tuple[int, bytes]], tlv: Tlv) -> Problem | None:
        if not messages:
            names = " or ".join(layout.TLV_NAMES[number] for number in self.hash_types)
            return Problem("signature.algorithm", f"a key of type {self.name} signs over {names}", tlv.offset)
        if any(self._verifies(tlv.value, number, message) for number, message in messages):
            return None
        return Problem("signature.invalid", f"the signature is not one of the key {self.name} over this", tlv.offset)

    def _verifies(self, signature: bytes, hash_type: int, message: bytes) -> bool:
        try:
            if isinstance(self.public, ed25519.Ed25519PublicKey):
                self.public.verify(signature, message)
                return True
            prehashed = utils.Prehashed(_HASHERS[hash_type])
            if isinstance(self.public, ec.EllipticCurvePublicKey):
                self.public.verify(_unpadded(signature), message, ec.ECDSA(prehashed))
            else:
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
                self.public.verify(signature, message, pss, prehashed)
        except InvalidSignature:
            return False
        return True


def _unpadded(signature: bytes) -> bytes:
    """The DER signature without the zero bytes that older signing tools appended to a fixed length."""
    length = signature[1] + 2 if len(signature) > 1 else 0
    return signature[:length] if not signature[length:].strip(b"\x00") else signature


def image_key(key: CoseKey | PublicKey) -> ImageKey:
    """The MCUboot view of a P-256, P-384, Ed25519 or RSA-2048/3072 public key; `Malformed("key.malformed")`
    for any other type or size, `Refused("key.weak")` for a point of small order."""
    public = key.to_public() if isinstance(key, CoseKey) else key
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    hash_types: tuple[int, ...]
    if isinstance(public, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        CoseKey.from_public(public)  # refuses points off their curve or of small order
    if isinstance(public, ed25519.Ed25519PublicKey):
        name, signature_type, hash_types = "Ed25519", layout.ED25519, (layout.SHA256, layout.SHA512)
    elif isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        name, signature_type, hash_types = "P-256", layout.ECDSA, (layout.SHA256,)
    elif isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP384R1):
        name, signature_type, hash_types = "P-384", layout.ECDSA, (layout.SHA384,)
    elif isinstance(public, rsa.RSAPublicKey) and public.key_size in (2048, 3072):
        form = serialization.PublicFormat.PKCS1
        signature_type = layout.RSA2048_PSS if public.key_size == 2048 else layout.RSA3072_PSS
        name, hash_types = f"RSA-{public.key_size}", (layout.SHA256,)
    else:
        raise Malformed("key.malformed", "MCUboot signs with P-256, P-384, Ed25519, RSA-2048 or RSA-3072 keys only")
    encoded = public.public_bytes(serialization.Encoding.DER, form)
    # The bootloader hashes keys with the algorithm it hashes images with.
    labels = [layout.TLV_NAMES[number] for number in hash_types]
    return ImageKey(public, name, signature_type, hash_types, encoded, tuple(_hash(label, encoded) for label in labels))


def _hash(label: str, data: bytes) -> bytes:
    return hashlib.new(label, data).digest()


def image_key_from_pem(data: bytes) -> ImageKey:
    """The key in a PEM file, public or private without passphrase; `Malformed("key.malformed")` otherwise."""
    try:
        if b"PRIVATE KEY-----" in data:
            public: object = serialization.load_pem_private_key(data, None).public_key()
        else:
            public = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed("key.malformed", f"not a PEM key that opens without a passphrase: {error}") from None
    if not isinstance(public, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, rsa.RSAPublicKey)):
        raise Malformed("key.malformed", "the PEM file holds no key that can sign images")
    return image_key(public)

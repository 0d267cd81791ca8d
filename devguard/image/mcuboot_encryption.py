"""Encrypted MCUboot images, read with the device's own key: the image key from its TLV, the body as plain bytes.

After MCUboot's design document ("Encrypted images"): AES-CTR of 128 or 256 bits over the body alone, its counter
from zero; the key is wrapped with RSA-OAEP (SHA-256), AES-KW (RFC 3394), or ECIES over P-256 or X25519 with HKDF and
HMAC. The hash and the signature are over the plain image. Nothing decrypted is ever written anywhere.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from devguard.errors import Malformed, Refused
from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot_parse import Parsed

RSA, KEY_WRAP, EC256, X25519, X25519_SHA512 = 0x30, 0x31, 0x32, 0x33, 0x34
AES256_FLAG: Final = 0x008
_INFO: Final = b"MCUBoot_ECIES_v1"
_POINT: Final = 65
_X25519_SIZE: Final = 32
_BLOCK: Final = 16


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """The private half that a device holds: `types` are the TLV types it opens. Its bytes are never printed."""

    name: str
    types: tuple[int, ...]
    unwrap: Callable[[int, bytes, int], bytes]  # (TLV type, value, key bytes) -> image key; raises ValueError


def device_key(data: bytes) -> DeviceKey:
    """The key in a file: a PEM private key (P-256, X25519, RSA-2048), or 16 or 32 bytes for AES-KW in base64.

    Raises `Malformed("key.malformed")`.
    """
    if b"-----BEGIN" in data:
        return _from_pem(data)
    try:
        secret = base64.b64decode(data.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) not in (16, 32):
        raise Malformed("key.malformed", "neither a PEM private key nor 16 or 32 bytes for AES-KW in base64")

    def unwrap(_type: int, value: bytes, size: int) -> bytes:
        if len(value) != size + 8:
            raise ValueError(f"{len(value)} bytes of wrapped key, expected {size + 8}")
        try:
            return keywrap.aes_key_unwrap(secret, value)
        except keywrap.InvalidUnwrap as error:
            raise ValueError("it is wrapped for another key") from error

    return DeviceKey(f"AES-KW-{8 * len(secret)}", (KEY_WRAP,), unwrap)


def _from_pem(data: bytes) -> DeviceKey:
    try:
        private: Any = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        detail = f"not a PEM private key that opens without a passphrase: {error}"
        raise Malformed("key.malformed", detail) from None
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size == 2048:
        return DeviceKey("RSA-2048", (RSA,), lambda _type, value, size: _oaep(private, value, size))
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return DeviceKey("P-256", (EC256,), lambda _type, value, size: _ecies(value, _POINT, size, _p256(private)))
    if isinstance(private, x25519.X25519PrivateKey):
        return DeviceKey(
            "X25519",
            (X25519, X25519_SHA512),
            lambda number, value, size: _ecies(
                value, _X25519_SIZE, size, _x25519(private), hashes.SHA512() if number == X25519_SHA512 else None
            ),
        )
    raise Malformed("key.malformed", "MCUboot encrypts for P-256, X25519 and RSA-2048 keys only")


def _oaep(private: rsa.RSAPrivateKey, value: bytes, size: int) -> bytes:
    form = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    key = private.decrypt(value, form)
    if len(key) != size:
        raise ValueError(f"the image key has {len(key)} bytes, the header asks for {size}")
    return key


def _p256(private: ec.EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    def agree(point: bytes) -> bytes:
        return private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(private.curve, point))

    return agree


def _x25519(private: x25519.X25519PrivateKey) -> Callable[[bytes], bytes]:
    return lambda point: private.exchange(x25519.X25519PublicKey.from_public_bytes(point))


def _ecies(
    value: bytes, point: int, size: int, agree: Callable[[bytes], bytes], algorithm: hashes.HashAlgorithm | None = None
) -> bytes:
    """ephemeral public key | HMAC of the wrapped key | wrapped key."""
    algorithm = algorithm or hashes.SHA256()
    mac_size = algorithm.digest_size
    if len(value) != point + mac_size + size:
        raise ValueError(f"{len(value)} bytes of wrapped key, expected {point + mac_size + size}")
    shared = agree(value[:point])
    derived = HKDF(algorithm, size + mac_size, None, _INFO).derive(shared)
    mac, wrapped = value[point : point + mac_size], value[point + mac_size :]
    if not hmac.compare_digest(hmac.digest(derived[size:], wrapped, algorithm.name), mac):
        raise ValueError("its authentication code is wrong: it is wrapped for another key")
    key: bytes = _ctr(derived[:size], 0).update(wrapped)
    return key


def _ctr(key: bytes, block: int) -> Any:
    counter = block.to_bytes(_BLOCK, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor()


def image_key(parsed: Parsed, key: DeviceKey) -> bytes:
    """The key of the image's body. Raises `Refused("key.unknown")` where no TLV is wrapped for this device key, and
    `Malformed("image.format")` where header and TLVs do not say together how it is encrypted."""
    size = 32 if parsed.header.flags & AES256_FLAG else 16
    if not parsed.header.flags & layout.ENCRYPTED_FLAGS:
        raise Malformed("image.format", "there is a wrapped key, but the header says the image is not encrypted")
    found = parsed.of_type(*layout.ENCRYPTION_TLVS)
    if len(found) != 1:
        raise Malformed("image.format", f"{len(found)} wrapped keys, an encrypted image has one")
    tlv = found[0]
    if tlv.type not in key.types:
        name = layout.tlv_name(tlv.type)
        raise Refused("key.unknown", f"the image is encrypted with {name}, the key given is {key.name}")
    try:
        return key.unwrap(tlv.type, tlv.value, size)
    except ValueError as error:
        why = str(error) or "it is wrapped for another key"
        raise Refused("key.unknown", f"the image's key does not open: {why}") from None


class PlainReader(io.RawIOBase):
    """The image as the bootloader sees it after decryption: the body plain, everything else as it stands."""

    def __init__(self, reader: BinaryIO, start: int, size: int, key: bytes) -> None:
        super().__init__()
        self._reader, self._start, self._end, self._key = reader, start, start + size, key
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of the file beneath."""
        if whence == io.SEEK_CUR:
            offset, whence = self._at + offset, io.SEEK_SET
        self._at = self._reader.seek(offset, whence)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Bytes from one part at a time: before the body, of the body, behind it."""
        view = memoryview(buffer).cast("B")
        inside = self._start <= self._at < self._end
        limit = self._end if inside else self._start if self._at < self._start else self._at + len(view)
        wanted = min(len(view), limit - self._at)
        self._reader.seek(self._at)
        data = self._reader.read(wanted)
        if inside and data:
            skip = (self._at - self._start) % _BLOCK
            plain = _ctr(self._key, (self._at - self._start) // _BLOCK).update(bytes(skip) + data)
            data = plain[skip:]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def plain_reader(reader: BinaryIO, parsed: Parsed, key: DeviceKey) -> io.BufferedReader:
    """See `PlainReader`; raises as `image_key` does."""
    header = parsed.header
    return io.BufferedReader(
        PlainReader(reader, header.header_size, header.image_size, image_key(parsed, key)), 1 << 16
    )

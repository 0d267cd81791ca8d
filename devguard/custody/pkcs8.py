"""Encrypted PKCS#8 (RFC 5958) with PBES2, scrypt (RFC 7914) and AES-256-CBC: a structure any OpenSSL can open.

Written by hand because the usual writer offers only a weak derivation from the passphrase. The cost that a file may
demand is bounded before anything is derived, so a hostile file cannot eat memory or time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from devguard.custody.memory import MemorySigner
from devguard.errors import Malformed, Refused

_SEQUENCE, _OCTETS, _INTEGER, _OID = 0x30, 0x04, 0x02, 0x06
_PBES2: Final = bytes.fromhex("2a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("2b06010401da47040b")
_AES256_CBC: Final = bytes.fromhex("60864801650304012a")
COST, BLOCK, PARALLEL = 1 << 14, 8, 5  # 16 MiB, five passes
MAX_COST, MAX_PARALLEL = 1 << 17, 16  # at most 128 MiB
MAX_WORK = 1 << 19  # of cost times parallelism: some seconds, six times what is written here
MAX_PASSPHRASE: Final = 1024


def encrypt(
    signer: MemorySigner, passphrase: bytes, random: Callable[[int], bytes], parallel: int | None = None
) -> bytes:
    """EncryptedPrivateKeyInfo (DER) of a signer's key. `random(n)` gives n bytes for salt and IV; `parallel` passes of
    scrypt, fewer than `PARALLEL` only for keys that are thrown away.

    Raises `Refused("key.passphrase")` for an empty or over-long passphrase.
    """
    check_passphrase(passphrase)
    salt, iv = random(16), random(16)
    passes = PARALLEL if parallel is None else parallel
    key = Scrypt(salt=salt, length=32, n=COST, r=BLOCK, p=passes).derive(passphrase)
    padder = padding.PKCS7(128).padder()
    padded = padder.update(signer.private_der()) + padder.finalize()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padded) + encryptor.finalize()
    costs = b"".join(_der(_INTEGER, _unsigned(value)) for value in (COST, BLOCK, passes))
    derivation = _der(_SEQUENCE, _der(_OID, _SCRYPT) + _der(_SEQUENCE, _der(_OCTETS, salt) + costs))
    cipher = _der(_SEQUENCE, _der(_OID, _AES256_CBC) + _der(_OCTETS, iv))
    scheme = _der(_SEQUENCE, _der(_OID, _PBES2) + _der(_SEQUENCE, derivation + cipher))
    return _der(_SEQUENCE, scheme + _der(_OCTETS, sealed))


def decrypt(data: bytes, passphrase: bytes) -> MemorySigner:
    """The signer inside an EncryptedPrivateKeyInfo.

    Raises `Malformed("key.malformed")` for another structure or cost, `Refused("key.passphrase")` when the
    passphrase does not open it (damaged ciphertext cannot be told from a wrong passphrase).
    """
    check_structure(data)
    check_passphrase(passphrase)
    try:
        private = serialization.load_der_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refused("key.passphrase", "the passphrase does not open this key, or the key is damaged") from None
    return MemorySigner(private)


def check_passphrase(passphrase: bytes) -> None:
    """Refuse a passphrase that is empty or longer than 1024 bytes: `Refused("key.passphrase")`."""
    if not 0 < len(passphrase) <= MAX_PASSPHRASE:
        raise Refused("key.passphrase", f"a passphrase has 1 to {MAX_PASSPHRASE} bytes, found {len(passphrase)}")


def check_structure(data: bytes) -> None:
    """Refuse what is not PBES2 with scrypt within bounds and AES-256-CBC: `Malformed("key.malformed")`."""
    body = _last(data, _SEQUENCE)
    scheme, rest = _take(body, _SEQUENCE)
    sealed = _last(rest, _OCTETS)
    derivation, rest = _take(_last(_expect(scheme, _PBES2), _SEQUENCE), _SEQUENCE)
    iv = _last(_expect(_last(rest, _SEQUENCE), _AES256_CBC), _OCTETS)
    salt, costs = _take(_last(_expect(derivation, _SCRYPT), _SEQUENCE), _OCTETS)
    numbers: list[int] = []
    while costs and len(numbers) < 4:
        number, costs = _take(costs, _INTEGER)
        numbers.append(int.from_bytes(number, "big", signed=True))
    if len(numbers) != 3 or not 8 <= len(salt) <= 64 or len(iv) != 16 or not sealed or len(sealed) % 16:
        raise Malformed("key.malformed", "the key's encryption has parameters devguard does not take")
    cost, block, parallel = numbers
    costs_known = cost in {1 << bits for bits in range(14, 18)} and block == BLOCK and 1 <= parallel <= MAX_PARALLEL
    if not costs_known or cost * parallel > MAX_WORK:
        raise Malformed("key.malformed", f"scrypt with N={cost} r={block} p={parallel} is outside the bounds")


def _unsigned(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 128 | width)) + size.to_bytes(width, "big") + content


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Content of the DER element at the start of `data`, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise Malformed("key.malformed", "the private key is not an encrypted PKCS#8 structure")
    size, start = data[1], 2
    if size > 128 and size <= 130:
        start += size - 128
        size = int.from_bytes(data[2:start], "big")
    elif size >= 128:
        raise Malformed("key.malformed", "a length in the private key is not DER or too large")
    content, rest = data[start : start + size], data[start + size :]
    if len(content) != size or _der(tag, content) != data[: start + size]:
        raise Malformed("key.malformed", "the private key is cut short or not DER")
    return content, rest


def _last(data: bytes, tag: int) -> bytes:
    content, rest = _take(data, tag)
    if rest:
        raise Malformed("key.malformed", "bytes follow where the private key should end")
    return content


def _expect(data: bytes, oid: bytes) -> bytes:
    found, rest = _take(data, _OID)
    if found != oid:
        raise Malformed("key.malformed", "the private key is not encrypted with scrypt and AES-256")
    return rest

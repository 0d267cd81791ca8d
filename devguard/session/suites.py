"""Cipher suites 0 to 5 of EDHOC (RFC 9528 sections 3.6 and 10.2).

All six use SHA-256. Suites 0 and 2 have 8-byte tags: they exist for the published traces and are not in
`PRODUCTION`. Suites 6, 24 and 25 are known only by the length of their ephemeral keys, so that a message
that selects them can be parsed and refused for the right reason.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, ChaCha20Poly1305

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.errors import LocalProtocolError, Refused
from devguard.session.ephemeral import Curve

MAX_PLAINTEXT: Final = 65_535  # AES-CCM-16 has a 16-bit length field (RFC 9053 section 4.2)


class Aead(enum.IntEnum):
    """AEAD algorithms of the suites, by COSE number (RFC 9053 section 4)."""

    AES_CCM_16_64_128 = 10
    CHACHA20_POLY1305 = 24
    AES_CCM_16_128_128 = 30

    @property
    def key_length(self) -> int:
        return 32 if self is Aead.CHACHA20_POLY1305 else 16

    @property
    def iv_length(self) -> int:
        return 12 if self is Aead.CHACHA20_POLY1305 else 13

    @property
    def tag_length(self) -> int:
        return 8 if self is Aead.AES_CCM_16_64_128 else 16

    def cipher(self, key: bytes) -> AESCCM | ChaCha20Poly1305:
        """The primitive with its key set; `encrypt(nonce, data, aad)` and `decrypt(...)`."""
        return ChaCha20Poly1305(key) if self is Aead.CHACHA20_POLY1305 else AESCCM(key, self.tag_length)


@dataclass(frozen=True, slots=True)
class Suite:
    """One cipher suite: its number, AEAD, MAC length (static DH), key exchange curve, signature algorithm."""

    value: int
    aead: Aead
    mac_length: int
    curve: Curve
    signature: Algorithm

    @property
    def signature_length(self) -> int:
        """Bytes of a signature: both ES256 over P-256 and Ed25519 make 64."""
        return 64

    def fits(self, key: CoseKey) -> bool:
        """Whether `key` signs with this suite's algorithm. The fully specified names count as the same
        primitive (RFC 9864): ESP256 is ES256 on P-256, Ed25519 is EdDSA on edwards25519."""
        if self.signature is Algorithm.ES256:
            return (key.kty, key.crv) == (2, 1) and key.algorithm in (Algorithm.ES256, Algorithm.ESP256)
        return (key.kty, key.crv) == (1, 6) and key.algorithm in (Algorithm.EDDSA, Algorithm.ED25519)


SUITES: Final = {
    suite.value: suite
    for suite in (
        Suite(0, Aead.AES_CCM_16_64_128, 8, Curve.X25519, Algorithm.EDDSA),
        Suite(1, Aead.AES_CCM_16_128_128, 16, Curve.X25519, Algorithm.EDDSA),
        Suite(2, Aead.AES_CCM_16_64_128, 8, Curve.P256, Algorithm.ES256),
        Suite(3, Aead.AES_CCM_16_128_128, 16, Curve.P256, Algorithm.ES256),
        Suite(4, Aead.CHACHA20_POLY1305, 16, Curve.X25519, Algorithm.EDDSA),
        Suite(5, Aead.CHACHA20_POLY1305, 16, Curve.P256, Algorithm.ES256),
    )
}
PRODUCTION: Final = (3, 5, 1, 4)  # our fixed order of preference; P-256 first, it fits technicians' smart cards
CURVES: Final = {value: suite.curve for value, suite in SUITES.items()} | {
    6: Curve.X25519,
    24: Curve.P384,
    25: Curve.X448,
}


def suite_of(value: int) -> Suite:
    """The suite of that number; `LocalProtocolError` when devguard does not implement it."""
    try:
        return SUITES[value]
    except KeyError:
        raise LocalProtocolError("session.order", f"cipher suite {value} is not implemented") from None


def production_suites(key: CoseKey) -> tuple[int, ...]:
    """The production suites that `key` can sign in, in our order of preference; empty for keys of other kinds.

    Method 0 signs with the suite's algorithm on both sides, so a party supports only the suites of its key.
    """
    return tuple(value for value in PRODUCTION if SUITES[value].fits(key))


def negotiated(offered: Sequence[int], supported: Sequence[int]) -> int | None:
    """The first suite of `offered` (most preferred first) that is in `supported`, or None."""
    return next((value for value in offered if value in supported), None)


def aead_seal(aead: Aead, key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Ciphertext with its tag at the end."""
    if len(plaintext) > MAX_PLAINTEXT:
        raise LocalProtocolError("session.order", f"{len(plaintext)} bytes are too many for one message")
    return aead.cipher(key).encrypt(nonce, plaintext, associated)


def aead_open(aead: Aead, key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes, what: str) -> bytes:
    """The plaintext of `ciphertext`, or `Refused("session.handshake")` naming `what`."""
    if not aead.tag_length <= len(ciphertext) <= MAX_PLAINTEXT + aead.tag_length:
        raise Refused("session.handshake", f"{what} has {len(ciphertext)} bytes, which cannot be one ciphertext")
    try:
        return aead.cipher(key).decrypt(nonce, ciphertext, associated)
    except InvalidTag as error:
        raise Refused("session.handshake", f"{what} does not decrypt: it is not of this session") from error

"""A signer whose private key lives in this process only: for device identities, tests and key files once opened.

Deterministic ECDSA (RFC 6979), so that a poor source of randomness cannot leak the key; ML-DSA hedged as FIPS 204
recommends. The private half leaves through
`private_der` and `private` only, for the key file and the device's own storage.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from devguard.cose.algorithms import EMITTED, Algorithm
from devguard.cose.curves import EC2_ORDERS, EC2_SIZES, Curve
from devguard.cose.keys import CoseKey
from devguard.cose.primitives import HASHES
from devguard.errors import LocalProtocolError, Malformed, Refused

_CURVES: Final[dict[Algorithm, tuple[Curve, ec.EllipticCurve]]] = {
    Algorithm.ESP256: (Curve.P_256, ec.SECP256R1()),
    Algorithm.ESP384: (Curve.P_384, ec.SECP384R1()),
}
_MLDSA: Final[dict[Algorithm, Any]] = {
    Algorithm.ML_DSA_44: mldsa.MLDSA44PrivateKey,
    Algorithm.ML_DSA_65: mldsa.MLDSA65PrivateKey,
    Algorithm.ML_DSA_87: mldsa.MLDSA87PrivateKey,
}


class MemorySigner:
    """A `Signer` over a private key object of the `cryptography` package."""

    __slots__ = ("_algorithm", "_key", "_private")

    def __init__(self, private_key: Any) -> None:
        """Raises `Malformed("key.malformed")`, or `Refused("signature.algorithm")` for a key not of `EMITTED`."""
        public = getattr(private_key, "public_key", None)
        if public is None:
            raise Malformed("key.malformed", f"{type(private_key).__name__} is not a private signature key")
        self._key = CoseKey.from_public(public())
        self._algorithm = self._key.algorithm
        self._private = private_key
        if self._algorithm not in EMITTED:
            raise Refused("signature.algorithm", f"devguard does not sign with {self._algorithm.label}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._algorithm.label} {self._key.fingerprint}>"

    @classmethod
    def generate(cls, algorithm: Algorithm) -> MemorySigner:
        """A new key from the operating system's randomness."""
        if algorithm in _CURVES:
            return cls(ec.generate_private_key(_CURVES[algorithm][1]))
        if algorithm is Algorithm.ED25519:
            return cls(ed25519.Ed25519PrivateKey.generate())
        if algorithm in _MLDSA:
            return cls(_MLDSA[algorithm].generate())
        raise Refused("signature.algorithm", f"devguard makes no {algorithm.label} keys")

    @classmethod
    def from_seed(cls, algorithm: Algorithm, seed: bytes) -> MemorySigner:
        """The key that 32 or more bytes of secret seed determine: the same seed, the same key.

        Ed25519 and ML-DSA take exactly 32 bytes as their standards do; a curve key is the seed reduced into the
        range 1 to n - 1, for which the seed should be 8 bytes longer than the order (FIPS 186-5 A.2.1).
        """
        if algorithm in _CURVES:
            curve, named = _CURVES[algorithm]
            if len(seed) < EC2_SIZES[curve]:
                raise LocalProtocolError("key.weak", f"a seed of at least {EC2_SIZES[curve]} bytes is needed")
            return cls(ec.derive_private_key(int.from_bytes(seed, "big") % (EC2_ORDERS[curve] - 1) + 1, named))
        if len(seed) != 32:
            raise LocalProtocolError("key.weak", "a seed of 32 bytes is needed")
        if algorithm is Algorithm.ED25519:
            return cls(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
        if algorithm in _MLDSA:
            return cls(_MLDSA[algorithm].from_seed_bytes(seed))
        raise Refused("signature.algorithm", f"devguard makes no {algorithm.label} keys")

    @classmethod
    def from_der(cls, data: bytes) -> MemorySigner:
        """The key of an unencrypted PKCS#8 structure; `Malformed("key.malformed")` for anything else."""
        try:
            return cls(serialization.load_der_private_key(data, None))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Malformed("key.malformed", "not a PKCS#8 private key") from None

    @property
    def key(self) -> CoseKey:
        """The public half."""
        return self._key

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of every signature."""
        return self._algorithm

    def sign(self, message: bytes) -> bytes:
        """The signature over `message` in COSE form."""
        if self._algorithm not in _CURVES:
            return bytes(self._private.sign(bytes(message)))
        digest = HASHES[self._algorithm]()
        r, s = decode_dss_signature(self._private.sign(bytes(message), ec.ECDSA(digest, deterministic_signing=True)))
        size = EC2_SIZES[_CURVES[self._algorithm][0]]
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    @property
    def private(self) -> Any:
        """The private key object, for a signer built over the same key."""
        return self._private

    def private_der(self) -> bytes:
        """The private key as unencrypted PKCS#8. Whoever asks for it must protect it."""
        return bytes(
            self._private.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

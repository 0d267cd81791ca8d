"""Signature verification over raw bytes: one function for every algorithm of the room.

It answers only "does this signature fit this key, algorithm and message"; whether the key may use the algorithm
at all is `CoseKey.allows`. ECDSA signatures are r || s of fixed length (RFC 9053 section 2.1), EdDSA is RFC 8032
without context, ML-DSA is FIPS 204 with the empty context (RFC 9964).
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from devguard.cose.algorithms import Algorithm, algorithm_label
from devguard.cose.curves import EC2_ORDERS, EC2_SIZES, Curve
from devguard.errors import Refused

EdwardsKey = ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
MldsaKey = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
PublicKey = ec.EllipticCurvePublicKey | EdwardsKey | MldsaKey

HASHES: Final[dict[int, type[hashes.HashAlgorithm]]] = {
    Algorithm.ES256: hashes.SHA256,
    Algorithm.ESP256: hashes.SHA256,
    Algorithm.ES384: hashes.SHA384,
    Algorithm.ESP384: hashes.SHA384,
    Algorithm.ES512: hashes.SHA512,
    Algorithm.ESP512: hashes.SHA512,
}
CURVE_NAMES: Final = {"secp256r1": Curve.P_256, "secp384r1": Curve.P_384, "secp521r1": Curve.P_521}
FULLY_SPECIFIED: Final = {
    Algorithm.ESP256: Curve.P_256,
    Algorithm.ESP384: Curve.P_384,
    Algorithm.ESP512: Curve.P_521,
}
_EDWARDS: Final = (
    (ed25519.Ed25519PublicKey, frozenset({Algorithm.EDDSA, Algorithm.ED25519})),
    (ed448.Ed448PublicKey, frozenset({Algorithm.EDDSA, Algorithm.ED448})),
)
MLDSA: Final = (
    (mldsa.MLDSA44PublicKey, Algorithm.ML_DSA_44),
    (mldsa.MLDSA65PublicKey, Algorithm.ML_DSA_65),
    (mldsa.MLDSA87PublicKey, Algorithm.ML_DSA_87),
)


def verify_raw(key: PublicKey, algorithm: int, message: bytes, signature: bytes) -> None:
    """Return when `signature` over `message` is valid.

    Raises `Refused`: `signature.algorithm` when the algorithm is unknown or cannot belong to this type of key,
    `signature.invalid` otherwise. ES256, ES384 and ES512 take any NIST curve, as RFC 9053 has it.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        _verify_ecdsa(key, algorithm, message, signature)
        return
    if algorithm not in _possible(key):
        raise disagrees(algorithm, type(key).__name__.removesuffix("PublicKey"))
    try:
        key.verify(bytes(signature), bytes(message))
    except (InvalidSignature, ValueError):
        raise _invalid(algorithm) from None


def _possible(key: EdwardsKey | MldsaKey) -> frozenset[Algorithm]:
    for edwards, allowed in _EDWARDS:
        if isinstance(key, edwards):
            return allowed
    return frozenset(algorithm for kind, algorithm in MLDSA if isinstance(key, kind))


def _verify_ecdsa(key: ec.EllipticCurvePublicKey, algorithm: int, message: bytes, signature: bytes) -> None:
    curve = CURVE_NAMES.get(key.curve.name)
    digest = HASHES.get(algorithm)
    if curve is None or digest is None or FULLY_SPECIFIED.get(Algorithm(algorithm), curve) is not curve:
        raise disagrees(algorithm, key.curve.name)
    size = EC2_SIZES[curve]
    if len(signature) != 2 * size:
        raise Refused("signature.invalid", f"signature of {2 * size} bytes expected, found {len(signature)}")
    r = int.from_bytes(signature[:size], "big")
    s = int.from_bytes(signature[size:], "big")
    order = EC2_ORDERS[curve]
    if not (0 < r < order and 0 < s < order):
        raise Refused("signature.invalid", "r or s of the signature is outside the group")
    try:
        key.verify(encode_dss_signature(r, s), bytes(message), ec.ECDSA(digest()))
    except (InvalidSignature, ValueError):
        raise _invalid(algorithm) from None


def _invalid(algorithm: int) -> Refused:
    return Refused("signature.invalid", f"the {algorithm_label(algorithm)} signature does not match content and key")


def disagrees(algorithm: int, kind: str) -> Refused:
    """The refusal of an algorithm that a key of this kind must not be used with."""
    return Refused("signature.algorithm", f"algorithm {algorithm_label(algorithm)} is not allowed for a {kind} key")

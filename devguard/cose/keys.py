"""Public keys as COSE_Key (RFC 9052 section 7, RFC 9053 section 7, RFC 9964 for ML-DSA).

A `CoseKey` that exists has been checked: lengths fit its type, its point is on its curve and not of small order.
It never holds a private part, and a map that carries one is refused. It says which algorithms policy lets it use
(`allows`), checks signatures (`verify`) and has the one name by which trust knows it (`thumbprint`, RFC 9679).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.curves import AKP_SIZES, EC2_SIZES, OKP_SIZES, Curve, KeyType, check_edwards
from devguard.cose.primitives import CURVE_NAMES, MLDSA, PublicKey, disagrees, verify_raw
from devguard.errors import Malformed, Refused

_CURVES: Final[dict[Curve, ec.EllipticCurve]] = {
    Curve.P_256: ec.SECP256R1(),
    Curve.P_384: ec.SECP384R1(),
    Curve.P_521: ec.SECP521R1(),
}
_EMITS: Final = {
    Curve.P_256: Algorithm.ESP256,
    Curve.P_384: Algorithm.ESP384,
    Curve.P_521: Algorithm.ESP512,
    Curve.ED25519: Algorithm.ED25519,
    Curve.ED448: Algorithm.ED448,
}
# What policy accepts. P-521 and Ed448 verify (`verify_any`) but no object that devguard judges may use them.
_POLICY: Final[dict[int | None, frozenset[Algorithm]]] = {
    Curve.P_256: frozenset({Algorithm.ESP256, Algorithm.ES256}),
    Curve.P_384: frozenset({Algorithm.ESP384}),
    Curve.ED25519: frozenset({Algorithm.ED25519, Algorithm.EDDSA}),
}
_SPECIFIC: Final = {
    Curve.P_256: frozenset({Algorithm.ESP256, Algorithm.ES256, Algorithm.ES384, Algorithm.ES512}),
    Curve.P_384: frozenset({Algorithm.ESP384, Algorithm.ES256, Algorithm.ES384, Algorithm.ES512}),
    Curve.P_521: frozenset({Algorithm.ESP512, Algorithm.ES256, Algorithm.ES384, Algorithm.ES512}),
    Curve.ED25519: frozenset({Algorithm.ED25519, Algorithm.EDDSA}),
    Curve.ED448: frozenset({Algorithm.ED448, Algorithm.EDDSA}),
}
_KTY, _KID, _ALG, _OPS = 1, 2, 3, 4
_CRV, _X, _Y, _D = -1, -2, -3, -4
_PUB, _PRIV = -1, -2
_VERIFY_OP: Final = 2
_LABELS: Final[dict[int, set[int]]] = {KeyType.OKP: {_CRV, _X}, KeyType.EC2: {_CRV, _X, _Y}, KeyType.AKP: {_PUB}}
_SIZES: Final[dict[int, dict[Curve, int]]] = {KeyType.EC2: EC2_SIZES, KeyType.OKP: OKP_SIZES}


@dataclass(frozen=True, slots=True)
class CoseKey:
    """A checked public signature key.

    kty: COSE key type. crv: COSE curve, None for ML-DSA. x: x coordinate (EC2), encoded point (OKP) or ML-DSA
    public key ("pub"). y: y coordinate, EC2 only. alg: the one algorithm the key is limited to, mandatory for
    ML-DSA. Building one raises `Malformed("key.malformed")`, `Refused("key.weak")` or, when `alg` does not belong
    to the type and curve, `Refused("signature.algorithm")`.

    thumbprint: SHA-256 over the required members (RFC 9679 section 3), 32 bytes; `alg` counts for ML-DSA only. Like
    the object that verifies, it is made once, from the members above and nothing else: `replace`, `copy` and `pickle`
    give a key that was checked and named anew.
    """

    kty: int
    crv: int | None
    x: bytes
    y: bytes | None = None
    alg: int | None = None
    thumbprint: bytes = field(init=False, repr=False, compare=False)
    _public: PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        public = self._check_akp() if self.kty == KeyType.AKP else self._check_curve()
        object.__setattr__(self, "_public", public)
        object.__setattr__(self, "thumbprint", hashlib.sha256(wire.encode(self._required())).digest())

    def __reduce__(self) -> tuple[type[CoseKey], tuple[object, ...]]:
        return CoseKey, (self.kty, self.crv, self.x, self.y, self.alg)

    def _check_curve(self) -> PublicKey:
        sizes = _SIZES.get(self.kty)
        curve = next((known for known in sizes or () if known == self.crv), None)
        if sizes is None or curve is None:
            raise Malformed("key.malformed", f"unknown key type {self.kty} with curve {self.crv}")
        if self.alg is not None and self.alg not in _SPECIFIC[curve]:
            raise disagrees(self.alg, curve.name)
        _check_length(self.x, sizes[curve])
        if self.kty == KeyType.OKP:
            if self.y is not None:
                raise Malformed("key.malformed", "an OKP key has no y coordinate")
            check_edwards(curve, self.x)
            return _edwards_public(curve, self.x)
        _check_length(self.y, sizes[curve])
        return _ec_public(curve, self.x, self.y or b"")

    def _check_akp(self) -> PublicKey:
        size = next((length for known, length in AKP_SIZES.items() if known == self.alg), None)
        if size is None:
            raise Malformed("key.malformed", f"an AKP key of unknown algorithm {self.alg}")
        if self.crv is not None or self.y is not None:
            raise Malformed("key.malformed", "an AKP key has neither curve nor y coordinate")
        _check_length(self.x, size)
        return _mldsa_public(self.alg, self.x)

    @classmethod
    def from_map(cls, value: object, code: str = "key.malformed") -> CoseKey:
        """The key of a decoded COSE_Key map.

        `kid` is accepted and forgotten (the thumbprint is the name of a key); `key_ops`, when present, must hold
        "verify". Private parameters and unknown labels refuse. Raises `Malformed(code)`, `Refused("key.weak")`,
        `Refused("key.purpose")`, `Refused("signature.algorithm")`.
        """
        if not isinstance(value, dict):
            raise Malformed(code, f"a COSE_Key is a map, found {type(value).__name__}")
        kty = _integer(value, _KTY, code)
        known = _LABELS.get(kty)
        if known is None:
            raise Malformed(code, f"COSE key type {kty} is not one devguard knows")
        if (_PRIV if kty == KeyType.AKP else _D) in value:
            raise Malformed(code, "a private key where a public key belongs")
        _check_common(value, known, code)
        alg = _integer(value, _ALG, code) if _ALG in value else None
        try:
            if kty == KeyType.AKP:
                return cls(kty, None, _bytes(value, _PUB, code), None, alg)
            y = _bytes(value, _Y, code) if kty == KeyType.EC2 else None
            return cls(kty, _integer(value, _CRV, code), _bytes(value, _X, code), y, alg)
        except Malformed as error:
            raise Malformed(code, error.message) from None

    def to_map(self) -> dict[int, object]:
        """The COSE_Key map: label to value."""
        if self.kty == KeyType.AKP:
            return {_KTY: int(self.kty), _ALG: int(self.alg or 0), _PUB: self.x}
        members: dict[int, object] = {_KTY: int(self.kty), _CRV: int(self.crv or 0), _X: self.x}
        if self.y is not None:
            members[_Y] = self.y
        if self.alg is not None:
            members[_ALG] = int(self.alg)
        return members

    def encode(self) -> bytes:
        """Deterministic CBOR of the COSE_Key."""
        return wire.encode(self.to_map())

    @classmethod
    def decode(cls, data: bytes, code: str = "key.malformed") -> CoseKey:
        """The key of one encoded COSE_Key; errors as `from_map`."""
        value = wire.decode(data, code=code)
        if wire.encode(value) != data:
            raise Malformed(code, "map keys that cannot be told apart")  # 1 and true are one key once decoded
        return cls.from_map(value, code)

    def _required(self) -> dict[int, object]:
        members = self.to_map()
        if self.kty != KeyType.AKP:
            members.pop(_ALG, None)
        return members

    @property
    def fingerprint(self) -> str:
        """The thumbprint as 64 lower-case hexadecimal digits."""
        return self.thumbprint.hex()

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm devguard signs with under this key: the key's own `alg`, else that of its curve."""
        return Algorithm(self.alg) if self.alg is not None else _EMITS[Curve(self.crv or 0)]

    def allows(self, algorithm: int) -> bool:
        """Whether policy lets this key sign with `algorithm`: it fits type and curve, and the key's own `alg`."""
        if self.alg is not None and algorithm != self.alg:
            return False
        if self.kty == KeyType.AKP:
            return True
        return algorithm in _POLICY.get(self.crv, frozenset())

    @classmethod
    def from_public(cls, key: object) -> CoseKey:
        """The COSE form of a public key of the `cryptography` package.

        Raises `Malformed("key.malformed")` for a type that has no place here (RSA, DSA, X25519, other curves),
        `Refused("key.weak")` as everywhere.
        """
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVE_NAMES:
            curve = CURVE_NAMES[key.curve.name]
            size = EC2_SIZES[curve]
            numbers = key.public_numbers()
            return cls(KeyType.EC2, curve, numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big"))
        if isinstance(key, ed25519.Ed25519PublicKey):
            return cls(KeyType.OKP, Curve.ED25519, key.public_bytes_raw())
        if isinstance(key, ed448.Ed448PublicKey):
            return cls(KeyType.OKP, Curve.ED448, key.public_bytes_raw())
        for kind, algorithm in MLDSA:
            if isinstance(key, kind):
                return cls(KeyType.AKP, None, key.public_bytes_raw(), None, algorithm)
        raise Malformed("key.malformed", f"a key of type {type(key).__name__} cannot sign for devguard")

    def to_public(self) -> PublicKey:
        """The key as an object of the `cryptography` package."""
        return self._public

    @classmethod
    def from_pem(cls, data: bytes) -> CoseKey:
        """The key of a PEM public key (SubjectPublicKeyInfo); `Malformed("key.malformed")` for anything else."""
        try:
            public: Any = serialization.load_pem_public_key(data)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Malformed("key.malformed", f"not a PEM public key: {error}") from None
        return cls.from_public(public)

    def verify(self, algorithm: int, message: bytes, signature: bytes) -> None:
        """Return when `signature` is this key's over `message` and policy allows the algorithm.

        Raises `Refused("signature.algorithm")` or `Refused("signature.invalid")`.
        """
        if not self.allows(algorithm):
            raise disagrees(algorithm, self.algorithm.label)
        verify_raw(self._public, algorithm, message, signature)


def verify_any(key: CoseKey, algorithm: int, message: bytes, signature: bytes) -> None:
    """As `CoseKey.verify`, but any algorithm RFC 9053 lets the key type use (ES256 with P-384, Ed448, ...).

    For reading third-party objects; nothing that devguard judges goes through here.
    """
    if key.alg is not None and key.alg != algorithm:
        raise disagrees(algorithm, f"{key.algorithm.label}-only")
    verify_raw(key.to_public(), algorithm, message, signature)


def _check_length(value: bytes | None, size: int) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        found = f"{len(value)} bytes" if isinstance(value, bytes) else "none"
        raise Malformed("key.malformed", f"a coordinate or key of {size} bytes expected, found {found}")


def _check_common(value: dict[Any, Any], known: set[int], code: str) -> None:
    for label in value:
        if type(label) is not int or label not in known | {_KTY, _KID, _ALG, _OPS}:
            raise Malformed(code, f"unknown COSE_Key label {str(label)[:40]!r}")
    if _KID in value and not isinstance(value[_KID], bytes):
        raise Malformed(code, "kid of a COSE_Key is a byte string")
    operations = value.get(_OPS, [_VERIFY_OP])
    if not isinstance(operations, list):
        raise Malformed(code, "key_ops of a COSE_Key is an array")
    if not any(type(operation) is int and operation == _VERIFY_OP for operation in operations):
        raise Refused("key.purpose", "key_ops of the key does not allow to verify signatures")


def _integer(value: dict[Any, Any], label: int, code: str) -> int:
    found = value.get(label)
    if not isinstance(found, int) or isinstance(found, bool):
        raise Malformed(code, f"COSE_Key label {label} must be an integer")
    return found


def _bytes(value: dict[Any, Any], label: int, code: str) -> bytes:
    found = value.get(label)
    if not isinstance(found, bytes):
        raise Malformed(code, f"COSE_Key label {label} must be a byte string")
    return found


def _ec_public(curve: Curve, x: bytes, y: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve], b"\x04" + x + y)
    except ValueError:
        raise Refused("key.weak", f"the public key is not a point of {curve.name.replace('_', '-')}") from None


def _edwards_public(curve: Curve, encoded: bytes) -> PublicKey:
    kind = ed25519.Ed25519PublicKey if curve is Curve.ED25519 else ed448.Ed448PublicKey
    return kind.from_public_bytes(encoded)


def _mldsa_public(algorithm: int | None, public: bytes) -> PublicKey:
    for kind, known in MLDSA:
        if known == algorithm:
            return kind.from_public_bytes(public)
    raise Malformed("key.malformed", f"no ML-DSA parameter set {algorithm}")

"""Key types and curves of COSE keys, their sizes, and what makes a point on them weak.

Numbers are those of RFC 9053 section 7 and RFC 9964 (AKP). The Edwards checks are arithmetic on the public
encoding only (RFC 8032 sections 5.1.3 and 5.2.3): canonical, on the curve, not of small order. They handle no
secret, so they need not run in constant time.
"""

from __future__ import annotations

import enum
from typing import Final

from devguard.cose.algorithms import Algorithm
from devguard.errors import Refused


class KeyType(enum.IntEnum):
    """COSE key types (label 1)."""

    OKP = 1
    EC2 = 2
    AKP = 7


class Curve(enum.IntEnum):
    """COSE elliptic curves that sign (label -1 of OKP and EC2 keys)."""

    P_256 = 1
    P_384 = 2
    P_521 = 3
    ED25519 = 6
    ED448 = 7


EC2_SIZES: Final = {Curve.P_256: 32, Curve.P_384: 48, Curve.P_521: 66}
"""Bytes of one coordinate, and of r and of s in a signature."""

OKP_SIZES: Final = {Curve.ED25519: 32, Curve.ED448: 57}
"""Bytes of an encoded Edwards point; a signature has twice as many."""

AKP_SIZES: Final = {Algorithm.ML_DSA_44: 1312, Algorithm.ML_DSA_65: 1952, Algorithm.ML_DSA_87: 2592}
"""Bytes of an ML-DSA public key (FIPS 204 table 2)."""

EC2_ORDERS: Final = {
    Curve.P_256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    Curve.P_384: int(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
        16,
    ),
    Curve.P_521: int(
        "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa"
        "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
        16,
    ),
}
"""Group orders (SP 800-186): r and s of a signature lie strictly between 0 and the order."""

_P25519: Final = 2**255 - 19
_D25519: Final = -121665 * pow(121666, -1, _P25519) % _P25519
_P448: Final = 2**448 - 2**224 - 1
_D448: Final = -39081 % _P448


def check_edwards(curve: Curve, encoded: bytes) -> None:
    """Refuse an encoded Ed25519 or Ed448 point that is not canonical, off the curve or of small order.

    `encoded` has the curve's length already. Raises `Refused("key.weak")`.
    """
    bits, prime = (255, _P25519) if curve is Curve.ED25519 else (455, _P448)
    y = int.from_bytes(encoded, "little") & ((1 << bits) - 1)
    if y >= prime:
        raise Refused("key.weak", "the public key is not in its one canonical encoding")
    small = _small_order_25519(y) if curve is Curve.ED25519 else _small_order_448(y)
    if small:
        raise Refused("key.weak", "the public key is a point of small order")


def _small_order_25519(y: int) -> bool:
    """Whether the point with this y has an order that divides 8 on -x^2 + y^2 = 1 + d x^2 y^2.

    2P has x = 0 when xy = 0, and y = 0 when x^2 + y^2 = 0; 4 times a point with xy = 0 is the neutral element.
    """
    square = _x_squared((y * y - 1) % _P25519, (_D25519 * y * y + 1) % _P25519, _P25519)
    return y == 0 or square == 0 or (square + y * y) % _P25519 == 0


def _small_order_448(y: int) -> bool:
    """Whether the point with this y has an order that divides 4 on x^2 + y^2 = 1 + d x^2 y^2."""
    square = _x_squared((1 - y * y) % _P448, (1 - _D448 * y * y) % _P448, _P448)
    return y == 0 or square == 0


def _x_squared(numerator: int, denominator: int, prime: int) -> int:
    square = numerator * pow(denominator, -1, prime) % prime
    if square and pow(square, (prime - 1) // 2, prime) != 1:
        raise Refused("key.weak", "the public key is not a point of its curve")
    return square

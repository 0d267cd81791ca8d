"""Ephemeral keys: compact public keys, their validation, and the ECDH shared secret (RFC 9528 sections 3.7, 9.2).

A public key on the wire is the x-coordinate alone (EC2) or the u-coordinate (OKP), with leading zeros kept.
Validation happens when the key is read, before any secret is mixed with it: length, x below the field prime,
point on the curve (SP 800-56A), and for X25519 no point of low order, whose shared secret would be all zero
(RFC 7748 section 6). Long-term keys are not here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, x25519

from devguard.errors import LocalProtocolError, Refused

CODE: Final = "session.handshake"


class Curve(enum.IntEnum):
    """Key exchange curves of the registered cipher suites, by COSE number."""

    P256 = 1
    P384 = 2
    X25519 = 4
    X448 = 5


KEY_LENGTH: Final = {Curve.P256: 32, Curve.P384: 48, Curve.X25519: 32, Curve.X448: 56}
_EC: Final[dict[Curve, ec.EllipticCurve]] = {Curve.P256: ec.SECP256R1(), Curve.P384: ec.SECP384R1()}
_P25519: Final = 2**255 - 19
# u-coordinates of the points whose order divides 8, on the curve and its twist, reduced modulo the prime.
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        _P25519 - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_TRIES: Final = 64


def check_public(curve: Curve, public: bytes, name: str) -> None:
    """Refuse a compact public key of the wrong length, off its curve, or of low order.

    `name` (G_X or G_Y) goes into the reason. Raises `Refused("session.handshake")`. X448 is only measured.
    """
    if len(public) != KEY_LENGTH[curve]:
        raise Refused(CODE, f"{name} has {len(public)} bytes, {curve.name} keys have {KEY_LENGTH[curve]}")
    if curve in _EC:
        _point(curve, public, name)
    elif curve is Curve.X25519:
        u = (int.from_bytes(public, "little") & (2**255 - 1)) % _P25519
        if u in _LOW_ORDER:
            raise Refused(CODE, f"{name} is a point of low order: the shared secret would be all zero")


def _point(curve: Curve, public: bytes, name: str) -> ec.EllipticCurvePublicKey:
    # Either y serves: compact output of ECDH is the x-coordinate alone, which both share.
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_EC[curve], b"\x02" + public)
    except ValueError as error:
        raise Refused(CODE, f"{name} is not the x-coordinate of a point on {curve.name}") from error


class EphemeralKey:
    """One fresh key pair for one handshake; `random` must return that many unpredictable bytes."""

    __slots__ = ("_ec", "_x25519", "curve", "public")

    def __init__(self, curve: Curve, random: Callable[[int], bytes]) -> None:
        self.curve = curve
        self._ec: ec.EllipticCurvePrivateKey | None = None
        self._x25519: x25519.X25519PrivateKey | None = None
        if curve is Curve.X25519:
            self._x25519 = x25519.X25519PrivateKey.from_private_bytes(_draw(random))
            self.public = self._x25519.public_key().public_bytes_raw()
        elif curve is Curve.P256:
            self._ec = ec.derive_private_key(_scalar(random), ec.SECP256R1())
            self.public = self._ec.public_key().public_numbers().x.to_bytes(32, "big")
        else:
            raise LocalProtocolError("session.order", f"no ephemeral keys on {curve.name}")

    def agree(self, peer: bytes, name: str) -> bytes:
        """The 32-byte ECDH shared secret G_XY with the peer's compact public key, validated again here."""
        check_public(self.curve, peer, name)
        if self._ec is not None:
            return self._ec.exchange(ec.ECDH(), _point(self.curve, peer, name))
        if self._x25519 is None:
            raise LocalProtocolError("session.order", "the ephemeral key is gone")
        try:
            return self._x25519.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise Refused(CODE, f"the shared secret with {name} is all zero") from error


def _draw(random: Callable[[int], bytes]) -> bytes:
    drawn = random(32)
    if len(drawn) != 32:
        raise LocalProtocolError("session.order", f"the random source gave {len(drawn)} bytes instead of 32")
    return drawn


def _scalar(random: Callable[[int], bytes]) -> int:
    # Rejection sampling keeps the scalar unbiased (FIPS 186-5 A.2.2); a source that fails 64 times is broken.
    for _ in range(_TRIES):
        scalar = int.from_bytes(_draw(random), "big")
        if 0 < scalar < _P256_ORDER:
            return scalar
    raise LocalProtocolError("session.order", "the random source does not give usable private keys")

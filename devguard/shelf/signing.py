"""Between devguard's keys and TUF's: a custody signer as the tuf package wants it, a public key in its form.

ECDSA on P-256 and P-384, and Ed25519. TUF names no post-quantum scheme: what the tuf package's newer versions have
under that name is their own, and other clients do not read it. The envelopes on a shelf are hybrid whatever signs it.
A key's id on a shelf is its devguard fingerprint (RFC 9679), so people compare one name everywhere.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from securesystemslib.signer import Key, Signature, SSlibKey
from securesystemslib.signer import Signer as TufSigner

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.signer import Signer
from devguard.errors import LocalProtocolError, Refused

_EC: Final = (Algorithm.ESP256, Algorithm.ESP384)
ALGORITHMS: Final = (*_EC, Algorithm.ED25519)


def tuf_key(key: CoseKey) -> SSlibKey:
    """The key in TUF's form; `Refused("signature.algorithm")` for what a shelf's metadata cannot be signed with."""
    if key.algorithm not in ALGORITHMS:
        names = ", ".join(one.label for one in ALGORITHMS)
        raise Refused(
            "signature.algorithm",
            f"a shelf's metadata is not signed with {key.algorithm.label}",
            f"give a key of {names}; the releases on the shelf keep their post-quantum signatures",
        )
    public: Any = key.to_public()
    return SSlibKey.from_crypto(public, keyid=key.fingerprint)


class ShelfSigner(TufSigner):
    """A devguard `Signer` behind the tuf package's interface."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._key = tuf_key(signer.key)

    @property
    def public_key(self) -> Key:
        """The public half in TUF's form."""
        return self._key

    def sign(self, payload: bytes) -> Signature:
        """ECDSA as DER, as TUF writes it; Ed25519 as it is."""
        made = self._signer.sign(payload)
        if self._signer.algorithm in _EC:
            half = len(made) // 2
            made = encode_dss_signature(int.from_bytes(made[:half], "big"), int.from_bytes(made[half:], "big"))
        return Signature(self._key.keyid, made.hex())

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, *_: object) -> TufSigner:
        """Never: keys come from custody."""
        raise LocalProtocolError("shelf.signature", f"a shelf's keys come from custody, not from {priv_key_uri!r}")

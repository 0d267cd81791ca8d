"""A device's own keys: made on it, one for each kind of technician's key, kept as PEM in its state directory.

Method 0 of EDHOC signs with one algorithm on both sides, so there is a P-256 and an Ed25519 key.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import serialization

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import Malformed

KEY_ALGORITHMS: Final = (Algorithm.ESP256, Algorithm.ED25519)


def make_keys() -> tuple[MemorySigner, ...]:
    """New keys from the operating system's randomness, the preferred one first."""
    return tuple(MemorySigner.generate(algorithm) for algorithm in KEY_ALGORITHMS)


def to_pem(signer: MemorySigner) -> bytes:
    """The private key as PEM, for the device's own storage and nothing else."""
    pem: bytes = signer.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def from_pem(pem: bytes) -> MemorySigner:
    """The key in stored PEM; `Malformed("device.state")` for anything else."""
    try:
        return MemorySigner(serialization.load_pem_private_key(pem, None))
    except (ValueError, TypeError) as error:
        raise Malformed("device.state", "a stored device key does not parse") from error

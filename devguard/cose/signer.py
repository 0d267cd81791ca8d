"""The seam between those who ask for a signature and those who keep the key.

A `Signer` may be a key file, a token or a key in memory; the room that holds it decides. It signs raw messages:
building the structure that is signed is the caller's work.
"""

from __future__ import annotations

from typing import Protocol

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey


class Signer(Protocol):
    """Something that signs with one private key and never shows it."""

    @property
    def key(self) -> CoseKey:
        """The public half."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of every signature it makes."""

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: r || s for ECDSA, the bytes of RFC 8032 or FIPS 204 otherwise."""

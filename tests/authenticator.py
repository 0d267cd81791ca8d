"""A WebAuthn authenticator in software (W3C WebAuthn Level 3, section 6), for tests that lie in one field at a time."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def to_text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def to_bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(slots=True)
class Authenticator:
    """One credential. `count`: the signature counter. Every method takes what a liar would change."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = field(default_factory=lambda: os.urandom(32))
    count: int = 0

    def _data(self, name: str, flags: int, attested: bytes = b"") -> bytes:
        self.count += 1
        return hashlib.sha256(name.encode()).digest() + struct.pack(">BI", flags, self.count) + attested

    @staticmethod
    def _client(kind: str, challenge: str, origin: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": False}).encode()

    def register(
        self, options: dict[str, Any], origin: str, *, flags: int = PRESENT | VERIFIED, name: str | None = None
    ) -> dict[str, Any]:
        """The reply to `navigator.credentials.create`, without attestation."""
        point = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + cbor2.dumps(public)
        data = self._data(name or options["rp"]["id"], flags | ATTESTED, attested)
        client = self._client("webauthn.create", options["challenge"], origin)
        made = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return {
            "id": to_text(self.id),
            "rawId": to_text(self.id),
            "type": "public-key",
            "response": {"clientDataJSON": to_text(client), "attestationObject": to_text(made)},
        }

    def sign_in(
        self,
        options: dict[str, Any],
        origin: str,
        *,
        flags: int = PRESENT | VERIFIED,
        name: str | None = None,
        kind: str = "webauthn.get",
    ) -> dict[str, Any]:
        """The reply to `navigator.credentials.get`."""
        data = self._data(name or options["rpId"], flags)
        client = self._client(kind, options["challenge"], origin)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return {
            "id": to_text(self.id),
            "rawId": to_text(self.id),
            "type": "public-key",
            "response": {
                "clientDataJSON": to_text(client),
                "authenticatorData": to_text(data),
                "signature": to_text(signature),
                "userHandle": None,
            },
        }

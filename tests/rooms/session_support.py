"""Test doubles of the session room: signers in memory, credentials that are their own proof, joined machines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError, Refused
from devguard.session.credentials import KcwtResolver, OwnCredential, by_suite
from devguard.session.initiator import EdhocInitiator
from devguard.session.responder import EdhocResponder

ALL_SUITES = (0, 1, 2, 3, 4, 5)


@dataclass
class MemorySigner:
    private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

    @property
    def key(self) -> CoseKey:
        return CoseKey.from_public(self.private.public_key())

    @property
    def algorithm(self) -> Algorithm:
        return self.key.algorithm

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def p256(seed: int) -> MemorySigner:
    return MemorySigner(ec.derive_private_key(seed + 1, ec.SECP256R1()))


def ed(seed: int) -> MemorySigner:
    return MemorySigner(ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(bytes([seed])).digest()))


def entropy(seed: str) -> Callable[[int], bytes]:
    """A reproducible source: the n-th call gives other bytes than all before."""
    calls = 0

    def draw(count: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_256(f"{seed}/{calls}".encode()).digest(count)

    return draw


def cwt(key: CoseKey, name: str) -> bytes:
    """An untagged COSE_Sign1 shaped CWT whose cnf is `key`; its own signature is nobody's business here."""
    claims = wire.encode({2: name, 8: {1: key.to_map()}})
    return wire.encode([wire.encode({1: -9}), {}, claims, bytes(64)])


def own(signer: MemorySigner, name: str) -> OwnCredential:
    return OwnCredential.kcwt(cwt(signer.key, name), signer)


def key_of(credential: bytes) -> CoseKey:
    """The cnf key of a CWT; whatever is wrong with it is one refusal, as a caller's check would make it."""
    try:
        claims: Mapping[int, Any] = wire.decode(wire.decode(credential)[2])
        return CoseKey.from_map(claims[8][1])
    except (DevguardError, LookupError, TypeError) as error:
        raise Refused("session.handshake", "not a CWT with a key") from error


TRUSTING = KcwtResolver(key_of)


def signer_for(suite: int, seed: int) -> MemorySigner:
    return p256(seed) if suite in (2, 3, 5) else ed(seed)


def initiator(
    suite: int = 3, *, seed: str = "i", suites: tuple[int, ...] | None = None, **other: Any
) -> EdhocInitiator:
    arguments: dict[str, Any] = {
        "suites": suites or (suite,),
        "selected": suite,
        "credential": own(signer_for(suite, 1), "technician"),
        "resolver": TRUSTING,
        "random": entropy(seed),
    }
    return EdhocInitiator(**(arguments | other))


def responder(suites: tuple[int, ...] = ALL_SUITES, *, seed: str = "r", **other: Any) -> EdhocResponder:
    arguments: dict[str, Any] = {
        "credentials": by_suite(suites, own(p256(2), "device"), own(ed(2), "device")),
        "resolver": TRUSTING,
        "random": entropy(seed),
    }
    return EdhocResponder(**(arguments | other))


def run(i: EdhocInitiator, r: EdhocResponder) -> list[bytes]:
    """All four messages passed honestly."""
    messages = [i.message_1()]
    r.read_message_1(messages[0])
    messages.append(r.message_2())
    i.read_message_2(messages[1])
    messages.append(i.message_3())
    r.read_message_3(messages[2])
    messages.append(r.message_4())
    i.read_message_4(messages[3])
    return messages

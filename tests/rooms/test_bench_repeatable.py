"""Repeatable ML-DSA-65: what the `cryptography` package verifies, and the same bytes each time."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa

from devguard.bench.repeatable import RepeatableSigner
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner

SEED = bytes(range(32))


def public(seed: bytes) -> mldsa.MLDSA65PublicKey:
    return mldsa.MLDSA65PrivateKey.from_seed_bytes(seed).public_key()


def test_the_verifier_of_the_cryptography_package_accepts_it_and_nothing_near_it() -> None:
    signer = RepeatableSigner(SEED)
    for number in range(6):
        message = b"message %d" % number * number
        signature = signer.sign(message)
        public(SEED).verify(signature, message)
        for at in (0, 48, 3000, len(signature) - 1):
            bad = bytearray(signature)
            bad[at] ^= 1
            with pytest.raises(InvalidSignature):
                public(SEED).verify(bytes(bad), message)
        with pytest.raises(InvalidSignature):
            public(SEED).verify(signature, message + b".")


def test_the_same_seed_and_message_give_the_same_signature() -> None:
    one, two = RepeatableSigner(SEED), RepeatableSigner(SEED)
    assert one.sign(b"x") == two.sign(b"x") == one.sign(b"x")
    assert len({one.sign(b"x"), one.sign(b"y"), RepeatableSigner(bytes(32)).sign(b"x")}) == 3


def test_it_has_the_key_that_the_seed_has_everywhere() -> None:
    signer = RepeatableSigner(SEED)
    assert signer.algorithm is Algorithm.ML_DSA_65
    assert signer.key.fingerprint == MemorySigner.from_seed(Algorithm.ML_DSA_65, SEED).key.fingerprint


@pytest.mark.slow
def test_many_keys_and_messages() -> None:
    for number in range(60):
        seed = hashlib.sha256(b"%d" % number).digest()
        public(seed).verify(RepeatableSigner(seed).sign(seed), seed)

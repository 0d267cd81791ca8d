"""Invariant: what a key or a signed object works out once belongs to that very object and can become no other's.

A key's thumbprint and verifying object come from its members alone, a signed object's headers from its protected bytes
alone; whoever changes a member gets them anew, and nobody can change them in place.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from builders import make_signer
from devguard import wire
from devguard.cose.algorithms import EMITTED, Algorithm
from devguard.cose.headers import protected_for
from devguard.cose.keys import CoseKey
from devguard.cose.many import sign_many
from devguard.cose.sign import Sign1, read_sign, read_sign1, sign1
from devguard.errors import DevguardError, Malformed, Refused

WHO = pytest.mark.parametrize("algorithm", EMITTED, ids=lambda algorithm: algorithm.label)
COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]


def code_of(call: Callable[..., object], *args: object, **named: object) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **named)
    return caught.value.code


@WHO
def test_a_replaced_member_makes_another_key(algorithm: Algorithm) -> None:
    first, second = make_signer(algorithm, "first"), make_signer(algorithm, "second")
    signature = second.sign(b"message")
    made = replace(first.key, x=second.key.x, y=second.key.y)
    assert made == second.key
    assert made.thumbprint == second.key.thumbprint != first.key.thumbprint
    made.verify(algorithm, b"message", signature)
    assert code_of(first.key.verify, algorithm, b"message", signature) == "signature.invalid"
    assert code_of(made.verify, algorithm, b"message", first.sign(b"message")) == "signature.invalid"


def test_one_thumbprint_and_two_policies_stay_two_keys() -> None:
    signer = make_signer(Algorithm.ESP256)
    limited = replace(signer.key, alg=Algorithm.ES256)
    assert limited.thumbprint == signer.key.thumbprint  # alg is no member of an EC2 thumbprint
    assert limited != signer.key
    signature = signer.sign(b"message")
    signer.key.verify(Algorithm.ESP256, b"message", signature)
    assert code_of(limited.verify, Algorithm.ESP256, b"message", signature) == "signature.algorithm"


@WHO
@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_a_copy_is_checked_and_named_anew(algorithm: Algorithm, duplicate: Callable[[Any], Any]) -> None:
    signer = make_signer(algorithm)
    made = duplicate(signer.key)
    assert (made, made.thumbprint) == (signer.key, signer.key.thumbprint)
    made.verify(algorithm, b"message", signer.sign(b"message"))


def test_a_doctored_pickle_gives_no_weak_key_and_no_borrowed_name() -> None:
    one, two = make_signer(Algorithm.ED25519, "one").key, make_signer(Algorithm.ED25519, "two").key
    stored = pickle.dumps(one)
    assert one.thumbprint not in stored
    assert pickle.loads(stored.replace(one.x, two.x)).thumbprint == two.thumbprint
    with pytest.raises(Refused):
        pickle.loads(stored.replace(one.x, bytes(32)))


def test_nobody_gives_a_key_its_name() -> None:
    key, other = make_signer(seed="key").key, make_signer(seed="other").key
    for name in ("x", "alg", "thumbprint", "_public"):
        with pytest.raises(FrozenInstanceError):
            setattr(key, name, getattr(other, name))
    with pytest.raises(ValueError, match="thumbprint"):
        replace(key, thumbprint=other.thumbprint)
    with pytest.raises(TypeError):
        CoseKey(key.kty, key.crv, key.x, key.y, key.alg, other.thumbprint)  # type: ignore[call-arg]  # that is the test
    for part in ("x", "y"):  # what could be changed later is no member
        assert code_of(replace, key, **{part: bytearray(getattr(key, part))}) == "key.malformed"


def test_headers_are_those_of_the_protected_bytes() -> None:
    signer, other = make_signer(Algorithm.ESP256), make_signer(Algorithm.ML_DSA_44)
    made = sign1(signer, b"payload", typ=None)
    moved = replace(made, protected=protected_for(other.algorithm, other.key.thumbprint, None, None))
    assert (moved.algorithm, moved.kid) == (Algorithm.ML_DSA_44, other.key.thumbprint)
    assert code_of(moved.verify, signer.key) == "signature.algorithm"
    assert code_of(moved.verify, other.key) == "signature.invalid"
    made.verify(signer.key)
    body = sign_many([signer, other], b"payload", typ="type")
    assert replace(body, protected=b"").headers == {}
    assert [one.algorithm for one in read_sign(body.encode()).signatures] == [signer.algorithm, other.algorithm]


def test_headers_cannot_be_changed() -> None:
    signer = make_signer(Algorithm.ESP256)
    protected = wire.encode({1: -9, 2: [4], 4: signer.key.thumbprint, 99: {1: [2]}})
    made = Sign1(protected, {4: b"a hint"}, b"payload", b"")
    made = replace(made, signature=signer.sign(made.to_be_signed()))
    headers: Any = made.headers
    for label, value in ((1, -49), (4, b"another"), (99, None)):
        with pytest.raises(TypeError):
            headers[label] = value
    with pytest.raises(AttributeError):
        headers[2].append(99)
    with pytest.raises(TypeError):
        headers[99][1] = ()
    with pytest.raises(FrozenInstanceError):
        made.headers = {}  # type: ignore[misc]  # that is the test
    with pytest.raises(ValueError, match="headers"):
        replace(made, headers={1: -9})
    made.unprotected[4] = b"changed later"  # type: ignore[index]  # no signature covers it, and nothing believes it
    assert made.kid == signer.key.thumbprint
    made.verify(signer.key)


def test_the_strictness_asked_for_is_that_of_the_headers() -> None:
    signer = make_signer(Algorithm.ESP256)
    loose = bytes.fromhex("a1013808")  # -9 in two bytes
    made = Sign1(loose, {}, b"payload", b"")
    data = replace(made, signature=signer.sign(made.to_be_signed())).encode()
    assert code_of(read_sign1, data) == "wire.malformed"
    assert code_of(read_sign1, data, code="envelope.malformed") == "envelope.not-deterministic"
    assert read_sign1(data, deterministic=False).algorithm == Algorithm.ESP256
    for protected in (b"\x80", b"\xff", b"\xa1", "text", None):
        with pytest.raises(Malformed):
            Sign1(protected, {}, None, b"")  # type: ignore[arg-type]  # that is the test

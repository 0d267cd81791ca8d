"""Interop with pycose and cwt (python-cwt), both directions: what we sign they verify, what they sign we verify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cwt
import pytest
from cwt import COSE, COSEKey
from pycose.headers import KID, Algorithm
from pycose.keys import EC2Key, OKPKey
from pycose.messages import Sign1Message, SignMessage

from devguard.cose.algorithms import Algorithm as Alg
from devguard.cose.sign import TYP_GRANT, read_sign, read_sign1, sign1, sign_many
from devguard.custody.memory import MemorySigner
from devguard.errors import Refused

P256 = MemorySigner.from_seed(Alg.ESP256, b"\x11" * 40)
P384 = MemorySigner.from_seed(Alg.ESP384, b"\x12" * 56)
ED = MemorySigner.from_seed(Alg.ED25519, b"\x13" * 32)
CLASSICAL = pytest.mark.parametrize("signer", [P256, P384, ED], ids=["ESP256", "ESP384", "Ed25519"])


class OldNumber:
    """A signer that names its algorithm by the RFC 9053 number, which pycose 1.1 knows."""

    def __init__(self, signer: MemorySigner, algorithm: Alg) -> None:
        self.key, self.algorithm, self.sign = signer.key, algorithm, signer.sign


def secret(signer: MemorySigner) -> bytes:
    if signer is ED:
        return bytes(signer.private.private_bytes_raw())
    return int(signer.private.private_numbers().private_value).to_bytes(len(signer.key.x), "big")


def pycose_key(signer: MemorySigner, *, private: bool) -> Any:
    curve = {P256: "P_256", P384: "P_384", ED: "ED25519"}[signer]
    hidden = {"d": secret(signer)} if private else {}
    if signer is ED:
        return OKPKey(crv=curve, x=signer.key.x, **hidden)
    return EC2Key(crv=curve, x=signer.key.x, y=signer.key.y, **hidden)


def cwt_key(signer: MemorySigner, *, private: bool) -> Any:
    members: dict[int, Any] = dict(signer.key.to_map()) | {2: signer.key.thumbprint, 3: int(signer.algorithm)}
    return COSEKey.new(members | {-4: secret(signer)} if private else members)


OLD = {P256: (Alg.ES256, "ES256"), ED: (Alg.EDDSA, "EDDSA")}
PYCOSE = pytest.mark.parametrize("signer", [P256, ED], ids=["ES256", "EdDSA"])


@PYCOSE
def test_pycose_verifies_ours(signer: MemorySigner) -> None:
    made = sign1(OldNumber(signer, OLD[signer][0]), b"payload", typ=TYP_GRANT, external_aad=b"aad")
    message: Any = Sign1Message.decode(made.encode())
    message.external_aad, message.key = b"aad", pycose_key(signer, private=False)
    assert message.verify_signature()
    message.external_aad = b"bad"
    assert not message.verify_signature()


@PYCOSE
def test_we_verify_pycose(signer: MemorySigner) -> None:
    message: Any = Sign1Message({Algorithm: OLD[signer][1]}, {KID: b"kid"}, b"payload", b"aad")
    message.key = pycose_key(signer, private=True)
    read = read_sign1(message.encode())
    assert (read.algorithm, read.kid) == (OLD[signer][0], b"kid")
    assert read.verify(signer.key, external_aad=b"aad") == b"payload"
    with pytest.raises(Refused):
        read.verify(signer.key, external_aad=b"bad")


def test_pycose_verifies_our_many() -> None:
    signers = [OldNumber(signer, OLD[signer][0]) for signer in (P256, ED)]
    message: Any = SignMessage.decode(sign_many(signers, b"payload", typ=None).encode())
    for found, signer in zip(message.signers, (P256, ED), strict=True):
        found.key = pycose_key(signer, private=False)
        assert found.verify_signature()


@CLASSICAL
def test_cwt_verifies_ours(signer: MemorySigner) -> None:
    made = sign1(signer, b"payload", typ=None, external_aad=b"aad")
    key = cwt_key(signer, private=False)
    assert COSE.new().decode(made.encode(), key, external_aad=b"aad") == b"payload"
    with pytest.raises(cwt.VerifyError):
        COSE.new().decode(made.encode(), key, external_aad=b"bad")


@CLASSICAL
def test_we_verify_cwt(signer: MemorySigner) -> None:
    key = cwt_key(signer, private=True)
    headers = {1: int(signer.algorithm), 4: signer.key.thumbprint}
    made: Any = COSE.new(deterministic_header=True).encode_and_sign(b"payload", key, headers, {}, external_aad=b"aad")
    read = read_sign1(made)
    assert read.kid == signer.key.thumbprint
    assert read.verify(signer.key, external_aad=b"aad") == b"payload"


@CLASSICAL
def test_cwt_and_we_agree_on_many(signer: MemorySigner) -> None:
    ours = sign_many([P256, signer], b"payload", typ=None)
    assert COSE.new().decode(ours.encode(), [cwt_key(signer, private=False)]) == b"payload"
    headers = {1: int(signer.algorithm), 4: signer.key.thumbprint}
    other = cwt.Signer.new(cwt_key(signer, private=True), headers, {})
    theirs: Any = COSE.new().encode_and_sign(b"payload", signers=[other], protected={}, unprotected={})
    assert read_sign(theirs).verify_one(0, signer.key) == b"payload"


@pytest.mark.parametrize("direction", [lambda key: key, lambda key: cwt_key(key, private=False)])
def test_a_changed_payload_fails_on_both_sides(direction: Callable[[MemorySigner], Any]) -> None:
    data = sign1(P256, b"payload", typ=None).encode().replace(b"payload", b"Payload")
    other = direction(P256)
    with pytest.raises((Refused, cwt.VerifyError)):
        if isinstance(other, MemorySigner):
            read_sign1(data).verify(other.key)
        else:
            COSE.new().decode(data, other)

"""Every COSE signature vector of cose-wg/Examples: pass cases verify, fail cases refuse with a coded error."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from devguard.cose.keys import CoseKey, verify_any
from devguard.cose.sign import Sign1, SignMany, read_sign, read_sign1
from devguard.errors import DevguardError, Malformed, Refused

CURVES = {"P-256": (2, 1, 32), "P-384": (2, 2, 48), "P-521": (2, 3, 66), "Ed25519": (1, 6, 32), "Ed448": (1, 7, 57)}
NAMES = [
    *(f"ecdsa-examples/ecdsa-0{n}" for n in (1, 2, 3, 4)),
    *(f"ecdsa-examples/ecdsa-sig-0{n}" for n in (1, 2, 3, 4)),
    *(f"eddsa-examples/eddsa-0{n}" for n in (1, 2)),
    *(f"eddsa-examples/eddsa-sig-0{n}" for n in (1, 2)),
    "sign-tests/ecdsa-01",
    *(f"sign-tests/sign-fail-0{n}" for n in (1, 2, 3, 4, 6, 7)),
    *(f"sign-tests/sign-pass-0{n}" for n in (1, 2, 3)),
    *(f"sign1-tests/sign-fail-0{n}" for n in (1, 2, 3, 4)),
    *(f"sign1-tests/sign-pass-0{n}" for n in (1, 2)),
]


def load(vectors: Path, name: str) -> dict[str, Any]:
    return json.loads((vectors / "cose" / f"{name}.json").read_text("utf-8-sig"))


def key_of(described: dict[str, str]) -> CoseKey:
    kty, crv, size = CURVES[described["crv"]]

    def coordinate(name: str) -> bytes:
        if f"{name}_hex" in described:
            return bytes.fromhex(described[f"{name}_hex"])
        text = described[name]
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).rjust(size, b"\0")

    return CoseKey(kty, crv, coordinate("x"), coordinate("y") if kty == 2 else None)


def algorithm_of(protected: dict[Any, Any], unprotected: Any) -> int:
    found = protected.get(1, unprotected.get(1))
    return found if isinstance(found, int) else 0


def check(case: dict[str, Any]) -> tuple[Sign1 | SignMany, list[bytes]]:
    """Read and verify a case; the object and the structures its signatures cover."""
    given = case["input"]
    data = bytes.fromhex(case["output"]["cbor"])
    untagged = "RemoveCBORTag" in given.get("failures", {})
    if "sign0" in given:
        one = read_sign1(data, tagged=not untagged, deterministic=False)
        aad = bytes.fromhex(given["sign0"].get("external", ""))
        message = one.to_be_signed(external_aad=aad)
        verify_any(key_of(given["sign0"]["key"]), algorithm_of(one.headers, one.unprotected), message, one.signature)
        return one, [message]
    many = read_sign(data, tagged=not untagged, deterministic=False)
    messages = []
    assert len(many.signatures) == len(given["sign"]["signers"])
    for index, (found, signer) in enumerate(zip(many.signatures, given["sign"]["signers"], strict=True)):
        message = many.to_be_signed(index, external_aad=bytes.fromhex(signer.get("external", "")))
        verify_any(key_of(signer["key"]), algorithm_of(found.headers, found.unprotected), message, found.signature)
        messages.append(message)
    return many, messages


@pytest.mark.parametrize("name", NAMES)
def test_vector(vectors: Path, name: str) -> None:
    case = load(vectors, name)
    if case.get("fail"):
        with pytest.raises((Malformed, Refused)) as caught:
            check(case)
        assert caught.value.code in {"wire.malformed", "signature.invalid", "signature.algorithm"}
        return
    read, messages = check(case)
    between = case["intermediates"]
    expected = [signer["ToBeSign_hex"] for signer in between.get("signers", [])] or [between["ToBeSign_hex"]]
    assert messages == [bytes.fromhex(text) for text in expected]
    assert read.payload == case["input"].get("plaintext", "").encode()
    tagged = "RemoveCBORTag" not in case["input"].get("failures", {})
    assert read.encode(tagged) == bytes.fromhex(case["output"]["cbor"])


def test_no_vector_is_left_out(vectors: Path) -> None:
    found = {
        path.relative_to(vectors / "cose").with_suffix("").as_posix() for path in (vectors / "cose").rglob("*.json")
    }
    assert found == set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if "-fail-" not in name])
def test_vector_with_one_bit_changed(vectors: Path, name: str) -> None:
    case = load(vectors, name)
    data = bytes.fromhex(case["output"]["cbor"])
    payload = case["input"].get("plaintext", "").encode()
    for at in (data.index(payload), data.index(payload) + len(payload) - 1, len(data) - 1):
        bad = bytearray(data)
        bad[at] ^= 4
        case["output"]["cbor"] = bytes(bad).hex()
        with pytest.raises(DevguardError):
            check(case)


def test_policy_refuses_what_only_the_vectors_use(vectors: Path) -> None:
    """ES512 with P-256 and Ed448 verify as vectors, and no key is allowed to use them."""
    for name in ("ecdsa-examples/ecdsa-sig-04", "ecdsa-examples/ecdsa-sig-02", "eddsa-examples/eddsa-sig-02"):
        case = load(vectors, name)
        one = read_sign1(bytes.fromhex(case["output"]["cbor"]), deterministic=False)
        with pytest.raises(Refused) as caught:
            one.verify(key_of(case["input"]["sign0"]["key"]))
        assert caught.value.code == "signature.algorithm"

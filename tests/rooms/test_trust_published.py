"""Invariant: a key whose private half anybody can have is no key of a production document, whatever that says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa, x25519
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_public_key

from builders import CAST, DAY, NOW, make_signer, trust_roles
from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.custody.keyfile import KeyInfo, export_public, parse_info
from devguard.errors import DevguardError
from devguard.trust.document import trust_payload
from devguard.trust.model import KeyEntry, Role
from devguard.trust.published import PUBLISHED_TEST_KEYS

SEATS = [(seat, make_signer(seat.algorithm, seat.person)) for seat in CAST]


def listed(key: CoseKey, role: RoleName = RoleName.RELEASE, *, development: bool = False) -> None:
    """Make a document that lists the key, without any mark."""
    roles = {**trust_roles(SEATS), role: Role(1, (KeyEntry(key, "Remy Release"),))}
    trust_payload(version=1, issued=NOW, expires=NOW + DAY, roles=roles, development=development)


def refused(key: CoseKey, *, says: str) -> None:
    assert says in PUBLISHED_TEST_KEYS[key.thumbprint], says
    for role in (RoleName.ROOT, RoleName.RELEASE, RoleName.TECHNICIAN_AUTHORITY):
        with pytest.raises(DevguardError) as caught:
            listed(key, role)
        assert caught.value.code == "key.development", says
        assert says in caught.value.message
    listed(key, development=True)


def test_the_table_is_of_thumbprints_with_their_origin() -> None:
    assert len(PUBLISHED_TEST_KEYS) >= 71
    assert {len(one) for one in PUBLISHED_TEST_KEYS} == {32}
    assert len(set(PUBLISHED_TEST_KEYS.values())) == len(PUBLISHED_TEST_KEYS)
    sources = "MCUboot TF-M SUIT COSE python-tuf securesystemslib DSSE trivial"
    standards = (6979, 7515, 7517, 7518, 8032, 8037, 8392, 8410, 9421, 9500, 9529, 9881, 9964)
    for source in (*sources.split(), *(f"RFC {number}" for number in standards)):
        assert any(source in origin for origin in PUBLISHED_TEST_KEYS.values()), source


@pytest.mark.parametrize("level", [44, 65, 87])
@pytest.mark.parametrize("seed", [bytes(32), bytes(range(32))], ids=["zero", "counting"])
def test_example_keys_of_the_ml_dsa_documents(level: int, seed: bytes) -> None:
    private = getattr(mldsa, f"MLDSA{level}PrivateKey").from_seed_bytes(seed)
    refused(CoseKey.from_public(private.public_key()), says=f"ML-DSA-{level}")


@pytest.mark.parametrize("seed", [bytes(32), b"\x01" * 32, b"\xff" * 32, bytes(range(32))])
def test_keys_of_a_random_source_that_was_none(seed: bytes) -> None:
    refused(
        CoseKey.from_public(ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()), says="trivial Ed25519"
    )
    for curve in (ec.SECP256R1(), ec.SECP384R1()):
        for number in (1, 2):
            refused(
                CoseKey.from_public(ec.derive_private_key(number, curve).public_key()), says=f"private key {number}"
            )


def private_keys(value: Any) -> Iterator[dict[str, Any]]:
    """Every key with a private half in a JSON document."""
    if isinstance(value, dict):
        if "kty" in value and {"d", "d_hex"} & set(value):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from private_keys(one)


def unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_every_private_key_of_the_mcuboot_and_suit_repositories(vectors: Path) -> None:
    seen = 0
    for path, says in (("mcuboot/keys", "MCUboot"), ("suit", "SUIT")):
        for found in json.loads((vectors / path / "published_test_keys.json").read_text()).values():
            private: Any = load_der_private_key(bytes.fromhex(found["private_pkcs8_der_hex"]), None)
            if isinstance(private, (rsa.RSAPrivateKey, x25519.X25519PrivateKey)):
                continue
            refused(CoseKey.from_public(private.public_key()), says=says)
            seen += 1
    assert seen >= 9


def test_every_private_key_of_the_cose_examples(vectors: Path) -> None:
    seen = set()
    for path in sorted((vectors / "cose").rglob("*.json")):
        for found in private_keys(json.loads(path.read_text())):
            if found["crv"] in ("P-256", "P-384"):
                curve = ec.SECP256R1() if found["crv"] == "P-256" else ec.SECP384R1()
                public: Any = ec.derive_private_key(int.from_bytes(unpack(found["d"]), "big"), curve).public_key()
            elif found["crv"] == "Ed25519":
                public = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(found["d_hex"])).public_key()
            else:
                continue  # P-521 and Ed448 are in no role's list
            refused(CoseKey.from_public(public), says="COSE examples")
            seen.add(found["crv"])
    assert seen == {"P-256", "P-384", "Ed25519"}


def test_every_authentication_key_of_the_edhoc_traces(vectors: Path) -> None:
    seen = 0
    for name, trace in json.loads((vectors / "edhoc_rfc9529.json").read_text())["traces"].items():
        for one in trace:
            if "private authentication key" not in one["label"]:
                continue
            secret = bytes.fromhex(one["hex"])
            public: Any = (
                ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key()
                if name.startswith("method_0")
                else ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1()).public_key()
            )
            refused(CoseKey.from_public(public), says="RFC 9529")
            seen += 1
    assert seen == 4


@pytest.mark.parametrize("name", ["root-rsa-2048", "root-rsa-3072", "enc-rsa2048-pub", "enc-x25519-pub"])
def test_published_keys_that_are_no_keys_here(vectors: Path, name: str) -> None:
    path = vectors / f"mcuboot/keys/{name}.pub.pem"
    data = (path if path.is_file() else path.with_name(f"{name}.pem")).read_bytes()
    with pytest.raises(DevguardError) as caught:
        CoseKey.from_pem(data)
    assert caught.value.code == "key.malformed"
    public: Any = load_pem_public_key(data)
    if not hasattr(public, "public_numbers"):
        return
    numbers = public.public_numbers()
    modulus = numbers.n.to_bytes(public.key_size // 8, "big")
    encoded = wire.encode({1: 3, -1: modulus, -2: b"\x01\x00\x01"})  # RFC 8230
    good = export_public(KeyInfo("k", "P", "release", make_signer().key, False)).decode()
    lines = good.splitlines()
    lines[6] = "public: " + base64.urlsafe_b64encode(encoded).rstrip(b"=").decode()
    with pytest.raises(DevguardError) as caught:
        parse_info("\n".join([*lines, ""]).encode())
    assert caught.value.code == "key.malformed"

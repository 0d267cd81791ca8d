"""Invariant: a `CoseKey` that exists is on its curve, of full order, right length and public."""

from __future__ import annotations

import hashlib

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from devguard import wire
from devguard.cose.algorithms import EMITTED, POST_QUANTUM, Algorithm, algorithm_label, algorithm_named
from devguard.cose.keys import CoseKey, verify_any
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Malformed, Refused

P25519 = 2**255 - 19
P256 = 2**256 - 2**224 + 2**192 + 2**96 - 1
L25519 = 2**252 + 27742317777372353535851937790883648493
SIGNERS = {algorithm: MemorySigner.from_seed(algorithm, bytes(range(32)) if algorithm != -51 else bytes(range(56)))
           for algorithm in EMITTED}  # fmt: skip
WHO = pytest.mark.parametrize("algorithm", EMITTED, ids=lambda algorithm: algorithm.label)


def code_of(call: object, *args: object, **named: object) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **named)  # type: ignore[operator]
    return caught.value.code


def test_names_and_numbers() -> None:
    expected = {"ES256": -7, "EdDSA": -8, "ESP256": -9, "Ed25519": -19, "ES384": -35, "ES512": -36}
    expected |= {"ML-DSA-44": -48, "ML-DSA-65": -49, "ML-DSA-87": -50, "ESP384": -51, "ESP512": -52, "Ed448": -53}
    assert {algorithm.label: int(algorithm) for algorithm in Algorithm} == expected
    assert {algorithm_named(label) for label in expected} == set(Algorithm)
    assert {algorithm for algorithm in Algorithm if algorithm.is_post_quantum} == POST_QUANTUM
    assert code_of(algorithm_named, "es256") == "signature.algorithm"
    assert algorithm_label(-9) == "ESP256"
    assert algorithm_label(-999) == "-999"


@WHO
def test_round_trip_and_public_object(algorithm: Algorithm) -> None:
    key = SIGNERS[algorithm].key
    assert key.algorithm is algorithm
    assert CoseKey.decode(key.encode()) == key
    assert CoseKey.from_map(cbor2.loads(key.encode())) == key
    pem = key.to_public().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert CoseKey.from_pem(pem) == key


@WHO
def test_only_its_own_signature_verifies(algorithm: Algorithm) -> None:
    signer = SIGNERS[algorithm]
    signature = signer.sign(b"message")
    signer.key.verify(algorithm, b"message", signature)
    assert code_of(signer.key.verify, algorithm, b"massage", signature) == "signature.invalid"
    for at in range(0, len(signature), max(1, len(signature) // 40)):
        bad = bytearray(signature)
        bad[at] ^= 1
        assert code_of(signer.key.verify, algorithm, b"message", bytes(bad)) == "signature.invalid"
    for wrong in (b"", signature[:-1], signature + b"\0", b"\0" * len(signature), b"\xff" * len(signature)):
        assert code_of(signer.key.verify, algorithm, b"message", wrong) == "signature.invalid"


def test_empty_and_odd_lengths_for_ecdsa_and_ed25519() -> None:
    for algorithm in (Algorithm.ESP256, Algorithm.ED25519):
        for size in (0, 1, 63, 65, 70, 72, 128):
            key = SIGNERS[algorithm].key
            assert code_of(key.verify, algorithm, b"m", b"\1" * size) == "signature.invalid"


@pytest.mark.parametrize("algorithm", [Algorithm.ESP256, Algorithm.ESP384])
def test_ecdsa_r_and_s_stay_inside_the_group(algorithm: Algorithm) -> None:
    signer = SIGNERS[algorithm]
    signature = signer.sign(b"m")
    size = len(signature) // 2
    order = {-9: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551}.get(algorithm) or int(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
    )
    r, s = signature[:size], signature[size:]
    for value in (0, order, order + 1, 2 ** (8 * size) - 1):
        edge = value.to_bytes(size, "big")
        assert code_of(signer.key.verify, algorithm, b"m", edge + s) == "signature.invalid"
        assert code_of(signer.key.verify, algorithm, b"m", r + edge) == "signature.invalid"
    assert code_of(signer.key.verify, algorithm, b"m", r + b"\0" + s) == "signature.invalid"
    der = ec.derive_private_key(5, ec.SECP256R1()).sign(b"m", ec.ECDSA(hashes.SHA256()))
    assert code_of(signer.key.verify, algorithm, b"m", der) == "signature.invalid"


def test_ed25519_s_must_be_reduced() -> None:
    """RFC 8032 section 5.1.7: S in 0..L-1. S + L would be a second signature for the same message."""
    signer = SIGNERS[Algorithm.ED25519]
    signature = signer.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + L25519
    assert s < 2**256
    twin = signature[:32] + s.to_bytes(32, "little")
    assert code_of(signer.key.verify, Algorithm.ED25519, b"m", twin) == "signature.invalid"


def test_policy_by_key() -> None:
    allowed = {
        Algorithm.ESP256: {-9, -7},
        Algorithm.ESP384: {-51},
        Algorithm.ED25519: {-19, -8},
        Algorithm.ML_DSA_44: {-48},
        Algorithm.ML_DSA_65: {-49},
        Algorithm.ML_DSA_87: {-50},
    }
    for own, expected in allowed.items():
        key = SIGNERS[own].key
        assert {number for number in range(-400, 40) if key.allows(number)} == expected
        for number in {*map(int, Algorithm), 0, 5, -999, 2**63} - expected:
            assert code_of(key.verify, number, b"m", b"\1" * 64) == "signature.algorithm"
    p521 = CoseKey.from_public(ec.derive_private_key(7, ec.SECP521R1()).public_key())
    e448 = CoseKey.from_public(ed448.Ed448PrivateKey.from_private_bytes(bytes(57)).public_key())
    assert not any(key.allows(number) for key in (p521, e448) for number in range(-400, 40))
    assert (p521.algorithm, e448.algorithm) == (Algorithm.ESP512, Algorithm.ED448)


def test_a_key_limited_to_one_algorithm() -> None:
    signer = SIGNERS[Algorithm.ESP256]
    limited = CoseKey.from_map(signer.key.to_map() | {3: -7})
    signature = signer.sign(b"m")
    limited.verify(-7, b"m", signature)
    assert limited.algorithm is Algorithm.ES256
    assert code_of(limited.verify, -9, b"m", signature) == "signature.algorithm"
    assert code_of(verify_any, limited, -9, b"m", signature) == "signature.algorithm"
    assert limited.thumbprint == signer.key.thumbprint
    for number in (-8, -19, -51, -48, -999):
        assert code_of(CoseKey.from_map, signer.key.to_map() | {3: number}) == "signature.algorithm"


def test_published_thumbprints() -> None:
    """RFC 9679 section 5.1's key; the three AKP examples of RFC 9964, whose private seed is 32 zero bytes."""
    rfc = {
        1: 2,
        -1: 1,
        -2: bytes.fromhex("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d"),
        -3: bytes.fromhex("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c"),
        2: b"meriadoc.brandybuck@buckland.example",
    }
    assert CoseKey.from_map(rfc).fingerprint == "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"
    published = {
        Algorithm.ML_DSA_44: "b8969ab4b37da9f0684e42647eb8a0be8b5b661ebf5d76f0583bf5b8d3a8059a",
        Algorithm.ML_DSA_65: "b788acf242f1f1d6532926d816e76e1636874267f2a48c84c4e65789ab80cc02",
        Algorithm.ML_DSA_87: "d9bc439f97bd6d4093e68f0f3fcf09c9a97adf888ed7308dd565247a166cb4fa",
    }
    for algorithm, fingerprint in published.items():
        assert MemorySigner.from_seed(algorithm, bytes(32)).key.fingerprint == fingerprint


@WHO
def test_thumbprint_covers_the_required_members_only(algorithm: Algorithm) -> None:
    key = SIGNERS[algorithm].key
    members = key.to_map()
    assert key.thumbprint == hashlib.sha256(cbor2.dumps(members, canonical=True)).digest()
    assert key.fingerprint == key.thumbprint.hex()


def _torsion_ys() -> set[int]:
    """y of all eight points of order 1, 2, 4, 8, found by clearing the large factor of other points."""
    d = -121665 * pow(121666, -1, P25519) % P25519

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        k = d * a[0] * b[0] * a[1] * b[1] % P25519
        x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + k, -1, P25519) % P25519
        return x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P25519) % P25519

    found: set[tuple[int, int]] = set()
    for y in range(2, 60):
        square = (y * y - 1) * pow(d * y * y + 1, -1, P25519) % P25519
        if pow(square, (P25519 - 1) // 2, P25519) != 1:
            continue
        x = pow(square, (P25519 + 3) // 8, P25519)
        x = x if x * x % P25519 == square else x * pow(2, (P25519 - 1) // 4, P25519) % P25519
        total, power, scalar = (0, 1), (x, y), L25519
        while scalar:
            total = add(total, power) if scalar & 1 else total
            power, scalar = add(power, power), scalar >> 1
        for point in (total, (-total[0] % P25519, total[1])):
            found.add(point)
    assert len(found) == 8
    return {y for _, y in found}


def test_small_order_ed25519_keys_refuse() -> None:
    """Every encoding of the 8-torsion: both sign bits, and y + p where it fits in 255 bits."""
    encodings = {
        (value | sign << 255).to_bytes(32, "little")
        for y in _torsion_ys()
        for value in (y, y + P25519)
        if value < 2**255
        for sign in (0, 1)
    }
    assert len(encodings) >= 14
    for encoded in encodings:
        assert code_of(CoseKey, 1, 6, encoded) == "key.weak"


def test_non_canonical_and_off_curve_edwards_keys_refuse() -> None:
    for y in range(P25519, 2**255):
        for sign in (0, 1):
            assert code_of(CoseKey, 1, 6, (y | sign << 255).to_bytes(32, "little")) == "key.weak"
    refused = sum(_refuses(1, 6, y.to_bytes(32, "little")) for y in range(2, 102))
    assert 30 < refused < 70
    p448 = 2**448 - 2**224 - 1
    for y in (0, 1, p448 - 1, p448, p448 + 1, 2**448 - 1, 2**455 - 1):
        for sign in (0, 1):
            assert code_of(CoseKey, 1, 7, (y | sign << 455).to_bytes(57, "little")) == "key.weak"
    refused = sum(_refuses(1, 7, y.to_bytes(57, "little")) for y in range(2, 42))
    assert 10 < refused < 30


def _refuses(*args: object) -> bool:
    try:
        CoseKey(*args)  # type: ignore[arg-type]
    except Refused:
        return True
    return False


def test_points_off_the_curve_or_not_reduced_refuse() -> None:
    key = SIGNERS[Algorithm.ESP256].key
    flipped = bytes((key.x[0], *key.x[1:31], key.x[31] ^ 1))
    assert code_of(CoseKey, 2, 1, flipped, key.y) == "key.weak"
    assert code_of(CoseKey, 2, 1, bytes(32), bytes(32)) == "key.weak"
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    x, y = next(_small_points(b))
    CoseKey(2, 1, x.to_bytes(32, "big"), y.to_bytes(32, "big"))
    assert code_of(CoseKey, 2, 1, (x + P256).to_bytes(32, "big"), y.to_bytes(32, "big")) == "key.weak"
    assert code_of(CoseKey, 2, 2, key.x + bytes(16), (key.y or b"") + bytes(16)) == "key.weak"


def _small_points(b: int):  # type: ignore[no-untyped-def] # a generator of (x, y) with small x
    for x in range(5, 200):
        square = (x**3 - 3 * x + b) % P256
        y = pow(square, (P256 + 1) // 4, P256)
        if y * y % P256 == square:
            yield x, y


@WHO
def test_wrong_lengths_refuse(algorithm: Algorithm) -> None:
    key = SIGNERS[algorithm].key
    label = -1 if algorithm.is_post_quantum else -2
    for value in (b"", key.x[:-1], key.x + b"\0", bytes(2**16), None, "text", 5, True, list(key.x)):
        assert code_of(CoseKey.from_map, key.to_map() | {label: value}) == "key.malformed"


def test_maps_that_are_no_public_key_refuse() -> None:
    p256, ed, akp = (
        SIGNERS[number].key.to_map() for number in (Algorithm.ESP256, Algorithm.ED25519, Algorithm.ML_DSA_65)
    )
    for base, private in ((p256, -4), (ed, -4), (akp, -2)):
        with pytest.raises(Malformed, match="private key"):
            CoseKey.from_map(base | {private: bytes(32)})
        assert code_of(CoseKey.from_map, base | {99: 1}) == "key.malformed"
        assert code_of(CoseKey.from_map, base | {"x": 1}) == "key.malformed"
        assert code_of(CoseKey.from_map, base | {5: b"iv"}) == "key.malformed"
        assert code_of(CoseKey.from_map, base | {2: 5}) == "key.malformed"
        assert code_of(CoseKey.from_map, base | {4: 2}) == "key.malformed"
        assert code_of(CoseKey.from_map, base | {4: [1]}) == "key.purpose"
        assert code_of(CoseKey.from_map, base | {4: [True, "verify"]}) == "key.purpose"
        assert CoseKey.from_map(base | {4: [1, 2], 2: b"id"}) == CoseKey.from_map(base)
        for kty in (0, 3, 4, 5, 2**63, -1, True, "OKP", None):
            assert code_of(CoseKey.from_map, base | {1: kty}) == "key.malformed"
        for missing in base:
            without = {label: value for label, value in base.items() if label != missing}
            assert code_of(CoseKey.from_map, without) == "key.malformed"
    for crv in (0, 4, 6, 8, 2**64 - 1, True, None, "P-256"):
        assert code_of(CoseKey.from_map, p256 | {-1: crv}) == "key.malformed"
    assert code_of(CoseKey.from_map, p256 | {-3: True}) == "key.malformed"
    assert code_of(CoseKey.from_map, akp | {3: -7}) == "key.malformed"
    assert code_of(CoseKey.from_map, akp | {3: -48}) == "key.malformed"
    for value in (None, [], b"", "key", 7):
        assert code_of(CoseKey.from_map, value, "grant.malformed") == "grant.malformed"
    assert code_of(CoseKey.from_map, p256 | {-2: b""}, "grant.malformed") == "grant.malformed"


def test_direct_building_is_checked_too() -> None:
    p256, ed = SIGNERS[Algorithm.ESP256].key, SIGNERS[Algorithm.ED25519].key
    assert code_of(CoseKey, 1, 6, ed.x, ed.x) == "key.malformed"
    assert code_of(CoseKey, 2, 1, p256.x) == "key.malformed"
    assert code_of(CoseKey, 2, 6, p256.x, p256.y) == "key.malformed"
    assert code_of(CoseKey, 3, 1, p256.x, p256.y) == "key.malformed"
    assert code_of(CoseKey, 7, 1, SIGNERS[Algorithm.ML_DSA_44].key.x, None, -48) == "key.malformed"


def test_keys_of_other_kinds_refuse() -> None:
    others = [
        rsa.generate_private_key(65537, 2048).public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
        ec.derive_private_key(7, ec.SECP256K1()).public_key(),
        object(),
    ]
    for other in others:
        assert code_of(CoseKey.from_public, other) == "key.malformed"
    for pem in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff" * 99):
        assert code_of(CoseKey.from_pem, pem) == "key.malformed"


def test_keys_that_collapse_in_python_refuse() -> None:
    """CBOR 1 and true are two map keys, and one key of a dict: the second would silently win."""
    data = SIGNERS[Algorithm.ESP256].key.encode()
    assert data[0] == 0xA4
    doubled = b"\xa5" + data[1:] + b"\xf5\x02"
    assert code_of(CoseKey.decode, doubled) == "key.malformed"


@WHO
def test_truncated_encodings_refuse(algorithm: Algorithm) -> None:
    data = SIGNERS[algorithm].key.encode()
    step = 1 if len(data) < 200 else 97
    for cut in range(0, len(data), step):
        assert code_of(CoseKey.decode, data[:cut]) == "key.malformed"
    assert code_of(CoseKey.decode, data + b"\0") == "key.malformed"


VALUES = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=6)


@given(st.dictionaries(st.integers(-6, 8), VALUES | st.binary(min_size=32, max_size=32), max_size=7))
@settings(max_examples=100)
def test_any_map_is_a_key_or_a_coded_error(value: dict[int, object]) -> None:
    try:
        key = CoseKey.from_map(value)
    except (Malformed, Refused):
        return
    assert CoseKey.decode(key.encode()) == key


@given(st.binary(max_size=80))
@settings(max_examples=100)
def test_any_bytes_are_a_key_or_a_coded_error(data: bytes) -> None:
    try:
        key = CoseKey.decode(data)
    except (Malformed, Refused):
        return
    assert wire.decode(key.encode())


def test_verify_any_takes_what_the_standard_allows() -> None:
    private = ec.derive_private_key(9, ec.SECP384R1())
    r, s = decode_dss_signature(private.sign(b"m", ec.ECDSA(hashes.SHA256())))
    key = CoseKey.from_public(private.public_key())
    signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    verify_any(key, Algorithm.ES256, b"m", signature)
    assert code_of(verify_any, key, Algorithm.ESP256, b"m", signature) == "signature.algorithm"
    assert code_of(key.verify, Algorithm.ES256, b"m", signature) == "signature.algorithm"
    e448 = ed448.Ed448PrivateKey.from_private_bytes(bytes(57))
    public = CoseKey.from_public(e448.public_key())
    for number in (Algorithm.ED448, Algorithm.EDDSA):
        verify_any(public, number, b"m", e448.sign(b"m"))
    assert code_of(verify_any, public, Algorithm.ED25519, b"m", e448.sign(b"m")) == "signature.algorithm"

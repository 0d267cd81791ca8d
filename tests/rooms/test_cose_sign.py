"""Invariant: what verifies is exactly what was signed, for the purpose it was signed for; all else is a coded error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devguard import wire
from devguard.cose.algorithms import EMITTED, Algorithm
from devguard.cose.sign import (
    TYP_GRANT,
    TYP_TRUST,
    Sign1,
    SignMany,
    read_sign,
    read_sign1,
    sign1,
    sign_many,
)
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, LocalProtocolError, Malformed, Refused

P256 = MemorySigner.from_seed(Algorithm.ESP256, b"\x01" * 40)
ED = MemorySigner.from_seed(Algorithm.ED25519, b"\x02" * 32)
PQ = MemorySigner.from_seed(Algorithm.ML_DSA_44, b"\x03" * 32)


def code_of(call: Callable[..., object], *args: object, **named: object) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **named)
    return caught.value.code


def forged(headers: dict[object, object], payload: bytes = b"p", signer: MemorySigner = P256) -> Sign1:
    """A well-signed object with any protected header at all."""
    made = Sign1(wire.encode(headers), {}, payload, b"")
    return replace(made, signature=signer.sign(made.to_be_signed()))


@pytest.mark.parametrize("algorithm", EMITTED, ids=lambda algorithm: algorithm.label)
def test_sign_and_verify(algorithm: Algorithm) -> None:
    signer = MemorySigner.generate(algorithm)
    made = sign1(signer, b"payload", typ=TYP_TRUST, external_aad=b"aad")
    assert made.headers == {1: int(algorithm), 4: signer.key.thumbprint, 16: TYP_TRUST}
    assert (made.algorithm, made.kid, made.unprotected) == (algorithm, signer.key.thumbprint, {})
    back = read_sign1(made.encode())
    assert back == made
    assert back.verify(signer.key, external_aad=b"aad", typ=TYP_TRUST) == b"payload"
    assert code_of(back.verify, signer.key, external_aad=b"add", typ=TYP_TRUST) == "signature.invalid"
    other = MemorySigner.generate(algorithm)
    assert code_of(back.verify, other.key, external_aad=b"aad", typ=TYP_TRUST) == "signature.invalid"


def test_the_signed_structure_is_that_of_the_standard() -> None:
    made = sign1(ED, b"payload", typ=None, external_aad=b"aad")
    expected = cbor2.dumps(["Signature1", made.protected, b"aad", b"payload"])
    assert made.to_be_signed(external_aad=b"aad") == expected
    ED.key.verify(-19, expected, made.signature)


def test_typ_keeps_purposes_apart() -> None:
    grant, bare = sign1(P256, b"p", typ=TYP_GRANT), sign1(P256, b"p", typ=None)
    assert code_of(grant.verify, P256.key, typ=TYP_TRUST) == "key.purpose"
    assert code_of(grant.verify, P256.key) == "key.purpose"
    assert code_of(bare.verify, P256.key, typ=TYP_GRANT) == "key.purpose"
    assert code_of(forged({1: -9, 16: 61}).verify, P256.key, typ=TYP_GRANT) == "key.purpose"


def test_detached_payload() -> None:
    made = sign1(P256, b"payload", typ=None, detached=True)
    assert made.payload is None
    assert read_sign1(made.encode()).verify(P256.key, payload=b"payload") == b"payload"
    assert code_of(made.verify, P256.key, payload=b"Payload") == "signature.invalid"
    assert code_of(made.verify, P256.key) == "signature.invalid"
    attached = sign1(P256, b"payload", typ=None)
    assert code_of(attached.verify, P256.key, payload=b"payload") == "signature.invalid"
    empty = sign1(P256, b"", typ=None, detached=True)
    assert empty.verify(P256.key, payload=b"") == b""


def test_algorithm_must_be_protected_and_fit_the_key() -> None:
    made = Sign1(b"", {1: -9}, b"p", b"")
    made = replace(made, signature=P256.sign(made.to_be_signed()))
    assert made.algorithm == 0
    assert code_of(read_sign1(made.encode()).verify, P256.key) == "signature.algorithm"
    assert code_of(forged({}).verify, P256.key) == "signature.algorithm"
    for number in (0, -8, -19, -48, -51, -35, -36, -999, 2**63, "ES256"):
        assert code_of(forged({1: number}).verify, P256.key) == "signature.algorithm"
    assert forged({1: -7}).verify(P256.key) == b"p"
    assert forged({1: -8}, signer=ED).verify(ED.key) == b"p"
    assert code_of(forged({1: -9}).verify, ED.key) == "signature.algorithm"


def test_critical_headers() -> None:
    assert forged({1: -9, 2: [4], 4: b"k"}).verify(P256.key) == b"p"
    for unknown in (forged({1: -9, 2: [99], 99: 1}), forged({1: -9, 2: ["x"], "x": 1}), forged({1: -9, 2: [2]})):
        assert code_of(read_sign1(unknown.encode()).verify, P256.key) == "signature.critical"
    for broken in ([], None, 4, b"", [5], [True], [b"x"], [None], [[4]], {4: 4}):
        data = forged({1: -9, 2: broken, 4: b"k"}).encode()
        assert code_of(read_sign1, data) == "wire.malformed", broken


def test_header_form() -> None:
    def object_with(protected: bytes, unprotected: object) -> bytes:
        return wire.encode(cbor2.CBORTag(18, [protected, unprotected, b"p", b"s"]))

    good = wire.encode({1: -9})
    assert read_sign1(object_with(good, {4: b"k", 33: [1]})).kid == b"k"
    assert read_sign1(object_with(wire.encode({1: -9, 4: b"a"}), {5: b"iv"})).kid == b"a"
    bad: list[tuple[bytes, object]] = [
        (good, {1: -9}),
        (wire.encode({1: -9, 4: b"k"}), {4: b"k"}),
        (good, {2: [1]}),
        (good, {16: "t"}),
        (good, {4: "k"}),
        (good, {b"x": 1}),
        (good, {None: 1}),
        (good, {True: 1}),
        (good, []),
        (good, None),
        (good + b"\0", {}),
        (b"\xa1\x01", {}),
        (b"\x80", {}),
        (b"\xa2\x01\x28\x01\x28", {}),
        (b"\xa2\x04\x41a\x01\x28", {}),
        (b"\xa1\x18\x01\x28", {}),
        (b"\xa2\x01\x28\xf5\x2f", {}),
        (wire.encode({1: b"x"}), {}),
        (wire.encode({1: None}), {}),
        (wire.encode({1: -9, 4: 5}), {}),
        (wire.encode({1: -9, 16: b"t"}), {}),
        (wire.encode({1: -9, 16: True}), {}),
    ]
    for protected, unprotected in bad:
        assert code_of(read_sign1, object_with(protected, unprotected)) == "wire.malformed", (protected, unprotected)


def test_keys_that_collapse_in_python_refuse() -> None:
    """CBOR 1 and true are two labels, and one key of a dict; the second would silently replace the first."""
    protected = b"\xa2\x01\x28\xf5\x26"
    assert cbor2.loads(protected) == {1: -7}
    data = wire.encode(cbor2.CBORTag(18, [protected, {}, b"p", b"s"]))
    assert code_of(read_sign1, data) == "wire.malformed"
    outside = b"\xd2\x84\x43\xa1\x01\x28\xa2\x05\x01\xf4\x01\x41p\x41s"
    assert read_sign1(outside.replace(b"\xf4\x01", b"\x06\x01")).payload == b"p"
    assert code_of(read_sign1, b"\xd2\x84\x43\xa1\x01\x28\xa2\x00\x01\xf4\x01\x41p\x41s") == "wire.malformed"


def test_shape_and_tag() -> None:
    made = sign1(P256, b"p", typ=None)
    tagged, bare = made.encode(), made.encode(tagged=False)
    assert read_sign1(bare, tagged=False) == read_sign1(tagged, tagged=None) == read_sign1(bare, tagged=None) == made
    assert code_of(read_sign1, bare) == "wire.malformed"
    assert code_of(read_sign1, tagged, tagged=False) == "wire.malformed"
    assert code_of(read_sign1, tagged, code="grant.malformed", tagged=False) == "grant.malformed"
    for tag in (17, 61, 98, 998):
        assert code_of(read_sign1, wire.encode(cbor2.CBORTag(tag, wire.decode(bare)))) == "wire.malformed"
    assert code_of(read_sign1, b"\xd2" + tagged) == "wire.malformed"
    body = [made.protected, {}, b"p", made.signature]
    for at, wrong in ((0, None), (0, {}), (0, "x"), (2, "x"), (2, 0), (3, None), (3, "x"), (3, [])):
        bad = [*body[:at], wrong, *body[at + 1 :]]
        assert code_of(read_sign1, wire.encode(cbor2.CBORTag(18, bad))) == "wire.malformed"
    for bad_body in ([], body[:3], [*body, b""], {}, b"", 5, None):
        assert code_of(read_sign1, wire.encode(cbor2.CBORTag(18, bad_body))) == "wire.malformed"


@pytest.mark.parametrize("head", ["9bffffffffffffffff", "9affffffff", "5b7fffffffffffffff", "d2845affffffff", "d2847b"])
def test_huge_lengths_and_depth_refuse_at_once(head: str) -> None:
    assert code_of(read_sign1, bytes.fromhex(head)) == "wire.malformed"
    assert code_of(read_sign, bytes.fromhex(head)) == "wire.malformed"
    assert code_of(read_sign1, b"\xd2\x84\x40" + b"\x81" * 10_000) == "wire.malformed"
    assert code_of(read_sign1, b"\xd2" * 10_000) == "wire.malformed"


def test_every_truncation_and_every_bit() -> None:
    made = sign1(ED, b"payload", typ=TYP_GRANT)
    data = made.encode()
    for cut in range(len(data)):
        assert code_of(read_sign1, data[:cut]) == "wire.malformed"
    assert code_of(read_sign1, data + b"\0") == "wire.malformed"
    for at in range(len(data) * 8):
        bad = bytearray(data)
        bad[at // 8] ^= 1 << at % 8
        with pytest.raises((Malformed, Refused)):
            read_sign1(bytes(bad)).verify(ED.key, typ=TYP_GRANT)


def test_extra_headers_and_faulty_signers() -> None:
    made = sign1(P256, b"p", typ=None, headers={3: "text/plain"})
    assert read_sign1(made.encode()).headers[3] == "text/plain"
    for label in (1, 2, 4, 16):
        with pytest.raises(LocalProtocolError):
            sign1(P256, b"p", typ=None, headers={label: 1})
        with pytest.raises(LocalProtocolError):
            sign_many([P256], b"p", typ=None, headers={label: 1})

    class Faulty(MemorySigner):
        """A signer whose computation went wrong once."""

        def sign(self, message: bytes) -> bytes:
            return super().sign(message + b"!")

    faulty = Faulty(P256.private)
    assert code_of(sign1, faulty, b"p", typ=None) == "signature.invalid"
    assert code_of(sign_many, [P256, faulty], b"p", typ=None) == "signature.invalid"


def test_many_signatures() -> None:
    made = sign_many([P256, ED, PQ], b"payload", typ=TYP_TRUST, external_aad=b"a")
    back = read_sign(made.encode())
    assert back == made
    assert back.headers == {16: TYP_TRUST}
    assert [one.kid for one in back.signatures] == [signer.key.thumbprint for signer in (P256, ED, PQ)]
    assert [one.algorithm for one in back.signatures] == [-9, -19, -48]
    for index, signer in enumerate((P256, ED, PQ)):
        assert back.verify_one(index, signer.key, external_aad=b"a", typ=TYP_TRUST) == b"payload"
        assert code_of(back.verify_one, index, signer.key, typ=TYP_TRUST) == "signature.invalid"
        assert code_of(back.verify_one, index, signer.key, external_aad=b"a") == "key.purpose"
    assert code_of(back.verify_one, 0, ED.key, external_aad=b"a", typ=TYP_TRUST) == "signature.algorithm"
    for index in (-1, 3, 10**9):
        assert code_of(back.verify_one, index, ED.key, external_aad=b"a", typ=TYP_TRUST) == "signature.missing"
    expected = cbor2.dumps(["Signature", back.protected, back.signatures[1].protected, b"a", b"payload"])
    assert back.to_be_signed(1, external_aad=b"a") == expected


def test_a_signature_of_one_body_does_not_serve_another() -> None:
    one, other = sign_many([P256], b"p", typ=TYP_TRUST), sign_many([P256], b"p", typ=TYP_GRANT)
    moved = replace(other, signatures=one.signatures)
    assert code_of(moved.verify_one, 0, P256.key, typ=TYP_GRANT) == "signature.invalid"
    single = sign1(P256, b"p", typ=TYP_TRUST)
    as_many = SignMany(single.protected, {}, b"p", ())
    moved = replace(one, signatures=(replace(one.signatures[0], signature=single.signature),))
    assert code_of(moved.verify_one, 0, P256.key, typ=TYP_TRUST) == "signature.invalid"
    assert as_many.headers == single.headers


def test_adding_signatures() -> None:
    first = sign_many([P256], b"p", typ=TYP_TRUST)
    both = read_sign(first.encode()).add(ED, TYP_TRUST)
    assert [both.verify_one(index, key, typ=TYP_TRUST) for index, key in enumerate((P256.key, ED.key))] == [b"p"] * 2
    assert code_of(first.add, ED, TYP_GRANT) == "key.purpose"
    assert code_of(first.add, ED, None) == "key.purpose"
    full = replace(first, signatures=first.signatures * 64)
    with pytest.raises(LocalProtocolError):
        full.add(ED, TYP_TRUST)
    with pytest.raises(LocalProtocolError):
        sign_many([], b"p", typ=TYP_TRUST)
    detached = replace(first, payload=None)
    assert detached.add(ED, TYP_TRUST, payload=b"p").verify_one(1, ED.key, payload=b"p", typ=TYP_TRUST) == b"p"


def test_body_and_signatures_of_many_have_the_form_of_one() -> None:
    good = sign_many([P256], b"p", typ=None)
    one = good.signatures[0]
    pairs = [
        (wire.encode({3: "text"}), {3: "text"}),  # one label in both
        (b"", {2: [4]}),  # crit and typ stand protected
        (b"", {16: "type"}),
        (b"", {True: 1}),
        (wire.encode({2: []}), {}),
        (wire.encode({2: [9]}), {}),
        (wire.encode({4: "text"}), {}),
    ]
    for protected, unprotected in pairs:
        body = [protected, unprotected, b"p", [[one.protected, {}, one.signature]]]
        inner = [b"", {}, b"p", [[protected, unprotected, one.signature]]]
        for wrong in (body, inner):
            assert code_of(read_sign, wire.encode(cbor2.CBORTag(98, wrong))) == "wire.malformed"


def test_many_form() -> None:
    made = sign_many([P256], b"p", typ=None)
    one = made.signatures[0]
    item = [one.protected, {}, one.signature]
    good = [made.protected, {}, b"p", [item]]
    assert read_sign(wire.encode(cbor2.CBORTag(98, good))) == made
    assert code_of(read_sign, wire.encode(good)) == "wire.malformed"
    assert code_of(read_sign, wire.encode(cbor2.CBORTag(18, good))) == "wire.malformed"
    for wrong in ([], None, b"", [[]], [item[:2]], [[*item, 1]], [[*item[:2], None]], [item] * 65, [b"x"], {1: item}):
        data = wire.encode(cbor2.CBORTag(98, [*good[:3], wrong]))
        assert code_of(read_sign, data, code="trust.malformed") == "trust.malformed"
    critical = wire.encode({1: -9, 2: [7], 7: 1})
    for body, sign in ((critical, one.protected), (b"", critical)):
        data = wire.encode(cbor2.CBORTag(98, [body, {}, b"p", [[sign, {}, one.signature]]]))
        assert code_of(read_sign(data).verify_one, 0, P256.key) == "signature.critical"


@given(st.binary(max_size=60), st.binary(max_size=20), st.none() | st.text(max_size=20))
@settings(max_examples=40)
def test_round_trip_property(payload: bytes, aad: bytes, typ: str | None) -> None:
    made = sign1(ED, payload, typ=typ, external_aad=aad)
    assert read_sign1(made.encode()).verify(ED.key, external_aad=aad, typ=typ) == payload
    many = sign_many([ED, P256], payload, typ=typ, external_aad=aad)
    assert read_sign(many.encode()).verify_one(1, P256.key, external_aad=aad, typ=typ) == payload


LABELS = st.integers(-3, 20) | st.text(max_size=2) | st.booleans()
SOME = st.none() | st.integers() | st.binary(max_size=3) | st.lists(st.integers(0, 20), max_size=3)
HEADERS = st.dictionaries(LABELS, SOME, max_size=4)


@given(st.sampled_from([18, 98]), HEADERS, HEADERS, st.none() | st.binary(max_size=4), st.binary(max_size=70))
@settings(max_examples=100)
def test_any_shape_reads_back_or_refuses(tag: int, inner: object, outer: object, payload: object, tail: bytes) -> None:
    last = tail if tag == 18 else [[cbor2.dumps(inner, canonical=True), outer, tail]]
    data = cbor2.dumps(cbor2.CBORTag(tag, [cbor2.dumps(inner, canonical=True), outer, payload, last]), canonical=True)
    for read in (read_sign1, read_sign):
        try:
            item = read(data)
        except Malformed:
            continue
        assert item.encode() == data


@given(st.binary(max_size=100))
@settings(max_examples=100)
def test_any_bytes_refuse_with_our_own_error(data: bytes) -> None:
    for read in (read_sign1, read_sign):
        for start in (b"", b"\xd2\x84", b"\xd8\x62\x84"):
            with pytest.raises(Malformed):
                read(start + data, tagged=None)

"""Two EDHOC machines joined: honest runs in all suites, negotiation, and a line that alters, replays, reflects,
crosses and truncates.

Invariant: a run either completes with the same keys on both sides and the right peer on each, or the side that
sees the fault raises a coded error, is failed for good, and gives no keys.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

import session_support as support
from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError, LocalProtocolError, Refused
from devguard.session.credentials import KcwtResolver, OwnCredential, PeerCredential, UnknownCredential, by_suite
from devguard.session.handshake import Machine, State
from devguard.session.initiator import EdhocInitiator
from devguard.session.messages import (
    ErrorMessage,
    Message1,
    Plaintext3,
    parse_error,
    parse_message_1,
    parse_plaintext_3,
)
from devguard.session.responder import EdhocResponder
from devguard.session.suites import PRODUCTION, SUITES, production_suites


def refused(
    call: Callable[[], object], machine: Machine, reason: str = ".", code: str = "session.handshake"
) -> DevguardError:
    """The call raises `code`, and leaves the machine failed with nothing to give."""
    with pytest.raises(DevguardError, match=reason) as caught:
        call()
    assert caught.value.code == code
    assert machine.state is State.FAILED
    for secret in (lambda: machine.exporter(0, b"", 16), lambda: machine.session_keys, lambda: machine.peer):
        with pytest.raises(LocalProtocolError):
            secret()
    return caught.value


@pytest.mark.parametrize("suite", support.ALL_SUITES)
def test_an_honest_run_shares_keys_and_peers(suite: int) -> None:
    i, r = support.initiator(suite), support.responder()
    messages = support.run(i, r)
    assert i.state is r.state is State.COMPLETE
    assert i.session_keys == r.session_keys
    assert i.exporter(32770, b"", 32) == r.exporter(32770, b"", 32) != i.exporter(32771, b"", 32)
    assert i.peer.cred == support.cwt(support.signer_for(suite, 2).key, "device")
    assert r.peer.cred == support.cwt(support.signer_for(suite, 1).key, "technician")
    assert i.peer.key == support.signer_for(suite, 2).key
    assert i.error_message() == r.error_message() == b""
    assert len(set(messages)) == 4
    before = i.exporter(0, b"", 16)
    i.key_update(b"\x01")
    assert before == r.exporter(0, b"", 16) != i.exporter(0, b"", 16)
    r.key_update(b"\x01")
    assert i.session_keys == r.session_keys


def head(major: int, length: int) -> bytes:
    """A CBOR head, written by hand so that the reference below shares no code with devguard."""
    if length < 24:
        return bytes([major << 5 | length])
    return bytes([major << 5 | 24, length]) if length < 256 else bytes([major << 5 | 25]) + length.to_bytes(2, "big")


def bstr(data: bytes) -> bytes:
    return head(2, len(data)) + data


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def expand(prk: bytes, label: int, context: bytes, length: int) -> bytes:
    info = bytes([label]) + bstr(context) + head(0, length)
    return HKDFExpand(hashes.SHA256(), length, info).derive(prk)


@pytest.mark.parametrize("suite", support.ALL_SUITES)
def test_messages_2_to_4_against_a_schedule_written_from_the_rfc(suite: int) -> None:
    """An outsider who knows the initiator's ephemeral secret opens every message with code of its own."""
    drawn: list[bytes] = []

    def note(count: int) -> bytes:
        drawn.append(bytes(range(7, 7 + count)))
        return drawn[-1]

    i, r = support.initiator(suite, random=note), support.responder()
    first, second, third, fourth = support.run(i, r)
    body = second[2:] if second[0] == 0x58 else second[3:]
    g_y, ciphertext_2 = body[:32], body[32:]
    if suite in (2, 3, 5):
        private = ec.derive_private_key(int.from_bytes(drawn[0], "big"), ec.SECP256R1())
        shared = private.exchange(
            ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x03" + g_y)
        )
    else:
        shared = x25519.X25519PrivateKey.from_private_bytes(drawn[0]).exchange(
            x25519.X25519PublicKey.from_public_bytes(g_y)
        )
    th_2 = sha(bstr(g_y) + bstr(sha(first)))
    prk = hmac.new(th_2, shared, "sha256").digest()
    stream = expand(prk, 0, th_2, len(ciphertext_2))
    plain_2 = bytes(a ^ b for a, b in zip(ciphertext_2, stream, strict=True))
    cred_r = support.cwt(support.signer_for(suite, 2).key, "device")
    assert plain_2[:3] == b"\x01\xa1\x0d"  # C_R = 1, ID_CRED_R = {13: ...
    assert plain_2[3 : 3 + len(cred_r)] == cred_r
    th_3 = sha(bstr(th_2) + plain_2 + cred_r)
    key_length, iv_length, tag = (32, 12, 16) if suite > 3 else (16, 13, 8 if suite in (0, 2) else 16)

    def cipher(key: bytes) -> Any:
        return ChaCha20Poly1305(key) if suite > 3 else AESCCM(key, tag)

    aad = b"\x83\x68Encrypt0\x40"
    ciphertext_3 = third[3:] if third[0] == 0x59 else third[2:]
    plain_3 = cipher(expand(prk, 3, th_3, key_length)).decrypt(
        expand(prk, 4, th_3, iv_length), ciphertext_3, aad + bstr(th_3)
    )
    cred_i = support.cwt(support.signer_for(suite, 1).key, "technician")
    assert plain_3[:2] == b"\xa1\x0d"
    assert plain_3[2 : 2 + len(cred_i)] == cred_i
    th_4 = sha(bstr(th_3) + plain_3 + cred_i)
    assert (
        cipher(expand(prk, 8, th_4, key_length)).decrypt(expand(prk, 9, th_4, iv_length), fourth[1:], aad + bstr(th_4))
        == b""
    )
    mac_3 = expand(prk, 6, b"\xa1\x0d" + cred_i + bstr(th_3) + cred_i, 32)
    signed = b"\x84\x6aSignature1" + bstr(b"\xa1\x0d" + cred_i) + bstr(bstr(th_3) + cred_i) + bstr(mac_3)
    technician = support.signer_for(suite, 1).key
    technician.verify(technician.algorithm, signed, plain_3[-64:])
    assert i.session_keys.prk_out == expand(prk, 7, th_4, 32)


# Negotiation (RFC 9528 section 6.3)


def test_suites_i_holds_everything_preferred_to_the_selected_suite() -> None:
    message = parse_message_1(support.initiator(5, suites=(3, 5)).message_1())
    assert message.suites == (3, 5)
    assert parse_message_1(support.initiator(3, suites=(3, 5)).message_1()).suites == (3,)


def test_error_2_leads_to_the_best_common_suite() -> None:
    i, r = support.initiator(3, suites=(3, 5)), support.responder((5,))
    first = i.message_1()
    refused(lambda: r.read_message_1(first), r, "suite 3 was selected")
    error = r.error_message()
    assert error == bytes.fromhex("0205")
    refused(lambda: i.read_message_2(error), i, "takes cipher suites 5")
    assert i.error_message() == b""  # an error message is never answered with another
    assert i.retry_suite() == 5
    support.run(support.initiator(5, suites=(3, 5)), support.responder((5,)))


def test_a_less_preferred_suite_than_both_support_refuses() -> None:
    """Downgrade: error 2 forged on the line makes the bench select 5; the device sees 3 before it."""
    i, r = support.initiator(5, suites=(3, 5)), support.responder((5, 3))
    refused(lambda: r.read_message_1(i.message_1()), r)
    assert parse_error(r.error_message()) == ErrorMessage(2, 3)


def test_no_common_suite_lists_all_of_ours_and_ends() -> None:
    i, r = support.initiator(3), support.responder((1, 4))
    refused(lambda: r.read_message_1(i.message_1()), r)
    assert parse_error(r.error_message()) == ErrorMessage(2, [1, 4])
    refused(lambda: i.read_message_2(r.error_message()), i)
    assert i.retry_suite() is None


def test_altered_suites_i_is_found_by_the_transcript() -> None:
    i, r = support.initiator(5, suites=(3, 5)), support.responder((5,))
    sent = parse_message_1(i.message_1())
    r.read_message_1(Message1(0, (4, 5), sent.g_x, sent.c_i).encode())
    refused(lambda: i.read_message_2(r.message_2()), i)


def test_suites_without_a_credential_of_ours_are_unsupported() -> None:
    r = support.responder(credentials=by_suite(PRODUCTION, support.own(support.p256(2), "device")))
    refused(lambda: r.read_message_1(support.initiator(1).message_1()), r)
    assert parse_error(r.error_message()) == ErrorMessage(2, [3, 5])


def test_production_suites_follow_the_key_and_never_have_short_tags() -> None:
    assert production_suites(support.p256(1).key) == (3, 5)
    assert production_suites(support.ed(1).key) == (1, 4)
    p384 = CoseKey.from_public(ec.derive_private_key(9, ec.SECP384R1()).public_key())
    assert production_suites(p384) == ()
    assert all(SUITES[value].aead.tag_length == 16 for value in PRODUCTION)


@pytest.mark.parametrize("method", [1, 2, 3])
def test_other_methods_parse_and_are_refused_by_policy(method: int) -> None:
    sent = parse_message_1(support.initiator().message_1())
    message = Message1(method, sent.suites, sent.g_x, sent.c_i).encode()
    assert parse_message_1(message).method == method
    r = support.responder()
    refused(lambda: r.read_message_1(message), r, f"method {method}")
    assert parse_error(r.error_message()) == ErrorMessage(
        1, f"session.handshake: method {method} is not supported, only 0"
    )
    with pytest.raises(LocalProtocolError):
        support.initiator(method=method)
    with pytest.raises(LocalProtocolError):
        support.responder(method=method)


# A hostile line


def play(i: EdhocInitiator, r: EdhocResponder, alter: Mapping[int, Callable[[bytes], bytes]]) -> None:
    """Run with message n replaced by alter[n]; raises what the side that sees it raises."""
    same: Callable[[bytes], bytes] = lambda data: data  # noqa: E731
    r.read_message_1(alter.get(1, same)(i.message_1()))
    i.read_message_2(alter.get(2, same)(r.message_2()))
    r.read_message_3(alter.get(3, same)(i.message_3()))
    i.read_message_4(alter.get(4, same)(r.message_4()))


def check_refuses(suite: int, number: int, alter: Callable[[bytes], bytes]) -> None:
    i, r = support.initiator(suite), support.responder((suite,))
    with pytest.raises(DevguardError) as caught:
        play(i, r, {number: alter})
    assert caught.value.code == "session.handshake"
    assert i.state is State.FAILED or r.state is State.FAILED
    failed = i if i.state is State.FAILED else r
    assert (i.state, r.state) != (State.COMPLETE, State.COMPLETE)
    error = failed.error_message()
    assert parse_error(error) is not None or failed.received_error is not None


def flip(at: int, bit: int) -> Callable[[bytes], bytes]:
    def altered(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at % len(data)] ^= 1 << bit
        return bytes(changed)

    return altered


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("suite", [3, 4])
def test_a_flipped_bit_refuses(suite: int, number: int) -> None:
    draw = random.Random(f"{suite}.{number}")
    for _ in range(25):
        check_refuses(suite, number, flip(draw.randrange(1 << 16), draw.randrange(8)))


@pytest.mark.slow
@pytest.mark.parametrize("suite", support.ALL_SUITES)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_flipped_byte_refuses(suite: int, number: int) -> None:
    i, r = support.initiator(suite), support.responder((suite,))
    length = len(support.run(i, r)[number - 1])
    for at in range(length):
        check_refuses(suite, number, flip(at, at % 8))


def test_c_i_is_covered_although_nothing_uses_it() -> None:
    check_refuses(3, 1, lambda data: data[:-1] + b"\x05")


def test_every_truncation_and_any_trailing_byte_refuses() -> None:
    """Each prefix goes to a fresh machine in the right state; the honest peer's messages are made once."""
    honest = support.run(support.initiator(3), support.responder((3,)))
    for number, message in enumerate(honest, 1):
        cuts = sorted({*range(min(len(message), 48)), *range(48, len(message), 7), len(message) - 1})
        for cut in cuts:
            check_refuses(3, number, lambda data, cut=cut: data[:cut])
        for tail in (b"\x00", b"\xf6", b"\x40", b"\xff"):
            check_refuses(3, number, lambda data, tail=tail: data + tail)


GARBAGE = [
    b"",
    b"\x00",
    b"\xff" * 100,
    b"\x9b" + b"\xff" * 8,
    b"\x5b\x7f" + b"\xff" * 7,
    b"\x5a\xff\xff\xff\xff",
    b"\x81" * 10_000,
    b"\xa1" * 10_000,
    b"\x00" * 10_000,
    b"\x58\x20" + bytes(32),
    b"\x00\x03\x58\x20" + bytes(20_000),
    b"\xf9\x7e\x00",
    b"\xd8\x3d\x40",
]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_refuses(number: int, garbage: bytes) -> None:
    check_refuses(3, number, lambda _: garbage)


@given(st.binary(max_size=300))
def test_any_bytes_refuse_with_our_own_error(data: bytes) -> None:
    for machine, call in ((r := support.responder(), r.read_message_1), (i := support.initiator(), i.read_message_2)):
        if isinstance(machine, EdhocInitiator):
            machine.message_1()
        with pytest.raises(DevguardError):
            call(data)
        assert machine.state is State.FAILED


def test_a_message_1_replayed_to_a_new_run_leads_nowhere() -> None:
    """The recorder has no ephemeral secret: message_3 of the recorded run is not of this one."""
    recorded = support.run(support.initiator(), support.responder())
    r = support.responder(seed="later")
    r.read_message_1(recorded[0])
    assert r.message_2() != recorded[1]
    refused(lambda: r.read_message_3(recorded[2]), r, "message_3 does not decrypt")


def test_a_message_that_comes_twice_is_not_processed_twice() -> None:
    i, r = support.initiator(), support.responder()
    first = i.message_1()
    r.read_message_1(first)
    with pytest.raises(LocalProtocolError, match="read_message_1 in state"):
        r.read_message_1(first)
    i.read_message_2(r.message_2())
    r2_first = first
    refused(lambda: r.read_message_3(r2_first), r)


def test_reflected_messages_refuse() -> None:
    i = support.initiator()
    first = i.message_1()
    refused(lambda: i.read_message_2(first), i, "our own message_1")
    i, r = support.initiator(), support.responder()
    r.read_message_1(i.message_1())
    second = r.message_2()
    refused(lambda: r.read_message_3(second), r)
    i.read_message_2(second)
    third = i.message_3()
    refused(lambda: i.read_message_4(third), i, "message_4 does not decrypt")


def test_a_reflected_ephemeral_key_refuses() -> None:
    i = support.initiator()
    g_x = parse_message_1(i.message_1()).g_x
    refused(lambda: i.read_message_2(wire.encode(g_x + bytes(200))), i, "our own ephemeral key")


def test_messages_crossed_between_two_sessions_refuse() -> None:
    pairs = [(support.initiator(seed=f"i{n}"), support.responder(seed=f"r{n}")) for n in range(6)]
    for i, r in pairs:
        r.read_message_1(i.message_1())
    seconds = [r.message_2() for _, r in pairs]
    refused(lambda: pairs[0][0].read_message_2(seconds[1]), pairs[0][0])
    for n in (2, 3, 4, 5):
        pairs[n][0].read_message_2(seconds[n])
    thirds = {n: pairs[n][0].message_3() for n in (2, 3, 4, 5)}
    refused(lambda: pairs[2][1].read_message_3(thirds[3]), pairs[2][1])
    for n in (4, 5):
        pairs[n][1].read_message_3(thirds[n])
    fourths = {n: pairs[n][1].message_4() for n in (4, 5)}
    refused(lambda: pairs[4][0].read_message_4(fourths[5]), pairs[4][0])


@pytest.mark.parametrize("suite", [3, 1])
def test_our_own_credential_is_no_peer(suite: int) -> None:
    mine = support.own(support.signer_for(suite, 1), "technician")
    i, r = support.initiator(suite), support.responder(credentials={suite: mine})
    r.read_message_1(i.message_1())
    refused(lambda: i.read_message_2(r.message_2()), i, "our own credential")


# Proof of possession and credentials


class Imposter:
    """Shows another's public key and signs with its own."""

    def __init__(self, shown: support.MemorySigner, used: support.MemorySigner) -> None:
        self.key, self.algorithm, self.sign = shown.key, shown.algorithm, used.sign


@pytest.mark.parametrize("suite", [1, 3, 4, 5])
def test_a_stolen_credential_without_its_key_refuses(suite: int) -> None:
    def fake(name: str, seed: int) -> OwnCredential:
        real = support.signer_for(suite, seed)
        return OwnCredential.kcwt(support.cwt(real.key, name), Imposter(real, support.signer_for(suite, 9)))

    i, r = support.initiator(suite), support.responder(credentials={suite: fake("device", 2)})
    r.read_message_1(i.message_1())
    refused(lambda: i.read_message_2(r.message_2()), i, "signature over this handshake does not verify")
    i, r = support.initiator(suite, credential=fake("technician", 1)), support.responder()
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    refused(lambda: r.read_message_3(i.message_3()), r, "signature over this handshake does not verify")


def test_a_signature_of_another_run_refuses() -> None:
    """The same key, the same credential, a proof made for another transcript."""
    made: list[bytes] = []
    real = support.p256(1)

    class Recorder(Imposter):
        def __init__(self) -> None:
            super().__init__(real, real)
            self.sign = lambda message: made.append(real.sign(message)) or made[0]

    for seed in ("a", "b"):
        credential = OwnCredential.kcwt(support.cwt(real.key, "technician"), Recorder())
        i, r = support.initiator(credential=credential, seed=f"i{seed}"), support.responder(seed=f"r{seed}")
        r.read_message_1(i.message_1())
        i.read_message_2(r.message_2())
        third = i.message_3()
        if seed == "a":
            r.read_message_3(third)
        else:
            refused(lambda r=r, third=third: r.read_message_3(third), r, "does not verify")


def test_a_credential_that_is_swapped_for_one_of_the_same_key_refuses() -> None:
    """CRED_x is in MAC and signature: a resolver that gives another credential of the same key fails (misbinding)."""

    class Swapping:
        def resolve(self, id_cred: Mapping[Any, Any]) -> PeerCredential:
            honest = support.TRUSTING.resolve(id_cred)
            return PeerCredential(support.cwt(honest.key, "someone else"), honest.key)

    i, r = support.initiator(resolver=Swapping()), support.responder()
    r.read_message_1(i.message_1())
    refused(lambda: i.read_message_2(r.message_2()), i, "does not verify")


def test_a_key_of_another_kind_than_the_suite_signs_with_refuses() -> None:
    class Ed25519Answers:
        def resolve(self, id_cred: Mapping[Any, Any]) -> PeerCredential:
            return PeerCredential(support.TRUSTING.resolve(id_cred).cred, support.ed(2).key)

    i, r = support.initiator(3, resolver=Ed25519Answers()), support.responder()
    r.read_message_1(i.message_1())
    refused(lambda: i.read_message_2(r.message_2()), i, "does not sign in cipher suite 3")
    with pytest.raises(LocalProtocolError):
        support.initiator(3, credential=support.own(support.ed(1), "technician"))
    with pytest.raises(LocalProtocolError):
        support.responder(credentials={3: support.own(support.ed(1), "device")})


def test_a_resolvers_refusal_passes_unchanged_and_only_its_code_goes_on_the_line() -> None:
    def check(_: bytes) -> CoseKey:
        raise Refused("grant.expired", "the grant of Dr. A. Example ended yesterday")

    i, r = support.initiator(), support.responder(resolver=KcwtResolver(check))
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    refused(lambda: r.read_message_3(i.message_3()), r, "Dr. A. Example", code="grant.expired")
    assert parse_error(r.error_message()) == ErrorMessage(1, "grant.expired")
    refused(lambda: i.read_message_4(r.error_message()), i, "EDHOC error 1: 'grant.expired'")
    assert i.received_error == ErrorMessage(1, "grant.expired")


def test_an_unknown_reference_is_error_3() -> None:
    class Empty:
        def resolve(self, id_cred: Mapping[Any, Any]) -> PeerCredential:
            raise UnknownCredential("no credential with that kid")

    mine = OwnCredential({4: b"\x2b"}, support.cwt(support.p256(1).key, "t"), support.p256(1))
    i, r = support.initiator(credential=mine), support.responder(resolver=Empty())
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    refused(lambda: r.read_message_3(i.message_3()), r, "kid")
    assert r.error_message() == bytes.fromhex("03f5")
    refused(lambda: i.read_message_4(b"\x03\xf5"), i, "does not have our credential")


@pytest.mark.parametrize(
    "id_cred",
    [
        {4: b"\x2b"},
        {34: [-15, bytes(8)]},
        {14: {8: {1: {1: 1}}}},
        {13: [b"", {}, b"", b""], 4: b"\x01"},
        {13: b"not an array"},
        {13: [b"", {}, b""]},
        {13: [b"", {}, None, b""]},
        {13: [b"", {}, b"", "text"]},
        {"kcwt": [b"", {}, b"", b""]},
    ],
    ids=str,
)
def test_the_products_resolver_takes_kcwt_alone(id_cred: Mapping[Any, Any]) -> None:
    def check(_: bytes) -> CoseKey:
        pytest.fail("asked about a credential that is no kcwt")

    with pytest.raises(DevguardError) as caught:
        KcwtResolver(check).resolve(id_cred)
    assert caught.value.code == "session.handshake"
    i, r = support.initiator(), support.responder(resolver=KcwtResolver(check))
    i = support.initiator(credential=OwnCredential(id_cred, b"\xa0", support.p256(1)))
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    refused(lambda: r.read_message_3(i.message_3()), r)


def test_own_credentials_come_from_tagged_and_untagged_cwts() -> None:
    bare = support.cwt(support.p256(1).key, "t")
    for tagged in (bare, b"\xd2" + bare, b"\xd8\x3d\xd2" + bare):
        made = OwnCredential.kcwt(tagged, support.p256(1))
        assert (made.cred, wire.encode(made.id_cred)) == (bare, b"\xa1\x0d" + bare)
    for bad in (b"", b"\xd8\x3d", b"\xa0", bare[:-1], bare + b"\x00", b"\xd2\xd2" + bare, wire.encode([1, 2, 3, 4])):
        with pytest.raises(LocalProtocolError):
            OwnCredential.kcwt(bad, support.p256(1))


def test_a_run_without_a_credential_reads_the_peer_and_stops() -> None:
    i, r = support.initiator(credential=None), support.responder()
    r.read_message_1(i.message_1())
    assert i.read_message_2(r.message_2()).key == support.p256(2).key
    assert i.peer.key == support.p256(2).key
    with pytest.raises(LocalProtocolError, match="without a credential"):
        i.message_3()


def test_large_credentials_pass_and_larger_than_the_limit_refuse() -> None:
    """PLAINTEXT_2 beyond 8160 bytes takes the keystream's further parts (appendix G)."""
    for size, fits in ((9_000, True), (12_000, True), (17_000, False)):
        signer = support.p256(2)
        big = wire.encode([b"", {99: bytes(size)}, wire.encode({8: {1: signer.key.to_map()}}), bytes(64)])
        i, r = support.initiator(), support.responder(credentials={3: OwnCredential.kcwt(big, signer)})
        if fits:
            support.run(i, r)
            assert i.peer.cred == big
        else:
            r.read_message_1(i.message_1())
            refused(lambda i=i, r=r: i.read_message_2(r.message_2()), i, "more than the")


# EAD, errors, order


@pytest.mark.parametrize("ead", [b"\x00", b"\x00\x41\xe9", b"\x05", b"\x05\x40", b"\x24\x41\x00"], ids=bytes.hex)
def test_any_ead_item_refuses_by_policy(ead: bytes) -> None:
    first = support.initiator().message_1() + ead
    assert parse_message_1(first).encode() == first
    r = support.responder()
    refused(lambda: r.read_message_1(first), r, "critical EAD" if ead[0] >= 0x20 else "EAD")


def test_ead_inside_message_3_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Plaintext3.encode
    monkeypatch.setattr(Plaintext3, "encode", lambda self: encode(self) + b"\x05")
    i, r = support.initiator(), support.responder()
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    refused(lambda: r.read_message_3(i.message_3()), r, "message_3 carries EAD")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (b"\x01\x64text", "error 1: 'text'"),
        (b"\x01\x64\x1b[2J", r"error 1: '\\x1b\[2J'"),
        (b"\x02\x82\x03\x05", "cipher suites 3, 5"),
        (b"\x03\xf5", "does not have our credential"),
        (b"\x00\x60", "error 0"),
        (b"\x18\x63\xa0", "error 99"),
        (b"\x20\x01", "error -1"),
        (b"\x01\x40", "not a text string"),
        (b"\x03\xf4", "not true"),
        (b"\x02\x81\x03", "surplus array"),
    ],
)
def test_an_error_message_ends_the_run(error: bytes, reason: str) -> None:
    i = support.initiator()
    i.message_1()
    refused(lambda: i.read_message_2(error), i, reason)
    if i.received_error is not None:
        assert i.error_message() == b""
    i = support.initiator()
    r = support.responder()
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    i.message_3()
    refused(lambda: i.read_message_4(error), i, reason)
    refused(lambda: r.read_message_3(error), r, reason)


def test_steps_out_of_order_are_our_own_fault_and_change_nothing() -> None:
    i, r = support.initiator(), support.responder()
    for call in (
        lambda: i.read_message_2(b""),
        i.message_3,
        lambda: i.read_message_4(b""),
        r.message_2,
        lambda: r.read_message_3(b""),
        r.message_4,
        lambda: i.exporter(0, b"", 16),
        lambda: i.key_update(b""),
        lambda: r.suite,
        lambda: r.peer,
    ):
        with pytest.raises(LocalProtocolError):
            call()
    support.run(i, r)
    for call in (i.message_1, r.message_4, lambda: r.read_message_1(b"")):
        with pytest.raises(LocalProtocolError):
            call()
    assert i.state is r.state is State.COMPLETE


def test_no_keys_before_message_4() -> None:
    i, r = support.initiator(), support.responder()
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    third = i.message_3()
    r.read_message_3(third)
    for machine in (i, r):
        with pytest.raises(LocalProtocolError):
            machine.exporter(0, b"", 16)


def test_a_failed_machine_stays_failed() -> None:
    i = support.initiator()
    i.message_1()
    refused(lambda: i.read_message_2(b"\x00"), i)
    for call in (i.message_1, lambda: i.read_message_2(b""), i.message_3, lambda: i.read_message_4(b"")):
        with pytest.raises(LocalProtocolError):
            call()


def test_a_foreign_exception_also_fails_the_machine() -> None:
    def check(_: bytes) -> CoseKey:
        raise ZeroDivisionError

    i, r = support.initiator(resolver=KcwtResolver(check)), support.responder()
    r.read_message_1(i.message_1())
    with pytest.raises(ZeroDivisionError):
        i.read_message_2(r.message_2())
    assert i.state is State.FAILED


def test_a_bad_random_source_is_refused() -> None:
    for source in (lambda n: b"", lambda n: bytes(n), lambda n: b"\xff" * n):
        with pytest.raises(LocalProtocolError, match="random source"):
            support.initiator(random=source).message_1()


def test_a_signer_of_the_wrong_length_is_refused() -> None:
    short = Imposter(support.p256(1), support.p256(1))
    short.sign = lambda message: bytes(70)
    i = support.initiator(credential=OwnCredential.kcwt(support.cwt(short.key, "t"), short))
    r = support.responder()
    r.read_message_1(i.message_1())
    i.read_message_2(r.message_2())
    with pytest.raises(LocalProtocolError, match="70 bytes"):
        i.message_3()


def test_fresh_ephemeral_keys_and_no_secret_in_repr() -> None:
    draw = support.entropy("one source")
    messages = {support.initiator(random=draw).message_1() for _ in range(5)}
    assert len(messages) == 5
    i, r = support.initiator(), support.responder()
    support.run(i, r)
    assert i.session_keys.prk_out.hex() not in repr(i.session_keys)
    assert repr(i.session_keys.prk_out) not in repr(i.session_keys)


def test_keys_limited_to_the_other_name_of_the_primitive_fit() -> None:
    """A cnf key may say ES256 or ESP256, EdDSA or Ed25519: in EDHOC both are the suite's algorithm."""
    for suite, names in ((3, (-7, -9)), (1, (-8, -19))):
        base = support.signer_for(suite, 2)
        for alg in names:
            key = CoseKey(base.key.kty, base.key.crv, base.key.x, base.key.y, alg)

            class Limited(Imposter):
                def __init__(self, key: CoseKey, base: support.MemorySigner) -> None:
                    self.key, self.algorithm, self.sign = key, key.algorithm, base.sign

            mine = OwnCredential.kcwt(support.cwt(key, "device"), Limited(key, base))
            i = support.initiator(suite)
            support.run(i, support.responder(credentials={suite: mine}))
            assert i.peer.key.alg == alg


def test_colliding_map_keys_refuse() -> None:
    """1 and true are one key in memory and two on the wire: what is judged must be what was signed."""
    proof = b"\x58\x40" + bytes(64)
    assert parse_plaintext_3(b"\xa2\x01\x41\x00\x02\x41\x01" + proof, 64).id_cred == {1: b"\x00", 2: b"\x01"}
    with pytest.raises(DevguardError, match="map key"):
        parse_plaintext_3(b"\xa2\x01\x41\x00\xf5\x41\x01" + proof, 64)


def test_suites_i_may_not_name_a_suite_twice() -> None:
    """Two 3s would be a longer way to write the one selected suite (section 5.2.2)."""
    sent = parse_message_1(support.initiator(3).message_1())
    r = support.responder()
    refused(lambda: r.read_message_1(Message1(0, (3, 3), sent.g_x, sent.c_i).encode()), r, "names a cipher suite twice")

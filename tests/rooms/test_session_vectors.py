"""EDHOC against RFC 9529: trace 1 byte for byte through both machines, trace 2 through parsers and key schedule,
and the invalid messages of its last section, each refused for the stated reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

import session_support as support
from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError
from devguard.session import keyschedule as ks
from devguard.session.credentials import OwnCredential, PeerCredential, UnknownCredential
from devguard.session.ephemeral import Curve, EphemeralKey
from devguard.session.initiator import EdhocInitiator
from devguard.session.messages import (
    encode_identifier,
    parse_ciphertext,
    parse_error,
    parse_message_1,
    parse_message_2,
    parse_plaintext_2,
    parse_plaintext_3,
)
from devguard.session.responder import EdhocResponder
from devguard.session.suites import SUITES, aead_seal

Trace = Callable[..., bytes]


@pytest.fixture(scope="module")
def data(vectors: Path) -> Mapping[str, Any]:
    return json.loads((vectors / "edhoc_rfc9529.json").read_text())


def lookup(rows: list[dict[str, Any]]) -> Trace:
    """trace(start of label, section) -> the bytes, of the one row that fits (the first where several do)."""

    def find(label: str, section: str = "") -> bytes:
        found = [
            row
            for row in rows
            if re.sub(r"\s*/\s*", " / ", row["label"]).startswith(label) and section in row["section"]
        ]
        assert found, (label, section)
        return bytes.fromhex(found[0]["hex"])

    return find


@pytest.fixture(scope="module")
def one(data: Mapping[str, Any]) -> Trace:
    return lookup(data["traces"]["method_0_signature_x5t_suite_0"])


@pytest.fixture(scope="module")
def two(data: Mapping[str, Any]) -> Trace:
    return lookup(data["traces"]["method_3_static_dh_kid_suite_2"])


class X5tResolver:
    """What the trace has and the product refuses: certificates by hash."""

    def __init__(self, *known: tuple[bytes, bytes, CoseKey]) -> None:
        self.known = {id_cred: PeerCredential(cred, key) for id_cred, cred, key in known}

    def resolve(self, id_cred: Mapping[Any, Any]) -> PeerCredential:
        try:
            return self.known[wire.encode(id_cred)]
        except KeyError:
            raise UnknownCredential("no such certificate") from None


def trace_machines(one: Trace) -> tuple[EdhocInitiator, EdhocResponder]:
    own, known = {}, {}
    for side, name in (("I", "Initiator"), ("R", "Responder")):
        private = ed25519.Ed25519PrivateKey.from_private_bytes(one(f"{name}'s private authentication key"))
        signer = support.MemorySigner(private)
        id_cred, cred = one(f"ID_CRED_{side} (CBOR"), one(f"CRED_{side} (CBOR")
        own[side] = OwnCredential(wire.decode(id_cred), cred, signer)
        known[side] = (id_cred, cred, signer.key)
    x, y = one("Initiator's ephemeral private key"), one("Responder's ephemeral private key")
    initiator = EdhocInitiator([0], 0, own["I"], X5tResolver(known["R"]), lambda n: x[:n], connection_id=-14)
    responder = EdhocResponder({0: own["R"]}, X5tResolver(known["I"]), lambda n: y[:n], connection_id=b"\x18")
    return initiator, responder


def test_trace_1_runs_byte_for_byte(one: Trace) -> None:
    initiator, responder = trace_machines(one)
    assert support.run(initiator, responder) == [one(f"message_{n} (CBOR") for n in (1, 2, 3, 4)]
    for machine in (initiator, responder):
        assert machine.session_keys.prk_out == one("PRK_out (Raw", "PRK_out")
        assert machine.exporter(0, b"", 16) == one("OSCORE Master Secret (Raw")
        assert machine.exporter(1, b"", 8) == one("OSCORE Master Salt (Raw")
        machine.key_update(one("context for KeyUpdate (Raw"))
        assert machine.session_keys.prk_out == one("PRK_out after KeyUpdate")
        assert machine.exporter(0, b"", 16) == one("OSCORE Master Secret after")
        assert machine.exporter(1, b"", 8) == one("OSCORE Master Salt after")
    assert initiator.peer.cred == one("CRED_R (CBOR")
    assert responder.peer.cred == one("CRED_I (CBOR")


def check_schedule(t: Trace, suite: int, mac_length: int) -> None:
    """Every labelled value of a trace that does not depend on how a side authenticates."""
    aead = SUITES[suite].aead
    th = {n: t(f"TH_{n} (Raw") for n in (2, 3, 4)}
    assert ks.digest(t("message_1 (CBOR", "second" if suite == 2 else "")) == t("H(message_1) (Raw")
    assert (
        ks.transcript_2(t("Responder's ephemeral public key"), t("message_1 (CBOR", "second" if suite else "")) == th[2]
    )
    assert ks.extract(th[2], t("G_XY")) == t("PRK_2e")
    plaintext_2, plaintext_3 = t("PLAINTEXT_2"), t("PLAINTEXT_3")
    assert ks.xor_keystream_2(t("PRK_2e"), th[2], plaintext_2) == t("CIPHERTEXT_2")
    assert ks.xor_keystream_2(t("PRK_2e"), th[2], bytes(len(plaintext_2))) == t("KEYSTREAM_2")
    context_2 = ks.context_2(
        t("Connection identifier chosen by Responder / C_R (CBOR"), t("ID_CRED_R"), th[2], t("CRED_R (CBOR")
    )
    assert context_2 == t("context_2 (CBOR Seq")
    assert ks.kdf(t("PRK_3e2m"), ks.Label.MAC_2, context_2, mac_length) == t("MAC_2 (Raw")
    assert ks.transcript_next(th[2], plaintext_2, t("CRED_R (CBOR")) == th[3]
    context_3 = ks.context_3(t("ID_CRED_I"), th[3], t("CRED_I (CBOR"))
    assert context_3 == t("context_3 (CBOR Seq")
    assert ks.kdf(t("PRK_4e3m"), ks.Label.MAC_3, context_3, mac_length) == t("MAC_3 (Raw")
    for prk, n in (("PRK_3e2m", 3), ("PRK_4e3m", 4)):
        key = ks.kdf(t(prk), ks.Label[f"K_{n}"], th[n], aead.key_length)
        iv = ks.kdf(t(prk), ks.Label[f"IV_{n}"], th[n], aead.iv_length)
        assert (key, iv) == (t(f"K_{n} (Raw"), t(f"IV_{n} (Raw"))
        assert ks.associated_data(th[n]) == t(f"A_{n} (CBOR")
        plaintext = plaintext_3 if n == 3 else b""
        sealed = aead_seal(aead, key, iv, plaintext, ks.associated_data(th[n]))
        assert sealed == t(f"CIPHERTEXT_{n}")
        assert wire.encode(sealed) == t(f"message_{n} (CBOR")
    assert ks.transcript_next(th[3], plaintext_3, t("CRED_I (CBOR")) == th[4]
    prk_out = ks.kdf(t("PRK_4e3m"), ks.Label.PRK_OUT, th[4], 32)
    assert prk_out == t("PRK_out (Raw", "PRK_out")
    assert ks.kdf(prk_out, ks.Label.PRK_EXPORTER, b"", 32) == t("PRK_exporter (Raw")
    keys = ks.SessionKeys(SUITES[suite], prk_out)
    assert keys.exporter(0, b"", 16) == t("OSCORE Master Secret (Raw")
    keys = keys.updated(t("context for KeyUpdate (Raw"))
    assert keys.prk_out == t("PRK_out after KeyUpdate")
    assert ks.kdf(keys.prk_out, ks.Label.PRK_EXPORTER, b"", 32) == t("PRK_exporter after KeyUpdate")
    assert keys.exporter(1, b"", 8) == t("OSCORE Master Salt after")


def test_trace_1_key_schedule(one: Trace) -> None:
    check_schedule(one, 0, 32)
    for n, side in ((2, "R"), (3, "I")):
        signed = ks.to_be_signed(
            one(f"ID_CRED_{side}"), one(f"TH_{n} (Raw"), one(f"CRED_{side} (CBOR"), one(f"MAC_{n} (R")
        )
        assert signed == one(f"Message to be signed {n}")


def test_trace_2_key_schedule(two: Trace) -> None:
    check_schedule(two, 2, 8)
    for label, salt, n, prk in (("SALT_3E2M", "SALT_3e2m", 2, "PRK_2e"), ("SALT_4E3M", "SALT_4e3m", 3, "PRK_3e2m")):
        assert ks.kdf(two(prk), ks.Label[label], two(f"TH_{n} (Raw"), 32) == two(f"{salt} (Raw")
    assert ks.extract(two("SALT_3e2m (R"), two("G_RX")) == two("PRK_3e2m")
    assert ks.extract(two("SALT_4e3m (R"), two("G_IY")) == two("PRK_4e3m")


def test_trace_2_ephemeral_keys_agree(two: Trace) -> None:
    x = two("Initiator's ephemeral private key", "second")
    y = two("Responder's ephemeral private key")
    initiator, responder = EphemeralKey(Curve.P256, lambda n: x[:n]), EphemeralKey(Curve.P256, lambda n: y[:n])
    assert initiator.public == two("Initiator's ephemeral public key, 'x'-coordinate / G_X (Raw", "second")
    assert responder.public == two("Responder's ephemeral public key, 'x'-coordinate / G_Y (Raw")
    assert initiator.agree(responder.public, "G_Y") == responder.agree(initiator.public, "G_X") == two("G_XY")


def test_trace_2_messages_parse_and_encode_back(two: Trace) -> None:
    for section, method, suites, c_i in (("first", 3, (6,), b"\x0e"), ("second", 3, (6, 2), b"\x37")):
        message = parse_message_1(two("message_1 (CBOR", section))
        assert (message.method, message.suites, message.c_i) == (method, suites, c_i)
        assert message.g_x == two("Initiator's ephemeral public key, 'x'-coordinate / G_X (Raw", section)
        assert message.encode() == two("message_1 (CBOR", section)
    error = parse_error(two("error (CBOR"))
    assert error is not None
    assert (error.code, error.suites, error.encode()) == (2, (2,), two("error (CBOR"))
    g_y, ciphertext_2 = parse_message_2(two("message_2 (CBOR"), Curve.P256)
    assert (g_y, ciphertext_2) == (two("Responder's ephemeral public key, 'x'"), two("CIPHERTEXT_2"))
    plain_2, plain_3 = parse_plaintext_2(two("PLAINTEXT_2"), 8), parse_plaintext_3(two("PLAINTEXT_3"), 8)
    assert (plain_2.c_r, plain_2.id_cred, plain_2.proof) == (b"\x27", {4: b"\x32"}, two("MAC_2 (Raw"))
    assert (plain_3.id_cred, plain_3.proof) == ({4: b"\x2b"}, two("MAC_3 (Raw"))
    assert (plain_2.encode(), plain_3.encode()) == (two("PLAINTEXT_2"), two("PLAINTEXT_3"))
    for n in (3, 4):
        assert parse_ciphertext(two(f"message_{n} (CBOR"), f"message_{n}") == two(f"CIPHERTEXT_{n}")


REASONS = {
    "Surplus array encoding of message": "message_1 is wrapped in an array",
    "Surplus bstr encoding of connection identifier": "C_I.*surplus byte string encoding",
    "Surplus array encoding of ciphersuite": "SUITES_I.*surplus array encoding",
    "Text string encoding of ephemeral key": "G_X is a str, not a byte string",
    "Wrong number of CBOR sequence elements": "message_2 has 2 elements",
    "Surplus map encoding of ID_CRED field": "ID_CRED_R.*surplus map encoding",
    "Surplus bstr encoding of ID_CRED field": "ID_CRED_R.*surplus byte string encoding",
    "Error in length of ephemeral key": "G_X has 32 bytes, P384 keys have 48",
    "Error in elliptic curve representation": "G_X is not the x-coordinate of a point on P256",
    "Error in elliptic curve point": "G_X is not the x-coordinate of a point on P256",
    "Curve point of low order": "G_X is a point of low order",
    "Error in length of MAC": "Signature_or_MAC_2 has 4 bytes, the cipher suite makes 8",
    "Error in elliptic curve encoding": "G_X has 31 bytes, P256 keys have 32",
    "Unnecessary long encoding": "not in shortest form",
    "Indefinite-length array encoding": "indefinite",
}


def test_invalid_messages_refuse_for_the_stated_reason(data: Mapping[str, Any]) -> None:
    assert {entry["error"] for entry in data["invalid"]} == set(REASONS)
    parsers: dict[str, Callable[[bytes], object]] = {
        "Invalid message_1": parse_message_1,
        "Invalid message_2": lambda b: parse_message_2(b, Curve.P256),
        "Invalid PLAINTEXT_2": lambda b: parse_plaintext_2(b, 8),
    }
    for entry in data["invalid"]:
        title, *lines = entry["lines"]
        message = bytes.fromhex("".join(lines))
        with pytest.raises(DevguardError, match=REASONS[entry["error"]]) as caught:
            parsers[title.split(" (")[0]](message)
        assert caught.value.code == "session.handshake", entry["error"]


def test_the_invalid_messages_are_one_step_from_valid_ones(data: Mapping[str, Any]) -> None:
    """So that the test above cannot pass by refusing everything."""
    by_name = {entry["error"]: bytes.fromhex("".join(entry["lines"][1:])) for entry in data["invalid"]}
    surplus = by_name["Surplus bstr encoding of connection identifier"]
    assert parse_message_1(surplus[:-2] + surplus[-1:]).c_i == b"\x0e"
    surplus = by_name["Surplus array encoding of ciphersuite"]
    assert parse_message_1(surplus[:1] + surplus[2:]).suites == (2,)
    assert parse_message_1(by_name["Surplus array encoding of message"][1:]).method == 3
    surplus = by_name["Surplus map encoding of ID_CRED field"]
    assert parse_plaintext_2(surplus[:1] + surplus[3:], 8).id_cred == {4: b"\x32\x10"}
    surplus = by_name["Surplus bstr encoding of ID_CRED field"]
    assert parse_plaintext_2(surplus[:1] + surplus[2:], 8).id_cred == {4: b"\x32"}
    assert parse_message_1(by_name["Unnecessary long encoding"].replace(b"\x19\x00\x03", b"\x03", 1)).selected == 2


def test_every_low_order_point_is_known_and_gives_zero(one: Trace) -> None:
    """The list of low-order points is checked against the curve code of another hand."""
    from devguard.session.ephemeral import _LOW_ORDER, _P25519, check_public

    private = x25519.X25519PrivateKey.from_private_bytes(one("Initiator's ephemeral private key"))
    reduced = _LOW_ORDER | {u + _P25519 for u in _LOW_ORDER if u + _P25519 < 1 << 255}
    encodings = reduced | {u | 1 << 255 for u in reduced}
    assert len(encodings) == 14
    for u in encodings:
        point = u.to_bytes(32, "little")
        with pytest.raises(ValueError, match="shared key"):
            private.exchange(x25519.X25519PublicKey.from_public_bytes(point))
        with pytest.raises(DevguardError, match="low order"):
            check_public(Curve.X25519, point, "G_X")


def test_identifiers_of_the_rfc() -> None:
    """The examples of RFC 9528 section 3.3.2."""
    for raw, encoded in (("21", "21"), ("0d", "0d"), ("18", "4118"), ("38", "4138"), ("abcd", "42abcd"), ("", "40")):
        assert encode_identifier(bytes.fromhex(raw)).hex() == encoded

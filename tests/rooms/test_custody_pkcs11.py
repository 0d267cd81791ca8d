"""Invariant: a key on a token signs like any key and never leaves it; no PIN is tried twice, no session stays open."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import sign1, sign_many
from devguard.custody import keyfile, keytext, pkcs11, tokenkeys
from devguard.custody.keyfile import (
    KeyInfo,
    create_key,
    create_token_key,
    export_public,
    is_private,
    load_signer,
    parse_info,
    read_info,
)
from devguard.custody.memory import MemorySigner
from devguard.custody.uri import TokenUri, is_token_uri, parse_uri
from devguard.errors import DevguardError, Malformed, Refused
from softhsm import PIN, Tokens, run

GOOD = PIN.encode()
WRONG = b"000000"


def code_of(call: Callable[..., object], *args: object, **named: object) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **named)
    return caught.value.code


def never() -> bytes:
    raise AssertionError("the PIN was asked for")


def make(path: Path, uri: str, **changes: Any) -> tuple[KeyInfo, TokenUri]:
    given_: dict[str, Any] = {"name": "rhea", "person": "Rhea Root", "role": "root"}
    given_ |= {"algorithm": Algorithm.ESP256, "development": False, "pin": lambda: GOOD}
    return create_token_key(path, parse_uri(uri), **(given_ | changes))


def on_token(tokens: Tokens, label: str = "one") -> list[tokenkeys.TokenKey]:
    return [key for _, keys in tokenkeys.list_keys(parse_uri(tokens.uri(label))) for key in keys]


def flags(tokens: Tokens, label: str) -> Any:
    uri = parse_uri(tokens.uri(label))
    with pkcs11.module(uri) as loaded:
        return pkcs11.one_token(loaded, uri).flags


# URIs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pkcs11:", TokenUri()),
        ("PKCS11:token=My%20Token;object=k", TokenUri(token="My Token", object="k")),
        ("pkcs11:id=%01%FF;type=private", TokenUri(id=b"\x01\xff")),
        ("pkcs11:slot-id=7;serial=ab12", TokenUri(slot_id=7, serial="ab12")),
        (
            "pkcs11:manufacturer=A;model=B?module-path=/usr/lib/x.so",
            TokenUri(None, "A", "B", module_path="/usr/lib/x.so"),
        ),
        ("pkcs11:token=Z%C3%BCrich", TokenUri(token="Zürich")),
        # RFC 7512 section 3, those of its examples that name a private key and no PIN
        (
            "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
            TokenUri(object="my-sign-key", module_path="/mnt/libmypkcs11.so.1"),
        ),
        (
            "pkcs11:token=My%20Token%25%20created%20by%20Joe;id=%69%95%3E%5C%F4%BD%EC%91",
            TokenUri(token="My Token% created by Joe", id=b"i\x95>\\\xf4\xbd\xec\x91"),
        ),
        (
            "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.",
            TokenUri(token="Software PKCS#11 softtoken", manufacturer="Snake Oil, Inc."),
        ),
        # what section 2.3 allows unescaped in the one place and not in the other
        ("pkcs11:token=A&B?module-path=/x?y|z", TokenUri(token="A&B", module_path="/x?y|z")),
        ("pkcs11:slot-id=18446744073709551615", TokenUri(slot_id=2**64 - 1)),
    ],
)
def test_uris_are_read(text: str, expected: TokenUri) -> None:
    assert parse_uri(text) == expected
    assert parse_uri(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "file:x", "pkcs11", "pkcs11:token", "pkcs11:token=a;token=b", "pkcs11:nonsense=1", "pkcs11:token=a b",
        "pkcs11:token=%4", "pkcs11:token=%GG", "pkcs11:token=%FF", "pkcs11:token=%00", "pkcs11:token=",
        "pkcs11:slot-id=x", "pkcs11:slot-id=-1", "pkcs11:id=", f"pkcs11:id={'%00' * 65}", "pkcs11:type=cert",
        "pkcs11:?token=a", "pkcs11:module-path=/x", "pkcs11:;", "pkcs11:token=a?module-path=/x&module-path=/y",
        f"pkcs11:token={'a' * 4096}", "pkcs11:token=a?x-vendor=1", "pkcs11:token=a/b",
        "pkcs11:slot-id=99999999999999999999",
        "pkcs11:slot-id=\u0661", "pkcs11:serial=", "pkcs11:token=a?module-path=/x;object=b", "pkcs11:token=a|b",
        "pkcs11:type=public;object=a", "pkcs11:slot-description=Sun%20Metaslot", "pkcs11:object=a?module-name=softhsm2",
        "pkcs11:vendor-aaa=b;object=a", "pkcs11:Token=a", "pkcs11:token=a;", "pkcs11:token=a\n", "pkcs11:token=a#b",
    ],
)  # fmt: skip
def test_bad_uris_refuse(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_uri(text)
    assert caught.value.code == "key.uri"


@pytest.mark.parametrize(
    "where", ["pkcs11:token=a;pin-value=246813", "pkcs11:token=a?pin-value=246813", "pkcs11:?pin-source=file:/p/246813"]
)
def test_a_pin_in_a_uri_is_refused_and_not_repeated(where: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_uri(where)
    assert caught.value.code == "key.uri"
    assert "246813" not in str(caught.value) + caught.value.hint


printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=32)


texts = st.none() | printable
ids = st.none() | st.binary(min_size=1, max_size=64)
slots = st.none() | st.integers(0, 2**63)


@given(st.builds(TokenUri, token=texts, object=texts, module_path=texts, id=ids, slot_id=slots))
def test_every_uri_survives_its_text(uri: TokenUri) -> None:
    assert is_token_uri(str(uri))
    assert parse_uri(str(uri)) == uri


@given(st.text(max_size=80))
def test_any_text_is_a_uri_or_a_coded_refusal(text: str) -> None:
    refused = None
    try:
        parse_uri(f"pkcs11:{text}")
    except Malformed as error:
        refused = error.code
    assert refused in (None, "key.uri")


# signing


@pytest.mark.parametrize("algorithm", tokenkeys.ON_TOKENS, ids=lambda one: one.label)
def test_make_sign_and_verify_on_a_token(tmp_path: Path, tokens: Tokens, algorithm: Algorithm) -> None:
    path = tmp_path / "rhea.key"
    info, where = make(path, tokens.make("one"), algorithm=algorithm)
    assert info.algorithm is algorithm
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_info(path) == info
    assert parse_info(export_public(info)) == info
    assert is_private(path)
    text = path.read_text()
    assert "PRIVATE" not in text
    assert PIN not in text
    assert text.endswith(f"\n\ntoken: {where}\n")
    signer = load_signer(path, lambda: GOOD)
    assert (signer.info, signer.key, signer.algorithm) == (info, info.key, algorithm)
    for _ in range(2):
        assert sign1(signer, b"payload", typ=None).verify(info.key) == b"payload"
    assert repr(signer) == f"<TokenSigner {algorithm.label} {info.key.fingerprint}>"


def test_two_keys_of_one_token_and_a_file_key_sign_together(tmp_path: Path, tokens: Tokens) -> None:
    uri = tokens.make("one")
    make(tmp_path / "a.key", uri, name="a")
    make(tmp_path / "b.key", uri, name="b", algorithm=Algorithm.ED25519)
    signers = [load_signer(tmp_path / f"{name}.key", lambda: GOOD) for name in "ab"]
    message = sign_many([*signers, MemorySigner.generate(Algorithm.ML_DSA_44)], b"x", typ="t")
    assert [message.verify_one(index, one.key, typ="t") for index, one in enumerate(signers)] == [b"x", b"x"]


def test_the_private_key_is_sensitive_and_stays(tmp_path: Path, tokens: Tokens) -> None:
    _, where = make(tmp_path / "k", tokens.make("one"))
    names = pkcs11.library().Attribute
    with pkcs11.session(where, lambda: GOOD) as (_, opened):
        private = tokenkeys.find_private(opened, where)
        assert private[names.SENSITIVE]
        assert private[names.ALWAYS_SENSITIVE]
        assert not private[names.EXTRACTABLE]
        assert private[names.NEVER_EXTRACTABLE]
        assert private[names.PRIVATE]
        assert [private[one] for one in (names.SIGN, names.DECRYPT, names.UNWRAP, names.DERIVE)] == [
            True,
            False,
            False,
            False,
        ]
        assert code_of(_read_value, private) == "key.token"


def _read_value(private: Any) -> None:
    with pkcs11.translated("the token"):
        assert private[pkcs11.library().Attribute.VALUE] is None


def test_what_is_on_a_token_is_listed_without_a_pin(tmp_path: Path, tokens: Tokens) -> None:
    tokens.make("two")
    info, where = make(tmp_path / "k", tokens.make("one"))
    assert on_token(tokens) == [tokenkeys.TokenKey(where, info.key)]
    assert on_token(tokens, "two") == []
    assert tokenkeys.public_on(where) == info.key
    everything = parse_uri(f"pkcs11:?module-path={tokens.module}")
    assert [len(keys) for _, keys in tokenkeys.list_keys(everything)] in ([0, 1], [1, 0])


# PINs


def test_a_wrong_pin_costs_one_attempt_and_no_more(
    tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k"
    make(path, tokens.make("one"))
    signer = load_signer(path, lambda: GOOD)
    opened: list[int] = []
    inner = pkcs11.session
    monkeypatch.setattr(tokenkeys, "session", lambda *args, **named: opened.append(1) or inner(*args, **named))
    assert code_of(load_signer, path, lambda: WRONG) == "key.pin"
    assert len(opened) == 1
    assert flags(tokens, "one") & pkcs11.library().TokenFlag.USER_PIN_COUNT_LOW
    signer._pin = WRONG  # type: ignore[attr-defined]
    for _ in range(3):  # as when the PIN is changed while devguard runs
        assert code_of(signer.sign, b"x") == "key.pin"
    assert len(opened) == 2
    load_signer(path, lambda: GOOD)
    assert not flags(tokens, "one") & pkcs11.library().TokenFlag.USER_PIN_COUNT_LOW


def test_a_pin_that_a_token_did_not_take_is_not_sent_to_it_again(
    tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asks for it: another key on the same token, a command that goes on, a ceremony that begins again."""
    one, other, far = tmp_path / "one", tmp_path / "other", tmp_path / "far"
    make(one, tokens.make("one"))
    make(other, tokens.uri("one", object="other"))
    make(far, tokens.make("two"))
    tried: list[object] = []
    real = pkcs11.one_token

    class Counted(Flagged):
        def __init__(self, token: Any) -> None:
            super().__init__(token, "TOKEN_INITIALIZED")
            self.token, self.serial = token, token.serial

        def open(self, **named: Any) -> Any:
            tried.append(named["user_pin"])
            return self.token.open(**named)

    monkeypatch.setattr(pkcs11, "one_token", lambda loaded, uri: Counted(real(loaded, uri)))
    for path in (one, one, other):
        assert code_of(load_signer, path, lambda: WRONG) == "key.pin"
    assert len(tried) == 1
    assert code_of(load_signer, far, lambda: WRONG) == "key.pin"  # another token may know it
    assert len(tried) == 2
    assert code_of(load_signer, other, lambda: WRONG + b"1") == "key.pin"  # another PIN was somebody's decision
    load_signer(other, lambda: GOOD)
    assert len(tried) == 4


@pytest.mark.parametrize("pin", [b"", b"\xff\xfe", b"12\x0034", b"1" * 256])
def test_what_cannot_be_a_pin_is_not_tried(tmp_path: Path, tokens: Tokens, pin: bytes) -> None:
    path = tmp_path / "k"
    make(path, tokens.make("one"))
    assert code_of(load_signer, path, lambda: pin) == "key.pin"
    assert not flags(tokens, "one") & pkcs11.library().TokenFlag.USER_PIN_COUNT_LOW


@pytest.mark.parametrize("flag", ["USER_PIN_LOCKED", "USER_PIN_FINAL_TRY"])
def test_a_locked_token_and_the_last_attempt_are_left_alone(
    tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    path = tmp_path / "k"
    make(path, tokens.make("one"))
    real = pkcs11.one_token
    monkeypatch.setattr(pkcs11, "one_token", lambda loaded, uri: Flagged(real(loaded, uri), flag))
    assert code_of(load_signer, path, never) == "key.pin-locked"


class Flagged:
    """A token that reports one flag more; opening it is an error."""

    def __init__(self, token: Any, flag: str) -> None:
        self.label = token.label
        self.flags = token.flags | getattr(pkcs11.library().TokenFlag, flag)

    def open(self, **_: object) -> None:
        raise AssertionError("a login was tried")


def test_a_token_with_its_own_keypad_is_not_asked_for_a_pin(
    tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k"
    make(path, tokens.make("one"))
    real, seen = pkcs11.one_token, []

    class Keypad(Flagged):
        def open(self, **named: object) -> None:
            seen.append(named["user_pin"])
            raise pkcs11.library().PinLocked

    monkeypatch.setattr(
        pkcs11, "one_token", lambda loaded, uri: Keypad(real(loaded, uri), "PROTECTED_AUTHENTICATION_PATH")
    )
    assert code_of(load_signer, path, never) == "key.pin-locked"
    assert seen == [pkcs11.library().PROTECTED_AUTH]


def test_every_session_is_closed_whatever_happens(tmp_path: Path, tokens: Tokens) -> None:
    path = tmp_path / "k"
    _, where = make(path, tokens.make("one"))
    code_of(load_signer, path, lambda: WRONG)
    with pytest.raises(ZeroDivisionError), pkcs11.session(where, lambda: GOOD):
        raise ZeroDivisionError
    loaded = pkcs11.library().lib(tokens.module)
    try:
        token = pkcs11.one_token(loaded, where)
        token.open(user_pin=PIN).close()  # another login would refuse while a session is logged in
    finally:
        loaded.finalize()
    assert pkcs11._in_use[tokens.module] == 0


# what may not be


def test_an_algorithm_tokens_do_not_have_is_refused(tmp_path: Path, tokens: Tokens) -> None:
    uri = tokens.make("one")
    assert code_of(make, tmp_path / "k", uri, algorithm=Algorithm.ML_DSA_65) == "signature.algorithm"
    assert code_of(make, tmp_path / "k", uri, algorithm=Algorithm.ESP384, role="technician") == "key.purpose"
    assert on_token(tokens) == []
    assert not (tmp_path / "k").exists()


def test_a_key_is_not_made_twice_and_leaves_nothing_when_its_file_cannot_be_written(
    tmp_path: Path, tokens: Tokens
) -> None:
    uri = tokens.make("one")
    make(tmp_path / "k", uri)
    assert code_of(make, tmp_path / "other", uri) == "key.exists"
    assert code_of(make, tmp_path / "k", uri, name="other") == "key.exists"
    assert code_of(make, tmp_path / "nowhere" / "k", uri, name="third") == "file.missing"
    assert len(on_token(tokens)) == 1
    assert not (tmp_path / "other").exists()


def test_a_key_that_is_there_can_be_taken(tmp_path: Path, tokens: Tokens) -> None:
    info, where = make(tmp_path / "k", tokens.make("one"))
    again, found = make(tmp_path / "again", tokens.uri("one", object="rhea"), existing=True, algorithm=None)
    assert (again.key, found) == (info.key, where)
    assert code_of(make, tmp_path / "x", tokens.uri("one", object="none"), existing=True) == "key.token"
    wrong = {"existing": True, "algorithm": Algorithm.ED25519}
    assert code_of(make, tmp_path / "x", tokens.uri("one", object="rhea"), **wrong) == "signature.algorithm"
    assert len(on_token(tokens)) == 1
    assert not (tmp_path / "x").exists()


def test_a_key_that_the_token_would_hand_out_is_refused(tmp_path: Path, tokens: Tokens) -> None:
    tokens.make("one")
    names = pkcs11.library().Attribute
    uri = parse_uri(tokens.uri("one", object="loose"))
    with pkcs11.session(uri, lambda: GOOD, write=True) as (_, opened):
        kind = pkcs11.library().KeyType.EC
        domain = opened.create_domain_parameters(
            kind, {names.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}, local=True
        )
        template = {names.EXTRACTABLE: True, names.SENSITIVE: True}
        domain.generate_keypair(store=True, label="loose", id=b"\x09", private_template=template)
    assert code_of(make, tmp_path / "k", str(uri), existing=True, algorithm=None) == "key.token"


P256 = bytes.fromhex("06082a8648ce3d030107")


def plant(where: TokenUri, key: Any, *, instead: bool) -> None:
    """What anybody can do who holds a token for a minute and knows no PIN: another public object, in the true one's
    place or beside it."""
    lib = pkcs11.library()
    names = lib.Attribute
    with pkcs11.session(replace(where, object=None, id=None), write=True) as (_, opened):
        if instead:
            for one in list(opened.get_objects({names.CLASS: lib.ObjectClass.PUBLIC_KEY})):
                one.destroy()
        shape = {names.CLASS: lib.ObjectClass.PUBLIC_KEY, names.KEY_TYPE: lib.KeyType.EC, names.TOKEN: True}
        shape |= {names.PRIVATE: False, names.VERIFY: True, names.LABEL: where.object, names.ID: where.id}
        opened.create_object({**shape, names.EC_PARAMS: P256, names.EC_POINT: b"\x04\x41\x04" + key.x + key.y})


def test_a_planted_public_key_is_not_taken_for_the_token_s_own(tmp_path: Path, tokens: Tokens) -> None:
    _, where = make(tmp_path / "k", tokens.make("one"))
    thief = MemorySigner.generate(Algorithm.ESP256)
    plant(where, thief.key, instead=False)
    two = tokens.uri("one", object="rhea")
    assert code_of(make, tmp_path / "again", two, existing=True, algorithm=None) == "key.token"
    plant(where, thief.key, instead=True)
    assert tokenkeys.public_on(parse_uri(two)) == thief.key
    assert code_of(make, tmp_path / "again", two, existing=True, algorithm=None) == "key.token"
    assert not (tmp_path / "again").exists()
    assert code_of(load_signer, tmp_path / "k", lambda: GOOD) == "key.malformed"


def always_authenticate(tokens: Tokens, label: str) -> TokenUri:
    """A key as in slot 9c of a PIV card: it wants the PIN before each signature."""
    uri = parse_uri(tokens.uri(label, object="strict"))
    lib = pkcs11.library()
    with pkcs11.session(uri, lambda: GOOD, write=True) as (_, opened):
        domain = opened.create_domain_parameters(lib.KeyType.EC, {lib.Attribute.EC_PARAMS: P256}, local=True)
        template = {lib.Attribute.EXTRACTABLE: False, lib.Attribute.SENSITIVE: True, lib.Attribute.PRIVATE: True}
        template[lib.Attribute.ALWAYS_AUTHENTICATE] = True
        domain.generate_keypair(store=True, label="strict", id=b"\x9c", private_template=template)
    return uri


def test_a_key_that_wants_the_pin_each_time_gets_it(tmp_path: Path, tokens: Tokens) -> None:
    tokens.make("one")
    uri = always_authenticate(tokens, "one")
    info, _ = make(tmp_path / "k", str(uri), existing=True, algorithm=None)
    signer = load_signer(tmp_path / "k", lambda: GOOD)
    for _ in range(2):
        assert sign1(signer, b"payload", typ=None).verify(info.key) == b"payload"


def test_such_a_key_on_a_keypad_is_asked_for_there(
    tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "k", tokens.make("one"))
    signer = load_signer(tmp_path / "k", lambda: GOOD)
    given_: list[str] = []
    monkeypatch.setattr(tokenkeys, "asks_itself", lambda token: True)
    monkeypatch.setattr(tokenkeys, "_sign", lambda *args: given_.append(args[-1]) or bytes(64))
    assert code_of(signer.sign, b"x") == "key.token"
    assert given_ == [""]


def test_two_keys_of_one_label_are_told_apart_by_id_or_not_at_all(tmp_path: Path, tokens: Tokens) -> None:
    _, first = make(tmp_path / "a", tokens.make("one"))
    pem = tmp_path / "p.pem"
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", pem)
    tokens.hold("one", pem, "rhea")
    assert code_of(make, tmp_path / "b", tokens.uri("one", object="rhea"), existing=True) == "key.token"
    assert make(tmp_path / "c", str(first), existing=True)[1] == first
    load_signer(tmp_path / "a", lambda: GOOD)


def test_who_interrupts_leaves_no_key_on_the_token(
    tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    uri = tokens.make("one")
    for number, (where, name) in enumerate(((keyfile, "write_new"), (tokenkeys, "public_of"))):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, stop)
            with pytest.raises(KeyboardInterrupt):
                make(tmp_path / "k", uri, name="stopped")
        assert len(on_token(tokens)) == number
        make(tmp_path / name, uri, name=name)


def test_a_rsa_key_is_none_of_ours(tmp_path: Path, tokens: Tokens) -> None:
    tokens.make("one")
    pem = tmp_path / "rsa.pem"
    run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", pem)
    tokens.hold("one", pem, "rsa")
    assert on_token(tokens) == []
    assert code_of(make, tmp_path / "k", tokens.uri("one", object="rsa"), existing=True, algorithm=None) == "key.token"


def test_the_key_file_is_held_to_the_key_on_the_token(tmp_path: Path, tokens: Tokens) -> None:
    uri = tokens.make("one")
    make(tmp_path / "a", uri, name="a")
    make(tmp_path / "b", uri, name="b")
    mixed = tmp_path / "mixed"
    head = (tmp_path / "a").read_text().partition("\ntoken: ")[0]
    mixed.write_text(head + "\n" + (tmp_path / "b").read_text().splitlines()[-1] + "\n")
    mixed.chmod(0o600)
    assert code_of(load_signer, mixed, lambda: GOOD) == "key.malformed"
    (tmp_path / "a").chmod(0o644)
    assert code_of(load_signer, tmp_path / "a", never) == "key.file"


def test_a_token_that_signs_wrongly_is_noticed(tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "k", tokens.make("one"))
    signer = load_signer(tmp_path / "k", lambda: GOOD)
    inner = tokenkeys._sign
    monkeypatch.setattr(tokenkeys, "_sign", lambda *args: inner(*args)[:-1] + b"\0")
    assert code_of(signer.sign, b"message") == "key.token"


def test_tokens_that_are_missing_or_several(tmp_path: Path, tokens: Tokens) -> None:
    make(tmp_path / "k", tokens.make("one"))
    tokens.make("one")
    assert code_of(make, tmp_path / "x", tokens.uri("one"), pin=never) == "key.token"
    assert code_of(make, tmp_path / "x", tokens.uri("none"), pin=never) == "key.token"
    load_signer(tmp_path / "k", lambda: GOOD)  # the file names the serial number
    for file in sorted(tokens.store.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert code_of(load_signer, tmp_path / "k", never) == "key.token"


# modules


def test_modules_that_others_can_change_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVGUARD_PKCS11_MODULE", raising=False)
    module = tmp_path / "module.so"
    module.write_bytes(b"no library")
    assert code_of(pkcs11.module_path, TokenUri()) == "key.token"
    assert code_of(pkcs11.module_path, TokenUri(module_path="module.so")) == "key.token"
    assert code_of(pkcs11.module_path, TokenUri(module_path=str(tmp_path))) == "key.token"
    assert code_of(pkcs11.module_path, TokenUri(module_path=str(tmp_path / "none"))) == "key.token"
    assert code_of(pkcs11.module_path, TokenUri(module_path="/x\0y")) == "key.token"
    module.chmod(0o666)
    assert code_of(pkcs11.module_path, TokenUri(module_path=str(module))) == "key.token"
    module.chmod(0o644)
    assert pkcs11.module_path(TokenUri(module_path=str(module))) == module
    monkeypatch.setenv("DEVGUARD_PKCS11_MODULE", str(module))
    assert pkcs11.module_path(TokenUri()) == module


def test_a_module_that_is_no_library(tmp_path: Path, tokens: Tokens) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(b"no library")
    assert code_of(lambda: list(tokenkeys.list_keys(TokenUri(module_path=str(module))))) == "key.token"


def test_without_the_package_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(Refused) as caught:
        list(tokenkeys.list_keys(TokenUri(module_path=os.path.realpath(sys.executable))))
    assert caught.value.code == "key.token"
    assert "devguard[pkcs11]" in caught.value.hint


# the text of the file


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ("\ntoken: pkcs11:object=k\n", None),
        ("\r\ntoken: pkcs11:object=k\r\n\r\n", None),
        ("\ntoken: pkcs11:token=k\n", "key.uri"),
        ("\ntoken: pkcs11:object=k;pin-value=1\n", "key.uri"),
        ("\ntoken: elsewhere\n", "key.uri"),
        ("\ntoken: pkcs11:object=k\nmore\n", "key.malformed"),
        ("token: pkcs11:object=k\n", "key.malformed"),
        ("\ntoken:\n", "key.malformed"),
    ],
)
def test_token_lines(tmp_path: Path, tail: str, code: str | None) -> None:
    path = tmp_path / "k"
    info = create_key(
        path, name="k", person="P", role="station", algorithm=Algorithm.ED25519, development=True, passphrase=None
    )
    head = export_public(info).decode().replace("devguard-public-key", "devguard-key")
    if code is None:
        parsed = keytext.parse((head + tail).encode())
        assert (parsed.info, parsed.private, parsed.token) == (info, True, TokenUri(object="k"))
    else:
        assert code_of(keytext.parse, (head + tail).encode()) == code

"""Invariant: a key on a token does on the command line what a key file does; its PIN is nowhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cli_support import PASSPHRASE, World, descriptor, devguard, ok
from devguard.custody import tokenkeys
from softhsm import PIN, Tokens


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PIN)


def new(name: str, uri: str, *more: object, role: str = "release", person: str = "Remy Release") -> dict[str, Any]:
    return ok("key", "new", name, "--person", person, "--role", role, "--pkcs11", uri, "--json", *more).json


@pytest.mark.usefixtures("pin")
@pytest.mark.parametrize("alg", ["ESP256", "ESP384", "Ed25519"])
def test_make_show_export_and_list(tokens: Tokens, tmp_path: Path, alg: str) -> None:
    uri = tokens.make("vendor")
    made = new("remy", uri, "--alg", alg)
    assert made["alg"] == alg
    assert Path(made["path"]).stat().st_mode & 0o777 == 0o600
    shown = ok("key", "show", "remy", "--json").json
    assert shown["fingerprint"] == made["fingerprint"]
    assert len(shown["words"].split()) == 32
    public = ok("key", "export", "remy", "--public", "--json").json["public"]
    assert "pkcs11" not in public
    listed = ok("key", "list", "--pkcs11", uri, "--json").json["tokens"]
    assert [one["fingerprint"] for token in listed for one in token["keys"]] == [made["fingerprint"]]
    assert listed[0]["keys"][0]["uri"] == made["token"]
    home = ok("key", "list", "--json").json["keys"]
    assert [(one["name"], one["private"]) for one in home] == [("remy", True)]
    assert "no token fits" in ok("key", "list", "--pkcs11", tokens.uri("none")).out


@pytest.mark.usefixtures("pin")
def test_a_release_and_a_trust_document_are_signed_by_token_keys(
    tokens: Tokens, tmp_path: Path, world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tokens.make("vendor")
    new("rhea", uri, "--alg", "ESP384", role="root", person="Rhea Root")
    made = new("remy", uri)
    init = ["trust", "init", tmp_path / "t", "--root", "rhea", "--threshold", 1, "--expires", "2099-01-01"]
    init += ["--role", "release=remy:1", "--role", "quality=quality:1", "--json"]
    assert ok(*init).json["complete"] is True
    suit = tmp_path / "r.suit"
    suit.write_bytes(world.suit(tmp_path / "x.suit", signers=()).read_bytes())
    by_uri = f"{made['token'].partition(';id=')[0]}?module-path={tokens.module}"
    signed = ok("release", "sign", suit, "--key", by_uri, "--trust", tmp_path / "t" / "current.trust", "--json").json
    assert signed["signed_by"]["key"] == made["fingerprint"]
    assert devguard("release", "sign", suit, "--key", "remy", "--json").code == "release.duplicate"
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
    done = ok("release", "sign", suit, "--key", "quality", "--trust", tmp_path / "t" / "current.trust", "--json").json
    assert done["complete"] is True
    ok("verify", suit, "--trust", tmp_path / "t" / "current.trust", "--model", "insulin-pump")


def test_a_pin_has_a_variable_of_its_own_and_file_keys_never_see_it(
    tokens: Tokens, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVGUARD_PIN", PIN)  # beside the passphrase of the files, in one command
    new("rhea", tokens.make("vendor"), role="root", person="Ruth Root")
    init = ["trust", "init", tmp_path / "t", "--root", "rhea", "--root", "root", "--threshold", 2]
    assert ok(*init, "--expires", "2099-01-01", "--json").json["complete"] is True
    monkeypatch.setenv("DEVGUARD_PIN", "1357913")
    assert devguard("key", "check", "rhea", "--json").code == "key.pin"
    assert ok("key", "check", "root", "--json").json["ok"] is True
    monkeypatch.delenv("DEVGUARD_PIN")
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PIN)  # alone, it is the PIN
    assert ok("key", "check", "rhea", "--json").json["ok"] is True
    fd = descriptor(f"{PIN}\n")
    monkeypatch.setenv("DEVGUARD_PIN", "1357913")
    assert ok("key", "check", "rhea", "--passphrase-fd", fd, "--json").json["ok"] is True
    os.close(fd)
    monkeypatch.delenv("DEVGUARD_PIN")
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    refused = devguard("key", "check", "rhea")
    assert refused.code == "key.passphrase"
    assert "DEVGUARD_PIN" in refused.err


def test_pins_by_descriptor_and_wrong_ones(tokens: Tokens, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    uri = tokens.make("vendor")
    fd = descriptor(f"{PIN}\n")
    made = new("remy", uri, "--passphrase-fd", fd)
    os.close(fd)
    assert PIN not in json.dumps(made)
    arguments = ("key", "new", "other", "--person", "P", "--role", "release", "--pkcs11")
    assert devguard(*arguments, uri, "--json").code == "key.passphrase"
    fd = descriptor("000000\n")
    refused = devguard(*arguments, uri, "--passphrase-fd", fd)
    os.close(fd)
    assert (refused.status, refused.code) == (1, "key.pin")
    assert devguard(*arguments, f"pkcs11:token=vendor;pin-value={PIN}", "--json").code == "key.uri"
    assert devguard(*arguments, "nonsense", "--json").status == 3
    assert [one["name"] for one in ok("key", "list", "--json").json["keys"]] == ["remy"]


@pytest.mark.usefixtures("pin")
def test_a_key_that_is_on_the_token_already_is_named(tokens: Tokens) -> None:
    uri = tokens.make("vendor")
    made = new("remy", uri)
    assert devguard("key", "show", tokens.uri("none", object="remy"), "--json").code == "key.token"
    again = new("same", tokens.uri("vendor", object="remy"), "--existing")
    assert (again["fingerprint"], again["token"]) == (made["fingerprint"], made["token"])
    assert devguard("key", "new", "x", "--person", "P", "--role", "release", "--existing").status == 2
    two_files = devguard("key", "show", made["token"], "--json")
    assert two_files.code == "key.token"
    refused = devguard("key", "new", "pq", "--person", "P", "--role", "release", "--alg", "ML-DSA-65", "--pkcs11", uri)
    assert refused.code == "signature.algorithm"


def test_the_pin_is_in_no_file_no_message_and_no_bug_report(
    tokens: Tokens, world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tokens.make("vendor")
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PIN)
    new("token-remy", uri)
    suit = world.suit(tmp_path / "r.suit", signers=())
    said = [ok("release", "sign", suit, "--key", "token-remy"), ok("key", "check", "token-remy")]
    wrong = "7391736"
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", wrong)
    for arguments in (("key", "check", "token-remy"), ("release", "sign", suit, "--key", "token-remy", "--json")):
        said.append(devguard(*arguments))
        assert said[-1].code == "key.pin"
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PIN)

    def bug(*args: object) -> bytes:
        raise RuntimeError("something else")

    monkeypatch.setattr(tokenkeys, "_sign", bug)
    said.append(devguard("key", "check", "token-remy"))
    assert (said[-1].status, said[-1].code) == (70, "internal.error")
    texts = [one.out + one.err for one in said]
    texts += [path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file()]
    assert not [text for text in texts if PIN in text or wrong in text]


@pytest.mark.usefixtures("pin")
def test_a_key_is_checked_by_letting_it_sign(tokens: Tokens, world: World, home: Path) -> None:
    made = new("token-remy", tokens.make("vendor"))
    assert ok("key", "check", "token-remy", "--json").json["fingerprint"] == made["fingerprint"]
    for file in sorted(tokens.store.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert devguard("key", "check", "token-remy", "--json").code == "key.token"


@pytest.mark.usefixtures("pin")
def test_a_technician_s_card_is_put_on_the_list_and_asks_for_a_grant(
    tokens: Tokens, tmp_path: Path, world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tokens.make("card")
    made = new("finn", uri, role="technician", person="Finn")
    monkeypatch.setenv("DEVGUARD_PIN", PIN)
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
    added = ok("technician", "add", made["token"], "--any-site", "--trained-until", "2090-01-01", "--json").json
    assert (added["name"], added["fingerprint"]) == ("finn", made["fingerprint"])
    ok("grant", "request", "--key", "finn", "--model", "insulin-pump", "--serial", "IP-1", "-o", "r.request")
    ok("grant", "issue", "--authority", "authority", "--request", "r.request", "-o", "g.grant")
    assert ok("grant", "check", "g.grant", "--json").json["holder"] == made["fingerprint"]

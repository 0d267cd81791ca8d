"""Invariant: a signer who never sees the release signs what the manifest says; only what verifies is attached."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli_support import World, devguard, ok, records
from devguard.cli.release_apart import summary
from devguard.errors import DevguardError
from devguard.manifest.envelope import parse_offer


@pytest.fixture
def suit(world: World, home: Path, tmp_path: Path) -> Path:
    return world.suit(tmp_path / "r.suit", signers=())


def apart(suit: Path, key: str, *more: object) -> Path:
    """A signature made from the digest file alone."""
    ok("release", "sign", suit, "--digest-only", "-o", suit.with_suffix(".digest"))
    ok("release", "sign", suit.with_suffix(".digest"), "--key", key, "-o", suit.with_name(f"{key}.sig"), *more)
    return suit.with_name(f"{key}.sig")


def test_two_people_elsewhere_complete_a_release(suit: Path, home: Path) -> None:
    before = suit.read_bytes()
    first, second = apart(suit, "release"), apart(suit, "quality")
    assert suit.read_bytes() == before
    assert first.stat().st_size < 200
    half = ok("release", "sign", suit, "--attach", first, "--json").json
    assert (half["complete"], half["signed_by"]["person"]) == (False, "Remy Release")
    done = ok("release", "sign", suit, "--attach", second, "--json").json
    assert done["complete"] is True
    ok("verify", suit)
    actions = [(one["action"], one["actor"]) for one in records(home)]
    assert actions.count(("release.sign", "Remy Release")) == 2  # made there, attached here
    assert devguard("release", "sign", suit, "--attach", first, "--json").code == "release.duplicate"


def test_the_digest_is_small_and_says_what_the_manifest_says(world: World, home: Path, tmp_path: Path) -> None:
    suit = tmp_path / "r.suit"
    suit.write_bytes(world.suits["1.1.0"].read_bytes())
    shown = ok("release", "sign", suit, "--digest-only", "--json").json
    path = suit.with_suffix(".digest")
    assert shown["path"] == str(path)
    assert path.stat().st_size < suit.stat().st_size - 6000
    envelope = parse_offer(path.read_bytes())
    assert not envelope.payloads
    assert shown["manifest_digest"] == envelope.manifest_digest.hex()
    assert (shown["model"], shown["sequence"]) == ("insulin-pump", 2)
    assert shown["signatures"] == 2
    assert devguard("release", "sign", path, "--key", "release", "-o", "x.sig", "--json").code == "release.duplicate"
    ok("key", "new", "third", "--person", "Third Person", "--role", "quality")
    text = ok("release", "sign", path, "--key", "third", "-o", "x.sig").out
    assert shown["manifest_digest"] in text
    assert "sequence 2" in text
    assert shown["components"]["application"]["digest"] in text


def test_a_summary_cannot_be_made_to_say_something_else(suit: Path) -> None:
    ok("release", "sign", suit, "--digest-only")
    path = suit.with_suffix(".digest")
    good = path.read_bytes()
    told = summary(parse_offer(good))
    for at in range(len(good)):
        try:
            found = summary(parse_offer(good[:at] + bytes([good[at] ^ 0x20]) + good[at + 1 :]))
        except DevguardError:
            continue
        # What still reads is the same release, at most without the text, which may be left out.
        assert found in (
            told,
            {**told, "model": None, "summary": None},
            {**told, "model": None, "summary": None, "version": None},
        )
    path.write_bytes(good[:-1])
    assert devguard("release", "sign", path, "--key", "release", "-o", "x.sig").status == 3


def test_what_does_not_verify_is_not_attached(suit: Path, world: World, tmp_path: Path) -> None:
    signature = apart(suit, "release")
    before = suit.read_bytes()
    good = signature.read_bytes()
    signature.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert devguard("release", "sign", suit, "--attach", signature, "--json").code == "signature.invalid"
    for bad in (b"", b"\xff" * 64, good[:-1], good + b"\0", b"x" * 20_000):
        signature.write_bytes(bad)
        assert devguard("release", "sign", suit, "--attach", signature).status == 3
    signature.write_bytes(good)
    other = world.suit(tmp_path / "other.suit", signers=(), sequence=3, version="1.2.0")
    assert devguard("release", "sign", other, "--attach", signature, "--json").code == "signature.invalid"
    assert devguard("release", "sign", suit, "--attach", signature, "--key", "quality", "--json").code == "key.unknown"
    assert suit.read_bytes() == before


def test_keys_nobody_knows_and_keys_of_other_roles(suit: Path, home: Path) -> None:
    ok("key", "new", "stranger", "--person", "Sam Stranger", "--role", "release")
    signature = apart(suit, "stranger")
    assert devguard("release", "sign", suit, "--attach", signature, "--json").code == "key.unknown"
    ok("release", "sign", suit, "--attach", signature, "--key", "stranger")
    ok("release", "sign", suit, "--digest-only")
    tech = devguard("release", "sign", suit.with_suffix(".digest"), "--key", "tech", "-o", "t.sig", "--json")
    assert tech.code == "key.purpose"
    assert devguard("release", "sign", suit, "--digest-only", "--key", "stranger", "--json").code == "release.duplicate"


def test_whose_a_signature_is_the_trust_document_says(suit: Path, home: Path, tmp_path: Path) -> None:
    """An export with another person's name in it makes nobody sign twice, nor somebody else."""
    export = tmp_path / "renamed.pub"
    ok("key", "export", "quality", "--public", "-o", export)
    export.write_text(export.read_text().replace("Quinn Quality", "Remy Release").replace("quality", "release"))
    signature = apart(suit, "quality")
    done = ok("release", "sign", suit, "--attach", signature, "--key", export, "--json").json["signed_by"]
    assert (done["person"], done["role"]) == ("Quinn Quality", "quality")
    assert ("release.sign", "Quinn Quality") in [(one["action"], one["actor"]) for one in records(home)]
    other = tmp_path / "root.sig"
    root = home / "keys" / "root.key"
    root.write_text(root.read_text().replace("role: root", "role: release"))
    there = tmp_path / "there"  # where the key is, nobody has the trust document
    shutil.copytree(home, there, ignore=shutil.ignore_patterns("trust", "evidence", "station.key", "memory.cbor"))
    ok("release", "sign", suit.with_suffix(".digest"), "--key", "root", "-o", other, "--home", there)
    refused = devguard("release", "sign", suit, "--attach", other, "--key", "root", "--json")
    assert (refused.status, refused.code) == (1, "key.purpose")


def test_steps_are_not_mixed_and_no_file_is_lost(suit: Path) -> None:
    before = suit.read_bytes()
    assert devguard("release", "sign", suit).status == 2
    assert devguard("release", "sign", suit, "--digest-only", "--attach", suit).status == 2
    assert devguard("release", "sign", suit, "--attach", suit, "-o", "x").status == 2
    assert devguard("release", "sign", suit, "--digest-only", "-o", suit).status == 2
    assert devguard("release", "sign", suit, "--key", "release", "-o", suit).status == 2
    assert suit.read_bytes() == before

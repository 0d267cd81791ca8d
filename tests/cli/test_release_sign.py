"""Invariant: who has signed a release is what verified signatures and the trust document say, never a key file or a
block that only claims to be somebody's."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cli_support import World, devguard, ok, records
from devguard.cose.sign import sign1
from devguard.manifest.envelope import add_signature, encode_envelope, read_envelope


@pytest.fixture
def suit(world: World, home: Path, tmp_path: Path) -> Path:
    return world.suit(tmp_path / "r.suit", signers=())


@pytest.fixture
def trust(world: World, home: Path, tmp_path: Path) -> Path:
    """A document in which Remy holds three release keys: two classical ones and an ML-DSA one."""
    for name, algorithm in (("remy2", "ML-DSA-65"), ("remy3", "Ed25519")):
        ok("key", "new", name, "--person", "Remy Release", "--role", "release", "--alg", algorithm)
    folder = Path(shutil.copytree(world.folder / "trust", tmp_path / "trust"))
    ok("trust", "rotate", folder, "--role", "release=release,remy2,remy3:1", "--expires", "2098-01-01")
    return folder / "current.trust"


def plant(world: World, suit: Path, named: str) -> None:
    """A block that names the key of `named` and that no such key has made."""
    envelope = read_envelope(io.BytesIO(suit.read_bytes()))
    other = sign1(world.signer(named), b"something else", typ=None, detached=True).encode()
    suit.write_bytes(encode_envelope(add_signature(envelope, other)))


def sign(suit: Path, key: str, *more: object) -> dict[str, object]:
    return ok("release", "sign", suit, "--key", key, "--json", *more).json


# whose a signature is


def test_a_key_file_with_another_s_name_signs_as_the_person_who_holds_the_key(
    suit: Path, trust: Path, home: Path
) -> None:
    sign(suit, "release", "--trust", trust)
    for name in ("remy2", "remy3"):
        path = home / "keys" / f"{name}.key"
        text = path.read_text().replace("person: Remy Release", "person: Nobody")
        path.write_text(text.replace("role: release", "role: quality"))
    signed = sign(suit, "remy2", "--trust", trust)["signed_by"]
    assert isinstance(signed, dict)
    assert (signed["person"], signed["role"]) == ("Remy Release", "release")
    assert [one["actor"] for one in records(home) if one["action"] == "release.sign"] == ["Remy Release"] * 2
    refused = devguard("release", "sign", suit, "--key", "remy3", "--trust", trust, "--json")
    assert (refused.status, refused.code) == (1, "release.duplicate")


def test_a_key_of_another_role_by_the_document_does_not_sign_whatever_its_file_says(suit: Path, home: Path) -> None:
    path = home / "keys" / "root.key"
    path.write_text(path.read_text().replace("role: root", "role: release"))
    before = suit.read_bytes()
    refused = devguard("release", "sign", suit, "--key", "root", "--json")
    assert (refused.status, refused.code) == (1, "key.purpose")
    assert devguard("release", "sign", suit, "--digest-only", "--key", "root", "--json").code == "key.purpose"
    assert suit.read_bytes() == before


def test_a_revoked_key_does_not_sign(suit: Path, trust: Path, home: Path) -> None:
    ok("trust", "revoke", trust.parent, "remy3", "--expires", "2098-01-01")
    refused = devguard("release", "sign", suit, "--key", "remy3", "--trust", trust, "--json")
    assert (refused.status, refused.code) == (1, "key.revoked")


# one person, two kinds


def test_one_person_brings_both_halves_and_no_half_twice(suit: Path, trust: Path) -> None:
    sign(suit, "release", "--trust", trust)
    half = sign(suit, "remy2", "--trust", trust)
    assert (half["signatures"], half["complete"]) == (2, False)
    refused = devguard("release", "sign", suit, "--key", "remy3", "--trust", trust)
    assert refused.code == "release.duplicate"
    assert "classical" in refused.err
    assert sign(suit, "quality", "--trust", trust)["complete"] is True
    assert ok("verify", suit, "--trust", trust, "--model", "insulin-pump", "--json").json["accepted"] is True


# what only claims to be a signature


def test_a_block_that_only_names_a_key_does_not_keep_its_owner_from_signing(world: World, suit: Path) -> None:
    plant(world, suit, "quality")
    assert devguard("verify", suit, "--model", "insulin-pump", "--json").code == "signature.invalid"
    told = ok("release", "sign", suit, "--key", "release")
    assert "Quinn Quality" in told.err
    assert "does not hold" in told.err
    done = sign(suit, "quality")
    assert (done["complete"], done["signatures"]) == (True, 2)  # what was planted is gone: its owner signed instead
    assert ok("verify", suit, "--model", "insulin-pump", "--json").json["accepted"] is True


def test_the_same_for_a_signature_that_was_made_elsewhere(world: World, suit: Path, tmp_path: Path) -> None:
    sign(suit, "release")
    plant(world, suit, "quality")
    ok("release", "sign", suit, "--digest-only", "--key", "quality")
    ok("release", "sign", suit.with_suffix(".digest"), "--key", "quality", "-o", tmp_path / "q.sig")
    assert ok("release", "sign", suit, "--attach", tmp_path / "q.sig", "--json").json["complete"] is True
    assert ok("verify", suit, "--model", "insulin-pump", "--json").json["accepted"] is True


def test_a_block_that_only_names_a_person_s_other_key_does_not_either(
    world: World, suit: Path, trust: Path, home: Path
) -> None:
    plant(world, suit, "release")
    assert sign(suit, "remy3", "--trust", trust)["signatures"] == 2
    assert devguard("release", "sign", suit, "--key", "release", "--trust", trust).code == "release.duplicate"


def test_without_a_document_only_the_same_key_is_known(world: World, suit: Path, home: Path) -> None:
    shutil.rmtree(home / "trust")
    plant(world, suit, "quality")
    assert sign(suit, "quality")["signatures"] == 1
    assert devguard("release", "sign", suit, "--key", "quality").code == "release.duplicate"
    assert sign(suit, "release")["complete"] is None


def test_a_block_that_is_none_still_refuses(world: World, suit: Path) -> None:
    envelope = read_envelope(io.BytesIO(suit.read_bytes()))
    suit.write_bytes(encode_envelope(replace(envelope, auth_blocks=(b"\xd2\x80",))))
    assert devguard("release", "sign", suit, "--key", "quality", "--json").code == "envelope.malformed"

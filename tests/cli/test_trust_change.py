"""Rotating, revoking, following; what a station remembers, and what happens when somebody puts an old state back."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cli_support import World, devguard, emulator, ok, records
from devguard.cli.context import Invocation
from devguard.cli.home import Home
from devguard.cli.memory import peek
from devguard.trust.document import read_trust

LATER = ("--expires", "2098-01-01")


@pytest.fixture
def folder(world: World, home: Path, tmp_path: Path) -> Path:
    """A trust folder of one's own beside the home."""
    return Path(shutil.copytree(world.folder / "trust", tmp_path / "trust"))


def test_rotate_makes_the_next_version_current_here(world: World, home: Path, folder: Path) -> None:
    made = ok("trust", "rotate", folder, *LATER, "--max-step", 4, "--json").json
    assert (made["version"], made["complete"], made["max_step"]) == (2, True, 4)
    assert (folder / "2.trust").read_bytes() == (folder / "current.trust").read_bytes()
    assert (home / "trust" / "current.trust").read_bytes() == (folder / "2.trust").read_bytes()
    assert (home / "trust" / "1.trust").is_file()
    assert records(home)[-1]["action"] == "trust.rotate"
    assert ok("verify", world.suits["1.1.0"], "--json").json["accepted"] is True


def test_a_new_root_waits_for_both(world: World, home: Path, folder: Path, tmp_path: Path) -> None:
    ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root", "--alg", "ML-DSA-44")
    ok("key", "export", "root2", "--public", "-o", tmp_path / "root2.pub")
    (home / "keys" / "root2.key").rename(tmp_path / "root2.key")
    made = ok(
        "trust", "rotate", folder, *LATER, "--root", f"root,{tmp_path / 'root2.pub'}", "--threshold", 2, "--json"
    ).json
    assert made["complete"] is False
    assert read_trust((folder / "current.trust").read_bytes()).version == 1
    assert devguard("trust", "rotate", folder, *LATER).code == "key.exists"
    signed = ok("trust", "sign", folder / "2.trust", "--key", tmp_path / "root2.key", "--json").json
    assert signed["complete"] is True
    assert read_trust((home / "trust" / "current.trust").read_bytes()).version == 2


def test_another_station_follows(world: World, home: Path, folder: Path, tmp_path: Path) -> None:
    other = world.copy(tmp_path / "other")
    ok("trust", "rotate", folder, *LATER)
    ok("trust", "rotate", folder, *LATER)
    assert devguard("trust", "follow", folder / "3.trust", "--home", other).code == "trust.gap"
    assert ok("trust", "follow", folder, "--home", other, "--json").json["version"] == 3
    assert devguard("trust", "follow", folder / "2.trust", "--home", other).code == "trust.rollback"


def test_revoke(world: World, home: Path, folder: Path) -> None:
    suit = world.suits["1.0.0"]
    made = ok(
        "trust", "revoke", folder, "Remy Release", "--release", suit, "--grant-epoch", 3, "--floor", "insulin-pump=2",
        "--keep-release", world.suits["1.1.0"], "--json",
    ).json  # fmt: skip
    assert made["grant_epoch"] == 3
    assert made["floors"] == {"insulin-pump": 2}
    assert len(made["revoked_keys"]) == len(made["revoked_releases"]) == 1
    assert devguard("verify", suit, "--json").status == 1
    assert ok("verify", world.suits["1.1.0"], "--json").json["accepted"] is True  # kept, though its key is revoked
    assert devguard("trust", "revoke", folder, "--grant-epoch", 2).code == "trust.rollback"
    assert devguard("trust", "revoke", folder, "Rhea Root").code == "trust.signature"
    assert devguard("trust", "revoke", folder, "Nobody").code == "file.missing"
    assert devguard("trust", "revoke", folder).status == 2
    assert not (folder / "3.trust").exists()


def fingerprint(name: str) -> str:
    return str(ok("key", "show", name, "--json").json["fingerprint"])


def test_what_leaves_a_document(world: World, home: Path, folder: Path) -> None:
    """Roles and keys that are removed are no longer listed; they are not revoked by that."""
    ok("key", "new", "release2", "--person", "Rita Release", "--role", "release", "--alg", "Ed25519")
    made = ok("trust", "rotate", folder, *LATER, "--role", "release=release,release2:1", "--json").json
    assert len(made["roles"]["release"]["keys"]) == 2
    made = ok("trust", "rotate", folder, *LATER, "--remove-key", "Rita Release", "--remove-role", "device-authority",
              "--json").json  # fmt: skip
    assert [one["person"] for one in made["roles"]["release"]["keys"]] == ["Remy Release"]
    assert "device-authority" not in made["roles"]
    assert made["revoked_keys"] == []
    assert ok("verify", world.suits["1.1.0"], "--json").json["accepted"] is True
    checked = ok("trust", "check", "--json").json
    assert any("device-authority" in one for one in checked["warnings"])
    assert devguard("trust", "rotate", folder, *LATER, "--remove-role", "device-authority").status == 2
    assert devguard("trust", "rotate", folder, *LATER, "--remove-key", "release").code == "trust.malformed"
    assert devguard("trust", "rotate", folder, *LATER, "--remove-key", "nobody").code == "file.missing"


@pytest.mark.parametrize("by", ["name", "file", "fingerprint", "person"])
def test_a_key_is_revoked_by_any_name_it_has(world: World, home: Path, folder: Path, tmp_path: Path, by: str) -> None:
    ok("key", "export", "release", "--public", "-o", tmp_path / "r.pub")
    named = {"name": "release", "file": tmp_path / "r.pub", "person": "REMY  release"}
    made = ok("trust", "revoke", folder, named.get(by, fingerprint("release")), *LATER, "--json").json
    assert made["revoked_keys"] == [fingerprint("release")]
    assert devguard("verify", world.suits["1.1.0"], "--json").code == "key.revoked"
    again = ok("trust", "rotate", folder, *LATER, "--max-step", 3, "--json").json
    assert again["revoked_keys"] == [fingerprint("release")]  # never dropped


def test_a_person_is_revoked_with_all_their_keys(world: World, home: Path, folder: Path) -> None:
    ok("key", "new", "more", "--person", "Remy Release", "--role", "release", "--alg", "Ed25519")
    ok("trust", "rotate", folder, *LATER, "--role", "release=release,more:1")
    made = ok("trust", "revoke", folder, "Remy Release", *LATER, "--json").json
    assert set(made["revoked_keys"]) == {fingerprint("release"), fingerprint("more")}
    warned = ok("trust", "check", "--json").json["warnings"]
    assert any("release can never sign" in one for one in warned)


def test_releases_epochs_and_floors_only_grow(world: World, home: Path, folder: Path) -> None:
    digest = "ab" * 32
    ok("trust", "revoke", folder, "--release", digest, "--floor", "insulin-pump=2", "--grant-epoch", 3, *LATER)
    made = ok("trust", "revoke", folder, "--floor", "pacemaker-programmer=7", "--floor", "insulin-pump=2", *LATER,
              "--json").json  # fmt: skip
    assert made["floors"] == {"insulin-pump": 2, "pacemaker-programmer": 7}
    assert (made["revoked_releases"], made["grant_epoch"]) == ([digest], 3)
    for back in (("--floor", "insulin-pump=1"), ("--grant-epoch", 2)):
        assert devguard("trust", "revoke", folder, *back, *LATER).code == "trust.rollback"
    for wrong in ("insulin-pump", "=1", "insulin-pump=-1", "insulin-pump=x"):
        assert devguard("trust", "revoke", folder, "--floor", wrong, *LATER).status == 2
    assert devguard("verify", world.suits["1.0.0"], "--model", "insulin-pump", "--json").code == "version.rollback"
    assert ok("verify", world.suits["1.1.0"], "--model", "insulin-pump", "--json").json["accepted"] is True


@pytest.mark.parametrize("what", ["trust", "memory", "memory gone", "log"])
def test_an_older_state_put_back_is_noticed(
    world: World, home: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    ok("verify", world.suits["1.1.0"])
    backup = tmp_path / "backup"
    shutil.copytree(home, backup)
    ok("trust", "rotate", folder, *LATER)
    ok("verify", world.suits["1.1.0"])
    if what == "trust":
        shutil.copy(backup / "trust" / "current.trust", home / "trust" / "current.trust")
    elif what == "memory":
        shutil.copy(backup / "memory.cbor", home / "memory.cbor")
    elif what == "memory gone":
        (home / "memory.cbor").unlink()
    else:
        shutil.rmtree(home / "evidence")
        shutil.copytree(backup / "evidence", home / "evidence")
    refused = devguard("verify", world.suits["1.1.0"], "--json")
    assert (refused.status, refused.code) == (1, "log.truncated" if what == "log" else "trust.rollback")
    if what != "trust":
        assert ok("status", "--no-ports", "--json").json["memory"]["code"] == refused.code
    digest = ok("trust", "show", "--json").json["digest"]
    assert (
        devguard("trust", "recover", "--accept", "00" * 32, "--person", "P", "--reason", "r").code == "trust.rollback"
    )
    ok("trust", "recover", "--accept", digest, "--person", "Sam Security", "--reason", "disk restored")
    assert ok("verify", world.suits["1.1.0"], "--json").json["accepted"] is True
    assert any((one["action"], one["actor"]) == ("memory.recover", "Sam Security") for one in records(home))


def test_a_clock_that_goes_back(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = int(time.time())
    suit = world.suits["1.1.0"]

    def at(offset: int) -> Any:
        monkeypatch.setattr(Invocation, "now", staticmethod(lambda: real + offset))
        return devguard("verify", suit, "--json")

    assert at(0).status == 0
    assert at(90_000).status == 0
    assert at(89_500).status == 0  # a clock may be corrected by minutes
    assert (at(0).status, at(0).code) == (1, "clock.rollback")
    assert records(home)[-1]["code"] == "clock.rollback"
    assert ok("status", "--no-ports", "--json").json["memory"]["code"] == "clock.rollback"
    assert at(90_001).status == 0


def test_a_crash_between_record_and_rename_is_settled(world: World, home: Path, folder: Path) -> None:
    ok("verify", world.suits["1.1.0"])
    old = (home / "memory.cbor").read_bytes()
    ok("trust", "rotate", folder, *LATER)
    ok("verify", world.suits["1.1.0"])
    (home / "memory.next").write_bytes((home / "memory.cbor").read_bytes())
    (home / "memory.cbor").write_bytes(old)
    ok("verify", world.suits["1.1.0"])
    assert not (home / "memory.next").exists()


def test_a_device_takes_the_chain_and_the_new_authority(world: World, home: Path, folder: Path, tmp_path: Path) -> None:
    with emulator(world, tmp_path, "IP-1") as device:
        ok("key", "new", "authority2", "--person", "Theo Authority", "--role", "technician-authority")
        ok("trust", "rotate", folder, *LATER)
        ok("trust", "rotate", folder, *LATER, "--role", "technician-authority=authority2:1")
        ok("grant", "issue", "--authority", "authority2", "--technician", "tech", "--model", "insulin-pump", "--serial", "IP-1",  # noqa: E501
           "--expires", "8h", "--max-uses", 1, "-o", tmp_path / "g.grant")  # fmt: skip
        way = ("--port", device.port, "--key", "tech", "--grant", tmp_path / "g.grant", "--json")
        refused = devguard("push", world.suits["1.1.0"], *way)
        assert (refused.status, refused.code) == (5, "key.unknown")
        assert ok("trust", "push", *way).json["version"] == 3
        done = ok("push", world.suits["1.1.0"], *way).json
        assert (done["accepted"], done["report"]["trust_version"]) == (True, 3)
    # What the push used up is remembered here, whatever happens to the device.
    memory = peek(Home(home))
    assert memory is not None
    assert memory.sequences == {"insulin-pump": 2}
    assert [one.uses for one in memory.spent.values()] == [1]
    assert ok("status", "--no-ports", "--json").json["memory"]["sequences"] == {"insulin-pump": 2}
    again = ("--key", "tech", "--grant", tmp_path / "g.grant", "--dry-run", "--json")
    assert devguard("push", world.suits["1.0.0"], *again).code == "grant.replay"
    assert devguard("push", world.suits["1.1.0"], *again).status == 0  # the same release may be gone on with

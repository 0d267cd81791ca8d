"""`devguard key` and where passphrases come from."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cli_support import PASSPHRASE, PEOPLE, World, descriptor, devguard, finish, ok, start


def test_every_role_s_key(world: World, home: Path) -> None:
    for name, person, role, algorithm in PEOPLE:
        data = ok("key", "show", name, "--json").json
        assert (data["name"], data["person"], data["role"], data["alg"]) == (name, person, role, algorithm)
        assert len(bytes.fromhex(data["fingerprint"])) == 32
        assert data["development"] is False
        assert stat.S_IMODE((home / "keys" / f"{name}.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("algorithm", ["ESP384", "ML-DSA-44", "ML-DSA-87"])
def test_other_algorithms(tmp_path: Path, algorithm: str) -> None:
    made = ok(
        "key",
        "new",
        "k",
        "--person",
        "P",
        "--role",
        "quality",
        "--alg",
        algorithm,
        "--out",
        tmp_path / "k.key",
        "--json",
    ).json
    assert made["alg"] == algorithm
    assert made["path"] == str(tmp_path / "k.key")
    assert b"ENCRYPTED" in (tmp_path / "k.key").read_bytes()


def test_the_export_is_public_and_enough(world: World, home: Path, tmp_path: Path) -> None:
    text = ok("key", "export", "tech", "--public", "-q").out
    assert "PRIVATE" not in text
    ok("key", "export", "tech", "--public", "-o", tmp_path / "tech.pub")
    assert (tmp_path / "tech.pub").read_text().strip() == text.strip()
    assert ok("key", "show", tmp_path / "tech.pub", "--json").json == ok("key", "show", "tech", "--json").json
    assert devguard("key", "export", "tech").status == 2
    (home / "keys" / "tech.key").rename(tmp_path / "away.key")
    result = devguard("release", "sign", world.suits["1.1.0"], "--key", tmp_path / "tech.pub")
    assert (result.status, result.code) == (3, "key.malformed")


def test_never_overwritten(world: World, home: Path) -> None:
    before = (home / "keys" / "release.key").read_bytes()
    result = devguard("key", "new", "release", "--person", "P", "--role", "release")
    assert (result.status, result.code) == (1, "key.exists")
    assert (home / "keys" / "release.key").read_bytes() == before


@pytest.mark.parametrize("algorithm", ["ML-DSA-65", "ESP384"])
def test_a_technician_s_key_opens_sessions(home: Path, algorithm: str) -> None:
    result = devguard("key", "new", "t", "--person", "P", "--role", "technician", "--alg", algorithm)
    assert (result.status, result.code) == (1, "key.purpose")
    assert not (home / "keys" / "t.key").exists()


@pytest.mark.parametrize("name", ["a/b", "../x", ".hidden", "", "x" * 200, "a\nb", "\x1b[31m"])
def test_names(home: Path, name: str) -> None:
    before = sorted((home / "keys").iterdir())
    result = devguard("key", "new", "--person", "P", "--role", "release", "--", name)
    assert (result.status, result.code) == (3, "key.malformed")
    assert "\x1b" not in result.err
    assert sorted((home / "keys").iterdir()) == before


def test_the_station_s_name_is_taken(home: Path) -> None:
    result = devguard("key", "new", "station", "--person", "P", "--role", "release")
    assert (result.status, result.code) == (1, "key.exists")
    assert not (home / "keys" / "station.key").exists()


def test_undecodable_text(home: Path) -> None:
    assert devguard("key", "new", "n", "--person", "\udcff", "--role", "release").status == 2


def sign(world: World, tmp_path: Path, *more: object, key: str = "release") -> tuple[int, str | None]:
    suit = world.suit(tmp_path / "x.suit", signers=())
    before = suit.read_bytes()
    result = devguard("release", "sign", suit, "--key", key, *more)
    assert (result.status == 0) == (suit.read_bytes() != before)
    return result.status, result.code


def test_wrong_and_missing_passphrases(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("wrong", "", PASSPHRASE + " ", "\udcff"):
        monkeypatch.setenv("DEVGUARD_PASSPHRASE", wrong)
        assert sign(world, tmp_path) == (1, "key.passphrase")
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    assert sign(world, tmp_path) == (1, "key.passphrase")
    assert sign(world, tmp_path, "--passphrase-fd", descriptor("wrong\n")) == (1, "key.passphrase")
    assert sign(world, tmp_path, "--passphrase-fd", descriptor("")) == (1, "key.passphrase")


def test_by_descriptor(world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    assert sign(world, tmp_path, "--passphrase-fd", descriptor(PASSPHRASE + "\n")) == (0, None)
    assert sign(world, tmp_path, "--passphrase-fd", descriptor(PASSPHRASE)) == (0, None)


def test_one_line_for_each_key(world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    fd = descriptor(f"{PASSPHRASE}\n{PASSPHRASE}\n")
    ok(
        "trust", "init", tmp_path / "t", "--root", "root", "--root", "second", "--threshold", 2,
        "--expires", "2090-01-01", "--passphrase-fd", fd, "--development",
    )  # fmt: skip
    assert ok("trust", "check", tmp_path / "t" / "current.trust", "--json").json["ok"] is True


@pytest.mark.parametrize(("fd", "status"), [("9999", 1), ("-1", 2), ("9" * 20, 2), ("x", 2)])
def test_no_such_descriptor(world: World, home: Path, tmp_path: Path, fd: str, status: int) -> None:
    assert sign(world, tmp_path, f"--passphrase-fd={fd}")[0] == status


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_file_others_can_reach(world: World, home: Path, tmp_path: Path, mode: int) -> None:
    (home / "keys" / "release.key").chmod(mode)
    assert sign(world, tmp_path) == (1, "key.file")


def test_a_key_that_is_no_file(world: World, home: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo", 0o600)
    for reference in ("folder", "fifo", "x" * 5000, "nobody"):
        status, code = sign(world, tmp_path, key=reference)
        assert code in ("file.missing", "key.file")
        assert status in (1, 3)


@pytest.mark.parametrize("end", [0, 1, 40, 200, -40, -1])
def test_a_damaged_key_file(world: World, home: Path, tmp_path: Path, end: int) -> None:
    path = home / "keys" / "release.key"
    path.write_bytes(path.read_bytes()[:end])
    status, code = sign(world, tmp_path)
    if end == -1:  # only the line end is gone
        assert status in (0, 3)
        return
    assert (status, code) in ((3, "key.malformed"), (1, "key.passphrase"))


def test_interrupted_at_the_prompt_is_not_a_traceback(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    result = finish(start("key", "new", "n", "--person", "P", "--role", "release"))
    assert (result.status, result.code) == (1, "key.passphrase")
    assert not (home / "keys" / "n.key").exists()


def test_a_key_is_checked_before_it_is_needed(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ok("key", "check", "quality", "--json").json
    assert good["fingerprint"] == ok("key", "show", "quality", "--json").json["fingerprint"]
    copy = tmp_path / "copy.key"
    copy.write_bytes((home / "keys" / "quality.key").read_bytes())
    copy.chmod(0o600)
    assert ok("key", "check", copy, "--json").json["person"] == "Quinn Quality"
    copy.write_bytes(copy.read_bytes().replace(b"\n\n-----", b"\n\n----"))
    assert devguard("key", "check", copy, "--json").code == "key.malformed"
    ok("key", "export", "quality", "--public", "-o", tmp_path / "q.pub")
    assert devguard("key", "check", tmp_path / "q.pub", "--json").code == "key.malformed"
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "another")
    assert devguard("key", "check", "quality", "--json").code == "key.passphrase"


def test_no_output_option_costs_a_private_key(world: World, home: Path, tmp_path: Path) -> None:
    path = home / "keys" / "release.key"
    before = path.read_bytes()
    suit = tmp_path / "r.suit"
    suit.write_bytes(world.suits["1.1.0"].read_bytes())
    for arguments in (
        ("key", "export", "quality", "--public", "-o", path),
        ("release", "sign", suit, "--digest-only", "-o", path),
        ("release", "build", world.folder / "1.1.0.toml", "-o", path),
    ):
        refused = devguard(*arguments, "--json")
        assert (refused.status, refused.code) == (1, "key.exists"), arguments
        assert path.read_bytes() == before

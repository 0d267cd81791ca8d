"""`devguard trust`: made by root keys, signed by as many as it asks for, shown and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import World, devguard, ok

INIT = ("--threshold", "1", "--expires", "2090-01-01")


def test_made_shown_and_kept(world: World, home: Path, tmp_path: Path) -> None:
    (home / "trust" / "current.trust").unlink()
    made = ok("trust", "init", tmp_path / "t", "--root", "root", *INIT, "--role", "release=release", "--json").json
    assert made["complete"] is True
    assert (tmp_path / "t" / "1.trust").read_bytes() == (tmp_path / "t" / "current.trust").read_bytes()
    assert (home / "trust" / "current.trust").read_bytes() == (tmp_path / "t" / "1.trust").read_bytes()
    shown = ok("trust", "show", "--json").json
    assert shown["version"] == 1
    assert "Remy Release" in ok("trust", "show").out


def test_the_kept_document_is_not_replaced(world: World, home: Path, tmp_path: Path) -> None:
    before = (home / "trust" / "current.trust").read_bytes()
    ok("trust", "init", tmp_path / "t", "--root", "root", *INIT)
    assert (home / "trust" / "current.trust").read_bytes() == before


def test_a_second_root_person_elsewhere(world: World, home: Path, tmp_path: Path) -> None:
    ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root")
    ok("key", "export", "root2", "--public", "-o", tmp_path / "root2.pub")
    folder = tmp_path / "t"
    made = ok(
        "trust", "init", folder, "--root", "root", "--root", tmp_path / "root2.pub", "--threshold", 2, "--expires",
        "2090-01-01", "--json",
    ).json  # fmt: skip
    assert made["complete"] is False
    assert not (folder / "current.trust").exists()
    assert devguard("trust", "check", folder / "1.trust").code == "trust.signature"
    assert devguard("verify", world.suits["1.1.0"], "--trust", folder / "1.trust", "--json").code == "trust.signature"
    signed = ok("trust", "sign", folder / "1.trust", "--key", "root2", "--json").json
    assert signed["complete"] is True
    assert ok("trust", "check", folder / "current.trust", "--json").json["ok"] is True


def test_check(world: World, home: Path) -> None:
    data = ok("trust", "check", "--json").json
    assert (data["ok"], data["warnings"]) == (True, [])
    assert devguard("trust", "check", "--now", "2099-02-01").code == "trust.expired"
    assert devguard("trust", "check", "--now", "2001-02-01").code == "trust.not-yet"


def test_check_warns_of_what_will_not_work(world: World, home: Path, tmp_path: Path) -> None:
    ok("trust", "init", tmp_path / "t", "--root", "root", *INIT, "--role", "release=release")
    warnings = ok("trust", "check", tmp_path / "t" / "current.trust", "--json").json["warnings"]
    assert any("quality" in one for one in warnings)
    assert any("hybrid" in one for one in warnings)


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["--root", "root", "--threshold", "0", "--expires", "2090-01-01"], 2),
        (["--root", "root", "--threshold", "2", "--expires", "2090-01-01"], 3),
        (["--root", "root", "--threshold", "1", "--expires", "yesterday"], 2),
        (["--root", "root", "--threshold", "1", "--expires", "2001-01-01"], 3),
        (["--root", "root", *INIT, "--role", "release"], 2),
        (["--root", "root", *INIT, "--role", "release="], 2),
        (["--root", "root", *INIT, "--role", "kings=release:1"], 2),
        (["--root", "root", *INIT, "--role", "release=release", "--role", "release=release"], 2),
        (["--root", "root", *INIT, "--role", "release=release:9"], 3),
        (["--root", "root", *INIT, "--role", "release=release:²"], 3),
        (["--root", "root", *INIT, "--role", "release=nobody"], 3),
        (["--root", "x" * 5000, *INIT], 3),
        (["--threshold", "1", "--expires", "2090-01-01"], 2),
    ],
)
def test_bad_wishes(home: Path, tmp_path: Path, args: list[str], status: int) -> None:
    assert devguard("trust", "init", tmp_path / "t", *args).status == status
    assert not (tmp_path / "t" / "1.trust").exists()


def test_nothing_is_overwritten(home: Path, tmp_path: Path) -> None:
    ok("trust", "init", tmp_path / "t", "--root", "root", *INIT)
    before = (tmp_path / "t" / "1.trust").read_bytes()
    assert devguard("trust", "init", tmp_path / "t", "--root", "root", *INIT).code == "key.exists"
    assert (tmp_path / "t" / "1.trust").read_bytes() == before


def test_only_development_documents_take_development_keys(home: Path, tmp_path: Path) -> None:
    ok("key", "new", "dev", "--person", "Dora", "--role", "release", "--development")
    assert (
        devguard("trust", "init", tmp_path / "t", "--root", "root", *INIT, "--role", "release=dev").code
        == "key.development"
    )
    made = ok(
        "trust", "init", tmp_path / "d", "--root", "root", *INIT, "--role", "release=dev", "--development", "--json"
    ).json
    assert made["development"] is True


def test_a_changed_document(world: World, home: Path, tmp_path: Path) -> None:
    data = world.trust.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 60)):
        changed = bytearray(data)
        changed[at] ^= 1
        (tmp_path / "x.trust").write_bytes(changed)
        result = devguard("trust", "check", tmp_path / "x.trust")
        assert result.status in (1, 3), at
    for end in range(0, len(data), max(1, len(data) // 30)):
        (tmp_path / "x.trust").write_bytes(data[:end])
        assert devguard("trust", "check", tmp_path / "x.trust").status == 3


def test_without_a_document(tmp_path: Path) -> None:
    for command in ("show", "check"):
        result = devguard("trust", command)
        assert (result.status, result.code) == (1, "trust.missing")

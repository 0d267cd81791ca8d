"""`devguard release`: from a description to an envelope people have signed, and what descriptions may not say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli_support import PROGRAMMER, PUMP, World, devguard, ok, records


def test_scaffold_build_sign_verify(world: World, home: Path, tmp_path: Path) -> None:
    made = ok("release", "new", PUMP, "3.0.0", "--json").json
    path = Path(made["path"])
    assert path == Path("firmware_manifests") / PUMP / "3.0.0.toml"
    (path.parent / "images").mkdir()
    (path.parent / "images" / f"{PUMP}-3.0.0.bin").write_bytes(b"image" * 500)
    built = ok("release", "build", path, "-o", "x.suit", "--json").json
    assert (built["model"], built["version"], built["components"]["application"]["size"]) == (PUMP, "3.0.0", 2500)
    assert devguard("verify", "x.suit", "--json").code == "signature.missing"
    first = ok("release", "sign", "x.suit", "--key", "release", "--json").json
    assert (first["complete"], first["signatures"]) == (False, 1)
    assert "quality" in first["missing"]
    second = ok("release", "sign", "x.suit", "--key", "quality", "--json").json
    assert (second["complete"], second["missing"], second["signatures"]) == (True, None, 2)
    assert ok("verify", "x.suit", "--json").json["release"]["version"] == "3.0.0"
    assert [(one["action"], one["actor"], one["code"]) for one in records(home)][1:3] == [
        ("release.sign", "Remy Release", None),
        ("release.sign", "Quinn Quality", None),
    ]


def test_a_scaffold_is_not_overwritten(home: Path) -> None:
    ok("release", "new", PROGRAMMER, "1.0.0")
    assert devguard("release", "new", PROGRAMMER, "1.0.0").code == "file.exists"


@pytest.mark.parametrize("version", ["banana", "1.0", "../../1.0.0", "1.0.0/../../x", "\udcff"])
def test_scaffold_versions(home: Path, tmp_path: Path, version: str) -> None:
    assert devguard("release", "new", PUMP, version).status in (2, 3)
    assert not list(tmp_path.rglob("*.toml"))


def test_the_same_key_twice(world: World, home: Path, tmp_path: Path) -> None:
    suit = world.suit(tmp_path / "x.suit", signers=("release",))
    before = suit.read_bytes()
    assert devguard("release", "sign", suit, "--key", "release").code == "release.duplicate"
    assert suit.read_bytes() == before


@pytest.mark.parametrize("name", ["tech", "root", "authority", "factory"])
def test_a_key_of_another_role(world: World, home: Path, tmp_path: Path, name: str) -> None:
    suit = world.suit(tmp_path / "x.suit", signers=())
    before = suit.read_bytes()
    result = devguard("release", "sign", suit, "--key", name)
    assert (result.status, result.code) == (1, "key.purpose")
    assert suit.read_bytes() == before


def test_sign_without_trust_says_that_it_cannot_count(world: World, home: Path, tmp_path: Path) -> None:
    (home / "trust" / "current.trust").unlink()
    suit = world.suit(tmp_path / "x.suit", signers=())
    assert ok("release", "sign", suit, "--key", "release", "--json").json["complete"] is None


def test_detached(world: World, home: Path, tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(b"i" * 3000)
    (tmp_path / "d.toml").write_text(world.description())
    ok("release", "build", tmp_path / "d.toml", "-o", "x.suit", "--detached")
    assert Path("x.suit").stat().st_size < 2000
    for key in ("release", "quality"):
        ok("release", "sign", "x.suit", "--key", key)
    assert devguard("verify", "image.bin", "--envelope", "x.suit").status == 0


def build(tmp_path: Path, text: str) -> tuple[int, str | None, str]:
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    (folder / "image.bin").write_bytes(b"image" * 100)
    (folder / "d.toml").write_text(text)
    result = devguard("release", "build", folder / "d.toml", "-o", tmp_path / "x.suit")
    assert (tmp_path / "x.suit").exists() == (result.status == 0)
    assert not list(tmp_path.glob("*.part"))
    return result.status, result.code, result.err


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (("sequence = 2", "sequnce = 2"), "sequence"),
        (("[[component]]", "[[components]]"), "component"),
        (("[release]", "[relase]"), "release"),
        (('format = "raw"', 'formt = "raw"'), "format"),
        (("sequence = 2", "sequence = -1"), "sequence"),
        (("sequence = 2", 'sequence = "2"'), "sequence"),
        (("sequence = 2", "sequence = 2\nsequence = 3"), ""),
        (('version = "1.1.0"', 'version = "one"'), "version"),
        (('id = "application"', 'id = "motor"'), "motor"),
        (('revisions = ["revA"]', 'revisions = ["revZ"]'), "revisions"),
    ],
)
def test_a_description_that_breaks_its_format(tmp_path: Path, change: tuple[str, str], names: str) -> None:
    status, code, err = build(tmp_path, World.description().replace(*change))
    assert (status, code) == (3, "description.malformed")
    assert names in err


def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    _, _, err = build(tmp_path, World.description().replace("security_version", "securty_version"))
    assert "securty_version" in err
    assert "security_version" in err


@pytest.mark.parametrize("path", ["../image.bin", "/etc/passwd", "a/../../image.bin", "C:\\\\image.bin", "..", ""])
def test_a_path_that_leaves_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "image.bin").write_bytes(b"outside")
    status, code, _ = build(tmp_path, World.description(image=path))
    assert status == 3
    assert code in ("description.path", "description.malformed")


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "outside.bin").write_bytes(b"outside")
    (tmp_path / "work" / "link.bin").symlink_to(tmp_path / "outside.bin")
    (tmp_path / "work" / "folder").symlink_to(tmp_path)
    for path in ("link.bin", "folder/outside.bin"):
        assert build(tmp_path, World.description(image=path))[:2] == (3, "description.path")
    (tmp_path / "work" / "inner.bin").symlink_to("image.bin")
    assert build(tmp_path, World.description(image="inner.bin"))[0] == 0


def test_links_in_a_circle_and_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "loop.bin").symlink_to("loop.bin")
    os.mkfifo(tmp_path / "work" / "fifo.bin")
    for path in ("loop.bin", "nothing.bin", "fifo.bin", "image.bin/x"):
        assert build(tmp_path, World.description(image=path))[:2] == (3, "file.missing")


def test_an_image_that_does_not_parse_or_fit(tmp_path: Path) -> None:
    assert build(tmp_path, World.description(format="ihex"))[:2] == (3, "image.format")
    (tmp_path / "work" / "big.bin").write_bytes(bytes(600 * 1024))
    status, code, _ = build(tmp_path, World.description(image="big.bin"))
    assert status in (1, 3)
    assert code in ("device.slot", "description.malformed", "image.size", "image.range")


@pytest.mark.parametrize("text", ["", "\0", "[" * 5000, "a." * 3000 + "a = 1", "x = 1e400", "[release]\n" * 2])
def test_descriptions_that_are_none(tmp_path: Path, text: str) -> None:
    assert build(tmp_path, text)[:2] == (3, "description.malformed")


def test_a_place_that_cannot_be_written(world: World, home: Path, tmp_path: Path) -> None:
    for out in ("nowhere/x.suit", "/dev/null/x.suit", ".", "x" * 300):
        result = devguard("release", "build", world.folder / "1.1.0.toml", "-o", out)
        assert result.status in (3, 4)
        assert result.code in ("file.missing", "file.unreadable")


def test_the_image_changes_while_it_is_built(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from devguard.image import measure as room

    (tmp_path / "image.bin").write_bytes(b"i" * 3000)
    (tmp_path / "d.toml").write_text(world.description())
    honest = room.measure

    def slow(*args: object, **options: object) -> object:
        found = honest(*args, **options)
        (tmp_path / "image.bin").write_bytes(b"j" * 3000)
        return found

    monkeypatch.setattr(room, "measure", slow)
    built = devguard("release", "build", tmp_path / "d.toml", "-o", "x.suit")
    monkeypatch.undo()
    os.chdir(tmp_path)
    if built.status == 0:  # at the latest verification sees that the payload is not what was measured
        os.environ.setdefault("DEVGUARD_PASSPHRASE", "")
        assert devguard("verify", "x.suit", "--json", "--home", home).status == 1
        envelope_code = devguard("verify", "x.suit", "--json", "--home", home).json
        assert any(check["code"] == "image.digest" for check in envelope_code["checks"])
    else:
        assert built.code == "file.changed"

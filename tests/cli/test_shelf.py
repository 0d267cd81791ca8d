"""`devguard shelf` and `release publish`: a vendor makes a shelf, a bench follows it, a stick carries it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli_support import PUMP, World, devguard, ok, records


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vendor's home and a shelf that has both releases."""
    folder = tmp_path_factory.mktemp("shelf")
    home = world.copy(folder)
    ok("key", "new", "line", "--person", "Lina Line", "--role", "release", "--home", home)
    ok("shelf", "init", folder / "S", "--root", "root", "--threshold", 1, "--home", home)
    ok("release", "publish", world.suits["1.0.0"], "--shelf", folder / "S", "--key", "line", "--home", home)
    ok("shelf", "publish", world.suits["1.1.0"], "--shelf", folder / "S", "--home", home)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "vendor")
    return tmp_path / "vendor"


def bench(folder: Path, shelf: Path, name: str = "bench") -> Path:
    home = folder / name
    ok("shelf", "refresh", "--from", shelf, "--root", folder / "vendor/S/metadata/1.root.json", "--home", home)
    return home


def test_a_bench_follows_a_shelf(place: Path, tmp_path: Path, world: World) -> None:
    shelf = place / "S"
    home = tmp_path / "bench"
    assert devguard("shelf", "refresh", "--from", shelf, "--home", home).code == "shelf.missing"
    first = ok(
        "shelf", "refresh", "--from", shelf, "--root", shelf / "metadata/1.root.json", "--home", home, "--json"
    ).json
    assert (first["trust_version"], first["trust_kept"], first["fresh"]) == (1, True, True)
    assert ok("shelf", "refresh", "--home", home, "--json").json["received"] < 2000
    rows = ok("shelf", "list", "--home", home, "--json").json["releases"]
    assert [(row["model"], row["version"], row["sequence"]) for row in rows] == [(PUMP, "1.0.0", 1), (PUMP, "1.1.0", 2)]
    ok("shelf", "get", PUMP, "1.1.0", "-o", tmp_path / "got.suit", "--home", home)
    assert (tmp_path / "got.suit").read_bytes() == world.suits["1.1.0"].read_bytes()
    assert devguard("shelf", "get", PUMP, "9.9.9", "-o", tmp_path / "no.suit", "--home", home).code == "shelf.missing"
    assert not (tmp_path / "no.suit").exists()
    assert {one["action"] for one in records(home)} >= {"shelf.refresh", "shelf.get"}


def test_a_pinned_root_is_never_replaced(place: Path, tmp_path: Path) -> None:
    home = bench(tmp_path, place / "S")
    (tmp_path / "other.json").write_bytes((place / "S/metadata/1.root.json").read_bytes() + b" ")
    other = devguard("shelf", "refresh", "--root", tmp_path / "other.json", "--home", home)
    assert (other.status, other.code) == (1, "shelf.pinned")
    (tmp_path / "other.json").write_bytes(b"{}")
    assert devguard("shelf", "refresh", "--root", tmp_path / "other.json", "--home", home).status == 3


def test_a_stick_needs_no_network(place: Path, tmp_path: Path, world: World) -> None:
    home = bench(tmp_path, place / "S")
    carried = ok("shelf", "carry", tmp_path / "stick", "--home", home, "--json").json
    assert [row["version"] for row in carried["releases"]] == ["1.0.0", "1.1.0"]
    assert carried["age_seconds"] < 3600
    shutil.rmtree(place / "S" / "targets")
    far = bench(tmp_path, tmp_path / "stick", "far")
    ok("shelf", "get", PUMP, "1.0.0", "-o", tmp_path / "a.suit", "--home", far)
    assert (tmp_path / "a.suit").read_bytes() == world.suits["1.0.0"].read_bytes()


def test_a_stick_takes_only_what_is_asked_and_replaces_only_a_stick(place: Path, tmp_path: Path) -> None:
    home = bench(tmp_path, place / "S")
    for _ in range(2):
        carried = ok("shelf", "carry", tmp_path / "stick", "--latest", "--model", PUMP, "--home", home, "--json").json
        assert [row["version"] for row in carried["releases"]] == ["1.1.0"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    assert devguard("shelf", "carry", tmp_path / "photos", "--home", home).code == "shelf.exists"
    assert devguard("shelf", "carry", tmp_path / "x", "--model", "toaster", "--home", home).code == "shelf.missing"
    assert not (tmp_path / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench", "photos", "stick", "vendor"]


@pytest.mark.parametrize("what", ["cut", "changed"])
def test_a_damaged_stick_gives_nothing(what: str, place: Path, tmp_path: Path) -> None:
    home = bench(tmp_path, place / "S")
    ok("shelf", "carry", tmp_path / "stick", "--home", home)
    file = next((tmp_path / "stick/targets" / PUMP).glob("*.1.1.0.suit"))
    data = file.read_bytes()
    file.write_bytes(data[:-1] if what == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    far = bench(tmp_path, tmp_path / "stick", "far")
    result = devguard("shelf", "get", PUMP, "1.1.0", "-o", tmp_path / "a.suit", "--home", far)
    assert (result.status, result.code) == (1, "image.digest")
    assert not (tmp_path / "a.suit").exists()


def test_an_old_stick_is_a_rollback(place: Path, tmp_path: Path) -> None:
    home = bench(tmp_path, place / "S")
    ok("shelf", "carry", tmp_path / "stick", "--home", home)
    ok("shelf", "renew", place / "S", "--within", "30d", "--home", place / "home")
    ok("shelf", "refresh", "--home", home)
    assert devguard("shelf", "refresh", "--from", tmp_path / "stick", "--home", home).code == "version.rollback"


def test_the_shelf_is_not_believed_over_the_verdict(place: Path, tmp_path: Path, world: World) -> None:
    """Another vendor's trust: authentic on the shelf, refused by the verdict, not written."""
    home = bench(tmp_path, place / "S")
    other = World.make(tmp_path / "other") if (tmp_path / "other").mkdir() is None else world
    result = devguard("shelf", "get", PUMP, "1.1.0", "-o", tmp_path / "a.suit", "--trust", other.trust, "--home", home)
    assert (result.status, result.code) == (1, "key.unknown")
    assert not (tmp_path / "a.suit").exists()


def test_wrong_software_under_a_version_is_refused(place: Path, tmp_path: Path, world: World) -> None:
    """Whoever holds the line's and the online key lists an old release as a new one."""
    from devguard.cli.context import Invocation
    from devguard.cli.shelf_keys import Keys
    from devguard.cli.shelf_make import repository

    thief = repository(Invocation(home_path=place / "home"), place / "S", Keys(Invocation(home_path=place / "home")))
    with world.suits["1.0.0"].open("rb") as file:
        thief.put_release(PUMP, "1.2.0", 9, file)
        thief.publish()
    home = bench(tmp_path, place / "S")
    result = devguard("shelf", "get", PUMP, "1.2.0", "-o", tmp_path / "a.suit", "--home", home)
    assert (result.status, result.code) == (1, "shelf.mix")


def test_what_no_bench_takes_is_not_published(place: Path, tmp_path: Path, world: World) -> None:
    home, shelf = place / "home", place / "S"
    before = sorted(path.name for path in shelf.rglob("*"))
    half = world.suit(tmp_path / "half.suit", signers=("release",), version="1.3.0", sequence=3)
    result = devguard("release", "publish", half, "--shelf", shelf, "--home", home)
    assert result.status == 1
    assert devguard("shelf", "publish", world.suits["1.1.0"], "--shelf", shelf, "--home", home).code == "shelf.exists"
    assert devguard("shelf", "publish", world.trust, "--shelf", shelf, "--home", home).code == "trust.rollback"
    assert devguard("shelf", "publish", half, "--shelf", tmp_path / "no", "--home", home).status == 1
    assert sorted(path.name for path in shelf.rglob("*")) == before


def test_a_publish_without_the_line_key_writes_nothing(place: Path, tmp_path: Path, world: World) -> None:
    (place / "home/keys/line.key").unlink()
    before = sorted(path.name for path in (place / "S").rglob("*"))
    suit = world.suit(tmp_path / "new.suit", version="1.3.0", sequence=3)
    result = devguard("release", "publish", suit, "--shelf", place / "S", "--home", place / "home")
    assert (result.status, result.code) == (1, "shelf.signature")
    assert sorted(path.name for path in (place / "S").rglob("*")) == before


def test_roots_of_two_people_and_their_rotation(place: Path, tmp_path: Path) -> None:
    """Two of two root people who sign on different days, then a root with a third."""
    home, shelf = place / "home", tmp_path / "two"
    away = tmp_path / "away"
    for name, where in (("one", home), ("two", away)):
        ok("key", "new", name, "--person", f"Person {name}", "--role", "root", "--home", where)
    ok("key", "export", "two", "--public", "-o", home / "keys" / "two.pub", "--home", away)
    roots = ("--root", "one", "--root", "two", "--threshold", 2, "--targets", "release", "--home", home, "--json")
    made = ok("shelf", "init", shelf, *roots).json
    assert not made["complete"]
    assert not (shelf / "metadata" / "1.root.json").exists()
    assert ok("shelf", "sign", shelf, "--key", "two", "--home", away, "--json").json["complete"]
    pinned = ("--root", shelf / "metadata/1.root.json", "--home", tmp_path / "b")
    ok("shelf", "refresh", "--from", shelf, *pinned)
    ok("key", "new", "three", "--person", "Person three", "--role", "root", "--home", home)
    again = ("--root", "one", "--root", "three", "--threshold", 2, "--targets", "release", "--home", home, "--json")
    assert not ok("shelf", "rotate", shelf, *again).json["complete"]  # the old root's second person is away
    assert ok("shelf", "refresh", "--home", tmp_path / "b", "--json").json["root_version"] == 1
    ok("shelf", "sign", shelf, "--key", "two", "--home", away)
    assert ok("shelf", "refresh", "--home", tmp_path / "b", "--json").json["root_version"] == 2


def test_a_lost_line_key_is_replaced(place: Path, tmp_path: Path) -> None:
    home = bench(tmp_path, place / "S")
    ok("key", "new", "fresh", "--person", "Lina Line", "--role", "release", "--home", place / "home")
    ok("shelf", "rotate", place / "S", "--line", f"{PUMP}=fresh", "--home", place / "home")
    (place / "home/keys/line.key").unlink()
    ok("shelf", "refresh", "--home", home)
    assert len(ok("shelf", "list", "--home", home, "--json").json["releases"]) == 2


@pytest.mark.parametrize(
    ("option", "key", "code"),
    [("--targets", "tech", "key.purpose"), ("--targets", "quality", "signature.algorithm"),
     ("--root", "release", "key.purpose"), ("--online", "root", "shelf.signature")],
)  # fmt: skip
def test_keys_that_do_not_sign_a_shelf(option: str, key: str, code: str, home: Path, tmp_path: Path) -> None:
    roots = () if option == "--root" else ("--root", "root")
    result = devguard("shelf", "init", tmp_path / "S", *roots, option, key, "--threshold", 1, "--home", home)
    assert (result.status, result.code) == (1, code)
    assert not (tmp_path / "S").exists()


def test_a_threshold_above_the_keys_is_refused(home: Path, tmp_path: Path) -> None:
    result = devguard("shelf", "init", tmp_path / "S", "--root", "root", "--threshold", 2, "--home", home)
    assert (result.status, result.code) == (1, "shelf.signature")


def test_without_the_tuf_package_the_shelf_says_so(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = devguard("shelf", "list", "--home", home)
    assert (result.status, result.code) == (1, "shelf.package")


def test_metadata_says_when_it_was_signed_and_which_key(place: Path) -> None:
    signed = json.loads((place / "S/metadata/timestamp.json").read_bytes())
    assert set(signed["signed"]) >= {"x-devguard-issued", "expires", "meta"}
    assert all(len(one["keyid"]) == 64 for one in signed["signatures"])

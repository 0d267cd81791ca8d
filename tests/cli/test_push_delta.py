"""`push --delta`: a patch from a release that is at hand, over a real pseudo-terminal; and what becomes of bad ones."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from builders import make_image
from cli_support import World, devguard, emulator, ok, records
from devguard.cli import less
from devguard.cli.context import Invocation
from devguard.cli.encode import encode
from devguard.errors import Refused
from devguard.session.verbs import Encoding

pytest.importorskip("detools", reason="the extra `delta` is not installed")

SIZE = 30_000
FIRST = make_image(SIZE, "first")
SECOND = FIRST[:5000] + b"second" + FIRST[5006:]


def suits(world: World, folder: Path) -> list[Path]:
    return [
        world.suit(folder / f"{number}.suit", image=image, sequence=number, version=f"1.{number}.0")
        for number, image in enumerate((FIRST, SECOND), start=1)
    ]


def test_the_second_push_sends_a_patch(world: World, home: Path, tmp_path: Path) -> None:
    first, second = suits(world, tmp_path)
    with emulator(world, tmp_path, "IP-D1") as device:
        grant = world.grant(tmp_path / "g", "IP-D1")
        args = ["--port", device.port, "--key", "tech", "--grant", grant]
        link = ok("push", first, *args, "--json").json["link"]
        assert (link["encoding"], link["sent_bytes"], link["fell_back"]) == ("full", SIZE, None)
        kept = home / "releases" / f"{hashlib.sha256(FIRST).hexdigest()}.suit"
        assert kept.read_bytes() == first.read_bytes()
        assert kept.stat().st_mode & 0o777 == 0o600
        done = ok("push", second, *args, "--json").json
        link = done["link"]
        assert done["report"]["image_digest"] == hashlib.sha256(SECOND).hexdigest()
        assert (link["encoding"], link["payload_bytes"]) == ("delta", SIZE)
        assert link["sent_bytes"] < 500
        assert link["wire_bytes"] < SIZE
    ok("evidence", "verify")
    assert [one["code"] for one in records(home) if one["action"] == "release.push"] == [None] * 2


def test_a_bench_that_never_saw_the_device_patches_from_the_shelf_it_follows(
    world: World, home: Path, tmp_path: Path
) -> None:
    """The device says which release it runs, by its digest; the one on the shelf has that digest."""
    pytest.importorskip("tuf", reason="the extra `shelf` is not installed")
    first, second = suits(world, tmp_path)
    shelf = tmp_path / "S"
    ok("key", "new", "line", "--person", "Lina Line", "--role", "release")
    ok("shelf", "init", shelf, "--root", "root", "--threshold", 1)
    ok("release", "publish", first, "--shelf", shelf, "--key", "line")
    (tmp_path / "other").mkdir()
    other = world.copy(tmp_path / "other")
    with emulator(world, tmp_path, "IP-D2") as device:
        args = ["--port", device.port, "--key", "tech", "--grant", world.grant(tmp_path / "g", "IP-D2"), "--json"]
        ok("push", first, *args, "--home", other)
        ok("shelf", "refresh", "--from", shelf, "--root", shelf / "metadata/1.root.json")
        assert not (home / "releases").exists()
        done = ok("push", second, *args).json
    assert (done["link"]["encoding"], done["link"]["payload_bytes"]) == ("delta", SIZE)
    assert done["link"]["sent_bytes"] < 500
    assert done["report"]["image_digest"] == hashlib.sha256(SECOND).hexdigest()


def test_a_patch_is_asked_for_or_forbidden_not_both(world: World, home: Path, tmp_path: Path) -> None:
    first, second = suits(world, tmp_path)
    assert devguard("push", second, "--delta", "never", "--delta-from", first).status == 2
    assert devguard("push", second, "--delta", "sometimes").status == 2


class Said(Invocation):
    """An invocation whose notes are kept."""

    notes: list[str]

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def said(home: Path) -> Said:
    found = Said(home_path=home)
    found.notes = []
    return found


class Running:
    """As much of a report as is looked at."""

    model, version = "insulin-pump", "1.1.0"
    manifest_digest: bytes | None = bytes(32)
    image_digest = hashlib.sha256(FIRST).digest()


def forms(said: Said, image: bytes = SECOND, report: type = Running, extra: Path | None = None) -> dict[Encoding, int]:
    made = less.forms_of(said, io.BytesIO(image), len(image), report, extra, 115_200)  # type: ignore[arg-type]
    return {form.encoding: len(form.data) for form in made}


def keep(said: Said, suit: Path, image: bytes) -> Path:
    with suit.open("rb") as file:
        less.keep(said, file, hashlib.sha256(image).digest())
    return said.home.releases / f"{hashlib.sha256(image).hexdigest()}.suit"


def test_where_a_patch_comes_from_and_what_stands_in_its_way(
    world: World, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = suits(world, tmp_path)
    assert set(forms(said)) == {Encoding.COMPRESSED}
    assert set(forms(said, extra=first)) == set(Encoding)
    assert set(forms(said, extra=second)) == {Encoding.COMPRESSED}  # not what the device runs
    assert "no patch is made from it" in said.notes.pop()
    kept = keep(said, first, FIRST)
    assert set(forms(said)) == set(Encoding)
    assert said.notes == []

    kept.write_bytes(second.read_bytes())  # another release under that name
    assert set(forms(said)) == {Encoding.COMPRESSED}
    kept.write_bytes(b"garbage")
    assert set(forms(said)) == {Encoding.COMPRESSED}
    assert "cannot be used for a patch" in said.notes.pop()
    flipped = bytearray(first.read_bytes())
    flipped[-100] ^= 1
    kept.write_bytes(flipped)
    assert set(forms(said)) == {Encoding.COMPRESSED}
    keep(said, first, FIRST)

    class Factory(Running):
        manifest_digest = None

    assert set(forms(said, report=Factory)) == {Encoding.COMPRESSED}
    monkeypatch.setattr(less, "can_patch", lambda: False)
    assert set(forms(said)) == {Encoding.COMPRESSED}
    assert "devguard[delta]" in said.notes.pop()


class FolderShelf:
    """As much of a shelf as is asked, with one release on it."""

    def __init__(self, place: str, suit: Path) -> None:
        self.store, self.place, self.suit = self, place, suit
        self.asked: list[tuple[object, ...]] = []

    def source(self) -> str:
        return self.place

    @contextlib.contextmanager
    def release(self, *asked: object) -> Iterator[IO[bytes]]:
        self.asked.append(asked[1:3])
        if not self.suit.exists():
            raise Refused("shelf.missing", "it is not on the shelf")
        with self.suit.open("rb") as file:
            yield file


def test_a_shelf_in_a_folder_is_asked_for_the_version_that_runs_and_one_on_the_network_is_not(
    world: World, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = suits(world, tmp_path)
    (said.home.path / "shelf").mkdir()
    said.home.shelf_state.write_bytes(b"followed")
    for place, suit, found in (
        (str(tmp_path), first, set(Encoding)),
        (str(tmp_path), second, {Encoding.COMPRESSED}),
        (str(tmp_path), tmp_path / "gone", {Encoding.COMPRESSED}),
        ("https://shelf.example", first, {Encoding.COMPRESSED}),
    ):
        shelf = FolderShelf(place, suit)
        monkeypatch.setattr("devguard.cli.shelf.opened", lambda _, shelf=shelf: shelf)
        assert set(forms(said)) == found
        assert shelf.asked == ([("insulin-pump", "1.1.0")] if "://" not in place else [])
    assert [note.partition(":")[0] for note in said.notes] == ["no patch from the shelf"]


def test_a_form_that_the_device_s_own_decoder_does_not_take_is_not_offered(
    world: World, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(said, suits(world, tmp_path)[0], FIRST)
    bad = [(Encoding.DELTA, b"garbage"), (Encoding.COMPRESSED, next(iter(encode(b"", FIRST, 60)))[1])]
    monkeypatch.setattr("devguard.cli.encode.encode", lambda *_: iter(bad))
    assert forms(said) == {}
    assert set(forms(said, image=FIRST)) == {Encoding.COMPRESSED}


def test_images_that_leave_no_room_are_not_encoded(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devguard.cli.encode.encode", lambda *_: pytest.fail("it was encoded"))
    assert forms(said, image=bytes(499_712)) == {}


def test_what_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(encode(FIRST, SECOND, 0.0)) == []
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert list(encode(FIRST, SECOND, 5.0)) == []


def test_only_the_newest_releases_are_kept(world: World, said: Said, tmp_path: Path) -> None:
    suit = suits(world, tmp_path)[0]
    for number in range(less.KEPT + 3):
        path = keep(said, suit, bytes([number]))
        os.utime(path, (number, number))
    names = {path.name for path in said.home.releases.iterdir()}
    assert names == {f"{hashlib.sha256(bytes([n])).hexdigest()}.suit" for n in range(3, less.KEPT + 3)}

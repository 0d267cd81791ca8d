"""Trust documents that come with a shelf: followed one by one from the one in use, or not at all.

Invariant: whatever a shelf lists, a refresh that refuses leaves the state of the shelf, the pinned root and every
trust document of the home byte for byte as they were. Only evidence is added.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from builders import DAY, make_signer
from cli_support import Result, devguard, ok, records
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.custody import files
from devguard.custody.memory import MemorySigner
from devguard.errors import Refused
from devguard.trust.document import build_trust, read_trust, trust_payload
from devguard.trust.model import KeyEntry, Role
from devguard.trust.rotate import Change, sign_successor, successor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))
from tuf_repository import TufRepository

ADA, BOB, EVE = (make_signer(Algorithm.ESP256, f"shelf root/{name}") for name in ("ada", "bob", "eve"))
TODAY = int(time.time())
YEAR = 365 * DAY


def root(signer: MemorySigner) -> Role:
    return Role(1, (KeyEntry(signer.key, {ADA: "Ada", BOB: "Bob", EVE: "Eve"}[signer]),))


def first(signer: MemorySigner = ADA, **fields: Any) -> bytes:
    given = {"version": 1, "issued": TODAY - DAY, "expires": TODAY + YEAR, **fields}
    return build_trust(trust_payload(roles={RoleName.ROOT: root(signer)}, **given), [signer])


def after(data: bytes, signers: Sequence[MemorySigner], new: MemorySigner | None = None, **fields: Any) -> bytes:
    """The next version, under the root `new` where one is named."""
    held = read_trust(data)
    change = Change(roles={} if new is None else {RoleName.ROOT: root(new)})
    doc = successor(held, change, **{"issued": TODAY - 3600, "expires": TODAY + YEAR, **fields})
    return sign_successor(held, doc, signers)


ONE = first()
TWO = after(ONE, [ADA, BOB], BOB)  # Ada hands over to Bob
THREE = after(TWO, [BOB])
CHAIN = {1: ONE, 2: TWO, 3: THREE}


def shelf(folder: Path, documents: Mapping[int, bytes], older: TufRepository | None = None) -> TufRepository:
    """A shelf in `folder` that lists these documents; a later state of `older` where that is given."""
    repo = older or TufRepository()
    repo.signed["targets"].targets.clear()
    for version, data in documents.items():
        repo.put(f"trust/{version}.trust", data)
    repo.publish()
    served = {f"metadata/{number}.root.json": data for number, data in enumerate(repo.roots, 1)}
    served |= {"metadata/timestamp.json": repo.sign("timestamp"), **repo.history, **repo.files}
    for name, data in served.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return repo


def state(home: Path) -> dict[str, str]:
    """Everything that a refused refresh may not touch."""
    found = [path for name in ("shelf", "trust") for path in (home / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def refresh(home: Path, folder: Path, *more: object) -> Result:
    pinned = () if (home / "shelf" / "root.json").exists() else ("--root", folder / "metadata/1.root.json")
    return devguard("shelf", "refresh", "--from", folder, *pinned, "--home", home, "--json", *more)


def bench(tmp_path: Path, documents: Mapping[int, bytes]) -> tuple[Path, Path, TufRepository]:
    """A home that has followed a shelf with these documents; the shelf's folder and repository."""
    home, folder = tmp_path / "bench", tmp_path / "S"
    repo = shelf(folder, documents)
    assert refresh(home, folder).status == 0
    return home, folder, repo


def in_use(home: Path) -> int:
    return read_trust((home / "trust" / "current.trust").read_bytes()).version


def test_a_first_document_is_taken_aloud(tmp_path: Path) -> None:
    folder, home = tmp_path / "S", tmp_path / "bench"
    shelf(folder, {1: ONE})
    said = ok("shelf", "refresh", "--from", folder, "--root", folder / "metadata/1.root.json", "--home", home)
    assert "first trust document, on the word of the pinned root: version 1" in said.out
    effects = [one for one in records(home) if one["details"].get("effect") == "in use here"]
    assert [one["details"]["version"] for one in effects] == ["1"]


def test_two_rotations_behind_are_walked_one_by_one(tmp_path: Path) -> None:
    home, folder, repo = bench(tmp_path, {1: ONE})
    shelf(folder, CHAIN, repo)
    done = refresh(home, folder).json
    assert (done["trust_followed"], done["trust_kept"], done["trust_version"]) == ([2, 3], False, 3)
    assert (home / "trust" / "current.trust").read_bytes() == THREE
    assert (home / "trust" / "2.trust").read_bytes() == TWO
    written = [(one["action"], one["details"].get("effect")) for one in records(home)][-2:]
    assert written == [("shelf.refresh", None), ("shelf.refresh", "in use here")]
    assert refresh(home, folder).json["trust_followed"] == []


def test_the_documents_before_the_one_in_use_need_not_be_there(tmp_path: Path) -> None:
    home, folder, repo = bench(tmp_path, {2: TWO})
    shelf(folder, {2: TWO, 3: THREE}, repo)
    assert refresh(home, folder).json["trust_followed"] == [3]


@pytest.mark.parametrize("command", ["get", "carry"])
def test_other_commands_follow_too(command: str, tmp_path: Path) -> None:
    """Else `get` would judge by a document that the shelf says is outlived."""
    home, folder, repo = bench(tmp_path, {1: ONE})
    shelf(folder, CHAIN, repo)
    if command == "carry":
        assert "version 3 now" in ok("shelf", "carry", tmp_path / "stick", "--home", home).out
    else:
        missing = devguard("shelf", "get", "insulin-pump", "1.0.0", "-o", tmp_path / "x", "--home", home)
        assert missing.code == "shelf.missing"
    assert in_use(home) == 3


FORGED = after(first(EVE), [EVE])
LIES: dict[str, tuple[str, Mapping[int, bytes], Mapping[int, bytes]]] = {
    "a gap": ("trust.gap", {1: ONE}, {1: ONE, 3: THREE}),
    "a gap to the one in use": ("trust.gap", {1: ONE}, {3: THREE}),
    "a fork of the next": ("trust.signature", {1: ONE}, {1: ONE, 2: FORGED}),
    "a fork behind a good step": ("trust.signature", {1: ONE}, {1: ONE, 2: TWO, 3: first(ADA, version=3)}),
    "the new root alone": ("trust.signature", {1: ONE}, {1: ONE, 2: first(BOB, version=2)}),
    "the old root alone": ("trust.signature", {1: ONE}, {1: ONE, 2: after(ONE, [ADA], BOB)}),
    "expired": ("trust.expired", {1: ONE}, {1: ONE, 2: after(ONE, [ADA], issued=TODAY - 9, expires=TODAY - 8)}),
    "from the future": ("trust.not-yet", {1: ONE}, {1: ONE, 2: after(ONE, [ADA], issued=TODAY + 9 * DAY)}),
    "garbage": ("trust.malformed", {1: ONE}, {1: ONE, 2: b"\xd8\x62garbage"}),
    "another version inside": ("shelf.mix", {1: ONE}, {1: ONE, 2: THREE}),
}


@pytest.mark.parametrize("name", LIES)
def test_a_chain_that_does_not_hold_changes_nothing(name: str, tmp_path: Path) -> None:
    code, before, lie = LIES[name]
    home, folder, repo = bench(tmp_path, before)
    then = state(home)
    shelf(folder, lie, repo)
    assert (refresh(home, folder).code, state(home)) == (code, then)


def test_a_shelf_that_goes_back(tmp_path: Path) -> None:
    home, folder, repo = bench(tmp_path, CHAIN)
    then = state(home)
    shelf(folder, {1: ONE, 2: TWO}, repo)
    assert (refresh(home, folder).code, state(home)) == ("trust.rollback", then)


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ({1: first(EVE)}, "trust.rollback"),  # another version 3 is a fork; an older one goes back
        ({1: first(EVE), 2: FORGED}, "trust.rollback"),
        ({3: first(EVE, version=3)}, "trust.rollback"),
        ({4: first(EVE, version=4)}, "trust.signature"),
        ({9: first(EVE, version=9)}, "trust.gap"),
    ],
    ids=["older", "older chain", "same version", "next version", "far ahead"],
)
def test_a_lying_shelf_with_a_chain_of_its_own(lie: Mapping[int, bytes], code: str, tmp_path: Path) -> None:
    """The home has a document already; a shelf never followed here brings one of another root. Nothing is pinned."""
    home, _, _ = bench(tmp_path, CHAIN)
    for path in sorted((home / "shelf").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    then = state(home)
    shelf(tmp_path / "liar", lie)
    assert (refresh(home, tmp_path / "liar").code, state(home)) == (code, then)


def test_a_home_that_remembers_takes_no_other_first_document(tmp_path: Path) -> None:
    """The trust file is gone, its memory is not."""
    home, _, _ = bench(tmp_path, {1: ONE})
    for path in [*(home / "trust").iterdir(), *(one for one in (home / "shelf").rglob("*") if not one.is_dir())]:
        path.unlink()
    then = state(home)
    shelf(tmp_path / "liar", {1: first(EVE)})
    assert (refresh(home, tmp_path / "liar").code, state(home)) == ("trust.rollback", then)


@pytest.mark.parametrize("name", ["2.trust", "3.trust", "current.trust"])
def test_a_disk_that_fails_behind_the_shelf_takes_everything_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the shelf is written, then one of the trust documents cannot be."""
    home, folder, repo = bench(tmp_path, {1: ONE})
    then = state(home)
    shelf(folder, CHAIN, repo)
    write = files.write_atomic

    def full(path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == name and path.parent.name == "trust":
            assert state(home) != then  # the shelf is ahead for a moment
            raise Refused("file.unreadable", "No space left on device")
        write(path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", full)
        assert (refresh(home, folder).code, state(home)) == ("file.unreadable", then)
    assert refresh(home, folder).json["trust_followed"] == [2, 3]


@pytest.mark.parametrize("name", ["1.trust", "current.trust"])
def test_a_disk_that_fails_under_a_first_document_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home = tmp_path / "S", tmp_path / "bench"
    shelf(folder, {1: ONE})
    write = files.write_atomic

    def full(path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == name and path.parent.name == "trust":
            raise Refused("file.unreadable", "No space left on device")
        write(path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", full)
        assert (refresh(home, folder).code, state(home)) == ("file.unreadable", {})
    assert refresh(home, folder).json["trust_kept"] is True

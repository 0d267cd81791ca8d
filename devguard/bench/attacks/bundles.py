"""Class H, fourth part: names in release files, shelves and descriptions that want to be paths."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devguard import wire
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.vendor import write_release
from devguard.bench.watched import STARTS, Seen, outside, watched
from devguard.custody.keyfile import load_signer
from devguard.manifest.envelope import Payload

if TYPE_CHECKING:
    from devguard.shelf.repository import Repository

_MARK: Final = "devguard-escape"
_NAMES: Final = (
    f"../../{_MARK}", f"/{_MARK}", f"C:\\{_MARK}", f"..\\..\\{_MARK}", f"{_MARK}\0.bin", f"{_MARK}/", f"~/{_MARK}",
    f"%2e%2e/{_MARK}", f"{_MARK}\u202egpj", f"\u2024\u2024/{_MARK}", f"CON.{_MARK}", f"$HOME/{_MARK}", _MARK * 300,
)  # fmt: skip
_MANY: Final = 100_000
_BAD: Final = ("envelope.malformed", "envelope.not-deterministic", "image.trailing")


class HostileNames(Row):
    """Members, targets, roles and images with names that lead elsewhere; links and special files where files belong."""

    id = "H04"
    title = "Path traversal and hostile names in bundles"
    precedent = "CVE-2018-5448 (Medtronic 2090), CVE-2023-7216 (SWUpdate), CVE-2021-33884 (B. Braun), CVE-2020-6965"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.D1", "4.4")

    def play(self, scene: Scene) -> None:
        with watched() as seen:
            for number, (what, path) in enumerate(self._files(scene)):
                scene.refuses(f"{what}, verified", scene.commanding("verify", path), *_BAD, by=By.OFFLINE)
                scene.run("inspect", path)
                if scene.full or number % 4 == 0:
                    scene.refuses(f"{what}, pushed", scene.pushing(path), *_BAD, by=By.OFFLINE)
            self._signed(scene)
            self._described(scene)
            if importlib.util.find_spec("tuf") is not None:
                self._shelves(scene)
        scene.goes_through("an honest push", scene.pushing(scene.next))
        self._kept_inside(scene, seen)

    @staticmethod
    def _files(scene: Scene) -> Iterator[tuple[str, Path]]:
        """Release files with one member more, twins of the one they have, and more members than there are."""
        build, path = scene.next, scene.folder / "hostile.suit"
        own = next(iter(build.envelope.payloads))
        twins = (own.upper(), f"{own} ", own.replace("a", "\u0430"), own.replace("i", "\u0131"))
        for name in (*(f"#{one}" for one in _NAMES), *twins):
            payloads = {**build.envelope.payloads, name: Payload(0, 4, b"evil")}
            hostile = replace(build, envelope=replace(build.envelope, payloads=payloads))
            yield f"a member {name[:24]!a}", write_release(hostile, scene.world.model.facts, path)
        path.write_bytes(b"\xd8\x6b" + wire.head(5, _MANY) + b"".join(map(wire.encode, range(_MANY))))
        yield f"{_MANY} members", path

    @staticmethod
    def _signed(scene: Scene) -> None:
        """The same, by a vendor who has signed it."""
        for name in (f"../../{_MARK}", f"/{_MARK}"):
            facts = replace(scene.world.model.facts, components=(name, *scene.world.model.facts.components[1:]))
            build = scene.vendor.release(facts, "1.2.0", 3)
            path = write_release(build, facts, scene.folder / "signed.suit")
            scene.refuses(f"a component {name}, pushed", scene.pushing(path), "release.components", by=By.HOST)
            scene.refuses(f"{name}, offered", scene.offering(build), "release.components", by=By.DEVICE_ALONE)

    @staticmethod
    def _described(scene: Scene) -> None:
        """A description from elsewhere, whose images are to be read from outside of its folder."""
        facts, folder = scene.world.model.facts, scene.folder / "described"
        folder.mkdir()
        outside_it = scene.folder / f"{_MARK}.bin"
        outside_it.write_bytes(b"a secret of the station's")
        (folder / "link.bin").symlink_to(outside_it)
        os.mkfifo(folder / "pipe.bin")
        for name in (f"../{outside_it.name}", str(outside_it), f"x/../../{outside_it.name}", "link.bin", "pipe.bin"):
            text = (
                f'[release]\nvendor = "{facts.vendor}"\nmodel = "{facts.name}"\nrevisions = ["{facts.revisions[0]}"]\n'
            )
            text += 'version = "1.2.0"\nsequence = 3\nsecurity_version = 2\nsummary = "hostile"\n'
            for one in facts.components:
                text += f'[[component]]\nid = "{one}"\nimage = "{name}"\nformat = "raw"\n'
            (folder / "release.toml").write_text(text)
            out = folder / "release.suit"
            attempt = scene.commanding("release", "build", folder / "release.toml", "-o", out)
            scene.refuses(
                f"a description of {Path(name).name}", attempt, "description.path", "file.missing", by=By.NOBODY
            )
        scene.holds("nothing was built of any", not (folder / "release.suit").exists())
        outside_it.unlink()
        shutil.rmtree(folder)

    def _shelves(self, scene: Scene) -> None:
        """A shelf whose owner has its keys and calls things as he likes; and one with links and pipes in it."""
        home, honest = scene.folder / "vendor", scene.folder / "shelf"
        shutil.copytree(scene.vendor.home, home)
        roots = ("--root", "root", "--root", "root-2", "--threshold", "2")
        keys = ("--key", "root", "--key", "root-2")
        trust = scene.folder / "current.trust"
        trust.write_bytes(scene.world.trust)
        must = functools.partial(scene.world.must, home)
        must("shelf", "init", honest, *roots, "--trust", trust)
        must("shelf", "publish", scene.file(scene.next, "published"), "--shelf", honest, "--trust", trust, *keys)
        first = ("--root", honest / "metadata" / "1.root.json")
        scene.goes_through("an honest shelf", scene.commanding("shelf", "refresh", "--from", honest, *first))
        for what, code, change in _changes(scene):
            hostile = scene.folder / "hostile-shelf"
            shutil.copytree(honest, hostile)
            change(hostile)
            attempt = scene.commanding("shelf", "refresh", "--from", hostile)
            scene.refuses(f"a shelf with {what}", attempt, code, by=By.OFFLINE)
            shutil.rmtree(hostile)

    @staticmethod
    def _kept_inside(scene: Scene, seen: list[Seen]) -> None:
        wrote = outside(seen, scene.folder, tempfile.gettempdir(), "/dev/pts", "/dev/ptmx")
        scene.holds(f"nothing was written elsewhere; not {[one.path for one in wrote[:3]]}", not wrote)
        own = scene.folder / f"{_MARK}.bin"  # put there by this row
        named = [one.path for one in seen if _MARK in one.path and one.real != os.path.realpath(own)]
        scene.holds(f"no file by any such name was opened; not {named[:3]}", not named)
        scene.holds("no other program was started", not [one for one in seen if one.event in STARTS])


def _changes(scene: Scene) -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """What is done to a shelf, and the code that it has to be refused with."""
    name = f"../../{_MARK}"
    called = {
        "a release called a path": _release_called(name),
        "a role called a path": _role_called(name),
        "metadata listed as a path": _listed_as(name),
    }
    for what, change in called.items():
        yield what, "shelf.name", functools.partial(_published, scene, change)
    for kind, place in {"a pipe": os.mkfifo, "a folder": os.mkdir, "endless zeros": _zeros}.items():
        yield f"{kind} for its timestamp", "shelf.unreachable", functools.partial(_instead, place)


def _published(scene: Scene, change: Callable[[Repository], object], shelf: Path) -> None:
    """A change of a shelf, signed by all its keys."""
    from devguard.shelf.repository import Repository

    online = load_signer(scene.folder / "vendor" / "keys" / "shelf-online.key", bytes)
    signers = {one.key.fingerprint: one for one in (scene.signer("root"), scene.signer("root-2"), online)}
    repository = Repository(shelf, signers.get, scene.world.now)
    change(repository)
    repository.publish()


def _release_called(name: str) -> Callable[[Repository], object]:
    def change(repository: Repository) -> None:
        from tuf.api.metadata import TargetFile

        repository.change("targets").targets[name] = TargetFile.from_data(name, b"evil", ["sha256"])

    return change


def _role_called(name: str) -> Callable[[Repository], object]:
    def change(repository: Repository) -> None:
        from tuf.api.metadata import DelegatedRole

        top = repository.change("targets")
        keys = next(iter(top.delegations.roles.values())).keyids
        top.delegations.roles[name] = DelegatedRole(name, keys, 1, True, [f"{name}/*"])

    return change


def _listed_as(name: str) -> Callable[[Repository], object]:
    def change(repository: Repository) -> None:
        from tuf.api.metadata import MetaFile

        repository.change("snapshot").meta[f"{name}.json"] = MetaFile(1)

    return change


def _instead(place: Callable[[Path], object], shelf: Path) -> None:
    """Something else in place of the shelf's timestamp."""
    timestamp = shelf / "metadata" / "timestamp.json"
    timestamp.unlink()
    place(timestamp)


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


ROWS: Final[tuple[type[Row], ...]] = (HostileNames,)

"""A shelf for a USB stick: a self-contained folder that any bench with the pinned root verifies without a network.

It has the layout of a shelf, with every root since the pinned one, the newest metadata as it was signed, and the
targets asked for. Its freshness is what the vendor signed; carrying changes none of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import TargetFile

from devguard.custody.files import file_error, read_limited, sync_folder, write_atomic, write_streamed
from devguard.errors import Refused
from devguard.shelf.client import Accept, Shelf, open_target, taken
from devguard.shelf.fetch import ShelfFetcher
from devguard.shelf.freshness import TOP, Freshness
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.names import line_of, prefixed
from devguard.shelf.source import FolderSource, Source
from devguard.shelf.store import Store
from devguard.shelf.view import View


@dataclass(frozen=True, slots=True)
class Carried:
    """What lies in the folder now."""

    freshness: Freshness
    releases: tuple[tuple[str, str], ...]
    size: int


def carry(
    shelf: Shelf,
    source: Source,
    folder: Path,
    now: int,
    *,
    models: Collection[str] = (),
    latest: bool = False,
    accept: Accept = taken,
    limits: Limits = LIMITS,
) -> Carried:
    """Refresh, asking `accept`, then write `folder`: whole or not at all.

    `models`: only these; `latest`: the newest of each. A folder that is there is replaced only when it is a carried
    shelf. Before it takes its name, what was written is verified from the pinned root as a bench would. Raises what
    `Shelf.refresh` and `open_target` raise, `shelf.missing` for a model that is not there, `shelf.exists` for a folder
    that is something else.
    """
    _check_place(folder)
    shelf.refresh(source, now, accept)
    try:
        beside = Path(tempfile.mkdtemp(prefix=".devguard-shelf-", dir=folder.absolute().parent))
    except OSError as error:
        raise file_error(folder, error) from None
    try:
        with shelf.kept(now) as (view, fresh):
            if unknown := set(models) - set(view.lines()):
                raise Refused("shelf.missing", f"no product line {', '.join(sorted(unknown))} on the shelf")
            chosen = list(_chosen(view, models, latest))
            _write_metadata(view, beside / "metadata")
            fetcher = ShelfFetcher(source, limits)
            for _, _, info in chosen:
                _write_target(fetcher, info, beside / "targets", limits.release_size)
            for version, info in view.trust_documents().items():
                data = shelf.trust_document(version)
                _put(beside / "targets" / prefixed(info.path, info.hashes), data)
        _prove(shelf.store.pinned(), beside, now, limits)
        _replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Carried(fresh, tuple((model, version) for model, version, _ in chosen), size)


def _chosen(view: View, models: Collection[str], latest: bool) -> Iterable[tuple[str, str, TargetFile]]:
    for model in view.lines():
        if models and model not in models:
            continue
        found = sorted(view.releases(model).items(), key=lambda one: _sequence(one[1]))
        yield from ((model, version, info) for version, info in (found[-1:] if latest else found))


def _sequence(info: TargetFile) -> int:
    custom: Any = info.custom
    value = custom.get("sequence") if isinstance(custom, dict) else None
    return value if isinstance(value, int) else -1


def _write_metadata(view: View, folder: Path) -> None:
    """The verified bytes under the names a repository has for them."""
    for path in (view.folder / "root_history").glob("*.root.json"):
        _put(folder / path.name, read_limited(path, view.limits.root_size))
    lines = view.lines()  # what the snapshot still lists of a line that is gone nobody asks for
    listed = {role: info for role, info in view.snapshot().items() if role in TOP or line_of(role)[0] in lines}
    versions = {role: int(info["version"]) for role, info in listed.items()} | {"snapshot": view.snapshot_version()}
    for role, version in versions.items():
        _put(folder / f"{version}.{role}.json", read_limited(view.folder / f"{role}.json", view.limits.targets_size))
    _put(folder / "timestamp.json", read_limited(view.folder / "timestamp.json", view.limits.timestamp_size))


def _write_target(fetcher: ShelfFetcher, info: TargetFile, folder: Path, limit: int) -> None:
    path = folder / prefixed(info.path, info.hashes)
    _folder(path.parent)
    with open_target(fetcher, info, limit) as file:
        write_streamed(path, lambda out: shutil.copyfileobj(file, out, 1 << 20))


def _put(path: Path, data: bytes) -> None:
    _folder(path.parent)
    write_atomic(path, data)


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(folder, error) from None


def _prove(pinned: bytes, folder: Path, now: int, limits: Limits) -> None:
    """A bench that knows nothing but the pinned root reads the folder."""
    with tempfile.TemporaryDirectory(prefix="devguard-") as name:
        store = Store(Path(name) / "shelf", limits)
        store.pin(pinned)
        Shelf(store.folder, limits).refresh(FolderSource(folder, limits), now)


def _check_place(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise Refused("shelf.exists", f"{folder} is no folder")
    if folder.is_dir() and any(folder.iterdir()) and not _is_carried(folder):
        raise Refused("shelf.exists", f"{folder} holds something else than a carried shelf", "name a new folder")


def _is_carried(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return names <= {"metadata", "targets"} and (folder / "metadata" / "timestamp.json").is_file()


def _replace(beside: Path, folder: Path) -> None:
    try:
        with suppress(PermissionError):  # FAT has no modes
            os.chmod(beside, 0o755)  # noqa: S103 (metadata and releases are public)
        for path in (*beside.rglob("*/"), beside):
            if path.is_dir():
                sync_folder(path)
        old = Path(tempfile.mkdtemp(prefix=".devguard-shelf-", dir=folder.absolute().parent))
        try:
            if folder.is_dir():
                os.replace(folder, old / "old")
            os.replace(beside, folder)
        except OSError:
            with suppress(OSError):
                os.replace(old / "old", folder)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
        sync_folder(folder.absolute().parent)
    except OSError as error:
        raise file_error(folder, error) from None

"""What a bench keeps of a shelf: the pinned root, and generations of verified state of which one is current.

    root.json        the pinned root: where this bench's belief in a shelf begins
    source           where the shelf was last found
    current          the name of the generation in use
    state-XXXXXXXX/  metadata/ as the tuf client keeps it, trust/N.trust

The tuf client writes as it goes. So it works in a generation of its own, and only a step that succeeded whole makes
that the current one: one rename. A refused step leaves every byte as it was, with one exception that TUF 1.0.34
section 5.3.8 demands: new roots, each vouched for by the one before it, are kept even when what follows fails.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.custody.files import file_error, read_limited, sync_folder, write_atomic, write_new
from devguard.errors import DevguardError, Malformed, Refused
from devguard.shelf.limits import LIMITS, Limits

_NAME: Final = re.compile(r"state-[a-z0-9_]{8}")
_ROOTS: Final = "root_history"


@dataclass(slots=True)
class Stage:
    """A generation being made; `commit` makes it the current one."""

    store: Store
    folder: Path
    committed: bool = False

    @property
    def metadata(self) -> Path:
        """Where the tuf client works."""
        return self.folder / "metadata"

    @property
    def trust(self) -> Path:
        """Trust documents found on the shelf, N.trust."""
        return self.folder / "trust"

    def commit(self) -> None:
        """Make every file durable, then switch."""
        self.store.switch(self.folder)
        self.committed = True


class Store:
    """The folder `shelf/` of a home."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.folder = folder
        self._limits = limits

    def pin(self, root: bytes) -> None:
        """Keep `root` as the pinned root; `Refused("shelf.pinned")` when another is pinned already."""
        self._make()
        path = self.folder / "root.json"
        if path.exists() and self.pinned() == root:
            return
        write_new(path, root, exists="shelf.pinned")

    def pinned(self) -> bytes:
        """The pinned root; `Refused("shelf.missing")` without one."""
        path = self.folder / "root.json"
        if not path.is_file():
            raise Refused(
                "shelf.missing",
                f"no root is pinned: {path} does not exist",
                "get the root from the vendor by a way you trust, then devguard shelf refresh --root FILE --from PLACE",
            )
        return read_limited(path, self._limits.root_size)

    def source(self) -> str | None:
        """Where the shelf was last found."""
        try:
            return read_limited(self.folder / "source", 4096).decode().strip() or None
        except (Malformed, UnicodeDecodeError):
            return None

    def remember(self, source: str) -> None:
        """Keep where the shelf was found."""
        if source != self.source():
            write_atomic(self.folder / "source", f"{source}\n".encode())

    def current(self) -> Path | None:
        """The generation in use; None before the first refresh."""
        try:
            name = read_limited(self.folder / "current", 64).decode("ascii").strip()
        except Malformed as error:
            if error.code == "file.missing":
                return None
            raise
        except UnicodeDecodeError:
            name = ""
        if not _NAME.fullmatch(name) or not (self.folder / name / "metadata").is_dir():
            raise Malformed("shelf.malformed", f"{self.folder / 'current'} names no state of this shelf")
        return self.folder / name

    @contextlib.contextmanager
    def staged(self) -> Iterator[Stage]:
        """A copy of the current generation to work in; gone afterwards unless committed. One at a time."""
        self._make()
        with self._locked():
            before = self.current()
            stage = Stage(self, self._fresh(before))
            try:
                yield stage
            except DevguardError:
                self._keep_roots(before, stage)
                raise
            finally:
                self._sweep()

    def switch(self, folder: Path) -> None:
        """Make `folder` the current generation."""
        before = self.current()
        with self._errors():
            files = [path for path in folder.rglob("*.*") if path.is_file() and not path.is_symlink()]
            new = [path for path in files if path.stat().st_nlink == 1 and not _reused(path, folder, before)]
            # Side by side, so that the file system's journal takes them in one go.
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(_sync_file, new))
                list(
                    pool.map(sync_folder, [folder, *(path for path in folder.rglob("*") if path.is_dir()), self.folder])
                )
        write_atomic(self.folder / "current", folder.name.encode())

    def _keep_roots(self, before: Path | None, stage: Stage) -> None:
        """After a refusal: roots that the tuf client verified and stored stay, and nothing else does."""
        old = before / "metadata" / _ROOTS if before is not None else None
        found = stage.metadata / _ROOTS
        new = [
            p for p in (sorted(found.iterdir()) if found.is_dir() else []) if old is None or not (old / p.name).exists()
        ]
        if stage.committed or before is None or not new:
            return
        kept = self._fresh(before)
        with self._errors():
            for path in new:
                shutil.copyfile(path, kept / "metadata" / _ROOTS / path.name)
        self.switch(kept)

    def _fresh(self, before: Path | None) -> Path:
        with self._errors():
            folder = Path(tempfile.mkdtemp(prefix="state-", dir=self.folder))
            for name in ("metadata", f"metadata/{_ROOTS}", "trust"):
                (folder / name).mkdir()
                if before is not None and (before / name).is_dir():
                    _link_all(before / name, folder / name)
        return folder

    def _sweep(self) -> None:
        """Take away every generation but the current one: what a crash left goes too."""
        current = self.current()
        for path in self.folder.glob("state-*"):
            if _NAME.fullmatch(path.name) and path != current:
                shutil.rmtree(path, ignore_errors=True)

    def _make(self) -> None:
        with self._errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if os.name == "nt":
            yield
            return
        import fcntl

        with self._errors():
            descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            with self._errors():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise file_error(self.folder, error) from None


def _link_all(old: Path, new: Path) -> None:
    """Hard links where the file system has them: nobody writes into a stored file, it is only ever replaced."""
    for path in old.iterdir():
        if path.is_symlink():  # root.json, which the tuf client points at its newest root
            os.symlink(os.readlink(path), new / path.name)
        elif path.is_file():
            try:
                os.link(path, new / path.name)
            except OSError:
                shutil.copyfile(path, new / path.name)


def _reused(path: Path, folder: Path, before: Path | None) -> bool:
    """Give a file that the tuf client wrote again, as it does its roots, back its durable old self."""
    old = None if before is None else before / path.relative_to(folder)
    if old is None or not old.is_file() or old.read_bytes() != path.read_bytes():
        return False
    linked = path.with_name(f".{path.name}")
    try:
        os.link(old, linked)
    except OSError:
        return False
    os.replace(linked, path)
    return True


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

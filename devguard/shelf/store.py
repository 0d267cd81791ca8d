"""What a bench keeps of a shelf on disk, and the folder in which the tuf client works meanwhile.

    root.json   the pinned root: where this bench's belief in a shelf begins
    state       verified metadata and trust documents, and where they were found (`state`)
    work/       where the tuf client works: a copy of the state or of parts of it, and nothing is believed of it

The tuf client writes as it goes. So it works in a folder of its own, and only a step that succeeded whole is appended
to the state: one write, one fsync. A refused step leaves every byte as it was, with one exception that TUF 1.0.34
section 5.3.8 demands: new roots, each vouched for by the one before it, are kept even when what follows fails.
Whatever the working folder holds is compared with the state before the client begins; files that are right already
stay, for making and removing files takes a busy disk longer than all the rest.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from devguard.custody.files import file_error, read_limited, write_new
from devguard.errors import DevguardError, Refused
from devguard.shelf.freshness import TOP, Freshness, freshness_of, signed_part
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.names import line_of
from devguard.shelf.state import State, compact, read_state, take_back, write_state

_WORK: Final = "work"
_ROOTS: Final = "root_history"
_ROOT: Final = re.compile(r"([1-9][0-9]{0,18})\.root\.json")


@dataclass(slots=True)
class Stage:
    """A step in the making. `kept`: what was there before it, None before the first; `commit` keeps the outcome."""

    store: Store
    kept: State | None
    length: int
    committed: bool = field(default=False)
    old: State | None = field(init=False)

    def __post_init__(self) -> None:
        self.old = self.kept

    @property
    def metadata(self) -> Path:
        """Where the tuf client works."""
        return self.store.folder / _WORK

    @property
    def before(self) -> State:
        """What was there, or nothing."""
        return self.kept or State()

    def lay(self, roles: Iterable[str]) -> None:
        """Put kept metadata where the tuf client looks for it before it asks the shelf."""
        for role in roles:
            if role not in TOP:
                line_of(role)
            data = self.before.roles.get(role)
            if data is not None:
                with self.store.errors():
                    _lay(self.metadata / f"{role}.json", data)

    def commit(self, verified: Iterable[str], lines: Collection[str], trust: Mapping[int, bytes], place: str) -> None:
        """Keep the roles that the tuf client verified, and trust documents; forget roles of other product lines."""
        limit = self.store.limits.targets_size
        found = {role: read_limited(self.metadata / f"{role}.json", limit) for role in verified}
        roles = {
            role: data
            for role, data in {**self.before.roles, **found}.items()
            if role in TOP or line_of(role)[0] in lines
        }
        self._keep(State(self._roots(), roles, {**self.before.trust, **trust}, place))
        self.committed = True

    def undo(self) -> None:
        """Take a commit back: what was to follow it failed."""
        if self.committed:
            take_back(self.store.file, self.old, self.length)
            self.kept, self.committed = self.old, False

    def keep_roots(self) -> None:
        """After a refusal: roots that the tuf client verified stay, and nothing else does."""
        if not self.committed and self.kept is not None:
            self._keep(replace(self.kept, roots=self._roots()))

    def set_right(self) -> None:
        """Make the working folder a copy of the state, as far as it holds anything at all."""
        roots = {f"{version}.root.json": data for version, data in self.before.roots.items()}
        roles = {f"{role}.json": data for role, data in self.before.roles.items()}
        for folder, right in ((self.metadata / _ROOTS, roots), (self.metadata, roles)):
            for name in _names(folder):
                if name in right:
                    _lay(folder / name, right[name])
                elif name != "root.json" or self.kept is None:
                    os.unlink(folder / name)

    def prepare(self) -> None:
        """The roots and the top of the state, and no file that is not of the state."""
        (self.metadata / _ROOTS).mkdir(mode=0o700, parents=True, exist_ok=True)
        roots = {f"{version}.root.json": data for version, data in self.before.roots.items()}
        for name in _names(self.metadata / _ROOTS) - roots.keys():
            os.unlink(self.metadata / _ROOTS / name)
        for name in _names(self.metadata) - {f"{role}.json" for role in self.before.roles} - {"root.json"}:
            os.unlink(self.metadata / name)
        for name, data in roots.items():
            _lay(self.metadata / _ROOTS / name, data)
        self.lay(TOP)

    def _keep(self, new: State) -> None:
        limit = self.store.limits.metadata_size
        if new.size > limit:
            raise Refused("shelf.endless", f"{new.size} bytes of metadata on the shelf; at most {limit} are kept")
        if new != self.kept:
            write_state(self.store.file, self.kept, self.length, new)
            self.kept = new

    def _roots(self) -> dict[int, bytes]:
        """Those that were kept, and those that the tuf client has written since: it writes what it verified."""
        folder, known = self.metadata / _ROOTS, self.before.roots
        found = (int(name[1]) for one in _names(folder) if (name := _ROOT.fullmatch(one)))
        new = {
            version: read_limited(folder / f"{version}.root.json", self.store.limits.root_size)
            for version in found
            if version not in known
        }
        return {**known, **new}


class Store:
    """The folder `shelf/` of a home."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.folder = folder
        self.limits = limits

    @property
    def file(self) -> Path:
        """Where the state is."""
        return self.folder / "state"

    def pin(self, root: bytes) -> bool:
        """Keep `root` as the pinned root; whether it was not yet. `Refused("shelf.pinned")` when another one is."""
        self._make()
        path = self.folder / "root.json"
        if path.exists() and self.pinned() == root:
            return False
        write_new(path, root, exists="shelf.pinned")
        return True

    def unpin(self) -> None:
        """Undo the first pin: nothing was ever believed because of it."""
        with self.errors():
            os.unlink(self.folder / "root.json")

    def pinned(self) -> bytes:
        """The pinned root; `Refused("shelf.missing")` without one."""
        path = self.folder / "root.json"
        if not path.is_file():
            raise Refused(
                "shelf.missing",
                f"no root is pinned: {path} does not exist",
                "get the root from the vendor by a way you trust, then devguard shelf refresh --root FILE --from PLACE",
            )
        return read_limited(path, self.limits.root_size)

    def source(self) -> str | None:
        """Where the shelf was last found."""
        state = self.state()
        return state.place or None if state is not None else None

    def state(self) -> State | None:
        """What is kept; None before the first refresh."""
        return read_state(self.file)[0]

    def freshness(self) -> Freshness | None:
        """How fresh what is kept is, as it was when it was stored; None before the first refresh."""
        state = self.state()
        if state is None:
            return None
        return freshness_of({role: signed_part(data, role) for role, data in state.top().items()})

    @contextlib.contextmanager
    def staged(self) -> Iterator[Stage]:
        """A folder for the tuf client, with what it begins from. One at a time."""
        self._make()
        with self._locked():
            kept, length = read_state(self.file)
            stage = Stage(self, kept, length)
            with self.errors():
                stage.prepare()
            try:
                yield stage
            except DevguardError:
                stage.keep_roots()
                raise
            finally:
                if not stage.committed:
                    with self.errors():
                        stage.set_right()
            if stage.committed:
                compact(self.file, stage.before)

    def _make(self) -> None:
        with self.errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if os.name == "nt":
            yield
            return
        import fcntl

        with self.errors():
            descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            with self.errors():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """The operating system's errors in our own words."""
        try:
            yield
        except OSError as error:
            raise file_error(self.folder, error) from None


def _names(folder: Path) -> set[str]:
    """Everything in a folder but the folder of roots."""
    with os.scandir(folder) as entries:
        return {one.name for one in entries} - {_ROOTS}


def _lay(path: Path, data: bytes) -> None:
    """Let a file of the working folder hold `data`. It need not outlive a crash."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read(len(data) + 1) == data:
            return
    with open(path, "wb") as file:
        file.write(data)

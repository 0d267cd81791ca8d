"""What a crash can leave of an evidence folder: the system calls of a writer, and every disk they may have led to.

The model of a disk: a write that no fsync followed may have reached it in any of its sectors, in any order, and its
file may have grown without it, or not; a name that was made or removed is so only after the folder's fsync. What an
fsync returned for is there. A sector is written whole or not at all.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.evidence import files
from devguard.evidence.frame import LEAD
from devguard.evidence.record import Record

STATION = MemorySigner.from_seed(Algorithm.ED25519, b"station".ljust(32, b"."))
SECTOR = 512


def record(number: int = 0, **fields: object) -> Record:
    """A record; they are a second apart."""
    given = {"time": 1000 + number, "actor": "Tess", "action": "test.append", "request": f"r-{number}", **fields}
    return Record(**given)  # type: ignore[arg-type] # keywords of the test


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def fill(folder: Path, state: dict[str, bytes]) -> Path:
    """A folder with those files and no others."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, data in state.items():
        (folder / name).write_bytes(data)
    return folder


def frames_of(data: bytes) -> list[bytes]:
    """The lead of a segment, then its frames."""
    parts, at = [data[:LEAD]], LEAD
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        parts.append(data[at:end])
        at = end
    return parts


@dataclass(frozen=True)
class Step:
    """One system call: on which file (""; the folder), what, and for writes where and which bytes."""

    kind: str
    name: str
    at: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """The system calls on one folder, in order, and how many appends had returned before each."""

    folder: Path
    steps: list[Step] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    returned: int = 0

    def note(self, step: Step) -> None:
        self.steps.append(step)
        self.acknowledged.append(self.returned)

    def name(self, descriptor: int) -> str | None:
        """The file behind a descriptor, "" for the folder itself, None for anything elsewhere."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return "" if path == self.folder else path.name if path.parent == self.folder else None


@contextmanager
def recorded(folder: Path) -> Iterator[Recorder]:  # noqa: C901 (one small function for each call)
    """Record what is done to `folder` meanwhile; nothing waits for a disk."""
    recorder = Recorder(folder.resolve())
    real = {name: getattr(os, name) for name in ("open", "pwrite", "ftruncate", "unlink")}

    def opened(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor: int = real["open"](path, flags, mode, dir_fd=dir_fd)
        name = recorder.name(descriptor)
        if name and flags & os.O_CREAT:
            recorder.note(Step("create", name))
            if flags & os.O_TRUNC:
                recorder.note(Step("truncate", name, 0))
        return descriptor

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if (name := recorder.name(descriptor)) is not None:
            recorder.note(Step("write", name, offset, bytes(data)))
        return int(real["pwrite"](descriptor, data, offset))

    def ftruncate(descriptor: int, size: int) -> None:
        if (name := recorder.name(descriptor)) is not None:
            recorder.note(Step("truncate", name, size))
        real["ftruncate"](descriptor, size)

    def unlink(path: object, *, dir_fd: int | None = None) -> None:
        real["unlink"](path, dir_fd=dir_fd)
        if dir_fd is not None and recorder.name(dir_fd) == "":
            recorder.note(Step("unlink", str(path)))

    def fsync(descriptor: int) -> None:
        if (name := recorder.name(descriptor)) is not None:
            recorder.note(Step("fsync", name))

    replaced = {"open": opened, "pwrite": pwrite, "ftruncate": ftruncate, "unlink": unlink, "fsync": fsync}
    with pytest.MonkeyPatch.context() as patch:
        for name, function in replaced.items():
            patch.setattr(os, name, function)
        yield recorder


@dataclass
class Disk:
    """What is durable: the names that exist, and the bytes of every file that was ever made; and what is not yet."""

    names: set[str]
    files: dict[str, bytes]
    pending: list[Step] = field(default_factory=list)

    def take(self, step: Step) -> None:
        """One system call more."""
        if step.kind != "fsync":
            self.pending.append(step)
            return
        mine = [one for one in self.pending if (one.kind in ("create", "unlink")) == (step.name == "")]
        for one in mine if step.name == "" else [one for one in mine if one.name == step.name]:
            self.apply(one)
            self.pending.remove(one)

    def apply(self, step: Step) -> None:
        """Let a call have reached the disk."""
        data = self.files.get(step.name, b"")
        if step.kind == "create":
            self.names.add(step.name)
        elif step.kind == "unlink":
            self.names.discard(step.name)
        elif step.kind == "truncate":
            self.files[step.name] = data[: step.at].ljust(step.at, b"\x00")
        else:
            self.files[step.name] = (
                data[: step.at].ljust(step.at, b"\x00") + step.data + data[step.at + len(step.data) :]
            )

    def crash(self, choose: random.Random) -> dict[str, bytes]:
        """A folder as a crash now may leave it."""
        left = Disk(set(self.names), dict(self.files))
        everything, nothing = choose.random() < 0.1, choose.random() < 0.1
        for step in self.pending:
            for piece in _pieces(step):
                if everything or (not nothing and choose.random() < 0.5):
                    left.apply(piece)
                elif piece.kind == "write" and choose.random() < 0.3:
                    size = len(left.files.get(piece.name, b""))
                    left.apply(Step("truncate", piece.name, max(size, piece.at + len(piece.data))))
        return {name: left.files.get(name, b"") for name in sorted(left.names)}


def _pieces(step: Step) -> list[Step]:
    """A write, sector by sector."""
    if step.kind != "write":
        return [step]
    edges = [*range(step.at - step.at % SECTOR + SECTOR, step.at + len(step.data), SECTOR), step.at + len(step.data)]
    pieces, at = [], step.at
    for edge in edges:
        pieces.append(Step("write", step.name, at, step.data[at - step.at : edge - step.at]))
        at = edge
    return pieces


def crashes(
    before: dict[str, bytes], recorder: Recorder, seed: str, tries: int
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """(appends that had returned, folder) for crashes at every system call, `tries` of each."""
    for end in range(len(recorder.steps) + 1):
        disk = Disk(set(before), dict(before))
        for step in recorder.steps[:end]:
            disk.take(step)
        returned = recorder.acknowledged[end] if end < len(recorder.steps) else recorder.returned
        choose = random.Random(f"{seed} {end}")
        for _ in range(tries):
            yield returned, disk.crash(choose)


Scene = Callable[[Recorder], None]


def in_file(folder: Path) -> int:
    """A descriptor of the folder, for `files`; the caller closes it."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


__all__ = ["SECTOR", "STATION", "contents", "crashes", "files", "fill", "frames_of", "in_file", "record", "recorded"]

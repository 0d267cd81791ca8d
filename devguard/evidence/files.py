"""The files of an evidence folder: lock, listing, durable writes. Nothing here knows what the bytes mean.

`evidence/` holds `segment-NNNNNN.log`, `checkpoint` and, while a record is being appended, `checkpoint.next`; any
other name is damage. The lock is on the folder itself, so that no further file is needed. Links are never followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from devguard.errors import LinkError, Malformed, Refused
from devguard.evidence.checkpoint import MAX_NOTE
from devguard.evidence.frame import segment_name, segment_number

CHECKPOINT: Final = "checkpoint"
PENDING: Final = "checkpoint.next"
_CODE: Final = "log.tampered"
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an evidence folder held at one moment: both notes (None: no such file) and the size of every segment."""

    checkpoint: bytes | None
    pending: bytes | None
    sizes: dict[int, int]


def unreadable(what: object, error: OSError) -> LinkError:
    """The coded error of a file that cannot be read."""
    return LinkError("file.unreadable", f"{what}: {error.strerror or error}")


def full(error: OSError) -> LinkError:
    """The coded error of a log that cannot be written."""
    return LinkError("log.full", f"the evidence log cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def locked(folder: Path, *, exclusive: bool) -> Iterator[int]:
    """Hold the folder's lock; yields a descriptor of the folder for `dir_fd`. Waits for other holders.

    Raises `Refused("log.missing")` when there is no such folder, `LinkError("file.unreadable")` when it cannot be used.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("log.missing", f"{folder} is not a folder with an evidence log") from None
    except OSError as error:
        raise unreadable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        except OSError as error:
            raise unreadable(folder, error) from error
        yield descriptor
    finally:
        os.close(descriptor)  # which also gives the lock back


def create_folder(folder: Path) -> None:
    """Make the folder (0700) and make its entry durable; one that exists is left as it is."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise full(error) from error


def snapshot(at: int) -> Snapshot:
    """What the folder behind descriptor `at` holds; call it with the lock held.

    Raises `Malformed("log.tampered")` for a file that does not belong there or is not a regular file.
    """
    sizes: dict[int, int] = {}
    try:
        names = sorted(os.listdir(at))
        for name in names:
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            number = segment_number(name)
            if not stat.S_ISREG(found.st_mode) or (number is None and name not in (CHECKPOINT, PENDING)):
                raise Malformed(_CODE, f"{name!r} does not belong into the folder of an evidence log")
            if number is not None:
                sizes[number] = found.st_size
    except OSError as error:
        raise unreadable("the evidence folder", error) from error
    return Snapshot(read_note_file(at, CHECKPOINT), read_note_file(at, PENDING), sizes)


def read_note_file(at: int, name: str) -> bytes | None:
    """A small file of the folder, None when there is none; one byte more than a note may have at most."""
    try:
        with _regular(name, at) as reader:
            return reader.read(MAX_NOTE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(name, error) from error


def open_segment(folder: Path, number: int) -> BinaryIO:
    """Segment `number` open for reading. Raises `LinkError("file.unreadable")`, `Malformed("log.tampered")`."""
    try:
        return _regular(str(folder / segment_name(number)), None)
    except OSError as error:
        raise unreadable(segment_name(number), error) from error


def _regular(name: str, at: int | None) -> BinaryIO:
    try:
        descriptor = os.open(name, _READ, dir_fd=at)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise Malformed(_CODE, f"{os.path.basename(name)} is a link, not a file of the log") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Malformed(_CODE, f"{os.path.basename(name)} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=64 * 1024)


def write_file(at: int, name: str, data: bytes) -> None:
    """Write a whole new file (0600) and make it and its name durable. Raises OSError."""
    _write(at, name, 0, data, os.O_CREAT | os.O_TRUNC)
    os.fsync(at)


def write_at(at: int, name: str, offset: int, data: bytes) -> None:
    """Write `data` at `offset` of a file (made when missing) and make it durable. Raises OSError."""
    _write(at, name, offset, data, os.O_CREAT)
    if offset == 0:
        os.fsync(at)


def _write(at: int, name: str, offset: int, data: bytes, flags: int) -> None:
    descriptor = os.open(name, _WRITE | flags, 0o600, dir_fd=at)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cut(at: int, name: str, size: int) -> None:
    """Cut a file to `size` bytes, or remove it when that is nothing, durably. Raises OSError."""
    if size == 0:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
        os.fsync(at)
        return
    descriptor = os.open(name, _WRITE, dir_fd=at)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(at: int, source: str, target: str) -> None:
    """Rename within the folder, durably. Raises OSError."""
    os.rename(source, target, src_dir_fd=at, dst_dir_fd=at)
    os.fsync(at)

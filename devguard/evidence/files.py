"""The files of an evidence folder: lock, listing, durable writes. Nothing here knows what the bytes mean.

`evidence/` holds `segment-NNNNNN.log` and nothing else; a log of format 1 also had `checkpoint` and, while a record was
being appended, `checkpoint.next`. Any other name is damage. The lock is on the folder itself, so that no further file
is needed. Links are never followed. Beside the folder, not in it, may lie `evidence.reserve`: room on the disk that is
given up when there is no other left, so that records can still be written where nothing else can.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from devguard.errors import LinkError, Malformed, Refused
from devguard.evidence.checkpoint import MAX_NOTE
from devguard.evidence.frame import LEAD, segment_name, segment_number
from devguard.evidence.heads import HEAD_SIZE, Snapshot

CHECKPOINT: Final = "checkpoint"
PENDING: Final = "checkpoint.next"
RESERVE_SIZE: Final = 512 * 1024
_CODE: Final = "log.tampered"
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


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
    leads = {number: _start(at, segment_name(number), LEAD) or b"" for number in sorted(sizes)[-2:]}
    return Snapshot(sizes, leads, _start(at, CHECKPOINT, MAX_NOTE + 1), _start(at, PENDING, MAX_NOTE + 1))


def _start(at: int, name: str, size: int) -> bytes | None:
    """The first `size` bytes of a file of the folder, None when there is none."""
    try:
        with _regular(name, at) as reader:
            return reader.read(size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(name, error) from error


def look(at: int, name: str, places: tuple[int, ...]) -> tuple[int, tuple[bytes, ...]] | None:
    """Size of a file of the folder and the `HEAD_SIZE` bytes at each of `places`; None when there is no such file."""
    try:
        descriptor = os.open(name, _READ, dir_fd=at)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(name, error) from error
    try:
        return os.fstat(descriptor).st_size, tuple(os.pread(descriptor, HEAD_SIZE, place) for place in places)
    except OSError as error:
        raise unreadable(name, error) from error
    finally:
        os.close(descriptor)


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


def create(at: int, name: str, data: bytes) -> None:
    """Write a whole new file (0600) and make it and its name durable. Raises OSError."""
    descriptor = os.open(name, _WRITE | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=at)
    try:
        _write(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.fsync(at)


def extend(at: int, name: str, writes: tuple[tuple[int, bytes], ...], wiped: int) -> None:
    """Make each (offset, bytes) of a file durable, with one fsync for all; then wipe `HEAD_SIZE` bytes at `wiped`,
    which the next fsync makes durable. Raises OSError when the writes are not durable."""
    descriptor = os.open(name, _WRITE, dir_fd=at)
    try:
        for offset, data in writes:
            _write(descriptor, data, offset)
        os.fsync(descriptor)
        with contextlib.suppress(OSError):
            _write(descriptor, bytes(HEAD_SIZE), wiped)
    finally:
        os.close(descriptor)


def restore(at: int, name: str, size: int, places: tuple[int, ...]) -> None:
    """Cut a file to `size` bytes and wipe `HEAD_SIZE` bytes at each of `places`, durably. Raises OSError."""
    descriptor = os.open(name, _WRITE, dir_fd=at)
    try:
        os.ftruncate(descriptor, size)
        for place in places:
            _write(descriptor, bytes(HEAD_SIZE), place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(at: int, *names: str) -> None:
    """Remove files of the folder, where they exist, durably. Raises OSError."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
    os.fsync(at)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


# room that is kept for records


def is_full(error: OSError) -> bool:
    """Whether it failed because the disk, or a quota, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _reserve(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.reserve")


def keep_reserve(folder: Path) -> None:
    """Keep room on the disk beside the folder, unless it is kept already. Raises OSError when there is none."""
    path = _reserve(folder)
    with contextlib.suppress(FileNotFoundError):
        if path.stat(follow_symlinks=False).st_size >= RESERVE_SIZE:
            return
    descriptor = os.open(path, _WRITE | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        # Random bytes, written: neither a sparse file nor one that a file system compresses keeps any room.
        _write(descriptor, os.urandom(RESERVE_SIZE), 0)
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def give_up_reserve(folder: Path) -> bool:
    """Give the room back to the disk; whether there was any."""
    try:
        _reserve(folder).unlink()
    except OSError:
        return False
    return True

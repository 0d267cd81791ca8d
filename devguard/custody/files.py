"""Reading and writing files so that nothing is half done and nothing is unbounded.

Writes go to a temporary file in the same folder, reach the disk, and only then take the name; a reader sees the
old bytes or the new ones. Reads take regular files only (a FIFO or device would hang) and stop at a limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from devguard.errors import DevguardError, Malformed, Refused

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
PRIVATE_KEY_MARK = b"devguard-key: "  # how a private key file begins; `keytext` writes it
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def file_error(path: Path, error: OSError | ValueError) -> DevguardError:
    """The coded form of an operating-system error: `file.missing` (Malformed) or `file.unreadable` (Refused)."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, ValueError) or error.errno in _ABSENT:
        return Malformed("file.missing", f"{path}: {reason}")
    return Refused("file.unreadable", f"{path}: {reason}")


def open_regular(path: Path) -> int:
    """A read-only descriptor of a regular file, links followed; the caller closes it.

    What is checked is the file that was opened, not the path. Raises `file.missing` or `file.unreadable`.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise file_error(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Malformed("file.missing", f"{path}: not a regular file")
    return descriptor


def read_limited(path: Path, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes.

    Raises `Malformed("file.missing")`, `Refused("file.unreadable")`, `Malformed("wire.malformed")` when larger.
    """
    descriptor = open_regular(path)
    try:
        return read_descriptor(descriptor, path, limit)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, path: Path, limit: int) -> bytes:
    """The rest of an open file, errors as `read_limited`; `path` is for messages only."""
    chunks: list[bytes] = []
    left = limit + 1
    try:
        while left and (chunk := os.read(descriptor, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    except OSError as error:
        raise file_error(path, error) from None
    if not left:
        raise Malformed("wire.malformed", f"{path}: larger than {limit} bytes")
    return b"".join(chunks)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` at `path`, replacing what was there, whole or not at all; durable on return.

    A private key file is never replaced, whoever asks: a slip of -o must not cost a vendor its key. Raises
    `Refused("key.exists")` for one, `Malformed("file.missing")` when the folder does not exist,
    `Refused("file.unreadable")` otherwise.
    """
    write_streamed(path, lambda file: _pour(file, data), mode)


def write_streamed(path: Path, fill: Callable[[BinaryIO], None], mode: int = 0o644) -> None:
    """As `write_atomic`, for bytes that `fill` writes to the file it is given: whole or not at all, in flat memory.

    What `fill` raises passes through and leaves the old bytes; its `OSError` counts as a failure to write `path`.
    """
    _spare_private_key(path)
    with _coded(path), _written_beside(path, fill, mode) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, mode: int = 0o644, *, exists: str = "key.exists") -> None:
    """As `write_atomic`, but never over an existing name, a dangling link included: `Refused(exists)`."""
    with _coded(path, exists), _written_beside(path, lambda file: _pour(file, data), mode) as temporary:
        try:
            os.link(temporary, path, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_exclusively(path, data, mode)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _coded(path: Path, exists: str | None = None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "\0" not in str(path):
            raise  # not the path's fault: a bug in whoever fills the file stays visible
        if exists is not None and isinstance(error, FileExistsError):
            raise Refused(exists, f"{path} exists already") from None
        raise file_error(path, error) from None


@contextlib.contextmanager
def _written_beside(path: Path, fill: Callable[[BinaryIO], None], mode: int) -> Iterator[str]:
    """A durable temporary file beside `path`; whatever happens, it is gone afterwards."""
    descriptor, temporary = tempfile.mkstemp(prefix=".devguard-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _finish(file, fill, mode)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _write_exclusively(path: Path, data: bytes, mode: int) -> None:
    """For file systems without hard links: the name is taken first, and given back when writing fails."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    done = False
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _finish(file, lambda opened: _pour(opened, data), mode)
        done = True
    finally:
        if not done:
            os.unlink(path)


def _spare_private_key(path: Path) -> None:
    """`Refused("key.exists")` when a private key file has that name; what cannot be looked at is no key of ours."""
    try:
        descriptor = open_regular(path)
    except DevguardError:
        return
    try:
        start = os.read(descriptor, len(PRIVATE_KEY_MARK))
    except OSError:
        return
    finally:
        os.close(descriptor)
    if start == PRIVATE_KEY_MARK:
        raise Refused("key.exists", f"{path} is a private key; devguard writes over none")


def _pour(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _finish(file: BinaryIO, fill: Callable[[BinaryIO], None], mode: int) -> None:
    if hasattr(os, "fchmod"):
        with contextlib.suppress(PermissionError):  # FAT has no modes; whoever loads a key checks them again
            os.fchmod(file.fileno(), mode)
    fill(file)
    file.flush()
    os.fsync(file.fileno())

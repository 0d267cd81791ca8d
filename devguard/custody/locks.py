"""One writer at a time for a file that is read, changed and put back, across processes and across machines.

The lock is a file of its own beside the target, held with flock(2) and gone afterwards: the target itself is replaced,
so a lock on it would be a lock on the old one. On a shared folder it works where the folder has locks; where it has
none, the change is refused. A process that dies gives its lock back. Not for several threads of one process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from devguard.custody.files import file_error
from devguard.errors import LinkError, Refused

WAIT: Final = 30.0  # seconds until somebody else's change counts as stuck
PATIENCE: Final = 1.0  # seconds until a person is told what is waited for
_PAUSE: Final = 0.01
_LOCKLESS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF})
_held: dict[tuple[int, int], int] = {}  # identity of a lock file -> the process that holds it


@contextlib.contextmanager
def locked(path: Path, *, wait: float | None = None, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock of `path`, which need not exist; a lock this process holds already is held once more.

    `waiting` is called once when another process has held it for a second. Raises `LinkError("file.busy")` after
    `wait` seconds (by default `WAIT`), `Refused("file.unreadable")` where nothing can be locked,
    `Malformed("file.missing")` without the folder.
    """
    beside = lock_file(path)
    try:
        descriptor, mine = _taken(path, beside, WAIT if wait is None else wait, waiting)
    except (OSError, ValueError) as error:
        raise file_error(path, error) from None
    if descriptor is None:
        yield
        return
    _held[mine] = os.getpid()
    try:
        yield
    finally:
        del _held[mine]
        with contextlib.suppress(OSError):
            os.unlink(beside)  # while it is held: whoever waits for it sees that its name is gone and begins anew
        os.close(descriptor)


def lock_file(path: Path) -> Path:
    """The name of the lock of `path`: hidden, and short however long the target's name is."""
    return path.parent / f".devguard-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.lock"


def _taken(
    path: Path, beside: Path, wait: float, waiting: Callable[[], object] | None
) -> tuple[int | None, tuple[int, int]]:
    """(a descriptor that holds the lock, its identity); (None, identity) when this process holds it already."""
    began, told = time.monotonic(), False
    while True:
        descriptor = _opened(beside)
        kept = False
        try:
            mine = _identity(os.fstat(descriptor))
            if _held.get(mine) == os.getpid():
                return None, mine
            kept = _try(path, descriptor) and _named(beside) == mine
        finally:
            if not kept:
                os.close(descriptor)
        if kept:
            return descriptor, mine
        passed = time.monotonic() - began
        if passed >= wait:
            raise LinkError("file.busy", f"{path} is being changed by another devguard")
        if passed >= PATIENCE and waiting is not None and not told:
            told = True
            waiting()
        time.sleep(_PAUSE)


def _opened(beside: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(beside, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError as refused:
        # Left by somebody else who was cut off: reading it is enough for a lock on a local disk.
        try:
            return os.open(beside, os.O_RDONLY | flags)
        except FileNotFoundError:
            raise refused from None


def _try(path: Path, descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _LOCKLESS:
            raise Refused(
                "file.unreadable",
                f"{path}: its folder has no locks, so two changes at once could lose one of them",
                "copy the file to a local folder, change it there, and copy it back",
            ) from None
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EINTR):
            raise
        return False
    return True


def _named(beside: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        return _identity(os.stat(beside, follow_symlinks=False))
    return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino

"""What goes wrong in a database, as devguard's own errors: by the driver's code, never by its words alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, ProgrammingError, SQLAlchemyError, TimeoutError

from devguard.errors import DevguardError, LinkError, Malformed
from devguard.evidence.record import printable

_MAGIC: Final = b"SQLite format 3\x00"
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_BUSY_STATES: Final = ("40001", "40P01", "55P03", "25P03")  # serialisation, deadlock, lock timeout, idle too long
_FULL_STATES: Final = ("53100", "53200")
_DENIED_STATES: Final = ("42501", "25006")  # not ours to write; a standby that only reads
_DAMAGED_STATES: Final = ("XX001", "XX002")
_AWAY_CLASSES: Final = ("08", "57", "53", "28", "3D", "58", "XX")
_WHY: Final = 300


@contextlib.contextmanager
def coded(name: str, password: object = None) -> Iterator[None]:
    """Turn what SQLAlchemy or a driver raises into a `DevguardError`; `name`: of the store, for people."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _coded(name, error, password) from None
    except (sqlite3.Error, OverflowError) as error:
        raise _coded(name, error, password) from None


def _coded(name: str, error: Exception, password: object) -> DevguardError:
    origin = getattr(error, "orig", None) or error
    why = _words(origin, password)
    if isinstance(origin, sqlite3.Error):
        return _of_sqlite(name, origin, why)
    if isinstance(error, TimeoutError):
        return LinkError("ledger.busy", f"all connections to {name} are in use: {why}")
    if not isinstance(error, DBAPIError):
        return Malformed("ledger.malformed", f"{name} is not as a ledger is: {why}")
    state = getattr(origin, "sqlstate", None)
    if state is None:
        if isinstance(error, (DataError, ProgrammingError)):
            return Malformed("ledger.malformed", f"{name} did not take it: {why}")
        # No answer at all: the server is away, or the connection was cut.
        return LinkError("ledger.unreachable", f"{name} does not answer: {why}")
    if state in _BUSY_STATES:
        return LinkError("ledger.busy", f"somebody else is changing {name}: {why}")
    if state in _FULL_STATES:
        return LinkError("ledger.full", f"{name} has no room left: {why}")
    if state in _DAMAGED_STATES:
        return Malformed("ledger.malformed", f"{name} is damaged: {why}")
    if state in _DENIED_STATES:
        return LinkError("ledger.unreachable", f"{name} may not be changed from here: {why}")
    if state[:2] in _AWAY_CLASSES:
        return LinkError("ledger.unreachable", f"{name} does not answer: {why}")
    return Malformed("ledger.malformed", f"{name} is not as a ledger is: {why} ({state})")


def _of_sqlite(name: str, error: sqlite3.Error, why: str) -> DevguardError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _BUSY:
        return LinkError("ledger.busy", f"somebody else is changing {name}: {why}")
    if code == sqlite3.SQLITE_FULL:
        return LinkError("ledger.full", f"{name} has no room left: {why}")
    if code in _DAMAGED:
        return Malformed("ledger.malformed", f"{name} is damaged: {why}")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return LinkError("ledger.unreachable", f"{name} cannot be read or written: {why}")
    return Malformed("ledger.malformed", f"{name} is not as a ledger is: {why}")


def _words(error: BaseException, password: object) -> str:
    """The first line of what a driver said, without the password should it be in there."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    secret = "" if password is None else str(password)
    return printable(said.replace(secret, "***") if secret else said, _WHY)


def need_sqlite(path: Path) -> None:
    """Return when a file may be a SQLite database: an empty one, or one that begins like it. Raises `OSError`,
    `Malformed("ledger.malformed")`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Malformed("ledger.malformed", f"{path} is not a file")
        start = os.read(descriptor, len(_MAGIC))
    finally:
        os.close(descriptor)
    if start and start != _MAGIC:
        raise Malformed("ledger.malformed", f"{path} is not a SQLite database")

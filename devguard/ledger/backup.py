"""A backup is a SQLite file of everything that cannot be made again, whichever database it is from; and back.

All rows are read at one moment. Derived tables are left out: a restore makes them anew, and compares what stations said
with the heads that they signed, so that a backup that somebody changed is refused. A queue's own tables are no part of
it. The copy has the name of the store that it is of: a station that knows more than the copy has notices.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, MetaData, Table, inspect, select

from devguard.custody.files import sync_folder
from devguard.errors import LinkError, Malformed, Refused
from devguard.ledger import schema
from devguard.ledger.faults import need_sqlite
from devguard.ledger.migrate import TABLE, check_schema, current, migrate
from devguard.ledger.rebuild import derive_anew
from devguard.ledger.schema import DERIVED, ledger
from devguard.ledger.store import Store, sqlite_url
from devguard.ledger.take import identity, lock
from devguard.ledger.write import portions

PORTION: Final = 500
_LEFT_OUT: Final = frozenset({TABLE, *(table.name for table in DERIVED)})


def backup(store: Store, path: Path) -> int:
    """Write a backup into a new file, readable by its owner alone; how many rows are in it.

    Raises `Refused("file.exists")`, `LinkError` `file.unreadable` or `ledger.full`, and what a transaction raises; then
    there is no file.
    """
    if path.exists() or path.is_symlink():
        raise Refused("file.exists", f"{path} exists already")
    with _beside(path) as folder:
        draft = folder / "backup.sqlite"
        with Store.open(sqlite_url(draft)) as copy, store.read() as source, copy.begin() as target:
            into = _kept(target)
            rows = _copy(source, _same(source, into, store.name), target, into)
        _place(draft, path)
    return rows


def restore(store: Store, path: Path) -> int:
    """Put the store in the state of a backup, whatever it held; how many records are held now.

    All of it or nothing. Raises `Malformed("ledger.malformed")` for a file that is no backup, or was changed;
    `Refused("ledger.schema")` for one of a newer devguard; and what a transaction raises.
    """
    try:
        need_sqlite(path)
    except FileNotFoundError:
        raise Malformed("file.missing", f"{path} does not exist") from None
    except OSError as error:
        raise LinkError("file.unreadable", f"{path}: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix="devguard-restore-") as folder:
        copy = Path(folder) / "backup.sqlite"  # the migration is done to a copy, and who reads it locks nothing
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            raise LinkError("file.unreadable", f"{path}: {error.strerror}") from error
        with Store.unchecked(sqlite_url(copy), create=False) as source:
            with source.read() as conn:
                if current(conn) is None:
                    raise Malformed("ledger.malformed", f"{path} is no backup of a ledger")
            migrate(source)
            with source.read() as found:
                return store.run(lambda target: _restored(found, target))


def _restored(source: Connection, target: Connection) -> int:
    generation = lock(target)
    kept = _kept(source)
    if not {table.name for table in schema.PRIMARY} <= {table.name for table in kept}:
        raise Malformed("ledger.malformed", "the backup lacks tables")
    into = _same(target, kept, "the ledger")
    for derived in reversed(DERIVED):
        target.execute(derived.delete())
    _copy(source, kept, target, into)
    identity(target)
    # Whoever remembers a page by its generation has not seen this one.
    target.execute(ledger.update().where(ledger.c.generation < generation).values(generation=generation))
    return derive_anew(target)


def _kept(conn: Connection) -> list[Table]:
    """The tables that are kept: all that our revisions make in a SQLite file, without what is derived. What is referred
    to comes before what refers to it."""
    found = MetaData()
    found.reflect(conn, only=lambda name, _: name not in _LEFT_OUT)
    return found.sorted_tables


def _same(conn: Connection, tables: list[Table], name: str) -> list[Table]:
    """The tables of these names in another database, whose name for people is `name`."""
    names, found = [table.name for table in tables], MetaData()
    missing = set(names) - set(inspect(conn).get_table_names())
    if missing:
        raise Malformed("ledger.malformed", f"{name} lacks the tables {', '.join(sorted(missing))}")
    found.reflect(conn, only=names, resolve_fks=False)
    return [found.tables[one] for one in names]


def _copy(source: Connection, tables: list[Table], target: Connection, into: list[Table]) -> int:
    """Every row of the tables from one database to another, in the place of what was there; how many they are."""
    count = 0
    for table in reversed(into):
        target.execute(table.delete())
    for table, other in zip(tables, into, strict=True):
        order = list(table.primary_key.columns) or list(table.columns)
        wanted = select(table).order_by(*order).execution_options(yield_per=PORTION)
        for some in portions(source.execute(wanted).mappings(), PORTION):
            target.execute(other.insert(), [dict(row) for row in some])
            count += len(some)
    return count


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder beside a file, gone afterwards."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".devguard-backup-", dir=path.parent)
    except OSError as error:
        raise LinkError("file.unreadable", f"{path.parent}: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def _place(draft: Path, path: Path) -> None:
    """Give a finished file its name, durably; it never replaces another."""
    try:
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(draft, path, follow_symlinks=False)
        sync_folder(path.parent)
    except FileExistsError:
        raise Refused("file.exists", f"{path} exists already") from None
    except OSError as error:
        raise LinkError("file.unreadable", f"{path}: {error.strerror}") from error


def set_aside(store_path: Path) -> Path | None:
    """Move a SQLite store that is damaged out of the way, with what lies beside it; where it went, None without one."""
    if not store_path.exists():
        return None
    number = 1
    while (aside := store_path.with_name(f"{store_path.name}.damaged-{number}")).exists():
        number += 1
    try:
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{store_path}{suffix}", f"{aside}{suffix}")
        sync_folder(store_path.parent)
    except OSError as error:
        raise LinkError("file.unreadable", f"{store_path}: {error.strerror}") from error
    return aside


def is_damaged(store_url: str) -> bool:
    """Whether a store cannot be opened for what its file is. Raises what opening raises otherwise."""
    try:
        with Store.unchecked(store_url) as store:
            check_schema(store, create=True)
    except Malformed as error:
        if error.code == "ledger.malformed":
            return True
        raise
    return False

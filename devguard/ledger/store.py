"""The store: one database, SQLite in the home or PostgreSQL of a group, opened, asked and changed in transactions.

A transaction that writes takes SQLite's one write lock at its beginning, so that what it read stays true. On
PostgreSQL it sees what was committed before each statement; `serializable=True` gives it what SQLite gives. Nothing of
SQLAlchemy or of a driver leaves a transaction: `errors` names what went wrong.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import sqlalchemy
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.pool import NullPool

from devguard.errors import LinkError, Malformed, Refused
from devguard.ledger.faults import coded, need_sqlite

VARIABLE: Final = "DEVGUARD_STORE"
DRIVERS: Final = {"sqlite": "sqlite", "postgresql+psycopg": "postgresql"}
BUSY_SECONDS: Final = 10
ATTEMPTS: Final = 5
PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}")
_SESSION: Final = f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout={2 * BUSY_SECONDS}s"
_READING, _WRITING = "BEGIN", "BEGIN IMMEDIATE"
T = TypeVar("T")


def store_url(home: Path, environ: Mapping[str, str]) -> str:
    """Where the store is: what DEVGUARD_STORE says, or a file of the home. Nothing is opened or judged."""
    given = environ.get(VARIABLE)
    if given:
        return given
    return sqlite_url(home / "ledger" / "ledger.sqlite")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def read_url(text: str) -> URL:
    """A URL of a store, taken apart. Raises `Malformed("ledger.url")`, without the password and what may be one."""
    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise Malformed("ledger.url", f"{VARIABLE} is not the URL of a database") from None
    if url.drivername not in DRIVERS:
        raise Malformed("ledger.url", f"a store on {url.drivername[:40]!r}; it is sqlite or postgresql+psycopg")
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:" or url.query or url.host or "\x00" in url.database:
            raise Malformed("ledger.url", "a SQLite store is sqlite:///, the path of a file, and nothing else")
    elif not url.database:
        raise Malformed("ledger.url", "a store on PostgreSQL names its database: postgresql+psycopg://HOST/DATABASE")
    return url


def shown_url(url: URL) -> str:
    """A store's URL for people: without user, password and options."""
    if url.drivername == "sqlite":
        return f"sqlite:///{url.database}"
    where = "" if url.host is None else url.host
    return f"{url.drivername}://{where}{'' if url.port is None else f':{url.port}'}/{url.database}"


class Store:
    """A store that is open. Safe for threads; not for a fork."""

    def __init__(self, url: URL, engine: Engine) -> None:
        self._url = url
        self._engine = engine

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Store:
        """The store at `url`; `create`: make it where there is none.

        Raises `Malformed` `ledger.url` or `ledger.malformed`, `Refused` `ledger.missing`, `ledger.schema` (it is of an
        older or a newer devguard) or `ledger.package`, `LinkError` `ledger.unreachable`, `ledger.busy`, `ledger.full`.
        """
        from devguard.ledger.migrate import check_schema

        with contextlib.ExitStack() as stack:
            store = stack.enter_context(cls.unchecked(url, create=create))
            check_schema(store, create=create)
            stack.pop_all()
        return store

    @classmethod
    def unchecked(cls, url: str, *, create: bool = True) -> Store:
        """The same without a look at its tables: for whoever makes or changes them."""
        parsed = read_url(url)
        if parsed.drivername == "sqlite":
            _file(Path(parsed.database or ""), create=create)
        return cls(parsed, _engine(parsed))

    @property
    def url(self) -> str:
        """The URL it was opened with, the password in it: for whoever connects, never for a message."""
        return self._url.render_as_string(hide_password=False)

    @property
    def name(self) -> str:
        """The URL for people, without user and password."""
        return shown_url(self._url)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return DRIVERS[self._url.drivername]

    @property
    def path(self) -> Path | None:
        """The file of a SQLite store."""
        return Path(self._url.database or "") if self.dialect == "sqlite" else None

    def __repr__(self) -> str:
        return f"Store({self.name})"

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up its connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def begin(self, *, serializable: bool = False) -> Iterator[Connection]:
        """One transaction that writes: committed at the end, rolled back on any error.

        Raises `LinkError` `ledger.unreachable`, `ledger.busy` (somebody else was at it; `run` tries again),
        `ledger.full`, `Malformed("ledger.malformed")`; and whatever the caller's own code raises.
        """
        level = {"isolation_level": "SERIALIZABLE"} if serializable and self.dialect == "postgresql" else {}
        with self._transaction({"devguard_begin": _WRITING, **level}) as conn:
            yield conn

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that reads, all of it at one moment. Raises as `begin`; writing is refused."""
        options: dict[str, Any] = {"devguard_begin": _READING}
        if self.dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._transaction(options) as conn:
            yield conn

    @contextlib.contextmanager
    def _transaction(self, options: dict[str, Any]) -> Iterator[Connection]:
        with coded(self.name, self._url.password), self._engine.connect() as found:
            conn = found.execution_options(**options)
            with conn.begin():
                yield conn

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        serializable: bool = False,
        attempts: int = ATTEMPTS,
        pause: Callable[[float], object] = time.sleep,
    ) -> T:
        """What `work` makes of a transaction; again, at most `attempts` times in all, where somebody else was at it.

        `work` is called anew for each attempt and has to do nothing outside the transaction. Raises as `begin`.
        """
        for left in range(attempts - 1, -1, -1):
            try:
                with self.begin(serializable=serializable) as conn:
                    return work(conn)
            except LinkError as error:
                if error.code != "ledger.busy" or left == 0:
                    raise
                pause(0.05 * 2 ** (attempts - 1 - left))
        raise LinkError("ledger.busy", "no attempt was allowed")


def _engine(url: URL) -> Engine:
    """An engine that opens connections as the store needs them."""
    if url.drivername == "sqlite":
        engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
        sqlalchemy.event.listen(engine, "connect", _prepare)
        sqlalchemy.event.listen(engine, "begin", _begin)
        return engine
    from devguard.ledger.package import need_postgresql

    need_postgresql()
    options = " ".join(filter(None, (_SESSION, str(url.query.get("options", "")))))
    arguments = {"connect_timeout": 10, "tcp_user_timeout": BUSY_SECONDS * 1000, "options": options}
    return sqlalchemy.create_engine(
        url, pool_pre_ping=True, pool_size=4, max_overflow=12, pool_timeout=BUSY_SECONDS, connect_args=arguments
    )


def _prepare(connection: Any, _record: object) -> None:
    """A new SQLite connection: no transactions of the driver's own, and what keeps a commit through a power cut."""
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _begin(conn: Connection) -> None:
    statement = conn.get_execution_options().get("devguard_begin", _READING)
    if statement == _READING:
        conn.exec_driver_sql("PRAGMA query_only=ON")
    conn.exec_driver_sql(statement)


def _file(path: Path, *, create: bool) -> None:
    """See to it that a SQLite file can be opened, and by its owner alone."""
    try:
        if path.exists():
            need_sqlite(path)
            return
        if not create:
            raise Refused("ledger.missing", f"there is no ledger at {path}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the files beside it the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise LinkError("ledger.unreachable", f"{path}: {error.strerror}") from error

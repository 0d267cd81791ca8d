"""What drivers say, as our own errors: by their codes, with a password in nobody's message."""

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import exc, text

from devguard.errors import DevguardError, Exit
from devguard.ledger.faults import coded
from devguard.ledger.store import Store
from postgres import Server


def said(error: BaseException, password: str | None = None) -> DevguardError:
    with pytest.raises(DevguardError) as caught, coded("the group's store", password):
        raise error
    return caught.value


def wrapped(error: Exception, kind: type[exc.DBAPIError] = exc.OperationalError) -> exc.DBAPIError:
    return kind("SELECT 1", {}, error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DiskFull, "ledger.full"),
        (errors.OutOfMemory, "ledger.full"),
        (errors.SerializationFailure, "ledger.busy"),
        (errors.DeadlockDetected, "ledger.busy"),
        (errors.LockNotAvailable, "ledger.busy"),
        (errors.IdleInTransactionSessionTimeout, "ledger.busy"),
        (errors.AdminShutdown, "ledger.unreachable"),
        (errors.CannotConnectNow, "ledger.unreachable"),
        (errors.TooManyConnections, "ledger.unreachable"),
        (errors.InvalidPassword, "ledger.unreachable"),
        (errors.InvalidCatalogName, "ledger.unreachable"),
        (errors.ConnectionFailure, "ledger.unreachable"),
        (errors.InsufficientPrivilege, "ledger.unreachable"),
        (errors.ReadOnlySqlTransaction, "ledger.unreachable"),
        (errors.InternalError_, "ledger.unreachable"),
        (errors.DataCorrupted, "ledger.malformed"),
        (errors.UndefinedTable, "ledger.malformed"),
        (errors.UniqueViolation, "ledger.malformed"),
        (psycopg.OperationalError, "ledger.unreachable"),
        (psycopg.DataError, "ledger.malformed"),
    ],
)
def test_what_postgresql_says(error: type[psycopg.Error], code: str) -> None:
    kinds = {psycopg.DataError: exc.DataError}
    found = said(wrapped(error("it said so"), kinds.get(error, exc.OperationalError)))
    assert found.code == code
    assert "the group's store" in found.message
    assert "it said so" in found.message
    assert (found.exit_status is Exit.RETRY) == (code != "ledger.malformed")
    assert found.__cause__ is None


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (sqlite3.SQLITE_FULL, "ledger.full"),
        (sqlite3.SQLITE_BUSY, "ledger.busy"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "ledger.busy"),
        (sqlite3.SQLITE_LOCKED, "ledger.busy"),
        (sqlite3.SQLITE_CORRUPT, "ledger.malformed"),
        (sqlite3.SQLITE_NOTADB, "ledger.malformed"),
        (sqlite3.SQLITE_IOERR_WRITE, "ledger.unreachable"),
        (sqlite3.SQLITE_CANTOPEN, "ledger.unreachable"),
        (sqlite3.SQLITE_READONLY, "ledger.unreachable"),
        (sqlite3.SQLITE_ERROR, "ledger.malformed"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, "ledger.malformed"),
    ],
)
def test_what_sqlite_says(number: int, code: str) -> None:
    error = sqlite3.OperationalError("it said so")
    error.sqlite_errorcode = number
    assert said(wrapped(error)).code == said(error).code == code


def test_what_neither_says() -> None:
    assert said(exc.TimeoutError("no connection is free")).code == "ledger.busy"
    assert said(exc.InvalidRequestError("no such table")).code == "ledger.malformed"
    assert said(OverflowError("too large")).code == "ledger.malformed"


def test_a_password_is_in_no_message_and_neither_is_what_could_deceive() -> None:
    found = said(wrapped(psycopg.OperationalError("bad\x1b[31m hunter2 \nDETAIL: hunter2")), "hunter2")
    assert "hunter2" not in found.message
    assert found.message.isprintable()
    assert len(said(wrapped(psycopg.OperationalError("x" * 9000))).message) < 500


def test_other_exceptions_stay_what_they_are() -> None:
    with pytest.raises(KeyError), coded("x"):
        raise KeyError


def test_options_of_the_url_stand_beside_ours(postgres: Server, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    with Store.open(postgres.url(name, options="-c statement_timeout=1234ms")) as store, store.read() as conn:
        shown: Any = [conn.execute(text(f"SHOW {one}")).scalar() for one in ("statement_timeout", "lock_timeout")]
    assert shown == ["1234ms", "10s"]


def test_a_role_that_may_only_read(postgres: Server, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"CREATE ROLE reader_{name} LOGIN")
    for table in ("ledger", "ledger_version"):
        postgres.execute(f"GRANT SELECT ON {table} TO reader_{name}", name)
    with (
        Store.open(postgres_url.replace("devguard@", f"reader_{name}@")) as store,
        pytest.raises(DevguardError) as caught,
        store.begin() as conn,
    ):
        conn.execute(text("UPDATE ledger SET generation = 9"))
    assert caught.value.code == "ledger.unreachable"
    postgres.execute(f"DROP OWNED BY reader_{name}", name)
    postgres.execute(f"DROP ROLE reader_{name}")

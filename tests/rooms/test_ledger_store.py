"""The store itself, on both databases: its URL, its transactions, its schema, and what goes wrong with it.

Invariant: nothing of a driver leaves a transaction, no message holds a password, nothing is half written.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from devguard.errors import DevguardError, LinkError, Malformed, Refused
from devguard.ledger.schema import ledger, records, stations
from devguard.ledger.store import Store, read_url, sqlite_url, store_url

ROW = {"key": b"k", "thumbprint": b"t", "records": 0, "root": b"r", "frontier": b""}


def names(store: Store) -> list[str]:
    with store.read() as conn:
        return list(conn.execute(stations.select().order_by("origin")).scalars())


def add(store: Store, *origins: str) -> None:
    with store.begin() as conn:
        conn.execute(stations.insert(), [{"origin": one, **ROW} for one in origins])


# its URL


def test_the_store_is_a_file_of_the_home_unless_the_environment_says_else(tmp_path: Path) -> None:
    assert read_url(store_url(tmp_path, {})).database == str(tmp_path / "ledger" / "ledger.sqlite")
    assert store_url(tmp_path, {"DEVGUARD_STORE": "sqlite:////a"}) == "sqlite:////a"
    assert store_url(tmp_path, {"DEVGUARD_STORE": ""}) == store_url(tmp_path, {})


@pytest.mark.parametrize("name", ["a b", "ü#%20?x=1", "d:e@f", "100%", "quote'\"", "new\nline"])
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    with Store.open(store_url(tmp_path / name, {})) as store:
        add(store, "one")
    assert (tmp_path / name / "ledger" / "ledger.sqlite").is_file()
    with Store.open(store_url(tmp_path / name, {}), create=False) as store:
        assert names(store) == ["one"]


@pytest.mark.parametrize(
    "url",
    ["", "x", "mysql://u:hunter2@h/d", "postgresql://u:hunter2@h/d", "postgresql+psycopg://u:hunter2@h", "sqlite://",
     "sqlite:///:memory:", "sqlite:////a?mode=ro&x=hunter2", "postgresql+psycopg://u:hunter2@h:no/d",
     "sqlite:////a%00b", "sqlite://host/a", "postgresql+asyncpg://u:hunter2@h/d"],
)  # fmt: skip
def test_other_urls_are_refused_and_no_password_is_shown(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        Store.open(url)
    assert caught.value.code == "ledger.url"
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_no_password_is_in_a_message_of_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = "postgresql+psycopg://someone:hunter%402@127.0.0.1:1/group"
    with pytest.raises(LinkError) as caught:
        Store.open(url)
    assert caught.value.code == "ledger.unreachable"
    assert "127.0.0.1:1/group" in caught.value.message
    assert not any(secret in str(caught.value) for secret in ("hunter@2", "hunter%402", "someone:"))
    assert caught.value.__cause__ is None


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Refused) as caught:
        Store.open("postgresql+psycopg://u:hunter2@h/d")
    assert caught.value.code == "ledger.package"
    assert "devguard[group]" in caught.value.hint


def test_a_wrong_password_is_a_coded_refusal(postgres: object, postgres_url: str) -> None:
    with pytest.raises(LinkError) as caught:
        Store.open(postgres_url.replace("devguard@", "nobody:hunter2@"))
    assert caught.value.code == "ledger.unreachable"
    assert "hunter2" not in str(caught.value)


def test_a_store_is_named_without_its_password(store: Store) -> None:
    assert store.dialect in ("sqlite", "postgresql")
    assert store.name in repr(store)
    assert read_url(store.url).database == read_url(store.name).database
    assert (store.path is not None) == (store.dialect == "sqlite")


# its transactions


def test_what_was_begun_is_kept_whole_or_not_at_all(store: Store) -> None:
    add(store, "kept")
    with pytest.raises(KeyError), store.begin() as conn:
        conn.execute(stations.insert(), {"origin": "lost", **ROW})
        raise KeyError
    assert names(store) == ["kept"]


def test_who_reads_cannot_write(store: Store) -> None:
    with pytest.raises(DevguardError), store.read() as conn:
        conn.execute(stations.insert(), {"origin": "x", **ROW})
    assert names(store) == []
    add(store, "after")  # no connection stays read-only
    assert names(store) == ["after"]


def test_who_reads_sees_one_moment(store: Store) -> None:
    with store.read() as conn:
        before = conn.execute(stations.select()).all()
        add(store, "meanwhile")
        assert conn.execute(stations.select()).all() == before == []
    assert names(store) == ["meanwhile"]


def test_a_row_that_breaks_a_rule_is_no_exception_of_the_driver(store: Store) -> None:
    add(store, "one")
    with pytest.raises(Malformed) as caught:
        add(store, "two", "one")
    assert caught.value.code == "ledger.malformed"
    with pytest.raises(Malformed), store.begin() as conn:
        conn.execute(records.insert(), {"origin": "nobody", "index": 0, "entry": b""})
    with pytest.raises(Malformed), store.begin() as conn:
        conn.execute(text("SELECT nothing FROM nowhere"))
    with pytest.raises(Malformed), store.begin() as conn:
        conn.execute(stations.update().values(records=1 << 70))
    assert names(store) == ["one"]


def test_every_writer_counts(store: Store) -> None:
    """Eight threads that read, think and write: no step is lost."""

    def work(conn: object) -> None:
        grown = ledger.c.generation + 1
        conn.execute(ledger.update().values(generation=grown))  # type: ignore[attr-defined]

    def one() -> None:
        for _ in range(5):
            store.run(work, attempts=50)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as conn:
        assert conn.execute(ledger.select()).one().generation == 40


def test_on_sqlite_what_a_writer_has_read_stays_true(tmp_path: Path) -> None:
    """Read, think, write, without a second attempt: nobody comes between."""
    wrong: list[DevguardError] = []
    with Store.open(sqlite_url(tmp_path / "l.sqlite")) as store:

        def one() -> None:
            try:
                for _ in range(5):
                    with store.begin() as conn:
                        seen = conn.execute(ledger.select()).one().generation
                        conn.execute(ledger.update().values(generation=seen + 1))
            except DevguardError as error:
                wrong.append(error)

        threads = [threading.Thread(target=one) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        with store.read() as conn:
            assert conn.execute(ledger.select()).one().generation == 30


def test_serializable_transactions_are_tried_again_and_not_for_ever(store: Store) -> None:
    waits: list[float] = []
    calls = []

    def work(conn: object) -> str:
        calls.append(conn)
        if len(calls) < 3:
            raise LinkError("ledger.busy", "somebody else")
        return "done"

    assert store.run(work, serializable=True, pause=waits.append) == "done"
    assert len(calls) == 3
    assert waits == sorted(waits)
    assert len(waits) == 2
    calls.clear()

    def always(conn: object) -> str:
        calls.append(conn)
        raise LinkError("ledger.busy", "somebody else")

    with pytest.raises(LinkError):
        store.run(always, attempts=4, pause=waits.append)
    assert len(calls) == 4


def test_two_who_read_and_then_write_do_not_overtake_each_other(postgres_url: str) -> None:
    """A lost update is impossible where that was asked for: one of the two is told to try again. SQLite has one writer
    at a time."""
    with (
        Store.open(postgres_url) as store,
        pytest.raises(LinkError) as caught,
        store.begin(serializable=True) as conn,
    ):
        seen = conn.execute(ledger.select()).one().generation
        with store.begin(serializable=True) as other:
            other.execute(ledger.update().values(generation=other.execute(ledger.select()).one().generation + 1))
        conn.execute(ledger.update().values(generation=seen + 1))
    assert caught.value.code == "ledger.busy"


# its schema


def test_a_store_that_is_not_there_is_made_only_where_that_is_meant(tmp_path: Path, postgres: object) -> None:
    for url in (sqlite_url(tmp_path / "no.sqlite"), postgres.database()):  # type: ignore[attr-defined]
        with pytest.raises(Refused) as caught:
            Store.open(url, create=False)
        assert caught.value.code == "ledger.missing"
    assert not (tmp_path / "no.sqlite").exists()


def test_a_store_of_another_devguard_is_refused(store: Store) -> None:
    for number, hint in (("9999", "update devguard"), ("x'y", "update devguard")):
        with store.begin() as conn:
            conn.execute(text("UPDATE ledger_version SET version_num = :one"), {"one": number})
        with pytest.raises(Refused) as caught:
            Store.open(store.url)
        assert (caught.value.code, caught.value.hint) == ("ledger.schema", hint)


def test_many_who_make_a_store_at_once_make_one(tmp_path: Path, postgres: object) -> None:
    for url in (sqlite_url(tmp_path / "one" / "l.sqlite"), postgres.database()):  # type: ignore[attr-defined]
        seen: list[object] = []

        def one(url: str = url, seen: list[object] = seen) -> None:
            try:
                with Store.open(url) as store, store.read() as conn:
                    seen.append(conn.execute(ledger.select()).one().store)
            except DevguardError as error:
                seen.append(error)

        threads = [threading.Thread(target=one) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 6
        assert len(set(seen)) == 1, seen
        assert isinstance(seen[0], str)


# its file


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        url = store_url(tmp_path / "home", {})
        with Store.open(url) as store:
            add(store, "one")
            folder = tmp_path / "home" / "ledger"
            with store.read():
                found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(old)
    assert found.pop("ledger.sqlite") == 0o600
    assert set(found.values()) <= {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_commit_waits_for_the_disk_and_keys_are_checked(tmp_path: Path) -> None:
    with Store.open(store_url(tmp_path, {})) as store, store.read() as conn:
        said = [
            conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert said == ["wal", 2, 1]


@pytest.mark.parametrize(
    "data", [b"garbage", b"x" * 5000, b"SQLite format 3\x00" + b"y" * 5000, b"SQLite format 3\x00"]
)
def test_a_file_that_is_none_is_refused_and_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "l.sqlite"
    path.write_bytes(data)
    for create in (True, False):
        with pytest.raises(Malformed) as caught:
            Store.open(sqlite_url(path), create=create)
        assert caught.value.code == "ledger.malformed"
    assert path.read_bytes() == data


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Store.open(sqlite_url(path)) as store:
        add(store, *(f"{number:04} {'x' * 500}" for number in range(200)))
    whole = path.read_bytes()
    assert len(whole) > 60_000
    for size in (100, 4096, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(Malformed) as caught, Store.open(sqlite_url(path)) as store:
            names(store)
        assert caught.value.code == "ledger.malformed", size


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    os.mkfifo(tmp_path / "pipe.sqlite")
    (tmp_path / "file").write_text("x")
    for path in ("folder.sqlite", "pipe.sqlite", "file/l.sqlite"):
        with pytest.raises(DevguardError) as caught:
            Store.open(sqlite_url(tmp_path / path))
        assert caught.value.code in ("ledger.malformed", "ledger.unreachable"), path


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Store.open(sqlite_url(path)) as store:
        add(store, "one")
        with pytest.raises(LinkError) as caught, store.begin() as conn:
            pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
            conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")
            conn.execute(stations.insert(), [{"origin": f"{n} {'x' * 3000}", **ROW} for n in range(20)])
        assert caught.value.code == "ledger.full"
        assert names(store) == ["one"]


def test_a_writer_that_does_not_end_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devguard.ledger.store.PRAGMAS", ("journal_mode=WAL", "busy_timeout=50"))
    path = tmp_path / "l.sqlite"
    with Store.open(sqlite_url(path)) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LinkError) as caught:
            add(store, "one")
        other.execute("ROLLBACK")
        other.close()
        assert caught.value.code == "ledger.busy"
        add(store, "two")
        assert names(store) == ["two"]

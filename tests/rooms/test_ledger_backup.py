"""Backups: of either database, into either; what was changed in one is refused, what it lacks is noticed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, text

from builders import NOW
from devguard.errors import DevguardError, LinkError, Malformed, Refused
from devguard.ledger import schema
from devguard.ledger.backup import backup, is_damaged, restore, set_aside
from devguard.ledger.level import Anchor, check_level
from devguard.ledger.migrate import BASE, TABLE, migrate
from devguard.ledger.rows import generation
from devguard.ledger.store import Store, sqlite_url
from devguard.ledger.take import held, identity
from ledger_support import VENDOR, Log, dump, fill, grant, issued, push_begun, push_ended, record, reported, station
from test_ledger_migrate import populate


def logs() -> list[Log]:
    one = Log(station("one")).add(reported(), push_begun(time=NOW + 1), push_ended(time=NOW + 2))
    return [one, Log(station("two")).add(issued(grant("IP-1", "insulin-pump"), time=NOW + 3))]


def primary(store: Store) -> list[Any]:
    with store.read() as conn:
        tables = (schema.stations, schema.records, schema.documents)
        return [conn.execute(table.select().order_by(*table.primary_key.columns)).all() for table in tables]


def test_a_backup_brings_everything_back(store: Store, tmp_path: Path) -> None:
    fill(store, logs())
    tables, said = dump(store), primary(store)
    assert backup(store, tmp_path / "b") == 8  # one row that names the store, 2 stations, 4 records, 1 document
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("home", "b")] == []
    with store.begin() as conn:
        Log(station("three")).add(record("key.new")).hand_over(conn)
        seen = generation(conn)
        name = identity(conn)
    assert restore(store, tmp_path / "b") == 4
    assert (dump(store), primary(store)) == (tables, said)
    with store.read() as conn:
        assert generation(conn) > seen
        assert identity(conn) == name


def test_a_backup_goes_into_the_other_database(postgres_url: str, tmp_path: Path) -> None:
    with Store.open(postgres_url) as one, Store.open(sqlite_url(tmp_path / "l.sqlite")) as two:
        fill(one, logs())
        backup(one, tmp_path / "b")
        assert restore(two, tmp_path / "b") == 4
        assert (dump(one), primary(one)) == (dump(two), primary(two))
        with two.begin() as conn:
            Log(station("three")).add(record("key.new")).hand_over(conn)
        backup(two, tmp_path / "c")
        assert restore(one, tmp_path / "c") == 5
        assert (dump(one), primary(one)) == (dump(two), primary(two))


def test_no_file_is_written_over_and_none_is_left_half(store: Store, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x")
    with pytest.raises(Refused) as caught:
        backup(store, tmp_path / "b")
    assert caught.value.code == "file.exists"
    with pytest.raises(LinkError) as wrong:
        backup(store, tmp_path / "no" / "b")
    assert wrong.value.code == "file.unreadable"
    with store.begin() as conn:
        conn.execute(text("DROP TABLE documents"))
    with pytest.raises(Malformed):
        backup(store, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert not list(tmp_path.glob(".devguard-*"))


def others(store: Store) -> dict[str, list[Any]]:
    """The rows of other rooms' tables."""
    found = MetaData()
    with store.read() as conn:
        found.reflect(conn, only=lambda name, _: name not in {TABLE, *schema.metadata.tables})
        return {table.name: [tuple(row) for row in conn.execute(table.select())] for table in found.sorted_tables}


def test_tables_of_other_rooms_come_back_too(store: Store, tmp_path: Path) -> None:
    populate(store)
    with store.begin() as conn:  # no station ever signed what is in these
        for table in (schema.records, schema.stations, schema.documents, *schema.DERIVED):
            conn.execute(table.delete())
    full = others(store)
    assert full
    assert all(len(found) == 1 for found in full.values())
    backup(store, tmp_path / "b")
    with Store.open(sqlite_url(tmp_path / "other.sqlite")) as other:
        restore(other, tmp_path / "b")
        backup(other, tmp_path / "c")
        assert others(other) == full
    migrate(store, BASE)
    migrate(store)
    assert not any(others(store).values())
    restore(store, tmp_path / "c")
    assert others(store) == full


def changed(path: Path, *statements: str) -> Path:
    conn = sqlite3.connect(path)
    for statement in statements:
        conn.execute(statement)
    conn.commit()
    conn.close()
    return path


@pytest.fixture(scope="module")
def saved(empty_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup, to be changed in copies."""
    folder = tmp_path_factory.mktemp("saved")
    with Store.open(sqlite_url(Path(shutil.copyfile(empty_sqlite, folder / "l.sqlite")))) as one:
        fill(one, logs())
        backup(one, folder / "b")
    return folder / "b"


STATEMENTS = (
    'DELETE FROM records WHERE "index" = 1',
    'DELETE FROM records WHERE "index" = 2',
    'UPDATE records SET entry = (SELECT entry FROM records WHERE "index" = 0) WHERE "index" = 1',
    "UPDATE records SET entry = x'00' WHERE \"index\" = 1",
    "UPDATE stations SET note = NULL",
    "UPDATE stations SET records = 1",
    "UPDATE stations SET frontier = x'00'",
    "UPDATE stations SET key = zeroblob(32)",
    "UPDATE stations SET root = zeroblob(32)",
    "DELETE FROM ledger",
    "DROP TABLE records",
    "UPDATE documents SET document = x'00'",
    "DROP TABLE ledger_version",
    "UPDATE ledger_version SET version_num = '9999'",
)


def test_a_backup_that_somebody_changed_is_refused_and_nothing_is_lost(
    store: Store, saved: Path, tmp_path: Path
) -> None:
    fill(store, [Log().add(reported())])
    before = dump(store), primary(store)
    codes = {"ledger.malformed", "ledger.schema", "log.tampered", "trust.malformed", "key.malformed", "key.weak"}
    for number, statement in enumerate(STATEMENTS):
        wrong = changed(Path(shutil.copyfile(saved, tmp_path / str(number))), statement)
        with pytest.raises(DevguardError) as caught:
            restore(store, wrong)
        assert caught.value.code in codes, statement
        assert (dump(store), primary(store)) == before, statement


def test_what_is_no_backup(store: Store, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"x" * 9000)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes(b"SQLite format 3\x00" + bytes(500))
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE t (x)").connection.close()
    os.mkfifo(tmp_path / "pipe")
    for name in ("garbage", "empty", "cut", "other", "pipe"):
        with pytest.raises(Malformed) as caught:
            restore(store, tmp_path / name)
        assert caught.value.code == "ledger.malformed", name
    with pytest.raises(Malformed) as caught:
        restore(store, tmp_path / "none")
    assert caught.value.code == "file.missing"


def test_derived_tables_of_a_backup_are_not_believed(store: Store, tmp_path: Path) -> None:
    fill(store, logs())
    before = dump(store)
    backup(store, tmp_path / "b")
    changed(tmp_path / "b", "INSERT INTO revocations (cti, time, origin, \"index\") VALUES (x'00', 1, 'x', 0)")
    restore(store, tmp_path / "b")
    assert dump(store) == before


def test_an_old_backup_is_noticed(store: Store, tmp_path: Path) -> None:
    log = Log().add(reported())
    fill(store, [log])
    backup(store, tmp_path / "old")
    log.add(record("key.new", NOW + 5))
    with store.begin() as conn:
        found = log.hand_over(conn)
        anchor = Anchor(identity(conn), found.records, found.root)
    restore(store, tmp_path / "old")
    with pytest.raises(Refused) as caught, store.read() as conn:
        check_level(conn, held(conn, log.origin), anchor)
    assert caught.value.code == "ledger.rollback"
    with store.begin() as conn:
        assert log.hand_over(conn, 1).new == 1
        check_level(conn, held(conn, log.origin), anchor)
    assert VENDOR.trust_bytes in [row.document for row in primary(store)[2]]


def test_a_damaged_file_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    assert set_aside(path) is None
    Store.open(sqlite_url(path)).close()
    assert not is_damaged(sqlite_url(path))
    for number in (1, 2):
        path.write_bytes(b"garbage")
        path.with_name("l.sqlite-wal").write_bytes(b"more")
        assert is_damaged(sqlite_url(path))
        assert set_aside(path) == tmp_path / f"l.sqlite.damaged-{number}"
        assert not path.exists()
        assert not path.with_name("l.sqlite-wal").exists()
        assert (tmp_path / f"l.sqlite.damaged-{number}").read_bytes() == b"garbage"

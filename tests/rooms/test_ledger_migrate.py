"""The schema of the ledger: to the newest revision and back, on a populated database, on both databases.

Invariant: a step is done whole or not begun; the tables that revisions make are the tables that the code speaks to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, inspect, text

from devguard.errors import DevguardError, Refused
from devguard.ledger.migrate import BASE, FOLDER, TABLE, current, head, migrate, revisions
from devguard.ledger.schema import DERIVED, PRIMARY, ledger, metadata
from devguard.ledger.store import Store

VALUES: dict[type, Any] = {str: "x", int: 7, bytes: b"\x00\xff", bool: True, float: 0.5}


def populate(store: Store) -> None:
    """A row in every table, those of other rooms too."""
    found = MetaData()
    with store.begin() as conn:
        found.reflect(conn, only=lambda name, _: name not in (TABLE, "ledger"))
        for table in found.sorted_tables:
            conn.execute(table.insert(), {column.name: VALUES[column.type.python_type] for column in table.columns})
        assert {*PRIMARY, *DERIVED} - {ledger} <= {metadata.tables.get(name) for name in found.tables}


def rows(store: Store, tables: tuple[Table, ...]) -> dict[str, list[tuple[Any, ...]]]:
    with store.read() as conn:
        return {table.name: [tuple(row) for row in conn.execute(table.select())] for table in tables}


def ours(_object: object, name: str | None, kind: str, _reflected: bool, other: object) -> bool:
    """Tables of other rooms have tests of their own."""
    return kind != "table" or name in metadata.tables


@pytest.fixture
def bare(ledger_url: str) -> Iterator[Store]:
    """A store with no tables."""
    with Store.open(ledger_url) as store:
        migrate(store, BASE)
        yield store


def test_every_revision_is_in_one_line() -> None:
    script = ScriptDirectory(str(FOLDER))
    found = [one.revision for one in script.walk_revisions()][::-1]
    assert tuple(found) == revisions()
    assert script.get_heads() == [head()]
    assert all(script.get_revision(one).module.__doc__ for one in found)


def test_the_revisions_make_the_tables_that_the_code_speaks_to(store: Store) -> None:
    with store.read() as conn:
        context = MigrationContext.configure(
            conn, opts={"version_table": TABLE, "include_object": ours, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        inspector = inspect(conn)
        for table in metadata.tables.values():
            assert inspector.get_pk_constraint(table.name)["constrained_columns"] == list(
                table.primary_key.columns.keys()
            )
            nullable = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
            assert nullable == {column.name: column.nullable for column in table.columns}


def test_no_table_numbers_its_rows_or_leans_on_what_is_derived(store: Store) -> None:
    """What a backup and a rebuild rely on, of tables of other rooms too; a queue's own are its own affair."""
    found = MetaData()
    with store.read() as conn:
        found.reflect(conn)
    assert len(found.tables) > len(metadata.tables)
    derived = {table.name for table in DERIVED}
    for table in found.tables.values():
        assert [column.name for column in table.columns if column.server_default or column.identity] == []
        assert not {key.column.table.name for key in table.foreign_keys} & derived


def test_forward_and_back_and_forward_again(bare: Store) -> None:
    """Through every revision, one at a time, with rows in every table of ours."""
    for before, after in zip((None, *revisions()), revisions(), strict=False):
        assert migrate(bare, after) == (before, after)
    assert migrate(bare) == (head(), head())
    populate(bare)
    full = rows(bare, (*PRIMARY, *DERIVED))
    assert all(len(found) == 1 for found in full.values())
    for one in reversed(revisions()[:-1]):
        assert migrate(bare, one)[1] == one
    if len(revisions()) > 1:
        assert migrate(bare)[1] == head()
    assert rows(bare, (*PRIMARY, *DERIVED)) == full  # later revisions leave what was there
    assert migrate(bare, BASE) == (head(), None)
    with bare.read() as conn:
        assert set(inspect(conn).get_table_names()) <= {TABLE}
    assert migrate(bare) == (None, head())
    assert [len(found) for found in rows(bare, DERIVED).values()] == [0] * len(DERIVED)


def test_a_step_that_fails_changes_nothing(bare: Store) -> None:
    with bare.begin() as conn:
        conn.execute(text("CREATE TABLE doubts (x INTEGER)"))  # in the way of the last table
    with pytest.raises(DevguardError) as caught:
        migrate(bare)
    assert caught.value.code == "ledger.malformed"
    with bare.begin() as conn:
        assert set(inspect(conn).get_table_names()) - {TABLE} == {"doubts"}
        assert current(conn) is None
        conn.execute(text("DROP TABLE doubts"))
    assert migrate(bare) == (None, head())


def test_a_step_back_that_fails_changes_nothing(store: Store) -> None:
    populate(store)
    with store.begin() as conn:
        conn.execute(text("DROP TABLE ledger"))  # the last one to go
    with pytest.raises(DevguardError):
        migrate(store, BASE)
    assert rows(store, DERIVED)["devices"]
    with store.read() as conn:
        assert current(conn) == head()


def test_revisions_that_nobody_knows(store: Store) -> None:
    for target in ("", "0000", "9999", "heads", "-1", "'; DROP TABLE records; --"):
        with pytest.raises(Refused) as caught:
            migrate(store, target)
        assert caught.value.code == "ledger.schema"
    with store.begin() as conn:
        conn.execute(text(f"UPDATE {TABLE} SET version_num = '9999'"))
    with pytest.raises(Refused) as caught:
        migrate(store)
    assert (caught.value.code, caught.value.hint) == ("ledger.schema", "update devguard")


def test_a_store_that_has_an_older_revision_says_how_to_go_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devguard.ledger.migrate.revisions", lambda: (*revisions(), "8888"))
    with pytest.raises(Refused) as caught:
        Store.open(store.url)
    assert caught.value.code == "ledger.schema"
    assert "devguard ledger migrate" in caught.value.hint

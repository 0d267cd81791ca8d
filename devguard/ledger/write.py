"""Facts into the derived tables: the rows they touch are read at once, merged, and written at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, and_, bindparam, select, tuple_

from devguard.ledger.merge import Fact, Row, merged
from devguard.ledger.schema import DERIVED

TABLES: Final[dict[str, Table]] = {table.name: table for table in DERIVED}
_AT_ONCE: Final = 200  # keys in one question
Key = tuple[Any, ...]
T = TypeVar("T")


def write_facts(conn: Connection, facts: Sequence[Fact]) -> None:
    """Merge facts into the derived tables, in their order. The caller holds the ledger's lock."""
    by_table: dict[str, list[Fact]] = {}
    for fact in facts:
        by_table.setdefault(fact.table, []).append(fact)
    for name, table in TABLES.items():
        if name in by_table:
            _merge(conn, table, by_table[name])


def _merge(conn: Connection, table: Table, facts: Sequence[Fact]) -> None:
    before = rows_at(conn, table, {fact.key for fact in facts})
    after: dict[Key, Row] = {}
    for fact in facts:
        after[fact.key] = merged(after.get(fact.key, before.get(fact.key)), fact)
    save(conn, table, before, after)


def key_columns(table: Table) -> list[str]:
    """The names of a table's primary key, in their order."""
    return [column.name for column in table.primary_key.columns]


def rows_at(conn: Connection, table: Table, keys: Iterable[Key]) -> dict[Key, Row]:
    """The rows with these keys, their other columns by name."""
    names = key_columns(table)
    columns = [table.c[name] for name in names]
    found: dict[Key, Row] = {}
    for some in portions(keys, _AT_ONCE):
        wanted = columns[0].in_([one[0] for one in some]) if len(columns) == 1 else tuple_(*columns).in_(some)
        for row in conn.execute(select(table).where(wanted)).mappings():
            found[tuple(row[name] for name in names)] = {name: row[name] for name in row if name not in names}
    return found


def save(conn: Connection, table: Table, before: dict[Key, Row], after: dict[Key, Row]) -> None:
    """Write the rows of `after` that are not in `before` as they are."""
    names = key_columns(table)
    new = [dict(zip(names, key, strict=True)) | row for key, row in after.items() if key not in before]
    if new:
        every = sorted({name for row in new for name in row})
        conn.execute(table.insert(), [{name: row.get(name) for name in every} for row in new])
    old = {key: row for key, row in after.items() if key in before and row != before[key]}
    if old:
        every = sorted({name for row in old.values() for name in row})
        # A parameter may not be called as a column is.
        where = and_(*(table.c[name] == bindparam(f"key_{name}") for name in names))
        change = table.update().where(where).values({name: bindparam(f"new_{name}") for name in every})
        conn.execute(
            change,
            [
                {f"key_{name}": part for name, part in zip(names, key, strict=True)}
                | {f"new_{name}": row.get(name) for name in every}
                for key, row in old.items()
            ],
        )


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, `size` at a time."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some

"""The schema of a store: which it has, to the newest, and back. Alembic, driven from here, without files of its own.

A revision is a file `migrations/versions/rNNNN_WHAT.py`; to add one is to add a file with the next number. Each runs
in one transaction, on both databases: it is done or it was not begun.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Inspector, inspect, text

from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.ledger.store import Store

FOLDER: Final = Path(__file__).parent / "migrations"
TABLE: Final = "ledger_version"
BASE: Final = "base"
_LOCK: Final = 0x6465767A  # any number, the same in every devguard


def revisions() -> tuple[str, ...]:
    """The revisions that this devguard knows, oldest first: the numbers in the names of their files."""
    return tuple(sorted(path.name[1:5] for path in (FOLDER / "versions").glob("r[0-9][0-9][0-9][0-9]_*.py")))


def head() -> str:
    """The revision of this devguard."""
    return revisions()[-1]


def revision_of(text: str) -> str:
    """The revision that somebody names; `Refused("ledger.schema")` for one that nobody here knows."""
    if text not in revisions():
        raise Refused("ledger.schema", f"no revision {text[:40]!r}; known are {', '.join(revisions())}")
    return text


def current(conn: Connection) -> str | None:
    """The revision a store has; None where it has no tables of ours."""
    inspector: Inspector = inspect(conn)
    if not inspector.has_table(TABLE):
        return None
    found = conn.execute(text(f"SELECT version_num FROM {TABLE}")).scalars().all()  # noqa: S608 (a constant)
    return str(found[0]) if found else None


def check_schema(store: Store, *, create: bool) -> None:
    """Return when the store has the tables of this devguard; `create`: make them where it has none.

    Raises `Refused` `ledger.schema` or `ledger.missing`, and what a transaction raises.
    """
    with store.read() as conn:
        found = current(conn)
    if found is None:
        if not create:
            raise Refused("ledger.missing", f"there is no ledger in {store.name}")
        migrate(store)
        return
    need_head(found, store.name)


def need_head(found: str, name: str) -> None:
    """`Refused("ledger.schema")` unless `found` is this devguard's revision."""
    if found == head():
        return
    if found in revisions():
        raise Refused("ledger.schema", f"{name} is of revision {found}, this devguard is of {head()}")
    raise Refused(
        "ledger.schema",
        f"{name} is of revision {found[:40]!r}, this devguard knows {head()} at most",
        "update devguard",
    )


def migrate(store: Store, target: str | None = None) -> tuple[str | None, str | None]:
    """Bring a store to revision `target` (default: the newest; `base`: no tables at all), forward or back.

    (revision before, revision after). Raises `Refused("ledger.schema")` for a revision nobody here knows, and what a
    transaction raises; then nothing was changed.
    """
    wanted = head() if target is None else target if target == BASE else revision_of(target)
    with store.begin() as conn:
        if store.dialect == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = current(conn)
        if before is not None and before not in revisions():
            need_head(before, store.name)
        if wanted != (before or BASE):
            _run(conn, before, wanted)
        after = current(conn)
    return before, after


def _run(conn: Connection, before: str | None, wanted: str) -> None:
    """The steps from one revision to another, inside the caller's transaction."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(FOLDER))
    back = before is not None and (wanted == BASE or revisions().index(wanted) < revisions().index(before))

    def steps(revision: Any, _context: Any) -> Any:
        move = script._downgrade_revs if back else script._upgrade_revs
        return move(wanted, revision)

    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=conn, version_table=TABLE, transactional_ddl=True)
        with environment.begin_transaction():
            environment.run_migrations()

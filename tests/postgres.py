"""A PostgreSQL server for tests: that of the bench, with databases copied from a template that is made once.

One server for each test process, one database for each test. `restart` and `kill` are for tests of what happens then:
without fsync a commit outlives the server's death; only a power cut would take it, and no test makes one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devguard.bench.campaign_postgres import USER, Postgres, tools
from devguard.errors import Refused
from needs import missing

SETTINGS = {
    "max_connections": "60",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "posix",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "logging_collector": "off",
    "log_min_messages": "fatal",
    "password_encryption": "scram-sha-256",
}


def absent() -> str | None:
    """What a test with PostgreSQL lacks on this machine; None: nothing."""
    try:
        tools()
    except Refused as error:
        return f"{error.message} (Debian: apt-get install postgresql)"
    return None


class Server(Postgres):
    """One server that is running."""

    settings = SETTINGS

    def __init__(self) -> None:
        super().__init__()
        self._made = 0
        self._templates: set[str] = set()

    def kill(self) -> None:
        """Gone at once, as in a power cut: every process of it."""
        if self._process is not None:
            for pid in _children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut down in good order; who is connected is cut off."""
        self.end(signal.SIGINT)

    def restart(self, *, kill: bool = False) -> None:
        """Down and up again, its data kept."""
        self.kill() if kill else self.stop()
        self.start()

    # its databases

    def database(self, template: str = "template0") -> str:
        """The URL of a new database, empty or a copy of another one."""
        self._made += 1
        name = f"t{os.getpid()}_{self._made}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def ledger(self) -> str:
        """The URL of a new database with the tables of this devguard, copied from one that is made once."""
        if "ledger" not in self._templates:
            from devguard.ledger.store import Store

            self.execute('CREATE DATABASE "ledger" TEMPLATE template0')
            Store.open(self.url("ledger")).close()
            self._templates.add("ledger")
        return self.database("ledger")

    def drop(self, url: str) -> None:
        """Remove a database; who is connected is cut off."""
        name = url.rpartition("/")[2].partition("?")[0]
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """One statement, outside a transaction; its rows."""
        import psycopg

        with psycopg.connect(
            host=str(self.folder), port=self.port, user=USER, dbname=database, autocommit=True
        ) as conn:
            found = conn.execute(statement)  # type: ignore[call-overload] # the test's own text
            return list(found.fetchall()) if found.description is not None else []


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server that is gone afterwards, whatever happens; the test skips, saying so, where it is not installed."""
    if (lacking := absent()) is not None:
        missing(lacking)
    one = Server()
    try:
        one.make()
        yield one
    finally:
        one.kill()
        one.remove()

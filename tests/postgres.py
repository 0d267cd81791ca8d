"""A PostgreSQL server for tests: data in a temporary folder, a Unix socket and a loopback port, never as root.

One server for each test process, one database for each test, copied from a template that is made once. `restart` and
`kill` are for tests of what happens then: without fsync a commit outlives the server's death; only a power cut would
take it, and no test makes one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from needs import missing

BINARIES = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt")
USER = "devguard"
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


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL that is installed."""
    found = [path.parent for place in BINARIES for path in Path(place).glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    return max(found, key=_version, default=None) or (None if on_path is None else Path(on_path).parent)


def _version(folder: Path) -> tuple[int, ...]:
    digits = [word for word in folder.parent.name.replace("postgresql@", "").split(".") if word.isdigit()]
    return tuple(map(int, digits))


def absent() -> str | None:
    """What a test with PostgreSQL lacks on this machine; None: nothing."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and _somebody() is None:
        return "there is no unprivileged user whom a PostgreSQL server could run as"
    return None


def _somebody() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class Server:
    """One server. `folder`: of everything it keeps; `port`: on loopback, and in the name of its socket."""

    def __init__(self) -> None:
        # Not pytest's folder: the path of a socket is short, and another user has to get there.
        self.folder = Path(tempfile.mkdtemp(prefix="dg-pg-"))
        self.data = self.folder / "data"
        self.port = _free_port()
        self._account = _somebody() if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self._templates: set[str] = set()
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    # the server

    def start(self) -> None:
        """Start it, and wait until it answers; again where what is left of a killed one is still in the way."""
        end = time.monotonic() + 60
        while not self._started(end):
            if time.monotonic() > end:
                raise AssertionError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.1)

    def _started(self, end: float) -> bool:
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [self._tool("postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port),
             "-k", str(self.folder), *options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as(),
        )  # fmt: skip
        log.close()
        while self._process.poll() is None and time.monotonic() < end:
            if self._answers():
                return True
            time.sleep(0.02)
        return False

    def kill(self) -> None:
        """Gone at once, as in a power cut: every process of it."""
        if self._process is None:
            return
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        self._process = None

    def stop(self) -> None:
        """Shut down in good order; who is connected is cut off."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)
            self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """Down and up again, its data kept."""
        self.kill() if kill else self.stop()
        self.start()

    def remove(self) -> None:
        """Down for good."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # its databases

    def url(self, database: str, **more: str) -> str:
        """The URL of a database, as DEVGUARD_STORE takes it."""
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in more.items())
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{quote(database)}{'?' if query else ''}{query}"

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

    # processes

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _tool(self, name: str) -> str:
        folder = binaries()
        assert folder is not None
        return str(folder / name)

    def _as(self) -> dict[str, Any]:
        """How a process of the server is started: by nobody who may do much."""
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        given: dict[str, Any] = {"env": environment, "cwd": str(self.folder)}
        if self._account is not None:
            given |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return given

    def _run(self, name: str, *arguments: object) -> None:
        command = [self._tool(name), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as())
        assert done.returncode == 0, done.stdout + done.stderr


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


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
        yield one
    finally:
        one.remove()

"""A PostgreSQL server of one's own, for simulations and tests: in a temporary folder, on loopback, never as root.

It runs with PostgreSQL's own settings for durability: what it says is committed has to be there after a crash. Debian:
the package postgresql.
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from devguard.errors import LinkError, Refused

PLACES: Final = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt")
USER: Final = "devguard"
SETTINGS: Final = {"max_connections": "200", "shared_buffers": "64MB", "log_min_messages": "fatal"}
PATIENCE: Final = 60.0


def tools() -> Path:
    """The folder of the newest PostgreSQL here; `Refused("campaign.postgresql")` where there is none that may run."""
    found = [path.parent for place in PLACES for path in Path(place).glob("*/bin/initdb")]
    if not found:
        raise Refused("campaign.postgresql", "no PostgreSQL is installed here")
    if os.geteuid() == 0 and _account() is None:
        raise Refused("campaign.postgresql", "there is no unprivileged user whom a server could run as")
    return max(found, key=lambda folder: [int(word) for word in folder.parent.name.split("@")[-1].split(".")])


def _account() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class Postgres:
    """One server. folder: of all it keeps; port: on loopback, and in the name of its socket in that folder."""

    settings: ClassVar[Mapping[str, str]] = SETTINGS

    def __init__(self) -> None:
        self._tools = tools()
        # Another user has to get there, and the path of a socket is short.
        self.folder = Path(tempfile.mkdtemp(prefix="devguard-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._account = _account() if os.geteuid() == 0 else None
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])

    def url(self, database: str = "postgres", **more: str) -> str:
        """Of one of its databases, as DEVGUARD_STORE takes it; every server has `postgres`, empty at first."""
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in more.items())
        place = f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{quote(database)}"
        return f"{place}?{query}" if query else place

    def make(self) -> None:
        """Its data, and the start of it. Raises `LinkError("ledger.unreachable")`."""
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        command = [self._tools / "initdb", "-D", self.folder / "data", "-U", USER, "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(  # noqa: S603 (the system's own program)
            [*map(str, command), "--locale=C", "--no-sync"], capture_output=True, text=True, check=False, **self._as()
        )
        if done.returncode != 0:
            raise LinkError("ledger.unreachable", f"initdb: {done.stderr.strip()[-300:]}")
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers; again where what is left of a killed one is still in the way. Raises
        `LinkError("ledger.unreachable")`."""
        end = time.monotonic() + PATIENCE
        while not self._started(end):
            if time.monotonic() > end:
                said = (self.folder / "log").read_text(errors="replace")[-300:]
                raise LinkError("ledger.unreachable", f"the server does not start: {said}")
            time.sleep(0.1)

    def _started(self, end: float) -> bool:
        options = [f"-c{name}={value}" for name, value in self.settings.items()]
        command = [self._tools / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1", "-p", self.port]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (the system's own program)
                [*map(str, command), "-k", str(self.folder), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as(),
            )
        while self._process.poll() is None and time.monotonic() < end:
            if self._answers():
                return True
            time.sleep(0.02)
        return False

    def crash(self) -> None:
        """Down at once, without writing anything more, and up again, by what it had written."""
        self.end(signal.SIGQUIT)
        self.start()

    def remove(self) -> None:
        """Gone, with its data."""
        self.end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def end(self, how: signal.Signals) -> None:
        """Down, by the signal that says how: SIGINT cuts off who is connected, SIGQUIT is a crash."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url().replace("+psycopg", "", 1), connect_timeout=5).close()
        except psycopg.Error:
            return False
        return True

    def _as(self) -> dict[str, Any]:
        """How a process of the server is started: by nobody who may do much."""
        given: dict[str, Any] = {"env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}, "cwd": self.folder}
        if self._account is not None:
            given |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return given


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that is gone afterwards, whatever happens. Raises `campaign.postgresql`, `ledger.unreachable`."""
    one = Postgres()
    try:
        one.make()
        yield one
    finally:
        one.remove()

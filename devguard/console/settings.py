"""What one running console is told by whoever starts it: the home, how to run a command, who may ask, every limit.

The command line hands all of it in (`devguard.cli.serve`), so that this room needs nothing of that one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

MINUTE: Final = 60
HOUR: Final = 3600
MIB: Final = 1 << 20


class Places(Protocol):
    """Where a home keeps what; `devguard.cli.home.Home` is one."""

    @property
    def path(self) -> Path: ...
    @property
    def keys(self) -> Path: ...
    @property
    def grants(self) -> Path: ...
    @property
    def releases(self) -> Path: ...
    @property
    def shelf_state(self) -> Path: ...
    @property
    def trust_file(self) -> Path: ...
    @property
    def technicians_file(self) -> Path: ...
    @property
    def evidence_folder(self) -> Path: ...
    def make(self, folder: Path) -> Path: ...
    def private_keys(self) -> list[Path]: ...
    def grant_files(self) -> list[Path]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a browser may cost. Sizes in bytes, times in seconds, rates in bytes a second.

    `upload` is what the command line takes of a release (4 GiB) and a little for its envelope; `reserve` stays free on
    the disk whatever is uploaded, for nothing is done without a record. `signs` failed sign-ins in `sign_window` from
    one address, ten times that from all together.
    """

    upload: int = (1 << 32) + MIB
    reserve: int = 64 * MIB
    form: int = 64 * 1024
    silence: float = 15.0
    grace: float = 10.0
    slowest: int = 16 * 1024
    idle: float = 15 * MINUTE
    absolute: float = 12 * HOUR
    ticket: float = 10 * MINUTE
    invitation: float = 24 * HOUR
    challenge: float = 2 * MINUTE
    signs: int = 10
    sign_window: float = 5 * MINUTE
    command: float = 2 * MINUTE
    keep_release: float = 24 * HOUR
    keep_runs: int = 200
    streams: int = 64
    commands: int = 8
    waiting: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One running console.

    command: what starts a `devguard` command, before its arguments. origin: as browsers spell it. hosts: the Host
    headers it answers to. name: the WebAuthn relying party. operator: who started it. ports: ports that are offered
    beside the machine's own. loopback: no other machine can reach it. store: URL of the ledger's database.
    """

    home: Places
    command: tuple[str, ...]
    origin: str
    hosts: frozenset[str]
    name: str
    operator: str
    tls: bool = False
    loopback: bool = True
    ports: tuple[str, ...] = ()
    store: str | None = None
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
    ticks: Callable[[], float] = time.monotonic

    @property
    def folder(self) -> Path:
        """The console's own folder in the home."""
        return self.home.path / "console"

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; cookies know no ports, so the port is in the name."""
        port = self.origin.rpartition(":")[2]
        return "__Host-devguard" if self.tls else f"devguard-{port}"

"""Where the pages and the API of one console read from: the ledger's store, the evidence log, what commands say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from starlette.concurrency import run_in_threadpool

from devguard.console.commands import Commands
from devguard.console.reads import Reads
from devguard.console.settings import Settings
from devguard.console.standing import Watch
from devguard.console.tally import Tallier, Tally
from devguard.console.tokens import Tokens

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from devguard.ledger.store import Store

T = TypeVar("T")


@dataclass(slots=True)
class Ledger:
    """The ledger's store, opened when somebody asks for the first time. `url`: None for the home's own file."""

    home: Path
    url: str | None
    _store: Store | None = None

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` makes of one moment of the store. Raises as `Store.open` and `Store.read`, `ledger.package`."""
        from devguard.ledger.package import need_ledger

        need_ledger()
        from devguard.ledger.store import Store, store_url

        if self._store is not None and (path := self._store.path) is not None and not path.exists():
            self._store.close()  # a database that vanished is not read from what is still open of it
            self._store = None
        if self._store is None:
            self._store = Store.open(self.url or store_url(self.home, {}), create=False)
        with self._store.read() as conn:
            return work(conn)


@dataclass(slots=True)
class Facts:
    """Everything of one console."""

    settings: Settings
    reads: Reads
    watch: Watch
    tallier: Tallier
    ledger: Ledger
    tokens: Tokens

    @classmethod
    def of(cls, settings: Settings, commands: Commands) -> Facts:
        """The parts; nothing is read yet."""
        folder = settings.home.evidence_folder
        return cls(
            settings,
            Reads(commands, settings.ticks),
            Watch(commands, folder, settings.clock),
            Tallier(folder),
            Ledger(settings.home.path, settings.store),
            Tokens(settings.folder),
        )

    @property
    def log(self) -> Path:
        """The folder of the evidence log."""
        return self.settings.home.evidence_folder

    @property
    def now(self) -> int:
        """Epoch seconds."""
        return int(self.settings.clock())

    async def from_ledger(self, work: Callable[[Connection], T]) -> T:
        """`Ledger.read`, away from the loop."""
        return await run_in_threadpool(self.ledger.read, work)

    async def tally(self, patience: float = 1.0) -> Tally:
        """The figures of the log, away from the loop; those of before, with `counting`, when it takes longer."""
        counting = asyncio.ensure_future(run_in_threadpool(self.tallier.now))
        done, _ = await asyncio.wait([counting], timeout=patience)
        return counting.result() if done else replace(self.tallier.shown, counting=True)

    def people_files(self) -> list[Path]:
        """What answers about people and grants depend on."""
        home = self.settings.home
        return [home.technicians_file, home.grants, home.evidence_folder, home.trust_file, home.path / "memory.cbor"]

    def fleet_files(self) -> list[Path]:
        """What answers about devices depend on."""
        home = self.settings.home
        return [home.evidence_folder, home.trust_file, home.shelf_state, home.path / "config.toml"]

    def good(self) -> int | None:
        """How many records of a log that does not hold may be shown; None while nothing is known against it."""
        known = self.watch.look()
        return known.records if known.state == "bad" else None

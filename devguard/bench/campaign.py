"""A campaign over many light devices, worked by processes that are killed, on a database that crashes. A simulation.

The campaign, its leases, its queue and its database are those of a group; the devices are light (`campaign_devices`),
the workers play technicians (`campaign_worker`). What it shows is that nothing is done twice or lost; how
long a real push takes it does not show.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, insert, select

from devguard.bench import stage
from devguard.bench.campaign_check import Books, Check, check
from devguard.bench.campaign_postgres import Postgres, postgres
from devguard.bench.campaign_setup import MODEL, NAME, Setup, plan_of, site_of
from devguard.bench.campaign_stage import OLD, goal
from devguard.bench.campaign_worker import Line
from devguard.campaign.queue import Queue, coded, conninfo, job_of
from devguard.campaign.state import Order, Phase
from devguard.campaign.store import BATCH, create, inventory, load, order, rows_of
from devguard.campaign.tables import members
from devguard.errors import LinkError, Refused
from devguard.ledger.schema import devices, grant_uses, pushes, reports
from devguard.ledger.store import Store

WORKER: Final = ("-m", "devguard.bench.campaign_worker")
DEVICES: Final = ("-m", "devguard.bench.campaign_devices")
POLL: Final = 0.2
TWICE: Final = 10


Say = Callable[[str], object]


def _nothing(_: str) -> None:
    """Nobody wants to hear how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is simulated. kills: workers killed on the way; crash: the database, halfway; duplicates: jobs and outcomes
    that come twice; install: seconds of an emulated push; limit: seconds after which it is given up; worker: how the
    interpreter is started as a worker."""

    devices: int
    workers: int = 2
    seed: int = 1
    kills: int = 0
    crash: bool = False
    duplicates: bool = False
    install: float = 0.0
    lease: int = 10
    limit: float = 3600.0
    worker: Sequence[str] = WORKER


@dataclass(slots=True)
class Result:
    """What came of it. seconds: from the first device handed out to the end; started: workers, the killed ones and
    those that lost the database counted each time."""

    wish: Wish
    seconds: float = 0.0
    done: int = 0
    killed: int = 0
    crashed: int = 0
    started: int = 0
    twice: int = 0
    late: int = 0
    checks: list[Check] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every rule held."""
        return bool(self.checks) and all(one.held for one in self.checks)

    @property
    def rate(self) -> float:
        """Devices a second, of all workers together."""
        return self.done / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "held": self.held,
            "devices": self.wish.devices,
            "workers": self.wish.workers,
            "done": self.done,
            "seconds": round(self.seconds, 2),
            "devices_per_second": round(self.rate, 2),
            "devices_per_second_per_worker": round(self.rate / self.wish.workers, 2),
            "workers_killed": self.killed,
            "workers_started": self.started,
            "database_crashes": self.crashed,
            "jobs_twice": self.twice,
            "outcomes_late": self.late,
            "checks": [one.to_json() for one in self.checks],
        }


def run(wish: Wish, url: str | None = None, say: Say = _nothing) -> Result:
    """One simulated campaign on a server of its own, or in the empty database at `url`, which it leaves filled.

    say: hears how far it is, now and then.

    Raises `Refused`: `campaign.postgresql`, `campaign.package`, `campaign.store`; `LinkError`: `ledger.unreachable`.
    """
    with contextlib.ExitStack() as stack:
        server = None
        if url is None:
            server = stack.enter_context(postgres())
            url = server.url()
        conninfo(url)  # before a file is made for one that is none
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devguard-sim-")))
        twice = TWICE if wish.duplicates else 0
        setup = Setup(url, str(folder / "devices"), wish.devices, wish.seed, wish.install, wish.lease, twice)
        store = stack.enter_context(Store.open(url))
        queue = Queue(store)
        queue.prepare()
        _fill(store, setup)
        setup.write(folder / "setup.json")
        stack.enter_context(_devices(folder))
        crew = stack.enter_context(_Crew(folder, wish))
        result = _work(wish, store, queue, setup, crew, server, say)
        crew.stop()
        return _judged(store, setup, result)


def _fill(store: Store, setup: Setup) -> None:
    """The ledger's devices and a running campaign over them; `campaign.store` for a database that is in use."""
    row = {"model": MODEL, "version": "1.0.0", "sequence": 1, "confirmed": True, "manifest_digest": OLD}
    row |= {"reported": stage.NOW, "seen": stage.NOW, "station": "devguard/simulation", "index": 0}
    rows = [{"serial": serial, "site": site_of(at), **row} for at, serial in enumerate(setup.serials())]
    with store.begin() as conn:
        if conn.execute(select(func.count()).select_from(devices)).scalar_one():
            raise Refused("campaign.store", f"{store.name} holds devices; a simulation takes an empty database")
        for start in range(0, len(rows), BATCH):
            conn.execute(insert(devices), rows[start : start + BATCH])
        now = int(time.time())
        create(conn, plan_of(setup), goal(), inventory(conn, MODEL), "devguard", now)
        order(conn, NAME, Order.START, "devguard", now)


@contextlib.contextmanager
def _devices(folder: Path) -> Iterator[None]:
    """The process of the light devices."""
    command = [sys.executable, *DEVICES, str(folder / "setup.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)  # noqa: S603 (ourselves)
    try:
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise LinkError("link.timeout", "the light devices did not start")
        yield
    finally:
        process.kill()
        process.communicate()


class _Crew:
    """The workers: as many as are wished for, whatever becomes of them."""

    def __init__(self, folder: Path, wish: Wish) -> None:
        self._folder = folder
        self._wish = wish
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = (folder / "workers.log").open("ab")
        self.started = 0

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._log.close()

    def fill(self) -> None:
        """Start those that are missing."""
        self._processes = [process for process in self._processes if process.poll() is None]
        while len(self._processes) < self._wish.workers:
            command = [sys.executable, *self._wish.worker, str(self._folder / "setup.json")]
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)  # noqa: S603
            )
            self.started += 1

    def kill(self, dice: random.Random) -> None:
        """One of them, at once, wherever it is."""
        process = dice.choice(self._processes)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """All of them, in good order where they take the time to."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)


def _work(
    wish: Wish, store: Store, queue: Queue, setup: Setup, crew: _Crew, server: Postgres | None, say: Say
) -> Result:
    """Let the crew work, kill, crash and double what was wished for, until the campaign is over or the time is up."""
    result = Result(wish)
    dice = random.Random(wish.seed)  # noqa: S311 (who is killed)
    kills = sorted(dice.randrange(wish.devices * 5 // 100, wish.devices * 90 // 100 + 1) for _ in range(wish.kills))
    crash = wish.devices // 2 if wish.crash and server is not None else None
    began, first, told = time.monotonic(), None, 0
    while time.monotonic() - began < wish.limit:
        crew.fill()
        time.sleep(POLL)
        try:
            touched, result.done, over = _progress(store)
        except LinkError:  # it was just crashed
            continue
        if touched and first is None:
            first = time.monotonic()
        result.seconds = time.monotonic() - (first or began)
        if over:
            break
        if result.done * 10 // wish.devices > told:
            told = result.done * 10 // wish.devices
            say(f"{result.done} of {wish.devices} devices, {result.seconds:.0f} s")
        while kills and result.done >= kills[0]:
            kills.pop(0)
            crew.kill(dice)
            result.killed += 1
            crew.fill()
        if crash is not None and server is not None and result.done >= crash:
            crash = None
            server.crash()
            result.crashed += 1
        if wish.duplicates and result.twice * 10 < result.done:
            result.twice += _double(queue, setup, dice)
    result.started = crew.started
    return result


def _progress(store: Store) -> tuple[bool, int, bool]:
    """Whether any device was handed out, how many are done, and whether the campaign is over."""
    with store.read() as conn:
        query = select(members.c.phase, func.count()).where(members.c.campaign == NAME).group_by(members.c.phase)
        found = {row.phase: int(row[1]) for row in conn.execute(query)}
        state = load(conn, NAME).state
    waits = found.get(Phase.DUE.value, 0)
    return sum(found.values()) > waits, found.get(Phase.DONE.value, 0), state.value in ("finished", "stopped")


def _double(queue: Queue, setup: Setup, dice: random.Random) -> int:
    """Put jobs of devices into the queue once more, done ones too; how many."""
    serials = setup.serials()
    jobs = [job_of(NAME, dice.choice(serials)) for _ in range(max(len(serials) // 500, 1))]
    try:
        with coded(), queue.app.open():
            queue.app.job_manager.batch_defer_jobs(jobs)
    except LinkError:  # the database is just away
        return 0
    return len(jobs)


def _judged(store: Store, setup: Setup, result: Result) -> Result:
    """The same with what the devices and the database say at the end, judged."""
    said = Line(setup.socket).ask(op="ends")
    with store.read() as conn:
        campaign = load(conn, NAME)
        own, heard = rows_of(conn, campaign)
        uses = [(bytes(row.grant).hex(), row.serial) for row in conn.execute(select(grant_uses))]
        digests = frozenset(bytes(one).hex() for one in conn.execute(select(reports.c.digest)).scalars())
        pushed = frozenset(conn.execute(select(pushes.c.serial).where(pushes.c.state == "done")).scalars())
    books = Books(campaign.state, own, heard, uses, digests, pushed)
    result.done = sum(one.phase is Phase.DONE for one in own)
    result.late = sum(not one.counted for one in heard)
    result.checks = check(said["devices"], said["committed"], books, campaign.goal.digest.hex())
    return result


def scale(wish: Wish, counts: Sequence[int] = (1, 2, 4, 8), say: Say = _nothing) -> list[Result]:
    """The same campaign undisturbed, with more and more workers, each on a new server."""
    calm = replace(wish, kills=0, crash=False, duplicates=False)
    return [run(replace(calm, workers=count), say=say) for count in counts]

"""The queue of a group's campaigns: procrastinate on the group's own PostgreSQL. No queue of our own.

Two kinds of jobs. A tick, started by the clock: it drops the jobs of workers that died, moves every campaign on,
and sees to it that a device which is due waits in the queue. A device's job hands the device to whoever works there,
under a lock of the device, and comes again when it could not be done. The rows of `store` are the truth; the queue may
be emptied and is filled again by the next tick, and a job that comes twice finds the device claimed or done.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import procrastinate
import psycopg
import psycopg_pool
import sqlalchemy
from procrastinate import exceptions
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from sqlalchemy import select

from devguard.campaign.advance import advance_all
from devguard.campaign.state import Phase, may_hand_out
from devguard.campaign.store import load, moment, open_rings
from devguard.campaign.tables import members
from devguard.errors import LinkError, Refused
from devguard.ledger.store import Store

QUEUE: Final = "campaign"
DEVICE: Final = "campaign.device"
TICK: Final = "campaign.tick"
DEPTH: Final = 500
PATIENCE: Final = 60
Act = Callable[[str, str], None]
"""What is done with a device that is due: (campaign, serial). A `LinkError` it raises brings the job again."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a queue ticks, as a cron line with seconds last; after how many seconds without a sign of life a
    worker is dead, and how often it gives one; how many devices wait in the queue at most."""

    cron: str = "* * * * * 0"
    dead: float = 60.0
    alive: float = 10.0
    depth: int = DEPTH


class Patience(BaseRetryStrategy):
    """A job that the database or the device was not ready for comes again, later each time; any other fault ends it."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When to try again; None: not at all."""
        if not isinstance(exception, LinkError):
            return None
        wait = min(2.0 ** min(job.attempts, 10) / 4, PATIENCE)
        return RetryDecision(retry_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=wait))


@contextmanager
def coded() -> Iterator[None]:
    """Turn what the queue's packages raise into `LinkError("ledger.unreachable")`."""
    try:
        yield
    except (exceptions.ConnectorException, psycopg.Error, psycopg_pool.PoolTimeout) as error:
        cause = error.__cause__ or error
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise LinkError("ledger.unreachable", f"the queue's database does not answer: {said}") from None


def conninfo(url: str) -> str:
    """The store's URL as libpq takes it; `Refused("campaign.store")` for one that is not on PostgreSQL."""
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername != "postgresql+psycopg":
        raise Refused("campaign.store", "the store is a SQLite file; a queue is for a group's PostgreSQL")
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass(slots=True)
class Queue:
    """The queue of one store. act: what is done with a device that is due, None where nobody here does that."""

    store: Store
    act: Act | None = None
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.time
    app: procrastinate.App = field(init=False)

    def __post_init__(self) -> None:
        kwargs: dict[str, Any] = {"min_size": 1, "max_size": 4, "timeout": 10.0}
        connector = procrastinate.PsycopgConnector(conninfo=conninfo(self.store.url), **kwargs)
        self.app = procrastinate.App(connector=connector)
        self.app.task(name=DEVICE, queue=QUEUE, retry=Patience())(self._device)
        tick = self.app.task(name=TICK, queue=QUEUE, queueing_lock=TICK, priority=10)(self._tick)
        self.app.periodic(cron=self.pace.cron)(tick)

    def prepare(self) -> None:
        """Make the queue's own tables where the database has none. Raises `LinkError("ledger.unreachable")`."""
        with coded(), self.app.open():
            if not self.app.check_connection():
                self.app.schema_manager.apply_schema()

    def work(self, *, name: str = "devguard", wait: bool = True) -> None:
        """Work until interrupted; `wait` False: until nothing is left to do now. Raises `LinkError`."""
        pace = self.pace
        with coded():
            self.app.run_worker(
                queues=[QUEUE],
                name=name,
                wait=wait,
                delete_jobs="successful",
                fetch_job_polling_interval=1.0,
                update_heartbeat_interval=pace.alive,
                stalled_worker_timeout=pace.dead,
                install_signal_handlers=True,
            )

    def _device(self, campaign: str, serial: str) -> None:
        """The job of one device."""
        if self.act is not None:
            self.act(campaign, serial)

    async def _tick(self, timestamp: int) -> None:
        """The job that the clock starts; `timestamp`, when it was due, is what the queue calls such a job with."""
        del timestamp
        manager = self.app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=self.pace.dead):
            try:  # not again as it is: whoever is still due is put in anew below, and another tick comes anyway
                await manager.finish_job(job, Status.ABORTED, delete_job=True)
            except exceptions.ConnectorException:  # another tick was faster, or it ended after all
                continue
        for name in await asyncio.to_thread(advance_all, self.store, int(self.clock())):
            await self.top_up(name)

    async def top_up(self, name: str) -> int:
        """Put devices that are due and do not wait in the queue into it, up to its depth; how many."""
        if self.act is None:
            return 0
        manager = self.app.job_manager
        found = [
            job for status in ("todo", "doing") for job in await manager.list_jobs_async(queue=QUEUE, status=status)
        ]
        queued = {job.lock for job in found if job.lock is not None}
        own = sum(job.queueing_lock is not None for job in found)  # what was put in twice leaves no less room
        due = await asyncio.to_thread(self._due, name)
        wanted = [serial for serial in due if lock_of(serial) not in queued][: max(self.pace.depth - own, 0)]
        jobs = [job_of(name, serial, queueing_lock=f"{name}/{serial}") for serial in wanted]
        if not jobs:
            return 0
        try:
            await manager.batch_defer_jobs_async(jobs)
        except exceptions.AlreadyEnqueued:  # another tick was faster; the next one sees what is left
            return 0
        return len(jobs)

    def _due(self, name: str) -> list[str]:
        with self.store.read() as conn:
            campaign = load(conn, name)
            try:
                may_hand_out(name, campaign.state, campaign.plan, moment(conn, int(self.clock())))
            except Refused:
                return []
            query = select(members.c.serial).where(
                members.c.campaign == name,
                members.c.phase == Phase.DUE.value,
                members.c.ring.in_(open_rings(conn, name)),
            )
            ordered = query.order_by(members.c.ring, members.c.tries, members.c.serial)
            return list(conn.execute(ordered.limit(2 * self.pace.depth)).scalars())


def lock_of(serial: str) -> str:
    """The lock of a device's jobs: two for one device never run at once, of whatever campaign."""
    return f"device/{serial}"


def job_of(campaign: str, serial: str, queueing_lock: str | None = None) -> Job:
    """A device's job. queueing_lock: at most one job with it waits."""
    return Job(
        queue=QUEUE,
        task_name=DEVICE,
        lock=lock_of(serial),
        queueing_lock=queueing_lock,
        task_kwargs={"campaign": campaign, "serial": serial},
    )

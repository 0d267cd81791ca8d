"""The queue of a group: every due device waits in it once, comes again when it could not be done, and survives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg_pool
import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job

from campaign_support import GOAL, PUMP, plan, settle, sign
from devguard.campaign.advance import advance_all
from devguard.campaign.leases import claim, deliver
from devguard.campaign.plan import Plan, Ring
from devguard.campaign.plan_file import parse_plan
from devguard.campaign.queue import PATIENCE, Pace, Patience, Queue, coded, conninfo, job_of
from devguard.campaign.state import Order, Outcome
from devguard.campaign.store import create, inventory, load, order, report_of
from devguard.errors import LinkError, Refused
from devguard.ledger.store import Store

NOW = 1_800_000_000


@pytest.fixture
def group(postgres_url: str) -> Iterator[Store]:
    """A group's store."""
    with Store.open(postgres_url) as one:
        yield one


class Bench:
    """What is done with a device: it takes the release at once, after as many lost lines as were asked for."""

    def __init__(self, store: Store, lost: int = 0) -> None:
        self.store = store
        self.lost = lost
        self.seen: list[str] = []

    def act(self, campaign: str, serial: str) -> None:
        self.seen.append(serial)
        if self.lost:
            self.lost -= 1
            raise LinkError("link.timeout", "lost")
        with self.store.begin() as conn:
            lease = claim(conn, campaign, "x", NOW, f"{serial}/{len(self.seen)}", serial=serial)
            if lease is None:
                return
            sign(conn, serial)
            assert deliver(conn, lease, Outcome.CONFIRMED, None, NOW).counted


def begin(store: Store, whole: Plan, count: int) -> None:
    with store.begin() as conn:
        settle(conn, count)
        create(conn, whole, GOAL, inventory(conn, PUMP), "x", NOW)
        order(conn, whole.name, Order.START, "x", NOW)


def queue_of(store: Store, bench: Bench | None, **pace: Any) -> Queue:
    one = Queue(store, None if bench is None else bench.act, Pace(**pace), clock=lambda: NOW)
    one.prepare()
    return one


def top_up(queue: Queue) -> int:
    async def act() -> int:
        async with queue.app.open_async():
            return await queue.top_up("c")

    return asyncio.run(act())


def test_every_due_device_is_handed_to_whoever_works(group: Store) -> None:
    begin(group, plan(), 5)
    bench = Bench(group)
    queue = queue_of(group, bench)
    queue.prepare()  # a second time changes nothing
    assert top_up(queue) == 5
    assert top_up(queue) == 0  # they wait already
    queue.work(wait=False)
    assert sorted(bench.seen) == [f"IP-{at}" for at in range(5)]
    assert top_up(queue) == 0
    assert advance_all(group, NOW)["c"].state.value == "finished"
    with group.read() as conn:
        assert report_of(conn, load(conn, "c")).faults == ()


def test_a_job_that_comes_twice_finds_the_device_done(group: Store) -> None:
    begin(group, plan(), 1)
    bench = Bench(group)
    queue = queue_of(group, bench)
    with queue.app.open():
        queue.app.job_manager.batch_defer_jobs([job_of("c", "IP-0") for _ in range(3)])
    queue.work(wait=False)
    assert bench.seen == ["IP-0"] * 3
    with group.read() as conn:
        found = report_of(conn, load(conn, "c"))
    assert (found.outcomes, found.faults) == (1, ())


def test_what_was_not_ready_comes_again(group: Store) -> None:
    begin(group, plan(), 1)
    bench = Bench(group, lost=1)
    queue = queue_of(group, bench)
    assert top_up(queue) == 1
    queue.work(wait=False)
    assert bench.seen == ["IP-0"]
    with queue.app.open():
        (job,) = queue.app.job_manager.list_jobs(queue="campaign", task="campaign.device")
    assert (job.status, job.attempts, job.scheduled_at is not None) == ("todo", 1, True)


def test_the_queue_is_filled_to_its_depth(group: Store) -> None:
    begin(group, plan(), 5)
    queue = queue_of(group, Bench(group), depth=2)
    assert [top_up(queue), top_up(queue)] == [2, 0]
    queue.work(wait=False)
    assert top_up(queue) == 2


def test_a_closed_ring_and_closed_hours_queue_nobody(group: Store) -> None:
    begin(group, plan(Ring("a", serials=frozenset({"IP-1"})), Ring("b")), 3)
    assert top_up(queue_of(group, Bench(group))) == 1
    text = '[campaign]\nname = "d"\nmodel = "insulin-pump"\nrelease = "f"\n[[ring]]\nname = "r"\n'
    closed = parse_plan((text + '[window]\nzone = "UTC"\nhours = ["09:00-10:00"]').encode())  # NOW is 08:00 UTC
    with group.begin() as conn:
        order(conn, "c", Order.STOP, "x", NOW, "why")
        create(conn, closed, GOAL, inventory(conn, PUMP), "x", NOW)
        order(conn, "d", Order.START, "x", NOW)
    queue = queue_of(group, Bench(group))
    assert (queue._due("c"), queue._due("d")) == ([], [])


def test_a_worker_without_a_bench_queues_nobody(group: Store) -> None:
    begin(group, plan(), 3)
    assert top_up(queue_of(group, None)) == 0


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 0.25), (3, 2), (50, PATIENCE)])
def test_it_waits_longer_each_time(attempts: int, seconds: float) -> None:
    import datetime

    job = Job(queue="q", lock=None, queueing_lock=None, task_name="t", attempts=attempts)
    before = datetime.datetime.now(datetime.UTC)
    decision = Patience().get_retry_decision(exception=LinkError("link.timeout", ""), job=job)
    assert decision is not None
    assert decision.retry_at is not None
    assert seconds <= (decision.retry_at - before).total_seconds() <= seconds + 5
    for error in (Refused("campaign.stopped", ""), ValueError()):
        assert Patience().get_retry_decision(exception=error, job=job) is None


def test_a_queue_is_for_postgresql() -> None:
    with pytest.raises(Refused, match=r"campaign\.store"):
        conninfo("sqlite:////tmp/x.sqlite")
    assert conninfo("postgresql+psycopg://u:p%40w@h:1/d") == "postgresql://u:p%40w@h:1/d"


@pytest.mark.parametrize(
    "error", [psycopg.OperationalError("gone\nmore"), psycopg_pool.PoolTimeout("late"), ConnectorException()]
)
def test_a_database_that_is_away_is_told_by_its_code(error: Exception) -> None:
    with pytest.raises(LinkError, match=r"ledger\.unreachable: the queue's database does not answer: [^\n]+$"), coded():
        raise error


def test_what_is_in_the_queue_twice_leaves_no_less_room(group: Store) -> None:
    begin(group, plan(), 5)
    queue = queue_of(group, Bench(group), depth=2)
    with queue.app.open():
        queue.app.job_manager.batch_defer_jobs([job_of("c", "IP-0") for _ in range(9)])
    assert top_up(queue) == 2

"""Campaigns as rows, on both databases: leases, outcomes, evidence, the stop rule, rings; two benches at once."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import delete, func, inspect, select, update

from campaign_support import GOAL, PUMP, T0, by_itself, plan, raise_incident, settle, sign
from devguard.campaign.advance import advance
from devguard.campaign.leases import Lease, claim, deliver, give_back, skip
from devguard.campaign.plan import Limit, Plan, Ring, StopRule
from devguard.campaign.plan_file import parse_plan
from devguard.campaign.state import Order, Outcome, Phase, State
from devguard.campaign.store import (
    counts,
    create,
    everything,
    inventory,
    load,
    moment,
    open_by_hand,
    open_rings,
    order,
    report_of,
    running,
)
from devguard.campaign.tables import TABLES, campaigns, members, outcomes
from devguard.errors import DevguardError, Refused
from devguard.ledger.derive import text_of
from devguard.ledger.migrate import migrate
from devguard.ledger.rebuild import rebuild
from devguard.ledger.schema import devices
from devguard.ledger.store import Store, sqlite_url

OK, FAILED, REFUSED = Outcome.CONFIRMED, Outcome.FAILED, Outcome.REFUSED


def begin(store: Store, whole: Plan, count: int = 4) -> None:
    """A running campaign over so many devices of the ledger."""
    with store.begin() as conn:
        settle(conn, count)
        create(conn, whole, GOAL, inventory(conn, PUMP), "x", T0)
        order(conn, whole.name, Order.START, "x", T0)


def take(store: Store, token: str, now: int = T0, **fields: Any) -> Lease | None:
    with store.begin() as conn:
        return claim(conn, "c", "tess", now, token, **fields)


def must(store: Store, token: str, now: int = T0, **fields: Any) -> Lease:
    lease = take(store, token, now, **fields)
    assert lease is not None
    return lease


def say(store: Store, lease: Lease, outcome: Outcome, code: str | None = None, now: int = T0) -> tuple[bool, Phase]:
    with store.begin() as conn:
        done = deliver(conn, lease, outcome, code, now)
    return done.counted, done.phase


def push(store: Store, token: str, now: int = T0) -> str:
    """One device all the way: handed out, its signed report in the ledger, the outcome delivered."""
    lease = must(store, token, now)
    with store.begin() as conn:
        sign(conn, lease.serial)
    assert say(store, lease, OK, now=now) == (True, Phase.DONE)
    return lease.serial


def phases(store: Store) -> dict[str, str]:
    with store.read() as conn:
        return {row.serial: row.phase for row in conn.execute(select(members.c.serial, members.c.phase))}


def move(store: Store, now: int = T0) -> Any:
    with store.begin() as conn:
        return advance(conn, "c", now)


def faults(store: Store) -> tuple[str, ...]:
    with store.read() as conn:
        return report_of(conn, load(conn, "c")).faults


def refusal(store: Store, act: Any, *arguments: Any) -> str:
    with pytest.raises(DevguardError) as caught, store.begin() as conn:
        act(conn, *arguments)
    return caught.value.code


def test_from_the_first_claim_to_the_end(store: Store) -> None:
    begin(store, plan(Ring("bench", serials=frozenset({"IP-3"})), by_itself("all", 1, 60)))
    assert push(store, "a") == "IP-3"
    assert take(store, "b") is None
    assert move(store, T0 + 59).opened == ()
    assert move(store, T0 + 60).opened == ("all",)
    assert [push(store, token, T0 + 60) for token in "bcd"] == ["IP-0", "IP-1", "IP-2"]
    assert move(store, T0 + 61).state is State.FINISHED
    with store.read() as conn:
        found = report_of(conn, load(conn, "c"))
        assert counts(conn, "c") == {0: {Phase.DONE: 1}, 1: {Phase.DONE: 3}}
    assert found.faults == ()
    assert found.outcomes == 4
    assert refusal(store, claim, "c", "tess", T0 + 61, "e") == "campaign.stopped"


def test_a_device_of_several_sites_is_on_each_of_them(store: Store) -> None:
    """As the ledger writes them, from the grant of the push that showed where the device is."""
    with store.begin() as conn:
        settle(conn, 2, site=text_of(["ward-1", "ward-2"]))
        placed = create(
            conn, plan(Ring("a", sites=frozenset({"ward-2"})), Ring("b")), GOAL, inventory(conn, PUMP), "x", T0
        )
        order(conn, "c", Order.START, "x", T0)
    assert placed == {"IP-0": 0, "IP-1": 0}
    assert take(store, "a", site="ward-3") is None
    assert must(store, "a", site="ward-2").serial == "IP-0"
    assert must(store, "b", site="ward-1").serial == "IP-1"


def test_a_draft_keeps_its_plan_and_hands_out_nothing(store: Store) -> None:
    whole = plan(Ring("a", sites=frozenset({"ward-1"})), Ring("b"), stop=StopRule(failures=Limit(percent=5)))
    with store.begin() as conn:
        settle(conn, 4)
        placed = create(conn, whole, GOAL, inventory(conn, PUMP), "x", T0)
    assert placed == {"IP-0": 1, "IP-1": 0, "IP-2": 1, "IP-3": 0}
    with store.read() as conn:
        kept = load(conn, "c")
        assert [one.name for one in everything(conn)] == ["c"]
    assert (kept.plan, kept.goal, kept.state, kept.devices) == (whole, GOAL, State.DRAFT, 4)
    assert refusal(store, claim, "c", "tess", T0, "a") == "campaign.stopped"
    assert refusal(store, create, whole, GOAL, [], "x", T0) == "campaign.exists"
    assert refusal(store, order, "c", Order.PAUSE, "x", T0) == "campaign.order"
    for act, arguments in ((claim, ("tess", T0, "a")), (order, (Order.START, "x", T0)), (advance, (T0,))):
        assert refusal(store, act, "nobody", *arguments) == "campaign.unknown"


def test_a_claimed_device_is_nobody_elses_until_its_lease_is_over(store: Store) -> None:
    begin(store, plan(lease=600), 1)
    lease = must(store, "a")
    assert (lease.serial, lease.until) == ("IP-0", T0 + 600)
    assert take(store, "b", T0 + 599) is None
    assert must(store, "b", T0 + 600).serial == "IP-0"
    assert say(store, lease, FAILED, "link.timeout", T0 + 601) == (False, Phase.CLAIMED)
    assert phases(store) == {"IP-0": "claimed"}
    assert faults(store) == ()


def test_a_dead_bench_costs_a_lease_and_nothing_else(store: Store) -> None:
    begin(store, plan(lease=600), 2)
    must(store, "a")
    assert move(store, T0 + 599).expired == 0
    assert move(store, T0 + 600).expired == 1
    assert set(phases(store).values()) == {"due"}
    assert faults(store) == ()


def test_an_outcome_counts_once(store: Store) -> None:
    begin(store, plan(tries=2), 1)
    lease = must(store, "a")
    assert say(store, lease, FAILED, "link.timeout") == (True, Phase.DUE)
    assert say(store, lease, FAILED, "link.timeout") == (False, Phase.DUE)
    again = must(store, "b")
    assert say(store, lease, FAILED, "link.timeout") == (False, Phase.CLAIMED)
    assert say(store, again, FAILED, "link.timeout") == (True, Phase.FAILED)
    assert say(store, again, FAILED, "link.timeout") == (False, Phase.FAILED)
    with store.read() as conn:
        assert conn.execute(select(func.count()).select_from(outcomes)).scalar() == 2
    assert faults(store) == ()


def test_a_word_without_evidence_makes_nobody_done(store: Store) -> None:
    begin(store, plan(lease=600), 1)
    lease = must(store, "a")
    assert say(store, lease, OK, now=T0 + 500) == (True, Phase.CLAIMED)
    assert take(store, "b", T0 + 1099) is None  # its report may be on the way
    assert move(store, T0 + 1100).expired == 1
    assert phases(store) == {"IP-0": "due"}
    with store.begin() as conn:
        sign(conn, "IP-0")
    assert (move(store, T0 + 1101).confirmed, phases(store)) == (1, {"IP-0": "done"})
    assert faults(store) == ()


def test_saying_it_again_holds_the_device_no_longer(store: Store) -> None:
    begin(store, plan(lease=600), 1)
    lease = must(store, "a")
    assert say(store, lease, OK, now=T0) == (True, Phase.CLAIMED)
    assert say(store, lease, OK, now=T0 + 500) == (False, Phase.CLAIMED)
    assert move(store, T0 + 600).expired == 1


@pytest.mark.parametrize("fields", [{"confirmed": False}, {"manifest_digest": b"\x44" * 32}, {"model": "other"}])
def test_evidence_is_of_that_model_on_that_release_confirmed(store: Store, fields: dict[str, Any]) -> None:
    begin(store, plan(), 1)
    lease = must(store, "a")
    with store.begin() as conn:
        sign(conn, "IP-0", **fields)
    assert say(store, lease, OK) == (True, Phase.CLAIMED)
    assert move(store).confirmed == 0


def test_evidence_goes_before_the_word_of_a_bench(store: Store) -> None:
    begin(store, plan(tries=1), 2)
    lost, late = must(store, "a"), must(store, "b")
    with store.begin() as conn:
        sign(conn, lost.serial)
    assert say(store, lost, FAILED, "link.timeout") == (True, Phase.DONE)
    assert say(store, late, REFUSED, "device.battery") == (True, Phase.REFUSED)
    with store.begin() as conn:
        sign(conn, late.serial)
    assert move(store).confirmed == 1
    assert set(phases(store).values()) == {"done"}
    assert faults(store) == ()


def test_a_lease_that_is_given_back_is_no_try(store: Store) -> None:
    begin(store, plan(), 1)
    lease = must(store, "a")
    with store.begin() as conn:
        assert give_back(conn, lease)
        assert not give_back(conn, lease)
    with store.read() as conn:
        assert conn.execute(select(members.c.tries, members.c.lease)).one() == (0, None)
    assert must(store, "b").serial == "IP-0"


def test_a_lease_whose_outcome_is_said_is_not_given_back(store: Store) -> None:
    begin(store, plan(), 1)
    lease = must(store, "a")
    say(store, lease, OK)
    with store.begin() as conn:
        assert not give_back(conn, lease)
    assert phases(store) == {"IP-0": "claimed"}
    assert faults(store) == ()


@pytest.mark.parametrize(("what", "code"), [(Order.PAUSE, "campaign.stopped"), (Order.STOP, "campaign.stopped")])
def test_a_campaign_that_does_not_run_hands_out_nothing(store: Store, what: Order, code: str) -> None:
    begin(store, plan(), 2)
    lease = must(store, "a")
    with store.begin() as conn:
        order(conn, "c", what, "x", T0, "why")
    assert refusal(store, claim, "c", "tess", T0, "b") == code
    assert say(store, lease, FAILED, "link.timeout")[0]
    if what is Order.PAUSE:
        with store.begin() as conn:
            order(conn, "c", Order.START, "x", T0)
        assert take(store, "b") is not None
    else:
        move(store)
        assert set(phases(store).values()) == {"skipped"}
        assert faults(store) == ()


def test_what_is_under_way_at_the_stop_still_ends_by_its_evidence(store: Store) -> None:
    begin(store, plan(lease=600), 2)
    lease = must(store, "a")
    with store.begin() as conn:
        order(conn, "c", Order.STOP, "x", T0, "why")
        assert running(conn) == ["c"]
        sign(conn, lease.serial)
    assert say(store, lease, OK, now=T0 + 9) == (True, Phase.DONE)
    assert phases(store) == {"IP-0": "done", "IP-1": "skipped"}
    with store.read() as conn:
        assert running(conn) == []


def test_outside_its_hours_it_hands_out_nothing(store: Store) -> None:
    text = '[campaign]\nname = "c"\nmodel = "insulin-pump"\nrelease = "f"\n[[ring]]\nname = "r"\n'
    begin(store, parse_plan((text + '[window]\nzone = "UTC"\nhours = ["22:00-23:00"]').encode()), 1)
    day = T0 // 86_400 * 86_400
    assert refusal(store, claim, "c", "tess", day + 21 * 3600, "a") == "campaign.window"
    assert take(store, "a", day + 22 * 3600) is not None


def test_failures_stop_it(store: Store) -> None:
    begin(store, plan(tries=1, stop=StopRule(failures=Limit(count=2))), 5)
    say(store, must(store, "a"), FAILED, "link.timeout")
    assert move(store).stopped is None
    say(store, must(store, "b"), FAILED, "link.timeout")
    moved = move(store)
    assert (moved.state, moved.stopped) == (State.STOPPED, "2 failures of 5 devices, the limit is 2")
    assert sorted(phases(store).values()) == ["failed", "failed", "skipped", "skipped", "skipped"]
    with store.read() as conn:
        assert load(conn, "c").reason == moved.stopped
    assert faults(store) == ()


def test_a_share_is_of_the_open_rings(store: Store) -> None:
    rings = (Ring("a", share=20), Ring("b"))
    begin(store, plan(*rings, tries=1, stop=StopRule(refusals=Limit(percent=50))), 10)
    say(store, must(store, "a"), REFUSED, "device.changed")
    assert move(store).stopped == "1 refusals of 2 devices, the limit is 50%"


@pytest.mark.parametrize(
    ("rule", "serial", "is_open", "stops"),
    [
        (StopRule(incidents=Limit(count=1)), "IP-0", False, True),
        (StopRule(incidents=Limit(count=1)), "elsewhere", True, False),
        (StopRule(kinds=frozenset({"burst"})), None, True, True),
        (StopRule(kinds=frozenset({"burst"})), "IP-0", False, False),
        (StopRule(kinds=frozenset({"night"})), "IP-0", True, False),
    ],
)
def test_incidents_stop_it(store: Store, rule: StopRule, serial: str | None, is_open: bool, stops: bool) -> None:
    begin(store, plan(stop=rule), 2)
    with store.begin() as conn:
        raise_incident(conn, serial, is_open=is_open)
    assert (move(store).state is State.STOPPED) is stops


def test_a_person_opens_a_ring(store: Store) -> None:
    begin(store, plan(Ring("a", serials=frozenset({"IP-0"})), Ring("b")), 2)
    must(store, "a")
    assert take(store, "b") is None
    assert refusal(store, open_by_hand, "c", "a", "x", T0) == "campaign.rings"
    with store.begin() as conn:
        assert open_by_hand(conn, "c", "b", "x", T0) == "b"
        assert open_rings(conn, "c") == [0, 1]
    assert must(store, "b").serial == "IP-1"
    assert refusal(store, open_by_hand, "c", None, "x", T0) == "campaign.rings"


def test_a_bench_takes_the_devices_of_its_site(store: Store) -> None:
    begin(store, plan(), 4)
    with store.begin() as conn:
        conn.execute(members.update().where(members.c.serial == "IP-2").values(site="ward-1,ward-10"))
    found = [take(store, token, site="ward-1") for token in "abcd"]
    assert [None if one is None else one.serial for one in found] == ["IP-1", "IP-2", "IP-3", None]
    for strange in ("ward", "%", "ward_0", ",", "0"):
        assert take(store, "e", site=strange) is None
    assert must(store, "f", serial="IP-0").serial == "IP-0"


def test_a_device_that_is_left_out(store: Store) -> None:
    begin(store, plan(), 2)
    lease = must(store, "a")
    with store.begin() as conn:
        skip(conn, "c", "IP-1", T0)
    assert refusal(store, skip, "c", lease.serial, T0) == "campaign.order"
    assert refusal(store, skip, "c", "IP-9", T0) == "campaign.unknown"
    assert phases(store)["IP-1"] == "skipped"
    assert faults(store) == ()


def test_a_device_waits_in_one_campaign_at_a_time(store: Store) -> None:
    begin(store, plan(), 2)
    with store.begin() as conn:
        create(conn, plan(name="d"), GOAL, inventory(conn, PUMP), "x", T0)
    assert refusal(store, order, "d", Order.START, "x", T0) == "campaign.overlap"
    with store.begin() as conn:
        order(conn, "c", Order.STOP, "x", T0, "why")
        order(conn, "d", Order.START, "x", T0)


def test_an_outcome_for_nobody_is_refused(store: Store) -> None:
    begin(store, plan(), 1)
    assert refusal(store, deliver, Lease("c", "IP-9", "a", "x", T0), OK, None, T0) == "campaign.unknown"
    assert refusal(store, deliver, Lease("d", "IP-0", "a", "x", T0), OK, None, T0) == "campaign.unknown"


def test_the_report_sees_a_row_that_is_gone(store: Store) -> None:
    begin(store, plan(), 3)
    with store.begin() as conn:
        conn.execute(delete(members).where(members.c.serial == "IP-1"))
    assert faults(store) == ("2 devices, it began with 3",)


def test_the_ledgers_rows_may_be_made_again(store: Store) -> None:
    begin(store, plan(), 2)
    with store.begin() as conn:
        conn.execute(delete(devices))
        settle(conn, 2)
    assert must(store, "a").serial == "IP-0"


def test_benches_at_once_never_hold_the_same_device(store: Store) -> None:
    begin(store, plan(), 24)
    found: list[str] = []
    lock = threading.Lock()

    def bench(number: int) -> None:
        for turn in range(30):
            lease = store.run(lambda conn, turn=turn: claim(conn, "c", "x", T0, f"{number}/{turn}"))
            if lease is None:
                return
            with lock:
                found.append(lease.serial)

    threads = [threading.Thread(target=bench, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=60)
    assert sorted(found) == sorted(f"IP-{number}" for number in range(24))


def test_duplicates_at_once_count_once(store: Store) -> None:
    begin(store, plan(tries=5), 1)
    lease = must(store, "a")
    found: list[bool] = []

    def bench() -> None:
        found.append(store.run(lambda conn: deliver(conn, lease, FAILED, "link.timeout", T0)).counted)

    threads = [threading.Thread(target=bench) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=60)
    assert sorted(found) == [False, False, False, True]
    assert faults(store) == ()


def test_a_group_goes_by_the_clock_of_its_database(store: Store) -> None:
    with store.read() as conn:
        found = moment(conn, 7)
    assert found == 7 if store.dialect == "sqlite" else abs(found - time.time()) < 300


@functools.cache
def begun() -> Path:
    """The file of a store with a running campaign, made once."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Store.open(sqlite_url(folder / "one")) as store:
        begin(store, plan(tries=2, lease=600), 4)
        with store.read() as conn:
            conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "one"


class Benches(RuleBasedStateMachine):
    """Three benches, four devices, anything at any time: every step leaves figures that add up, nobody is held twice,
    and a device is done if and only if it signed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(sqlite_url(Path(shutil.copy(begun(), self.folder.name))))
        self.now, self.leases, self.signed = T0, [], set[str]()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def act(self, work: Any, *arguments: Any) -> Any:
        """One transaction; that a campaign does not run, or a device is not due, is an answer."""
        code, found = None, None
        try:
            with self.store.begin() as conn:
                found = work(conn, *arguments)
        except Refused as error:
            code = error.code
        assert code in (None, "campaign.stopped", "campaign.order")
        return found

    @rule(serial=st.none() | st.sampled_from(["IP-0", "IP-3"]))
    def claim(self, serial: str | None) -> None:
        token = f"t{len(self.leases)}"
        lease = self.act(lambda conn: claim(conn, "c", "x", self.now, token, serial=serial))
        if lease is not None:
            held = [one for one in self.leases if one.serial == lease.serial and one.until > self.now]
            assert not held or held[-1].token in self.settled()
            self.leases.append(lease)

    def settled(self) -> set[str]:
        """Leases that nobody holds any more."""
        with self.store.read() as conn:
            running_now = set(conn.execute(select(members.c.lease)).scalars())
        return {one.token for one in self.leases} - running_now

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def say(self, data: st.DataObject, outcome: Outcome) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.act(deliver, lease, outcome, None if outcome is OK else "link.timeout", self.now)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.act(give_back, data.draw(st.sampled_from(self.leases)))

    @rule(number=st.integers(0, 3))
    def sign(self, number: int) -> None:
        self.act(sign, f"IP-{number}")
        self.signed.add(f"IP-{number}")

    @rule(seconds=st.sampled_from([1, 300, 600]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(what=st.sampled_from([Order.PAUSE, Order.START]))
    def order(self, what: Order) -> None:
        self.act(order, "c", what, "x", self.now)

    @rule(number=st.integers(0, 3))
    def leave_out(self, number: int) -> None:
        self.act(skip, "c", f"IP-{number}", self.now)

    @invariant()
    def adds_up(self) -> None:
        move(self.store, self.now)
        assert faults(self.store) == ()
        done = {serial for serial, phase in phases(self.store).items() if phase == "done"}
        assert done == self.signed


TestBenches = Benches.TestCase
TestBenches.settings = settings(max_examples=10, stateful_step_count=16, deadline=None)


def test_the_tables_go_and_come_and_a_rebuilt_ledger_leaves_them_alone(store: Store) -> None:
    begin(store, plan(), 2)
    must(store, "a")
    rebuild(store)
    assert phases(store) == {"IP-0": "claimed", "IP-1": "due"}
    migrate(store, "0001")
    with store.read() as conn:
        assert not set(inspect(conn).get_table_names()) & {table.name for table in TABLES}
        assert set(inspect(conn).get_table_names()) >= {"devices", "records"}
    migrate(store)
    with store.begin() as conn:
        settle(conn, 2)
        create(conn, plan(), GOAL, inventory(conn, PUMP), "x", T0)
    assert phases(store) == {"IP-0": "due", "IP-1": "due"}


def test_the_revision_makes_the_tables_that_are_meant(store: Store) -> None:
    with store.read() as conn:
        for table in TABLES:
            made = {one["name"]: one["nullable"] for one in inspect(conn).get_columns(table.name)}
            assert made == {column.name: column.nullable for column in table.columns}
            keys = inspect(conn).get_pk_constraint(table.name)["constrained_columns"]
            assert keys == [column.name for column in table.primary_key]
            found = {one["name"] for one in inspect(conn).get_indexes(table.name)}
            assert found == {one.name for one in table.indexes}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", '{"campaign": 1}'])
def test_a_kept_plan_that_is_damaged_is_told_by_its_code(store: Store, text: str) -> None:
    begin(store, plan(), 1)
    with store.begin() as conn:
        conn.execute(update(campaigns).values(plan=text))
    assert refusal(store, claim, "c", "x", T0, "a") == "campaign.malformed"

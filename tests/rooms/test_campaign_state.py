"""What moves campaigns, devices and rings; what stops them. The tables, and machines that walk them."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from campaign_support import T0, by_itself, plan
from devguard.campaign.plan import Limit, Ring, StopRule
from devguard.campaign.plan_file import parse_plan
from devguard.campaign.state import (
    CAMPAIGN,
    DEVICE,
    ENDS,
    Event,
    Facts,
    Order,
    Outcome,
    Phase,
    RingFacts,
    State,
    becomes,
    event_of,
    may_hand_out,
    moved,
    opened_by_hand,
    opens,
    outcome_of,
    trips,
)
from devguard.errors import CODES, Refused


def refusal(act: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as caught:
        act(*arguments)
    return caught.value.code


def test_a_campaign_that_is_over_takes_no_order() -> None:
    for state, what in itertools.product((State.STOPPED, State.FINISHED), Order):
        assert refusal(moved, state, what) == "campaign.order"


def test_only_what_the_table_says_moves_a_campaign() -> None:
    for state, what in itertools.product(State, Order):
        if (state, what) in CAMPAIGN:
            assert moved(state, what) is CAMPAIGN[state, what]
        else:
            assert refusal(moved, state, what) == "campaign.order"
    assert moved(State.DRAFT, Order.START) is State.RUNNING
    assert moved(State.RUNNING, Order.TRIP) is State.STOPPED


def test_what_a_device_signed_goes_before_every_word() -> None:
    assert {becomes(phase, Event.CONFIRM) for phase in Phase} == {Phase.DONE}
    assert {event for phase, event in DEVICE if phase is Phase.DONE} == {Event.CONFIRM}


def test_no_word_of_a_bench_makes_a_device_done() -> None:
    assert {event for (_, event), after in DEVICE.items() if after is Phase.DONE} == {Event.CONFIRM}


def test_only_a_device_that_is_due_is_handed_out_or_left_out() -> None:
    for event in (Event.CLAIM, Event.SKIP):
        assert [phase for phase in Phase if becomes(phase, event) is not None] == [Phase.DUE]


@pytest.mark.parametrize(
    ("outcome", "failures", "event"),
    [
        (Outcome.CONFIRMED, 9, Event.CONFIRM),
        (Outcome.REFUSED, 0, Event.REFUSE),
        (Outcome.FAILED, 1, Event.FAIL),
        (Outcome.FAILED, 2, Event.FAIL_FOR_GOOD),
    ],
)
def test_the_last_failure_counts(outcome: Outcome, failures: int, event: Event) -> None:
    assert event_of(outcome, failures, 2) is event


ONE = StopRule(incidents=Limit(count=1))
HALF = StopRule(refusals=Limit(percent=50))
BURST = StopRule(kinds=frozenset({"burst"}))


@pytest.mark.parametrize(
    ("rule", "facts", "why"),
    [
        (StopRule(), Facts(1, {Phase.FAILED: 1, Phase.REFUSED: 9}, 9, frozenset({"burst"})), None),
        (StopRule(failures=Limit(count=2)), Facts(10, {Phase.FAILED: 1}), None),
        (StopRule(failures=Limit(count=2)), Facts(10, {Phase.FAILED: 2}), "2 failures of 10 devices, the limit is 2"),
        (HALF, Facts(4, {Phase.REFUSED: 1}), None),
        (HALF, Facts(4, {Phase.REFUSED: 2}), "2 refusals of 4 devices, the limit is 50%"),
        (ONE, Facts(4, {}, 1), "1 incidents of 4 devices, the limit is 1"),
        (BURST, Facts(4, {}, 0, frozenset({"night"})), None),
        (BURST, Facts(4, {}, 0, frozenset({"burst"})), "an incident of kind burst is open"),
    ],
)
def test_what_stops_a_campaign(rule: StopRule, facts: Facts, why: str | None) -> None:
    assert trips(rule, facts) == why


def test_a_ring_opens_after_so_many_and_so_long() -> None:
    whole = plan(Ring("a"), by_itself("b", 2, 60), by_itself("c", 1, 0))
    first = RingFacts(T0, 3, (T0 + 1, T0 + 5))
    closed = RingFacts(None, 4)
    assert opens(whole, [RingFacts(None, 3), closed, closed], T0 + 999) is None
    assert opens(whole, [RingFacts(T0, 3, (T0 + 1,)), closed, closed], T0 + 999) is None
    assert opens(whole, [first, closed, closed], T0 + 64) is None
    assert opens(whole, [first, closed, closed], T0 + 65) == 1
    assert opens(whole, [first, RingFacts(T0 + 65, 4), closed], T0 + 999) is None
    assert opens(whole, [first, RingFacts(T0 + 65, 4, (T0 + 70,)), closed], T0 + 70) == 2
    assert opens(whole, [first, RingFacts(T0, 4, (T0,)), RingFacts(T0, 1)], T0 + 999) is None


def test_a_small_ring_is_enough_when_all_of_it_is_confirmed() -> None:
    whole = plan(Ring("a"), by_itself("b", 10, 60))
    assert opens(whole, [RingFacts(T0, 1, (T0 + 1,)), RingFacts(None, 4)], T0 + 61) == 1
    assert opens(whole, [RingFacts(T0, 0), RingFacts(None, 4)], T0 + 60) == 1
    assert opens(whole, [RingFacts(T0, 0), RingFacts(None, 4)], T0 + 59) is None


def test_a_ring_that_a_person_opens_does_not_open_by_itself() -> None:
    assert opens(plan(Ring("a"), Ring("b")), [RingFacts(T0, 1, (T0,)), RingFacts(None, 1)], T0 + 9**9) is None


def test_a_person_opens_the_next_ring_and_no_other() -> None:
    whole = plan(Ring("a"), Ring("b"), Ring("c"))
    rings = [RingFacts(T0, 1), RingFacts(None, 1), RingFacts(None, 1)]
    assert opened_by_hand(whole, rings, None) == opened_by_hand(whole, rings, "b") == 1
    for name in ("a", "c", "nobody"):
        assert refusal(opened_by_hand, whole, rings, name) == "campaign.rings"
    assert refusal(opened_by_hand, whole, [RingFacts(T0, 1)] * 3, None) == "campaign.rings"


def test_only_a_running_campaign_in_its_hours_hands_out() -> None:
    may_hand_out("c", State.RUNNING, plan(), T0)
    for state in State:
        if state is not State.RUNNING:
            assert refusal(may_hand_out, "c", state, plan(), T0) == "campaign.stopped"
    text = '[campaign]\nname = "c"\nmodel = "m"\nrelease = "f"\n[[ring]]\nname = "r"\n'
    one = parse_plan((text + '[window]\nzone = "UTC"\nhours = ["22:00-23:00"]').encode())
    assert refusal(may_hand_out, "c", State.RUNNING, one, 21 * 3600) == "campaign.window"
    may_hand_out("c", State.RUNNING, one, 22 * 3600)


@pytest.mark.parametrize(
    ("code", "by_device", "outcome"),
    [
        ("version.current", True, Outcome.CONFIRMED),
        ("link.timeout", False, Outcome.FAILED),
        ("device.therapy-active", True, Outcome.FAILED),
        ("grant.replay", True, Outcome.REFUSED),
        ("device.changed", False, Outcome.REFUSED),
        ("version.rollback", False, Outcome.REFUSED),
        ("grant.expired", False, None),
        ("key.passphrase", False, None),
        ("log.full", False, None),
        ("incident.open", False, None),
        ("future.code", True, Outcome.REFUSED),
    ],
)
def test_what_a_refusal_says_of_the_device(code: str, by_device: bool, outcome: Outcome | None) -> None:
    assert outcome_of(code, met=True, by_device=by_device) is outcome
    assert outcome_of(code, met=False, by_device=by_device) is None
    assert code in CODES or code.startswith("future")


class Device(RuleBasedStateMachine):
    """A device between benches, leases and evidence: it ends once, and only what it signed changes an end."""

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.ended_as, self.signed = Phase.DUE, None, False

    @rule(event=st.sampled_from([event for event in Event if event is not Event.CONFIRM]))
    def hear(self, event: Event) -> None:
        after = becomes(self.phase, event)
        if self.phase in ENDS:
            assert after is None
        self.phase = after or self.phase

    @rule()
    def sign(self) -> None:
        self.signed, self.phase = True, becomes(self.phase, Event.CONFIRM) or self.phase

    @precondition(lambda self: self.signed)
    @invariant()
    def signed_is_done(self) -> None:
        assert self.phase is Phase.DONE

    @invariant()
    def done_is_signed(self) -> None:
        assert self.signed or self.phase is not Phase.DONE


TestDevice = Device.TestCase


@given(st.lists(st.sampled_from(Order), max_size=12))
def test_no_orders_bring_a_campaign_back_that_is_over(orders: list[Order]) -> None:
    state = State.DRAFT
    for what in orders:
        before = state
        with contextlib.suppress(Refused):
            state = moved(state, what)
            assert before not in (State.STOPPED, State.FINISHED)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 300), st.integers(0, 120))
def test_rings_open_one_after_the_other_and_never_back(sizes: list[int], now: int, wait: int) -> None:
    whole = plan(Ring("r0"), *(by_itself(f"r{at}", 1, wait) for at in range(1, len(sizes))))
    rings = [RingFacts(T0 if at == 0 else None, size, tuple(range(T0, T0 + size))) for at, size in enumerate(sizes)]
    seen = []
    while (number := opens(whole, rings, T0 + now)) is not None:
        seen.append(number)
        assert rings[number].opened is None
        rings[number] = RingFacts(T0 + now, sizes[number], rings[number].confirmed_at)
    assert seen == list(range(1, len(seen) + 1))

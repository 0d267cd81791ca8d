"""What a campaign and each of its devices may become, as tables, and what moves them. Pure: facts and time are given.

A worker's word moves a device to failed or refused; only what the device signed moves it to done, and it does so
whatever was said before. A device that is done stays done.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from devguard.campaign.plan import Plan, StopRule
from devguard.errors import Refused


class State(enum.StrEnum):
    """Of a campaign."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FINISHED = "finished"


class Order(enum.StrEnum):
    """What moves a campaign: a person's start, pause and stop; its stop rule; the end of its last device."""

    START = "start"
    PAUSE = "pause"
    STOP = "stop"
    TRIP = "trip"
    FINISH = "finish"


CAMPAIGN: Final[Mapping[tuple[State, Order], State]] = {
    (State.DRAFT, Order.START): State.RUNNING,
    (State.DRAFT, Order.STOP): State.STOPPED,
    (State.RUNNING, Order.PAUSE): State.PAUSED,
    (State.RUNNING, Order.STOP): State.STOPPED,
    (State.RUNNING, Order.TRIP): State.STOPPED,
    (State.RUNNING, Order.FINISH): State.FINISHED,
    (State.PAUSED, Order.START): State.RUNNING,
    (State.PAUSED, Order.STOP): State.STOPPED,
}


class Phase(enum.StrEnum):
    """Of a device in a campaign."""

    DUE = "due"
    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    SKIPPED = "skipped"


ENDS: Final = frozenset({Phase.DONE, Phase.FAILED, Phase.REFUSED, Phase.SKIPPED})


class Event(enum.StrEnum):
    """What happens to a device: claimed by a bench, its lease given back or run out; a failure with tries left and one
    with none, a refusal; a person who leaves it out, or the campaign's end; its own signed word that it runs the
    release, confirmed."""

    CLAIM = "claim"
    GIVE_BACK = "give-back"
    LEASE_OVER = "lease-over"
    FAIL = "fail"
    FAIL_FOR_GOOD = "fail-for-good"
    REFUSE = "refuse"
    SKIP = "skip"
    CONFIRM = "confirm"


DEVICE: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.DUE, Event.CLAIM): Phase.CLAIMED,
    (Phase.CLAIMED, Event.GIVE_BACK): Phase.DUE,
    (Phase.CLAIMED, Event.LEASE_OVER): Phase.DUE,
    (Phase.CLAIMED, Event.FAIL): Phase.DUE,
    (Phase.CLAIMED, Event.FAIL_FOR_GOOD): Phase.FAILED,
    (Phase.CLAIMED, Event.REFUSE): Phase.REFUSED,
    (Phase.DUE, Event.SKIP): Phase.SKIPPED,
    **{(phase, Event.CONFIRM): Phase.DONE for phase in Phase},
}


class Outcome(enum.StrEnum):
    """What a bench says became of a device."""

    CONFIRMED = "confirmed"
    FAILED = "failed"
    REFUSED = "refused"


def moved(state: State, order: Order) -> State:
    """The state after an order; `Refused("campaign.order")` where that order is none there."""
    after = CAMPAIGN.get((state, order))
    if after is None:
        raise Refused("campaign.order", f"a campaign that is {state} takes no {order}")
    return after


def becomes(phase: Phase, event: Event) -> Phase | None:
    """The phase of a device after an event; None where that event changes nothing."""
    return DEVICE.get((phase, event))


def event_of(outcome: Outcome, failures: int, most: int) -> Event:
    """The event that an outcome is on a device that failed `failures` times, this one counted, of `most`."""
    if outcome is Outcome.CONFIRMED:
        return Event.CONFIRM
    if outcome is Outcome.REFUSED:
        return Event.REFUSE
    return Event.FAIL_FOR_GOOD if failures >= most else Event.FAIL


@dataclass(frozen=True, slots=True)
class Facts:
    """What a campaign is judged by. devices: in open rings; incidents: about its devices since its start; blocking:
    kinds of incidents that are open anywhere."""

    devices: int = 0
    counts: Mapping[Phase, int] = field(default_factory=dict)
    incidents: int = 0
    blocking: frozenset[str] = frozenset()

    @property
    def ended(self) -> int:
        """How many devices have reached an end."""
        return sum(self.counts.get(phase, 0) for phase in ENDS)


def trips(rule: StopRule, facts: Facts) -> str | None:
    """Why the rule stops a campaign, None where it does not."""
    kinds = sorted(rule.kinds & facts.blocking)
    if kinds:
        return f"an incident of kind {kinds[0]} is open"
    found = (
        ("failures", rule.failures, facts.counts.get(Phase.FAILED, 0)),
        ("refusals", rule.refusals, facts.counts.get(Phase.REFUSED, 0)),
        ("incidents", rule.incidents, facts.incidents),
    )
    for what, limit, count in found:
        if limit is not None and limit.reached(count, facts.devices):
            return f"{count} {what} of {facts.devices} devices, the limit is {limit}"
    return None


@dataclass(frozen=True, slots=True)
class RingFacts:
    """A ring as it stands. opened: epoch seconds; confirmed_at: when its devices were confirmed, oldest first;
    devices: all of it."""

    opened: int | None
    devices: int
    confirmed_at: tuple[int, ...] = ()


def opens(plan: Plan, rings: Sequence[RingFacts], now: int) -> int | None:
    """The number of the ring that opens by itself at `now`; one at most, and never one past a closed one.

    A ring with fewer devices than are asked for is enough when all of them are confirmed.
    """
    number = next((at for at, ring in enumerate(rings) if ring.opened is None), None)
    if number is None or number == 0:
        return None
    opening, before = plan.rings[number].opening, rings[number - 1]
    if opening is None:
        return None
    asked = min(opening.confirmed, before.devices)
    if len(before.confirmed_at) < asked:
        return None
    since = before.confirmed_at[asked - 1] if asked else before.opened
    return number if since is not None and now >= since + opening.wait else None


def opened_by_hand(plan: Plan, rings: Sequence[RingFacts], name: str | None) -> int:
    """The number of the ring that a person opens: the next, which `name` may say.

    Raises `Refused("campaign.rings")` for one that is unknown, open, or behind a closed one.
    """
    number = next((at for at, ring in enumerate(rings) if ring.opened is None), None)
    if number is None:
        raise Refused("campaign.rings", "every ring is open")
    if name is not None and name not in [ring.name for ring in plan.rings]:
        raise Refused("campaign.rings", f"there is no ring {name!r}")
    if name is not None and plan.rings[number].name != name:
        raise Refused("campaign.rings", f"the next ring is {plan.rings[number].name!r}")
    return number


def may_hand_out(name: str, state: State, plan: Plan, now: int) -> None:
    """Return when a device may be handed out now.

    Raises `Refused`: `campaign.stopped` for a campaign that does not run, `campaign.window` outside its hours.
    """
    if state is not State.RUNNING:
        raise Refused("campaign.stopped", f"campaign {name} is {state}; it hands out no device")
    if plan.window is not None and not plan.window.is_open(now):
        raise Refused("campaign.window", f"campaign {name} is pushed {plan.window}, and at no other time")


_LATER: Final = frozenset(
    {"device.busy", "device.therapy-active", "device.battery", "device.charging", "device.alarm", "device.unconfirmed"}
)
_DEVICE_ROOMS: Final = ("device.", "image.", "packet.", "session.", "version.")
_RUNS_IT: Final = "version.current"


def outcome_of(code: str, *, met: bool, by_device: bool) -> Outcome | None:
    """What a refused push says of its device; None where it says nothing of it: the bench, the grant or the release.

    met: it was that very device, proven. by_device: the far end said no. One that is busy or treats somebody is tried
    again, and so is a lost line; one that says it runs the release already is looked up in the evidence.
    """
    if not met:
        return None
    if code == _RUNS_IT:
        return Outcome.CONFIRMED
    if code in _LATER or code.startswith("link."):
        return Outcome.FAILED
    if by_device or code.startswith(_DEVICE_ROOMS):
        return Outcome.REFUSED
    return None

"""The figures of a campaign, and that each fault in them is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devguard.campaign.report import Member, Said, add_up
from devguard.campaign.state import Outcome, Phase, State

DONE = Member("IP-0", 0, None, Phase.DONE, 1, False, None, 9, b"\x01" * 32)
FAILED = Member("IP-1", 1, "w", Phase.FAILED, 2, False, "link.timeout", 9, None)
LEFT = Member("IP-2", 1, None, Phase.SKIPPED, 0, False, "campaign.stopped", 9, None)
SAID = [
    Said("a", "IP-0", Outcome.CONFIRMED, None, "x", 1, True),
    Said("b", "IP-1", Outcome.FAILED, "link.timeout", "x", 1, True),
    Said("c", "IP-1", Outcome.FAILED, "link.timeout", "x", 2, True),
    Said("d", "IP-1", Outcome.FAILED, "link.port", "y", 3, False),
]
ALL = [DONE, FAILED, LEFT]


def faults(
    members: list[Member], said: list[Said], expected: int = 3, state: State = State.FINISHED
) -> tuple[str, ...]:
    return add_up(state, members, said, expected).faults


def test_what_adds_up() -> None:
    found = add_up(State.FINISHED, ALL, SAID, 3).to_json(["bench", "all"])
    assert found["adds_up"]
    assert found["phases"] == {"due": 0, "claimed": 0, "done": 1, "failed": 1, "refused": 0, "skipped": 1}
    assert [ring["done"] for ring in found["rings"]] == [1, 0]
    assert found["codes"] == {"campaign.stopped": 1, "link.timeout": 1}
    assert found["outcomes"] == {"counted": 3, "late": 1}
    assert (
        sum(found["phases"].values()) == sum(sum(v for k, v in r.items() if k != "name") for r in found["rings"]) == 3
    )


def member(one: Member, **fields: Any) -> list[Member]:
    return [replace(each, **fields) if each is one else each for each in ALL]


@pytest.mark.parametrize(
    ("members", "said", "fault"),
    [
        (ALL[:2], SAID, "2 devices, it began with 3"),
        ([DONE, FAILED, replace(LEFT, serial="IP-0")], SAID, "device IP-0 is counted 2 times"),
        (member(LEFT, phase=Phase.DUE, ended=None), SAID, "device IP-2 is due after the end"),
        (ALL, [*SAID, SAID[0]], "lease a has 2 outcomes"),
        (member(DONE, evidence=None), SAID, "device IP-0 is done, and evidence says otherwise"),
        (member(FAILED, evidence=b"x"), SAID, "device IP-1 is failed, and evidence says otherwise"),
        (member(FAILED, ended=None), SAID, "device IP-1 is failed, and its time says otherwise"),
        (member(FAILED, leased=True), SAID, "device IP-1 is failed, and its lease says otherwise"),
        (member(FAILED, tries=1), SAID, "device IP-1 has 2 outcomes of 1 leases"),
        (ALL, [SAID[0], SAID[3]], "device IP-1 is failed, and no bench said so"),
        (member(FAILED, phase=Phase.REFUSED), SAID, "device IP-1 is refused, and no bench said so"),
    ],
)
def test_what_does_not_add_up_is_named(members: list[Member], said: list[Said], fault: str) -> None:
    assert fault in faults(members, said)


def test_a_campaign_that_runs_may_have_devices_that_wait() -> None:
    waits = [replace(LEFT, phase=Phase.DUE, ended=None, code=None), DONE, FAILED]
    assert faults(waits, SAID, state=State.RUNNING) == ()

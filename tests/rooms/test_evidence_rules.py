"""Rules over records: each kind at its edge, once in a window, no storm; and incidents read back from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.evidence.incident import clocks, gather
from devguard.evidence.record import DigestOf, Record
from devguard.evidence.rules import ASKED, BURST, MANY, OPEN, Hours, Kind, find, may_matter

DAY = 86_400
GRANT = {DigestOf.GRANT: b"g" * 32}


def rec(time: int, code: str | None = None, **fields: object) -> Record:
    given = {"time": time, "actor": "Tess", "action": "release.push", "request": f"r{time}", "code": code, **fields}
    return Record(**given)  # type: ignore[arg-type] # keywords of the test


def run(records: Sequence[Record], night: Hours | None = None) -> list[tuple[Kind, str]]:
    """What is raised as records come one by one, each incident put into the log at once as a station does."""
    log: list[Record] = []
    raised = []
    for record in records:
        log.append(record)
        recent = list(enumerate(log))
        for one in find(recent, night):
            raised.append((one.kind, one.subject))
            log.append(one.record(record.time))
    return raised


def refusals(count: int, apart: int = 10, code: str = "signature.invalid", **fields: object) -> list[Record]:
    return [rec(1000 + number * apart, code, **fields) for number in range(count)]


def test_a_burst_begins_with_the_fifth_refusal() -> None:
    assert run(refusals(BURST - 1)) == []
    assert run(refusals(BURST)) == [(Kind.BURST, "Tess")]


def test_a_burst_has_ten_minutes() -> None:
    assert run(refusals(BURST, apart=150)) == [(Kind.BURST, "Tess")]
    assert run(refusals(BURST, apart=151)) == []


def test_a_storm_is_one_incident_in_a_window() -> None:
    assert run(refusals(200, apart=2)) == [(Kind.BURST, "Tess")]
    assert len(run(refusals(1300, apart=2))) == 5  # 2600 seconds: one at once, one each ten minutes


def test_a_burst_on_one_device_by_several() -> None:
    rows = [replace(one, actor=f"T{number}", device="IP-1") for number, one in enumerate(refusals(BURST))]
    assert run(rows) == [(Kind.BURST, "IP-1")]
    assert run([replace(one, device=f"IP-{number}") for number, one in enumerate(rows)]) == []


@pytest.mark.parametrize("code", ["link.timeout", "file.missing", "internal.interrupted", "incident.open"])
def test_cables_and_paths_make_no_burst(code: str) -> None:
    assert run(refusals(40, code=code)) == []


def test_a_technician_outside() -> None:
    assert run([rec(1, "grant.scope", digests=GRANT)]) == [(Kind.OUTSIDE, "Tess")]
    assert run([rec(1, "grant.scope")]) == []  # an authority that may not give it is nobody at a device


def test_a_grant_tried_on_a_second_device() -> None:
    first = rec(1, digests=GRANT, device="IP-1")
    there = rec(2, "grant.replay", digests=GRANT, details={ASKED: "IP-2"})
    assert run([first, there]) == [(Kind.SECOND_DEVICE, "Tess")]
    assert run([first, rec(2, "grant.replay", digests=GRANT, device="IP-1")]) == []
    assert run([first, rec(2, digests=GRANT, device="IP-2")]) == []  # a wide grant, and nothing refused it
    assert run([first, replace(there, digests={DigestOf.GRANT: b"h" * 32})]) == []


def test_an_unknown_key() -> None:
    assert run([rec(1, "key.unknown", device="IP-1")]) == [(Kind.UNKNOWN_KEY, "IP-1")]
    assert run([rec(1, "key.unknown"), rec(2, "key.unknown")]) == [(Kind.UNKNOWN_KEY, "Tess")]


def test_a_device_that_vanished() -> None:
    begun = rec(1, action="release.push-begun", request="one", device="IP-1")
    gone = rec(9, "link.timeout", request="one", device="IP-1")
    assert run([begun, gone]) == [(Kind.VANISHED, "IP-1")]
    assert run([begun, replace(gone, request="two")]) == []
    assert run([begun, replace(gone, code="device.battery")]) == []


def test_many_devices() -> None:
    rows = [rec(n * 30, action="release.push-begun", device=f"IP-{n}") for n in range(40)]
    assert run(rows[: MANY - 1]) == []
    assert run(rows) == [(Kind.MANY_DEVICES, "Tess")]
    assert run([replace(one, actor=f"T{n}") for n, one in enumerate(rows)]) == []
    assert run([replace(one, time=n * 200) for n, one in enumerate(rows)]) == []


@pytest.mark.parametrize(
    ("start", "end", "minute", "inside"),
    [
        (1320, 360, 1320, True),
        (1320, 360, 180, True),
        (1320, 360, 360, False),
        (60, 120, 60, True),
        (60, 120, 120, False),
    ],
    ids=str,
)
def test_unusual_hours(start: int, end: int, minute: int, inside: bool) -> None:
    night = Hours(start, end, lambda time: time // 60 % 1440)
    rows = [rec(minute * 60, action="release.push-begun", device="IP-1")]
    assert run(rows, night) == ([(Kind.NIGHT, "Tess")] if inside else [])
    assert run(rows) == []


def test_most_records_need_no_look_back() -> None:
    assert not may_matter(rec(1))
    assert not may_matter(rec(1, "incident.unknown", action="incident.release"))
    assert may_matter(rec(1, action="release.push-begun"))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.sampled_from([None, "key.unknown", "grant.scope", "link.timeout", "grant.replay"]),
            st.sampled_from(["a", "b"]),
            st.sampled_from([None, "D1", "D2"]),
        ),
        max_size=40,
    )
)
def test_nothing_is_raised_twice_within_its_window(steps: list[tuple[int, str | None, str, str | None]]) -> None:
    log: list[Record] = []
    now, raised = 1000, []
    for apart, code, actor, device in steps:
        now += apart
        log.append(rec(now, code, actor=actor, device=device, digests=GRANT))
        found = find(list(enumerate(log)))
        for one in found:
            assert all(kind != one.kind or who != one.subject or now - at >= one.window for kind, who, at in raised)
            assert one.records[-1] == log.index(log[-1]) or one.records[-1] < len(log)
            log.append(one.record(now))
        raised += [(one.kind, one.subject, now) for one in found]


# incidents, read back


def opened(time: int = 100) -> Record:
    return Record.make(
        time=time, actor="devguard", action=OPEN, request="burst-4", details={"kind": "burst", "records": "1 3 x 9999"}
    )


def test_an_incident_is_what_its_records_say() -> None:
    release = rec(200, action="incident.release", request="burst-4", actor="Olga", details={"decision": "controlled"})
    refused = rec(150, "incident.unknown", action="incident.release", request="burst-4")
    one = gather([(5, opened()), (6, refused), (7, opened(900)), (8, release)])["burst-4"]
    assert (one.index, one.time, one.records, one.own) == (5, 100, (1, 3), (5, 7, 8))
    assert (one.open, one.decision, one.released) == (False, "controlled", (8, "Olga", 200))
    assert gather([(8, release)]) == {}


@pytest.mark.parametrize(
    ("day", "states"),
    [(0, ["running", "running"]), (26, ["soon", "running"]), (31, ["overdue", "running"]), (61, ["overdue"] * 2)],
    ids=["raised", "day-26", "day-31", "day-61"],
)
def test_the_clocks_of_thirty_and_sixty_days(day: int, states: list[str]) -> None:
    one = gather([(5, opened())])["burst-4"]
    assert [clock.state for clock in clocks(one, 100 + day * DAY)] == states
    assert [clock.due for clock in clocks(one, 0)] == [100 + 30 * DAY, 100 + 60 * DAY]
    assert {clock.state for clock in clocks(replace(one, decision="controlled"), 100 + day * DAY)} == {"stopped"}

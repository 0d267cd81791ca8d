"""A station's log against a device's: what is missing, forged, reordered or made up is told, what is honest is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.evidence.contradict import SESSIONS, About, about, contradictions
from devguard.evidence.device_log import START, DeviceEvent, DeviceLog
from devguard.evidence.record import DigestOf, Record

SERIAL = "IP-1"
GRANT = b"g" * 32


def session(number: int) -> bytes:
    return b"session".ljust(31, b".") + bytes((number,))


def event(number: int, *, grant: bytes = GRANT) -> DeviceEvent:
    return DeviceEvent(1000 + 10 * number, "session", None, session(number) + grant)


def device(count: int, *, kept: int | None = None) -> DeviceLog:
    """A device that had sessions 0 to count - 1, each followed by an event of another kind."""
    events = [
        one for number in range(count) for one in (event(number), DeviceEvent(1005 + 10 * number, "tick", None, b""))
    ]
    whole = DeviceLog("insulin-pump", SERIAL, 5000, len(events), START, tuple(events), bytes(16))
    if kept is None:
        return whole
    return replace(whole, base=whole.heads[-kept - 1], events=whole.events[-kept:])


def head(number: int) -> bytes:
    """The chain's head just after the session's own event."""
    return device(number + 1).heads[-2]


def row(number: int, *, time: int | None = None, **fields: object) -> Record:
    """The record of one session and of the report fetched in it."""
    given: dict[str, object] = {
        "time": 1000 + 10 * number if time is None else time,
        "actor": "Tess",
        "action": "device.report",
        "request": f"r-{number}",
        "device": SERIAL,
        "digests": {
            DigestOf.SESSION: session(number),
            DigestOf.DEVICE_HEAD: head(number),
            DigestOf.GRANT: GRANT,
        },
    }
    return Record(**{**given, **fields})  # type: ignore[arg-type] # keywords of the test


def found(records: list[Record], log: DeviceLog, *others: list[Record]) -> list[tuple[str, int | None]]:
    told = contradictions(about(records, SERIAL), log, [about(one, SERIAL) for one in others])
    assert all(one.serial == SERIAL and SERIAL in one.message for one in told)
    return [(one.code, one.since) for one in told]


HONEST = [row(number) for number in range(6)]


@pytest.mark.parametrize("kept", [None, 1, 2, 7, 12])
def test_an_honest_log_agrees(kept: int | None) -> None:
    assert found(HONEST, device(6, kept=kept)) == []
    assert found([], device(0)) == []


def test_a_log_read_before_the_last_records_is_not_older_than_the_truth() -> None:
    assert found(HONEST, device(3)) == []


@given(st.integers(1, 6))
def test_a_missing_tail_is_told_with_the_last_record_that_fits(length: int) -> None:
    assert found(HONEST[:length], device(7)) == [("log.truncated", length - 1)]


@given(st.integers(1, 4))
def test_a_hole_is_told_with_the_record_before_it(number: int) -> None:
    assert found([*HONEST[:number], *HONEST[number + 1 :]], device(6)) == [("log.tampered", number - 1)]


def test_a_log_that_knows_nothing_of_the_device_contradicts_it_from_its_beginning() -> None:
    others = [row(0, device="IP-2", time=90_000)]
    assert found(others, device(2)) == [("log.truncated", None)]
    assert found([], device(2)) == [("log.truncated", None)]


def test_what_lies_before_the_first_record_is_not_asked_for() -> None:
    assert found(HONEST[3:], device(6)) == []
    assert found([row(0, time=1005, digests={}), *HONEST[3:]], device(6)) == [
        ("log.tampered", None)
    ]  # sessions 1 and 2


def test_records_in_another_order_than_the_device_had_them() -> None:
    swapped = [HONEST[0], HONEST[2], HONEST[1], *HONEST[3:]]
    assert found(swapped, device(6)) == [("log.tampered", 1)]


def test_a_state_that_the_device_never_had() -> None:
    made_up = row(2, digests={DigestOf.SESSION: session(2), DigestOf.DEVICE_HEAD: b"x" * 32})
    assert found([*HONEST[:2], made_up, *HONEST[3:]], device(6)) == [("log.tampered", 1)]
    first = row(0, digests={DigestOf.SESSION: session(0), DigestOf.DEVICE_HEAD: b"x" * 32})
    assert found([first, *HONEST[1:]], device(6)) == [("log.tampered", None)]
    assert found([first, *HONEST[1:]], device(6, kept=8)) == []  # so far back the device does not remember


def test_sessions_that_one_command_names_together() -> None:
    several = row(3, details={SESSIONS: f"{session(1).hex()} {session(2).hex()} nonsense"})
    assert found([HONEST[0], several, *HONEST[4:]], device(6)) == []


def test_another_station_s_log_explains_its_sessions() -> None:
    mine, theirs = [HONEST[0], HONEST[2], HONEST[4]], [HONEST[1], HONEST[3], HONEST[5]]
    assert found(mine, device(6)) == [("log.tampered", 0), ("log.truncated", 2)]
    assert found(mine, device(6), theirs) == []


def test_a_command_that_was_cut_off_explains_three_sessions_and_no_more() -> None:
    begun = row(1, action="release.push-begun", digests={DigestOf.GRANT: GRANT})
    assert found([HONEST[0], begun], device(4)) == []
    assert found([HONEST[0], begun], device(5)) == [("log.truncated", 0)]
    other = replace(begun, digests={DigestOf.GRANT: b"o" * 32})
    assert found([HONEST[0], other], device(2)) == [("log.truncated", 0)]
    ended = row(1, action="release.push", code=None, digests={DigestOf.GRANT: GRANT})
    assert found([HONEST[0], begun, ended], device(2)) == [("log.truncated", 0)]
    lost = row(1, action="release.push", code="link.timeout", digests={DigestOf.GRANT: GRANT})
    assert found([HONEST[0], begun, lost], device(4)) == []


def test_events_of_devices_that_name_no_session_are_passed_over() -> None:
    old = DeviceLog(
        "m", SERIAL, 1, 2, START, (DeviceEvent(1, "session", None, b""), DeviceEvent(2, "x", None, b"")), bytes(16)
    )
    assert found(HONEST, old) == []
    assert about(HONEST, "IP-9") == About((), 1000)

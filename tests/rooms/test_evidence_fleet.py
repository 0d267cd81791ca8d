"""What runs where, folded from records; no key and no file in it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from devguard.evidence.fleet import DAY, PARTS, SEQUENCE, SUPPORTED, Fleet, Known, Lag
from devguard.evidence.record import Entry, Record, encode_record

PUMP = "insulin-pump"


@dataclass(frozen=True)
class Seen:
    serial: str
    version: str
    sequence: int
    model: str = PUMP
    manifest_digest: bytes | None = bytes(32)


def record(action: str, time: int, *, device: str | None = None, version: str | None = None, code: str | None = None,
           **details: str) -> Record:  # fmt: skip
    release = None if version is None else f"{PUMP} {version}"
    named = {name.replace("_", "-"): text for name, text in details.items()}
    return Record.make(time=time, actor="a", action=action, request="r", device=device, release=release, code=code,
                       details=named)  # fmt: skip


def fed(*records: Record) -> Fleet:
    found = Fleet()
    for index, one in enumerate(records):
        found.visit(Entry(index, bytes(64), encode_record(one)))
    return found


def test_names_of_details_are_those_of_docs() -> None:
    assert (SEQUENCE, SUPPORTED, PARTS) == ("sequence", "supported-until", "parts-supported-until")


def test_the_last_report_is_the_row_and_the_lag_counts_from_when_a_newer_release_was_first_known() -> None:
    found = fed(
        record("release.verify", 5 * DAY, version="1.1.0", sequence="2"),
        record("release.verify", 9 * DAY, version="1.1.0", sequence="2"),
        record("release.push", 8 * DAY, version="1.2.0", sequence="3", supported_until="77",
               parts_supported_until="66 zlib 1.3.1"),
        record("release.verify", 1, version="9.9.9", sequence="99", code="signature.invalid"),
    )  # fmt: skip
    found.reported(3, record("device.report", 1 * DAY), Seen("IP-1", "1.0.0", 1))
    found.reported(4, record("device.report", 2 * DAY), Seen("IP-2", "1.2.0", 3))
    one, two = found.devices["IP-1"], found.devices["IP-2"]
    assert (one.index, one.time) == (3, DAY)
    lag = found.lag(one, 20 * DAY)
    assert lag is not None
    assert (lag.newest.version, lag.versions, lag.days) == ("1.2.0", 2, 18)
    assert found.lag(two, 20 * DAY) is None
    running = found.running(two)
    assert running == Known(PUMP, "1.2.0", 3, 2 * DAY, 77, 66, "zlib 1.3.1")
    found.reported(5, record("device.report", 3 * DAY), Seen("IP-1", "1.2.0", 3))
    assert found.lag(found.devices["IP-1"], 20 * DAY) is None


def test_a_device_that_signed_nothing_has_a_row_without_a_release() -> None:
    found = fed(record("release.push-begun", 4, device="IP-9"), record("device.report", 6, device="IP-9", code="x.y"))
    (row,) = found.devices.values()
    assert (row.serial, row.index, row.time, row.report) == ("IP-9", 1, 6, None)
    assert found.running(row) is None
    assert found.lag(row, 10) is None


def test_sites_are_those_of_the_last_push_and_stay_with_later_reports() -> None:
    found = Fleet()
    found.visited("IP-1", ("nobody knows it",))
    found.reported(1, record("device.report", 1), Seen("IP-1", "1.0.0", 1))
    found.visited("IP-1", ("ward-3",))
    found.reported(2, record("device.report", 2), Seen("IP-1", "1.0.0", 1))
    assert found.devices["IP-1"].sites == ("ward-3",)


@pytest.mark.parametrize(("a", "b", "newer"), [
    (("1.0.0", 2), ("9.0.0", 1), True), (("9.0.0", 1), ("1.0.0", 2), False), (("1.1.0", None), ("1.0.0", 7), True),
    (("1.0.0", None), ("1.0.0-rc.1", None), True), (("1.0.0-rc.1", None), ("1.0.0", None), False),
    (("odd-1", None), ("1.0.0", 1), False), (("1.0.0", None), ("1.0.0", None), False),
])  # fmt: skip
def test_which_release_is_newer(a: tuple[str, int | None], b: tuple[str, int | None], newer: bool) -> None:
    assert Known(PUMP, *a).newer_than(Known(PUMP, *b)) is newer


def test_a_shelf_dates_what_nobody_here_met_and_what_nobody_dates_has_no_days() -> None:
    found = Fleet()
    found.reported(0, record("device.report", 1), Seen("IP-1", "1.0.0", 1))
    found.know(PUMP, "2.0.0", sequence=5)
    device = found.devices["IP-1"]
    assert found.lag(device, 9 * DAY) == Lag(found.releases[PUMP, "2.0.0"], 1, None)
    found.know(PUMP, "2.0.0", sequence=5, since=4 * DAY)
    assert found.lag(device, 9 * DAY) == Lag(found.releases[PUMP, "2.0.0"], 1, 5)


@pytest.mark.parametrize("text", ["", "x", "-4", "٣", "1e3"])
def test_details_that_are_no_numbers_say_nothing(text: str) -> None:
    found = fed(record("release.verify", 1, version="1.0.0", sequence=text, supported_until=text))
    assert found.releases[PUMP, "1.0.0"] == Known(PUMP, "1.0.0", None, 1)


def test_memory_does_not_grow_with_records() -> None:
    found = fed(*(record("release.verify", time, version="1.0.0", sequence="1") for time in range(500)))
    assert (len(found.devices), len(found.releases)) == (0, 1)

"""The grants whose issue is on record: read from what the record says, and from no other record."""

from __future__ import annotations

import time

import pytest

from devguard.evidence.issued import ACTIONS, Issued, issued
from devguard.evidence.record import Record

DETAILS = {
    "technician": "Tess",
    "serials": "IP-1, IP-2",
    "cti": "ab" * 16,
    "expires": "2027-01-15T08:00:00Z",
    "epoch": "3",
}


def record(action: str = "grant.issue", *, code: str | None = None, **details: str) -> Record:
    given = {name: text for name, text in {**DETAILS, **details}.items() if text}
    return Record.make(time=1, actor="Thea", action=action, request="r", code=code, details=given)


@pytest.mark.parametrize("action", ACTIONS)
def test_what_a_record_of_an_issue_says(action: str) -> None:
    assert issued(record(action)) == Issued("Tess", "Thea", "IP-1, IP-2", b"\xab" * 16, 3, 1_800_000_000)


@pytest.mark.parametrize("expires", ["2027-01-15T08:00:00", "2027-01-15T09:00:00+01:00"])
def test_a_date_means_the_same_moment_on_every_machine(expires: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a zone it is UTC, whatever zone the machine is in."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        one = issued(record(expires=expires))
    time.tzset()
    assert one is not None
    assert one.expires == 1_800_000_000


def test_other_records_are_none() -> None:
    assert issued(record("grant.check")) is None
    assert issued(record(code="grant.scope")) is None
    for name in ("cti", "expires", "epoch"):
        assert issued(record(**{name: ""})) is None
        assert issued(record(**{name: "x"})) is None
    early = issued(record(expires="0001-01-01T00:00:00+23:00"))
    assert early is not None
    assert early.expires < 0
    assert issued(record(expires="99999-01-01T00:00:00Z")) is None

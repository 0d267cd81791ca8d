"""A crash at any system call leaves a valid log with every record that was acknowledged, whatever reached the disk.

Invariant: `verify` takes every such folder for a log (interrupted, perhaps) or, where none was ever finished being
made, for none; the next open keeps what was acknowledged, at most one record more, and what follows verifies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from devguard.errors import Refused
from devguard.evidence.log import EvidenceLog
from devguard.evidence.verify import verify_log
from evidence_support import STATION, contents, crashes, fill, record, recorded

OWN = ("evidence.recover", "evidence.format")


def begin(folder: Path) -> EvidenceLog:
    return EvidenceLog.open(folder, STATION, clock=lambda: 1050, segment_size=700)


def appended(count: int, start: int = 0, size: int = 0) -> Callable[[Path], EvidenceLog]:
    def make(folder: Path) -> EvidenceLog:
        log = begin(folder)
        for number in range(start, start + count):
            log.append(record(number, details={"filling": "x" * size} if size else {}))
        return log

    return make


def check(folder: Path, acknowledged: int, names: list[str]) -> None:
    try:
        report = verify_log(folder, STATION.key)
        assert acknowledged <= report.records <= acknowledged + 1
    except Refused as error:
        if error.code not in ("log.missing", "log.truncated") or acknowledged:
            raise
    log = begin(folder)
    kept = list(log)
    own = [one for one in kept if one.action in OWN]
    assert [one.request for one in kept if one.action not in OWN] in (names[:acknowledged], names[: acknowledged + 1])
    assert len(own) <= 1
    log.append(record(60))
    report = verify_log(folder, STATION.key)
    assert (report.records, report.interrupted) == (len(kept) + 1, False)


def sweep(tmp_path: Path, before: int, during: int, size: int, seed: str, tries: int) -> int:
    """Append `during` records behind `before` ones, and crash everywhere in it."""
    folder = tmp_path / "log"
    log, old = None, {}
    if before:
        log = appended(before, size=size)(folder)
        old = contents(folder)
    else:
        folder.mkdir()
    with recorded(folder) as recorder:
        log = log if log is not None else begin(folder)
        for number in range(before, before + during):
            log.append(record(number, details={"filling": "x" * size} if size else {}))
            recorder.returned += 1
    names = [f"r-{number}" for number in range(before + during)]
    seen = 0
    for returned, state in crashes(old, recorder, seed, tries):
        check(fill(tmp_path / "crashed", state), before + returned, names)
        seen += 1
    return seen


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of these tests is the model's; the machine's need not be waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


CASES = [(0, 2, 0), (1, 2, 0), (5, 4, 0), (3, 2, 500), (2, 2, 509)]


@pytest.mark.parametrize(("before", "during", "size"), CASES)
def test_a_crash_at_every_call_of_an_append(tmp_path: Path, before: int, during: int, size: int) -> None:
    assert sweep(tmp_path, before, during, size, "quick", 8) > 50


@pytest.mark.slow
@pytest.mark.parametrize(("before", "during", "size"), CASES)
def test_a_crash_at_every_call_of_an_append_many_times(tmp_path: Path, before: int, during: int, size: int) -> None:
    assert sweep(tmp_path, before, during, size, "slow", 400) > 1000


def test_a_crash_while_the_last_crash_is_settled(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = appended(5)(folder)
    old = contents(folder)
    with recorded(folder) as recorder:
        log.append(record(5))
    names = [f"r-{number}" for number in range(6)]
    for _, state in crashes(old, recorder, "first", 6):
        crashed = fill(tmp_path / "crashed", state)
        with recorded(crashed) as again:
            begin(crashed)
        for _, second in crashes(state, again, "second", 2):
            check(fill(tmp_path / "twice", second), 5, names)


def test_every_prefix_of_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies in the middle of a write: every prefix of its bytes, in the order they were written."""
    real = os.pwrite
    for cut in (*range(0, 400, 13), *range(400, 30_000, 997)):
        folder = tmp_path / str(cut)
        log = appended(4)(folder)
        budget = [cut]

        class Dead(BaseException):
            """Nothing in the product catches it."""

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            if budget[0] < len(data):  # noqa: B023
                real(descriptor, data[: budget[0]], offset)  # noqa: B023
                raise Dead
            budget[0] -= len(data)  # noqa: B023
            return real(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)
        done = 0
        try:
            for number in range(4, 8):
                log.append(record(number))
                done += 1
        except Dead:
            pass
        monkeypatch.setattr(os, "pwrite", real)
        check(folder, 4 + done, [f"r-{number}" for number in range(9)])

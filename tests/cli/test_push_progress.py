"""Progress of a push on stderr: JSON lines for programs, a bar for people, and figures that no resumption bends."""

from __future__ import annotations

import io
import json
import sys

import pytest

from devguard.cli.context import Invocation
from devguard.cli.progress import Meter, State, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


def meter(clock: list[float], total: int, seen: list[State]) -> Meter:
    return Meter(total, seen.append, clock=lambda: clock[0])


def test_lines_are_json_and_none_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("auto", "json"):
        with progress_bar(Invocation(), 10, form) as progress:
            progress(0, 10)
            progress(10, 10)
            progress(10, 10)
        out, err = capsys.readouterr()
        lines = [json.loads(line) for line in err.splitlines()]
        assert out == ""
        assert [set(line) for line in lines] == [
            {"bytes", "durable", "total", "rate", "eta", "retransmits", "silent"}
        ] * 2
        assert [line["bytes"] for line in lines] == [0, 10]
    for invocation, form in (
        (Invocation(quiet=True), "auto"),
        (Invocation(), "none"),
        (Invocation(quiet=True), "json"),
    ):
        with progress_bar(invocation, 10, form) as progress:
            progress(0, 10)
            progress(10, 10)
        assert capsys.readouterr() == ("", "")


def test_people_see_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for form, bar in (("auto", True), ("json", False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar(Invocation(), 1000, form) as progress:
            progress(0, 1000)
            progress(1000, 1000)
        text = terminal.getvalue()
        assert ("pushing" in text, "1.0/1.0 kB" in text, '"eta"' in text) == (bar, bar, not bar)


def test_what_was_there_before_is_no_speed(clock: list[float]) -> None:
    seen: list[State] = []
    progress = meter(clock, 100_000, seen)
    progress(60_000, 100_000)
    for step in range(1, 5):
        clock[0] += 1.0
        progress(60_000 + 1000 * step, 100_000)
    assert (seen[0].rate, seen[0].eta) == (0.0, None)
    assert (seen[-1].arrived, seen[-1].rate, seen[-1].eta) == (64_000, 1000.0, 36.0)


def test_a_line_that_says_nothing_gets_slower(clock: list[float]) -> None:
    seen: list[State] = []
    progress = meter(clock, 10_000, seen)
    for step in range(4):
        progress(1000 * step, 10_000)
        clock[0] += 1.0
    clock[0] += 9.0
    assert progress.state(clock[0]).rate == pytest.approx(250.0)


def test_another_form_begins_anew(clock: list[float]) -> None:
    seen: list[State] = []
    progress = meter(clock, 10_000, seen)
    progress(0, 4000)
    clock[0] += 1.0
    progress(4000, 4000)
    progress(4000, 4000)  # the commit; the device refuses what came of it, and the whole image is sent
    clock[0] += 1.0
    progress(0, 10_000)
    assert [(one.arrived, one.total) for one in seen] == [(0, 4000), (4000, 4000), (0, 10_000)]
    assert seen[-1].eta is None


def test_one_line_a_second(clock: list[float]) -> None:
    seen: list[State] = []
    progress = meter(clock, 10_000, seen)
    for step in range(100):
        progress(step * 100, 10_000)
        clock[0] += 0.05
    progress(10_000, 10_000)
    assert len(seen) == 6
    assert (seen[-1].arrived, seen[-1].eta) == (10_000, 0.0)

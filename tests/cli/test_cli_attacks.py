"""`devguard bench attacks`: the contract's keys and exit statuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import devguard, ok
from devguard.bench.attacks import run as runner
from devguard.bench.attacks.row import Result, Status

KEYS = {"id", "title", "model", "status", "why", "refused", "code", "state_unchanged", "recorded", "seconds"}


def test_a_row_on_one_model_under_the_contracts_keys(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    data = ok("bench", "attacks", "--only", "A01", "--model", "pacemaker-programmer", "--json").json
    assert data["held"] is True
    (row,) = data["rows"]
    assert set(row) >= KEYS
    assert (row["id"], row["model"], row["status"]) == ("A01", "pacemaker-programmer", "held")
    assert row["title"] == "Unsigned image offered as an update"
    assert row["code"] == "signature.missing"
    assert [row["refused"], row["state_unchanged"], row["recorded"]] == [True, True, True]
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


@pytest.mark.parametrize(("status", "exit_status"), [(Status.BROKEN, 1), (Status.NOT_APPLICABLE, 0), (Status.HELD, 0)])
def test_only_a_broken_row_ends_with_exit_1(
    status: Status, exit_status: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Result("A01", "title [x]", "insulin-pump", status, "because [of] it", True, None, True, True, 0.1)
    monkeypatch.setattr(runner, "run", lambda *_args, **_more: [row])
    result = devguard("bench", "attacks", "--json")
    assert result.status == exit_status
    assert result.json["held"] is (exit_status == 0)
    text = devguard("bench", "attacks").out
    assert "title [x]" in text
    assert ("because [of] it" in text) is (exit_status == 1)


@pytest.mark.parametrize(
    "args", [("--only", "A01", "b02"), ("--only", "A01,B02"), ("--only", "A01", "--only", "B02"), ("--only=A01", "B02")]
)
def test_rows_are_named_in_any_of_the_usual_ways(
    args: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(runner, "run", lambda *_args, only, **_more: asked.append([*only]) or [])
    assert ok("bench", "attacks", *args, "--json").json["rows"] == []
    assert [one.upper() for one in asked[0]] == ["A01", "B02"]
    assert devguard("bench", "attacks", "A01").status == 2


def test_an_id_that_is_none_and_a_model_that_is_none(home: Path) -> None:
    result = devguard("bench", "attacks", "--only", "Z99", "--json")
    assert (result.status, result.json["error"]["code"]) == (3, "file.missing")
    result = devguard("bench", "attacks", "--model", "toaster", "--json")
    assert result.json["error"]["code"] == "image.class"

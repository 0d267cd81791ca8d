"""`devguard bench campaign`: what it prints and how it ends; the simulation itself is tested in its room."""

from __future__ import annotations

from typing import Any

import pytest

from cli_support import devguard
from devguard.bench import campaign as bench
from devguard.bench.campaign import Result, Wish
from devguard.bench.campaign_check import Check
from devguard.errors import Refused

GOOD = [Check("a rule", ())]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Wish]:
    """What a run is asked for; each gives a result without simulating anything."""
    found: list[Wish] = []

    def run(wish: Wish, url: str | None = None, say: object = None) -> Result:
        found.append(wish)
        return Result(wish, seconds=10.0 / wish.workers, done=wish.devices, killed=wish.kills, checks=GOOD)

    monkeypatch.setattr(bench, "run", run)
    return found


def test_what_was_wished_for_is_simulated(asked: list[Wish]) -> None:
    arguments = ["--devices", 100, "--workers", 4, "--seed", 9, "--kill", "--restart-database", "--duplicates"]
    found = devguard("bench", "campaign", *arguments, "--push-ms", 50, "--limit", 60, "--json")
    assert found.status == 0
    assert found.json["held"] is True
    assert (found.json["devices_per_second"], found.json["devices_per_second_per_worker"]) == (40.0, 10.0)
    assert "light" in found.json["simulation"]
    assert asked == [Wish(devices=100, workers=4, seed=9, kills=8, crash=True, duplicates=True, install=0.05, limit=60)]


def test_a_rule_that_broke_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(wish: Wish, url: str | None = None, say: object = None) -> Result:
        return Result(wish, done=1, checks=[*GOOD, Check("another rule", ("it broke",))])

    monkeypatch.setattr(bench, "run", run)
    found = devguard("bench", "campaign", "--json")
    assert (found.status, found.json["held"]) == (1, False)
    assert found.json["checks"][1]["why"] == ["it broke"]
    shown = devguard("bench", "campaign")
    assert "BROKEN: another rule" in shown.out
    assert "it broke" in shown.out
    assert "simulation" in shown.err


def test_a_run_that_checked_nothing_held_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "run", lambda wish, url=None, say=None: Result(wish))
    assert devguard("bench", "campaign", "--json").status == 1


def test_it_grows(asked: list[Wish]) -> None:
    found = devguard("bench", "campaign", "--scale", "--devices", 80)
    assert found.status == 0
    assert [one.workers for one in asked] == [1, 2, 4, 8]
    assert found.out.splitlines()[-1] == "8 workers: 8.00 times the devices of 1"
    rows = devguard("bench", "campaign", "--scale", "--json").json["rows"]
    assert [row["devices_per_second"] for row in rows] == [20.0, 40.0, 80.0, 160.0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scale", "--kill"),
        ("--scale", "--duplicates"),
        ("--scale", "--store", "postgresql+psycopg://x/y"),
        ("--restart-database", "--store", "postgresql+psycopg://x/y"),
        ("--devices", 0),
        ("--workers", 0),
    ],
)
def test_wishes_that_contradict_each_other(asked: list[Wish], arguments: tuple[Any, ...]) -> None:
    assert devguard("bench", "campaign", *arguments).status == 2
    assert asked == []


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    for name, code in (("psycopg", "ledger.package"), ("procrastinate", "campaign.package")):
        with monkeypatch.context() as patch:
            patch.setattr(
                importlib.util, "find_spec", lambda asked, *more, name=name: None if asked == name else found(asked)
            )
            refused = devguard("bench", "campaign", "--json")
        assert (refused.status, refused.code) == (1, code)
    from devguard.bench import campaign_postgres

    monkeypatch.setattr(campaign_postgres, "PLACES", ())
    with pytest.raises(Refused, match=r"campaign\.postgresql"):
        campaign_postgres.tools()
    refused = devguard("bench", "campaign", "--json")
    assert (refused.status, refused.code) == (1, "campaign.postgresql")
    refused = devguard("bench", "campaign", "--store", "sqlite:////tmp/x", "--json")
    assert (refused.status, refused.code) == (1, "campaign.store")

"""The simulated campaign: light devices, what is checked at the end, whole runs; each check is seen to fail."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import postgres as postgresql
from devguard.bench.campaign import Result, Wish, run
from devguard.bench.campaign_check import Books, check
from devguard.bench.campaign_devices import Devices, LightDevice, judged
from devguard.bench.campaign_setup import Setup
from devguard.bench.campaign_stage import device_signer, goal, grant_for
from devguard.campaign.report import Member, Said
from devguard.campaign.state import Outcome, Phase, State
from devguard.errors import DevguardError, Refused
from devguard.session.report import parse_report
from needs import missing

GOAL = goal().digest
BROKEN = Path(__file__).resolve().parents[1] / "sim" / "campaign_broken.py"


# light devices


def test_a_light_device_checks_its_grant_and_spends_it_once() -> None:
    device, release = LightDevice("SIM-1-00000"), judged()
    with pytest.raises(Refused, match=r"grant\.scope"):
        device.push(release, grant_for("SIM-1-00001"))
    assert device.end()["spends"] == []
    device.push(release, grant_for(device.serial))
    assert not device.end()["confirmed"]
    said = parse_report(device.report(b"c" * 16), device_signer(device.serial).key)
    assert (said.manifest_digest, said.confirmed, said.challenge) == (GOAL, True, b"c" * 16)
    with pytest.raises(Refused, match=r"version\.current"):
        device.push(release, grant_for(device.serial))
    last = device.end()
    assert (last["installs"], len(last["spends"]), list(last["uses"].values())) == (1, 1, [1])


def test_a_spent_grant_is_refused_by_a_light_device() -> None:
    device, release = LightDevice("SIM-1-00000"), judged()
    device.push(release, grant_for(device.serial))
    other = {cti: replace(one, manifest_digest=b"\x09" * 32) for cti, one in device.spent.items()}
    again = LightDevice(device.serial, spent=other)
    with pytest.raises(Refused, match=r"grant\.replay"):
        again.push(release, grant_for(device.serial))


@pytest.mark.parametrize(
    "asked", [{}, {"op": "dance"}, {"op": "push", "serial": "x"}, {"op": "melt", "serial": "SIM-1-00000"}]
)
def test_a_request_that_is_none_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(DevguardError, match=r"wire\.malformed"):
        Devices(Setup("", "", 1)).answer(asked)


def test_one_device_takes_one_request_at_a_time() -> None:
    devices = Devices(Setup("", "", 1))
    asked = {"op": "push", "serial": "SIM-1-00000", "grant": grant_for("SIM-1-00000").hex()}
    codes: list[str | None] = []

    def ask() -> None:
        try:
            devices.answer(asked)
            codes.append(None)
        except DevguardError as error:
            codes.append(error.code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=30)
    assert sorted(codes, key=str) == [None, *["version.current"] * 3]
    assert devices.devices["SIM-1-00000"].installs == 1


# what is checked


def end(number: int, **fields: Any) -> dict[str, Any]:
    """What a device says that was pushed to once."""
    grant = f"g{number}"
    good = {"digest": GOAL.hex(), "confirmed": True, "installs": 1, "uses": {grant: 1}, "spends": [grant]}
    return {"serial": f"S{number}", **good, **fields}


ENDS = [end(0), end(1), end(2)]
COMMITTED = [[f"l{at}", f"r{at}"] for at in range(3)]
BOOKS = Books(
    State.FINISHED,
    [Member(f"S{at}", 0, None, Phase.DONE, 1, False, None, 1, b"r") for at in range(3)],
    [Said(f"l{at}", f"S{at}", Outcome.CONFIRMED, None, "w", 1, True) for at in range(3)],
    [(f"g{at}", f"S{at}") for at in range(3)],
    frozenset(f"r{at}" for at in range(3)),
    frozenset(f"S{at}" for at in range(3)),
)
RELEASE, GRANT, LOST, SUMS = range(4)


def broken(ends: Any = ENDS, committed: Any = COMMITTED, books: Books = BOOKS) -> set[int]:
    return {at for at, one in enumerate(check(ends, committed, books, GOAL.hex())) if not one.held}


def first(**fields: Any) -> list[dict[str, Any]]:
    return [end(0, **fields), *ENDS[1:]]


def test_a_good_end_holds() -> None:
    assert broken() == set()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"ends": first(digest="00")}, RELEASE),
        ({"ends": first(confirmed=False)}, RELEASE),
        ({"ends": first(installs=2)}, RELEASE),
        ({"ends": first(installs=0)}, RELEASE),
        ({"ends": first(spends=["g0", "g0"])}, GRANT),
        ({"ends": first(spends=["g1"])}, GRANT),
        ({"ends": first(spends=[])}, GRANT),
        ({"ends": first(uses={"g0": 2})}, GRANT),
        ({"books": replace(BOOKS, uses=[*BOOKS.uses, ("g0", "S1")])}, GRANT),
        ({"committed": [*COMMITTED, ["l9", ""]]}, LOST),
        ({"committed": [*COMMITTED, ["l0", "r9"]]}, LOST),
        ({"books": replace(BOOKS, uses=BOOKS.uses[1:])}, LOST),
        ({"books": replace(BOOKS, pushed=frozenset({"S1", "S2"}))}, LOST),
        ({"books": replace(BOOKS, state=State.RUNNING)}, SUMS),
        ({"books": replace(BOOKS, members=BOOKS.members[1:])}, SUMS),
        ({"books": replace(BOOKS, said=[*BOOKS.said, replace(BOOKS.said[0], lease="l9")])}, SUMS),
    ],
)
def test_each_rule_can_be_broken(given: dict[str, Any], rule: int) -> None:
    assert rule in broken(**given)


# whole runs


@pytest.fixture
def server() -> None:
    """PostgreSQL is here; the test skips, saying so, where it is not installed."""
    if (lacking := postgresql.absent()) is not None:
        missing(lacking)


def faults(result: Result) -> list[str]:
    return [f"{one.name}: {why}" for one in result.checks for why in one.why]


def test_killed_workers_a_crashed_database_and_duplicates(server: None) -> None:
    wish = Wish(devices=60, workers=2, kills=1, crash=True, duplicates=True, lease=2, limit=90)
    result = run(wish)
    assert faults(result) == []
    assert result.held
    assert (result.done, result.killed, result.crashed) == (60, 1, 1)
    assert result.twice > 0
    assert result.started >= 3


@pytest.mark.parametrize(
    ("rule", "kind"),
    [(SUMS, "no-lease"), (SUMS, "counts-twice"), pytest.param(LOST, "forgets", marks=pytest.mark.slow)],
)
def test_a_broken_worker_is_found(server: None, postgres: postgresql.Server, rule: int, kind: str) -> None:
    url = postgres.database()
    wish = Wish(devices=6, workers=1, duplicates=True, lease=2, limit=8, worker=(str(BROKEN), kind))
    result = run(wish, url)
    postgres.drop(url)
    assert not result.held
    assert not result.checks[rule].held, faults(result)


def test_a_database_in_use_is_left_alone(postgres_url: str) -> None:
    from campaign_support import settle
    from devguard.ledger.store import Store

    with Store.open(postgres_url) as store, store.begin() as conn:
        settle(conn, 1)
    with pytest.raises(Refused, match=r"campaign\.store"):
        run(Wish(devices=2), postgres_url)


@pytest.mark.slow
def test_two_thousand_devices(server: None) -> None:
    result = run(Wish(devices=2000, workers=4, kills=8, crash=True, duplicates=True, limit=900))
    assert faults(result) == []
    assert (result.done, result.killed, result.crashed) == (2000, 8, 1)

"""`devguard campaign work`: a technician's turn against emulated devices; what counts, and what is given back."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from campaign_support import settle
from cli_support import Emulator, World, devguard, emulator, finish, in_evidence, ok, records, start, until
from devguard.campaign.tables import members, outcomes
from devguard.errors import LinkError
from devguard.ledger.store import Store, store_url

PLAN = '[campaign]\nname = "c"\nmodel = "insulin-pump"\nrelease = "1.1.0.suit"\ntries = 1\n[[ring]]\nname = "all"\n'
ONLY = '[[ring]]\nname = "first"\nserials = ["IP-0"]\n[[ring]]\nname = "all"\n'


@pytest.fixture
def store(home: Path) -> Store:
    """The home's ledger, with two pumps that ran 1.0.0 a day ago."""
    one, then = Store.open(store_url(home, {})), int(time.time()) - 86_400
    with one.begin() as conn:
        settle(conn, 2, reported=then, seen=then, report_origin="s", report_index=0, site_time=then, site_index=0)
    return one


@pytest.fixture
def begun(world: World, tmp_path: Path, store: Store) -> Path:
    """A running campaign over both; the grant for the first."""
    (tmp_path / "1.1.0.suit").write_bytes(world.suits["1.1.0"].read_bytes())
    (tmp_path / "c.toml").write_text(PLAN)
    ok("campaign", "new", tmp_path / "c.toml")
    ok("campaign", "start", "c")
    return world.grant(tmp_path / "t.grant", "IP-0")


@pytest.fixture
def pump(world: World, tmp_path: Path) -> Iterator[Emulator]:
    """The first of them, at a port."""
    with emulator(world, tmp_path, "IP-0") as one:
        yield one


def work(grant: Path, *more: object) -> list[object]:
    return ["campaign", "work", "c", "--key", "tech", "--grant", grant, *more]


def row(store: Store, serial: str = "IP-0") -> tuple[str, int, str | None]:
    with store.read() as conn:
        found = conn.execute(select(members).where(members.c.serial == serial)).one()
        return found.phase, found.tries, found.lease


def said(store: Store) -> int:
    with store.read() as conn:
        return len(conn.execute(select(outcomes)).all())


def test_a_turn_from_the_claim_to_the_evidence(home: Path, store: Store, begun: Path, pump: Emulator) -> None:
    found = ok(*work(begun, "--port", pump.port, "--count", 1, "--json")).json
    assert found["devices"] == [{"serial": "IP-0", "outcome": "confirmed", "code": None, "phase": "done"}]
    kept = records(home)[2:]
    assert [(one["action"], one["code"]) for one in kept] == [
        ("campaign.work", None),
        ("release.verify", None),
        ("release.push-begun", None),
        ("release.push", None),
    ]
    assert [one["device"] for one in kept] == ["IP-0", None, "IP-0", "IP-0"]
    assert {one["details"]["campaign"] for one in kept} == {"c"}
    report = ok("campaign", "report", "c", "--json").json
    assert (report["phases"]["done"], report["phases"]["due"], report["adds_up"]) == (1, 1, True)
    assert row(store, "IP-1") == ("due", 0, None)


def test_the_same_turn_on_a_groups_database(
    world: World, home: Path, tmp_path: Path, pump: Emulator, postgres_url: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("DEVGUARD_STORE", postgres_url)
    then = int(time.time()) - 86_400
    with Store.open(postgres_url) as group, group.begin() as conn:
        settle(conn, 1, reported=then, seen=then, report_origin="s", report_index=0, site_time=then, site_index=0)
    ok("campaign", "new", "--name", "c", "--release", world.suits["1.1.0"])
    ok("campaign", "start", "c")
    grant = world.grant(tmp_path / "t.grant", "IP-0")
    found = ok(*work(grant, "--port", pump.port, "--json")).json
    assert (found["devices"][0]["phase"], found["ended"]) == ("done", None)
    report = ok("campaign", "report", "c", "--json").json
    assert (report["state"], report["phases"]["done"], report["adds_up"]) == ("finished", 1, True)


def test_a_device_that_runs_it_already_is_looked_up(
    world: World, tmp_path: Path, store: Store, begun: Path, pump: Emulator
) -> None:
    ok("push", world.suits["1.1.0"], "--key", "tech", "--grant", begun, "--port", pump.port, "--serial", "IP-0")
    found = ok(*work(begun, "--port", pump.port, "--count", 1, "--json")).json
    assert found["devices"][0]["phase"] == "done"


def test_the_device_of_the_port_has_to_be_the_one_that_is_meant(
    world: World, tmp_path: Path, store: Store, begun: Path, pump: Emulator
) -> None:
    wide = world.grant(tmp_path / "wide.grant", "IP-1")
    found = devguard(*work(wide, "--port", pump.port, "--serial", "IP-1", "--json"))
    assert found.code == "device.identity"
    assert row(store, "IP-1") == ("due", 0, None)
    assert said(store) == 0


@pytest.mark.parametrize(
    ("more", "code", "status"),
    [
        (("--port", "/dev/nowhere"), "link.port", 4),
        (("--port", "/dev/nowhere", "--trust", "none.trust"), "file.missing", 3),
        (("--port", "/dev/nowhere", "--serial", "IP-1"), "grant.scope", 1),
    ],
)
def test_what_the_bench_lacks_counts_against_no_device(
    home: Path, store: Store, begun: Path, more: tuple[str, ...], code: str, status: int
) -> None:
    found = devguard(*work(begun, *more, "--json"))
    assert (found.code, found.status) == (code, status)
    assert [row(store, serial) for serial in ("IP-0", "IP-1")] == [("due", 0, None)] * 2
    assert said(store) == 0
    assert records(home)[-1]["code"] == code


def test_a_line_lost_after_the_device_was_met_counts(
    store: Store, begun: Path, pump: Emulator, monkeypatch: Any
) -> None:
    from devguard.cli.push import Pusher

    def lost(self: Pusher, *_: object) -> None:
        raise LinkError("link.timeout", "the cable")

    monkeypatch.setattr(Pusher, "_begin", lost)
    found = ok(*work(begun, "--port", pump.port, "--count", 1, "--json")).json
    assert found["devices"] == [{"serial": "IP-0", "outcome": "failed", "code": "link.timeout", "phase": "failed"}]
    assert ok("campaign", "report", "c", "--json").json["codes"] == {"link.timeout": 1}


def test_a_campaign_that_does_not_run_hands_out_nothing(home: Path, store: Store, begun: Path) -> None:
    ok("campaign", "pause", "c", "--reason", "night")
    found = devguard(*work(begun, "--port", "/dev/nowhere", "--json"))
    assert (found.status, found.code) == (1, "campaign.stopped")
    assert (records(home)[-1]["action"], records(home)[-1]["code"]) == ("campaign.work", "campaign.stopped")
    assert devguard("campaign", "work", "nobody", "--json").code == "campaign.unknown"


def test_only_the_release_of_the_campaign(world: World, store: Store, begun: Path) -> None:
    for file in (world.suits["1.0.0"], begun, begun.parent / "none.suit"):
        found = devguard(*work(begun, "--port", "/dev/nowhere", "--release", file, "--json"))
        assert (found.status, found.code) == (1, "campaign.release")
    assert row(store) == ("due", 0, None)


def test_nothing_is_due(store: Store, begun: Path) -> None:
    for serial in ("IP-0", "IP-1"):
        ok("campaign", "skip", "c", serial, "--reason", "lost")
    found = devguard(*work(begun, "--port", "/dev/nowhere", "--json"))
    assert (found.status, found.code) == (1, "campaign.stopped")  # its last device ended: it is finished
    assert ok("campaign", "status", "c", "--json").json["state"] == "finished"


def test_an_interrupt_gives_the_device_back(home: Path, store: Store, begun: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = f"socket://127.0.0.1:{silent.getsockname()[1]}"
        process = start(*work(begun, "--port", port))
        until(lambda: in_evidence(home, "release.verify"), "the push to begin")
        assert row(store)[0] == "claimed"
        process.send_signal(signal.SIGINT)
        assert finish(process).status == 130
    assert row(store) == ("due", 0, None)
    assert said(store) == 0


def test_the_rule_ends_a_turn(
    world: World, tmp_path: Path, store: Store, begun: Path, pump: Emulator, monkeypatch: Any
) -> None:
    from devguard.cli.push import Pusher

    ok("campaign", "stop", "c", "--reason", "again, with a rule")
    text = PLAN.replace('"c"', '"d"').replace('[[ring]]\nname = "all"\n', ONLY)
    (tmp_path / "d.toml").write_text(text + '[stop]\nfailures = "1"\n')
    ok("campaign", "new", tmp_path / "d.toml")
    ok("campaign", "start", "d")

    def lost(self: Pusher, *_: object) -> None:
        raise LinkError("link.timeout", "the cable")

    monkeypatch.setattr(Pusher, "_begin", lost)
    arguments = ["campaign", "work", "d", "--key", "tech", "--grant", begun, "--port", pump.port, "--json"]
    found = ok(*arguments).json
    assert (found["devices"][0]["phase"], found["ended"]) == ("failed", "campaign.stopped")
    shown = ok("campaign", "status", "d", "--json").json
    assert (shown["state"], shown["reason"]) == ("stopped", "1 failures of 1 devices, the limit is 1")

"""`devguard campaign`: plans into drafts, orders, what is shown; each change on record before it counts."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from campaign_support import settle, sign
from cli_support import World, devguard, finish, in_evidence, ok, records, start, until
from devguard.campaign.tables import members
from devguard.ledger.store import Store, store_url

PLAN = """\
[campaign]
name = "c"
model = "insulin-pump"
release = "1.1.0.suit"
[[ring]]
name = "bench"
serials = ["IP-0"]
[[ring]]
name = "all"
"""


@pytest.fixture
def store(home: Path) -> Store:
    """The home's own ledger, with three pumps that run 1.0.0."""
    one = Store.open(store_url(home, {}))
    with one.begin() as conn:
        settle(conn, 3)
    return one


@pytest.fixture
def plan(world: World, tmp_path: Path) -> Path:
    """A plan beside the release that it names."""
    (tmp_path / "1.1.0.suit").write_bytes(world.suits["1.1.0"].read_bytes())
    path = tmp_path / "c.toml"
    path.write_text(PLAN)
    return path


def said(*arguments: object) -> dict[str, Any]:
    return ok("campaign", *arguments, "--json").json


def actions(home: Path) -> list[tuple[str, str | None]]:
    return [(one["action"], one["code"]) for one in records(home)]


def test_from_a_plan_to_a_stop(home: Path, store: Store, plan: Path) -> None:
    made = said("new", plan)
    assert (made["state"], made["devices"], made["release"]) == ("draft", 3, "insulin-pump 1.1.0")
    assert made["rings"] == [{"name": "bench", "devices": 1}, {"name": "all", "devices": 2}]
    assert said("status")["campaigns"] == [
        {"campaign": "c", "state": "draft", "release": "insulin-pump 1.1.0", "devices": 3}
    ]
    assert said("start", "c") == {"campaign": "c", "state": "running"}
    assert [ring["opened"] is not None for ring in said("status", "c")["rings"]] == [True, False]
    assert said("open", "c", "all")["ring"] == "all"
    assert said("skip", "c", "IP-2", "--reason", "lost")["phase"] == "skipped"
    assert said("pause", "c", "--reason", "night")["state"] == "paused"
    assert said("start", "c")["state"] == "running"
    assert said("stop", "c", "--reason", "a fault")["state"] == "stopped"
    shown = said("status", "c")
    assert (shown["state"], shown["reason"]) == ("stopped", "a fault")
    found = said("report", "c")
    assert found["adds_up"]
    assert found["phases"]["skipped"] == 3
    assert found["codes"] == {"campaign.skipped": 1, "campaign.stopped": 2}
    wanted = ["new", "start", "open", "skip", "pause", "start", "stop"]
    assert actions(home) == [(f"campaign.{name}", None) for name in wanted]
    last = records(home)[-1]
    assert (last["details"]["campaign"], last["details"]["reason"]) == ("c", "a fault")
    assert (last["release"], last["digests"]["manifest"]) == ("insulin-pump 1.1.0", made["digest"])
    assert records(home)[3]["device"] == "IP-2"


def test_text_for_people(store: Store, plan: Path) -> None:
    assert ok("campaign", "new", plan).out == "c: a draft, 3 devices to 1.1.0\n"
    assert ok("campaign", "status").out.split() == ["c", "draft", "insulin-pump", "1.1.0"]
    ok("campaign", "start", "c")
    lines = ok("campaign", "status", "c").out.splitlines()
    assert lines[0] == "c: running, insulin-pump 1.1.0, 3 devices"
    assert lines[2].split() == ["bench", "1", "0", "0", "0", "0", "0"]
    assert lines[3].endswith("not open")
    assert ok("campaign", "report", "c").out.splitlines()[-1] == "  it adds up"


def test_what_devices_signed_moves_it_on(store: Store, plan: Path) -> None:
    digest = bytes.fromhex(said("new", plan)["digest"])
    said("start", "c")
    with store.begin() as conn:
        for number in range(3):
            sign(conn, f"IP-{number}", manifest_digest=digest)
    shown = said("status", "c")
    assert shown["state"] == "finished"
    assert [ring["done"] for ring in shown["rings"]] == [1, 2]
    assert said("report", "c")["adds_up"]


def test_figures_that_do_not_add_up_end_with_1(store: Store, plan: Path) -> None:
    said("new", plan)
    with store.begin() as conn:
        conn.execute(update(members).where(members.c.serial == "IP-1").values(phase="done", ended=1))
    found = devguard("campaign", "report", "c", "--json")
    assert (found.status, found.code) == (1, "campaign.differs")
    assert found.json["faults"] == ["device IP-1 is done, and evidence says otherwise"]
    assert "DOES NOT ADD UP" in devguard("campaign", "report", "c").out


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("start", "nobody"), "campaign.unknown", 1),
        (("status", "nobody"), "campaign.unknown", 1),
        (("report", "nobody"), "campaign.unknown", 1),
        (("pause", "c", "--reason", "x"), "campaign.order", 1),
        (("open", "c"), "campaign.stopped", 1),
        (("skip", "c", "IP-9", "--reason", "x"), "campaign.unknown", 1),
    ],
)
def test_orders_that_are_none(
    home: Path, store: Store, plan: Path, arguments: tuple[str, ...], code: str, status: int
) -> None:
    said("new", plan)
    found = devguard("campaign", *arguments, "--json")
    assert (found.status, found.code) == (status, code)
    if arguments[0] not in ("status", "report"):
        assert actions(home)[-1] == (f"campaign.{arguments[0]}", code)


def test_plans_that_are_refused(world: World, home: Path, store: Store, plan: Path) -> None:
    said("new", plan)
    assert devguard("campaign", "new", plan).code == "campaign.exists"
    plan.write_text(PLAN.replace('name = "c"', 'name = "d"').replace('name = "all"', 'name = "all"\nshare = 10'))
    assert devguard("campaign", "new", plan).code == "campaign.rings"
    plan.write_text(PLAN.replace("[[ring]]", "[[rung]]"))
    bad = devguard("campaign", "new", plan)
    assert (bad.status, bad.code) == (3, "campaign.malformed")
    other = PLAN.replace('name = "c"', 'name = "e"')
    plan.write_text(other.replace("insulin-pump", "pacemaker-programmer"))
    assert devguard("campaign", "new", plan).code == "campaign.release"
    plan.write_text(other.replace('release = "1.1.0.suit"', 'release = "none.suit"'))
    assert devguard("campaign", "new", plan).code == "file.missing"
    spoilt = bytearray(world.suits["1.1.0"].read_bytes())
    spoilt[-1] ^= 1
    (plan.parent / "spoilt.suit").write_bytes(bytes(spoilt))
    assert devguard("campaign", "new", plan, "--release", plan.parent / "spoilt.suit").code == "image.digest"
    assert devguard("campaign", "new", plan.parent / "no.toml").code == "file.missing"
    assert [code for action, code in actions(home) if action == "campaign.new"][1:] == [
        "campaign.exists",
        "campaign.rings",
        "campaign.malformed",
        "campaign.release",
        "file.missing",
        "image.digest",
        "file.missing",
    ]
    assert [one["campaign"] for one in said("status")["campaigns"]] == ["c"]


def test_a_small_campaign_needs_no_plan(store: Store, plan: Path) -> None:
    suit = plan.parent / "1.1.0.suit"
    made = said("new", "--name", "d", "--release", suit, "--site", "ward-0", "--first", "IP-2", "--failures", "5%")
    assert made["rings"] == [{"name": "first", "devices": 1}, {"name": "all", "devices": 1}]
    shown = said("status", "d")["plan"]
    assert (shown["campaign"]["sites"], shown["stop"]["failures"]) == (["ward-0"], "5%")
    for arguments in (
        ("new",),
        ("new", "--name", "e"),
        ("new", "--release", suit),
        ("new", plan, "--name", "e"),
        ("new", plan, "--site", "x"),
    ):
        assert devguard("campaign", *arguments).status == 2
    bad = devguard("campaign", "new", "--name", "e", "--release", suit, "--failures", "many", "--json")
    assert (bad.status, bad.code) == (3, "campaign.malformed")
    none = devguard("campaign", "new", "--name", "e", "--release", suit, "--running", "9.9.9", "--json")
    assert (none.status, none.code) == (1, "campaign.empty")


def test_nothing_counts_before_it_is_on_record(home: Path, store: Store, plan: Path, monkeypatch: Any) -> None:
    from devguard.cli.record import Note
    from devguard.errors import LinkError

    said("new", plan)

    def full(*_: object, **__: object) -> None:
        raise LinkError("log.full", "no room")

    with monkeypatch.context() as patch:
        patch.setattr(Note, "commit", full)
        assert devguard("campaign", "start", "c", "--json").code == "log.full"
    assert said("status")["campaigns"][0]["state"] == "draft"


def test_without_the_packages_it_says_which(home: Path, plan: Path, monkeypatch: Any) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "alembic" else found(name, *more)
    )
    refused = devguard("campaign", "status", "--json")
    assert (refused.status, refused.code) == (1, "ledger.package")


def test_campaigns_move_on_without_a_bench(home: Path, store: Store, plan: Path) -> None:
    digest = bytes.fromhex(said("new", plan)["digest"])
    assert said("queue", "--once") == {"campaigns": {}}
    said("start", "c")
    with store.begin() as conn:
        sign(conn, "IP-0", manifest_digest=digest)
    assert said("queue", "--once")["campaigns"]["c"] == {
        "state": "running",
        "confirmed": 1,
        "expired": 0,
        "opened": [],
        "stopped": None,
    }
    assert records(home)[-1]["details"] == {"c": "running"}
    refused = devguard("campaign", "queue", "--json")
    assert (refused.status, refused.code) == (1, "campaign.store")


def test_a_worker_of_the_queue_runs_until_it_is_interrupted(home: Path, postgres_url: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("DEVGUARD_STORE", postgres_url)
    process = start("campaign", "queue")
    until(lambda: in_evidence(home, "campaign.queue"), "the worker to begin")
    process.send_signal(signal.SIGINT)
    assert finish(process).status in (0, 130)
    assert actions(home)[0] == ("campaign.queue", None)

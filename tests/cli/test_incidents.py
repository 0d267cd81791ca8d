"""Incidents at a station: raised at once, held against pushes by policy, released by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import World, devguard, ok, records


@pytest.fixture
def home(world: World, tmp_path: Path) -> Path:
    return world.copy(tmp_path / "bench")


def flood(world: World, home: Path, tmp_path: Path, times: int) -> None:
    bad = tmp_path / "bad.suit"
    data = bytearray(world.suits["1.0.0"].read_bytes())
    data[-1] ^= 1
    bad.write_bytes(data)
    for _ in range(times):
        assert devguard("verify", bad, "--home", home).status == 1


def push(world: World, home: Path, tmp_path: Path) -> object:
    grant = world.grant(tmp_path / "g.grant", "IP-1")
    given = ["--key", "tech", "--grant", grant, "--serial", "IP-1", "--dry-run", "--home", home]
    return devguard("push", world.suits["1.0.0"], *given).code


def test_a_burst_is_on_record_with_the_refusal_that_made_it_one(world: World, home: Path, tmp_path: Path) -> None:
    flood(world, home, tmp_path, 4)
    assert [row for row in records(home, raised=True) if row["action"] == "incident.open"] == []
    flood(world, home, tmp_path, 4)
    rows = records(home, raised=True)
    raised = [row for row in rows if row["action"] == "incident.open"]
    assert len(raised) == 1
    at = rows.index(raised[0])
    assert (rows[at - 1]["code"], rows[at - 1]["time"]) == ("image.digest", raised[0]["time"])
    assert raised[0]["details"]["records"].split()[-1] == str(at - 1)
    ok("evidence", "verify", "--home", home)


def test_policy_blocks_until_an_officer_releases(world: World, home: Path, tmp_path: Path) -> None:
    flood(world, home, tmp_path, 5)
    assert push(world, home, tmp_path) is None  # no policy, no block
    (home / "config.toml").write_text('[incidents]\nblock = ["unknown-key"]\n')
    assert push(world, home, tmp_path) is None
    (home / "config.toml").write_text('[incidents]\nblock = ["burst"]\n')
    assert push(world, home, tmp_path) == "incident.open"
    assert records(home, raised=True)[-1]["code"] == "incident.open"
    (listed,) = ok("evidence", "incident", "list", "--home", home, "--json").json["incidents"]
    assert listed["blocks"]
    assert [one["days"] for one in listed["clocks"]] == [30, 60]
    release = ["evidence", "incident", "release", listed["id"], "--home", home]
    assert devguard(*release, "--officer", "Olga Officer").status == 2
    assert devguard(*release, "--reason", "x").status == 2
    assert devguard(*release, "--officer", " ", "--reason", "x").status == 2
    assert push(world, home, tmp_path) == "incident.open"
    ok(*release, "--officer", "Olga Officer", "--reason", "a broken stick", "--decision", "controlled")
    last = records(home, raised=True)[-1]
    assert (last["actor"], last["details"]["reason"], last["request"]) == (
        "Olga Officer",
        "a broken stick",
        listed["id"],
    )
    assert push(world, home, tmp_path) is None
    assert devguard(*release, "--officer", "Olga", "--reason", "again").code == "incident.unknown"
    assert ok("evidence", "incident", "list", "--home", home).out == "no incident is open\n"
    shown = ok("evidence", "incident", "show", listed["id"], "--home", home, "--json").json
    assert shown["released"]["officer"] == "Olga Officer"
    assert [row["action"] for row in shown["timeline"]][-1] == "incident.release"
    assert {one["state"] for one in shown["clocks"]} == {"stopped"}


def test_by_hand(world: World, home: Path) -> None:
    ok("verify", world.suits["1.0.0"], "--home", home)
    new = ["evidence", "incident", "new", "--title", "a pump lay open", "--home", home]
    made = ok(*new, "--record", 0, "--device", "IP-9", "--decision", "uncontrolled", "--json").json
    shown = ok("evidence", "incident", "show", made["id"], "--home", home)
    assert "a pump lay open" in shown.out
    assert "uncontrolled" in shown.out
    assert devguard(*new, "--record", 99).code == "incident.unknown"
    assert devguard("evidence", "incident", "show", "burst-77", "--home", home).code == "incident.unknown"
    (home / "config.toml").write_text('[incidents]\nblock = ["manual"]\n')
    assert devguard("push", world.suits["1.0.0"], "--home", home).code == "incident.open"


@pytest.mark.parametrize(
    "text", ['block = "burst"', 'block = ["bursts"]', 'night = "22-6"', "night = 5", "blok = []"], ids=str
)
def test_a_policy_that_does_not_parse_stops_a_push(world: World, home: Path, tmp_path: Path, text: str) -> None:
    flood(world, home, tmp_path, 1)
    (home / "config.toml").write_text(f"[incidents]\n{text}\n")
    assert push(world, home, tmp_path) == "config.malformed"
    flood(world, home, tmp_path, 4)
    assert records(home, raised=True)[-1]["action"] == "incident.open"


def test_a_bundle_needs_the_public_key_alone(world: World, home: Path, tmp_path: Path) -> None:
    flood(world, home, tmp_path, 5)
    (one,) = ok("evidence", "incident", "list", "--home", home, "--json").json["incidents"]
    bundle, public = tmp_path / "bundle", tmp_path / "station.pub"
    made = ok("evidence", "incident", "export", one["id"], "-o", bundle, "--home", home, "--json").json
    assert made["records"] == 6
    ok("key", "export", "station", "--public", "-o", public, "--home", home)
    assert str(tmp_path) not in bundle.read_text()  # file names are what people typed
    verify = ["evidence", "verify", bundle, "--key", public, "--home", tmp_path / "nowhere"]
    found = ok(*verify, "--json").json
    assert (found["kind"], found["incident"]["id"], found["sealed"]) == ("incident", one["id"], made["sealed"])
    assert found["excerpts"] == made["excerpts"] == 5
    assert len(found["timeline"]) == 6
    assert records(home, raised=True)[made["sealed"]]["action"] == "incident.export"
    good = bundle.read_text()
    bundle.write_text(good.replace('"days":30', '"days":90'))
    refused = devguard(*verify)
    assert (refused.status, refused.code) == (1, "log.tampered")
    assert "'clock'" in refused.err
    ok("evidence", "incident", "export", one["id"], "-o", bundle, "--whole", "--home", home)
    assert ok(*verify, "--json").json["excerpts"] == 0
    other = tmp_path / "other.pub"
    ok("key", "export", "tech", "--public", "-o", other, "--home", home)
    assert devguard("evidence", "verify", bundle, "--key", other, "--home", home).status == 1

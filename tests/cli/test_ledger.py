"""`devguard ledger` on both databases: taken, shown, made anew, backed up, restored, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli_support import PUMP, World, devguard, emulator, finish, ok, records, start

SERIAL = "IP-91"


@pytest.fixture(scope="module")
def pushed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a push, a grant, a technician, a suspension and an incident on record."""
    folder = tmp_path_factory.mktemp("ledger")
    home = world.copy(folder / "bench")
    grant = world.grant(folder / "tech.grant", SERIAL, sites=frozenset(["ward-3"]), max_uses=1)
    with emulator(world, folder, SERIAL, "--site", "ward-3") as device:
        line = ["--port", device.port, "--key", "tech", "--grant", grant, "--home", home]
        ok("push", world.suits["1.1.0"], *line)
    ok("technician", "add", "tech", "--site", "ward-3", "--trained-until", "2030-01-01", "--home", home)
    ok("technician", "suspend", "tech", "--reason", "left", "--home", home)
    ok("evidence", "incident", "new", "--title", "a smell", "--device", SERIAL, "--home", home)
    return home


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and a store with nothing in it."""
    monkeypatch.delenv("DEVGUARD_STORE", raising=False)
    if request.param == "postgresql":
        monkeypatch.setenv("DEVGUARD_STORE", request.getfixturevalue("postgres_url"))
    return Path(shutil.copytree(pushed, tmp_path / "home"))


def shown(home: Path, *args: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ok("ledger", "show", *args, "--home", home, "--json").json["rows"]
    return found


def last(home: Path, action: str) -> dict[str, Any]:
    return [one for one in records(home) if one["action"] == action][-1]


def test_what_the_log_says_is_in_the_ledger(home: Path) -> None:
    done = ok("ledger", "update", "--home", home, "--json").json
    count = len(records(home, raised=True)) - 1  # its own record comes after
    assert (done["records"], done["new"], done["trust"]) == (count, count, None)
    (device,) = shown(home, "devices")
    assert (device["serial"], device["model"], device["version"], device["site"]) == (SERIAL, PUMP, "1.1.0", ["ward-3"])
    assert (device["confirmed"], device["changed"], device["behind"]) == (True, None, False)
    assert device["reported"].startswith("20")
    (grant,) = shown(home, "grants")
    assert (grant["technician"], grant["proved"], grant["max_uses"]) == ("Tess Technician", True, 1)
    assert [(use["serial"], use["done"]) for use in grant["uses"]] == [(SERIAL, True)]
    assert [(row["state"], row["code"], row["serial"]) for row in shown(home, "pushes")] == [("done", None, SERIAL)]
    (tess,) = shown(home, "technicians")
    assert (tess["name"], tess["suspended"], tess["reason"]) == ("tech", True, "left")
    assert [row["version"] for row in shown(home, "releases", "--model", PUMP)] == ["1.1.0"]
    assert [row["subject"] for row in shown(home, "incidents", "--open")] == [SERIAL]
    assert shown(home, "doubts") == []
    (station,) = shown(home, "stations")
    assert station["records"] == count
    age = ok("fleet", "age", "--home", home, "--json").json["devices"][0]
    assert (age["serial"], age["version"], age["sites"]) == (device["serial"], device["version"], device["site"])
    assert age["reported"] == device["reported"]


def test_an_update_is_on_record_and_takes_what_is_new(home: Path) -> None:
    first = ok("ledger", "update", "--home", home, "--json").json
    said = last(home, "ledger.update")["details"]
    assert (said["records"], len(said["root"]), len(said["store"])) == (str(first["records"]), 64, 32)
    second = ok("ledger", "update", "--home", home, "--json").json
    assert (second["new"], second["records"]) == (1, first["records"] + 1)  # the record of the first update
    assert "1 new record" in ok("ledger", "update", "--home", home).out
    counts = ok("ledger", "show", "--home", home, "--json").json["counts"]
    assert (counts["records"], counts["devices"]) == (second["records"] + 1, 1)
    assert "devices: 1" in ok("ledger", "show", "--home", home).out


def test_a_rebuild_gives_the_same_tables(home: Path) -> None:
    ok("ledger", "update", "--home", home)
    before = {
        what: shown(home, what) for what in ("devices", "grants", "pushes", "technicians", "releases", "incidents")
    }
    done = ok("ledger", "rebuild", "--home", home, "--json").json
    assert last(home, "ledger.rebuild")["details"] == {"records": str(done["records"])}
    assert {what: shown(home, what) for what in before} == before


def test_people_see_a_table_and_filters_count(home: Path) -> None:
    ok("ledger", "update", "--home", home)
    out = ok("ledger", "show", "devices", "--home", home).out
    assert SERIAL in out
    assert "1 row" in out
    for wish in (("--model", "x"), ("--site", "ward"), ("--version", "9"), ("--serial", "x"), ("--offset", 1)):
        assert shown(home, "devices", *wish) == []
    for wish in (("--model", PUMP), ("--site", "ward-3"), ("--version", "1.1.0"), ("--serial", SERIAL)):
        assert len(shown(home, "devices", *wish)) == 1
    assert devguard("ledger", "show", "secrets", "--home", home).status == 2
    for what in ("grants", "pushes", "technicians", "releases", "incidents", "stations", "trust", "doubts"):
        assert "row" in ok("ledger", "show", what, "--home", home).out


def test_backup_and_restore(home: Path, tmp_path: Path) -> None:
    ok("ledger", "update", "--home", home)
    before = shown(home, "devices")
    done = ok("ledger", "backup", tmp_path / "b", "--home", home, "--json").json
    assert (last(home, "ledger.backup")["details"]["rows"], done["path"]) == (str(done["rows"]), str(tmp_path / "b"))
    assert devguard("ledger", "backup", tmp_path / "b", "--home", home).code == "file.exists"
    held = ok("ledger", "update", "--home", home, "--json").json["records"]
    back = ok("ledger", "restore", tmp_path / "b", "--home", home, "--json").json
    assert (back["behind"], back["records"], back["aside"]) == (held - back["records"], back["records"], None)
    assert back["behind"] == 3
    assert shown(home, "devices") == before
    after = ok("ledger", "update", "--home", home, "--json").json  # restored from here, on record: it goes on
    assert after["records"] > held
    assert "taken since" in ok("ledger", "restore", tmp_path / "b", "--home", home).out


def test_a_ledger_that_was_set_back_behind_its_back_is_refused(home: Path, tmp_path: Path) -> None:
    """Another home's restore, or a file that was put back: this station has not heard of it."""
    ok("ledger", "update", "--home", home)
    ok("ledger", "backup", tmp_path / "old", "--home", home)
    ok("ledger", "update", "--home", home)
    elsewhere = Path(shutil.copytree(home, tmp_path / "elsewhere"))
    if (home / "ledger").exists():
        shutil.rmtree(elsewhere / "ledger")
        (elsewhere / "ledger").symlink_to(home / "ledger")
    ok("ledger", "restore", tmp_path / "old", "--home", elsewhere)
    refused = devguard("ledger", "update", "--home", home, "--json")
    assert (refused.code, refused.status) == ("ledger.rollback", 1)
    assert "--restored" in refused.json["error"]["hint"]
    assert last(home, "ledger.update")["code"] == "ledger.rollback"
    ok("ledger", "update", "--restored", "the disk died", "--home", home)
    assert last(home, "ledger.update")["details"]["restored"] == "the disk died"
    ok("ledger", "update", "--home", home)


def test_migrations_are_on_record(home: Path) -> None:
    ok("ledger", "update", "--home", home)
    done = ok("ledger", "migrate", "--home", home, "--json").json
    assert done["from"] == done["to"]
    assert last(home, "ledger.migrate")["details"]["to"] == done["to"]
    for wrong in ("base", "0000", "x"):
        refused = devguard("ledger", "migrate", "--back", wrong, "--home", home)
        assert (refused.code, refused.status) == ("ledger.schema", 1)
    assert "revision" in ok("ledger", "migrate", "--back", "0001", "--home", home).out
    ok("ledger", "migrate", "--home", home)
    assert len(shown(home, "devices")) == 1


def test_a_log_that_was_exchanged_is_refused(home: Path, tmp_path: Path) -> None:
    ok("ledger", "update", "--home", home)
    shutil.rmtree(home / "evidence")
    (home / "memory.cbor").unlink()
    from devguard.cli.home import Home

    Home(home).make(home / "evidence")
    Home(home).evidence()
    refused = devguard("ledger", "update", "--home", home)
    assert refused.code == "ledger.differs"
    assert last(home, "ledger.update")["code"] == "ledger.differs"


def test_without_a_ledger_there_is_nothing_to_show(world: World, tmp_path: Path) -> None:
    home = world.copy(tmp_path)
    for command in (("show",), ("show", "devices"), ("rebuild",), ("backup", tmp_path / "b"), ("migrate",)):
        refused = devguard("ledger", *command, "--home", home)
        assert (refused.code, refused.status) == ("ledger.missing", 1), command
        assert "devguard ledger update" in refused.err
    assert not (home / "ledger").exists()
    assert not (tmp_path / "b").exists()


def test_a_damaged_ledger_is_moved_aside_by_a_restore(pushed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("DEVGUARD_STORE", raising=False)
    home = Path(shutil.copytree(pushed, tmp_path / "home"))
    ok("ledger", "update", "--home", home)
    ok("ledger", "backup", tmp_path / "b", "--home", home)
    (home / "ledger" / "ledger.sqlite").write_bytes(b"nothing")
    refused = devguard("ledger", "update", "--home", home)
    assert (refused.code, refused.status) == ("ledger.malformed", 3)
    back = ok("ledger", "restore", tmp_path / "b", "--home", home, "--json").json
    assert Path(back["aside"]).read_bytes() == b"nothing"
    assert len(shown(home, "devices")) == 1


def test_a_database_that_is_away_may_be_tried_again(pushed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    home = Path(shutil.copytree(pushed, tmp_path / "home"))
    monkeypatch.setenv("DEVGUARD_STORE", "postgresql+psycopg://u:hunter2@127.0.0.1:1/group")
    away = devguard("ledger", "update", "--home", home)
    assert (away.code, away.status) == ("ledger.unreachable", 4)
    monkeypatch.setenv("DEVGUARD_STORE", "mysql://u:hunter2@h/d")
    wrong = devguard("ledger", "update", "--home", home)
    assert (wrong.code, wrong.status) == ("ledger.url", 3)
    assert "hunter2" not in away.err + wrong.err + json.dumps(records(home))


@pytest.mark.parametrize(
    "command", [("show",), ("update",), ("rebuild",), ("migrate",), ("backup", "b"), ("restore", "b")]
)
def test_without_its_packages_the_ledger_says_what_to_install(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    home = world.copy(tmp_path)
    refused = devguard("ledger", *command, "--home", home)
    assert (refused.code, refused.status) == ("ledger.package", 1)
    assert "devguard[ledger]" in refused.err
    assert not (home / "evidence").exists()


def test_two_updates_at_once_leave_no_gap_and_no_duplicate(home: Path) -> None:
    running = [start("ledger", "update", "--home", home, "--json") for _ in range(3)]
    done = [finish(one).json for one in running]
    taken = sum(one["new"] for one in done)
    assert max(one["records"] for one in done) == taken
    ok("ledger", "update", "--home", home)
    assert (
        ok("ledger", "show", "--home", home, "--json").json["counts"]["records"] == len(records(home, raised=True)) - 1
    )
    ok("ledger", "rebuild", "--home", home)


def test_an_update_that_is_killed_is_whole_or_not_there(home: Path) -> None:
    """Killed at some moment of its work: the next one goes on as if nothing had been."""
    for wait in (0.2, 0.5, 0.8):
        one = start("ledger", "update", "--home", home)
        time.sleep(wait)
        one.kill()
        finish(one)
    ok("ledger", "update", "--home", home)
    ok("ledger", "rebuild", "--home", home)
    assert [row["serial"] for row in shown(home, "devices")] == [SERIAL]


def test_the_tables_are_there_for_other_programs(pushed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("DEVGUARD_STORE", raising=False)
    home = Path(shutil.copytree(pushed, tmp_path / "home"))
    ok("ledger", "update", "--home", home)
    with sqlite3.connect(home / "ledger" / "ledger.sqlite") as conn:
        assert conn.execute("SELECT serial, version FROM devices").fetchall() == [(SERIAL, "1.1.0")]
    conn.close()

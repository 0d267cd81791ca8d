"""A station and its group's store at the command line: sent, fetched, set back, silent, out of step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from cli_support import World, devguard, finish, in_evidence, ok, records, start, until
from devguard.cli import group
from devguard.evidence.log import read_entries
from devguard.evidence.record import encode_entry
from devguard.ledger import group_tables, schema
from devguard.ledger.store import VARIABLE, Store, sqlite_url


@pytest.fixture
def home(world: World, tmp_path: Path) -> Path:
    return world.copy(tmp_path / "one")


def in_store(url: str) -> list[bytes]:
    with Store.open(url) as store, store.read() as conn:
        wanted = select(schema.records.c.entry).order_by(schema.records.c.origin, schema.records.c.index)
        return list(conn.execute(wanted).scalars())


def in_log(home: Path) -> list[bytes]:
    return [encode_entry(entry) for entry in read_entries(home / "evidence")]


def work(world: World, home: Path, times: int = 2) -> None:
    for _ in range(times):
        ok("verify", world.suits["1.0.0"], "--home", home)


def test_sent_and_sent_again(world: World, home: Path, url: str) -> None:
    work(world, home, 3)
    said = ok("ledger", "send", "--home", home, "--json").json
    assert (said["new"], said["records"], said["findings"]) == (3, 3, [])
    assert in_store(url) == in_log(home)[:3]
    (row,) = [one for one in records(home) if one["action"] == "ledger.send"]
    assert (row["details"]["records"], row["details"]["new"]) == ("3", "3")
    assert "has all records" in ok("ledger", "send", "--home", home).out
    assert len(in_log(home)) == 4  # nothing had happened, and nothing went on record
    work(world, home, 1)
    assert ok("ledger", "send", "--home", home, "--json").json["new"] == 2
    assert in_store(url) == in_log(home)[:5]
    ok("evidence", "verify", "--home", home)


def test_without_a_store(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVGUARD_STORE", raising=False)
    assert devguard("ledger", "send", "--home", home).code == "ledger.none"
    assert devguard("ledger", "fetch", "--home", home).code == "ledger.none"
    assert ok("status", "--no-ports", "--json", "--home", home).json["store"] is None
    (home / "config.toml").write_text('[store]\nport = "x"\n')
    assert devguard("ledger", "send", "--home", home).code == "config.malformed"
    (home / "config.toml").write_text("[store]\nurl = 7\n")
    assert devguard("ledger", "send", "--home", home).code == "config.malformed"
    (home / "config.toml").write_text('[store]\nurl = "mysql://u:hunter2@h/d"\n')
    refused = devguard("ledger", "send", "--home", home)
    assert refused.code == "ledger.url"
    assert "hunter2" not in refused.err


def test_a_store_that_config_names(world: World, home: Path, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "group.sqlite")
    (home / "config.toml").write_text(f"[store]\nurl = {json.dumps(url)}\n")
    work(world, home)
    assert ok("ledger", "send", "--home", home, "--json").json["new"] == 2
    assert in_store(url) == in_log(home)[:2]
    assert "group.sqlite" in ok("ledger", "show", "--home", home).out
    assert not (home / "ledger").exists()


WITHOUT = "import sys; sys.modules['sqlalchemy'] = None; from devguard.cli.main import main; main(sys.argv[1:])"


def test_a_bench_alone_needs_no_database(world: World, home: Path, tmp_path: Path) -> None:
    """SQLAlchemy is not installed: what needs no store works, what does says what to install."""
    grant = world.grant(tmp_path / "g.grant", "IP-1", max_uses=1)
    given = ["--key", "tech", "--grant", grant, "--serial", "IP-1", "--home", home]

    def run(*args: object, **environment: str) -> tuple[int, str]:
        command = [sys.executable, "-c", WITHOUT, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    assert VARIABLE == group.VARIABLE
    store = {"DEVGUARD_STORE": sqlite_url(tmp_path / "group.sqlite")}
    assert run("status", "--no-ports", "--home", home)[0] == 0
    status, said = run("status", "--no-ports", "--home", home, **store)
    assert (status, "ledger.package" in said) == (0, True)
    push = ["push", world.suits["1.0.0"], *given, "--port", tmp_path / "no port"]
    assert "link.port" in run(*push)[1]
    assert "ledger.package" in run(*push, **store)[1]
    status, said = run("ledger", "send", "--home", home, **store)
    assert (status, "pip install" in said) == (1, True)


def test_a_store_put_back_from_a_backup(world: World, home: Path, tmp_path: Path) -> None:
    path, backup = tmp_path / "group.sqlite", tmp_path / "backup.sqlite"
    given = ["--store", sqlite_url(path), "--home", home]
    work(world, home)
    ok("ledger", "send", *given)
    shutil.copy(path, backup)
    work(world, home)
    ok("ledger", "send", *given)
    for one in tmp_path.glob("group.sqlite*"):
        one.unlink()
    shutil.copy(backup, path)
    refused = devguard("ledger", "send", *given)
    assert (refused.status, refused.code) == (1, "ledger.rollback")
    assert records(home)[-1]["code"] == "ledger.rollback"
    assert devguard("ledger", "send", *given).code == "ledger.rollback"
    assert len(in_store(sqlite_url(path))) == 2
    ok("ledger", "send", *given, "--again", "the disk of the server failed")
    assert in_store(sqlite_url(path)) == in_log(home)[:-1]
    assert records(home)[-1]["details"]["again"] == "the disk of the server failed"
    ok("ledger", "send", *given)


def test_a_station_put_back_from_a_backup(world: World, home: Path, url: str, tmp_path: Path) -> None:
    work(world, home)
    shutil.copytree(home, tmp_path / "old")
    work(world, home, 3)
    ok("ledger", "send", "--home", home)
    refused = devguard("ledger", "send", "--home", tmp_path / "old")
    assert (refused.status, refused.code) == (1, "ledger.ahead")
    assert in_store(url) == in_log(home)[:5]


def test_a_silent_store(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVGUARD_STORE", "postgresql+psycopg://u:hunter2@127.0.0.1:1/group")
    work(world, home)
    refused = devguard("ledger", "send", "--home", home)
    assert (refused.status, refused.code) == (4, "ledger.unreachable")
    assert "hunter2" not in refused.err
    store = ok("status", "--no-ports", "--json", "--home", home).json["store"]
    assert (store["reachable"], store["code"], store["waiting"]) == (False, "ledger.unreachable", 3)
    assert store["silent_since"] is not None
    assert store["heard"] is None
    out = ok("status", "--no-ports", "--home", home).out
    assert "store  SILENT since" in out
    assert "3 records wait" in out


def test_status_of_a_store(world: World, home: Path, url: str) -> None:
    work(world, home)
    store = ok("status", "--no-ports", "--json", "--home", home).json["store"]
    assert (store["reachable"], store["waiting"], store["findings"]) == (True, 2, [])
    ok("ledger", "send", "--home", home)
    work(world, home, 1)
    store = ok("status", "--no-ports", "--json", "--home", home).json["store"]
    assert (store["waiting"], store["heard"] is not None, store["trust_version"]) == (1, True, 1)
    before = in_log(home)
    assert "1 record waits" in ok("status", "--no-ports", "--home", home).out
    assert in_log(home) == before  # looking writes nothing


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch, url: str) -> dict[str, int]:
    """The database's clock, so many seconds off this machine's."""
    from devguard.ledger import handover, moment

    said = {"by": 0}
    for module in (handover, moment):
        monkeypatch.setattr(module, "database_time", lambda _conn: int(time.time()) + said["by"])
    return said


def test_clocks_apart(world: World, home: Path, off: dict[str, int], url: str) -> None:
    work(world, home)
    for by in (-1000, 1000):
        off["by"] = by
        refused = devguard("ledger", "send", "--home", home)
        assert (refused.status, refused.code) == (1, "clock.skew")
        assert in_store(url) == []
    off["by"] = 100
    found = ok("ledger", "send", "--home", home, "--json").json
    assert [one["code"] for one in found["findings"]] == ["clock.skew"]
    assert "behind" in found["findings"][0]["message"]
    status = ok("status", "--no-ports", "--json", "--home", home).json["store"]
    assert [one["code"] for one in status["findings"]] == ["clock.skew"]


# what the group says


@pytest.fixture
def other(world: World, tmp_path: Path) -> Path:
    return world.copy(tmp_path / "two")


def listed(home: Path, path: Path) -> Path:
    """A signed list that suspends the technician, made at `home`."""
    ok("technician", "add", "tech", "--any-site", "--trained-until", "2090-01-01", "--home", home)
    ok("technician", "suspend", "tech", "--reason", "a lost key", "--home", home)
    ok("technician", "export", "--authority", "authority", "-o", path, "--home", home)
    return path


def test_a_suspension_reaches_every_station(world: World, home: Path, other: Path, url: str, tmp_path: Path) -> None:
    grant = world.grant(tmp_path / "g.grant", "IP-1")
    push = ["push", world.suits["1.0.0"], "--key", "tech", "--grant", grant, "--serial", "IP-1", "--dry-run"]
    ok(*push, "--home", other)
    ok("ledger", "send", "--list", listed(home, tmp_path / "a.list"), "--home", home)
    assert records(home)[-1]["details"]["lists"] == "1"
    assert ok("ledger", "fetch", "--home", home, "--json").json["changed"] == 0  # its own words are nothing new
    said = ok("ledger", "fetch", "--home", other, "--json").json
    assert (said["lists"], said["changed"], said["findings"]) == (1, 2, [])
    assert devguard(*push, "--home", other).code == "grant.revoked"
    imported = [one for one in records(other) if one["action"] == "technician.import"]
    assert [one["details"]["suspended"] for one in imported] == ["Tess Technician"]
    assert ok("ledger", "fetch", "--home", other, "--json").json["changed"] == 0
    assert len([one for one in records(other) if one["action"] == "technician.import"]) == 1
    assert ok("ledger", "send", "--home", other, "--json").json["lists"] == 1


def test_sending_fetches_too(world: World, home: Path, other: Path, url: str, tmp_path: Path) -> None:
    ok("ledger", "send", "--list", listed(home, tmp_path / "a.list"), "--home", home)
    assert ok("ledger", "send", "--home", other, "--json").json["changed"] == 2
    assert "SUSPENDED Tess Technician" in ok("status", "--no-ports", "--home", other).out


def test_the_store_is_not_believed(world: World, home: Path, other: Path, url: str, tmp_path: Path) -> None:
    """Somebody else's list, garbage and one with a broken signature, put there by somebody who may write."""
    good = listed(home, tmp_path / "a.list").read_bytes()
    broken = bytearray(good)
    broken[-1] ^= 1
    bad = [b"\x00" * 40, bytes(broken), good[:-3]]
    with Store.open(url) as store, store.begin() as conn:
        for number, data in enumerate(bad):
            row = {"digest": bytes([number]) * 32, "issued": number, "list": data, "origin": "x", "time": 0}
            conn.execute(group_tables.lists.insert(), row)
    said = ok("ledger", "fetch", "--home", other, "--json").json
    assert (said["lists"], said["changed"]) == (3, 0)
    assert {one["code"] for one in said["findings"]} == {"grant.malformed", "grant.signature"}
    assert records(other)[-1]["details"]["refused"] == "3"
    tmp = tmp_path / "bad.list"
    for data in bad:
        tmp.write_bytes(data)
        refused = devguard("ledger", "send", "--list", tmp, "--home", home)
        assert refused.code in ("grant.malformed", "grant.signature")
    with Store.open(url) as store, store.read() as conn:
        assert len(conn.execute(group_tables.lists.select()).all()) == 3


# trust documents


def rotated(world: World, folder: Path, home: Path) -> Path:
    """Version 2 of the trust document, in use at `home`."""
    shutil.copytree(world.folder / "trust", folder)
    ok("trust", "rotate", folder, "--root", "root", "--expires", "2098-01-01", "--home", home)
    ok("trust", "follow", folder, "--home", home)
    return folder


def test_a_station_that_is_behind_is_told_and_helped(
    world: World, home: Path, other: Path, url: str, tmp_path: Path
) -> None:
    rotated(world, tmp_path / "trust", home)
    ok("ledger", "send", "--home", home)
    found = ok("ledger", "send", "--home", other, "--json").json
    assert [one["code"] for one in found["findings"]] == ["trust.behind"]
    assert "version 1 is in use here, the group has version 2" in found["findings"][0]["message"]
    status = ok("status", "--no-ports", "--json", "--home", other).json["store"]
    assert [one["code"] for one in status["findings"]] == ["trust.behind"]
    ok("ledger", "fetch", "--trust-out", tmp_path / "newer", "--home", other)
    assert ok("trust", "show", "--home", other, "--json").json["version"] == 1  # written out is not followed
    ok("trust", "follow", tmp_path / "newer", "--home", other)
    assert ok("ledger", "send", "--home", other, "--json").json["findings"] == []


def test_a_station_with_another_trust_document(world: World, home: Path, url: str, tmp_path: Path) -> None:
    """Its records are taken, its document is not, and it is told; what the store has of others stays."""
    work(world, home)
    ok("ledger", "send", "--home", home)
    stranger = World.make(tmp_path / "stranger")
    work(stranger, stranger.home)
    said = ok("ledger", "send", "--home", stranger.home, "--json").json
    assert "ledger.trust" in [one["code"] for one in said["findings"]]
    assert records(stranger.home)[-1]["details"]["trust"] == "ledger.trust"
    with Store.open(url) as store, store.read() as conn:
        assert len(conn.execute(select(schema.documents)).all()) == 1
        assert len(conn.execute(select(schema.stations)).all()) == 2


# going on


def test_watch_survives_a_store_that_comes_and_goes(world: World, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "group"
    url = sqlite_url(folder / "group.sqlite")
    work(world, home)
    process = start("ledger", "send", "--watch", "--every", 1, "--store", url, "--home", home)
    until(lambda: in_evidence(home, "ledger.send"), "the first records")
    folder.rename(tmp_path / "away")
    folder.touch()  # no folder: nothing can be opened there
    work(world, home)
    until(lambda: in_evidence(home, "ledger.unreachable"), "the record of that")
    time.sleep(1.5)
    folder.unlink()
    (tmp_path / "away").rename(folder)
    until(lambda: len(in_store(url)) >= 6, "the rest")
    process.send_signal(2)
    said = finish(process)
    assert said.status == 130
    silent = [one["code"] for one in records(home) if one["action"] == "ledger.send" and one["code"] is not None]
    assert [one for one in silent if one != "internal.interrupted"] == [
        "ledger.unreachable"
    ]  # recorded once, however long it lasted
    found = in_store(url)
    assert found == in_log(home)[: len(found)]


@pytest.mark.parametrize("options", [["--again", "x"], ["--list", "x"]])
def test_watch_goes_alone(home: Path, options: list[str]) -> None:
    assert devguard("ledger", "send", "--watch", *options, "--home", home).status == 2


def test_a_store_of_another_version(world: World, home: Path, url: str) -> None:
    with Store.open(url) as store, store.begin() as conn:
        conn.execute(text("UPDATE ledger_version SET version_num = '9999'"))
    assert devguard("ledger", "send", "--home", home).code == "ledger.schema"
    assert ok("status", "--no-ports", "--json", "--home", home).json["store"]["code"] == "ledger.schema"
    assert "store  OF NO USE" in ok("status", "--no-ports", "--home", home).out


def test_what_the_store_keeps_of_this_station_was_changed(world: World, home: Path, url: str) -> None:
    work(world, home, 3)
    ok("ledger", "send", "--home", home)
    with Store.open(url) as store, store.begin() as conn:
        conn.execute(update(schema.stations).values(root=bytes(32)))
    assert devguard("ledger", "send", "--home", home).code == "ledger.malformed"


BAD = [
    ("records", -1), ("records", 0), ("records", (1 << 63) - 1), ("frontier", b""), ("frontier", b"x"),
    ("frontier", bytes(32 * 70)), ("root", b""), ("key", b""), ("key", bytes(31)), ("note", b"\xff" * 99),
    ("latest", -(1 << 62)), ("seen", -(1 << 62)), ("name", "\x1b" * 5000),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), BAD, ids=[f"{name}-{number}" for number, (name, _) in enumerate(BAD)])
def test_a_store_that_somebody_else_fills(world: World, home: Path, tmp_path: Path, column: str, value: object) -> None:
    """Whatever stands there: an answer of our own, and nothing of the station's is lost."""
    url = sqlite_url(tmp_path / "group.sqlite")
    work(world, home)
    ok("ledger", "send", "--store", url, "--home", home)
    with Store.open(url) as store, store.begin() as conn:
        conn.execute(update(schema.stations).values({column: value}))
        conn.execute(update(schema.ledger).values(store="\x1b[31m" * 200))
    work(world, home, 1)
    said = devguard("ledger", "send", "--store", url, "--home", home)
    assert said.status in (0, 1, 3), said.err
    assert "\x1b" not in said.out + said.err
    ok("evidence", "verify", "--home", home)

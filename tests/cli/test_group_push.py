"""A counted grant at several stations of a group: held before the port is opened, given back, spent once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cli_support import World, devguard, emulator, finish, ok, records, start
from devguard.cli import reserve
from devguard.ledger.group_tables import uses
from devguard.ledger.spent import Holder, Wanted
from devguard.ledger.spent import reserve as reserve_uses
from devguard.ledger.store import Store, sqlite_url


@pytest.fixture
def one(world: World, tmp_path: Path) -> Path:
    return world.copy(tmp_path / "one")


@pytest.fixture
def two(world: World, tmp_path: Path) -> Path:
    return world.copy(tmp_path / "two")


def rows(url: str) -> list[dict[str, Any]]:
    with Store.open(url) as store, store.read() as conn:
        return [dict(row) for row in conn.execute(select(uses)).mappings()]


def push(world: World, home: Path, grant: Path, port: str, *more: object, version: str = "1.0.0") -> list[object]:
    given = ["--key", "tech", "--grant", grant, "--port", port, "--progress", "none"]
    return ["push", world.suits[version], *given, "--home", home, *more]


def single_use(world: World, path: Path, **scope: Any) -> Path:
    """A grant for one use on one device."""
    return world.grant(path, "IP-1", **{"max_uses": 1, **scope})


def test_spent_once_in_the_group(world: World, one: Path, two: Path, url: str, tmp_path: Path) -> None:
    grant = single_use(world, tmp_path / "g.grant")
    with emulator(world, tmp_path, "IP-1") as device:
        ok(*push(world, one, grant, device.port))
        (row,) = rows(url)
        assert (row["serial"], row["spent"], row["until"], row["number"]) == ("IP-1", True, 0, 1)
        assert records(one)[-1]["details"]["group-store"] == "holds the grant's use"
        refused = devguard(*push(world, two, grant, str(tmp_path / "no port"), version="1.1.0"))
        assert (refused.status, refused.code) == (1, "grant.replay")  # before a port was looked for
        last = records(two)[-1]
        assert (last["action"], last["code"]) == ("release.push", "grant.replay")
        assert rows(url) == [row]
        again = devguard(*push(world, two, grant, device.port))  # the same device and release is the same use
        assert again.code == "version.current"
        assert [(now["spent"], now["until"]) for now in rows(url)] == [(True, 0)]


def test_what_spends_nothing_is_given_back(world: World, one: Path, two: Path, url: str, tmp_path: Path) -> None:
    grant = single_use(world, tmp_path / "g.grant")
    ok(*push(world, one, grant, "x", "--dry-run"))
    assert rows(url) == []
    assert devguard(*push(world, one, grant, str(tmp_path / "no port"))).code == "link.port"
    assert [(row["spent"], row["until"]) for row in rows(url)] == [(False, 0)]
    with emulator(world, tmp_path, "IP-1", "--fault", "alarm") as device:
        refused = devguard(*push(world, two, grant, device.port))
        assert (refused.status, refused.code) == (5, "device.alarm")  # asked, and it said no before it took anything
        assert [row["spent"] for row in rows(url)] == [False]
    with emulator(world, tmp_path, "IP-1") as device:
        ok(*push(world, one, grant, device.port, version="1.1.0"))
    assert [row["spent"] for row in rows(url)] == [True]


def test_grants_that_are_not_counted_ask_nobody(world: World, one: Path, url: str, tmp_path: Path) -> None:
    grant = single_use(world, tmp_path / "g.grant", max_uses=None)
    with emulator(world, tmp_path, "IP-1") as device:
        ok(*push(world, one, grant, device.port))
    assert rows(url) == []


def test_two_processes_at_once(world: World, one: Path, two: Path, url: str, tmp_path: Path) -> None:
    """Two devices that say the same serial number, and would both take it: the store is faster."""
    grant = single_use(world, tmp_path / "g.grant")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    with emulator(world, tmp_path / "a", "IP-1") as first, emulator(world, tmp_path / "b", "IP-1") as second:
        wanted = [
            push(world, home, grant, device.port, "--json", version=version)
            for home, device, version in zip((one, two), (first, second), world.suits, strict=True)
        ]
        done = [finish(process, 90) for process in [start(*one) for one in wanted]]
    assert sorted(result.status for result in done) == [0, 1]
    loser = max(done, key=lambda result: result.status)
    assert loser.json["code"] == "grant.replay"
    assert [row["spent"] for row in rows(url)] == [True]


def test_without_the_store_the_device_decides_and_it_is_said(
    world: World, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVGUARD_STORE", "postgresql+psycopg://u:hunter2@127.0.0.1:1/group")
    grant = single_use(world, tmp_path / "g.grant")
    with emulator(world, tmp_path, "IP-1") as device:
        done = ok(*push(world, one, grant, device.port))
        assert "the group's store does not help (ledger.unreachable); held here: trust version 1" in done.err
        assert "hunter2" not in done.err
        assert records(one)[-1]["details"]["group-store"].startswith("ledger.unreachable: held here")
        again = devguard(*push(world, one, grant, device.port, version="1.1.0"))
        assert again.code == "grant.replay"  # by what this station remembers, and by the device
    assert ok("status", "--no-ports", "--json", "--home", one).json["store"]["silent_since"] is not None


def test_a_store_that_dies_in_mid_push(
    world: World, one: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease stands, the push goes on, and the evidence that comes later says what became of it."""
    path = tmp_path / "group.sqlite"
    url = sqlite_url(path)
    Store.open(url).close()
    monkeypatch.setenv("DEVGUARD_STORE", url)
    grant = single_use(world, tmp_path / "g.grant")
    real = reserve.Reservation.offer

    def dying(self: reserve.Reservation) -> None:
        path.rename(tmp_path / "away")
        path.mkdir()
        real(self)

    with emulator(world, tmp_path, "IP-1") as device:
        with monkeypatch.context() as patch:
            patch.setattr(reserve.Reservation, "offer", dying)
            done = ok(*push(world, one, grant, device.port))
        assert "the group's store does not help" in done.err
    path.rmdir()
    (tmp_path / "away").rename(path)
    assert [row["spent"] for row in rows(url)] == [False]
    other = push(world, two, grant, str(tmp_path / "x"), version="1.1.0")
    assert devguard(*other).code == "grant.replay"  # the lease stands
    ok("ledger", "send", "--home", one)
    with Store.open(url) as store, store.begin() as conn:
        conn.execute(uses.update().values(until=0))  # and has ended
    assert devguard(*other).code == "grant.replay"  # by the evidence


def test_a_lease_is_renewed_while_a_push_lives(
    world: World, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threading.Event()

    class Found:
        def renew(self) -> None:
            seen.set()

    monkeypatch.setattr("devguard.ledger.spent.LEASE", 0.05)
    with reserve._renewed(Found()):  # type: ignore[arg-type] # only what it asks of it
        assert seen.wait(10)


def test_nothing_is_renewed_after_the_end(world: World, one: Path, url: str) -> None:
    """The thread may wake up once more."""
    wanted, holder = Wanted(b"u" * 16, b"g" * 32, 1, "update", b"r" * 32, "IP-1"), Holder("o", "r")
    with Store.open(url) as store:
        held = reserve.Reservation(None, store, holder, store.run(lambda conn: reserve_uses(conn, [wanted], holder)))
        held.renew()
        assert rows(url)[0]["until"] > 0
        held.end(None)
        held.renew()
    assert rows(url)[0]["until"] == 0


def test_reading_a_log_spends_a_use_too(world: World, one: Path, two: Path, url: str, tmp_path: Path) -> None:
    grant = single_use(world, tmp_path / "g.grant", actions=frozenset(["read-log"]))
    with emulator(world, tmp_path, "IP-1") as device:
        given = ["device", "log", "--key", "tech", "--grant", grant, "--port", device.port, "--serial", "IP-1"]
        ok(*given, "--home", one)
        assert [(row["action"], row["spent"]) for row in rows(url)] == [("read-log", True)]
        assert devguard(*given, "--home", two).code == "grant.replay"

"""The database role of a station, as docs/group.md has it: enough for all a station does, and for nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import text

import postgres as postgresql
from cli_support import ROOT, World, devguard, ok
from devguard.errors import DevguardError
from devguard.ledger.spent import Holder, Wanted, reserve
from devguard.ledger.store import Store

STATION = "bench7"


@pytest.fixture
def role_url(postgres: postgresql.Server, postgres_url: str) -> str:
    """The URL of a store as a station's role has it; the role is made by the statements of the page."""
    page = (ROOT / "docs" / "group.md").read_text()
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    statements = next(block for block in blocks if "devguard_station NOLOGIN" in block)
    database = postgres_url.rpartition("/")[2]
    for one in ("bench7", "devguard_station"):
        postgres.execute(f"DROP ROLE IF EXISTS {one}")
    for statement in filter(str.strip, statements.split(";")):
        postgres.execute(statement, database)
    yield postgres_url.replace(f"{postgresql.USER}@", f"{STATION}@")
    postgres.execute("DROP OWNED BY devguard_station, bench7 CASCADE", database)
    postgres.execute("DROP ROLE bench7")
    postgres.execute("DROP ROLE devguard_station")


def test_a_station_can_do_all_it_does(world: World, role_url: str, tmp_path: Path) -> None:
    home = world.copy(tmp_path / "one")
    ok("verify", world.suits["1.0.0"], "--home", home)
    ok("technician", "add", "tech", "--any-site", "--trained-until", "2090-01-01", "--home", home)
    ok("technician", "suspend", "tech", "--reason", "x", "--home", home)
    ok("technician", "export", "--authority", "authority", "-o", tmp_path / "l", "--home", home)
    store = ["--store", role_url, "--home", home]
    assert ok("ledger", "send", *store, "--list", tmp_path / "l", "--json").json["new"] == 4
    assert ok("ledger", "send", *store, "--json").json["findings"] == []
    assert ok("ledger", "fetch", *store, "--json").json["lists"] == 1
    with Store.open(role_url) as opened:
        wanted = Wanted(b"u" * 16, b"g" * 32, 1, "update", b"r" * 32, "IP-1")
        opened.run(lambda conn: reserve(conn, [wanted], Holder("o", "r")))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE records SET entry = 'x'", "DELETE FROM records", "DELETE FROM stations", "UPDATE stations SET key = 'x'",
     "UPDATE stations SET origin = 'x'", "DELETE FROM documents", "UPDATE documents SET version = 9",
     "DELETE FROM lists", "UPDATE lists SET issued = 9", "DELETE FROM uses", "UPDATE ledger SET store = 'x'",
     "DELETE FROM ledger", "TRUNCATE records", "DROP TABLE records", "UPDATE ledger_version SET version_num = '0'",
     "CREATE TABLE mine (x INTEGER)"],
)  # fmt: skip
def test_and_nothing_else(world: World, role_url: str, tmp_path: Path, statement: str) -> None:
    with Store.open(role_url) as store, pytest.raises(DevguardError) as caught, store.begin() as conn:
        conn.execute(text(statement))
    assert caught.value.code == "ledger.unreachable"
    assert any(word in caught.value.message for word in ("permission denied", "must be owner"))


def test_a_store_without_tables_is_made_by_its_owner(postgres: postgresql.Server, role_url: str, world: World,
                                                     tmp_path: Path) -> None:  # fmt: skip
    home = world.copy(tmp_path / "one")
    url = postgres.database().replace(f"{postgresql.USER}@", f"{STATION}@")
    refused = devguard("ledger", "send", "--store", url, "--home", home)
    assert (refused.status, refused.code) == (4, "ledger.unreachable")

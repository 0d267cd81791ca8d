"""A PostgreSQL server that goes away, comes back, or has no room: coded answers, nothing half written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import postgres as postgresql
from devguard.errors import DevguardError, LinkError
from devguard.ledger.schema import stations
from devguard.ledger.store import Store

ROW = {"key": b"k", "thumbprint": b"t", "records": 0, "root": b"r", "frontier": b""}


@pytest.fixture(scope="module")
def own() -> Iterator[postgresql.Server]:
    """A server that no other module has."""
    with postgresql.server() as one:
        yield one


@pytest.fixture
def server(own: postgresql.Server) -> Iterator[postgresql.Server]:
    """The same, up and empty handed whatever the test before has done to it."""
    yield own
    own.restart(kill=True)


def count(store: Store) -> int:
    with store.read() as conn:
        return len(conn.execute(stations.select()).all())


def test_a_server_killed_in_a_transaction(server: postgresql.Server) -> None:
    with Store.open(server.ledger()) as store:
        with store.begin() as conn:
            conn.execute(stations.insert(), {"origin": "kept", **ROW})
        with pytest.raises(LinkError) as caught, store.begin() as conn:
            conn.execute(stations.insert(), {"origin": "lost", **ROW})
            server.kill()
            conn.execute(stations.insert(), {"origin": "lost too", **ROW})
        assert caught.value.code == "ledger.unreachable"
        with pytest.raises(LinkError) as caught:
            count(store)
        assert caught.value.code == "ledger.unreachable"
        server.start()
        assert count(store) == 1  # by the same store, which finds that its connections are gone
        with pytest.raises(LinkError) as caught, store.begin() as conn:
            conn.execute(stations.insert(), {"origin": "not known", **ROW})
            server.kill()  # after the last statement: the commit itself finds nobody
        assert caught.value.code == "ledger.unreachable"
        server.start()
        assert count(store) == 1
        server.restart()
        assert count(store) == 1


def test_a_connection_that_an_administrator_ends(server: postgresql.Server) -> None:
    with Store.open(server.ledger()) as store:
        with pytest.raises(LinkError) as caught, store.begin() as conn:
            conn.execute(stations.insert(), {"origin": "lost", **ROW})
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 't%'")
            conn.execute(stations.select())
        assert caught.value.code == "ledger.unreachable"
        assert count(store) == 0


def test_a_server_that_takes_no_more_connections(server: postgresql.Server) -> None:
    url = server.ledger()
    name = url.rpartition("/")[2]
    server.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
    server.execute("CREATE ROLE other LOGIN")
    with pytest.raises(DevguardError) as caught:
        Store.open(url.replace("devguard@", "other@"))
    assert caught.value.code == "ledger.unreachable"

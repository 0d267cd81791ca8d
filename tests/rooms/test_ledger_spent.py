"""Uses of grants held in the store: one push for each, whoever tries, in whatever order, however many at once.

Invariant: no more uses of a grant are bound to a device and release than it has, and what was offered to a device is
never bound to another.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, select

from devguard.errors import DevguardError
from devguard.ledger import spent
from devguard.ledger.group_tables import lists, metadata, uses
from devguard.ledger.schema import grant_uses
from devguard.ledger.spent import LEASE, Holder, Use, Wanted, give_back, offered, renew, reserve
from devguard.ledger.store import Store, sqlite_url

A, B, C = Holder("devguard/a", "push-a"), Holder("devguard/b", "push-b"), Holder("devguard/c", "push-c")
R1, R2 = (hashlib.sha256(word).digest() for word in (b"1.0.0", b"1.1.0"))
_names = count()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The database's clock."""
    said = {"now": 1_800_000_000}
    monkeypatch.setattr(spent, "database_time", lambda _conn: said["now"])
    return said


def want(serial: str = "IP-1", release: bytes = R1, *, limit: int = 1, under: bytes = b"g" * 16) -> Wanted:
    return Wanted(under, hashlib.sha256(under).digest(), limit, "update", release, serial)


def hold(store: Store, holder: Holder, *wanted: Wanted) -> tuple[Use, ...]:
    return store.run(lambda conn: reserve(conn, wanted, holder))


def offer(store: Store, holder: Holder, found: tuple[Use, ...]) -> tuple[Use, ...]:
    return store.run(lambda conn: tuple(offered(conn, one, holder) for one in found))


def back(store: Store, holder: Holder, found: tuple[Use, ...], *, unspent: bool) -> None:
    store.run(lambda conn: give_back(conn, found, holder, unspent=unspent))


def refused(code: str, work: Any, *args: Any) -> str:
    with pytest.raises(DevguardError) as caught:
        work(*args)
    assert caught.value.code == code
    return caught.value.message


def test_the_revision_makes_the_tables_that_the_code_speaks_to(store: Store) -> None:
    with store.read() as conn:
        found = inspect(conn)
        for table in (uses, lists):
            assert found.get_pk_constraint(table.name)["constrained_columns"] == list(table.primary_key.columns.keys())
            nullable = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
            assert nullable == {column.name: column.nullable for column in table.columns}
    assert set(metadata.tables) == {"uses", "lists"}


def test_a_second_station_is_refused_at_once(store: Store) -> None:
    mine = hold(store, A, want())
    assert "devguard/a" in refused("grant.replay", hold, store, B, want())  # the same device and release
    refused("grant.replay", hold, store, B, want("IP-2"))
    refused("grant.replay", hold, store, B, want(release=R2))
    assert hold(store, A, want()) == mine  # who holds it holds it


def test_a_station_that_died_in_a_push_and_is_back_goes_on(store: Store) -> None:
    offer(store, A, hold(store, A, want()))
    again = Holder(A.origin, "push-a again")
    assert hold(store, again, want())[0].before
    refused("grant.replay", hold, store, again, want(release=R2))


def test_rows_that_somebody_else_wrote(store: Store) -> None:
    row = {"under": b"g" * 16, "number": 1, "grant": b"", "action": "x", "release": b"", "serial": "", "spent": True}
    odd = {"origin": "\x1b[31m" * 5000, "request": "", "time": -(1 << 62), "until": (1 << 62)}
    with store.begin() as conn:
        conn.execute(uses.insert(), {**row, **odd})
    message = refused("grant.replay", hold, store, A, want())
    assert len(message) < 300
    assert "\x1b" not in message


def test_what_was_never_offered_is_given_back(store: Store) -> None:
    back(store, A, hold(store, A, want()), unspent=True)
    mine = hold(store, B, want("IP-2"))
    refused("grant.replay", hold, store, A, want())
    back(store, B, offer(store, B, mine), unspent=False)
    refused("grant.replay", hold, store, A, want())
    (again,) = hold(store, C, want("IP-2"))  # the same device and release: resumed, from any station
    assert again.before
    back(store, C, (again,), unspent=True)
    refused("grant.replay", hold, store, A, want())  # what an earlier push offered stays bound


def test_what_the_device_refused_is_given_back(store: Store) -> None:
    back(store, A, offer(store, A, hold(store, A, want())), unspent=True)
    hold(store, B, want("IP-2"))


def test_several_uses(store: Store) -> None:
    for number, holder in enumerate((A, B, C), 1):
        (one,) = hold(store, holder, want(f"IP-{number}", limit=3))
        assert one.number == number
        back(store, holder, offer(store, holder, (one,)), unspent=False)
    message = refused("grant.replay", hold, store, A, want("IP-4", limit=3))
    assert "all 3 uses" in message
    hold(store, A, want("IP-2", limit=3))


def test_a_chain_is_held_whole_or_not_at_all(store: Store) -> None:
    parent, child = want(under=b"p" * 16), want(under=b"p" * 16 + b"c" * 16, limit=5)
    hold(store, A, parent)
    refused("grant.replay", hold, store, B, child, want("IP-2", under=b"p" * 16))
    with store.read() as conn:
        assert len(conn.execute(select(uses)).all()) == 1


# stations that die


def test_a_lease_ends_and_is_renewed(store: Store, clock: dict[str, int]) -> None:
    mine = hold(store, A, want())
    clock["now"] += LEASE - 1
    refused("grant.replay", hold, store, B, want("IP-2"))
    store.run(lambda conn: renew(conn, mine, A))
    clock["now"] += LEASE - 1
    refused("grant.replay", hold, store, B, want("IP-2"))
    clock["now"] += 2
    theirs = hold(store, B, want("IP-2"))  # nothing was offered, as far as the store knows
    refused("grant.replay", offer, store, A, mine)  # and who was thought dead does not go on
    store.run(lambda conn: renew(conn, mine, A))
    back(store, A, mine, unspent=True)
    assert offer(store, B, theirs)


def test_what_a_dead_station_had_offered_stays_bound(store: Store, clock: dict[str, int]) -> None:
    offer(store, A, hold(store, A, want()))
    clock["now"] += LEASE + 1
    refused("grant.replay", hold, store, B, want("IP-2"))
    assert hold(store, B, want())[0].before


def test_evidence_of_a_push_without_the_store_counts(store: Store, clock: dict[str, int]) -> None:
    """The network went before the offer; the records came later."""
    hold(store, A, want())
    clock["now"] += LEASE + 1
    with store.begin() as conn:
        _evidence(conn, "IP-1", R1)
    refused("grant.replay", hold, store, B, want("IP-2"))
    assert hold(store, B, want())
    two = want("IP-2", limit=2)
    clock["now"] += LEASE + 1
    assert hold(store, C, two)[0].number == 2


def test_evidence_of_a_push_that_no_store_knew_of(store: Store) -> None:
    with store.begin() as conn:
        _evidence(conn, "IP-1", R1)
    assert "records" in refused("grant.replay", hold, store, A, want("IP-2"))
    assert hold(store, A, want())[0].number == 1


def _evidence(conn: Any, serial: str, release: bytes) -> None:
    row = {"grant": want().grant, "serial": serial, "release": release, "request": "x", "time": 1, "origin": "o"}
    conn.execute(grant_uses.insert(), {**row, "index": 1})


# at once


@pytest.mark.parametrize("limit", [1, 3])
def test_many_at_once(ledger_url: str, limit: int) -> None:
    Store.open(ledger_url).close()
    start, got, lost = threading.Barrier(8), [], []

    def station(number: int) -> None:
        with Store.open(ledger_url) as mine:
            start.wait()
            try:
                got.extend(hold(mine, Holder(f"devguard/{number}", "r"), want(f"IP-{number}", limit=limit)))
            except DevguardError as error:
                lost.append(error.code)

    threads = [threading.Thread(target=station, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(one.number for one in got) == list(range(1, limit + 1))
    assert lost == ["grant.replay"] * (8 - limit)


def test_the_same_push_at_two_stations_at_once(ledger_url: str) -> None:
    Store.open(ledger_url).close()
    for _ in range(5):
        start, got, lost = threading.Barrier(2), [], []
        wanted = want(under=f"grant {next(_names)}".encode().ljust(16))

        def station(
            holder: Holder, wanted: Wanted = wanted, start: Any = start, got: Any = got, lost: Any = lost
        ) -> None:
            with Store.open(ledger_url) as mine:
                start.wait()
                try:
                    got.extend(hold(mine, holder, wanted))
                except DevguardError as error:
                    lost.append(error.code)

        threads = [threading.Thread(target=station, args=(one,)) for one in (A, B)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (len(got), lost) == (1, ["grant.replay"])


# in whatever order

HOLDERS = st.sampled_from([A, B, C])
STEP = st.one_of(
    st.tuples(st.just("hold"), HOLDERS, st.sampled_from(["IP-1", "IP-2"]), st.sampled_from([R1, R2])),
    st.tuples(st.just("offer"), HOLDERS, st.none(), st.just(R1)),
    st.tuples(st.sampled_from(["back", "spent"]), HOLDERS, st.none(), st.just(R1)),
    st.tuples(st.just("later"), HOLDERS, st.none(), st.just(R1)),
)


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(sqlite_url(tmp_path_factory.mktemp("spent") / "store.sqlite")) as store:
        yield store


@settings(max_examples=40)
@given(steps=st.lists(STEP, max_size=12), limit=st.integers(1, 2))
def test_no_more_uses_than_there_are(one_store: Store, steps: list[Any], limit: int) -> None:
    store, under = one_store, f"property {next(_names)}".encode().ljust(16)
    now, codes = [1_800_000_000], set[str]()
    held: dict[Holder, tuple[Use, ...]] = {}
    asked: dict[Holder, bool] = {}
    bound: set[tuple[str, bytes]] = set()  # what devices may have spent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spent, "database_time", lambda _conn: now[0])
        for what, holder, serial, release in steps:
            try:
                if what == "hold" and holder not in held:
                    held[holder] = hold(store, holder, want(serial, release, limit=limit, under=under))
                    asked[holder] = False
                elif what == "offer" and holder in held and not asked[holder]:
                    held[holder] = offer(store, holder, held[holder])
                    asked[holder] = True
                    bound.add((held[holder][0].wanted.serial, held[holder][0].wanted.release))
                elif what in ("back", "spent") and holder in held:
                    back(store, holder, held.pop(holder), unspent=not asked[holder])
                elif what == "later":
                    now[0] += LEASE + 1
            except DevguardError as error:
                codes.add(error.code)
            assert len(bound) <= limit
    assert codes <= {"grant.replay"}

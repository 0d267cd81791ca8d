"""A station's log handed over to a group's store, whatever ends it, and however often it is tried.

Invariant: what the store has of a station is the beginning of its log, record for record; what is refused or cut off
leaves a store as it was, or with whole portions more.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

import postgres as postgresql
from builders import NOW, changed, make_signer, make_vendor
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, LinkError
from devguard.evidence.checkpoint import Checkpoint, open_checkpoint, origin_of, sign_checkpoint
from devguard.evidence.log import EvidenceLog, read_entries
from devguard.evidence.record import Record, decode_entry, encode_entry
from devguard.ledger import handover, schema
from devguard.ledger.documents import add_documents
from devguard.ledger.handover import Handed, Limits, Station, hand_over
from devguard.ledger.level import Anchor
from devguard.ledger.store import Store, sqlite_url
from devguard.ledger.take import Taken, held, lock, take

KEY = make_signer(Algorithm.ED25519, "station handover")
SMALL = Limits(records=4)


class Crash(Exception):
    """The process ended here."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture(autouse=True)
def _database_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "database_time", lambda _conn: NOW + 500)


def log_of(folder: Path, count: int, signer: MemorySigner = KEY, *, actor: str = "Tess") -> EvidenceLog:
    """The log with `count` records more."""
    log = EvidenceLog.open(folder, signer, lambda: NOW)
    for number in range(log.size, log.size + count):
        fields = {"device": f"IP-{number % 3}", "request": f"r-{number}"}
        log.append(Record.make(time=NOW + number, actor=actor, action="device.info", **fields))
    return log


def station(folder: Path, signer: MemorySigner = KEY, *, now: int = NOW + 500) -> Station:
    return Station(folder, signer, lambda: now, "bench 7")


def send(store: Store, folder: Path, anchor: Anchor | None = None, by: Station | None = None, **options: Any) -> Handed:
    given = {"anchors": lambda _store: anchor, "limits": SMALL, **options}
    return hand_over(store, by or station(folder), **given)


def in_store(store: Store, origin: str = origin_of(KEY.key)) -> list[bytes]:
    """The records of a station that the store has, and that they fit what it says of itself."""
    with store.read() as conn:
        mine = schema.records.c.origin == origin
        found = list(
            conn.execute(select(schema.records.c.entry).where(mine).order_by(schema.records.c.index)).scalars()
        )
        known = held(conn, origin)
        note = conn.execute(select(schema.stations.c.note).where(schema.stations.c.origin == origin)).scalar()
    assert known.records == len(found)
    if note is not None:
        assert open_checkpoint(note, KEY.key) == Checkpoint(origin, known.records, known.root)
    return found


def in_log(folder: Path) -> list[bytes]:
    return [encode_entry(entry) for entry in read_entries(folder)]


def refused(code: str, work: Callable[[], object]) -> DevguardError:
    with pytest.raises(DevguardError) as caught:
        work()
    assert caught.value.code == code, caught.value
    return caught.value


# what goes well


def test_a_log_in_portions_and_then_what_is_new(store: Store, folder: Path) -> None:
    log = log_of(folder, 10)
    seen: list[Taken] = []
    first = send(store, folder, watch=seen.append)
    assert (first.new, first.portions, [one.records for one in seen]) == (10, 3, [4, 8, 10])
    assert first.anchor == Anchor(first.store, 10, log.checkpoint.root)
    assert in_store(store) == in_log(folder)
    assert send(store, folder, first.anchor).anchor is None
    log_of(folder, 3)
    later = send(store, folder, first.anchor)
    assert (later.new, later.portions) == (3, 1)
    assert in_store(store) == in_log(folder)
    with store.read() as conn:
        row = conn.execute(select(schema.stations)).mappings().one()
    assert (row["name"], row["seen"]) == ("bench 7", NOW + 500)


def test_records_of_sending_alone_are_not_sent(store: Store, folder: Path) -> None:
    log = log_of(folder, 3)
    said = send(store, folder).anchor
    assert said is not None
    note = Record.make(time=NOW + 9, actor="devguard", action="ledger.send", request="s", details=said.details())
    log.append(note)
    assert send(store, folder).anchor is None
    log_of(folder, 1)
    assert send(store, folder).new == 2
    assert in_store(store) == in_log(folder)


def test_a_portion_ends_at_its_bytes_too(store: Store, folder: Path) -> None:
    log_of(folder, 6)
    assert send(store, folder, limits=Limits(records=500, bytes=1)).portions == 6
    assert in_store(store) == in_log(folder)


def test_several_stations_in_one_store(store: Store, tmp_path: Path) -> None:
    other = make_signer(Algorithm.ED25519, "another station")
    log_of(tmp_path / "a", 5)
    log_of(tmp_path / "b", 6, other)
    send(store, tmp_path / "a")
    send(store, tmp_path / "b", by=station(tmp_path / "b", other))
    assert in_store(store) == in_log(tmp_path / "a")
    with store.read() as conn:
        assert held(conn, origin_of(other.key)).records == 6


# what ends it


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_cut_off_at_every_portion(
    store: Store, folder: Path, at: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(folder, 10)
    with monkeypatch.context() as patch:
        _break(patch, at, where)
        with pytest.raises(Crash):
            send(store, folder)
    whole = [0, 4, 8, 10][at + (where == "after")]
    assert in_store(store) == in_log(folder)[:whole]
    assert send(store, folder).new == 10 - whole
    assert in_store(store) == in_log(folder)


def _break(patch: pytest.MonkeyPatch, at: int, where: str) -> None:
    """Crash at portion `at`: before its transaction, inside it once all is written, or after its commit."""
    left = [at]
    real = handover._take if where != "inside" else take

    def broken(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            return real(*args, **options)
        if where != "before":
            real(*args, **options)
        raise Crash

    patch.setattr(handover, "take" if where == "inside" else "_take", broken)


CHILD = """
import os, signal, sys
from pathlib import Path
from devguard.cose.algorithms import Algorithm
from devguard.ledger import handover
from devguard.ledger.handover import Limits, Station, hand_over
from devguard.ledger.store import Store
sys.path[:0] = [sys.argv[3] + "/tests"]
from builders import NOW, make_signer
handover.database_time = lambda _conn: NOW + 500
at, where = int(sys.argv[4]), sys.argv[5]
real, seen = handover.take, []
def dying(*args, **options):
    taken = real(*args, **options)
    seen.append(1)
    if len(seen) > at:
        os.kill(os.getpid(), signal.SIGKILL)
    return taken
def watch(_taken):
    if len(seen) >= at:
        os.kill(os.getpid(), signal.SIGKILL)
if where == "inside":
    handover.take = dying
else:
    handover.take = lambda *args, **options: (seen.append(1), real(*args, **options))[1]
key = make_signer(Algorithm.ED25519, "station handover")
with Store.open(sys.argv[1]) as store:
    hand_over(store, Station(Path(sys.argv[2]), key, lambda: NOW + 500), anchors=lambda _: None,
              limits=Limits(records=4), watch=watch if where == "after" else lambda _: None)
"""


@pytest.mark.parametrize(("at", "where", "whole"), [(1, "inside", 4), (2, "after", 8)])
def test_a_process_that_is_killed(store: Store, folder: Path, at: int, where: str, whole: int) -> None:
    log_of(folder, 10)
    root = Path(__file__).resolve().parents[2]
    arguments = [store.url, folder, root, at, where]
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert in_store(store) == in_log(folder)[:whole]
    assert send(store, folder).new == 10 - whole
    assert in_store(store) == in_log(folder)


@pytest.fixture
def server() -> Iterator[postgresql.Server]:
    with postgresql.server() as one:
        yield one


def test_a_database_that_vanishes_in_mid_transaction(
    server: postgresql.Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(folder, 10)
    with Store.open(server.ledger()) as store:
        calls = []

        def vanishing(*args: Any, **options: Any) -> Taken:
            taken = take(*args, **options)
            calls.append(1)
            if len(calls) == 2:
                server.kill()
            return taken

        with monkeypatch.context() as patch:
            patch.setattr(handover, "take", vanishing)
            with pytest.raises(LinkError) as caught:
                send(store, folder)
        assert caught.value.code == "ledger.unreachable"
        assert refused("ledger.unreachable", lambda: send(store, folder)).exit_status == 4
        server.start()
        assert in_store(store) == in_log(folder)[:4]
        assert send(store, folder).new == 6
        assert in_store(store) == in_log(folder)


# twice, and at once


def test_the_same_portion_delivered_twice(store: Store, folder: Path) -> None:
    log_of(folder, 10)
    leaves = in_log(folder)
    send(store, folder)
    edge = handover.Frontier()
    for leaf in leaves[:4]:
        edge.append(handover.leaf_hash(leaf))
    note = sign_checkpoint(Checkpoint(origin_of(KEY.key), 4, edge.root()), KEY)
    with store.begin() as conn:
        assert take(conn, KEY.key, 0, leaves[:4], note, now=NOW).new == 0
    assert in_store(store) == leaves


def test_two_senders_of_one_station_at_once(ledger_url: str, folder: Path) -> None:
    log_of(folder, 40)
    start, done, failed = threading.Barrier(3), [], []

    def sender() -> None:
        with Store.open(ledger_url) as mine:
            start.wait()
            try:
                for _ in range(4):
                    done.append(send(mine, folder).new)
            except DevguardError as error:
                failed.append(error)

    Store.open(ledger_url).close()
    threads = [threading.Thread(target=sender) for _ in range(2)]
    for thread in threads:
        thread.start()
    start.wait()
    log_of(folder, 20)  # and the log goes on meanwhile
    for thread in threads:
        thread.join(60)
    assert not failed
    with Store.open(ledger_url) as store:
        done.append(send(store, folder).new)
        assert sum(done) == 60  # each record was new once
        assert in_store(store) == in_log(folder)


def test_a_sender_that_finishes_meanwhile_is_no_sign_of_a_store_set_back(store: Store, folder: Path) -> None:
    log_of(folder, 6)

    def anchors(_store: str) -> Anchor | None:
        return send(store, folder).anchor  # another sender, all the way to its record

    assert hand_over(store, station(folder), anchors=anchors).anchor is None
    assert in_store(store) == in_log(folder)


def test_a_sender_that_was_overtaken_looks_again(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_of(folder, 4)
    real, calls = handover.look, []

    def slow(one: Store, origin: str) -> Any:
        calls.append(1)
        if len(calls) == 1:
            send(store, folder)  # another sender, while this one has not looked yet
            old = shutil.copytree(folder, folder.parent / "old")
            log_of(folder, 4)
            send(store, folder)
            monkeypatch.setattr(handover, "since", lambda *args: _since(old, *args[1:]))
            return real(one, origin)
        monkeypatch.setattr(handover, "since", _since)
        return real(one, origin)

    _since = handover.since
    monkeypatch.setattr(handover, "look", slow)
    assert send(store, folder).anchor is None
    assert in_store(store) == in_log(folder)


# what is refused


def test_a_store_that_was_set_back(store: Store, folder: Path, tmp_path: Path) -> None:
    log_of(folder, 8)
    old = send(store, folder)
    log_of(folder, 4)
    anchor = send(store, folder, old.anchor).anchor
    assert anchor is not None
    with Store.open(sqlite_url(tmp_path / "backup.sqlite")) as back:
        _named(back, anchor.store)
        refused("ledger.rollback", lambda: send(back, folder, anchor))
        assert in_store(back) == []
        assert send(back, folder, anchor, again=True).new == 12
        assert in_store(back) == in_log(folder)
        assert send(back, folder, anchor).anchor is None


def _named(store: Store, name: str) -> None:
    with store.begin() as conn:
        conn.execute(update(schema.ledger).values(store=name))


def test_another_store_has_promised_nothing(store: Store, folder: Path) -> None:
    log_of(folder, 3)
    assert send(store, folder, Anchor("of another", 99, bytes(32))).new == 3


def test_a_station_that_was_set_back(store: Store, folder: Path) -> None:
    log_of(folder, 5)
    old = shutil.copytree(folder, folder.parent / "old")
    log_of(folder, 5)
    send(store, folder)
    error = refused("ledger.ahead", lambda: send(store, old))
    assert "5 records" in error.message
    assert "10" in error.message
    refused("ledger.ahead", lambda: send(store, old, again=True))
    log_of(old, 7, actor="Tom")  # it goes on, and is longer now, but another one
    refused("ledger.differs", lambda: send(store, old))
    refused("ledger.differs", lambda: send(store, old, again=True))
    assert in_store(store) == in_log(folder)


def test_a_log_that_was_changed(store: Store, folder: Path) -> None:
    log_of(folder, 10)
    path = next(folder.glob("*.log")) if list(folder.glob("*.log")) else max(folder.iterdir())
    data = bytearray(path.read_bytes())
    data[data.rindex(b"r-6") + 2] ^= 1
    path.write_bytes(data)
    refused("log.tampered", lambda: send(store, folder))
    assert in_store(store) == []  # the first portion would have held, and was not sent


def test_a_log_that_is_changed_between_the_two_readings(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(folder, 10)
    forged = in_log(folder)
    forged[5] = encode_entry(replace(decode_entry(forged[5]), body=decode_entry(forged[4]).body))
    real, calls = handover.since, []

    def second(*args: Any) -> Any:
        calls.append(1)
        head, leaves = real(*args)
        return head, leaves if len(calls) == 1 else iter(forged)

    monkeypatch.setattr(handover, "since", second)
    refused("log.tampered", lambda: send(store, folder))
    assert in_store(store) == in_log(folder)[:4]


def test_clocks_that_are_too_far_apart(store: Store, folder: Path) -> None:
    log_of(folder, 3)
    for now in (NOW + 500 + 601, NOW + 500 - 601):
        refused("clock.skew", lambda now=now: send(store, folder, by=station(folder, now=now)))
    assert in_store(store) == []
    handed = send(store, folder, by=station(folder, now=NOW + 500 + 599))
    assert (handed.new, handed.skew) == (3, 599)


def test_a_station_whose_key_is_revoked_or_not_listed(store: Store, folder: Path, tmp_path: Path) -> None:
    vendor = make_vendor("ledger handover")
    listed = vendor.signer(RoleName.STATION)
    with store.begin() as conn:
        lock(conn)
        add_documents(conn, [vendor.trust_bytes])
    log_of(folder, 3, listed)
    log_of(tmp_path / "unknown", 3)
    by = station(folder, listed)
    assert send(store, folder, by=by).new == 3
    refused("key.unknown", lambda: send(store, tmp_path / "unknown"))
    with store.begin() as conn:
        lock(conn)
        add_documents(conn, [changed(vendor, version=2, revoked=[listed.key.thumbprint]).trust_bytes])
    log_of(folder, 3, listed)
    refused("key.revoked", lambda: send(store, folder, by=by))
    with store.read() as conn:
        assert held(conn, by.origin).records == 3


# whatever happens, in whatever order

STEP = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 6)),
    st.tuples(st.just("send"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["before", "inside", "after"]), st.integers(0, 2)),
)


@settings(max_examples=12)
@given(steps=st.lists(STEP, max_size=6))
def test_the_store_has_a_beginning_of_the_log_after_every_step(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(handover, "database_time", lambda _conn: NOW + 500)
        folder = Path(place) / "evidence"
        log_of(folder, 1)
        anchor: Anchor | None = None
        with Store.open(sqlite_url(Path(place) / "store.sqlite")) as store:
            for what, number in [*steps, ("send", 3)]:
                if what == "append":
                    log_of(folder, number)
                elif what == "send":
                    anchor = send(store, folder, anchor, limits=Limits(records=number)).anchor or anchor
                else:
                    with pytest.MonkeyPatch.context() as broken:
                        _break(broken, number, what)
                        with contextlib.suppress(Crash):
                            anchor = send(store, folder, anchor).anchor or anchor
                found = in_store(store)
                assert found == in_log(folder)[: len(found)]
            assert found == in_log(folder)
            assert anchor is None or anchor.records <= len(found)

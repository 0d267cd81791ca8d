"""What a station hands over, taken once, in order, under its own signed head; and the tables made anew from it.

Invariant: whatever the portions, their order among stations and how often they come, the tables are those that a
rebuild makes, row for row; and what is refused changes nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from builders import NOW
from devguard.errors import DevguardError, LinkError, Malformed, Refused
from devguard.evidence.checkpoint import sign_checkpoint
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import DigestOf, Record
from devguard.ledger import schema
from devguard.ledger.documents import add_documents
from devguard.ledger.level import Anchor, anchor_of, check_level
from devguard.ledger.rebuild import learn, rebuild, take_log
from devguard.ledger.store import Store, sqlite_url
from devguard.ledger.take import Taken, held, identity, lock, take
from ledger_support import (
    FOREIGN,
    LATER,
    PROGRAMMER,
    PUMP,
    VENDOR,
    Log,
    acknowledged,
    dump,
    fill,
    grant,
    issued,
    push_begun,
    push_ended,
    record,
    reported,
    station,
)

DOCUMENTS = (VENDOR.trust_bytes, LATER.trust_bytes)


def plain(*times: int) -> list[Record]:
    return [record("device.info", NOW + one, device=f"IP-{one % 3}", request=f"r-{one}") for one in times]


def taken(store: Store, origin: str) -> int:
    with store.read() as conn:
        return held(conn, origin).records


# portions


def test_portions_that_follow_on_each_other(store: Store) -> None:
    log = Log().add(*plain(*range(10)))
    for first, end in ((0, 3), (3, 4), (4, 10)):
        with store.begin() as conn:
            found = log.hand_over(conn, first, end)
        assert (found.records, found.new, found.root) == (end, end - first, log.head(end).root)
    with store.read() as conn:
        kept = conn.execute(schema.records.select().order_by("index")).all()
    assert [row.entry for row in kept] == log.leaves


def test_what_comes_twice_is_taken_once(store: Store) -> None:
    log = Log().add(*plain(*range(10)))
    for first, end, new in ((0, 6, 6), (0, 6, 0), (2, 8, 2), (0, 4, 0), (0, 10, 2), (10, 10, 0)):
        with store.begin() as conn:
            assert log.hand_over(conn, first, end).new == new
    assert taken(store, log.origin) == 10
    before = dump(store)
    rebuild(store)
    assert dump(store) == before


def test_a_gap_is_refused(store: Store) -> None:
    log = Log().add(*plain(*range(10)))
    fill(store, [])
    with pytest.raises(Refused) as caught, store.begin() as conn:
        log.hand_over(conn, 1)
    assert caught.value.code == "ledger.rollback"
    assert taken(store, log.origin) == 0


def leave_out(log: Log) -> list[bytes]:
    return log.leaves[:4] + log.leaves[5:]


def swap(log: Log) -> list[bytes]:
    return [*log.leaves[:4], log.leaves[5], log.leaves[4], *log.leaves[6:]]


def change(log: Log) -> list[bytes]:
    return [*log.leaves[:4], Log().add(*plain(*range(4)), record("key.new")).leaves[4], *log.leaves[5:]]


def cut(log: Log) -> list[bytes]:
    return [*log.leaves[:-1], log.leaves[-1][:-1]]


def more(log: Log) -> list[bytes]:
    return [*log.leaves, log.leaves[-1]]


@pytest.mark.parametrize("mangle", [leave_out, swap, change, cut, more, lambda log: log.leaves[:-1], lambda log: []])
def test_records_that_are_not_those_of_the_head_are_not_taken(store: Store, mangle: Any) -> None:
    log = Log().add(*plain(*range(8)))
    whole = list(log.leaves)
    log.leaves = mangle(log)
    with pytest.raises(DevguardError) as caught, store.begin() as conn:
        whole_log(conn, log)
    assert caught.value.code in ("log.tampered", "ledger.differs")
    log.leaves = whole
    with store.begin() as conn:
        assert whole_log(conn, log).new == 8


def whole_log(conn: Connection, log: Log) -> Taken:
    """All leaves that `log` has, under the head over all that were added to it."""
    return take(conn, log.signer.key, 0, log.leaves, sign_checkpoint(log.head(), log.signer), now=NOW)


def test_a_head_by_another_key_is_refused(store: Store) -> None:
    log, other = Log().add(*plain(1)), Log(station("two"))
    with pytest.raises(DevguardError) as caught, store.begin() as conn:
        take(conn, other.signer.key, 0, log.leaves, log.note(), now=NOW)
    assert caught.value.code == "log.tampered"
    for note in (b"", b"garbage", log.note()[:-5]):
        with pytest.raises(DevguardError) as caught, store.begin() as conn:
            take(conn, log.signer.key, 0, log.leaves, note, now=NOW)
        assert caught.value.code == "log.tampered"
    assert taken(store, log.origin) == 0


def test_a_log_that_was_begun_anew_is_told_from_the_one_that_is_held(store: Store) -> None:
    log = Log().add(*plain(*range(6)))
    fill(store, [log])
    other = Log().add(*plain(*range(5)), *plain(99, 100, 101))
    for first in (0, 5, 6):
        with pytest.raises(Refused) as caught, store.begin() as conn:
            other.hand_over(conn, first)
        assert caught.value.code == "ledger.differs"
    shorter = Log().add(*plain(99, 98))
    for first in (0, 2):  # all of it, or its head alone
        with pytest.raises(Refused) as caught, store.begin() as conn:
            shorter.hand_over(conn, first)
        assert caught.value.code == "ledger.differs"
    assert taken(store, log.origin) == 6


def test_damage_of_what_is_held_is_noticed(store: Store) -> None:
    log = Log().add(*plain(*range(6)))
    fill(store, [log])
    with store.begin() as conn:
        conn.execute(schema.stations.update().values(root=bytes(32)))
    with pytest.raises(Malformed) as caught, store.begin() as conn:
        log.hand_over(conn)
    assert caught.value.code == "ledger.malformed"


# the tables, whatever the portions


@cache
def pool() -> list[Record]:
    """Records of every kind that something is derived from: at few times, of few devices, people and requests."""
    found: list[Record] = []
    for time, serial, version in product((NOW, NOW + 1, NOW + 60), ("IP-1", "IP-2"), ("1.0.0", "1.1.0")):
        one, request = grant(serial, PUMP, time % 3), "ab"[time % 2]
        found += [
            record("device.info", time, device=serial),
            reported(serial, version, time=time, foreign=time == NOW + 1),
            reported(serial, version, time=time, code="device.changed", details={"changed-version": version}),
            reported("PP-1", model=PROGRAMMER, time=time, number=time % 3),
            push_begun(serial, version, time=time, request=request, one=one),
            push_begun(serial, version, time=time, request=request, one=one, forged=True),
            push_ended(serial, version, time=time, request=request, code=None if time % 2 else "device.battery"),
            issued(one, time=time),
            record("grant.revoke", time, details={"grants": one.cti.hex(), "reason": version}),
            record("release.verify", time, release=f"{PUMP} {version}", details={"sequence": str(time % 5)}),
            record("shelf.get", time, release=f"{PUMP} {version}", details={"supported-until": str(time)}),
            record("release.verify", time, release=f"{PUMP} {version}", details={"parts-supported-until": "8 zlib"}),
        ]
    for time, person in product((NOW, NOW + 1, NOW + 60), ("Tess Technician", "TESS technician", "Tom Two")):
        said = {"person": person, "reason": str(time), "technician": "x", "sites": person}
        found += [record(f"technician.{one}", time, details=said) for one in ("add", "suspend", "reinstate", "change")]
    for time, request in product((NOW, NOW + 1), ("a", "b")):
        names = ("incident.open", "incident.new", "incident.release", "incident.export")
        details = {"subject": str(time), "decision": "controlled"}
        found += [record(one, time, request=request, details=details) for one in names]
        found += [
            acknowledged("IP-1", time=time),
            record("grant.revoke", time, details={"grants": "all before", "epoch": "2"}),
        ]
        found += [record(one, time, device="IP-1") for one in ("device.enrol", "device.decommission")]
        seen = {DigestOf.TRUST: hashlib.sha256(request.encode()).digest()}
        found.append(record("trust.check", time, digests=seen, details={"version": str(time % 2)}))
    return found


LOGS = st.lists(st.lists(st.deferred(lambda: st.sampled_from(pool())), min_size=1, max_size=25), min_size=1, max_size=3)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Nothing here pulls the plug: no commit waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devguard.ledger.store.PRAGMAS", ("journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON"))
        yield


def fresh(empty: Path, name: str) -> Store:
    """A store of its own."""
    path = empty.with_name(f"{name}.sqlite")
    for old in empty.parent.glob(f"{name}.sqlite*"):
        old.unlink()
    shutil.copyfile(empty, path)
    return Store.open(sqlite_url(path))


def check_portions(empty_sqlite: Path, logs: list[list[Record]], data: Any) -> None:
    """In some portions and some order, made anew, and all at once the other way round: the same rows."""
    found = [Log(station(str(number))).add(*records) for number, records in enumerate(logs)]
    with fresh(empty_sqlite, "portions") as store, fresh(empty_sqlite, "whole") as whole:
        fill(store, [], data.draw(st.sampled_from([(), DOCUMENTS[:1], DOCUMENTS])))
        ends = [0] * len(found)
        for _ in range(data.draw(st.integers(0, 5))):
            at = data.draw(st.integers(0, len(found) - 1))
            first = data.draw(st.integers(0, ends[at]))
            ends[at] = data.draw(st.integers(ends[at], len(found[at].leaves)))
            with store.begin() as conn:
                found[at].hand_over(conn, first, ends[at])
        with store.begin() as conn:
            documented(conn)
            for log, end in zip(found, ends, strict=True):
                log.hand_over(conn, end)
        before = dump(store)
        assert rebuild(store) == sum(len(log.leaves) for log in found)
        assert dump(store) == before
        fill(whole, found[::-1], DOCUMENTS)
        assert dump(whole) == before


@given(LOGS, st.data())
@settings(max_examples=8)
def test_any_portions_in_any_order_give_what_a_rebuild_gives(
    empty_sqlite: Path, logs: list[list[Record]], data: Any
) -> None:
    """On SQLite; the rows are made by the same code for both."""
    check_portions(empty_sqlite, logs, data)


@pytest.mark.slow
@given(LOGS, st.data())
@settings(max_examples=300)
def test_many_portions_in_any_order(empty_sqlite: Path, logs: list[list[Record]], data: Any) -> None:
    check_portions(empty_sqlite, logs, data)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 8), st.binary(max_size=200))
@settings(max_examples=20)
def test_whatever_bytes_are_handed_over_nothing_but_our_own_error_comes(
    empty_sqlite: Path, leaves: list[bytes], first: int, note: bytes
) -> None:
    """Garbage for leaves, for the head, or for both, before and behind what is held."""
    log = Log().add(*plain(*range(4)))
    with fresh(empty_sqlite, "garbage") as store:
        fill(store, [log])
        before = dump(store)
        for head, data in (
            (log.note(), leaves),
            (note, log.leaves),
            (note, leaves),
            (log.note(), [log.leaves[0] + b"." + one for one in leaves]),
        ):
            with pytest.raises(DevguardError), store.begin() as conn:
                take(conn, log.signer.key, first, data, head, now=NOW)
        assert dump(store) == before


def documented(conn: Connection) -> None:
    """All trust documents, and what was doubted is judged again."""
    lock(conn)
    learn(conn, DOCUMENTS)


@given(LOGS)
@settings(max_examples=4)
def test_both_databases_have_the_same_rows(empty_sqlite: Path, postgres: Any, logs: list[list[Record]]) -> None:
    found = [Log(station(str(number))).add(*records) for number, records in enumerate(logs)]
    url = postgres.ledger()
    with Store.open(url) as one, fresh(empty_sqlite, "both") as two:
        for store in (one, two):
            fill(store, found, DOCUMENTS)
        assert dump(one) == dump(two)
        rebuild(one)
        assert dump(one) == dump(two)
    postgres.drop(url)


# trust documents


def test_a_document_that_comes_later_is_believed_about_what_was_before(store: Store) -> None:
    log = Log().add(reported(), push_begun(time=NOW + 9))
    fill(store, [log], ())
    assert len(dump(store)["doubts"]) == 2
    with store.begin() as conn:
        documented(conn)
    assert dump(store)["doubts"] == []
    assert len(dump(store)["grant_uses"]) == 1


def test_documents_of_another_chain_are_refused(store: Store) -> None:
    fill(store, [], DOCUMENTS)
    for wrong in ((FOREIGN.trust_bytes,), (VENDOR.trust_bytes, FOREIGN.trust_bytes)):
        with pytest.raises(Refused) as caught, store.begin() as conn:
            add_documents(conn, wrong)
        assert caught.value.code == "ledger.trust"
    with pytest.raises(DevguardError) as caught, store.begin() as conn:
        add_documents(conn, (b"garbage",))
    assert caught.value.code.startswith("trust.")
    with store.begin() as conn:
        assert not add_documents(conn, DOCUMENTS)


# two at once


def test_two_who_hand_over_the_same_at_once(store: Store) -> None:
    log = Log().add(*plain(*range(40)))
    fill(store, [])
    new: list[Any] = []
    gate = threading.Barrier(4)

    def one() -> None:
        with Store.open(store.url) as mine:
            gate.wait()
            for end in (10, 25, 40):
                new.append(mine.run(lambda conn, end=end: log.hand_over(conn, 0, end).new))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(new) == 12
    assert sum(new) == 40  # no duplicate, no gap
    assert taken(store, log.origin) == 40
    before = dump(store)
    rebuild(store)
    assert dump(store) == before


# a station's own log


@pytest.fixture
def kept(tmp_path: Path) -> EvidenceLog:
    """A log on disk, in small segments."""
    log = EvidenceLog.open(tmp_path / "evidence", station(), lambda: NOW, segment_size=600)
    for one in plain(*range(20)):
        log.append(one)
    return log


def test_a_log_is_taken_as_far_as_it_is_new(store: Store, kept: EvidenceLog, tmp_path: Path) -> None:
    folder, key = tmp_path / "evidence", station().key
    found = take_log(store, folder, key, now=NOW, name="Bench 1", documents=DOCUMENTS)
    assert (found.records, found.new, found.root) == (20, 20, kept.checkpoint.root)
    assert take_log(store, folder, key, now=NOW).new == 0
    for count in (1, 3, 20):
        for one in plain(*range(30, 30 + count)):
            kept.append(one)
        assert take_log(store, folder, key, now=NOW).new == count
    assert taken(store, found.origin) == kept.size == 44
    with store.read() as conn:
        assert len(conn.execute(schema.documents.select()).all()) == 2


def test_a_log_that_does_not_hold_is_not_taken(store: Store, kept: EvidenceLog, tmp_path: Path) -> None:
    path = sorted((tmp_path / "evidence").glob("segment-*.log"))[1]
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    with pytest.raises(DevguardError) as caught:
        take_log(store, tmp_path / "evidence", station().key, now=NOW)
    assert caught.value.code == "log.tampered"
    assert dump(store)["devices"] == []


def test_a_log_that_was_put_back_or_begun_anew(store: Store, kept: EvidenceLog, tmp_path: Path) -> None:
    key = station().key
    take_log(store, tmp_path / "evidence", key, now=NOW)
    other = EvidenceLog.open(tmp_path / "other", station(), lambda: NOW)
    for one in plain(*range(19), 77, 78, 79):
        other.append(one)
    with pytest.raises(Refused) as caught:
        take_log(store, tmp_path / "other", key, now=NOW)
    assert caught.value.code == "ledger.differs"
    shorter = EvidenceLog.open(tmp_path / "shorter", station(), lambda: NOW)
    for one in plain(*range(5)):
        shorter.append(one)
    with pytest.raises(Refused) as caught:
        take_log(store, tmp_path / "shorter", key, now=NOW)
    assert caught.value.code == "ledger.differs"
    with pytest.raises(Refused) as caught:
        take_log(store, tmp_path / "none", key, now=NOW)
    assert caught.value.code == "log.missing"


def test_a_full_disk_takes_nothing_half(tmp_path: Path, kept: EvidenceLog) -> None:
    with Store.open(sqlite_url(tmp_path / "l.sqlite")) as store:
        for one in range(200):
            kept.append(record("device.info", NOW + one, device=f"{one} {'x' * 400}"))

        def filled(conn: Any) -> None:
            conn.exec_driver_sql("PRAGMA max_page_count=40")

        sqlalchemy.event.listen(store._engine, "begin", filled)
        with pytest.raises(LinkError) as caught:
            take_log(store, tmp_path / "evidence", station().key, now=NOW)
        assert caught.value.code == "ledger.full"
        sqlalchemy.event.remove(store._engine, "begin", filled)
        assert all(found == [] for found in dump(store).values())
        assert take_log(store, tmp_path / "evidence", station().key, now=NOW).new == 220


# an older state that was put back


def test_a_store_that_is_behind_what_it_had_taken(store: Store, kept: EvidenceLog, tmp_path: Path) -> None:
    folder, key = tmp_path / "evidence", station().key
    found = take_log(store, folder, key, now=NOW)
    with store.read() as conn:
        anchor = Anchor(identity(conn), found.records, found.root)
    assert anchor_of(record("ledger.update", details=anchor.details())) == anchor
    assert anchor_of(record("ledger.update", details=anchor.details(), code="ledger.full")) is None
    assert anchor_of(record("key.new", details=anchor.details())) is None
    assert anchor_of(record("ledger.update", details={**anchor.details(), "root": "zz"})) is None
    assert take_log(store, folder, key, now=NOW, anchor=anchor).new == 0
    ahead = Anchor(anchor.store, 21, bytes(32))
    other = Anchor(anchor.store, 20, bytes(32))
    for one in (ahead, other):
        with pytest.raises(Refused) as caught:
            take_log(store, folder, key, now=NOW, anchor=one)
        assert caught.value.code == "ledger.rollback"
    for one in (None, Anchor("another store", 99, bytes(32)), Anchor(anchor.store, 7, bytes(32))):
        with store.read() as conn:
            check_level(conn, held(conn, found.origin), one)

"""What records say for the tables: devices, grants, people, releases, pushes, incidents, what nobody vouches for."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import Table

from builders import CAST, NOW, Seat, make_vendor
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.evidence.record import DigestOf, Record
from devguard.ledger import schema
from devguard.ledger.rebuild import derive_anew, learn
from devguard.ledger.store import Store
from devguard.ledger.take import lock
from ledger_support import (
    HOUR,
    LATER,
    PROGRAMMER,
    PUMP,
    VENDOR,
    Log,
    acknowledged,
    fill,
    grant,
    grant_digest,
    issued,
    push_begun,
    push_ended,
    record,
    release_digest,
    reported,
)


def rows(store: Store, table: Table) -> list[dict[str, Any]]:
    with store.read() as conn:
        found = conn.execute(table.select().order_by(*table.primary_key.columns)).mappings()
        return [dict(row) for row in found]


def taken(store: Store, table: Table, *records: Record, documents: Any = (VENDOR.trust_bytes,)) -> list[dict[str, Any]]:
    fill(store, [Log().add(*records)], documents)
    return rows(store, table)


def test_a_device_is_as_its_last_signed_report_says(store: Store) -> None:
    found = taken(
        store,
        schema.devices,
        reported(version="1.0.0", time=NOW),
        reported(version="1.1.0", time=NOW + 5, number=1, report={"flags": ("worn", "old"), "confirmed": False}),
        record("device.info", NOW + 9, device="IP-1"),
        record("device.info", NOW + 9, device="IP-2"),
        record("key.new", NOW + 9),
    )
    one, two = found
    assert (one["serial"], one["model"], one["version"], one["sequence"]) == ("IP-1", PUMP, "1.1.0", 110)
    assert (one["boot_state"], one["confirmed"], one["flags"], one["trust_version"]) == (
        "confirmed",
        False,
        "worn, old",
        1,
    )
    assert (one["reported"], one["report_index"], one["seen"], one["index"]) == (NOW + 5, 1, NOW + 9, 2)
    assert one["manifest_digest"] == release_digest(PUMP, "1.1.0")
    assert (two["serial"], two["model"], two["reported"], two["seen"]) == ("IP-2", None, None, NOW + 9)
    seen = rows(store, schema.reports)
    assert {(row["serial"], row["version"], row["index"]) for row in seen} == {
        ("IP-1", "1.0.0", 0),
        ("IP-1", "1.1.0", 1),
    }
    assert one["report_digest"] in {row["digest"] for row in seen}


def test_components_are_those_of_a_report(store: Store) -> None:
    found = taken(store, schema.components, reported("PP-1", model=PROGRAMMER), reported("IP-1"))
    assert [(row["place"], row["id"], row["size"]) for row in found] == [(0, "main", 1000), (1, "radio", 1000)]
    device = next(row for row in rows(store, schema.devices) if row["serial"] == "PP-1")
    assert {row["report"] for row in found} == {device["report_digest"]}


def test_what_a_foreign_key_signed_counts_for_nothing_and_is_on_the_list(store: Store) -> None:
    found = taken(store, schema.devices, reported(foreign=True), reported("IP-2", report={"serial": "IP-3"}))
    assert [(row["serial"], row["version"]) for row in found] == [("IP-1", None), ("IP-2", None)]
    assert rows(store, schema.reports) == rows(store, schema.releases) == []
    doubted = [(row["index"], row["what"], row["code"]) for row in rows(store, schema.doubts)]
    assert doubted == [(0, "report", "key.unknown"), (1, "report", "log.tampered")]


def test_without_a_trust_document_nothing_signed_counts(store: Store) -> None:
    taken(store, schema.devices, reported(), push_begun(), documents=())
    assert [row["version"] for row in rows(store, schema.devices)] == [None]
    assert [row["code"] for row in rows(store, schema.doubts)] == ["key.unknown", "key.unknown"]
    assert rows(store, schema.grant_uses) == []


def test_what_was_good_stays_good_when_more_have_to_sign(store: Store) -> None:
    more = Seat(RoleName.TECHNICIAN_AUTHORITY, "Theo Authority")
    two = {RoleName.ROOT: 2, RoleName.TECHNICIAN_AUTHORITY: 2}
    stricter = make_vendor("ledger", cast=(*CAST, more), thresholds=two, version=2)
    fill(store, [Log().add(push_begun())], [VENDOR.trust_bytes])
    assert len(rows(store, schema.grant_uses)) == 1
    before = rows(store, schema.grants)
    with store.begin() as conn:
        lock(conn)
        learn(conn, [stricter.trust_bytes])
        derive_anew(conn)
    assert rows(store, schema.grants) == before
    assert len(rows(store, schema.grant_uses)) == 1


def test_a_push_its_use_of_a_grant_and_its_end(store: Store) -> None:
    found = taken(
        store,
        schema.pushes,
        push_begun(time=NOW),
        push_ended(time=NOW + 60),
        push_begun("IP-2", time=NOW + 70, request="push-2"),
        push_ended("IP-2", time=NOW + 71, request="push-2", code="device.battery"),
        push_begun("IP-3", time=NOW + 80, request="push-3"),
        push_begun("IP-3", time=NOW + 85, request="push-3"),  # the line was cut, and the same command went on
        push_ended("IP-4", time=NOW + 90, request="push-4", code="grant.expired"),
        record("release.push", NOW + 91, request="push-5", details={"dry-run": "yes"}),
    )
    assert [(row["request"], row["state"], row["code"], row["begun"], row["ended"]) for row in found] == [
        ("push-1", "done", None, NOW, NOW + 60),
        ("push-2", "refused", "device.battery", NOW + 70, NOW + 71),
        ("push-3", "begun", None, NOW + 80, None),
        ("push-4", "refused", "grant.expired", None, NOW + 90),
    ]
    assert (found[0]["serial"], found[0]["release"], found[0]["actor"]) == ("IP-1", "insulin-pump 1.1.0", "Tess")
    assert (found[0]["begun_index"], found[0]["ended_index"], found[0]["action"]) == (0, 1, "release.push")
    used = {(row["serial"], row["grant"], row["release"], row["time"]) for row in rows(store, schema.grant_uses)}
    digests = {serial: grant_digest(grant(serial, PUMP)) for serial in ("IP-1", "IP-2", "IP-3")}
    release = release_digest(PUMP, "1.1.0")
    assert used == {
        ("IP-1", digests["IP-1"], release, NOW),
        ("IP-2", digests["IP-2"], release, NOW + 70),
        ("IP-3", digests["IP-3"], release, NOW + 80),
    }
    assert {row["site"] for row in rows(store, schema.devices)} == {"ward-3", None}


def test_a_push_that_was_resumed_is_one_use(store: Store) -> None:
    found = taken(store, schema.grant_uses, push_begun(time=NOW, request="a"), push_begun(time=NOW + 9, request="b"))
    assert [(row["request"], row["time"]) for row in found] == [("a", NOW)]


def test_a_use_that_nobody_signed_for_is_none(store: Store) -> None:
    found = taken(
        store, schema.grant_uses, push_begun(forged=True), push_begun("IP-2", one=grant("IP-2", PUMP, 0, foreign=True))
    )
    assert found == []
    assert [row["code"] for row in rows(store, schema.doubts)] == ["log.tampered", "key.unknown"]
    assert rows(store, schema.grants) == []


def test_a_grant_is_known_by_its_issue_and_proved_by_a_push(store: Store) -> None:
    one = grant("IP-1", PUMP)
    (row,) = taken(store, schema.grants, issued(one))
    assert (row["technician"], row["issuer"], row["proved"], row["max_uses"]) == (
        "Tess Technician",
        "Thea Authority",
        False,
        None,
    )
    assert (row["cti"], row["expires"], row["models"], row["serials"], row["sites"]) == (
        one.cti, NOW + 8 * HOUR, PUMP, "IP-1", "ward-3",
    )  # fmt: skip
    with store.begin() as conn:
        log = Log().add(issued(one), push_begun(time=NOW + 50))
        log.hand_over(conn)
    (row,) = rows(store, schema.grants)
    assert (row["proved"], row["max_uses"], row["time"], row["index"]) == (True, 1, NOW + 50, 1)


def test_grants_that_are_taken_back(store: Store) -> None:
    one = grant("IP-1", PUMP)
    found = taken(
        store,
        schema.revocations,
        record("grant.revoke", NOW, details={"grants": f"{one.cti.hex()}, {'0' * 32}, {'f' * 20}…", "reason": "lost"}),
        record("grant.revoke", NOW + 1, details={"grants": one.cti.hex(), "reason": "again"}),
        record("grant.revoke", NOW + 2, details={"grants": "all before", "epoch": "4", "reason": ""}),
        record("grant.revoke", NOW + 3, details={"grants": "1" * 32}, code="trust.rollback"),
        record("grant.revoke", NOW + 3, details={"grants": "all before", "epoch": "9" * 30}),
    )
    assert [(row["cti"].hex(), row["reason"], row["index"]) for row in found] == sorted(
        [(one.cti.hex(), "lost", 0), ("0" * 32, "lost", 0)]
    )
    assert [(row["epoch"], row["reason"]) for row in rows(store, schema.epochs)] == [(4, None)]


def test_people_are_one_row_however_they_are_written(store: Store) -> None:
    listed = {
        "technician": "tess",
        "person": "Tess Technician",
        "holder": "ab" * 32,
        "sites": "ward-3",
        "training": "* 2030",
    }
    (row,) = taken(
        store,
        schema.technicians,
        record("technician.add", NOW, details=listed),
        issued(grant("IP-1", PUMP), time=NOW + 1),
        record("technician.suspend", NOW + 2, details={"person": "TESS  technician", "reason": "left"}),
    )
    assert (row["person"], row["shown"], row["name"], row["sites"]) == (
        "tess technician",
        "TESS  technician",
        "tess",
        "ward-3",
    )
    assert (row["granted"], row["suspended"], row["reason"]) == (NOW + 1, True, "left")
    log = Log().add(
        record("technician.add", NOW, details=listed),
        issued(grant("IP-1", PUMP), time=NOW + 1),
        record("technician.suspend", NOW + 2, details={"person": "TESS  technician", "reason": "left"}),
        record("technician.reinstate", NOW + 3, details={"person": "Tess Technician", "reason": "back"}),
        record("technician.change", NOW + 4, details={**listed, "sites": "ward-9"}),
        record("technician.import", NOW + 5, details={"suspended": "Tom Two, Tina Three", "issuer": "Thea"}),
    )
    with store.begin() as conn:
        log.hand_over(conn)
    tess, tina, tom = rows(store, schema.technicians)
    assert (tess["sites"], tess["suspended"], tess["reason"]) == ("ward-9", False, "back")
    assert (tina["shown"], tina["suspended"], tom["suspended"], tom["name"]) == ("Tina Three", True, True, None)


def test_releases_are_known_from_the_first_word_on(store: Store) -> None:
    digest = {DigestOf.MANIFEST: release_digest(PUMP, "1.1.0")}
    named = {"release": "insulin-pump 1.1.0", "digests": digest}
    (row,) = taken(
        store,
        schema.releases,
        record("release.verify", NOW + 5, **named, details={"sequence": "2", "supported-until": "77"}),
        record("shelf.get", NOW + 2, **named, details={"sequence": "2"}),
        record("release.verify", NOW + 6, **named, details={"parts-supported-until": "66 zlib 1.3.1"}),
        record("release.verify", NOW, **named, code="key.unknown"),
    )
    assert (row["model"], row["version"], row["since"], row["sequence"]) == (PUMP, "1.1.0", NOW + 2, 2)
    assert (row["supported_until"], row["parts_until"], row["first_part"]) == (77, 66, "zlib 1.3.1")
    assert (row["digest"], row["revoked"]) == (release_digest(PUMP, "1.1.0"), False)


def test_a_release_that_the_trust_document_takes_back_is_marked(store: Store) -> None:
    documents = (VENDOR.trust_bytes, LATER.trust_bytes)
    found = taken(store, schema.releases, reported(version="1.1.0"), reported("IP-2", "1.2.0"), documents=documents)
    assert [(row["version"], row["revoked"]) for row in found] == [("1.1.0", True), ("1.2.0", False)]


def test_what_a_station_has_had_in_hand_of_trust(store: Store) -> None:
    seen = {"digests": {DigestOf.TRUST: bytes(32)}}
    found = taken(
        store,
        schema.trust_versions,
        record("trust.init", NOW, **seen, details={"version": "1"}),
        record("trust.check", NOW + 1, **seen, details={"version": "1"}),
        record("trust.check", NOW + 2, **seen, details={"version": "2"}, code="trust.rollback"),
        record("trust.check", NOW + 2, **seen, details={"version": "x"}),
    )
    assert [(row["version"], row["time"], row["index"]) for row in found] == [(1, NOW + 1, 1)]


def test_a_change_that_nothing_explains_stays_until_it_is_acknowledged(store: Store) -> None:
    changed = {"since": "record 0", "changed-version": "1.0.0 on record, 1.1.0 found"}
    log = [reported(), reported("IP-1", "1.1.0", time=NOW + 1, number=1, code="device.changed", details=changed)]
    (row,) = taken(store, schema.devices, *log)
    assert (row["changed"], row["version"]) == ("version: 1.0.0 on record, 1.1.0 found", "1.1.0")
    with store.begin() as conn:
        Log().add(*log, acknowledged(time=NOW + 2)).hand_over(conn)
    (row,) = rows(store, schema.devices)
    assert (row["changed"], row["changed_time"]) == (None, NOW + 2)


def test_a_device_that_was_taken_out_of_use(store: Store) -> None:
    life = [record("device.enrol", NOW, device="IP-1"), record("device.enrol", NOW, device="IP-2", code="device.busy")]
    found = taken(store, schema.devices, *life, record("device.decommission", NOW + 5, device="IP-1"))
    assert [(row["serial"], row["life"]) for row in found] == [("IP-1", "decommissioned"), ("IP-2", None)]


def test_incidents_as_the_log_tells_them(store: Store) -> None:
    log = Log().add(
        record("release.verify", NOW, code="key.unknown"),
        record(
            "incident.open",
            NOW,
            request="burst-0",
            device="IP-1",
            details={"kind": "burst", "subject": "Tess", "records": "0"},
        ),
        record("incident.new", NOW + 1, request="manual-1", details={"decision": "uncontrolled"}),
        record("incident.open", NOW + 2, request="burst-0", details={"subject": "another"}),
    )
    fill(store, [log])
    found = rows(store, schema.incidents)
    assert [(row["id"], row["kind"], row["subject"], row["open"], row["own"]) for row in found] == [
        ("burst-0", "burst", "Tess", True, "1 3"),
        ("manual-1", "manual", "Tess", True, "2"),
    ]
    assert (found[0]["records"], found[0]["device"], found[1]["decision"]) == ("0", "IP-1", "uncontrolled")
    log.add(record("incident.release", NOW + 9, request="burst-0", actor="Olga Officer"))
    with store.begin() as conn:
        log.hand_over(conn, 4)
    (row, _) = rows(store, schema.incidents)
    assert (row["open"], row["released"], row["released_by"], row["released_index"], row["own"]) == (
        False, NOW + 9, "Olga Officer", 4, "1 3 4",
    )  # fmt: skip


@pytest.mark.parametrize("what", ["serial", "version", "request", "person", "number", "site"])
def test_hostile_values_fit_into_every_column_and_index(store: Store, what: str) -> None:
    wide, wall = "\U0001f9ea" * 512, "\u7b51" * 40
    records = {
        "serial": [record("device.info", NOW, device=wide), record("release.push", NOW + 1, device=wide, code="x.y")],
        "version": [reported(report={"version": "v" * 5000 + "\x00\n", "boot_state": "\x00", "flags": ("\x00",) * 9})],
        "request": [record("release.push", NOW, request=wide), record("incident.new", NOW, request=wide)],
        "person": [record("technician.suspend", NOW, details={"person": "\ufdfa" * 512})],
        "site": [push_begun(one=grant("IP-1", PUMP, 9, tuple(f"{number} {wall}" for number in range(30))))],
        "number": [reported(report={"sequence": (1 << 64) - 1, "trust_version": (1 << 64) - 1})],
    }[what]
    fill(store, [Log().add(*records)])
    assert any(rows(store, table) for table in schema.DERIVED)
    if what == "site":
        (row,) = rows(store, schema.devices)
        assert row["site"].count(", ") == 29
    if what in ("number", "version"):
        (row,) = rows(store, schema.devices)
        assert row["sequence"] == (schema.NUMBER_LIMIT if what == "number" else 100)
        assert "\x00" not in f"{row['version']}{row['boot_state']}{row['flags']}"
        assert len(row["version"]) <= 200


def test_the_station_itself_is_on_the_list(store: Store) -> None:
    log = Log().add(record("key.new", NOW), record("key.new", NOW + 7))
    with store.begin() as conn:
        log.hand_over(conn, name="Bench 1")
    (row,) = rows(store, schema.stations)
    assert (row["name"], row["records"], row["latest"], row["seen"]) == ("Bench 1", 2, NOW + 7, NOW + 900)
    assert isinstance(log.signer.key, CoseKey)
    assert row["thumbprint"] == log.signer.key.thumbprint
    assert row["root"] == log.head().root
    assert hashlib.sha256(row["note"]).digest() == hashlib.sha256(log.note()).digest()

"""What is asked of the ledger: pages, filters, what is worked out while reading, and how long a long list takes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from builders import NOW
from devguard.device.supported import model_support
from devguard.ledger import rows, schema
from devguard.ledger.rows import Filter
from devguard.ledger.store import Store
from ledger_support import (
    HOUR,
    LATER,
    PROGRAMMER,
    PUMP,
    VENDOR,
    Log,
    fill,
    grant,
    grant_digest,
    issued,
    push_begun,
    push_ended,
    record,
    release_digest,
    reported,
    station,
)

DOCUMENTS = (VENDOR.trust_bytes, LATER.trust_bytes)


@pytest.fixture
def group(store: Store) -> Store:
    """Two stations and what they met."""
    one = Log(station("one")).add(
        reported("IP-1", "1.0.0", time=NOW),
        reported("IP-2", "1.2.0", time=NOW + 1),
        reported("PP-1", "1.0.0", model=PROGRAMMER, time=NOW + 2),
        push_begun("IP-1", "1.2.0", time=NOW + 3, one=grant("IP-1", PUMP, 0, ("ward-3", "ward-31"))),
        push_ended("IP-1", "1.2.0", time=NOW + 4, one=grant("IP-1", PUMP, 0, ("ward-3", "ward-31"))),
        push_begun("IP-2", "1.2.0", time=NOW + 5, request="b", one=grant("IP-2", PUMP, 1, ("ward-31",))),
        record("incident.new", NOW + 6, request="m-1", details={"kind": "manual"}),
        record("incident.new", NOW + 7, request="m-2"),
        record("incident.release", NOW + 8, request="m-2", actor="Olga"),
    )
    two = Log(station("two")).add(
        record("device.info", NOW + 9, device="ZZ_9"),
        reported("IP-1", "1.1.0", time=NOW + 10, number=1, code="device.changed", details={"changed-version": "x"}),
        issued(grant("IP-3", PUMP, 2), time=NOW + 11),
        record("grant.revoke", NOW + 12, details={"grants": grant("IP-2", PUMP, 1).cti.hex()}),
        record("grant.revoke", NOW + 13, details={"grants": "all before", "epoch": "1"}),
        record("release.verify", NOW + 14, release=f"{PUMP} 1.2.0", details={"supported-until": "99"}),
    )
    fill(store, [one, two], DOCUMENTS)
    return store


def serials(store: Store, *args: Any, **filter_: Any) -> list[str]:
    with store.read() as conn:
        found = rows.devices(conn, Filter(**filter_), *args)
        if not args:
            assert rows.count_devices(conn, Filter(**filter_)) == len(found)
        return [row["serial"] for row in found]


def test_devices_are_filtered_and_paged(group: Store) -> None:
    assert serials(group) == ["IP-1", "IP-2", "PP-1", "ZZ_9"]
    assert serials(group, 1, 2) == ["IP-2", "PP-1"]
    assert serials(group, 4, 2) == []
    assert serials(group, model=PUMP) == ["IP-1", "IP-2"]
    assert serials(group, version="1.0.0") == ["PP-1"]
    assert serials(group, site="ward-31") == ["IP-1", "IP-2"]
    assert serials(group, site="ward-3") == ["IP-1"]
    assert serials(group, site="ward") == serials(group, site="ward-3, ward-31x") == []
    assert serials(group, words="ip-") == ["IP-1", "IP-2"]
    assert serials(group, words="_") == ["ZZ_9"]
    assert serials(group, words="%") == []
    assert serials(group, changed=True) == ["IP-1"]
    assert serials(group, reported_before=NOW + 2) == ["IP-2", "ZZ_9"]
    assert serials(group, behind=True) == ["IP-1"]
    assert serials(group, model=PUMP, site="ward-31", changed=True) == ["IP-1"]
    assert serials(group, model="'; DROP TABLE devices; --") == []


def test_devices_are_sorted_by_a_column_and_unsupported_ones_found(group: Store) -> None:
    def sorted_by(order: str, *, down: bool = False) -> list[str]:
        with group.read() as conn:
            return [row["serial"] for row in rows.devices(conn, order=order, down=down)]

    assert sorted_by("serial", down=True) == sorted(serials(group), reverse=True)
    assert [one for one in sorted_by("version") if one != "ZZ_9"] == ["PP-1", "IP-1", "IP-2"]
    assert [one for one in sorted_by("reported", down=True) if one != "ZZ_9"] == ["IP-1", "PP-1", "IP-2"]
    assert serials(group, unsupported_at=98) == []
    assert serials(group, unsupported_at=99) == ["IP-2"]  # its release: until 99
    end = model_support(PUMP)
    assert end is not None
    assert serials(group, unsupported_at=end) == ["IP-1", "IP-2"]
    assert serials(group, unconfirmed=True) == []
    with group.begin() as conn:
        conn.execute(schema.devices.update().where(schema.devices.c.serial == "PP-1").values(confirmed=False))
    assert serials(group, unconfirmed=True) == ["PP-1"]
    with group.read() as conn:
        digest = rows.devices(conn, Filter(serial="IP-1"))[0]["report_digest"]
        assert rows.components(conn, []) == {}
        assert set(rows.components(conn, [digest])) <= {digest}


def test_a_device_says_what_its_release_is_known_for(group: Store) -> None:
    with group.read() as conn:
        one, two, three, four = rows.devices(conn)
    assert (one["version"], one["newest"]["version"], one["behind"], one["revoked"]) == ("1.1.0", "1.2.0", True, True)
    assert (two["version"], two["behind"], two["supported_until"], two["revoked"]) == ("1.2.0", False, 99, False)
    assert (two["model_until"], two["site"], one["site"]) == (model_support(PUMP), ["ward-31"], ["ward-3", "ward-31"])
    assert (three["behind"], three["site"], three["supported_until"]) == (False, [], None)
    assert (four["model"], four["newest"], four["behind"], four["flags"]) == (None, None, False, [])


def test_one_device_whole(group: Store) -> None:
    with group.read() as conn:
        one = rows.device(conn, "PP-1")
        pump = rows.device(conn, "IP-1")
        assert rows.device(conn, "IP") is None
    assert one is not None
    assert [(part["id"], part["version"]) for part in one["components"]] == [("main", "1.0.0"), ("radio", "1.0.0")]
    assert pump is not None
    assert [row["version"] for row in pump["reports"]] == ["1.1.0", "1.0.0"]
    assert [(row["request"], row["state"]) for row in pump["pushes"]] == [("push-1", "done")]


def test_grants_with_their_uses_and_what_took_them_back(group: Store) -> None:
    with group.read() as conn:
        found = {row["digest"]: row for row in rows.grants(conn)}
        open_ = rows.grants(conn, open_at=NOW)
        assert rows.grants(conn, open_at=NOW + 9 * HOUR) == []
        assert rows.grants(conn, technician="Nobody") == []
    used = found[grant_digest(grant("IP-1", PUMP, 0, ("ward-3", "ward-31")))]
    by_id = found[grant_digest(grant("IP-2", PUMP, 1, ("ward-31",)))]
    new = found[grant_digest(grant("IP-3", PUMP, 2))]
    assert [(use["serial"], use["done"]) for use in used["uses"]] == [("IP-1", True)]
    assert [(use["release"], use["done"]) for use in by_id["uses"]] == [(release_digest(PUMP, "1.2.0"), False)]
    assert (used["revoked"], by_id["revoked"], new["revoked"]) == (True, True, False)  # by its epoch, by its id
    assert (used["models"], used["serials"], used["sites"]) == ([PUMP], ["IP-1"], ["ward-3", "ward-31"])
    assert [row["digest"] for row in open_] == [new["digest"]]


def test_everything_else(group: Store) -> None:
    with group.read() as conn:
        one, two = rows.stations(conn)
        assert {one["records"], two["records"]} == {9, 6}
        assert [row["id"] for row in rows.incidents(conn)] == ["m-2", "m-1"]
        assert [(row["id"], row["own"]) for row in rows.incidents(conn, only_open=True)] == [("m-1", [6])]
        assert [(row["version"], row["devices"], row["revoked"]) for row in rows.releases(conn, PUMP)] == [
            ("1.2.0", 1, False), ("1.1.0", 1, True), ("1.0.0", 0, False),
        ]  # fmt: skip
        assert [row["request"] for row in rows.pushes(conn)] == ["b", "push-1"]
        assert [row["shown"] for row in rows.technicians(conn)] == ["Tess Technician"]
        assert rows.trust_versions(conn) == rows.doubts(conn) == []
        assert rows.counts(conn)["devices"] == 4
        before = rows.generation(conn)
    with group.begin() as conn:
        Log(station("three")).add(record("key.new")).hand_over(conn)
    with group.read() as conn:
        assert rows.generation(conn) > before


def test_a_station_whose_clock_is_ahead_is_told(store: Store) -> None:
    fill(store, [Log().add(record("key.new", NOW + 5000))])
    with store.read() as conn:
        assert [row["ahead"] for row in rows.stations(conn)] == [5000 - 900]


def test_twenty_thousand_devices_are_listed_in_less_than_a_second(store: Store) -> None:
    with store.begin() as conn:
        conn.execute(
            schema.devices.insert(),
            [
                {"serial": f"IP-{one:06}", "model": PUMP if one % 2 else PROGRAMMER, "version": f"1.{one // 40 % 5}.0",
                 "sequence": one // 40 % 5, "site": f"ward-{one % 40}", "seen": NOW, "station": "x", "index": one}
                for one in range(20_000)
            ],
        )  # fmt: skip
        conn.execute(
            schema.releases.insert(),
            [{"model": one, "version": f"1.{n}.0", "sequence": n, "since": NOW, "revoked": False}
             for one in (PUMP, PROGRAMMER) for n in range(5)],
        )  # fmt: skip
    with store.read() as conn:
        started = time.perf_counter()
        assert rows.count_devices(conn) == 20_000
        assert len(rows.devices(conn, limit=100)) == 100
        assert rows.devices(conn, offset=19_990, limit=100)[-1]["serial"] == "IP-019999"
        assert len(rows.devices(conn, Filter(site="ward-7", behind=True), limit=1000)) == 400
        assert time.perf_counter() - started < 1
        started = time.perf_counter()
        assert len(rows.devices(conn, limit=20_000)) == 20_000
        assert time.perf_counter() - started < 3  # the whole of it, which nobody shows on one page

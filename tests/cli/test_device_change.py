"""What a station's log says of a device, and what of a new report it explains; on a log made of records alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from devguard.cli.device_change import check_unchanged as check
from devguard.cli.device_change import known, note_change, unexplained
from devguard.cli.home import Home
from devguard.cli.record import Note
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import Refused
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import DigestOf, Record, Statement
from devguard.grant.credential import issue_credential
from devguard.session.report import Report, sign_report

STATION = MemorySigner.from_seed(Algorithm.ED25519, b"station".ljust(32, b"."))
DEVICE = MemorySigner.from_seed(Algorithm.ESP256, b"device".ljust(40, b"."))
FACTORY = MemorySigner.from_seed(Algorithm.ESP256, b"factory".ljust(40, b"."))
CREDENTIAL = issue_credential(
    FACTORY,
    issuer="Dana",
    vendor="v.example",
    model="insulin-pump",
    revision="revA",
    serial="IP-1",
    key=DEVICE.key,
    now=1,
)
OLD, NEW = b"a" * 32, b"n" * 32


def report(manifest: bytes = OLD, *, tick: int = 0, **fields: object) -> Report:
    """A report that differs from any other tick's in its log head, as sessions make it."""
    given: dict[str, object] = {
        "model": "insulin-pump", "serial": "IP-1", "version": manifest[:1].decode(), "image_digest": manifest,
        "manifest_digest": manifest, "sequence": manifest[0], "security_version": 1, "boot_state": "confirmed",
        "confirmed": True, "flags": (), "trust_version": 1, "grant_epoch": 0, "clock_floor": 5, "spent_grants": 0,
        "settings_digest": bytes(32), "settings_before": None, "history_digest": bytes(32), "battery_percent": 90,
        "log_head": bytes((tick,)) * 32, "challenge": bytes(16),
    }  # fmt: skip
    return Report(**{**given, **fields})  # type: ignore[arg-type] # keywords of the test


@pytest.fixture
def note(tmp_path: Path) -> Note:
    log = EvidenceLog.open(tmp_path / "evidence", STATION)
    return Note(Home(tmp_path), log, lambda: 1000, "device.info", "Tess", "r")


def put(note: Note, action: str, seen: Report | None = None, *, code: str | None = None, manifest: bytes | None = None,
        device: str = "IP-1") -> None:  # fmt: skip
    """One record."""
    digests, statements = {}, {}
    if seen is not None:
        signed = sign_report(seen, DEVICE)
        digests = {DigestOf.REPORT: hashlib.sha256(signed).digest(), DigestOf.DEVICE_HEAD: seen.log_head}
        statements = {Statement.REPORT: signed, Statement.CREDENTIAL: CREDENTIAL}
    if manifest is not None:
        digests[DigestOf.MANIFEST] = manifest
    assert note.log is not None
    note.log.append(Record(time=1000, actor="Tess", action=action, request="r", device=device, code=code,
                           digests=digests, statements=statements))  # fmt: skip


def changed(note: Note, seen: Report) -> str | None:
    """What a push would be refused with; None when it may go on."""
    try:
        check(note, seen)
    except Refused as error:
        return error.message if error.code == "device.changed" else pytest.fail(str(error))
    return None


def test_a_device_that_nobody_here_knows_is_not_changed(note: Note) -> None:
    put(note, "device.report", report(NEW, tick=1), device="IP-2")
    assert changed(note, report()) is None
    assert known(note, "IP-1").reports == []


def test_the_newest_report_that_stands_is_what_counts(note: Note) -> None:
    put(note, "device.report", report(NEW, tick=1))
    put(note, "device.report", report(OLD, tick=2))
    assert changed(note, report(OLD, tick=3)) is None
    told = changed(note, report(NEW, tick=3))
    assert told is not None
    assert "record 1" in told
    assert note.details["changed-version"] == "a on record, n found"


def test_what_was_begun_here_explains_itself_whether_its_end_is_known_or_not(note: Note) -> None:
    put(note, "release.push-begun", report(OLD, tick=1), manifest=NEW)
    assert changed(note, report(NEW, tick=2)) is None
    assert changed(note, report(OLD, tick=2)) is None
    put(note, "release.push", code="link.timeout")
    assert changed(note, report(NEW, tick=2)) is None
    put(note, "device.report", report(NEW, tick=3))
    assert changed(note, report(OLD, tick=4)) is not None  # it had arrived, and is gone again


def test_a_trial_may_end_either_way(note: Note) -> None:
    put(note, "release.push-begun", report(OLD, tick=1), manifest=NEW)
    put(note, "release.push", report(NEW, tick=2, boot_state="trial", confirmed=False), code="device.unconfirmed")
    for after in (OLD, NEW):
        assert changed(note, report(after, tick=3)) is None
    assert changed(note, report(b"x" * 32, tick=3)) is not None


def test_a_change_stays_open_until_somebody_answers_for_it(note: Note) -> None:
    put(note, "device.report", report(OLD, tick=1))
    put(note, "device.report", report(NEW, tick=2), code="device.changed")
    assert known(note, "IP-1").open is not None
    put(note, "device.report", report(OLD, tick=3))  # put back as it was, before anybody looked again
    told = changed(note, report(OLD, tick=4))
    assert told is not None
    assert "record 1" in told
    put(note, "device.acknowledge", report(OLD, tick=3))
    assert changed(note, report(OLD, tick=4)) is None
    assert known(note, "IP-1").open is None


@pytest.mark.parametrize(("action", "code", "settles"), [
    ("release.push", None, True), ("release.recover", None, True), ("release.push", "device.self-test", False),
    ("device.report", None, False), ("device.acknowledge", "key.purpose", False),
])  # fmt: skip
def test_what_settles_a_change(note: Note, action: str, code: str | None, settles: bool) -> None:
    put(note, "device.report", report(OLD, tick=1))
    put(note, "device.report", report(NEW, tick=2), code="device.changed")
    put(note, action, report(NEW, tick=3), code=code)
    assert (changed(note, report(NEW, tick=4)) is None) == settles


def test_a_look_records_what_it_finds_and_a_refused_push_does(note: Note) -> None:
    put(note, "device.report", report(OLD, tick=1))
    found = note_change(note, report(OLD, tick=2))
    assert found == ()
    assert note.log is not None
    assert note.log.size == 1
    assert [one.name for one in note_change(note, report(OLD, tick=1))] == ["log_head"]
    assert [one.code for one in note.log] == [None, "device.changed"]
    assert unexplained(note, replace(report(OLD, tick=3), security_version=0))[1][0].name == "security_version"


def test_a_clock_that_ticks_between_two_looks_at_it_was_not_set_back(note: Note) -> None:
    put(note, "device.report", report(OLD, tick=1))
    ticks = iter(range(1000, 1100))
    note.clock = lambda: next(ticks)
    written = note.record(None, None, None)
    assert ("clock" in written.details, written.time) == (False, 1000)

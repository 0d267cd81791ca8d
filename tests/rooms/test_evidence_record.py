"""Records and entries: they come back as they went in, and nothing else is taken for one."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.errors import DevguardError, LocalProtocolError, Malformed
from devguard.evidence.record import (
    FORMAT_1,
    MAX_DETAILS,
    MAX_STATEMENT,
    DigestOf,
    Entry,
    Record,
    Statement,
    decode_entry,
    decode_record,
    encode_entry,
    encode_record,
    entry_prefix,
    printable,
    seal_text,
    sealed_text,
    time_of,
)

PLAIN = Record(time=1_800_000_000, actor="Tess", action="release.verify", request="r-1")
FULL = Record(
    time=1_800_000_000,
    actor="Tess Technician",
    action="device.push",
    request="r-2",
    device="IP-0001",
    release="insulin-pump 1.1.0",
    code="image.digest",
    digests={DigestOf.GRANT: b"g" * 32, DigestOf.DEVICE_HEAD: b"h" * 48},
    details={"port": "/dev/ttyUSB0", "empty": ""},
    statements={Statement.REPORT: b"a report"},
)
SEAL = b"s" * 64


@pytest.mark.parametrize("record", [PLAIN, FULL])
def test_round_trip(record: Record) -> None:
    assert decode_record(encode_record(record)) == record
    entry = Entry(7, SEAL, encode_record(record))
    assert decode_entry(encode_entry(entry)) == entry
    assert entry.record == record
    assert record.ok == (record.code is None)


def test_json_names_everything() -> None:
    assert FULL.to_json() == {
        "time": 1_800_000_000,
        "actor": "Tess Technician",
        "action": "device.push",
        "request": "r-2",
        "device": "IP-0001",
        "release": "insulin-pump 1.1.0",
        "code": "image.digest",
        "digests": {"grant": "67" * 32, "device-head": "68" * 48},
        "details": {"port": "/dev/ttyUSB0", "empty": ""},
        "statements": {"report": {"bytes": 8, "sha256": hashlib.sha256(b"a report").hexdigest()}},
    }


TEXT = st.text(max_size=700)


@given(
    st.integers(-(2**70), 2**70),
    TEXT,
    TEXT,
    TEXT,
    st.none() | TEXT,
    st.dictionaries(TEXT, TEXT, max_size=MAX_DETAILS + 5),
)
def test_any_text_can_be_recorded(
    time: int, actor: str, action: str, request: str, code: str | None, details: dict[str, str]
) -> None:
    record = Record.make(time=time, actor=actor, action=action, request=request, code=code, details=details)
    assert decode_record(encode_record(record)) == record
    assert all(text.isprintable() for text in (record.actor, record.action, *record.details.values()))
    assert (record.code is None) == (code is None)


def test_deceiving_characters_become_escapes() -> None:
    assert printable("a\x1b[2Jb\u202ec\ud800") == "a\\x1b[2Jb\\u202ec\\ud800"
    assert printable("x" * 600).endswith("…")
    assert len(printable("\u202e" * 600)) == 512
    assert printable("übung") == "übung"


@pytest.mark.parametrize(
    "changes",
    [
        {"time": -1},
        {"time": 1 << 41},
        {"time": True},
        {"actor": ""},
        {"actor": "a\nb"},
        {"action": "x" * 513},
        {"code": ""},
        {"digests": {DigestOf.GRANT: b"short"}},
        {"digests": {99: b"x" * 32}},
        {"details": {str(number): "" for number in range(MAX_DETAILS + 1)}},
        {"details": {"": "x"}},
        {"statements": {Statement.REPORT: b""}},
        {"statements": {Statement.REPORT: bytes(MAX_STATEMENT + 1)}},
        {"statements": {Statement.REPORT: "text"}},
        {"statements": {99: b"x"}},
    ],
)
def test_what_is_no_record_is_not_made_and_not_read(changes: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError, match=r"log\.tampered"):
        Record(**{"time": 1, "actor": "a", "action": "b", "request": "c", **changes})


GOOD = {1: 5, 2: "a", 3: "b", 4: "c"}


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {**GOOD, 11: "unknown"},
        {**GOOD, 10: "statement"},
        {**GOOD, 10: {}},
        {**GOOD, 10: {99: b"x"}},
        {1: 5, 2: "a", 3: "b"},
        {**GOOD, 1: "x"},
        {**GOOD, 2: b"a"},
        {**GOOD, 8: {}},
        {**GOOD, 9: {}},
        {**GOOD, 8: {1: b""}},
        {**GOOD, 8: {True: b"x" * 32}},
        {**{key: item for key, item in GOOD.items() if key != 1}, True: 5},
    ],
)
def test_foreign_maps_refuse(value: object) -> None:
    with pytest.raises(Malformed, match=r"log\.tampered"):
        decode_record(wire.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        1,
        [],
        [3, 0, SEAL, b""],
        [0, 0, SEAL, b""],
        [True, 0, SEAL, b""],
        [1, -1, SEAL, b""],
        [1, 0, SEAL[1:], b""],
        [1, 0, SEAL],
        [1, 0, "x", b""],
        [1, 0, SEAL, b"", 0],
    ],
)
def test_foreign_entries_refuse(value: object) -> None:
    with pytest.raises(Malformed, match=r"log\.tampered"):
        decode_entry(wire.encode(value))


@given(st.binary(max_size=300))
def test_garbage_raises_our_own_error(data: bytes) -> None:
    for decode in (decode_record, decode_entry):
        with pytest.raises(DevguardError):
            decode(data)


def test_every_truncation_refuses_and_the_limit_holds() -> None:
    data = encode_entry(Entry(0, SEAL, encode_record(FULL)))
    for length in range(len(data)):
        with pytest.raises(Malformed):
            decode_entry(data[:length])
    with pytest.raises(LocalProtocolError):
        encode_entry(Entry(0, SEAL, b"x" * 270_000))
    with pytest.raises(Malformed):
        decode_entry(wire.encode([1, 0, SEAL, b"x" * 270_000]))


def test_the_largest_record_fits() -> None:
    long = "\U0001f600" * 600
    record = Record.make(
        time=1 << 60,
        actor=long,
        action=long,
        request=long,
        device=long,
        release=long,
        code=long,
        digests=dict.fromkeys(DigestOf, b"d" * 64),
        details={f"{number:03}{long}": long for number in range(100)},
        statements={**dict.fromkeys(Statement, b"s" * MAX_STATEMENT), Statement.PUSH: bytes(MAX_STATEMENT + 1)},
    )
    assert (len(record.statements), record.details["dropped"]) == (len(Statement) - 1, "70")
    assert len(record.details) == MAX_DETAILS
    assert decode_entry(encode_entry(Entry(2**60, SEAL, encode_record(record)))).record == record


def test_a_seal_is_no_checkpoint() -> None:
    assert seal_text("devguard/x", 1, b"r" * 32).startswith(b"devguard/x seal\n1\n")
    entry = Entry(1, SEAL, b"body")
    assert sealed_text("devguard/x", entry, b"r" * 32) == seal_text("devguard/x", 1, b"r" * 32, b"body")
    assert sealed_text("o", entry, bytes(32)) != sealed_text("o", Entry(1, SEAL, b"other"), bytes(32))
    assert sealed_text("o", Entry(1, SEAL, b"body", FORMAT_1), bytes(32)) == seal_text("o", 1, bytes(32))


@given(st.integers(0, (1 << 40) - 1), st.integers(0, (1 << 62) - 1))
def test_what_is_read_without_decoding_is_what_decoding_reads(time: int, index: int) -> None:
    body = encode_record(Record(time=time, actor="a", action="b", request="c", statements={Statement.PUSH: b"x"}))
    assert time_of(body) == decode_record(body).time == time
    assert encode_entry(Entry(index, SEAL, body)).startswith(entry_prefix(index) + SEAL)


@pytest.mark.parametrize("body", [b"", b"\xa4\x01", b"\xa4\x02\x05\x00", b"\x84\x01\x05\x00", b"\xa4\x01\x20\x00"])
def test_a_body_without_a_time_in_its_place_refuses(body: bytes) -> None:
    with pytest.raises(Malformed, match=r"log\.tampered"):
        time_of(body)

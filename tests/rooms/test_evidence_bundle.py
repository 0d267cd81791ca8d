"""The bundle of an incident: verified by the public key alone, and no line of it can be changed unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError
from devguard.evidence import files
from devguard.evidence.bundle import FIRST, body_of, digest_of, encode, read_bundle, section_digests
from devguard.evidence.incident import EXPORT, gather
from devguard.evidence.log import EvidenceLog, read_entries
from devguard.evidence.prove import prove_records
from devguard.evidence.record import DigestOf, Record, Statement
from devguard.evidence.rules import OPEN
from evidence_support import STATION, record

SECRET = "Mrs-Doe-4711"


def made(folder: Path, *, whole: bool = False, origin: MemorySigner = STATION) -> bytes:
    """A log with an incident of records 2 and 5, and its bundle."""
    log = EvidenceLog.open(folder, origin, clock=lambda: 1000)
    for number in range(8):
        digests, statements = {DigestOf.MANIFEST: bytes([number]) * 32}, {Statement.REPORT: b"signed"}
        typed = {"details": {"reason": SECRET}} if number == 5 else {}
        fields = {"device": "IP-1", "release": "pump 1.0.0", "digests": digests, "statements": statements, **typed}
        log.append(record(number, code="version.rollback", **fields))
    details = {"kind": "burst", "subject": "Tess", "records": "2 5"}
    log.append(Record.make(time=1010, actor="devguard", action=OPEN, request="burst-5", details=details))
    one = gather((entry.index, entry.record) for entry in read_entries(folder))["burst-5"]
    wanted = (2, 5, 8)
    lines = body_of(one, [entry for entry in read_entries(folder) if entry.index in wanted], 1011, whole=whole)
    sealed = Record.make(
        time=1011,
        actor="Olga",
        action=EXPORT,
        request=one.id,
        details=section_digests(lines),
        digests={DigestOf.PAYLOAD: digest_of(lines)},
    )
    *proofs, seal = prove_records(folder, origin.key, [*wanted, log.append(sealed)])
    return encode(lines, proofs, seal)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda _descriptor: None)
        return made(tmp_path_factory.mktemp("log"))


def test_it_verifies_with_the_public_key_alone(bundle: bytes) -> None:
    read = read_bundle(bundle)
    entry, head = read.verify(STATION.key)
    assert (entry.index, head.size) == (9, 10)
    assert [one["index"] for one in read.section("record")] == [2, 5, 8]
    assert [one["whole"] is None for one in read.section("record")] == [False, True, False]
    assert [one["days"] for one in read.section("clock")] == [30, 60]
    assert read.section("incident")[0]["decision"] == "undecided"
    assert [one["digest"] for one in read.section("image")] == ["02" * 32, "05" * 32]
    assert len(read.section("report")) == 1


def test_what_people_typed_is_there_only_when_asked_for(bundle: bytes, tmp_path: Path) -> None:
    assert SECRET.encode() not in bundle
    whole = read_bundle(made(tmp_path, whole=True))
    whole.verify(STATION.key)
    assert all(one["whole"] is not None for one in whole.section("record"))


def test_another_stations_key_does_not_do(bundle: bytes) -> None:
    other = MemorySigner.from_seed(Algorithm.ED25519, b"o" * 32)
    with pytest.raises(DevguardError) as refused:
        read_bundle(bundle).verify(other.key)
    assert refused.value.code == "log.tampered"


@pytest.mark.parametrize("section", ["incident", "clock", "timeline", "image", "report"])
def test_a_changed_line_is_located_by_its_section(bundle: bytes, section: str) -> None:
    read = read_bundle(bundle)
    index = next(number for number, line in enumerate(read.lines) if line.startswith(f"{section} "))
    head, _, rest = read.lines[index].partition(" ")
    changed = f"{head} {json.dumps({**json.loads(rest), 'x': 1})}" if section != "timeline" else f"{head} x{rest}"
    for lines in (
        (*read.lines[:index], changed, *read.lines[index + 1 :]),
        (*read.lines[:index], *read.lines[index + 1 :]),
    ):
        with pytest.raises(DevguardError, match=section):
            replace(read, lines=lines).verify(STATION.key)


@pytest.mark.parametrize("field", ["leaf", "whole", "excerpt"])
@pytest.mark.parametrize("index", [2, 5], ids=["whole", "excerpt"])
def test_a_changed_record_is_located_by_its_number(bundle: bytes, field: str, index: int) -> None:
    read = read_bundle(bundle)
    records = read.section("record")
    one, other = next(row for row in records if row["index"] == index), records[2]
    at = next(
        number for number, line in enumerate(read.lines) if line.startswith("record ") and json.loads(line[7:]) == one
    )
    changed = f"record {json.dumps({**one, field: other[field]})}"
    with pytest.raises(DevguardError, match=f"record {index} ") as refused:
        replace(read, lines=(*read.lines[:at], changed, *read.lines[at + 1 :])).verify(STATION.key)
    assert refused.value.code == "log.tampered"


def test_lines_in_another_order_refuse(bundle: bytes) -> None:
    read = read_bundle(bundle)
    first, second, *rest = read.lines
    with pytest.raises(DevguardError, match="order"):
        replace(read, lines=(second, first, *rest)).verify(STATION.key)


def test_every_flipped_byte_of_the_seal_and_the_paths_refuses(bundle: bytes) -> None:
    start = bundle.index(b"\npath ")
    for at in range(start, len(bundle), 7):
        data = bytearray(bundle)
        data[at] ^= 0x01
        with pytest.raises(DevguardError) as refused:
            read_bundle(bytes(data)).verify(STATION.key)
        assert refused.value.code == "log.tampered"


@given(st.integers(0, 10**6), st.binary(max_size=12))
def test_any_bytes_put_in_refuse(bundle: bytes, at: int, junk: bytes) -> None:
    at %= len(bundle)
    data = bundle[:at] + junk + bundle[at + len(junk) :]
    try:
        read = read_bundle(data)
        read.verify(STATION.key)
    except DevguardError as error:
        assert error.code == "log.tampered"  # noqa: PT017 (refusing is one of two right answers)
    else:
        assert data == bundle


@pytest.mark.parametrize(
    "data",
    [
        b"",
        FIRST.encode(),
        f"{FIRST}\n\n".encode(),
        f"{FIRST}\nincident [1]\n\n".encode(),
        f"{FIRST}\nincident {'[' * 100_000}\n\n".encode(),
        f"{FIRST}\nother x\n\n".encode(),
        f"{FIRST}\npath 1\npath 1\n\n".encode(),
        f"{FIRST}\npath\n\n".encode(),
        f"{FIRST}\n\xff\n\n".encode("latin-1"),
    ],
    ids=["nothing", "first", "no-seal", "list", "deep", "section", "twice", "bare-path", "latin"],
)
def test_garbage_refuses(data: bytes) -> None:
    with pytest.raises(DevguardError) as refused:
        read_bundle(data)
    assert refused.value.code == "log.tampered"

"""Locked bytes of the evidence log: folders of format 1 still verify and go on; format 2 is written as it was.

Added to, never changed. The logs are by the station key of seed `station...`, records a second apart.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from pathlib import Path

import pytest

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Malformed
from devguard.evidence.frame import LEAD, decode_header
from devguard.evidence.log import EvidenceLog, read_records
from devguard.evidence.newest import newest
from devguard.evidence.record import DigestOf, Record, Statement
from devguard.evidence.verify import claimed_origin, verify_log
from devguard.wire import encode

STATION = MemorySigner.from_seed(Algorithm.ED25519, b"station".ljust(32, b"."))
FORMAT_1 = {
    "empty": {
        "checkpoint": (
            "ZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0NwowCjQ3REVRcGo4SEJTYSsvVEltVys1SkNldVFlUmttNU5NcEpXWkczaFN1RlU9Cgri"
            "gJQgZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0NyAyM0dXNnVYalZvVVFRdURSRFNQSGhsRFEvL1hqczFWWFVocytrcEk0NzkzSmx6"
            "TXZkUG1OSXEyRkJ5RE83eDJtTEhQT2NaS1NhUTRrRUdPSnZzRGFDeitac0FjPQo="
        ),
    },
    "five records": {
        "checkpoint": (
            "ZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0Nwo1CktRZzM2bEdETDdZSFRYdUEvd1NJQ004Y0R2TGlKVDlHRTNDUjM5WlFjc1U9Cgri"
            "gJQgZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0NyAyM0dXNnJFbzBEM2tuSXc4dUxNZnhhMVlWNmpPMTh0ZDdybjJaS1Jqd0FqMmwx"
            "c1BLekNkMWFvUmZiUVNvRjNWMHBnVnk1SmtQbkdzNStVb0ZSNjlZaTJ3UFFvPQo="
        ),
        "segment-000001.log": (
            "AAAAFyQySNGFcWRldmd1YXJkLWV2aWRlbmNlAQEAgAAAAGT2XtUbhAEAWEAfIH2sK55cb3/oxw2tPQHsIn+saizxM0J9eB0jHpj+"
            "q6eIV/M5BR3D8e7IEf9Vx4vwTEQNNDX2HCs/Fh9hVkwGWB2kARkD6AJkVGVzcwNrdGVzdC5hcHBlbmQHY3ItMAAAAGR8PUumhAEB"
            "WECBBzDIB89KTdyob6TPgZRR/jlcrDNiZul1qP4er9omAby841jjEU1W39C3PCeZdLPk1zcZj9ZDj1I5GbYvE6MCWB2kARkD6QJk"
            "VGVzcwNrdGVzdC5hcHBlbmQHY3ItMQAAAGQhLw1LhAECWEBO8mfi8NN6OpJ1a1om4fO+MkGrW/RLaKa+yfANe4iVNVai0VB0PNT5"
            "YvHNsFhU0zUilRHEuDretxSZP9fQtPkBWB2kARkD6gJkVGVzcwNrdGVzdC5hcHBlbmQHY3ItMgAAAGToe2gzhAEDWECASxJ1sAGR"
            "MA9KMjTBY3PIyYW4x5yypkrzFZj2xARK2BU49gCv/OISXvH1l5aeJ5NO7TO4ybaQFLuO1YhyHR8IWB2kARkD6wJkVGVzcwNrdGVz"
            "dC5hcHBlbmQHY3ItMw=="
        ),
        "segment-000002.log": (
            "AAAAOamRC32FcWRldmd1YXJkLWV2aWRlbmNlAQIEgVggBvvLlPDZSI+l+deWvhII0rHB3RywLEygm96gNZ0p+iAAAABk43DmdYQB"
            "BFhAPkGA8rDFwLM7qZ9C5mNoaiPiyIqNdy0VbzQxkr7OIHCdoNCUzvVNu08Fv+9MdR1Kcc0ZJafgOgBXtHrNYo2TClgdpAEZA+wC"
            "ZFRlc3MDa3Rlc3QuYXBwZW5kB2NyLTQ="
        ),
    },
    "cut off before the rename": {
        "checkpoint": (
            "ZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0Nwo1CktRZzM2bEdETDdZSFRYdUEvd1NJQ004Y0R2TGlKVDlHRTNDUjM5WlFjc1U9Cgri"
            "gJQgZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0NyAyM0dXNnJFbzBEM2tuSXc4dUxNZnhhMVlWNmpPMTh0ZDdybjJaS1Jqd0FqMmwx"
            "c1BLekNkMWFvUmZiUVNvRjNWMHBnVnk1SmtQbkdzNStVb0ZSNjlZaTJ3UFFvPQo="
        ),
        "checkpoint.next": (
            "ZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0Nwo2Ck11Nm5HbzFFQXE5RVczRUp4TmVQNmpZT3ZYTk11bFlFTVh1MjJST0wvUzQ9Cgri"
            "gJQgZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0NyAyM0dXNm40NFBYaG1BdnhldHk3NCtkK3RFRDFvTk9Hc0ZyNEw1ODZXOEpDZitq"
            "VUVjdXhmSG9rTnViN0dmK0VySUFHa2x3ZFBnVEZZMjlJeDhtQkZqZFZ5dmdzPQo="
        ),
        "segment-000001.log": (
            "AAAAFyQySNGFcWRldmd1YXJkLWV2aWRlbmNlAQEAgAAAAGT2XtUbhAEAWEAfIH2sK55cb3/oxw2tPQHsIn+saizxM0J9eB0jHpj+"
            "q6eIV/M5BR3D8e7IEf9Vx4vwTEQNNDX2HCs/Fh9hVkwGWB2kARkD6AJkVGVzcwNrdGVzdC5hcHBlbmQHY3ItMAAAAGR8PUumhAEB"
            "WECBBzDIB89KTdyob6TPgZRR/jlcrDNiZul1qP4er9omAby841jjEU1W39C3PCeZdLPk1zcZj9ZDj1I5GbYvE6MCWB2kARkD6QJk"
            "VGVzcwNrdGVzdC5hcHBlbmQHY3ItMQAAAGQhLw1LhAECWEBO8mfi8NN6OpJ1a1om4fO+MkGrW/RLaKa+yfANe4iVNVai0VB0PNT5"
            "YvHNsFhU0zUilRHEuDretxSZP9fQtPkBWB2kARkD6gJkVGVzcwNrdGVzdC5hcHBlbmQHY3ItMgAAAGToe2gzhAEDWECASxJ1sAGR"
            "MA9KMjTBY3PIyYW4x5yypkrzFZj2xARK2BU49gCv/OISXvH1l5aeJ5NO7TO4ybaQFLuO1YhyHR8IWB2kARkD6wJkVGVzcwNrdGVz"
            "dC5hcHBlbmQHY3ItMw=="
        ),
        "segment-000002.log": (
            "AAAAOamRC32FcWRldmd1YXJkLWV2aWRlbmNlAQIEgVggBvvLlPDZSI+l+deWvhII0rHB3RywLEygm96gNZ0p+iAAAABk43DmdYQB"
            "BFhAPkGA8rDFwLM7qZ9C5mNoaiPiyIqNdy0VbzQxkr7OIHCdoNCUzvVNu08Fv+9MdR1Kcc0ZJafgOgBXtHrNYo2TClgdpAEZA+wC"
            "ZFRlc3MDa3Rlc3QuYXBwZW5kB2NyLTQAAABk4xVTg4QBBVhA7UUJg4E/GCdegbz6yAP9ymtkh8LViAN5WNbFCRwgEupoTXc+Kjb2"
            "9KEQCJeil5KsyBMyzvfdEvd6RQYwWiWFBVgdpAEZA+0CZFRlc3MDa3Rlc3QuYXBwZW5kB2NyLTU="
        ),
    },
    "cut off in the record": {
        "checkpoint": (
            "ZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0Nwo1CktRZzM2bEdETDdZSFRYdUEvd1NJQ004Y0R2TGlKVDlHRTNDUjM5WlFjc1U9Cgri"
            "gJQgZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0NyAyM0dXNnJFbzBEM2tuSXc4dUxNZnhhMVlWNmpPMTh0ZDdybjJaS1Jqd0FqMmwx"
            "c1BLekNkMWFvUmZiUVNvRjNWMHBnVnk1SmtQbkdzNStVb0ZSNjlZaTJ3UFFvPQo="
        ),
        "checkpoint.next": (
            "ZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0Nwo2Ck11Nm5HbzFFQXE5RVczRUp4TmVQNmpZT3ZYTk11bFlFTVh1MjJST0wvUzQ9Cgri"
            "gJQgZGV2Z3VhcmQvNmFmZmE1YjRkZTZjZTQ0NyAyM0dXNm40NFBYaG1BdnhldHk3NCtkK3RFRDFvTk9Hc0ZyNEw1ODZXOEpDZitq"
            "VUVjdXhmSG9rTnViN0dmK0VySUFHa2x3ZFBnVEZZMjlJeDhtQkZqZFZ5dmdzPQo="
        ),
        "segment-000001.log": (
            "AAAAFyQySNGFcWRldmd1YXJkLWV2aWRlbmNlAQEAgAAAAGT2XtUbhAEAWEAfIH2sK55cb3/oxw2tPQHsIn+saizxM0J9eB0jHpj+"
            "q6eIV/M5BR3D8e7IEf9Vx4vwTEQNNDX2HCs/Fh9hVkwGWB2kARkD6AJkVGVzcwNrdGVzdC5hcHBlbmQHY3ItMAAAAGR8PUumhAEB"
            "WECBBzDIB89KTdyob6TPgZRR/jlcrDNiZul1qP4er9omAby841jjEU1W39C3PCeZdLPk1zcZj9ZDj1I5GbYvE6MCWB2kARkD6QJk"
            "VGVzcwNrdGVzdC5hcHBlbmQHY3ItMQAAAGQhLw1LhAECWEBO8mfi8NN6OpJ1a1om4fO+MkGrW/RLaKa+yfANe4iVNVai0VB0PNT5"
            "YvHNsFhU0zUilRHEuDretxSZP9fQtPkBWB2kARkD6gJkVGVzcwNrdGVzdC5hcHBlbmQHY3ItMgAAAGToe2gzhAEDWECASxJ1sAGR"
            "MA9KMjTBY3PIyYW4x5yypkrzFZj2xARK2BU49gCv/OISXvH1l5aeJ5NO7TO4ybaQFLuO1YhyHR8IWB2kARkD6wJkVGVzcwNrdGVz"
            "dC5hcHBlbmQHY3ItMw=="
        ),
        "segment-000002.log": (
            "AAAAOamRC32FcWRldmd1YXJkLWV2aWRlbmNlAQIEgVggBvvLlPDZSI+l+deWvhII0rHB3RywLEygm96gNZ0p+iAAAABk43DmdYQB"
            "BFhAPkGA8rDFwLM7qZ9C5mNoaiPiyIqNdy0VbzQxkr7OIHCdoNCUzvVNu08Fv+9MdR1Kcc0ZJafgOgBXtHrNYo2TClgdpAEZA+wC"
            "ZFRlc3MDa3Rlc3QuYXBwZW5kB2NyLTQAAABk4xVTg4QBBVhA7UUJg4E/GCdegbz6yAP9ymtkh8LViAN5WNbF"
        ),
    },
}


def record(number: int) -> Record:
    return Record(time=1000 + number, actor="Tess", action="test.append", request=f"r-{number}")


def old(folder: Path, name: str) -> Path:
    folder.mkdir()
    for file, text in FORMAT_1[name].items():
        (folder / file).write_bytes(b64decode(text))
    return folder


def code_of(folder: Path) -> str | None:
    try:
        verify_log(folder, STATION.key)
    except DevguardError as error:
        return error.code
    return None


RECORDS = {"empty": 0, "five records": 5, "cut off before the rename": 6, "cut off in the record": 5}


@pytest.mark.parametrize(("name", "count"), RECORDS.items())
def test_a_log_of_format_1_verifies_as_it_is(tmp_path: Path, name: str, count: int) -> None:
    folder = old(tmp_path / "log", name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report = verify_log(folder, STATION.key)
    assert (report.records, report.interrupted) == (count, name.startswith("cut off"))
    assert [one.request for one in read_records(folder)] == [f"r-{number}" for number in range(min(count, 5))]
    assert claimed_origin(folder) == report.checkpoint.origin
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(("name", "count"), RECORDS.items())
def test_a_log_of_format_1_goes_on_in_format_2_and_says_so(tmp_path: Path, name: str, count: int) -> None:
    folder = old(tmp_path / "log", name)
    kept = verify_log(folder, STATION.key).checkpoint
    log = EvidenceLog.open(folder, STATION, clock=lambda: 1100)
    log.append(record(200))
    report = verify_log(folder, STATION.key, earlier=(kept,))
    assert not report.interrupted
    assert {path.name for path in folder.iterdir()} == {f"segment-{n:06d}.log" for n in range(1, report.segments + 1)}
    seen = list(read_records(folder))
    assert [one.request for one in seen if one.action == "test.append"] == [*(f"r-{n}" for n in range(count)), "r-200"]
    own = {one.action: one.details for one in seen if one.actor == "devguard"}
    change = {"from": "1", "to": "2", "records": str(count)}
    expected = {} if name == "empty" else {"evidence.format": change}
    if name == "cut off in the record":
        expected["evidence.recover"] = own["evidence.recover"]
    assert own == expected
    assert newest(folder, lambda one: one.request == "r-0")[0] is not None or count == 0
    assert EvidenceLog.open(folder, STATION).size == report.records


NEXT_NOTE = b64decode(FORMAT_1["cut off before the rename"]["checkpoint.next"])


def test_what_a_crash_leaves_of_a_note_of_format_1_is_no_damage(tmp_path: Path) -> None:
    folder = old(tmp_path / "log", "five records")
    for cut in range(len(NEXT_NOTE)):
        for rest in (b"", bytes(len(NEXT_NOTE) - cut)):
            (folder / "checkpoint.next").write_bytes(NEXT_NOTE[:cut] + rest)
            assert verify_log(folder, STATION.key).interrupted


@pytest.mark.parametrize("log", ["format 1", "format 2"])
@pytest.mark.parametrize("change", ["flip", "tail", "zeros", "text"])
def test_other_bytes_in_the_place_of_a_note_are_damage(tmp_path: Path, log: str, change: str) -> None:
    if log == "format 1":
        folder = old(tmp_path / "log", "five records")
    else:
        folder = tmp_path / "log"
        EvidenceLog.open(folder, STATION, clock=lambda: 1100).append(record(200))
    head = NEXT_NOTE[: NEXT_NOTE.index(b"\n", NEXT_NOTE.index(b"\n") + 1) + 1]
    changed = {
        "flip": NEXT_NOTE[:-8] + bytes([NEXT_NOTE[-8] ^ 1]) + NEXT_NOTE[-7:],
        "tail": head + b"anything at all\n" * 500,
        "zeros": bytes(len(NEXT_NOTE) + 1),
        "text": head + b"not base64!",
    }[change]
    (folder / "checkpoint.next").write_bytes(changed)
    assert code_of(folder) == "log.tampered"


@pytest.mark.parametrize("name", RECORDS)
def test_a_changed_byte_of_a_log_of_format_1_is_found(tmp_path: Path, name: str) -> None:
    folder = old(tmp_path / "log", name)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for at in range(0, len(data), 5):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
            code = code_of(folder)
            if code is None:  # what was cut off proves nothing and need not hold
                assert name.startswith("cut off"), (path.name, at)
                assert path.name in ("checkpoint.next", "segment-000002.log")
            else:
                assert code in ("log.tampered", "log.truncated")
        path.write_bytes(data)


# format 2

ENTRY_2 = (
    "00000064ab26457e84020058404b19a2c307a686ce39a44e10d1fd64ab1ef9aeda172e16533a237d62ade2c39689504087b4"
    "89bda1094637703811de35be52ddb2b5831df15a87f7373103df0f581da4011903e8026454657373036b746573742e617070"
    "656e640763722d30000000d462ba709184020158407c3b1415ecc4e97129ea0a340a5ce3e15af970030f11070fe080eddef6"
    "f4789069bfa8f4fa6c32b81540f8ea13610282298ee23505e25af23b74b7fc6a485305588da9011903e9026454657373036c"
    "72656c656173652e70757368046749502d303030310572696e73756c696e2d70756d7020312e312e300763722d3108a10358"
    "20737373737373737373737373737373737373737373737373737373737373737309a164706f72746c2f6465762f74747955"
    "5342300aa2014861207265706f7274034b612073746174656d656e74"
)
SEGMENT_2 = "a27edbf181d10a43be93c1a5a2ea0a8dc966cbaa3ea0f5802993f8408d512e23"


def test_a_log_of_format_2_is_written_as_it_was(tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path, STATION)
    log.append(record(0))
    log.append(
        Record(
            time=1001,
            actor="Tess",
            action="release.push",
            request="r-1",
            device="IP-0001",
            release="insulin-pump 1.1.0",
            digests={DigestOf.SESSION: b"s" * 32},
            details={"port": "/dev/ttyUSB0"},
            statements={Statement.REPORT: b"a report", Statement.PUSH: b"a statement"},
        )
    )
    data = (tmp_path / "segment-000001.log").read_bytes()
    assert data[LEAD:].hex() == ENTRY_2
    assert hashlib.sha256(data).hexdigest() == SEGMENT_2


def test_an_unknown_format_says_so() -> None:
    with pytest.raises(Malformed, match="reads 1 and 2"):
        decode_header(encode(["devguard-evidence", 3, 1, 0, [], 0]))

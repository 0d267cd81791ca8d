"""`devguard evidence export`: every format parses, shows no word that people typed, and refuses a damaged log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli_support import World, devguard, ok, records
from devguard.cli.home import Home
from devguard.evidence.log import EvidenceLog, read_entries
from devguard.evidence.record import Record, encode_entry
from devguard.evidence.tree import leaf_hash

PATIENT = "patient-4711-Doe"
FORMATS = ("jsonl", "cef", "ocsf")


@pytest.fixture
def home(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A station whose people typed what they should not have: into names, reasons, passphrases, PINs."""
    home = world.copy(tmp_path / "bench")
    named = tmp_path / f"{PATIENT}.suit"
    named.write_bytes(world.suits["1.0.0"].read_bytes())
    ok("verify", named, "--home", home)
    monkeypatch.setenv("DEVGUARD_PIN", "pin-marker-9981")
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "wrong-passphrase-marker")
    assert devguard("verify", tmp_path / f"{PATIENT}-missing.suit", "--home", home).status == 3
    grant = world.grant(tmp_path / f"{PATIENT}.grant", "IP-1")
    push = ["push", named, "--key", "tech", "--grant", grant, "--serial", "IP-1", "--port", f"/dev/{PATIENT}"]
    assert devguard(*push, "--reason", PATIENT, "--work-order", PATIENT, "--home", home).status != 0
    log = Home(home).evidence()
    for name, text in (("a|b=c\\d", "x"), ("line", "=|\\ two")):
        record = Record.make(time=log.latest, actor=f"Eve {name}", action="test.odd", request="r", release=f"m {text}")
        log.append(record)
    return home


@pytest.mark.parametrize("form", FORMATS)
def test_no_typed_word_leaves(home: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "export"
    done = ok("evidence", "export", "--format", form, "-o", out, "--home", home, "--json").json
    text = out.read_text()
    for marker in (PATIENT, "pin-marker-9981", "passphrase-marker", "correct horse"):
        assert marker not in text
    assert PATIENT in str(records(home))  # the log itself has it: the test would see it
    assert len(text.splitlines()) == done["lines"] == done["records"] == len(records(home, raised=True)) - 1
    last = records(home)[-1]
    assert (last["action"], last["details"]["format"]) == ("evidence.export", form)


def test_json_lines_tie_to_the_log(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    ok("evidence", "export", "--format", "jsonl", "-o", out, "--home", home)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    entries = list(read_entries(home / "evidence"))
    for line, entry in zip(lines, entries, strict=False):
        assert line["index"] == entry.index
        assert line["leaf"] == leaf_hash(encode_entry(entry)).hex()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"])
        assert set(line["details"]) | set(line["withheld"]) == set(entry.record.details)
    assert any("why" in line["withheld"] for line in lines)


def test_cef_escapes(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    ok("evidence", "export", "--format", "cef", "--syslog", "-o", out, "--home", home)
    lines = out.read_text().splitlines()
    for line in lines:
        header, _, cef = line.partition(" CEF:0|")
        assert re.fullmatch(r"<1\d\d>1 \S+Z devguard-[0-9a-f]{16} devguard - - -", header)
        fields = re.split(r"(?<!\\)\|", cef, maxsplit=6)
        assert len(fields) == 7
        pairs = re.findall(r"(\w+)=((?:\\.|[^\\=])*?)(?= \w+=|$)", fields[-1])
        assert dict(pairs)["rt"].isdigit()
    odd = next(line for line in lines if "Eve a" in line)
    assert "suser=Eve a|b\\=c\\\\d" in odd
    assert "cs1=m \\=|\\\\ two" in lines[-1]


def test_ocsf_events_have_their_class(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    ok("evidence", "export", "--format", "ocsf", "-o", out, "--home", home)
    events = [json.loads(line) for line in out.read_text().splitlines()]
    for event in events:
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["category_uid"] == event["class_uid"] // 1000
        assert event["time"] > 1_600_000_000_000
        assert event["severity_id"] in (1, 3, 4)
        assert event["metadata"]["version"] == "1.3.0"
        assert event["metadata"]["product"]["name"] == "devguard"
        assert (event["status_id"] == 2) is ("status_code" in event)
    pushed = next(event for event in events if event["message"] == "release.push")
    assert (pushed["class_uid"], pushed["app"]["version"], pushed["status_id"]) == (6002, "1.0.0", 2)


def test_since_and_standard_output(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    none = ok("evidence", "export", "--format", "jsonl", "--since", "2199-01-01", "-o", out, "--home", home, "--json")
    assert none.json["lines"] == 0
    assert out.read_bytes() == b""
    shown = ok("evidence", "export", "--format", "jsonl", "--home", home).out
    assert all(json.loads(line) for line in shown.splitlines())
    assert devguard("evidence", "export", "--format", "jsonl", "--json", "--home", home).status == 2


def test_a_damaged_log_exports_nothing(home: Path, tmp_path: Path) -> None:
    segment = next((home / "evidence").glob("segment-*.log"))
    data = bytearray(segment.read_bytes())
    data[data.index(b"Eve a")] ^= 1
    segment.write_bytes(data)
    out = tmp_path / "export"
    refused = devguard("evidence", "export", "--format", "jsonl", "-o", out, "--home", home)
    assert refused.code == "log.tampered"
    assert not out.exists()


def test_memory_stays_flat(tmp_path: Path) -> None:
    """What streams does not grow with the log: the peak of 4000 records is that of 1000, and little of the file."""
    import tracemalloc

    from devguard.cli.evidence_export import verified
    from devguard.evidence import files
    from devguard.evidence.export import Source, ocsf_line
    from evidence_support import STATION, record

    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files.os, "fsync", lambda _descriptor: None)
            log = EvidenceLog.open(folder, STATION, clock=lambda: 1000)
            for number in range(count):
                log.append(record(number))
        tracemalloc.start()
        for entry in verified(folder, log.checkpoint):
            ocsf_line(entry, Source("o", "1"))
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    assert peak(1200) < peak(300) + 100_000

"""Invariant: doctor looks and changes nothing; it fails exactly where devguard would refuse to work."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cli_support import World, devguard, ok
from devguard.cli import doctor_checks as checks
from devguard.cli.context import Invocation
from devguard.cli.doctor_checks import State, System
from devguard.cli.home import Home
from devguard.evidence import files
from devguard.evidence.record import Record

NOW = 1_800_000_000  # 2027-01-15


def test_an_empty_place_is_fine_and_stays_empty(tmp_path: Path) -> None:
    report = ok("doctor", "--json").json
    assert report["ok"] is True
    assert {"clock", "system", "disk", "keys", "serial", "python", "cryptography"} <= {
        one["name"] for one in report["checks"]
    }
    assert {one["state"] for one in report["checks"]} <= set(State)
    assert not (tmp_path / "home").exists()
    assert "nothing refuses" in ok("doctor").out


def test_a_home_with_keys_trust_and_evidence(world: World, home: Path) -> None:
    report = ok("doctor", "--json").json
    assert ("trust", "ok") in [(one["name"], one["state"]) for one in report["checks"]]
    (home / "keys" / "release.key").chmod(0o640)
    (home / "keys" / "broken.key").write_text("no key")
    refused = devguard("doctor", "--json")
    assert (refused.status, refused.json["ok"]) == (1, False)
    assert {one["code"] for one in refused.json["checks"] if one["state"] == "refuse"} == {"key.file", "key.malformed"}
    text = devguard("doctor").out
    assert "release.key has mode 0640" in text


@pytest.mark.parametrize("when", [0, 2**31, 2**32, 4_200_000_000])
def test_clocks(world: World, home: Path, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: when))
    result = devguard("doctor", "--json")
    wrong = [one for one in result.json["checks"] if one["state"] == "refuse"]
    assert bool(wrong) == (when in (0, 2**32, 4_200_000_000))  # 2038 is a date; 2106 is after the trust expired
    assert result.status == int(bool(wrong))


def test_a_clock_behind_the_evidence(world: World, home: Path) -> None:
    ok("release", "sign", world.suit(home / "x.suit", signers=()), "--key", "release")
    now = int(time.time())
    for back, state in ((0, None), (500, State.WARN), (2 * 86_400, State.REFUSE)):
        found = [
            (one.state, one.code) for one in checks._against_evidence(Home(home), now - back) if one.subject == "clock"
        ]
        assert found == ([] if state is None else [(state, "clock.rollback" if state is State.REFUSE else None)])
    (home / "memory.cbor").unlink()
    put_back = [(one.subject, one.state, one.code) for one in checks._against_evidence(Home(home), now)]
    assert put_back == [("memory", State.REFUSE, "trust.rollback")]


def test_only_the_end_of_a_long_log_is_read(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Home(home).evidence()
    log._segment_size = 400  # as if years had gone by
    for number in range(40):
        log.append(Record.make(time=1, actor="a", action="x", request=str(number)))
    ok("release", "sign", world.suit(home / "x.suit", signers=()), "--key", "release")
    segments = sorted((home / "evidence").glob("*[0-9]*"))
    assert len(segments) > 4
    opened: list[int] = []
    real = files.open_segment
    monkeypatch.setattr(files, "open_segment", lambda at, number: opened.append(number) or real(at, number))
    assert [one.state for one in checks._against_evidence(Home(home), int(time.time()))] == [State.OK]
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('ID=debian\nVERSION_ID="12"\n', State.OK),
        ('ID=ubuntu\nVERSION_ID="20.04"\n', State.WARN),
        ('ID=ubuntu\nVERSION_ID="22.04"\n', State.OK),
        ("ID=other\nSUPPORT_END=2027-02-01\n", State.WARN),
        ("ID=other\nSUPPORT_END=2031-02-01\n", State.OK),
        ('ID=other\nSUPPORT_END="soon"\n', State.UNKNOWN),
        ("", State.UNKNOWN),
    ],
)
def test_how_long_the_system_is_supported(tmp_path: Path, text: str, state: State) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text(text)
    assert [one.state for one in checks.support(System(tmp_path), NOW)] == [state]
    assert [one.state for one in checks.support(System(tmp_path / "none"), NOW)] == [State.UNKNOWN]


def test_the_distribution_s_own_table_is_newer_than_ours(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    told = tmp_path / "usr/share/distro-info"
    told.mkdir(parents=True)
    for name, header, row in (
        ("debian", "version,codename,eol,eol-lts", "12,Bookworm,2026-07-11,2031-01-02"),
        ("ubuntu", "version,codename,eol,eol-esm", "24.04 LTS,Noble,2031-01-02,2040-01-01"),
    ):
        version = row.split(",")[0].removesuffix(" LTS")
        (tmp_path / "etc/os-release").write_text(f'ID={name}\nVERSION_ID="{version}"\n')
        found = [one.detail for one in checks.support(System(tmp_path), NOW)]
        assert "as known in 20" in found[0]
        (told / f"{name}.csv").write_text(f"{header}\n{row}\n")
        found = [one.detail for one in checks.support(System(tmp_path), NOW)]
        assert "2031-01-02 (says distro-info-data)" in found[0]
        (told / f"{name}.csv").write_text(f"{header}\n{version},x,soon\n,\n{'x' * 200_000}\n{row}")
        assert "as known in 20" in next(checks.support(System(tmp_path), NOW)).detail


def test_disks(tmp_path: Path) -> None:
    home, block = Home(tmp_path), tmp_path / "sys" / "block"
    (tmp_path / "proc").mkdir()
    mounts = tmp_path / "proc" / "mounts"

    def found(line: str) -> list[State]:
        mounts.write_text(line)
        return [one.state for one in checks.disk(home, System(tmp_path))]

    assert found("tmpfs / tmpfs rw 0 0\n") == [State.UNKNOWN]
    assert found("") == [State.UNKNOWN]
    assert found("/dev/sda1 / ext4 rw 0 0\n") == [State.WARN]
    (block / "dm-1" / "dm").mkdir(parents=True)
    (block / "dm-1" / "dm" / "uuid").write_text("LVM-abc")
    assert found("/dev/dm-1 / ext4 rw 0 0\n") == [State.WARN]
    (block / "dm-1" / "slaves" / "dm-0").mkdir(parents=True)
    (block / "dm-0" / "dm").mkdir(parents=True)
    (block / "dm-0" / "dm" / "uuid").write_text("CRYPT-LUKS2-abc")
    assert found("/dev/dm-1 / ext4 rw 0 0\n") == [State.OK]
    assert found(f"/dev/sda1 / ext4 rw 0 0\n/dev/dm-0 {tmp_path} ext4 rw 0 0\n") == [State.OK]


def test_closed_serial_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "ttyUSB0").write_text("")
    assert [one.state for one in checks.serial(System(tmp_path))] == [State.OK]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = list(checks.serial(System(tmp_path)))
    assert [one.state for one in found] == [State.WARN]
    assert "ttyUSB0" in found[0].detail


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        checks.importlib.metadata, "version", lambda name: {"click": "7.0", "rich": "99.1"}.get(name, "50.1")
    )
    found = {one.subject: one.state for one in checks.versions()}
    assert (found["click"], found["rich"], found["cryptography"]) == (State.REFUSE, State.WARN, State.OK)

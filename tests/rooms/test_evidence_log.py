"""The log on disk: appends are durable and whole, crashes and full disks leave nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, LinkError, Refused
from devguard.evidence import files
from devguard.evidence.frame import SEGMENT_SIZE, segment_name
from devguard.evidence.log import EvidenceLog, read_records
from devguard.evidence.record import Record
from devguard.evidence.verify import verify_log

STATION = MemorySigner.from_seed(Algorithm.ED25519, b"station".ljust(32, b"."))
ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys
from pathlib import Path
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import Record
station = MemorySigner.from_seed(Algorithm.ED25519, b"station".ljust(32, b"."))
log = EvidenceLog.open(Path(sys.argv[1]), station, segment_size=1500)
for number in range(int(sys.argv[2])):
    index = log.append(Record(time=number, actor=sys.argv[3], action="test.append", request=str(number)))
    print(index, flush=True)
"""


def record(number: int = 0, **fields: object) -> Record:
    given = {"time": 1000 + number, "actor": "Tess", "action": "test.append", "request": f"r-{number}", **fields}
    return Record(**given)  # type: ignore[arg-type] # keywords of the test


def start(folder: Path, count: int, actor: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(count), actor],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "evidence"
    log = EvidenceLog.open(folder, STATION)
    assert (log.size, list(log)) == (0, [])
    assert [log.append(record(number)) for number in range(5)] == [0, 1, 2, 3, 4]
    again = EvidenceLog.open(folder, STATION)
    assert list(again) == list(read_records(folder)) == [record(number) for number in range(5)]
    assert again.checkpoint == log.checkpoint
    report = verify_log(folder, STATION.key)
    assert (report.records, report.first_time, report.last_time, report.interrupted) == (5, 1000, 1004, False)


def test_files_are_private_and_no_others_remain(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    EvidenceLog.open(folder, STATION).append(record())
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "segment-000001.log"]
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    EvidenceLog.open(tmp_path / "e", STATION)
    assert verify_log(tmp_path / "e", STATION.key).records == 0
    assert list(read_records(tmp_path / "e")) == []


def test_segments_roll_and_open_reads_the_last_alone(tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path, STATION, segment_size=600)
    for number in range(30):
        log.append(record(number))
    segments = sorted(tmp_path.glob("segment-*"))
    assert len(segments) > 5
    assert all(path.stat().st_size <= 600 for path in segments)
    assert verify_log(tmp_path, STATION.key).segments == len(segments)
    segments[0].chmod(0o600)
    segments[0].write_bytes(b"x" * segments[0].stat().st_size)  # damage that only verify can see
    assert EvidenceLog.open(tmp_path, STATION).size == 30
    with pytest.raises(DevguardError, match=r"record 0"):
        verify_log(tmp_path, STATION.key)


def test_default_segments_are_four_mebibytes() -> None:
    assert SEGMENT_SIZE == 4 * 1024 * 1024


def test_another_key_cannot_continue_the_log(tmp_path: Path) -> None:
    EvidenceLog.open(tmp_path, STATION).append(record())
    other = MemorySigner.from_seed(Algorithm.ED25519, b"o" * 32)
    with pytest.raises(Refused, match=r"log\.tampered"):
        EvidenceLog.open(tmp_path, other)
    with pytest.raises(Refused, match=r"signature\.algorithm"):
        EvidenceLog.open(tmp_path, MemorySigner.from_seed(Algorithm.ESP256, b"o" * 40))


def test_two_objects_take_turns(tmp_path: Path) -> None:
    one = EvidenceLog.open(tmp_path, STATION, segment_size=900)
    two = EvidenceLog.open(tmp_path, STATION, segment_size=900)
    indexes = [log.append(record(number)) for number in range(10) for log in (one, two)]
    assert indexes == list(range(20))
    assert verify_log(tmp_path, STATION.key).records == 20


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    EvidenceLog.open(tmp_path, STATION)
    writers = [start(tmp_path, 25, name) for name in ("one", "two")]
    indexes = [int(line) for writer in writers for line in writer.communicate(timeout=60)[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(indexes) == list(range(50))
    verify_log(tmp_path, STATION.key)
    actors = [one.actor for one in read_records(tmp_path)]
    assert (actors.count("one"), actors.count("two")) == (25, 25)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    writer = start(tmp_path, 10_000, "victim")
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(after)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait(timeout=30)
    verify_log(tmp_path, STATION.key)  # as it was left, before anybody repaired anything
    log = EvidenceLog.open(tmp_path, STATION)
    assert log.size >= len(acknowledged)
    log.append(record())
    report = verify_log(tmp_path, STATION.key)
    assert report.records == log.size
    assert not report.interrupted


class Stop(BaseException):
    """Stands for the power going off: nothing in the product catches it."""


@pytest.mark.parametrize("size", [200, 10_000], ids=["new segment", "same segment"])
@pytest.mark.parametrize("records", [0, 3])
def test_power_cut_after_every_byte_of_an_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, size: int
) -> None:
    """Cut the append at every write, leaving every possible prefix of its bytes; then verify, open, verify."""
    real_pwrite, real_rename = os.pwrite, os.rename
    cut = 0
    while True:
        folder = tmp_path / str(cut)
        log = EvidenceLog.open(folder, STATION, segment_size=size)
        for number in range(records):
            log.append(record(number))
        budget = [cut]

        def pwrite(descriptor: int, data: bytes, offset: int, budget: list[int] = budget) -> int:
            if budget[0] < len(data):
                real_pwrite(descriptor, data[: budget[0]], offset)
                raise Stop
            budget[0] -= len(data)
            return real_pwrite(descriptor, data, offset)

        def rename(*args: object, budget: list[int] = budget, **kwargs: object) -> None:
            if budget[0] < 1:
                raise Stop
            budget[0] -= 1
            real_rename(*args, **kwargs)  # type: ignore[arg-type] # passed through

        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(os, "rename", rename)
        try:
            log.append(record(99))
            done = True
        except Stop:
            done = False
        monkeypatch.undo()
        assert verify_log(folder, STATION.key).records == records + done
        again = EvidenceLog.open(folder, STATION, clock=lambda: 5000, segment_size=size)
        kept = list(again)
        assert kept[:records] == [record(number) for number in range(records)]
        assert len(kept) in (records, records + 1)
        if len(kept) > records and kept[records] != record(99):
            assert (kept[records].action, kept[records].time) == ("evidence.recover", 5000)
        again.append(record(100))
        report = verify_log(folder, STATION.key)
        assert not report.interrupted
        assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("segment")) == ["checkpoint"]
        if done:
            break
        cut += 1 if cut < 2 else 23
    assert cut > 100


@pytest.mark.parametrize("step", ["write_file", "write_at", "replace"])
def test_a_full_disk_keeps_nothing_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    log = EvidenceLog.open(tmp_path, STATION)
    log.append(record(0))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = getattr(files, step)

    def fail(*args: object) -> None:
        if step == "write_at":
            real(*args[:3], args[3][:10])  # type: ignore[index] # a write that got ten bytes far
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, step, fail)
    with pytest.raises(LinkError) as caught:
        log.append(record(1))
    monkeypatch.undo()
    assert caught.value.code == "log.full"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert log.append(record(1)) == 1
    assert verify_log(tmp_path, STATION.key).records == 2


def test_an_unwritable_folder_is_log_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LinkError, match=r"log\.full"):
        EvidenceLog.open(tmp_path / "file" / "evidence", STATION)


def test_bytes_that_no_crash_explains_are_not_signed_over(tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path, STATION)
    log.append(record(0))
    segment = tmp_path / segment_name(1)
    whole = segment.read_bytes()
    segment.write_bytes(whole + b"extra")
    for action in (lambda: EvidenceLog.open(tmp_path, STATION), lambda: log.append(record(1))):
        with pytest.raises(Refused, match=r"log\.tampered"):
            action()
    assert segment.read_bytes() == whole + b"extra"


def test_a_log_set_back_or_cut_refuses_to_grow(tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path, STATION)
    log.append(record(0))
    old = (tmp_path / "checkpoint").read_bytes(), (tmp_path / segment_name(1)).read_bytes()
    log.append(record(1))
    new = (tmp_path / segment_name(1)).read_bytes()
    (tmp_path / segment_name(1)).write_bytes(old[1])
    for action in (lambda: EvidenceLog.open(tmp_path, STATION), lambda: log.append(record(2))):
        with pytest.raises(Refused, match=r"log\.truncated"):
            action()
    (tmp_path / "checkpoint").write_bytes(old[0])  # both set back: this object still remembers
    with pytest.raises(Refused, match=r"log\.truncated"):
        log.append(record(2))
    (tmp_path / segment_name(1)).write_bytes(new)
    with pytest.raises(DevguardError, match=r"log\."):
        EvidenceLog.open(tmp_path, STATION)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        EvidenceLog.open(tmp_path, STATION)


def test_a_failed_look_leaves_no_unproven_record_in_the_tree(tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path, STATION)
    log.append(record(0))
    old = (tmp_path / "checkpoint").read_bytes()
    EvidenceLog.open(tmp_path, STATION).append(record(1))
    segment = tmp_path / segment_name(1)
    new, honest = (tmp_path / "checkpoint").read_bytes(), segment.read_bytes()
    forged = tmp_path.parent / f"{tmp_path.name}-forged"
    other = EvidenceLog.open(forged, STATION)
    for number in (0, 666):
        other.append(record(number))
    segment.write_bytes((forged / segment_name(1)).read_bytes())
    with pytest.raises(Refused, match=r"log\.tampered"):
        log.append(record(2))
    (tmp_path / "checkpoint").write_bytes(old)
    with pytest.raises(Refused, match=r"log\.tampered"):
        log.append(record(2))
    assert log.size == 1
    (tmp_path / "checkpoint").write_bytes(new)
    segment.write_bytes(honest)
    assert log.append(record(2)) == 2
    assert verify_log(tmp_path, STATION.key).records == 3


def test_links_and_strangers_in_the_folder_refuse(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    EvidenceLog.open(folder, STATION).append(record())
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        EvidenceLog.open(folder, STATION)
    (folder / "notes.txt").unlink()
    moved = tmp_path / "elsewhere"
    (folder / segment_name(1)).rename(moved)
    (folder / segment_name(1)).symlink_to(moved)
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        EvidenceLog.open(folder, STATION)

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
from devguard.evidence.frame import LEAD, SEGMENT_SIZE, frame, segment_name
from devguard.evidence.log import EvidenceLog, read_records
from devguard.evidence.record import (
    SET_BACK,
    TIME_TOLERANCE,
    Entry,
    Record,
    decode_entry,
    encode_entry,
    encode_record,
)
from devguard.evidence.verify import verify_log
from evidence_support import STATION, contents, frames_of, record

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
    assert [path.name for path in folder.iterdir()] == ["segment-000001.log"]
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
    assert all(path.stat().st_size <= LEAD + 600 for path in segments)
    assert verify_log(tmp_path, STATION.key).segments == len(segments)
    segments[0].chmod(0o600)
    segments[0].write_bytes(b"x" * segments[0].stat().st_size)  # damage that only verify can see
    assert EvidenceLog.open(tmp_path, STATION).size == 30
    with pytest.raises(DevguardError, match=r"record 0"):
        verify_log(tmp_path, STATION.key)


def test_default_segments_are_one_mebibyte() -> None:
    assert SEGMENT_SIZE == 1024 * 1024


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


CALLS = ("open", "pwrite", "fsync", "ftruncate")


def failing(
    patch: pytest.MonkeyPatch, call: str, number: int, *, short: int | None = None, code: int = 28
) -> list[int]:
    """Let call `number` of that name fail, a write after `short` bytes; counts in the list that is returned."""
    real, seen = getattr(os, call), [0]

    def fail(*args: object, **named: object) -> object:
        seen[0] += 1
        if seen[0] == number:
            if short is not None:
                real(args[0], args[1][:short], args[2])  # type: ignore[index] # a write that got so far
            raise OSError(code, "No space left on device")
        return real(*args, **named)

    patch.setattr(os, call, fail)
    return seen


def appends(log: EvidenceLog, one: Record) -> bool:
    """Whether the record was taken; when not, the log has not moved."""
    size = log.size
    try:
        log.append(one)
    except LinkError as error:
        if error.code not in ("log.full", "file.unreadable") or log.size != size:
            raise
        return False
    return True


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("size", [200, 10_000], ids=["new segment", "same segment"])
def test_whatever_fails_in_an_append_keeps_nothing_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, size: int
) -> None:
    """A disk that is full, or broken, at every system call of an append: the log is as it was, and goes on."""
    for number in range(1, 20):
        for short in (None, 0, 10) if call == "pwrite" else (None,):
            folder = tmp_path / f"{number}-{short}"
            log = EvidenceLog.open(folder, STATION, segment_size=size)
            log.append(record(0))
            with monkeypatch.context() as patch:
                seen = failing(patch, call, number, short=short)
                done = appends(log, record(1))
            assert verify_log(folder, STATION.key).records == 1 + done
            assert log.append(record(2)) == 1 + done
            assert EvidenceLog.open(folder, STATION).append(record(3)) == 2 + done
            report = verify_log(folder, STATION.key)
            assert (report.records, report.interrupted) == (3 + done, False)
            assert [one.request for one in read_records(folder)] == ["r-0", *(["r-1"] * done), "r-2", "r-3"]
        if seen[0] < number:
            return
    pytest.fail("an append makes more calls than this test lets fail")


def test_an_append_waits_for_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EvidenceLog.open(tmp_path, STATION)
    log.append(record(0))
    seen = failing(monkeypatch, "fsync", 0)
    for number in range(1, 6):
        log.append(record(number))
    assert seen == [5]


def test_a_full_disk_gives_up_the_reserve_before_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, reserve = tmp_path / "evidence", tmp_path / "evidence.reserve"
    log = EvidenceLog.open(folder, STATION)
    log.reserve()
    assert reserve.stat().st_size == files.RESERVE_SIZE
    assert reserve.stat().st_mode & 0o077 == 0
    log.reserve()
    with monkeypatch.context() as patch:
        failing(patch, "pwrite", 1)
        log.append(record(0))
    assert not reserve.exists()
    with monkeypatch.context() as patch:
        failing(patch, "pwrite", 1)
        with pytest.raises(LinkError, match=r"log\.full"):
            log.append(record(1))
        failing(patch, "pwrite", 1, short=100)
        with pytest.raises(LinkError, match=r"log\.full"):
            log.reserve()
    assert not reserve.exists()
    log.reserve()
    with monkeypatch.context() as patch:
        failing(patch, "pwrite", 1, code=5)  # a broken disk is not a full one: the reserve is no help
        with pytest.raises(LinkError, match=r"log\.full"):
            log.append(record(1))
    assert reserve.exists()
    assert verify_log(folder, STATION.key).records == 1


def test_time_goes_back_by_ten_minutes_at_most(tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path, STATION, segment_size=400)
    log.append(record(0, time=10_000))
    log.append(record(1, time=10_000 - TIME_TOLERANCE))
    for again in (log, EvidenceLog.open(tmp_path, STATION)):
        with pytest.raises(Refused, match=r"clock\.rollback"):
            again.append(record(2, time=10_000 - TIME_TOLERANCE - 1))
    assert (log.size, log.latest) == (2, 10_000)
    log.append(record(2, time=500, details={SET_BACK: "10000"}))
    assert log.latest == 500
    log.append(record(3, time=510))
    assert verify_log(tmp_path, STATION.key).last_time == 510
    log.append(record(4, time=20_000))
    assert EvidenceLog.open(tmp_path, STATION).latest == 20_000
    # A clock that was set back does not keep a crash from being settled.
    segment = max(tmp_path.iterdir())
    segment.write_bytes(segment.read_bytes() + bytes(100))
    settled = EvidenceLog.open(tmp_path, STATION, clock=lambda: 7)
    assert [(one.action, one.time) for one in settled][-1] == ("evidence.recover", 20_000)


def test_an_unwritable_folder_is_log_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LinkError, match=r"log\.full"):
        EvidenceLog.open(tmp_path / "file" / "evidence", STATION)


def test_bytes_that_no_crash_explains_are_not_signed_over(tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path, STATION)
    log.append(record(0))
    segment = tmp_path / segment_name(1)
    whole = segment.read_bytes()
    for extra in (b"extra", frames_of(whole)[-1], bytes(20), bytes(300_000)):
        segment.write_bytes(whole + extra)
        for action in (lambda: EvidenceLog.open(tmp_path, STATION), lambda: log.append(record(1))):
            with pytest.raises(Refused, match=r"log\.tampered"):
                action()
        assert segment.read_bytes() == whole + extra


def test_a_whole_record_behind_the_head_is_kept_when_the_station_sealed_it_and_not_otherwise(tmp_path: Path) -> None:
    """A head of one record earlier, put back: what is behind it stays what it was, or is nobody's."""
    log, segment = EvidenceLog.open(tmp_path, STATION), tmp_path / segment_name(1)
    log.append(record(0))
    before = segment.read_bytes()
    log.append(record(1))
    sealed = frames_of(segment.read_bytes())[-1]
    entry = decode_entry(sealed[8:])
    forged = frame(encode_entry(Entry(entry.index, entry.seal, encode_record(record(7)))))
    segment.write_bytes(before + forged)
    for action in (lambda: EvidenceLog.open(tmp_path, STATION), lambda: verify_log(tmp_path, STATION.key)):
        with pytest.raises(Refused, match=r"log\.tampered: record 1"):
            action()
    segment.write_bytes(before + sealed)
    assert verify_log(tmp_path, STATION.key).interrupted
    assert [one.request for one in EvidenceLog.open(tmp_path, STATION)] == ["r-0", "r-1"]


def test_a_log_set_back_or_cut_refuses_to_grow(tmp_path: Path) -> None:
    log, segment = EvidenceLog.open(tmp_path, STATION), tmp_path / segment_name(1)
    log.append(record(0))
    old = segment.read_bytes()
    log.append(record(1))
    new = segment.read_bytes()
    segment.write_bytes(new[: len(old)])  # the last record cut off, the head as it is
    for action in (lambda: EvidenceLog.open(tmp_path, STATION), lambda: log.append(record(2))):
        with pytest.raises(Refused, match=r"log\.truncated"):
            action()
    segment.write_bytes(old)  # the head set back with it: this object still remembers
    with pytest.raises(Refused, match=r"log\.truncated"):
        log.append(record(2))
    segment.write_bytes(old[:LEAD])
    with pytest.raises(Refused, match=r"log\.truncated"):
        log.append(record(2))
    segment.write_bytes(new[:4096] + bytes(8192) + new[LEAD:])  # no head at all
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        EvidenceLog.open(tmp_path, STATION)
    segment.unlink()
    with pytest.raises(Refused, match=r"log\.truncated"):
        log.append(record(2))


def test_an_older_head_over_newer_records_takes_none_of_them_away(tmp_path: Path) -> None:
    """The head of one record earlier is what a crash leaves, so the record behind it stays; more are tampering."""
    log, segment = EvidenceLog.open(tmp_path, STATION), tmp_path / segment_name(1)
    heads = []
    for number in range(3):
        log.append(record(number))
        heads.append(segment.read_bytes()[4096:LEAD])
    whole = segment.read_bytes()
    segment.write_bytes(whole[:4096] + heads[1] + whole[LEAD:])
    assert verify_log(tmp_path, STATION.key).interrupted
    assert EvidenceLog.open(tmp_path, STATION).size == 3
    assert segment.read_bytes() == whole
    segment.write_bytes(whole[:4096] + heads[0] + whole[LEAD:])
    with pytest.raises(Refused, match=r"log\.tampered: record 1"):
        EvidenceLog.open(tmp_path, STATION)


def test_a_failed_look_leaves_no_unproven_record_in_the_tree(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log, segment = EvidenceLog.open(folder, STATION), folder / segment_name(1)
    log.append(record(0))
    EvidenceLog.open(folder, STATION).append(record(1))
    honest = segment.read_bytes()
    other = EvidenceLog.open(tmp_path / "forged", STATION)
    for number in (0, 666):
        other.append(record(number))
    forged = (tmp_path / "forged" / segment_name(1)).read_bytes()
    segment.write_bytes(honest[:LEAD] + forged[LEAD:])
    for _ in range(2):
        with pytest.raises(Refused, match=r"log\.tampered"):
            log.append(record(2))
    assert log.size == 1
    segment.write_bytes(honest)
    assert log.append(record(2)) == 2
    assert verify_log(folder, STATION.key).records == 3
    assert list(contents(folder)) == [segment_name(1)]


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

"""What came after a known head: read from the segment it lies in, proven by the head over it, or not given at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from devguard.errors import DevguardError, Refused
from devguard.evidence import files
from devguard.evidence.checkpoint import Checkpoint
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import decode_entry
from devguard.evidence.since import since
from devguard.evidence.tree import EMPTY_ROOT
from evidence_support import STATION, record


@pytest.fixture
def heads(tmp_path: Path) -> list[Checkpoint]:
    """Every head that a log of twelve records in small segments ever had."""
    log = EvidenceLog.open(tmp_path, STATION, lambda: 1000, segment_size=400)
    found = [log.checkpoint]
    for number in range(12):
        log.append(record(number))
        found.append(log.checkpoint)
    assert len(list(tmp_path.glob("segment-*.log"))) > 3
    return found


def test_all_that_came_after_any_head(tmp_path: Path, heads: list[Checkpoint]) -> None:
    for known in heads:
        head, leaves = since(tmp_path, STATION.key, known)
        assert head.checkpoint == heads[-1]
        assert [decode_entry(leaf).index for leaf in leaves] == list(range(known.size, 12))


def test_only_the_segments_from_there_on_are_read(
    tmp_path: Path, heads: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = files.open_segment
    monkeypatch.setattr(files, "open_segment", lambda folder, number: (opened.append(number), real(folder, number))[1])
    last = max(int(path.stem.split("-")[1]) for path in tmp_path.glob("segment-*.log"))
    _, leaves = since(tmp_path, STATION.key, heads[-1])
    assert list(leaves) == []
    assert set(opened) == {last}


def test_another_log_gives_nothing(tmp_path: Path, heads: list[Checkpoint]) -> None:
    for known in (replace(heads[5], root=bytes(32)), replace(heads[0], root=bytes(32)), replace(heads[5], size=6)):
        _, leaves = since(tmp_path, STATION.key, known)
        with pytest.raises(DevguardError) as caught:
            next(leaves)
        assert caught.value.code == "log.tampered"
    with pytest.raises(Refused) as early:
        since(tmp_path, STATION.key, replace(heads[-1], size=13))
    assert early.value.code == "log.truncated"


def test_every_byte_that_is_read_is_proven(tmp_path: Path, heads: list[Checkpoint]) -> None:
    """Whatever byte of an entry is changed, the iterator ends in a refusal."""
    path = sorted(tmp_path.glob("segment-*.log"))[-1]
    whole = path.read_bytes()
    for place in range(len(whole) - 1, len(whole) - 200, -7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DevguardError) as caught:
            list(since(tmp_path, STATION.key, heads[2])[1])
        assert caught.value.code in ("log.tampered", "log.truncated")


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        since(tmp_path / "none", STATION.key, Checkpoint("x", 0, EMPTY_ROOT))
    assert caught.value.code == "log.missing"

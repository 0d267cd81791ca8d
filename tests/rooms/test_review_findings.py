"""What a hostile review found: each of these passed, or crashed, before."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Refused
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import Record
from devguard.evidence.verify import verify_log
from devguard.manifest.envelope import read_envelope
from devguard.verdict.judge import Target
from tests.builders import Vendor
from tests.rooms.test_verdict_judge import PUMP, signed, vendor, verdict_on

__all__ = ["vendor"]


@pytest.mark.parametrize(
    ("installed", "code"),
    [
        ("1.0.9", None),
        ("1.1.0-rc.4", None),
        ("1.1.0", "version.current"),
        ("1.1.1-alpha", "version.rollback"),
        ("2.0.0", "version.rollback"),
        ("1.0.9-dev.1", "version.rollback"),
    ],
)
def test_the_installed_version_alone_stops_a_way_back(vendor: Vendor, installed: str, code: str | None) -> None:
    verdict = verdict_on(signed(vendor), vendor, target=Target(model=PUMP, installed_version=installed))
    assert verdict.code == code
    assert bool(verdict) == (code is None)


class Failing(io.BytesIO):
    """A disk that gives up after so many calls."""

    def __init__(self, data: bytes, calls: int) -> None:
        super().__init__(data)
        self.calls = calls

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise OSError(5, "Input/output error")

    def read(self, size: int | None = -1, /) -> bytes:
        self._count()
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._count()
        return super().seek(offset, whence)


@pytest.mark.parametrize("calls", range(12))
def test_an_envelope_on_a_failing_disk_is_a_coded_error(calls: int) -> None:
    # a tagged map with one 70 000 byte payload, so that reading also jumps
    data = b"\xd8\x6b\xa2\x02\x41\x80\x61#\x5a\x00\x01\x11\x70" + bytes(70_000)
    with pytest.raises(DevguardError) as caught:
        read_envelope(Failing(data, calls))
    assert caught.value.code in {"file.unreadable", "envelope.malformed"}
    assert calls > 0 or caught.value.code == "file.unreadable"


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, MemorySigner]:
    signer = MemorySigner.from_seed(Algorithm.ED25519, bytes(range(32)))
    with_one = EvidenceLog.open(tmp_path / "evidence", signer, lambda: 1000)
    with_one.append(Record(1000, "somebody", "release.verify", "r1"))
    return tmp_path / "evidence", signer


def _next_note(log: tuple[Path, MemorySigner]) -> bytes:
    """The announcement an append makes, taken from a copy of the log that went on."""
    folder, signer = log
    ahead = EvidenceLog.open(folder.parent / "copy", signer, lambda: 1000)
    ahead.append(Record(1000, "somebody", "release.verify", "r1"))
    ahead.append(Record(1001, "somebody", "release.verify", "r2"))
    return ahead.checkpoint_note


def test_what_a_crash_leaves_of_a_note_is_no_damage(log: tuple[Path, MemorySigner]) -> None:
    note = _next_note(log)
    for cut in range(len(note)):
        for rest in (b"", bytes(len(note) - cut)):
            (log[0] / "checkpoint.next").write_bytes(note[:cut] + rest)
            assert verify_log(log[0], log[1].key).interrupted


@pytest.mark.parametrize("change", ["flip", "tail", "zeros", "text"])
def test_other_bytes_in_the_place_of_a_note_are_damage(log: tuple[Path, MemorySigner], change: str) -> None:
    note = _next_note(log)
    head = note[: note.index(b"\n", note.index(b"\n") + 1) + 1]
    changed = {
        "flip": note[:-8] + bytes([note[-8] ^ 1]) + note[-7:],
        "tail": head + b"anything at all\n" * 500,
        "zeros": bytes(len(note) + 1),
        "text": head + b"not base64!",
    }[change]
    (log[0] / "checkpoint.next").write_bytes(changed)
    with pytest.raises(Refused) as caught:
        verify_log(log[0], log[1].key)
    assert caught.value.code == "log.tampered"

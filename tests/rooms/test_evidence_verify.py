"""Verification finds every damage, names the first bad record, and writes nothing."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Refused
from devguard.evidence.checkpoint import open_checkpoint
from devguard.evidence.frame import LEAD, PAGE, decode_header, encode_header, segment_name
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import decode_entry, encode_entry, encode_record
from devguard.evidence.tree import Frontier, leaf_hash
from devguard.evidence.verify import verify_log
from evidence_support import STATION, contents, frames_of, record

COUNT = 7


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "evidence"
    log = EvidenceLog.open(folder, STATION, segment_size=350)
    for number in range(COUNT):
        log.append(record(number))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "evidence"))


def refused(folder: Path) -> DevguardError:
    """The refusal of a damaged log, after making sure that nothing was written."""
    before = contents(folder)
    with pytest.raises(DevguardError) as caught:
        verify_log(folder, STATION.key)
    assert contents(folder) == before
    assert caught.value.code in ("log.tampered", "log.truncated")
    return caught.value


def named(folder: Path) -> tuple[str, str]:
    """Code and first bad record of a damaged log."""
    error = refused(folder)
    return error.code, error.message.split(":")[0]


def mended(body: bytes) -> bytes:
    """A frame around `body` with a correct checksum, as an attacker would make it."""
    length = len(body).to_bytes(4, "big")
    return length + zlib.crc32(length + body).to_bytes(4, "big") + body


def places(folder: Path) -> list[tuple[Path, int]]:
    """(file, frame number in it) of every record; the lead counts as frame 0."""
    found = []
    for path in sorted(folder.glob("segment-*")):
        found += [(path, number) for number in range(1, len(frames_of(path.read_bytes())))]
    return found


def lead_bytes(lead: bytes) -> list[int]:
    """Places in a lead where something stands, and some of those where nothing does."""
    return [at for at in range(LEAD) if lead[at] or at % 431 == 0 or at % PAGE in (0, PAGE - 1, 214, 215, 216)]


def test_a_good_log_holds(made: Path) -> None:
    assert len(list(made.glob("segment-*"))) >= 3
    before = contents(made)
    assert verify_log(made, STATION.key).records == COUNT
    assert contents(made) == before


@pytest.mark.parametrize("mask", [0x5A, 0x01, 0xFF])
def test_a_flipped_byte_at_every_position_of_every_file(folder: Path, mask: int) -> None:
    first_of: dict[str, int] = {}
    for index, (path, _) in enumerate(places(folder)):
        first_of.setdefault(path.name, index)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        bounds = [0]
        for part in frames_of(data):
            bounds.append(bounds[-1] + len(part))
        for position in (*lead_bytes(data[:LEAD]), *range(LEAD, len(data))):
            path.write_bytes(data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :])
            error = refused(folder)
            frame = max(number for number, bound in enumerate(bounds) if bound <= position)
            assert error.message.startswith("record ")
            if frame:
                assert f"record {first_of[path.name] + frame - 1}:" in error.message
        path.write_bytes(data)
    verify_log(folder, STATION.key)


def test_every_truncation_of_every_file(folder: Path) -> None:
    last = max(folder.glob("segment-*"))
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for length in (*range(0, LEAD, 509), *range(LEAD - 3, len(data))):
            path.write_bytes(data[:length])
            error = refused(folder)
            if path == last and length >= LEAD:
                assert error.code == "log.truncated"
        path.write_bytes(data)


def test_a_removed_tail_names_the_first_missing_record(folder: Path) -> None:
    """The head stays, as it does when somebody cuts the file off."""
    last = max(folder.glob("segment-*"))
    for index, (path, number) in reversed(list(enumerate(places(folder)))):
        if path == last:
            path.write_bytes(b"".join(frames_of(path.read_bytes())[:number]))
            assert named(folder) == ("log.truncated", f"record {index}")


def test_removed_last_segments_leave_no_head(folder: Path) -> None:
    """The head went on with the segments: what is left of the log has none, whatever file is taken away."""
    for path in sorted(folder.glob("segment-*"))[:0:-1]:
        path.unlink()
        assert named(folder) == ("log.tampered", f"record {len(places(folder))}")


def test_without_a_head_the_seals_name_what_was_changed(folder: Path) -> None:
    max(folder.glob("segment-*")).unlink()
    edit(folder, 1, reworded)
    mend_heads(folder)
    assert named(folder) == ("log.tampered", "record 1")


def test_a_tail_cut_off_with_a_head_that_was_kept(folder: Path, tmp_path: Path) -> None:
    """Whoever kept an older copy of the head can cut back to it, and to nothing else: an old copy of the log."""
    log = EvidenceLog.open(tmp_path / "log", STATION)
    states = []
    for number in range(4):
        log.append(record(number))
        states.append((tmp_path / "log" / segment_name(1)).read_bytes())
    segment = tmp_path / "log" / segment_name(1)
    for cut in range(4):
        for head in range(4):
            segment.write_bytes(states[head][:LEAD] + states[cut][LEAD:])
            if cut == head:
                assert verify_log(tmp_path / "log", STATION.key).records == head + 1
            elif cut == head + 1:
                assert verify_log(tmp_path / "log", STATION.key).interrupted
            else:
                refused(tmp_path / "log")


def edit(folder: Path, index: int, change: Callable[[list[bytes], int], list[bytes]]) -> None:
    path, number = places(folder)[index]
    path.write_bytes(b"".join(change(frames_of(path.read_bytes()), number)))


def reworded(frames: list[bytes], number: int) -> list[bytes]:
    entry = decode_entry(frames[number][8:])
    forged = type(entry)(entry.index, entry.seal, encode_record(record(777)))
    return [*frames[:number], mended(encode_entry(forged)), *frames[number + 1 :]]


@pytest.mark.parametrize("index", range(COUNT))
def test_a_record_changed_with_every_checksum_mended_is_named(made: Path, tmp_path: Path, index: int) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "evidence"))
    # Mend the frontiers in later segment heads too: what is left is the signature alone.
    edit(folder, index, reworded)
    mend_heads(folder)
    error = refused(folder)
    assert (error.code, error.message.split(":")[0]) == ("log.tampered", f"record {index}")


def mend_heads(folder: Path) -> None:
    """Mend what the leads say of the records before them; the signed head alone stays as it was."""
    frontier, latest = Frontier(), 0
    for path in sorted(folder.glob("segment-*")):
        lead, *rest = frames_of(path.read_bytes())
        header = encode_header(number_of(path), frontier, latest)
        path.write_bytes(header + lead[PAGE:] + b"".join(rest))
        for frame in rest:
            frontier.append(leaf_hash(frame[8:]))
            latest = max(latest, decode_entry(frame[8:]).record.time)


def number_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


@pytest.mark.parametrize("index", range(COUNT))
def test_a_back_dated_record_is_named_whoever_signed_it(made: Path, tmp_path: Path, index: int) -> None:
    """By the station's own key, with everything mended: a record dated before those before it says so itself."""
    folder = tmp_path / "evidence"
    log = EvidenceLog.open(folder, STATION, segment_size=350)
    log._check_time = lambda one: None  # type: ignore[method-assign] # a station that forgets its own rule
    for number in range(COUNT):
        log.append(record(number, time=10_000 + number - (5_000 if number == index else 0)))
        log._walk.latest = 10_000 + number
    if index == 0:
        assert verify_log(folder, STATION.key).records == COUNT
    else:
        assert named(folder) == ("log.tampered", f"record {index}")


def test_removed_swapped_and_doubled_records_are_named(made: Path, tmp_path: Path) -> None:
    def removed(frames: list[bytes], number: int) -> list[bytes]:
        return frames[:number] + frames[number + 1 :]

    def doubled(frames: list[bytes], number: int) -> list[bytes]:
        return frames[: number + 1] + frames[number:]

    def swapped(frames: list[bytes], number: int) -> list[bytes]:
        return [*frames[:number], frames[number + 1], frames[number], *frames[number + 2 :]]

    first = [index for index, (_, number) in enumerate(places(made)) if number == 1]
    for change, index, bad in ((removed, first[1], first[1]), (doubled, 0, 1), (swapped, first[1], first[1])):
        folder = Path(shutil.copytree(made, tmp_path / f"{change.__name__}"))
        edit(folder, index, change)
        assert refused(folder).message.startswith(f"record {bad}:")


def header_of(path: Path) -> tuple[int, Frontier, int]:
    """Number, frontier and newest time that a segment's header says."""
    body = path.read_bytes()[8:]
    header = decode_header(body[: int.from_bytes(path.read_bytes()[:4], "big")])
    return header.number, Frontier(header.first, header.frontier), header.latest


@pytest.mark.parametrize("what", ["number", "frontier", "first", "latest"])
def test_a_segment_head_changed_with_its_checksum_mended(folder: Path, what: str) -> None:
    path = folder / segment_name(2)
    number, frontier, latest = header_of(path)
    first = frontier.size + (what == "first")
    hashes = [b"x" * 32] * first.bit_count() if what in ("frontier", "first") else frontier.hashes
    forged = encode_header(number + (what == "number"), Frontier(first, hashes), latest - (what == "latest"))
    path.write_bytes(forged + path.read_bytes()[PAGE:])
    assert named(folder) == ("log.tampered", f"record {frontier.size}")


def test_opening_does_not_believe_the_last_segments_head(folder: Path) -> None:
    path = max(folder.glob("segment-*"))
    number, frontier, latest = header_of(path)
    forged = encode_header(number, Frontier(frontier.size, [b"x" * 32] * len(frontier.hashes)), latest)
    path.write_bytes(forged + path.read_bytes()[PAGE:])
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        EvidenceLog.open(folder, STATION)


def test_a_removed_middle_segment(folder: Path) -> None:
    (folder / segment_name(2)).unlink()
    index = [path.name for path, _ in places(folder)].count(segment_name(1))
    assert refused(folder).message.startswith(f"record {index}:")


def test_swapped_segments(folder: Path) -> None:
    one, two = folder / segment_name(1), folder / segment_name(2)
    data = one.read_bytes(), two.read_bytes()
    one.write_bytes(data[1])
    two.write_bytes(data[0])
    assert refused(folder).message.startswith("record 0:")


@pytest.mark.parametrize("name", ["notes", "segment-000099.log", "segment-1.log", "checkpoint~", ".hidden"])
def test_an_unexpected_file(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    assert refused(folder).code == "log.tampered"


def test_appended_bytes_and_planted_notes(folder: Path) -> None:
    last = max(folder.glob("segment-*"))
    data = last.read_bytes()
    for tail in (b"\0", b"x" * 7, data, frames_of(data)[-1]):
        last.write_bytes(data + tail)
        assert refused(folder).code == "log.tampered"
    last.write_bytes(data)
    note = data[PAGE:LEAD].strip(b"\0")
    for name in ("checkpoint", "checkpoint.next"):
        for planted in (b"garbage", b"", note + b"x", note):
            (folder / name).write_bytes(planted)
            assert refused(folder).code == "log.tampered"
        (folder / name).unlink()


def test_a_head_in_a_segment_that_handed_it_over(folder: Path) -> None:
    last = max(folder.glob("segment-*"))
    lead = last.read_bytes()[:LEAD]
    for path in sorted(folder.glob("segment-*"))[:-1]:
        data = path.read_bytes()
        path.write_bytes(data[:PAGE] + lead[PAGE:] + data[LEAD:])
        assert refused(folder).code == "log.tampered"
        path.write_bytes(data)


def test_a_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / segment_name(1)).unlink()
    (folder / segment_name(1)).mkdir()
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        verify_log(folder, STATION.key)


def test_missing_logs(made: Path, tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(Refused, match=r"log\.missing"):
            verify_log(missing, STATION.key)


def test_another_stations_key_refuses(made: Path) -> None:
    other = MemorySigner.from_seed(Algorithm.ED25519, b"o" * 32)
    with pytest.raises(Refused, match=r"log\.tampered"):
        verify_log(made, other.key)


def test_a_checkpoint_kept_elsewhere_shows_a_log_that_was_set_back(made: Path, tmp_path: Path) -> None:
    log = EvidenceLog.open(tmp_path / "e", STATION)
    log.append(record(0))
    yesterday = Path(shutil.copytree(tmp_path / "e", tmp_path / "yesterday"))
    kept = open_checkpoint(log.checkpoint_note, STATION.key)
    log.append(record(500))
    later = open_checkpoint(log.checkpoint_note, STATION.key)
    verify_log(tmp_path / "e", STATION.key, earlier=(kept,))
    verify_log(tmp_path / "e", STATION.key, earlier=(later, kept, later))
    verify_log(yesterday, STATION.key)
    with pytest.raises(Refused, match=r"log\.truncated"):
        verify_log(yesterday, STATION.key, earlier=(later,))
    with pytest.raises(Refused, match=r"log\.tampered"):
        verify_log(made, STATION.key, earlier=(later,))


def test_seals_name_a_record_far_from_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    folder = tmp_path / "e"
    log = EvidenceLog.open(folder, STATION, segment_size=20_000)
    for number in range(700):
        log.append(record(number))
    for index in (0, 255, 256, 257, 511, 512, 600, 698):
        copy = Path(shutil.copytree(folder, tmp_path / str(index)))
        edit(copy, index, reworded)
        mend_heads(copy)
        assert named(copy) == ("log.tampered", f"record {index}")


@pytest.mark.slow
def test_twenty_thousand_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    log = EvidenceLog.open(tmp_path, STATION, segment_size=256 * 1024)
    for number in range(20_000):
        log.append(record(number))
    assert verify_log(tmp_path, STATION.key).segments > 3
    assert EvidenceLog.open(tmp_path, STATION).size == 20_000

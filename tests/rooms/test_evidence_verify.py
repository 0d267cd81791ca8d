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
from devguard.evidence.frame import segment_name
from devguard.evidence.log import EvidenceLog
from devguard.evidence.record import Record, decode_entry, encode_entry, encode_record
from devguard.evidence.verify import prove_record, verify_log

STATION = MemorySigner.from_seed(Algorithm.ED25519, b"station".ljust(32, b"."))
COUNT = 7


def record(number: int) -> Record:
    return Record(time=1000 + number, actor="Tess", action="test.append", request=f"r-{number}")


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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def refused(folder: Path) -> DevguardError:
    """The refusal of a damaged log, after making sure that nothing was written."""
    before = contents(folder)
    with pytest.raises(DevguardError) as caught:
        verify_log(folder, STATION.key)
    assert contents(folder) == before
    assert caught.value.code in ("log.tampered", "log.truncated")
    return caught.value


def split(data: bytes) -> list[bytes]:
    """The frames of a segment, header first."""
    frames, at = [], 0
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        frames.append(data[at:end])
        at = end
    return frames


def mended(body: bytes) -> bytes:
    """A frame around `body` with a correct checksum, as an attacker would make it."""
    length = len(body).to_bytes(4, "big")
    return length + zlib.crc32(length + body).to_bytes(4, "big") + body


def places(folder: Path) -> list[tuple[Path, int]]:
    """(file, frame number in it) of every record."""
    found = []
    for path in sorted(folder.glob("segment-*")):
        found += [(path, number) for number in range(1, len(split(path.read_bytes())))]
    return found


def test_a_good_log_holds(made: Path) -> None:
    assert len(list(made.glob("segment-*"))) >= 3
    before = contents(made)
    assert verify_log(made, STATION.key).records == COUNT
    assert contents(made) == before


def test_a_flipped_byte_at_every_position_of_every_file(folder: Path) -> None:
    first_of = {}
    for index, (path, _) in enumerate(places(folder)):
        first_of.setdefault(path.name, index)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        bounds = [0]
        for part in split(data) if path.name.startswith("segment") else []:
            bounds.append(bounds[-1] + len(part))
        for position in range(len(data)):
            path.write_bytes(data[:position] + bytes([data[position] ^ 0x5A]) + data[position + 1 :])
            error = refused(folder)
            if path.name in first_of:
                frame = max(number for number, bound in enumerate(bounds) if bound <= position)
                assert f"record {first_of[path.name] + max(frame - 1, 0)}:" in error.message
        path.write_bytes(data)
    verify_log(folder, STATION.key)


def test_every_truncation_of_every_file(folder: Path) -> None:
    last = max(folder.glob("segment-*"))
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            error = refused(folder)
            if path == last:
                assert error.code == "log.truncated"
        path.write_bytes(data)


def test_a_removed_tail_names_the_first_missing_record(folder: Path) -> None:
    for index, (path, number) in reversed(list(enumerate(places(folder)))):
        frames = split(path.read_bytes())
        path.write_bytes(b"".join(frames[:number]))
        error = refused(folder)
        assert (error.code, error.message.split(":")[0]) == ("log.truncated", f"record {index}")
        if number == 1:
            path.unlink()
            error = refused(folder)
            assert (error.code, error.message.split(":")[0]) == ("log.truncated", f"record {index}")


def edit(folder: Path, index: int, change: Callable[[list[bytes], int], list[bytes]]) -> None:
    path, number = places(folder)[index]
    path.write_bytes(b"".join(change(split(path.read_bytes()), number)))


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
    from devguard.evidence.frame import decode_header, encode_header
    from devguard.evidence.tree import Frontier, leaf_hash

    frontier = Frontier()
    for path in sorted(folder.glob("segment-*")):
        head, *rest = split(path.read_bytes())
        path.write_bytes(encode_header(decode_header(head[8:]).number, frontier) + b"".join(rest))
        for frame in rest:
            frontier.append(leaf_hash(frame[8:]))


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


@pytest.mark.parametrize("what", ["number", "frontier", "first"])
def test_a_segment_head_changed_with_its_checksum_mended(folder: Path, what: str) -> None:
    from devguard.evidence.frame import decode_header, encode_header
    from devguard.evidence.tree import Frontier

    path = folder / segment_name(2)
    head, *rest = split(path.read_bytes())
    header = decode_header(head[8:])
    first = header.first + (what == "first")
    hashes = [b"x" * 32] * first.bit_count() if what != "number" else header.frontier
    forged = encode_header(header.number + (what == "number"), Frontier(first, hashes))
    path.write_bytes(forged + b"".join(rest))
    error = refused(folder)
    assert (error.code, error.message.split(":")[0]) == ("log.tampered", f"record {header.first}")


def test_opening_does_not_believe_the_last_segments_head(folder: Path) -> None:
    from devguard.evidence.frame import decode_header, encode_header
    from devguard.evidence.tree import Frontier

    path = max(folder.glob("segment-*"))
    head, *rest = split(path.read_bytes())
    header = decode_header(head[8:])
    forged = encode_header(header.number, Frontier(header.first, [b"x" * 32] * header.first.bit_count()))
    path.write_bytes(forged + b"".join(rest))
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


def test_appended_bytes_and_planted_next_checkpoints(folder: Path) -> None:
    last = max(folder.glob("segment-*"))
    data = last.read_bytes()
    for tail in (b"\0", b"x" * 7, data):
        last.write_bytes(data + tail)
        assert refused(folder).code == "log.tampered"
    last.write_bytes(data)
    for planted in (b"garbage", (folder / "checkpoint").read_bytes()):
        (folder / "checkpoint.next").write_bytes(planted)
        assert refused(folder).code == "log.tampered"


def test_a_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "checkpoint").unlink()
    (folder / "checkpoint").mkdir()
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        verify_log(folder, STATION.key)


def test_missing_logs(made: Path, tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(Refused, match=r"log\.missing"):
            verify_log(missing, STATION.key)
    shutil.copytree(made, tmp_path / "e")
    (tmp_path / "e" / "checkpoint").unlink()
    assert refused(tmp_path / "e").code == "log.tampered"


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
    verify_log(tmp_path / "e", STATION.key, earlier=kept)
    verify_log(tmp_path / "e", STATION.key, earlier=later)
    verify_log(yesterday, STATION.key)
    with pytest.raises(Refused, match=r"log\.truncated"):
        verify_log(yesterday, STATION.key, earlier=later)
    with pytest.raises(Refused, match=r"log\.tampered"):
        verify_log(made, STATION.key, earlier=later)


def test_a_record_is_proven_offline(made: Path) -> None:
    for index in (0, 3, COUNT - 1):
        proof = prove_record(made, STATION.key, index)
        assert proof.record == record(index)
        assert proof.verify(STATION.key).size == COUNT
        with pytest.raises(Refused, match=r"log\.tampered"):
            type(proof)(index, proof.leaf + b"x", proof.record, proof.path, proof.checkpoint_note).verify(STATION.key)
    for index in (-1, COUNT):
        with pytest.raises(Refused, match=r"log\.truncated"):
            prove_record(made, STATION.key, index)


@pytest.mark.slow
def test_twenty_thousand_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    log = EvidenceLog.open(tmp_path, STATION, segment_size=256 * 1024)
    for number in range(20_000):
        log.append(record(number))
    assert verify_log(tmp_path, STATION.key).segments > 3
    assert EvidenceLog.open(tmp_path, STATION).size == 20_000

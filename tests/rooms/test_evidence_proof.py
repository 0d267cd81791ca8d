"""Proofs as files: they verify with the public key alone, and nothing else of their bytes is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Malformed, Refused
from devguard.evidence.checkpoint import MAX_NOTE, Checkpoint, origin_of, sign_checkpoint
from devguard.evidence.log import EvidenceLog
from devguard.evidence.proof import ConsistencyProof, InclusionProof, is_proof, read_proof
from devguard.evidence.prove import of_request, prove_records, prove_since, root_at
from devguard.evidence.record import Entry, encode_entry, encode_record
from devguard.evidence.tree import leaf_hash
from evidence_support import STATION, record

OTHER = MemorySigner.from_seed(Algorithm.ED25519, b"other".ljust(32, b"."))
COUNT = 23


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A log, and its signed head after every record."""
    folder = tmp_path_factory.mktemp("proof") / "evidence"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        log = EvidenceLog.open(folder, STATION, segment_size=900)
        heads = [log.checkpoint_note]
        for number in range(COUNT):
            log.append(record(number, request=f"r-{number // 3}"))
            heads.append(log.checkpoint_note)
    return folder, heads


def test_every_record_is_proven_against_every_head_over_it(notes: tuple[Path, list[bytes]]) -> None:
    folder, heads = notes
    for size in (1, 7, 16, COUNT):
        proofs = prove_records(folder, STATION.key, range(size), note=heads[size])
        for index, proof in enumerate(proofs):
            read = read_proof(proof.encode())
            assert read == proof
            assert isinstance(read, InclusionProof)
            entry, head = read.verify(STATION.key)
            assert (entry.index, entry.record.time, head.size) == (index, 1000 + index, size)
    assert prove_records(folder, STATION.key, [3])[0].note == heads[COUNT]


def test_what_is_not_in_the_log_is_not_proven(notes: tuple[Path, list[bytes]]) -> None:
    folder, heads = notes
    for index, note in ((COUNT, None), (-1, None), (5, heads[5])):
        with pytest.raises(Refused, match=r"log\.truncated"):
            prove_records(folder, STATION.key, [index], note=note)
    with pytest.raises(Refused, match=r"log\.tampered"):
        prove_records(folder, OTHER.key, [0])


def test_every_older_head_is_proven_to_be_continued(notes: tuple[Path, list[bytes]]) -> None:
    folder, heads = notes
    for old in range(COUNT + 1):
        for new in {old, min(old + 4, COUNT), COUNT}:
            proof = prove_since(folder, STATION.key, heads[old], note=heads[new])
            read = read_proof(proof.encode())
            assert read == proof
            assert isinstance(read, ConsistencyProof)
            older, newer = read.verify(STATION.key)
            assert (older.size, newer.size) == (old, new)
            assert older.root == root_at(folder, old)


def test_a_head_of_another_history_is_not_proven_to_be_continued(
    notes: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    fork = EvidenceLog.open(tmp_path / "fork", STATION)
    for number in range(COUNT + 5):
        fork.append(record(number + (number > 10)))
    for note, code in ((fork.checkpoint_note, r"log\.truncated"), (fork_at(tmp_path, 20), r"log\.tampered")):
        with pytest.raises(Refused, match=code):
            prove_since(notes[0], STATION.key, note)
    honest = prove_since(notes[0], STATION.key, notes[1][20])
    with pytest.raises(Refused, match=r"log\.tampered"):
        ConsistencyProof(honest.path, fork_at(tmp_path, 20), honest.newer).verify(STATION.key)
    with pytest.raises(Refused, match=r"log\.truncated"):
        ConsistencyProof(honest.path, honest.newer, honest.older).verify(STATION.key)


def fork_at(folder: Path, size: int) -> bytes:
    log = EvidenceLog.open(folder / f"fork-{size}", STATION)
    for number in range(log.size, size):
        log.append(record(number + (number > 10)))
    return log.checkpoint_note


def test_a_proof_of_another_record_leaf_or_key_refuses(notes: tuple[Path, list[bytes]]) -> None:
    one, two = prove_records(notes[0], STATION.key, [3, 4])
    wrong = [
        InclusionProof(two.leaf, 3, one.path, one.note),
        InclusionProof(one.leaf, 4, two.path, one.note),
        InclusionProof(one.leaf + b"x", 3, one.path, one.note),
        InclusionProof(one.leaf, 3, one.path[:-1], one.note),
        InclusionProof(one.leaf, 3, one.path, notes[1][9]),
    ]
    for proof in wrong:
        with pytest.raises(DevguardError, match=r"log\.tampered"):
            proof.verify(STATION.key)
    with pytest.raises(Refused, match=r"log\.tampered"):
        one.verify(OTHER.key)


def test_an_entry_in_another_s_place_is_not_proven() -> None:
    """Signed as it stands, by a station that numbers its entries wrongly."""
    leaf = encode_entry(Entry(5, bytes(64), encode_record(record())))
    head = Checkpoint(origin_of(STATION.key), 1, leaf_hash(leaf))
    with pytest.raises(Refused, match=r"log\.tampered.*record 0.*record 5"):
        InclusionProof(leaf, 0, (), sign_checkpoint(head, STATION)).verify(STATION.key)


def test_every_flipped_byte_and_every_truncation_of_a_proof_refuses(notes: tuple[Path, list[bytes]]) -> None:
    folder, heads = notes
    for proof in (prove_records(folder, STATION.key, [5])[0], prove_since(folder, STATION.key, heads[9])):
        data = proof.encode()
        assert is_proof(data)
        for at in range(len(data)):
            for bad in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at]):
                with pytest.raises(DevguardError) as caught:
                    read_proof(bad).verify(STATION.key)
                assert caught.value.code in ("log.tampered", "log.truncated")


def test_records_of_one_request_are_found_together(notes: tuple[Path, list[bytes]]) -> None:
    assert of_request(notes[0], "r-2") == (6, 7, 8)
    assert of_request(notes[0], "r-99") == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"extra ", b"Extra "),
        lambda text: text.replace(b"index 5", b"index 05"),
        lambda text: text.replace(b"index 5", b"index -5"),
        lambda text: text.replace(b"index 5", b"index"),
        lambda text: text.replace(b"@v1", b"@v2"),
        lambda text: text.replace(b"\nindex", b"\n\nindex"),
        lambda text: text.replace(b"\nindex", b" \nindex"),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text + b"\n",
        lambda text: text.replace(b"\n\n", b"\n" + b"A" * 43 + b"=\n\n", 1),
        lambda text: text.replace(b"\n\n", b"\nAAAA\n\n", 1),
        lambda text: text.replace(b"\n\n", (b"\n" + b"A" * 43 + b"=") * 65 + b"\n\n", 1),
        lambda text: b"x" * (4 * MAX_NOTE) + text,
        lambda text: text + b"x" * 800_000,
        lambda text: b"\xff" + text,
    ],
)
def test_other_spellings_of_a_proof_refuse(notes: tuple[Path, list[bytes]], change: object) -> None:
    text = prove_records(notes[0], STATION.key, [5])[0].encode()
    with pytest.raises(DevguardError, match=r"log\.tampered"):
        read_proof(change(text)).verify(STATION.key)  # type: ignore[operator] # the parameters are functions


@given(st.binary(max_size=400), st.sampled_from([b"", b"c2sp.org/tlog-proof@v1\n", b"devguard/tlog-consistency@v1\n"]))
def test_garbage_raises_our_own_error(data: bytes, start: bytes) -> None:
    with pytest.raises(Malformed, match=r"log\.tampered"):
        read_proof(start + data)

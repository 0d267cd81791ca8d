"""Cosignatures as C2SP tlog-cosignature says, what a witness asks before one, and what two heads say of each other."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Malformed, Refused
from devguard.evidence.checkpoint import (
    MAX_SIGNATURES,
    Checkpoint,
    open_checkpoint,
    origin_of,
    read_note,
    sign_checkpoint,
    signature_line,
)
from devguard.evidence.cosign import cosign, cosignatures, witness_id
from devguard.evidence.witness import Demand, Link, check_seen, compare
from evidence_support import STATION

NOW = 1_800_000_000
HEAD = Checkpoint(origin_of(STATION.key), 12, b"r" * 32)
NOTE = sign_checkpoint(HEAD, STATION)
ED = MemorySigner.from_seed(Algorithm.ED25519, b"witness".ljust(32, b"."))
PQ = MemorySigner.from_seed(Algorithm.ML_DSA_44, b"witness".ljust(32, b"."))
BOTH = pytest.mark.parametrize("signer", [ED, PQ], ids=["Ed25519", "ML-DSA-44"])

# The example of the specification (c2sp.org/tlog-cosignature): its witness's cosignature line over its checkpoint.
# ruff: noqa: E501 (signature lines of a published example)
EXAMPLE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""


def test_the_specifications_example_has_our_form() -> None:
    line = read_note(EXAMPLE.encode()).signatures[1]
    assert len(line.signature) == 8 + 64
    assert struct.unpack(">Q", line.signature[:8]) == (1679315147,)


@BOTH
def test_a_cosignature_is_over_time_and_checkpoint_as_the_specification_spells_it(signer: MemorySigner) -> None:
    made = cosign(NOTE, signer, NOW)
    line = read_note(made).signatures[1]
    name = origin_of(signer.key)
    assert (line.name, line.key_id) == (name, witness_id(name, signer.key))
    if signer is ED:
        message = f"cosignature/v1\ntime {NOW}\n".encode() + HEAD.text()
    else:
        sizes = struct.pack(">QQ", 0, 12)
        names = bytes([len(name)]) + name.encode() + struct.pack(">Q", NOW) + bytes([len(HEAD.origin)])
        message = b"subtree/v1\n\0" + names + HEAD.origin.encode() + sizes + HEAD.root
    signer.key.verify(signer.key.algorithm, message, line.signature[8:])
    assert open_checkpoint(made, STATION.key) == HEAD
    assert [(one.key, one.time) for one in cosignatures(made, [signer.key])] == [(signer.key, NOW)]


def test_several_witnesses_and_a_second_time_by_one() -> None:
    made = cosign(cosign(cosign(NOTE, ED, NOW), PQ, NOW + 1), ED, NOW + 9)
    assert len(read_note(made).signatures) == 3
    assert [one.time for one in cosignatures(made, [ED.key, PQ.key])] == [NOW + 9, NOW + 1]
    assert cosignatures(made, []) == cosignatures(NOTE, [ED.key, PQ.key]) == ()
    assert cosignatures(made, [STATION.key]) == ()  # the station's own signature is no cosignature


def held(note: bytes, key: CoseKey) -> bool:
    """Whether a cosignature by `key` is on the note and holds; another error than ours fails the test."""
    try:
        return bool(cosignatures(note, [key]))
    except DevguardError:
        return False


@BOTH
def test_every_changed_byte_refuses_and_no_other_key_or_head_is_meant(signer: MemorySigner) -> None:
    made = cosign(NOTE, signer, NOW)
    step = 1 if signer is ED else 37
    start = made.index(b"\n\n") + 2
    for at in range(0, len(made), step):
        bad = made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]
        found = held(bad, signer.key)
        assert not found or start <= at < made.index(b"\n", start)  # the station's line is not the witness's
    line = read_note(made).signatures[1]
    other = sign_checkpoint(Checkpoint(HEAD.origin, 13, b"q" * 32), STATION)
    moved = other + signature_line(line.name, line.key_id, line.signature)
    twice = made + signature_line(line.name, line.key_id, line.signature)
    short = NOTE + signature_line(line.name, line.key_id, line.signature[:-1])
    for note in (moved, twice, short):
        with pytest.raises(Refused, match=r"log\.tampered"):
            cosignatures(note, [signer.key])


def test_what_cannot_be_cosigned() -> None:
    curve = MemorySigner.from_seed(Algorithm.ESP256, b"c" * 40)
    for call in (lambda: cosign(NOTE, curve, NOW), lambda: cosignatures(NOTE, [curve.key])):
        with pytest.raises(Refused, match=r"signature\.algorithm"):
            call()
    full = NOTE + signature_line("w", b"1234", b"x") * (MAX_SIGNATURES - 1)
    for note in (full, b"garbage", b"", sign_checkpoint(Checkpoint("o" * 300, 1, bytes(32)), STATION)):
        with pytest.raises(Malformed, match=r"log\.tampered"):
            cosign(note, ED, NOW)
    for now in (0, -1, 1 << 63):
        with pytest.raises(Malformed, match=r"log\.tampered"):
            cosign(NOTE, ED, now)


@given(st.binary(max_size=200))
def test_garbage_raises_our_own_error(data: bytes) -> None:
    with pytest.raises(Malformed):
        cosignatures(data, [ED.key])
    with pytest.raises(DevguardError):
        cosignatures(NOTE + "— ".encode() + origin_of(ED.key).encode() + b" " + base64.b64encode(data), [ED.key])


def demand(*keys: CoseKey, threshold: int, persons: tuple[str, ...]) -> Demand:
    return Demand(keys, {key.thumbprint: person for key, person in zip(keys, persons, strict=True)}, threshold)


def test_a_demand_counts_persons_not_keys() -> None:
    made = cosign(cosign(NOTE, ED, NOW), PQ, NOW)
    assert len(demand(ED.key, PQ.key, threshold=2, persons=("Ann", "Bob")).met_by(made)) == 2
    assert len(demand(ED.key, PQ.key, threshold=1, persons=("Ann", "Ann")).met_by(made)) == 2
    with pytest.raises(Refused, match=r"log\.unwitnessed: 1 of 2"):
        demand(ED.key, PQ.key, threshold=2, persons=("Ann", "Ann")).met_by(made)
    with pytest.raises(Refused, match=r"log\.unwitnessed: 0 of 1 .*Bob"):
        demand(PQ.key, threshold=1, persons=("Bob",)).met_by(cosign(NOTE, ED, NOW))
    with pytest.raises(Refused, match=r"log\.unwitnessed"):
        demand(threshold=1, persons=()).met_by(made)


def test_two_heads_of_one_size_and_different_roots_are_a_split_view() -> None:
    fork = Checkpoint(HEAD.origin, 12, b"q" * 32)
    with pytest.raises(Refused, match=r"log\.tampered.*7272.*7171"):
        compare(HEAD, fork)
    assert compare(HEAD, HEAD) is Link.SAME
    assert compare(HEAD, Checkpoint(HEAD.origin, 13, b"q" * 32)) is Link.UNPROVEN
    with pytest.raises(Refused, match=r"log\.unproven"):
        compare(HEAD, Checkpoint("devguard/another", 12, HEAD.root))


def test_a_witness_asks_for_proof_of_growth_and_takes_no_shrinking() -> None:
    assert check_seen(None, HEAD) is False
    assert check_seen(HEAD, HEAD) is False
    assert check_seen(HEAD, Checkpoint(HEAD.origin, 13, b"q" * 32)) is True
    assert check_seen(Checkpoint(HEAD.origin, 0, b"e" * 32), HEAD) is False
    with pytest.raises(Refused, match=r"log\.truncated: record 11"):
        check_seen(HEAD, Checkpoint(HEAD.origin, 11, b"q" * 32))
    with pytest.raises(Refused, match=r"log\.tampered"):
        check_seen(HEAD, Checkpoint(HEAD.origin, 12, b"q" * 32))

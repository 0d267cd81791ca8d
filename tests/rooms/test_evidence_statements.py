"""What others sign into a log: read only as what it is, by the key that made it, and never anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import sign1
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Malformed, Refused
from devguard.evidence import acknowledgement, push_statement
from devguard.evidence.acknowledgement import Acknowledgement, read_acknowledgement
from devguard.evidence.change import changes
from devguard.evidence.checkpoint import Checkpoint
from devguard.evidence.push_statement import PushStatement, read_push_statement
from devguard.evidence.statement import DeviceStatement, Opening, is_statement, read_opening, read_statement

TESS = MemorySigner.from_seed(Algorithm.ESP256, b"tess".ljust(40, b"."))
OTHER = MemorySigner.from_seed(Algorithm.ED25519, b"other".ljust(32, b"."))
HEAD = Checkpoint("devguard/0123456789abcdef", 7, b"r" * 32)
PUSH = PushStatement("r-1", "IP-1", "update", b"m" * 32, b"g" * 32, 1_800_000_000, HEAD.text())
WORD = Acknowledgement("IP-1", b"d" * 32, "bench 2 did it", 1_800_000_000, HEAD.text())
OPENING = Opening.of(b"n" * 16, HEAD)
STATEMENT = DeviceStatement(b"credential", b"signed", OPENING)


def test_they_come_back_as_they_were_signed_and_name_a_head() -> None:
    assert read_push_statement(PUSH.sign(TESS), TESS.key) == PUSH
    assert read_acknowledgement(WORD.sign(TESS), TESS.key) == WORD
    assert PUSH.checkpoint == WORD.checkpoint == HEAD


@pytest.mark.parametrize(
    ("read", "typ", "fields"),
    [
        (read_push_statement, push_statement.TYP, [1, "r", "IP-1", "update", b"m", b"g", 5, HEAD.text()]),
        (read_acknowledgement, acknowledgement.TYP, [1, "IP-1", b"d", "reason", 5, HEAD.text()]),
    ],
    ids=["push", "acknowledgement"],
)
def test_anything_else_is_refused(read: Callable[[bytes, object], object], typ: str, fields: list[object]) -> None:
    def signed(items: object, kind: str = typ) -> bytes:
        return sign1(TESS, wire.encode(items), typ=kind).encode()

    read(signed(fields), TESS.key)
    wrong = [fields[:-1], [*fields, 0], [2, *fields[1:]], [True, *fields[1:]], {}, [*fields[:-1], b"no head"]]
    wrong += [[*fields[:at], None, *fields[at + 1 :]] for at in range(1, len(fields))]
    for items in wrong:
        with pytest.raises(Malformed, match=r"log\.tampered"):
            read(signed(items), TESS.key)
    with pytest.raises(DevguardError):
        read(signed(fields, "application/another"), TESS.key)
    for data, key in ((signed(fields), OTHER.key), (b"", TESS.key), (signed(fields)[:-1], TESS.key)):
        with pytest.raises(DevguardError):
            read(data, key)


def test_a_challenge_opens_to_the_head_it_was_made_of_and_to_no_other() -> None:
    assert OPENING.check(OPENING.challenge) == HEAD
    assert read_opening(OPENING.encode()) == OPENING
    others = [Opening.of(b"o" * 16, HEAD), Opening.of(b"n" * 16, replace(HEAD, size=8))]
    for one in others:
        assert one.challenge != OPENING.challenge
        with pytest.raises(Refused, match=r"log\.tampered"):
            one.check(OPENING.challenge)
    with pytest.raises(Malformed):
        Opening(b"n" * 16, b"no head").check(Opening(b"n" * 16, b"no head").challenge)


@pytest.mark.parametrize(
    "value", [1, [], [b"n" * 15, b"t"], [b"n" * 16, b""], [b"n" * 16, b"t" * 513], [b"n" * 16], ["n" * 16, b"t"]]
)
def test_other_openings_refuse(value: object) -> None:
    with pytest.raises(Malformed):
        read_opening(wire.encode(value))


def test_a_device_s_statement_is_a_file_that_tells_itself() -> None:
    for one in (STATEMENT, replace(STATEMENT, opening=None)):
        data = one.encode()
        assert is_statement(data)
        assert read_statement(data) == one
        for length in range(len(data)):
            with pytest.raises(Malformed):
                read_statement(data[:length])
    assert not is_statement(OPENING.encode())


GOOD = ["devguard-device-statement", 1, b"c", b"s", None]


@pytest.mark.parametrize("value", [[*GOOD[:4]], [*GOOD, 0], ["x", *GOOD[1:]], [GOOD[0], 2, *GOOD[2:]],
                                   [GOOD[0], True, *GOOD[2:]], [*GOOD[:2], b"", *GOOD[3:]], [*GOOD[:3], "s", None],
                                   [*GOOD[:4], [b"n"]], {}, 5])  # fmt: skip
def test_other_statements_refuse(value: object) -> None:
    with pytest.raises(Malformed, match=r"wire\.malformed"):
        read_statement(wire.encode(value))


@given(st.binary(max_size=300))
def test_garbage_raises_our_own_error(data: bytes) -> None:
    for read in (read_statement, read_opening):
        with pytest.raises(DevguardError):
            read(data)
    with pytest.raises(Malformed):
        read_statement(bytes(70_000))


# changes


@dataclass(frozen=True)
class State:
    version: str = "1.0.0"
    image_digest: bytes = b"i" * 32
    manifest_digest: bytes | None = b"m" * 32
    sequence: int = 5
    security_version: int = 2
    trust_version: int = 3
    clock_floor: int = 1000
    settings_digest: bytes = b"s" * 32
    history_digest: bytes = b"h" * 32
    log_head: bytes = b"l" * 32


BEFORE = State()
AFTER = State(log_head=b"n" * 32)


def names(after: State, *begun: bytes) -> set[str]:
    return {one.name for one in changes(BEFORE, after, begun)}


def test_a_device_that_nobody_touched() -> None:
    assert names(AFTER) == set()
    assert names(replace(AFTER, clock_floor=2000, trust_version=9, history_digest=b"x" * 32)) == set()
    assert names(replace(AFTER, history_digest=b"x" * 32, settings_digest=b"x" * 32)) == set()  # a clinician was there


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_digest": b"x" * 32}, {"image_digest"}),
        ({"version": "1.1.0"}, {"version"}),
        ({"manifest_digest": None}, {"manifest_digest"}),
        ({"sequence": 6}, {"sequence"}),
        ({"sequence": 4}, {"sequence"}),
        ({"security_version": 3}, {"security_version"}),
        ({"trust_version": 2}, {"trust_version"}),
        ({"clock_floor": 999}, {"clock_floor"}),
        ({"settings_digest": b"x" * 32}, {"settings_digest"}),
        ({"log_head": b"l" * 32}, {"log_head"}),
    ],
    ids=str,
)
def test_what_no_record_explains(change: dict[str, object], told: set[str]) -> None:
    assert names(replace(AFTER, **change)) == told  # type: ignore[arg-type] # fields of the state
    assert all(str(one).startswith(f"{one.name}: ") for one in changes(BEFORE, replace(AFTER, **change)))  # type: ignore[arg-type]


def test_an_update_that_was_begun_here_explains_what_it_brings_and_nothing_else() -> None:
    new = replace(AFTER, version="1.1.0", image_digest=b"j" * 32, manifest_digest=b"w" * 32, sequence=6)
    assert names(new) == {"version", "image_digest", "manifest_digest", "sequence"}
    assert names(new, b"w" * 32) == set()
    assert names(new, b"o" * 32) != set()
    assert names(replace(new, security_version=1), b"w" * 32) == {"security_version"}  # a counter never goes back

"""Checkpoints as signed notes: the C2SP example verifies, ours are of that form, and no other spelling is taken."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Malformed, Refused
from devguard.evidence.checkpoint import (
    Checkpoint,
    key_id,
    open_checkpoint,
    origin_of,
    parse_text,
    read_note,
    sign_checkpoint,
    verifier_key,
)

STATION = MemorySigner.from_seed(Algorithm.ED25519, b"station".ljust(32, b"."))
OTHER = MemorySigner.from_seed(Algorithm.ED25519, b"other".ljust(32, b"."))
HEAD = Checkpoint(origin_of(STATION.key), 3, b"r" * 32)
NOTE = sign_checkpoint(HEAD, STATION)

# The example of the signed-note specification (c2sp.org/signed-note, "Example").
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def test_the_specifications_example_holds() -> None:
    name, identity, encoded = EXAMPLE_KEY.split("+", 2)
    key = CoseKey(1, 6, base64.b64decode(encoded)[1:])
    note = read_note(EXAMPLE_NOTE.encode())
    assert key_id(name, key).hex() == identity == note.signatures[0].key_id.hex()
    key.verify(Algorithm.ED25519, note.text, note.signatures[0].signature)


def test_the_checkpoint_specifications_example_parses() -> None:
    text = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    head = parse_text(text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.text() == text


def test_round_trip_and_verifier_key() -> None:
    assert open_checkpoint(NOTE, STATION.key, alone=True) == HEAD
    name, identity, encoded = verifier_key(STATION.key).split("+", 2)
    assert name == HEAD.origin
    assert bytes.fromhex(identity) == read_note(NOTE).signatures[0].key_id
    assert base64.b64decode(encoded) == b"\x01" + STATION.key.x


def test_signatures_of_unknown_keys_are_ignored_beside_ours_but_not_in_our_own_file() -> None:
    cosigned = NOTE + "— witness.example/w AAAAAAAAAAAA\n".encode()
    assert open_checkpoint(cosigned, STATION.key) == HEAD
    with pytest.raises(Refused, match=r"log\.tampered"):
        open_checkpoint(cosigned, STATION.key, alone=True)


def test_another_key_origin_or_algorithm_refuses() -> None:
    foreign = sign_checkpoint(HEAD, OTHER)  # names our origin, signed by another
    renamed = sign_checkpoint(Checkpoint("example.com/log", 3, b"r" * 32), STATION)
    for note in (foreign, renamed):
        with pytest.raises(Refused, match=r"log\.tampered"):
            open_checkpoint(note, STATION.key)
    curve = MemorySigner.from_seed(Algorithm.ESP256, b"c" * 40)
    with pytest.raises(Refused, match=r"signature\.algorithm"):
        sign_checkpoint(HEAD, curve)
    with pytest.raises(Refused, match=r"signature\.algorithm"):
        open_checkpoint(NOTE, curve.key)


def test_every_flipped_bit_and_every_truncation_refuses() -> None:
    for position in range(len(NOTE)):
        for bit in range(8):
            bad = bytearray(NOTE)
            bad[position] ^= 1 << bit
            with pytest.raises(DevguardError) as caught:
                open_checkpoint(bytes(bad), STATION.key, alone=True)
            assert caught.value.code == "log.tampered"
    for length in range(len(NOTE)):
        with pytest.raises(DevguardError):
            open_checkpoint(NOTE[:length], STATION.key)


ROOT = base64.b64encode(b"r" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"o\n03\n{ROOT}\n",
        f"o\n-3\n{ROOT}\n",
        f"o\n+3\n{ROOT}\n",
        f"o\n3 \n{ROOT}\n",
        f"o\n٣\n{ROOT}\n",
        f"o\n99999999999999999999\n{ROOT}\n",
        f"o\n\n{ROOT}\n",
        f"\n3\n{ROOT}\n",
        f"o\n3\n{ROOT[:-4]}\n",
        f"o\n3\n{ROOT}\nextension\n",
        f"o\n3\n{ROOT}",
        "o\n3\n",
        "",
    ],
)
def test_other_spellings_of_the_text_refuse(text: str) -> None:
    with pytest.raises(Malformed, match=r"log\.tampered"):
        parse_text(text.encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace(b"\n\n", b"\n"),
        lambda note: note + b"\n",
        lambda note: note.replace(b"\n3\n", b"\r\n3\r\n"),
        lambda note: note + b"\xff",
        lambda note: note + "— a+b AAAAAAAA\n".encode(),
        lambda note: note + "— a AAAA\n".encode(),
        lambda note: note + b"- a AAAAAAAA\n",
        lambda note: note + "— a AAAAAAAB=\n".encode(),
        lambda note: note + "— a\u00a0b AAAAAAAA\n".encode(),
        lambda note: note + "— w AAAAAAAAAAAA\n".encode() * 16,
        lambda note: b"x" * 20_000,
        lambda note: note.replace(b"\n\n", b"\n" * 20_000),
    ],
)
def test_malformed_notes_refuse(change: object) -> None:
    with pytest.raises(Malformed, match=r"log\.tampered"):
        open_checkpoint(change(NOTE), STATION.key)  # type: ignore[operator] # the parameters are functions


@given(st.binary(max_size=200))
def test_garbage_raises_our_own_error(data: bytes) -> None:
    with pytest.raises(DevguardError):
        open_checkpoint(data, STATION.key)

"""Approvals as text: what is typed or scanned comes back whole, or is told to be typed again."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import Malformed
from devguard.session.armor import MAX_ARMOR, Kind, armor, dearmor, in_groups, is_armor

KINDS = st.sampled_from(list(Kind))
QR = set(string.digits + string.ascii_uppercase + " $%*+-./:")  # ISO/IEC 18004, alphanumeric mode
CODE = armor(Kind.CODE, bytes(range(64)))


@given(KINDS, st.binary(max_size=300))
def test_what_is_written_is_read(kind: Kind, data: bytes) -> None:
    text = armor(kind, data)
    assert set(text) <= QR
    for form in (text, in_groups(text), text.lower(), f"  {text}\n", in_groups(text).replace("\n", "\r\n")):
        assert is_armor(form.encode())
        assert dearmor(form) == (kind, data)


def test_a_code_is_short_enough_to_be_read_aloud() -> None:
    body = CODE.partition(":")[2]
    assert len(body) == 109
    assert [len(line) for line in in_groups(CODE).splitlines()] == [14, 29, 29, 29, 29, 10]
    assert base64.b32decode(body + "=" * (-len(body) % 8))[:64] == bytes(range(64))


def test_a_code_needs_no_prefix_where_one_is_waited_for() -> None:
    body = CODE.partition(":")[2]
    assert dearmor(body, bare=Kind.CODE) == (Kind.CODE, bytes(range(64)))
    with pytest.raises(Malformed):
        dearmor(body)


def test_letters_that_base32_does_not_have_are_the_ones_they_look_like() -> None:
    seen = armor(Kind.CODE, b"".join(bytes([number, 255 - number]) for number in range(40)))
    assert {"O", "I", "B"} <= set(seen.partition(":")[2])
    prefix, _, body = seen.partition(":")
    mistaken = body.replace("O", "0").replace("I", "1").replace("B", "8")
    assert dearmor(f"{prefix}:{mistaken}") == dearmor(seen)


def test_every_slip_is_found() -> None:
    prefix, _, body = CODE.partition(":")
    for at, char in enumerate(body):
        wrong = "A" if char != "A" else "Q"
        with pytest.raises(Malformed):
            dearmor(f"{prefix}:{body[:at]}{wrong}{body[at + 1 :]}")
        with pytest.raises(Malformed):
            dearmor(f"{prefix}:{body[:at]}{body[at + 1 :]}")  # left out
        with pytest.raises(Malformed):
            dearmor(f"{prefix}:{body[: at + 1]}{char}{body[at + 1 :]}")  # doubled
        if at and body[at - 1] != char:
            with pytest.raises(Malformed):
                dearmor(f"{prefix}:{body[: at - 1]}{char}{body[at - 1]}{body[at + 1 :]}")  # two exchanged


def test_a_request_is_not_taken_for_an_answer() -> None:
    request = armor(Kind.REQUEST, b"x" * 64)
    with pytest.raises(Malformed):
        dearmor(request.replace("REQUEST", "CODE"))
    with pytest.raises(Malformed):
        dearmor(request.replace("REQUEST", "ORDER"))


@given(st.text(max_size=60), KINDS)
def test_garbage_is_malformed(text: str, kind: Kind) -> None:
    for form in (text, f"DEVGUARD-{kind}:{text}"):
        try:
            dearmor(form, bare=kind)
        except Malformed as error:
            assert error.code == "grant.malformed"  # noqa: PT017 (a text may be one by chance)


def test_a_text_without_end_is_not_read() -> None:
    with pytest.raises(Malformed):
        dearmor("DEVGUARD-CODE:" + "A" * MAX_ARMOR)
    assert not is_armor(b"\xff" * 100)
    assert not is_armor(b"")

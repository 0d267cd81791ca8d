"""One person is one person however the name is written; a name nobody can tell from another is in no signed object."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.cose.names import UNSEEN, same_person
from devguard.custody.keytext import check_texts
from devguard.errors import Malformed

PRINTABLE_UNSEEN = ["\ufe0f", "\u034f", "\u3164", "\u115f", "\u180b", "\U000e0100", "\u17b4", "\u2800", "\uffa0"]


@pytest.mark.parametrize("char", [*PRINTABLE_UNSEEN, "\u00ad", "\u200b", "\u200d", "\u2060", "\ufeff", "\U000e0041"])
def test_what_nobody_sees_makes_no_second_person(char: str) -> None:
    for name in (f"Remy{char} Release", f"{char}Remy Release", f"Remy Release{char}"):
        assert same_person(name) == same_person("Remy Release")
    assert not same_person(char)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u0390", "\u0390".upper()),  # iota with dialytika and tonos: its capital is three code points
        ("\u1fb3", "\u1fbc"),
        ("\u1f80\u0301", "\u1f88\u0301"),
        ("Stra\u00dfe", "STRASSE"),
        ("\ufb01nn", "FINN"),
        ("Rhea\u00a0 Root", "rhea root"),
    ],
)
def test_case_and_form_make_no_second_person(one: str, other: str) -> None:
    assert same_person(one) == same_person(other)


def test_two_people_stay_two() -> None:
    assert len({same_person(name) for name in ("Rhea Root", "Ruth Root", "RheaRoot", "Rhéa Root")}) == 4


def test_every_letter_and_its_capital_are_one() -> None:
    differ = [
        char for char in map(chr, range(sys.maxunicode + 1))
        if not char == char.upper() == char.lower()
        and len({same_person(one) for one in (char, char.upper(), char.lower())}) > 1
    ]  # fmt: skip
    assert differ == ["\u0131"]  # the dotless i, which is a letter of its own


@given(st.text(max_size=12))
def test_folding_twice_is_folding_once(name: str) -> None:
    assert same_person(same_person(name)) == same_person(name)
    assert not any(ord(char) in UNSEEN for char in same_person(name))


@pytest.mark.parametrize("char", PRINTABLE_UNSEEN)
def test_a_key_file_holds_no_such_name(char: str) -> None:
    with pytest.raises(Malformed):
        check_texts("name", f"Remy{char} Release", "root")

"""Invariant: words say what the bytes say, both ways, and no two words sound or look alike."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.custody.words import WORDS, from_words, rows, words
from devguard.errors import Malformed


def distance(one: str, other: str) -> int:
    """Edits between two words."""
    row = list(range(len(other) + 1))
    for index, left in enumerate(one, 1):
        before, row[0] = row[0], index
        for at, right in enumerate(other, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (left != right))
    return row[-1]


def test_the_list() -> None:
    assert len(WORDS) == 256
    assert list(WORDS) == sorted(WORDS)
    assert all(word.isascii() and word.isalpha() and word.islower() and 4 <= len(word) <= 9 for word in WORDS)
    assert len({word[:3] for word in WORDS}) == 256
    assert min(distance(one, other) for one, other in itertools.combinations(WORDS, 2)) >= 3


@given(st.binary(max_size=64))
def test_words_and_back(data: bytes) -> None:
    assert from_words(words(data)) == data
    assert from_words([word.upper() for word in words(data)]) == data
    read = [word for row in rows(data) for word in row.partition(": ")[2].split()]
    assert from_words(read) == data


def test_a_fingerprint_is_four_rows_of_eight() -> None:
    found = rows(bytes(range(32)))
    assert [row[:3] for row in found] == ["1: ", "2: ", "3: ", "4: "]
    assert all(len(row.split()) == 9 for row in found)


@pytest.mark.parametrize("word", ["", "no-word", "x" * 1000])
def test_other_words_refuse(word: str) -> None:
    with pytest.raises(Malformed) as caught:
        from_words([WORDS[0], word])
    assert caught.value.code == "key.malformed"

"""Invariant: a new key is not kept by a word that anybody tries first."""

from __future__ import annotations

import pytest

from devguard.custody.strength import check_strength
from devguard.errors import Refused

WORDS = ("finn", "Finn Tech", "technician")


@pytest.mark.parametrize(
    "word",
    ["", "0000", "1234567", "aaaaaaaaaaaa", "ababababab", "12345678", "87654321", "abcdefghij", "Password1", "DEVGUARD",
     "technician", "Finn-Tech", "finn tech 2026", "Insulin_Pump", "Passwort!"],
)  # fmt: skip
def test_what_anybody_tries_first(word: str) -> None:
    with pytest.raises(Refused) as caught:
        check_strength(word.encode(), WORDS)
    assert caught.value.code == "key.passphrase"
    assert not word or word not in str(caught.value)


@pytest.mark.parametrize("word", ["correct horse", "8 räder!", "ward four at night", "\udcff".join("abcdef12")])
def test_what_will_do(word: str) -> None:
    check_strength(word.encode("utf-8", "surrogateescape"), WORDS)

"""The text of a manifest: until when a release is supported, said in one way or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.errors import Malformed
from devguard.manifest.suit import ComponentTextKey
from devguard.manifest.text import LANGUAGE, TextFacts, decode_text, encode_text

PARTS = ((b"application",),)
PLAIN = TextFacts("v.example", "insulin-pump", "1.0.0", "A release.", ("revA",))
LAST = 253_402_300_799  # the last second of the year 9999


@given(end=st.none() | st.integers(1, LAST))
def test_round_trip(end: int | None) -> None:
    text = replace(PLAIN, supported_until=end)
    assert decode_text(encode_text(text, PARTS), PARTS) == text


def test_a_release_that_says_nothing_of_it_is_written_as_ever() -> None:
    about = wire.decode(encode_text(PLAIN, PARTS))[LANGUAGE][PARTS[0]]
    assert set(about) == {2, 3, 4, 6}


@pytest.mark.parametrize("said", [
    "", "for ever", "supported until 2030-01-01", "supported until 2030-1-1T00:00:00Z",
    "supported until 2030-01-01T00:00:00Z ", "supported until 9999-99-99T00:00:00Z",
])  # fmt: skip
def test_any_other_description_refuses(said: str) -> None:
    value = wire.decode(encode_text(PLAIN, PARTS))
    value[LANGUAGE] = {
        key: {**one, ComponentTextKey.COMPONENT_DESCRIPTION.value: said} if isinstance(one, dict) else one
        for key, one in value[LANGUAGE].items()
    }
    with pytest.raises(Malformed) as caught:
        decode_text(wire.encode(value), PARTS)
    assert caught.value.code == "envelope.malformed"

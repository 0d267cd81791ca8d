"""Every string that people read, by key, in the language they read.

Catalogues are flat JSON files in `locale/`: key -> text with `{name}` placeholders, no markup. English is the one that
is written first; a test holds the others against it. What a command answers stays as the command said it, in English.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

LANGUAGES: Final[Mapping[str, str]] = MappingProxyType({"en": "English", "de": "Deutsch"})
DEFAULT: Final = "en"
_MOST: Final = 20  # wishes of a browser that are looked at


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The texts of a language of `LANGUAGES`."""
    data = files("devguard.console").joinpath("locale", f"{language}.json").read_bytes()
    texts: dict[str, str] = json.loads(data)
    return MappingProxyType(texts)


@dataclass(frozen=True, slots=True)
class Translator:
    """Texts in one language. Call it with a key and what its placeholders stand for."""

    language: str

    def __call__(self, key: str, /, **values: object) -> str:
        """The text; a key nobody has written is a bug and raises KeyError."""
        return catalogue(self.language)[key].format_map(values)

    def has(self, key: str) -> bool:
        """Whether there is such a text: some keys are made of what a command says, which may be newer."""
        return key in catalogue(self.language)

    def number(self, value: float, digits: int = 0) -> str:
        """A number as it is written in the language."""
        text = f"{value:,.{digits}f}"
        return text.translate(str.maketrans(",.", ".,")) if self.language == "de" else text

    def size(self, value: float) -> str:
        """Bytes in decimal units."""
        for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if value >= scale:
                return f"{self.number(value / scale, 1)} {unit}"
        return f"{self.number(value)} B"


def chosen(cookie: str | None, accepts: str) -> str:
    """The language a person chose, else the first one the browser accepts that there is, else English."""
    if cookie is not None and cookie in LANGUAGES:
        return cookie
    wishes: list[tuple[float, int, str]] = []
    for place, item in enumerate(accepts.split(",")[:_MOST]):
        name, _, weight = item.strip().partition(";q=")
        try:
            wishes.append((-float(weight) if weight else -1.0, place, name[:2].lower()))
        except ValueError:
            continue
    return next((name for weight, _, name in sorted(wishes) if weight < 0 and name in LANGUAGES), DEFAULT)

"""Names of persons in signed objects: which characters a name must not hold, and when two spellings are one person.

Who counts toward a threshold is told by name, so a name must be told apart by eye. This is about characters that are
not seen and forms that look alike to everybody; letters of two scripts that resemble each other stay two.
Source: Unicode Standard section 3.13 (D146, NFKC_Casefold); DerivedCoreProperties, Default_Ignorable_Code_Point.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

# Default_Ignorable_Code_Point, first and last of each run, and the blank of braille.
_RUNS: Final = (
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x3164, 0x3164), (0xFE00, 0xFE0F)),
    *((0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A)),
    (0xE0000, 0xE0FFF),
)
UNSEEN: Final = frozenset(code for first, last in _RUNS for code in range(first, last + 1))
"""Code points that leave nothing on paper, many of them printable to Python."""


def unseen(text: str) -> bool:
    """Whether `text` has a character that nobody sees."""
    return not text.isascii() and any(ord(char) in UNSEEN for char in text)


@lru_cache(maxsize=1024)
def same_person(name: str) -> str:
    """The form in which two spellings of one person's name are equal: case, spacing, compatibility forms and characters
    that nobody sees aside."""
    if name.isascii():
        return " ".join(name.lower().split())
    seen = "".join(char for char in name if ord(char) not in UNSEEN)
    folded = unicodedata.normalize("NFD", seen).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()  # folding may undo a form, and a form open a case
    return " ".join(unicodedata.normalize("NFKC", folded).split())

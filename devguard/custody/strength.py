"""What a passphrase that is to protect a new key must not be. Keys that exist open with whatever they were given.

Length decides, not a mixture of kinds of characters; what anybody tries first is refused, whatever its length. Against
a thief who can try for ever nothing else stands than scrypt and the passphrase. Source: NIST SP 800-63B, 3.1.1.2.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Final

from devguard.errors import Refused

LEAST: Final = 8
VARIETY: Final = 4
_OTHER: Final = re.compile(r"[\W_]+")
_COMMON: Final = ("devguard", "password", "passwort", "passphrase", "technician", "pacemaker", "insulin pump")


def check_strength(passphrase: bytes, words: Iterable[str]) -> None:
    """Return when `passphrase` may protect a new key. `words`: names that stand on the key itself.

    Raises `Refused("key.passphrase")`: fewer than 8 characters, fewer than 4 different ones, a run such as 12345678, or
    one of the words or of those everybody tries, with or without digits behind it.
    """
    text = passphrase.decode("utf-8", "surrogateescape")
    hint = "take several words that do not belong together; spaces are fine"
    if len(text) < LEAST:
        raise Refused("key.passphrase", f"a new key's passphrase has at least {LEAST} characters", hint)
    steps = {ord(after) - ord(before) for before, after in itertools.pairwise(text)}
    if len(set(text)) < VARIETY or steps in ({1}, {-1}):
        raise Refused("key.passphrase", "a new key's passphrase is not one character again and again, nor a run", hint)
    if _bare(text) in {_bare(word) for word in (*words, *_COMMON)}:
        raise Refused("key.passphrase", "a new key's passphrase is not what anybody would try first", hint)


def _bare(text: str) -> str:
    return _OTHER.sub("", text.casefold()).rstrip("0123456789")

"""Versions as SUIT carries them: arrays of integers (draft-ietf-suit-update-management-14, suit-parameter-version).

Only release versions with three numbers and the pre-release classes alpha, beta and rc can be expressed; everything
else stays in the text. `to_array` and `to_text` are inverse where `to_array` gives an array.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from devguard import wire
from devguard.errors import Malformed
from devguard.manifest.suit import CODE, Comparison, strict

MAX_NUMBERS: Final = 16
_CLASSES: Final = {"rc": -1, "beta": -2, "alpha": -3}
_NAMES: Final = {number: name for name, number in _CLASSES.items()}
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_FORM: Final = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-(rc|beta|alpha)((?:\.{_NUMBER})*))?")


def to_array(version: str) -> tuple[int, ...] | None:
    """The array of a version: 1.2.3-rc.4 gives (1, 2, 3, -1, 4); None where the encoding would lose something."""
    match = _FORM.fullmatch(version)
    if match is None:
        return None
    numbers = [int(part) for part in match.group(1, 2, 3)]
    if match.group(4):
        numbers.append(_CLASSES[match.group(4)])
        numbers += [int(part) for part in match.group(5).split(".")[1:]]
    return tuple(numbers) if len(numbers) <= MAX_NUMBERS else None


def to_text(array: tuple[int, ...]) -> str:
    """The inverse of `to_array`; `Malformed` for an array that no three-number version gives."""
    text = ".".join(map(str, array[:3]))
    if len(array) > 3:
        text += f"-{_NAMES.get(array[3], '?')}" + "".join(f".{number}" for number in array[4:])
    if to_array(text) != array:
        raise Malformed(CODE, "a version array that is not major, minor, patch and a known pre-release class")
    return text


def decode_array(value: object) -> tuple[int, ...]:
    """SUIT_Condition_Version_Comparison_Value: a non-empty array of integers."""
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= MAX_NUMBERS:
        raise Malformed(CODE, f"a version is an array of 1 to {MAX_NUMBERS} integers")
    if not all(type(number) is int for number in value):
        raise Malformed(CODE, "a version is an array of integers")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class VersionMatch:
    """SUIT_Parameter_Version_Match: an operator and the version to compare the installed one with."""

    comparison: Comparison
    version: tuple[int, ...]

    @classmethod
    def decode(cls, data: object) -> VersionMatch:
        """From the byte-string-wrapped parameter."""
        value = strict(data) if isinstance(data, bytes) else None
        if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int:
            raise Malformed(CODE, "a version match is an array of an operator and a version")
        if value[0] not in Comparison.__members__.values():
            raise Malformed(CODE, f"unknown version comparison {value[0]}")
        return cls(Comparison(value[0]), decode_array(value[1]))

    def encode(self) -> bytes:
        """The encoded parameter content."""
        return wire.encode([self.comparison.value, self.version])

    def holds(self, installed: tuple[int, ...]) -> bool:
        """Whether the installed version passes: numbers are compared until the match's are consumed or one differs.

        A number the installed version lacks counts as 0, above every pre-release class. A match without a
        pre-release class does not look at the installed one's: the draft stops when the match is consumed.
        """
        order = 0
        for index, number in enumerate(self.version):
            mine = installed[index] if index < len(installed) else 0
            if mine != number:
                order = 1 if mine > number else -1
                break
        allowed = {
            Comparison.GREATER: order > 0,
            Comparison.GREATER_EQUAL: order >= 0,
            Comparison.EQUAL: order == 0,
            Comparison.LESSER_EQUAL: order <= 0,
            Comparison.LESSER: order < 0,
        }
        return allowed[self.comparison]

"""CBOR as MCUmgr servers write it: indefinite lengths, keys in any order, one map; and nothing else of RFC 8949.

Heads are walked first, as everywhere in devguard, so that depth, number of items and lengths are bounded before a value
is built. Tags, floats and duplicate keys are refused: no answer of the protocol has one. A key is a text with the
shortest head, so that equal keys are equal bytes. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from devguard import wire
from devguard.errors import Malformed

CODE: Final = "smp.malformed"
DEPTH: Final = 8
_BREAK: Final = 0xFF
_STRINGS: Final = {0x5F: 2, 0x7F: 3}
_ARRAY: Final = 0x9F
_MAP: Final = 0xBF
_TEXT: Final = range(0x60, 0x78)  # heads of texts of less than 24 bytes
_LONG_TEXT: Final = 0x78  # one byte of length follows


def decode_map(data: bytes) -> dict[str, Any]:
    """The one map with text keys in `data`; `Malformed("smp.malformed")` for anything else."""
    end = _Walker(data).skip(0, DEPTH)
    if end != len(data):
        raise Malformed(CODE, f"{len(data) - end} trailing bytes after the body of an SMP message")
    value = wire.decode_foreign(data, code=CODE)
    if not isinstance(value, dict):
        raise Malformed(CODE, "the body of an SMP message is no map")
    return value


class _Walker(wire.Walker):
    """As `wire.Walker`, and indefinite lengths are well-formed too."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, CODE, deterministic=False, tags=())

    def skip(self, at: int, depth: int) -> int:
        """Offset after the item that starts at `at`."""
        initial = self.data[at] if at < len(self.data) else None
        if initial in _STRINGS:
            return self._chunks(at + 1, _STRINGS[initial])
        if initial == _ARRAY:
            return self._until_break(at + 1, depth, pairs=False)
        if initial == _MAP:
            return self._until_break(at + 1, depth, pairs=True)
        return super().skip(at, depth)

    def _chunks(self, at: int, major: int) -> int:
        """Pieces of a string, each of a definite length."""
        while not self._ends(at):
            if self.data[at] >> 5 != major or self.data[at] & 31 == 31:
                raise Malformed(CODE, f"a string goes on at offset {at} with something else")
            self._enter(1, at, 1)
            at = super().skip(at, 0)
        return at + 1

    def _until_break(self, at: int, depth: int, *, pairs: bool) -> int:
        seen: set[bytes] = set()
        while not self._ends(at):
            self._enter(1 + pairs, at, depth)
            at = self._pair(at, depth, seen) if pairs else self.skip(at, depth - 1)
        return at + 1

    def _skip_map(self, count: int, at: int, depth: int) -> int:
        seen: set[bytes] = set()
        for _ in range(count):
            at = self._pair(at, depth, seen)
        return at

    def _pair(self, at: int, depth: int, seen: set[bytes]) -> int:
        """Offset after a key that was not there yet, and its value."""
        end = super().skip(at, 0)
        key = self.data[at:end]
        if key[0] not in _TEXT and (key[0] != _LONG_TEXT or key[1] < len(_TEXT)):
            raise Malformed(CODE, f"the map key at offset {at} is no short text")
        if key in seen:
            raise Malformed(CODE, f"duplicate map key at offset {at}")
        seen.add(key)
        return self.skip(end, depth - 1)

    def _ends(self, at: int) -> bool:
        if at >= len(self.data):
            raise Malformed(CODE, f"CBOR ends early at offset {at}")
        return self.data[at] == _BREAK

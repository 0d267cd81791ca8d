"""What a bad cable does to bytes: bits flip, bytes vanish or come twice, bursts of noise come in between.

Pure: bytes in, bytes out, from a seed. One `Impairer` is one direction of one line. Each kind of damage draws its
places from a generator of its own, by the gap to the next one, so the result depends on the bytes' positions alone and
not on how they are cut into calls. Times (speed, latency, a pulled cable) are the line's business, not known here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from devguard.errors import LocalProtocolError

NOISE_MOST: Final = 40  # longest burst, bytes
_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Damage:
    """Chances. `ber`: for each of the eight data bits of a byte to flip (start and stop bits are never hit).
    `drop`, `double`, `noise`: for each byte to be lost, to come twice, to have a burst of noise before it."""

    ber: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for chance in (self.ber, self.drop, self.double, self.noise):
            if not 0.0 <= chance <= 1.0:
                raise LocalProtocolError("link.protocol", f"{chance} is no chance between 0 and 1")


UNHARMED: Final = Damage()


class _Places:
    """The places of one kind of damage, in rising order; `next` is the first not yet passed."""

    __slots__ = ("_chance", "next", "random")

    def __init__(self, chance: float, seed: str) -> None:
        self.random = random.Random(seed)  # noqa: S311 (a repeatable line, no secret)
        self._chance = chance
        self.next = -1
        self._advance()

    def _advance(self) -> None:
        if self._chance >= 1.0:
            self.next += 1
        elif self._chance > 0.0:
            gap = math.log1p(-self.random.random()) / math.log1p(-self._chance)
            self.next += 1 + int(min(gap, _NEVER))
        else:
            self.next = _NEVER

    def until(self, end: int) -> Iterator[int]:
        """The places before `end`, each once."""
        while self.next < end:
            yield self.next
            self._advance()


class Impairer:
    """One direction of a line. `damage` takes what was sent, in order, and gives what arrives of it."""

    __slots__ = ("_at", "_doubles", "_drops", "_flips", "_noise")

    def __init__(self, chances: Damage, seed: str) -> None:
        self._at = 0
        self._flips = _Places(chances.ber, f"{seed}/ber")
        self._drops = _Places(chances.drop, f"{seed}/drop")
        self._doubles = _Places(chances.double, f"{seed}/double")
        self._noise = _Places(chances.noise, f"{seed}/noise")

    def damage(self, data: bytes) -> bytes:
        """What arrives of the next `data`, of any length."""
        start, end = self._at, self._at + len(data)
        self._at = end
        if self._flips.next < end * 8:
            flipped = bytearray(data)
            for bit in self._flips.until(end * 8):
                flipped[bit // 8 - start] ^= 1 << bit % 8
            data = bytes(flipped)
        if min(self._drops.next, self._doubles.next, self._noise.next) >= end:
            return data
        drops, doubles = (set(places.until(end)) for places in (self._drops, self._doubles))
        bursts = {at: self._burst() for at in self._noise.until(end)}
        out = bytearray()
        done = start
        for at in sorted(drops | doubles | bursts.keys()):
            out += data[done - start : at - start]
            out += bursts.get(at, b"")
            out += data[at - start : at - start + 1] * (0 if at in drops else 2 if at in doubles else 1)
            done = at + 1
        return bytes(out + data[done - start :])

    def _burst(self) -> bytes:
        return self._noise.random.randbytes(self._noise.random.randrange(1, NOISE_MOST + 1))

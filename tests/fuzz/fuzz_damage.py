"""Damage, seeded: every truncation, every place a length could stand at its extremes, and mutations of all kinds."""

from __future__ import annotations

import random
from collections.abc import Iterator

EXTREMES = tuple(
    value
    for width in (1, 2, 4, 8)
    for value in (
        bytes(width),
        b"\xff" * width,
        b"\x7f" + b"\xff" * (width - 1),
        b"\x80" + bytes(width - 1),
        b"\xff" * (width - 1) + b"\x7f",
        bytes(width - 1) + b"\x80",
    )
)
"""What a length field of either byte order has at its ends: 0, all ones, the largest and the least signed number."""


def places(count: int, most: int | None, seed: int) -> list[int]:
    """Numbers below `count`: all of them, or `most` drawn by seed, the first and the last eight always."""
    if most is None or count <= most:
        return list(range(count))
    ends = {*range(min(8, count)), *range(max(0, count - 8), count)}
    drawn = random.Random(seed).sample(range(count), max(0, most - len(ends)))
    return sorted(ends.union(drawn))


def cut(data: bytes, most: int | None = None, seed: int = 1) -> Iterator[bytes]:
    """Every shorter beginning."""
    return (data[:size] for size in places(len(data), most, seed))


def stretched(data: bytes, most: int | None = None, seed: int = 2) -> Iterator[bytes]:
    """Every place overwritten with every extreme, so that no length field needs to be known by its place."""
    for at in places(len(data), most, seed):
        for value in dict.fromkeys(EXTREMES):
            yield data[:at] + value + data[at + len(value) :]


def mutated(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Bytes set, bits flipped, pieces cut, doubled, moved, inserted."""
    chance = random.Random(seed)
    for _ in range(count):
        bad = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(bad) + 1)
            match chance.randrange(6):
                case 0 if at < len(bad):
                    bad[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
                case 1 if at < len(bad):
                    bad[at] ^= 1 << chance.randrange(8)
                case 2:
                    del bad[at : at + chance.randrange(1, 9)]
                case 3:
                    bad[at:at] = bad[at : at + chance.randrange(1, 17)]
                case 4:
                    bad[at:at] = chance.randbytes(chance.randrange(1, 9))
                case _:
                    value = chance.choice(EXTREMES)
                    bad[at : at + len(value)] = value
        yield bytes(bad)

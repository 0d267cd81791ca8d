"""ML-DSA-65 signatures that come out the same each time, so that a bench can be run again to the last byte.

FIPS 204, the deterministic variant (algorithm 2 with rnd = 32 zero bytes, empty context), for throw-away keys only: the
`cryptography` package signs hedged, as a product must, and cannot be told otherwise. Slow, in plain Python, and not
constant in time. Nothing rests on it: every signature made here is verified by the real verifier of a device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.custody.memory import MemorySigner

Q: Final = 8_380_417
N: Final = 256
D, ETA, TAU, BETA, OMEGA = 13, 4, 49, 196, 55  # FIPS 204 table 1, ML-DSA-65
ROWS, COLUMNS = 6, 5
GAMMA1: Final = 1 << 19
GAMMA2: Final = (Q - 1) // 32
_CHALLENGE: Final = 48
_N_INVERSE: Final = pow(N, -1, Q)
_ZETAS: Final = [pow(1753, int(f"{index:08b}"[::-1], 2), Q) for index in range(N)]

Poly = list[int]


def _shake(size: int, *parts: bytes) -> bytes:
    return hashlib.shake_256(b"".join(parts)).digest(size)


def _ntt(poly: Poly) -> Poly:
    """Algorithm 41."""
    out, number, length = list(poly), 0, 128
    while length:
        for start in range(0, N, 2 * length):
            number += 1
            zeta = _ZETAS[number]
            for at in range(start, start + length):
                term = zeta * out[at + length] % Q
                out[at], out[at + length] = out[at] + term, out[at] - term
        length //= 2
    return [value % Q for value in out]


def _inverse(poly: Poly) -> Poly:
    """Algorithm 42; values from 0 to q - 1."""
    out, number, length = list(poly), N, 1
    while length < N:
        for start in range(0, N, 2 * length):
            number -= 1
            zeta = -_ZETAS[number]
            for at in range(start, start + length):
                low, high = out[at], out[at + length]
                out[at], out[at + length] = low + high, zeta * (low - high) % Q
        length *= 2
    return [value * _N_INVERSE % Q for value in out]


def _times(one: Poly, other: Poly) -> Poly:
    return [a * b % Q for a, b in zip(one, other, strict=True)]


def _plus(one: Poly, other: Poly) -> Poly:
    return [a + b for a, b in zip(one, other, strict=True)]


def _minus(one: Poly, other: Poly) -> Poly:
    return [(a - b) % Q for a, b in zip(one, other, strict=True)]


def _sum(polys: Iterable[Poly]) -> Poly:
    return [sum(values) % Q for values in zip(*polys, strict=True)]


def _centred(poly: Poly) -> Poly:
    return [value - Q if value > Q // 2 else value for value in poly]


def _reject(stream: bytes, width: int, keep: Callable[[bytes], Iterable[int]]) -> Poly:
    out: Poly = []
    for at in range(0, len(stream), width):
        out += keep(stream[at : at + width])
        if len(out) >= N:
            break
    return out[:N]


def _uniform(rho: bytes, column: int, row: int) -> Poly:
    """Algorithm 30, already in the NTT domain."""

    def keep(three: bytes) -> Iterable[int]:
        value = int.from_bytes(three, "little") & 0x7FFFFF
        return (value,) if value < Q else ()

    return _reject(hashlib.shake_128(rho + bytes((column, row))).digest(1680), 3, keep)


def _small(secret: bytes, number: int) -> Poly:
    """Algorithm 31 with eta 4."""

    def keep(one: bytes) -> Iterable[int]:
        return [ETA - half for half in (one[0] & 15, one[0] >> 4) if half < 9]

    return _reject(_shake(1024, secret, number.to_bytes(2, "little")), 1, keep)


def _pack(poly: Sequence[int], bits: int) -> bytes:
    whole = 0
    for index, value in enumerate(poly):
        whole |= value << bits * index
    return whole.to_bytes(bits * len(poly) // 8, "little")


def _mask(seed: bytes, number: int) -> Poly:
    """Algorithm 34, one polynomial."""
    whole = int.from_bytes(_shake(640, seed, number.to_bytes(2, "little")), "little")
    return [GAMMA1 - (whole >> 20 * index & 0xFFFFF) for index in range(N)]


def _ball(challenge: bytes) -> Poly:
    """Algorithm 29."""
    stream = _shake(1024, challenge)
    signs, at, out = int.from_bytes(stream[:8], "little"), 8, [0] * N
    for index in range(N - TAU, N):
        while stream[at] > index:
            at += 1
        out[index] = out[stream[at]]
        out[stream[at]] = 1 - 2 * (signs & 1)
        signs, at = signs >> 1, at + 1
    return out


def _high(value: int) -> int:
    """The high part of algorithm 36."""
    low = value % (2 * GAMMA2)
    low -= 2 * GAMMA2 if low > GAMMA2 else 0
    return 0 if value - low == Q - 1 else (value - low) // (2 * GAMMA2)


def _low(value: int) -> int:
    low = (value - _high(value) * 2 * GAMMA2) % Q
    return low - Q if low > Q // 2 else low


def _within(polys: Iterable[Poly], bound: int) -> bool:
    return all(-bound < value < bound for poly in polys for value in poly)


def _hints(hints: list[list[int]]) -> bytes:
    """Algorithm 20."""
    places = [[index for index, value in enumerate(row) if value] for row in hints]
    flat = [place for row in places for place in row]
    ends = [sum(len(row) for row in places[: number + 1]) for number in range(ROWS)]
    return bytes(flat) + bytes(OMEGA - len(flat)) + bytes(ends)


class RepeatableSigner:
    """A `Signer` whose key and signatures depend on `seed` (32 bytes) and the message alone."""

    def __init__(self, seed: bytes) -> None:
        self._key = MemorySigner.from_seed(Algorithm.ML_DSA_65, seed).key
        expanded = _shake(128, seed, bytes((ROWS, COLUMNS)))
        rho, secret, self._k = expanded[:32], expanded[32:96], expanded[96:]
        self._a = [[_uniform(rho, column, row) for column in range(COLUMNS)] for row in range(ROWS)]
        s1, s2 = ([_small(secret, n) for n in span] for span in (range(COLUMNS), range(COLUMNS, COLUMNS + ROWS)))
        self._s1, self._s2 = [_ntt(poly) for poly in s1], [_ntt(poly) for poly in s2]
        t = [_sum((_inverse(self._row(row, self._s1)), s2[row])) for row in range(ROWS)]
        t1 = [[(value + (1 << D - 1) - 1) >> D for value in poly] for poly in t]
        self._t0 = [_ntt([v - (h << D) for v, h in zip(p, high, strict=True)]) for p, high in zip(t, t1, strict=True)]
        self._tr = _shake(64, rho, *(_pack(poly, 10) for poly in t1))

    @property
    def key(self) -> CoseKey:
        """The public half."""
        return self._key

    @property
    def algorithm(self) -> Algorithm:
        """ML-DSA-65."""
        return self._key.algorithm

    def _row(self, row: int, vector: list[Poly]) -> Poly:
        return _sum(_times(a, b) for a, b in zip(self._a[row], vector, strict=True))

    def sign(self, message: bytes) -> bytes:
        """Algorithm 7, the signature of 3309 bytes."""
        mu = _shake(64, self._tr, b"\x00\x00", message)
        seed = _shake(64, self._k, bytes(32), mu)
        attempt = 0
        while (signature := self._attempt(mu, seed, attempt)) is None:
            attempt += COLUMNS
        return signature

    def _attempt(self, mu: bytes, seed: bytes, number: int) -> bytes | None:
        y = [_mask(seed, number + column) for column in range(COLUMNS)]
        y_hat = [_ntt(poly) for poly in y]
        w = [_inverse(self._row(row, y_hat)) for row in range(ROWS)]
        challenge = _shake(_CHALLENGE, mu, *(_pack([_high(value) for value in poly], 4) for poly in w))
        c = _ntt(_ball(challenge))

        def by_c(vector: list[Poly]) -> list[Poly]:
            return [_centred(_inverse(_times(c, poly))) for poly in vector]

        z = [_plus(one, two) for one, two in zip(y, by_c(self._s1), strict=True)]
        rest = [_minus(one, two) for one, two in zip(w, by_c(self._s2), strict=True)]
        if not _within(z, GAMMA1 - BETA) or not _within(([_low(v) for v in p] for p in rest), GAMMA2 - BETA):
            return None
        ct0 = by_c(self._t0)
        high = [[_high(value) for value in poly] for poly in rest]
        moved = [[_high(v % Q) for v in _plus(p, other)] for p, other in zip(rest, ct0, strict=True)]
        hints = [[int(a != b) for a, b in zip(one, two, strict=True)] for one, two in zip(high, moved, strict=True)]
        if not _within(ct0, GAMMA2) or sum(map(sum, hints)) > OMEGA:
            return None
        packed = b"".join(_pack([GAMMA1 - value for value in poly], 20) for poly in z)
        return challenge + packed + _hints(hints)

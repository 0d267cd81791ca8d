"""What a family is: a name, how to read one packet, how to find packets in a stream. Its file's docstring is help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from devguard.packets.packet import Context, Packet

Decode = Callable[[bytes, Context], Packet]
"""Bytes of one packet (or of one vector: see the family) -> what they say. Never raises for bad bytes."""


class Framer(Protocol):
    """Finds packets in a stream, whatever its noise and wherever reads split it. Holds at most one longest packet.

    `feed` gives the whole packets that ended in these bytes, each with its offset in the stream; `finish` what was
    still waiting. The same stream gives the same packets at any split. Bytes that belong to no packet are skipped
    and counted in `skipped`.
    """

    skipped: int

    def feed(self, data: bytes) -> list[tuple[int, bytes]]: ...

    def finish(self) -> list[tuple[int, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `framer` is None where packets have no marks of their own and come one a record (BLE, RF).

    `bulk`, for fixed-layout families, is the fast path: a compiled layout with the checksum beside it, equal to
    `decode` in all it says. `baud`: the usual line speed where it is a serial protocol.
    """

    name: str
    title: str
    decode: Decode
    framer: Callable[[], Framer] | None = None
    bulk: Decode | None = None
    baud: int | None = None

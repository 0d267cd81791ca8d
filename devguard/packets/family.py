"""What a family is: a name, how to read one packet, how to find packets in a stream. Its file's docstring is help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from devguard.packets.packet import Context, Packet

Decode = Callable[[bytes, Context], Packet]
"""Bytes of one packet (or of one vector: see the family) -> what they say. Never raises for bad bytes."""
Read = Callable[[bytes], Packet]
"""`Decode` with its context: what a framer asks of every candidate."""


class Framer(Protocol):
    """Finds packets in a stream, whatever its noise and wherever reads split it. Holds at most one longest packet.

    `feed` gives the packets that ended in these bytes, each with its offset in the stream; `finish` what was still
    waiting. The same stream gives the same packets at any split. Bytes that belong to no packet are skipped and counted
    in `skipped`; `damaged` counts beginnings of packets that proved to be none.
    """

    skipped: int
    damaged: int

    def feed(self, data: bytes) -> list[tuple[int, Packet]]: ...

    def finish(self) -> list[tuple[int, Packet]]: ...


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `framer`: finds its packets in a stream; None where packets have no marks of their own and come one
    a record (Bluetooth, radio). `gather`, for those: puts the records together in which a message goes on; a family
    that has a framer too is read so where records are known to begin and end with its packets.

    `bulk`, for fixed-layout families, is the fast path: a compiled layout with the checksum beside it, equal to
    `decode` in all it says. `baud`: the usual line speed where it is a serial protocol.
    """

    name: str
    title: str
    decode: Decode
    framer: Callable[[Read, Context], Framer] | None = None
    bulk: Decode | None = None
    baud: int | None = None
    gather: Callable[[Read, Context], Framer] | None = None

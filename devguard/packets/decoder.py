"""From records as they come to packets: the one way a capture or a port is read, whatever the family.

A family with marks of its own is read as one stream for each direction of each interface; of the others each record,
or as many as a message goes on in, is a packet. So are the records of a family that has both ways, where they are known
to be its own and no chunks of a stream (`edges`). Memory is constant: one read, and of each stream one packet that is
not yet whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from devguard.packets.family import Family, Framer
from devguard.packets.gather import Singly
from devguard.packets.packet import NOTHING, Context, Packet


class Decoder:
    """The packets of a family, each with its place: its offset in its stream, or the number of its first record."""

    def __init__(self, family: Family, context: Context = NOTHING, *, edges: bool = False) -> None:
        self._decode = family.bulk or family.decode
        self._make = (edges and family.gather) or family.framer or family.gather or Singly
        self._context = context
        self._framers: dict[Hashable, Framer] = {}

    def feed(self, data: bytes, stream: Hashable = 0) -> list[tuple[int, Packet]]:
        """What ended in these bytes of a stream."""
        framer = self._framers.get(stream)
        if framer is None:
            framer = self._framers[stream] = self._make(self._read, self._context)
        return framer.feed(data)

    def _read(self, data: bytes) -> Packet:
        return self._decode(data, self._context)

    def finish(self) -> list[tuple[int, Packet]]:
        """What was still waiting when nothing more came."""
        return [found for framer in self._framers.values() for found in framer.finish()]

    @property
    def skipped(self) -> int:
        """Bytes that belong to no packet."""
        return sum(framer.skipped for framer in self._framers.values())

    @property
    def damaged(self) -> int:
        """Beginnings of packets that proved to be none."""
        return sum(framer.damaged for framer in self._framers.values())


def decode_stream(family: Family, chunks: Iterable[bytes], context: Context = NOTHING) -> Iterator[tuple[int, Packet]]:
    """(place, packet) of every packet in the chunks, in order, in constant memory."""
    decoder = Decoder(family, context)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    yield from decoder.finish()

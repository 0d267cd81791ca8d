"""Packets out of a stream: noise before, between and inside them, reads that end anywhere.

Every framer here is a function of the bytes alone: the same stream gives the same packets however it is cut. A
candidate that proves unsound costs one byte, then the search goes on behind its first; a candidate whose end has not
come is tried again at `finish` without waiting for it. Memory: one longest packet and one read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from devguard.errors import LocalProtocolError
from devguard.packets.family import Family, Framer
from devguard.packets.packet import NOTHING, Context, Packet

Size = Callable[[bytes], "int | None"]
"""The first bytes of a candidate -> the whole packet's size in bytes, None while too few are known. Raises
`ValueError` where these bytes cannot begin a packet."""


class LengthFramer:
    """Packets that begin with a mark and say how long they are.

    `start`: the mark, or several of one length. `longest`: bytes a packet has at most; a longer claim is no packet.
    `sound`: whether a whole candidate is a packet (its checksum, its end mark). `damaged` counts those that are not.
    `head`: how many bytes `size` needs at most.
    """

    def __init__(
        self,
        start: bytes | tuple[bytes, ...],
        size: Size,
        longest: int,
        sound: Callable[[bytes], bool],
        *,
        head: int = 16,
    ) -> None:
        self._marks = (start,) if isinstance(start, bytes) else start
        if not self._marks or len({len(mark) for mark in self._marks}) != 1 or not self._marks[0]:
            raise LocalProtocolError("packet.length", "marks of one length are needed")
        self._size, self._longest, self._sound, self._head = size, longest, sound, head
        self._buffer = bytearray()
        self._base = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """See `Framer.feed`."""
        self._buffer += data
        return self._take(final=False)

    def finish(self) -> list[tuple[int, bytes]]:
        """See `Framer.finish`."""
        found = self._take(final=True)
        self._drop(len(self._buffer))
        return found

    def _take(self, *, final: bool) -> list[tuple[int, bytes]]:
        found, at = [], 0
        while True:
            begin = self._find(at)
            self.skipped += begin - at
            at = begin
            if at >= len(self._buffer) or (len(self._buffer) - at < len(self._marks[0]) and not final):
                break
            size = self._claim(at)
            if size is None and not final:
                break
            if size and at + size <= len(self._buffer):
                candidate = bytes(self._buffer[at : at + size])
                if self._sound(candidate):
                    found.append((self._base + at, candidate))
                    at += size
                    continue
                self.damaged += 1
            elif size and not final:
                break
            self.skipped += 1
            at += 1
        self._shift(at)
        return found

    def _find(self, at: int) -> int:
        """Where the next mark, or what may become one, begins; the buffer's end when there is none."""
        places = [place for mark in self._marks if (place := self._buffer.find(mark, at)) >= 0]
        if places:
            return min(places)
        width = len(self._marks[0])
        for place in range(max(at, len(self._buffer) - width + 1), len(self._buffer)):
            tail = bytes(self._buffer[place:])
            if any(mark.startswith(tail) for mark in self._marks):
                return place
        return len(self._buffer)

    def _claim(self, at: int) -> int | None:
        """The size claimed at `at`; 0 for no packet, None when more bytes are needed."""
        prefix = bytes(self._buffer[at : at + self._head])
        try:
            size = self._size(prefix)
        except ValueError:
            return 0
        if size is None:
            return 0 if len(prefix) >= self._head else None
        return size if len(self._marks[0]) <= size <= self._longest else 0

    def _shift(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count

    def _drop(self, count: int) -> None:
        self.skipped += count
        self._shift(count)


class DelimitedFramer:
    """Packets between two marks that occur nowhere inside (stuffed or text). What comes is with its marks.

    Where both marks are the same byte, an empty pair is read as the beginning of the next packet, and so is the end of
    one that is not `sound`. A packet that grows past `longest` is dropped and the search begins anew.
    """

    def __init__(self, begin: bytes, end: bytes, longest: int, sound: Callable[[bytes], bool] = lambda _: True) -> None:
        if not begin or not end:
            raise LocalProtocolError("packet.length", "marks of at least one byte are needed")
        self._begin, self._end, self._longest, self._sound = begin, end, longest, sound
        self._buffer = bytearray()
        self._base = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """See `Framer.feed`."""
        self._buffer += data
        found = []
        while (at := self._buffer.find(self._begin)) >= 0:
            self._skip(at)
            stop = self._buffer.find(self._end, len(self._begin))
            size = stop + len(self._end)
            again = self._buffer.find(self._begin, len(self._begin), max(stop, 0)) if stop >= 0 else -1
            if self._begin == self._end and stop == len(self._begin):
                self._skip(len(self._begin))  # an empty pair: the second mark begins a packet
            elif again >= 0:
                self.damaged += 1
                self._skip(again)  # its end was lost: the next one begins inside
            elif stop >= 0 and size <= self._longest:
                packet = bytes(self._buffer[:size])
                if self._sound(packet):
                    found.append((self._base, packet))
                    self._shift(size)
                else:
                    self.damaged += 1
                    self._skip(stop if self._begin == self._end else len(self._begin))
            elif stop >= 0 or len(self._buffer) > self._longest:
                self.damaged += 1
                self._skip(len(self._begin))
            else:
                return found
        self._skip(max(0, len(self._buffer) - len(self._begin) + 1))
        return found

    def finish(self) -> list[tuple[int, bytes]]:
        """See `Framer.finish`."""
        self._skip(len(self._buffer))
        return []

    def _skip(self, count: int) -> None:
        self.skipped += count
        self._shift(count)

    def _shift(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count


class Decoder:
    """The packets of a family out of records as they come, in constant memory.

    A family with marks of its own is read as one stream for each direction; of the others each record is a packet.
    Every packet comes with its place: the offset in its direction's stream, or the number of its record.
    """

    def __init__(self, family: Family, context: Context = NOTHING) -> None:
        self._family, self._context = family, context
        self._decode = family.bulk or family.decode
        self._framers: dict[int, Framer] = {}
        self._records = 0

    def feed(self, data: bytes, direction: int = 0) -> list[tuple[int, Packet]]:
        """What ended in these bytes."""
        if self._family.framer is None:
            self._records += 1
            return [(self._records - 1, self._decode(data, self._context))]
        framer = self._framers.get(direction)
        if framer is None:
            framer = self._framers[direction] = self._family.framer()
        return [(at, self._decode(found, self._context)) for at, found in framer.feed(data)]

    def finish(self) -> list[tuple[int, Packet]]:
        """What was still waiting when nothing more came."""
        rest = [found for framer in self._framers.values() for found in framer.finish()]
        return [(at, self._decode(data, self._context)) for at, data in rest]

    @property
    def skipped(self) -> int:
        """Bytes that belong to no packet."""
        return sum(framer.skipped for framer in self._framers.values())


def decode_stream(family: Family, chunks: Iterable[bytes], context: Context = NOTHING) -> Iterator[tuple[int, Packet]]:
    """(place, packet) of every packet in the chunks, in order, in constant memory."""
    decoder = Decoder(family, context)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    yield from decoder.finish()

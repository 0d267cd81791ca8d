"""Packets out of a stream: noise before, between and inside them, reads that end anywhere.

Every framer here is a function of the bytes alone: the same stream gives the same packets however it is cut. A
candidate that proves unsound costs one byte, then the search goes on behind its first; a candidate whose end has not
come is tried again at `finish` without waiting for it. Memory: one longest packet and one read. Records of radio and
Bluetooth, which have no marks, are the business of `gather`.
"""

from __future__ import annotations

from collections.abc import Callable

from devguard.errors import LocalProtocolError
from devguard.packets.family import Read
from devguard.packets.packet import Packet

Size = Callable[[bytes], "int | None"]
"""The first bytes of a candidate -> the whole packet's size in bytes, None while too few are known. Raises
`ValueError` where these bytes cannot begin a packet."""
Sound = Callable[[Packet], bool]
"""Whether what was read of a candidate shows that it is a packet and no noise that begins like one."""


def whole(packet: Packet) -> bool:
    """Sound where a checksum or an end mark says so: nothing is wrong with it."""
    return packet.code is None


class LengthFramer:
    """Packets that begin with a mark and say how long they are.

    `start`: the mark, or several of one length. `longest`: bytes a packet has at most; a longer claim is no packet.
    `damaged` counts whole candidates that are not `sound`. `head`: how many bytes `size` needs at most.
    """

    def __init__(
        self,
        start: bytes | tuple[bytes, ...],
        size: Size,
        longest: int,
        read: Read,
        *,
        head: int = 16,
        sound: Sound = whole,
    ) -> None:
        self._marks = (start,) if isinstance(start, bytes) else start
        if not self._marks or len({len(mark) for mark in self._marks}) != 1 or not self._marks[0]:
            raise LocalProtocolError("packet.length", "marks of one length are needed")
        self._size, self._longest, self._read, self._head, self._sound = size, longest, read, head, sound
        self._width = len(self._marks[0])
        self._buffer = b""
        self._pieces: list[bytes] = []  # read behind the buffer while its candidate is known to lack more
        self._lacking = 0
        self._base = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, Packet]]:
        """See `Framer.feed`."""
        self._pieces.append(data)
        self._lacking -= len(data)
        return self._take(final=False) if self._lacking <= 0 else []

    def finish(self) -> list[tuple[int, Packet]]:
        """See `Framer.finish`."""
        found = self._take(final=True)
        self.skipped += len(self._buffer)
        self._shift(len(self._buffer))
        return found

    def _take(self, *, final: bool) -> list[tuple[int, Packet]]:
        found: list[tuple[int, Packet]] = []
        self._buffer = buffer = b"".join((self._buffer, *self._pieces))
        self._pieces.clear()
        self._lacking = 0
        base, at, taken, end = self._base, 0, 0, len(buffer)
        while True:
            at = self._find(at)
            if at >= end or (end - at < self._width and not final):
                break
            size = self._claim(at)
            if (size is None or at + size > end) and not final:
                self._lacking = 1 if size is None else at + size - end
                break
            if size and at + size <= end:
                packet = self._read(buffer[at : at + size])
                if self._sound(packet):
                    found.append((base + at, packet))
                    at += size
                    taken += size
                    continue
                self.damaged += 1
            at += 1
        self.skipped += at - taken
        self._shift(at)
        return found

    def _find(self, at: int) -> int:
        """Where the next mark, or what may become one, begins; the buffer's end when there is none."""
        buffer, width = self._buffer, self._width
        if width == len(self._marks) == 1:
            place = buffer.find(self._marks[0], at)
            return place if place >= 0 else len(buffer)
        places = [place for mark in self._marks if (place := buffer.find(mark, at)) >= 0]
        if places:
            return min(places)
        for place in range(max(at, len(buffer) - width + 1), len(buffer)):
            tail = buffer[place:]
            if any(mark.startswith(tail) for mark in self._marks):
                return place
        return len(buffer)

    def _claim(self, at: int) -> int | None:
        """The size claimed at `at`; 0 for no packet, None when more bytes are needed."""
        prefix = self._buffer[at : at + self._head]
        try:
            size = self._size(prefix)
        except ValueError:
            return 0
        if size is None:
            return 0 if len(prefix) >= self._head else None
        return size if self._width <= size <= self._longest else 0

    def _shift(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._base += count


class DelimitedFramer:
    """Packets between two marks that occur nowhere inside (stuffed or text). What comes is with its marks.

    Where both marks are the same byte, an empty pair is read as the beginning of the next packet, and so is the end of
    one that is not `sound`. A packet that grows past `longest` is dropped and the search begins anew.
    """

    def __init__(self, begin: bytes, end: bytes, longest: int, read: Read, *, sound: Sound = whole) -> None:
        if not begin or not end:
            raise LocalProtocolError("packet.length", "marks of at least one byte are needed")
        self._begin, self._end, self._longest, self._read, self._sound = begin, end, longest, read, sound
        self._buffer = bytearray()
        self._base = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, Packet]]:
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
                packet = self._read(bytes(self._buffer[:size]))
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

    def finish(self) -> list[tuple[int, Packet]]:
        """See `Framer.finish`."""
        self._skip(len(self._buffer))
        return []

    def _skip(self, count: int) -> None:
        self.skipped += count
        self._shift(count)

    def _shift(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count

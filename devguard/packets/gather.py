"""Records of radio and Bluetooth: each is a packet, or a part of one that goes on in the next.

The link below keeps the records' edges, so nothing is searched for here. A message whose rest never comes is read as
far as it came, which its family answers with `packet.length`; a record that belongs to no message stands alone.
Memory: the parts of one message.
"""

from __future__ import annotations

from collections.abc import Callable

from devguard.packets.family import Read
from devguard.packets.packet import Context, Packet

GoesOn = Callable[[list[bytes]], "bool | None"]
"""The parts of a message so far, the newest last -> True: more must come; False: it is whole, or cannot become so;
None: the newest part belongs to another message."""


class Singly:
    """Every record is one packet; its place is its number."""

    def __init__(self, read: Read, _context: Context) -> None:
        self._read = read
        self._number = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, Packet]]:
        """See `Framer.feed`; `data` is one record."""
        self._number += 1
        return [(self._number - 1, self._read(data))]

    def finish(self) -> list[tuple[int, Packet]]:
        """See `Framer.finish`."""
        return []


class Gatherer:
    """Parts of messages put together; a message's place is the number of its first record."""

    def __init__(self, read: Read, goes_on: GoesOn) -> None:
        self._read, self._goes_on = read, goes_on
        self._parts: list[bytes] = []
        self._number = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, Packet]]:
        """See `Framer.feed`; `data` is one record."""
        found = []
        if self._parts:
            self._parts.append(data)
            more = self._goes_on(self._parts)
            if more is None:
                self._parts.pop()
                self.damaged += 1
                found += self._end()
        if not self._parts:
            self._parts.append(data)
            more = self._goes_on(self._parts)
        self._number += 1
        return found if more else found + self._end()

    def finish(self) -> list[tuple[int, Packet]]:
        """See `Framer.finish`."""
        return self._end()

    def _end(self) -> list[tuple[int, Packet]]:
        """The message as far as it came."""
        parts, self._parts = self._parts, []
        return [(self._number - len(parts), self._read(b"".join(parts)))] if parts else []

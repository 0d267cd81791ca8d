"""Walking the entries of segment files in order, as verification and opening both need it.

Every segment header is compared with what the walk has computed; a walk stops where the files stop making sense
and says at which record. It holds one frame and one frontier, however long the log is.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Malformed, Refused
from devguard.evidence import files
from devguard.evidence.checkpoint import Checkpoint, open_checkpoint, origin_of
from devguard.evidence.frame import MAX_LEFTOVER, Incomplete, decode_header, frames
from devguard.evidence.record import Entry, decode_entry
from devguard.evidence.tree import HASH_SIZE, Frontier, leaf_hash

_CODE: Final = "log.tampered"
_BASE64: Final = frozenset((string.ascii_letters + string.digits + "+/=").encode())
_ROOT: Final = 44  # characters of a root in base64
_BLOB: Final = 4 + 64  # key id and Ed25519 signature, in base64 at the end of a note


class Broken(Refused):
    """The files stop making sense at a record. `index` is that record's."""

    def __init__(self, code: str, index: int, reason: str) -> None:
        super().__init__(code, f"record {index}: {reason}")
        self.index = index
        self.reason = reason


@dataclass(slots=True)
class Walk:
    """A position in the log: segment number (0: before the first), byte offset in it, tree so far, last leaf read."""

    folder: Path
    sizes: dict[int, int]
    number: int = 0
    offset: int = 0
    frontier: Frontier = field(default_factory=Frontier)
    leaf: bytes = b""

    def entries(self, end: int) -> Iterator[Entry]:
        """Every entry from here to record `end` (exclusive), the position moving along.

        Raises `Broken` with `log.truncated` where the files end too early and with `log.tampered` otherwise.
        """
        while self.frontier.size < end:
            if self.number == 0 or self.offset >= self.sizes.get(self.number, 0):
                self._next_segment()
            yield from self._segment(end)

    def _next_segment(self) -> None:
        later = [number for number in self.sizes if number > self.number]
        if not later:
            raise Broken("log.truncated", self.frontier.size, "it is missing, and so is everything after it")
        if min(later) != self.number + 1:
            raise self._tampered(f"segment {self.number + 1} is missing")
        self.number, self.offset = self.number + 1, 0

    def _segment(self, end: int) -> Iterator[Entry]:
        start = self.offset
        with files.open_segment(self.folder, self.number) as reader:
            reader.seek(start)
            parts = frames(reader, self.sizes[self.number] - start)
            try:
                if start == 0:
                    self.offset = self._header(parts)
                while self.frontier.size < end and (part := next(parts, None)) is not None:
                    entry = self._entry(part[1])
                    self.offset = start + part[0]
                    yield entry
            except Incomplete:
                last = self.number == max(self.sizes)
                raise Broken(
                    "log.truncated" if last else _CODE, self.frontier.size, f"segment {self.number} ends inside it"
                ) from None
            except Malformed as error:
                raise self._tampered(error.message) from None

    def _header(self, parts: Iterator[tuple[int, bytes]]) -> int:
        after, body = next(parts, (0, b""))
        if not after:
            raise Incomplete
        try:
            header = decode_header(body)
        except Malformed as error:
            raise self._tampered(error.message) from None
        mine = (self.number, self.frontier.size, self.frontier.hashes)
        if (header.number, header.first, header.frontier) != mine:
            raise self._tampered(f"the head of segment {self.number} does not continue the records before it")
        return after

    def _entry(self, body: bytes) -> Entry:
        try:
            entry = decode_entry(body)
        except Malformed as error:
            raise self._tampered(error.message) from None
        if entry.index != self.frontier.size:
            raise self._tampered(f"record {entry.index} stands in its place")
        self.leaf = body
        self.frontier.append(leaf_hash(body))
        return entry

    def _tampered(self, reason: str) -> Broken:
        return Broken(_CODE, self.frontier.size, reason)

    def leftover(self) -> int:
        """How many bytes lie behind this position, in this segment and in later ones; an empty file counts as one."""
        here = self.sizes.get(self.number, 0) - self.offset
        return here + sum(max(size, 1) for number, size in self.sizes.items() if number > self.number)


def interrupted_append(pending: bytes | None, leftover: int, checkpoint: Checkpoint, key: CoseKey) -> Checkpoint | None:
    """The checkpoint an interrupted append was about to make, None when none was under way.

    The next checkpoint is signed and durable before the first byte of its record. So bytes behind the last signed
    record without one, or more of them than one record has, are no crash: `Refused("log.tampered")`.
    """
    damage = Broken(_CODE, checkpoint.size, f"{leftover} bytes where no record is, and no interrupted append left them")
    if pending is None:
        if leftover:
            raise damage
        return None
    try:
        following = open_checkpoint(pending, key, alone=True)
    except (Malformed, Refused):
        if leftover or not _torn(pending, origin_of(key), checkpoint.size + 1):
            raise damage from None
        return None
    if following.size != checkpoint.size + 1 or leftover > MAX_LEFTOVER:
        raise damage
    return following


def _torn(pending: bytes, origin: str, size: int) -> bool:
    """Whether a crash while the note over `size` records was written can have left these bytes: the beginning of such
    a note, zeros where nothing reached the disk. A whole note, or anything else, is no crash."""
    whole = Checkpoint(origin, size, bytes(HASH_SIZE)).text().decode()
    signature = base64.b64encode(bytes(_BLOB)).decode()
    form = f"{whole}\n\u2014 {origin} {signature}\n".encode()
    known = (len(whole) - _ROOT - 1, len(whole) - 1, len(form) - len(signature) - 1, len(form) - 1)
    found = pending.rstrip(b"\x00")
    if len(pending) > len(form) or len(found) >= len(form):
        return False
    return all(
        byte in _BASE64 if known[0] <= at < known[1] or known[2] <= at < known[3] else byte == form[at]
        for at, byte in enumerate(found)
    )

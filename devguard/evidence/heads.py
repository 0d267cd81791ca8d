"""Where the log's signed head lies, and what a crash can have left of it. Pure.

The last segment carries the head (a signed note over all records) in one of two pages of its lead: that of `size`
records at page 1 + size mod 2. An append writes entry and new head, makes both durable with *one* fsync, and then
wipes the old head, which needs no fsync: a crash leaves the old log or the new one, and while nothing crashes exactly
one head exists, so nobody can cut records off and have a head that fits. A segment is begun with the head it takes
over, made durable before the segment before it loses its own. What is in no such state was made by nobody honest.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from devguard.errors import DevguardError
from devguard.evidence.checkpoint import Checkpoint
from devguard.evidence.frame import HEAD, LEAD, MAX_FRAME, PAGE, Broken
from devguard.evidence.record import MAX_ENTRY, SEAL_SIZE, entry_prefix
from devguard.evidence.tree import HASH_SIZE

HEAD_SIZE: Final = 512  # what is written of a page: one sector of any disk
_SECTOR: Final = 512
_CODE: Final = "log.tampered"
_BASE64: Final = frozenset((string.ascii_letters + string.digits + "+/=").encode())
_ROOT: Final = 44  # characters of a root in base64
_BLOB: Final = 4 + 64  # key id and Ed25519 signature, in base64 at the end of a note

Open = Callable[[bytes], Checkpoint]
"""Takes a note for the head it is, or raises."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an evidence folder held at one moment: the size of every segment, the leads of the last two, and the notes
    of format 1 (None: no such file)."""

    sizes: dict[int, int]
    leads: dict[int, bytes]
    checkpoint: bytes | None = None
    pending: bytes | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """A signed head as it stands on disk."""

    note: bytes
    checkpoint: Checkpoint

    @property
    def size(self) -> int:
        """How many records it is over."""
        return self.checkpoint.size


@dataclass(frozen=True, slots=True)
class Places:
    """The two places of one segment: the heads in them, the smaller first, and what is neither head nor empty."""

    heads: tuple[Head, ...] = ()
    remains: tuple[bytes, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is in either."""
        return not self.heads and not self.remains


def place_of(size: int) -> int:
    """Offset in a segment of the head over `size` records."""
    return PAGE * (1 + size % 2)


def encode_head(note: bytes) -> bytes:
    """What is written at its place."""
    return note.ljust(HEAD_SIZE, b"\x00")


def encode_lead(header: bytes, head: Head) -> bytes:
    """The lead of a segment that takes over `head`; `header` is its first page."""
    pages = [header, bytes(PAGE), bytes(PAGE)]
    pages[1 + head.size % 2] = head.note.ljust(PAGE, b"\x00")
    return b"".join(pages)


def read_places(lead: bytes, opened: Open) -> Places:
    """What the two places of a segment with that lead hold; a short lead is one that was cut off."""
    heads, remains = [], []
    for parity in (0, 1):
        page = lead[place_of(parity) : place_of(parity) + PAGE]
        note = page.rstrip(b"\x00")
        if not note:
            continue
        try:
            head = Head(note, opened(note))
        except DevguardError:
            remains.append(page)
            continue
        if head.size % 2 != parity:
            raise Broken(_CODE, head.size, "a head of that size stands where none of that size is written")
        heads.append(head)
    return Places(tuple(sorted(heads, key=lambda one: one.size)), tuple(remains))


def check_remains(places: Places, head: Head, *, handed_over: bool = False) -> None:
    """`Broken("log.tampered")` unless what is no head is what a crash leaves around `head`: the beginning of the next
    one, or the end of one that was being wiped, which is the one before or, once `handed_over`, `head` itself."""
    origin, size = head.checkpoint.origin, head.size
    wiped = (size, size - 1) if handed_over else (size - 1,)
    for page in places.remains:
        begun = not handed_over and torn_note(page, origin, size + 1)
        if not begun and not any(torn_note(page, origin, one, wiped=True) for one in wiped):
            raise Broken(_CODE, size, "where its head would stand are bytes that no interrupted append leaves")


def torn_note(found: bytes, origin: str, size: int, *, wiped: bool = False) -> bool:
    """Whether a crash while the note over `size` records was written, or was `wiped`, can have left these bytes: its
    beginning, or its end, and zeros for the rest. A whole note, or anything else, is no crash."""
    form, anything = _form(origin, max(size, 0))
    kept = found.strip(b"\x00")
    start = len(found) - len(found.lstrip(b"\x00"))
    end = start + len(kept)
    if not kept:
        return len(found) <= PAGE
    if size < 0 or len(found) > PAGE or len(kept) >= len(form) or (end != len(form) if wiped else start != 0):
        return False
    return all(byte in _BASE64 if at in anything else byte == form[at] for at, byte in enumerate(kept, start))


def note_size(origin: str, size: int) -> int:
    """Bytes of a note over `size` records."""
    return len(_form(origin, size)[0])


def _form(origin: str, size: int) -> tuple[bytes, frozenset[int]]:
    """A note over `size` records, and the places in it that may hold any character of base64."""
    text = Checkpoint(origin, size, bytes(HASH_SIZE)).text().decode()
    signature = base64.b64encode(bytes(_BLOB)).decode()
    form = f"{text}\n— {origin} {signature}\n".encode()
    ends = ((len(text) - _ROOT - 1, len(text) - 1), (len(form) - len(signature) - 1, len(form) - 1))
    return form, frozenset(at for start, end in ends for at in range(start, end))


def torn_lead(found: bytes, lead: bytes) -> bool:
    """Whether `found` is what a crash leaves of a segment begun with `lead`: any sector of it, zeros for the rest."""
    return len(found) <= LEAD and all(
        not piece.strip(b"\x00") or lead[at : at + len(piece)] == piece for at, piece in _sectors(found, 0)
    )


def torn_frame(found: bytes, offset: int, index: int) -> bool:
    """Whether `found`, from `offset` of a segment to its end, is what a crash leaves of the frame of entry `index`.

    Sectors that did not reach the disk are zeros. What did has to be the length of a frame and the beginning of an
    entry with that index: garbage, or a copy of another record, is no crash. A frame that is all there but whose
    checksum is wrong is none either, unless one of its sectors is missing.
    """
    start = entry_prefix(index)
    pieces = _sectors(found, offset)
    reached = [(at, piece) for at, piece in pieces if piece.strip(b"\x00")]
    for at, piece in reached:
        low, high = max(at, HEAD.size), min(at + len(piece), HEAD.size + len(start))
        if low < high and found[low:high] != start[low - HEAD.size : high - HEAD.size]:
            return False
    least = HEAD.size + len(start) + SEAL_SIZE
    if len(found) > MAX_FRAME or found[:1].strip(b"\x00"):  # no frame is so long that its first byte says anything
        return False
    if not reached and len(found) < least:
        return False  # a file grows to its new size at once, or by what was written
    if sum(len(piece[: max(4 - at, 0)]) for at, piece in reached) < 4:
        return True  # how long it was to be did not reach the disk
    length = int.from_bytes(found[:4], "big")
    whole = HEAD.size + length
    return 0 < length <= MAX_ENTRY and (len(found) < whole or (len(found) == whole and len(reached) < len(pieces)))


def _sectors(data: bytes, offset: int) -> list[tuple[int, bytes]]:
    """(place in `data`, bytes) of each sector that `data`, which lies at `offset` of a file, has a part in."""
    first = _SECTOR - offset % _SECTOR
    edges = [0, *range(first, len(data), _SECTOR), len(data)]
    return [(start, data[start:end]) for start, end in pairwise(edges) if start < end]

"""The end of a log on disk: which of its possible heads holds, and what lies behind the last record it covers.

`verify` and whoever appends ask the same question here, so that neither takes for a crash what the other calls damage.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Refused
from devguard.evidence.checkpoint import open_checkpoint, parse_text, read_note, verify_ed25519
from devguard.evidence.frame import Broken
from devguard.evidence.heads import Head, Open, Snapshot, torn_frame
from devguard.evidence.legacy import announced
from devguard.evidence.record import Entry, sealed_text
from devguard.evidence.scan import Walk, entry_in
from devguard.evidence.standing import Standing, check_started
from devguard.evidence.tree import Frontier

_CODE: Final = "log.tampered"


class Rest(enum.Enum):
    """What lies behind the last record that the head covers."""

    NOTHING = enum.auto()
    TORN = enum.auto()
    WHOLE = enum.auto()  # a record that the station sealed and whose head is missing


@dataclass(frozen=True, slots=True)
class Ending:
    """The head that holds, the position behind the last record it covers, and what lies there."""

    head: Head
    walk: Walk
    rest: Rest


def opener(key: CoseKey | None) -> Open:
    """Takes a note for the head of `key`'s log; without a key by its form alone, which proves nothing."""
    if key is None:
        return lambda note: parse_text(read_note(note).text)
    return lambda note: open_checkpoint(note, key, alone=True)


def start(folder: Path, standing: Standing) -> Walk:
    """Before the first record."""
    return Walk(folder, standing.sizes, carriers=standing.carriers)


Visit = Callable[[Entry, Frontier], None]
"""Shown an entry and the tree up to and with it."""


def find_end(walk: Walk, standing: Standing, found: Snapshot, key: CoseKey, visit: Visit | None = None) -> Ending:
    """The end of the log, `walk` standing at the first of the possible heads, which it has been compared with.

    `visit` is shown what is walked over. Raises `Broken` with `log.tampered` for bytes that no crash leaves.
    """
    head = standing.heads[0]
    for following in standing.heads[1:]:
        ahead = walk.copy()
        try:
            advance(ahead, following, visit)
        except Refused:
            break
        head, walk = following, ahead
    walk.enter(standing.number)
    check_started(found, standing, head, walk.frontier, walk.latest)
    left = walk.leftover()
    if standing.legacy:
        pending = found.pending if head is standing.heads[0] else None
        if (wrong := announced(pending, left, head.checkpoint, opener(key))) is not None:
            raise Broken(_CODE, head.size, wrong)
        return Ending(head, walk, Rest.TORN if left else Rest.NOTHING)
    if left == 0:
        return Ending(head, walk, Rest.NOTHING)
    remains = walk.remains() if walk.number == standing.number else b""
    entry = entry_in(remains, head.size)
    if entry is not None and entry.version == walk.format and seal_holds(key, head.checkpoint.origin, entry, walk):
        return Ending(head, walk, Rest.WHOLE)
    if walk.number != standing.number or not torn_frame(remains, walk.offset, head.size):
        raise Broken(_CODE, head.size, f"{left} bytes where no record is, and no interrupted append left them")
    return Ending(head, walk, Rest.TORN)


def advance(walk: Walk, head: Head, visit: Visit | None = None) -> None:
    """Walk to `head` and compare; raises `Broken`, and `Refused("log.tampered")` for another root."""
    for entry in walk.entries(head.size):
        if visit is not None:
            visit(entry, walk.frontier)
    if walk.frontier.root() != head.checkpoint.root:
        raise Refused(_CODE, "the records are not the ones that were signed; `evidence verify` names the first")


def seal_holds(key: CoseKey, origin: str, entry: Entry, before: Walk) -> bool:
    """Whether the station sealed that very entry behind the records up to `before`."""
    return holds(key, sealed_text(origin, entry, before.frontier.root()), entry.seal)


def holds(key: CoseKey, text: bytes, seal: bytes) -> bool:
    """Whether `seal` over `text` is by `key`."""
    try:
        verify_ed25519(key, text, seal, "seal")
    except Refused:
        return False
    return True

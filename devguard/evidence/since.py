"""The records of a log that came after a known head, and the head over them, without reading all that was before.

The known head is compared on the way: a log that does not continue it is not the one that was known. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from devguard.cose.keys import CoseKey
from devguard.errors import Malformed, Refused
from devguard.evidence import files
from devguard.evidence.checkpoint import Checkpoint, check_station_key
from devguard.evidence.ending import opener, start
from devguard.evidence.frame import Incomplete, read_header
from devguard.evidence.heads import Head
from devguard.evidence.scan import Walk
from devguard.evidence.standing import Standing, resolve


def since(folder: Path, key: CoseKey, known: Checkpoint) -> tuple[Head, Iterator[bytes]]:
    """(the log's signed head, every leaf from record `known.size` up to it, oldest first).

    What is read is proven once the iterator has ended. Raises, some of it only while the leaves are read, `Refused` or
    `Malformed` `log.tampered` and `log.truncated`, `Refused("log.missing")`, `LinkError("file.unreadable")`.
    """
    check_station_key(key)
    with files.locked(folder, exclusive=False) as at:
        found = files.snapshot(at)
    standing = resolve(found, opener(key))
    if standing is None:
        raise Refused("log.missing", f"there is no evidence log in {folder}")
    head = standing.heads[0]
    if head.size < known.size:
        raise Refused("log.truncated", f"record {head.size}: an earlier head had {known.size} records")
    return head, _leaves(_before(folder, standing, known.size), known, head.checkpoint)


def _leaves(walk: Walk, known: Checkpoint, head: Checkpoint) -> Iterator[bytes]:
    for _ in walk.entries(known.size):
        pass
    if walk.frontier.root() != known.root:
        raise Refused("log.tampered", f"the first {known.size} records are not those of the earlier head")
    for _ in walk.entries(head.size):
        yield walk.leaf
    if walk.frontier.root() != head.root:
        raise Refused(
            "log.tampered", "the records are not the ones that were signed; `evidence verify` names the first"
        )


def _before(folder: Path, standing: Standing, size: int) -> Walk:
    """A position at or before record `size`, at the start of the segment that has it, on the word of its header."""
    for number in sorted(standing.sizes, reverse=True):
        with files.open_segment(folder, number) as reader:
            try:
                header = read_header(reader, standing.sizes[number])
            except (Incomplete, Malformed):
                continue
            if header.number == number and header.first <= size:
                walk = Walk.at(folder, standing.sizes, header, reader.tell())
                return replace(walk, carriers=standing.carriers)
    return start(folder, standing)

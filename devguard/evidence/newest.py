"""The newest record of some kind, found from the end of the log.

For state that is anchored in the log: its last change is the newest record with its digest. Only the segments from
the end back to that record are read, as a rule one. Form is checked, signatures are not: whoever appends has opened
the log, which compares its end with the signed head. Writes nothing. Source: devguard formats, "Evidence".
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

from devguard.errors import Malformed
from devguard.evidence import files
from devguard.evidence.ending import opener
from devguard.evidence.frame import Incomplete, frames, read_header
from devguard.evidence.record import DigestOf, Entry, Record, decode_entry
from devguard.evidence.standing import resolve


def newest_with(folder: Path, kind: DigestOf) -> tuple[Entry | None, int]:
    """(the newest entry whose record has a digest of `kind`, None when no record has one; the number of records).

    Raises what `newest` does.
    """
    return newest(folder, lambda record: kind in record.digests)


def newest(folder: Path, wanted: Callable[[Record], bool]) -> tuple[Entry | None, int]:
    """(the newest entry whose record is `wanted`, None when none is; the number of records).

    Raises `Refused("log.missing")` without a log, `Malformed("log.tampered")` where it makes no sense, and
    `LinkError("file.unreadable")`.
    """
    size = 0
    for entry, size in backwards(folder):
        if wanted(entry.record):
            return entry, size
    return None, size


def backwards(folder: Path) -> Generator[tuple[Entry, int]]:
    """(entry, number of records) from the newest entry to the oldest; the folder's lock is held meanwhile.

    Raises as `newest`.
    """
    with files.locked(folder, exclusive=False) as at:
        standing = resolve(files.snapshot(at), opener(None))
        if standing is None:
            return
        size = standing.heads[-1].size
        for number in sorted(standing.sizes, reverse=True):
            for body in reversed(_bodies(folder, number, standing.sizes[number])):
                entry = decode_entry(body)
                # What an interrupted append left behind the signed head is not a record yet.
                if entry.index < size:
                    yield entry, size


def _bodies(folder: Path, number: int, size: int) -> list[bytes]:
    """The entry bodies of one segment, as far as whole frames go."""
    bodies: list[bytes] = []
    with files.open_segment(folder, number) as reader:
        try:
            read_header(reader, size)
            for _, body in frames(reader, size - reader.tell()):
                bodies.append(body)
        except Incomplete:
            pass
        except Malformed:
            if not bodies:
                raise
    return bodies

"""The list of technicians this station goes by: kept in the home, anchored in its memory, asked before anybody acts.

`technicians.cbor` holds it and the memory carries its digest, so that a list put back from a backup, on which a
suspended technician is none, refuses. It is written in three steps, each durable before the next: `technicians.next`,
the record with the memory, then `technicians.next` becomes `technicians.cbor`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from devguard.cli.files import read_if_there
from devguard.cli.memory import origin, recall
from devguard.cli.times import iso
from devguard.custody.files import file_error, sync_folder, write_atomic
from devguard.custody.locks import locked
from devguard.errors import Refused
from devguard.grant.roster import MAX_ROSTER, decode_roster, encode_roster
from devguard.grant.technicians import Roster

if TYPE_CHECKING:
    from pathlib import Path

    from devguard.cli.home import Home
    from devguard.cli.memory import Memory
    from devguard.cli.record import Note
    from devguard.grant.claims import Grant

SOON: Final = 30 * 86_400  # a training that lapses within this is told
_LOOKS: Final = 64


def roster_of(note: Note) -> Roster:
    """The list that the station's memory names, for a command that is on record; an empty one where there is none.

    Raises `Refused("trust.rollback")` when another list lies there, and what reading the memory raises.
    """
    if note.memory is None:
        return _listed(note.home, None)
    for _ in range(_LOOKS):
        try:
            return _listed(note.home, note.memory)
        except Refused:
            # List and memory are not read at one moment: what another process moved meanwhile is no old state.
            before = note.memory.technicians
            note.recall()
            if note.memory.technicians == before:
                raise
    return _listed(note.home, note.memory)


def look(home: Home) -> Roster:
    """The list, for a command that only looks; raises as `roster_of`."""
    mine = origin(home)
    return _listed(home, None if mine is None else recall(home, mine))


def digest_of(home: Home) -> bytes | None:
    """The digest of the list that lies there, when it is one."""
    data = read_if_there(home.technicians_file, MAX_ROSTER)
    if data is None:
        return None
    decode_roster(data)
    return hashlib.sha256(data).digest()


def _listed(home: Home, memory: Memory | None) -> Roster:
    path = home.technicians_file
    stored = read_if_there(path, MAX_ROSTER)
    wanted = None if memory is None else memory.technicians
    if wanted is None and stored is None:
        return Roster()
    for data in (stored, read_if_there(path.with_suffix(".next"), MAX_ROSTER)):
        if data is not None and hashlib.sha256(data).digest() == wanted:
            return decode_roster(data)
    what = "is missing" if stored is None else "is not the one this station's memory names"
    raise Refused(
        "trust.rollback", f"{path.name} {what}", "find out who put it there; then `devguard trust recover --help`"
    )


@dataclass(slots=True)
class Change:
    """A list that is being changed: what was found, and what is to be kept."""

    note: Note
    roster: Roster

    def keep(self, roster: Roster) -> None:
        """Record the command and keep `roster`; nothing has changed when this raises."""
        path, data = self.note.home.technicians_file, encode_roster(roster)
        decode_roster(data)  # what could not be read again is not written
        write_atomic(path.with_suffix(".next"), data, 0o600)
        digest = hashlib.sha256(data).digest()
        self.note.remember.append(lambda memory: memory.with_technicians(digest))
        self.note.commit()
        _settle(path)
        self.roster = roster


@contextmanager
def changing(note: Note) -> Iterator[Change]:
    """The list, for one writer at a time."""
    path = note.home.technicians_file
    note.home.make(path.parent)
    with locked(path):
        note.recall()
        roster = roster_of(note)
        wanted = None if note.memory is None else note.memory.technicians
        if wanted is not None and hashlib.sha256(read_if_there(path, MAX_ROSTER) or b"").digest() != wanted:
            _settle(path)  # somebody was cut off before the last step; their list is the one that counts
        yield Change(note, roster)


def _settle(path: Path) -> None:
    try:
        os.replace(path.with_suffix(".next"), path)
        sync_folder(path.parent)
    except OSError as error:
        raise file_error(path, error) from None


def check_standing(note: Note, *grants: Grant) -> None:
    """Return when nobody of these grants is suspended here and none was taken back; `grant.revoked`."""
    roster = roster_of(note)
    for one in grants:
        roster.check_grant(one)


def lapsing(roster: Roster, now: int) -> list[tuple[str, str, int]]:
    """(name, model, when) of every training that has lapsed or lapses soon, the first to lapse first."""
    found = [
        (one.name, model, until)
        for one in roster.technicians.values()
        for model, until in one.training.items()
        if until < now + SOON
    ]
    return sorted(found, key=lambda row: (row[2], row))


def training_text(model: str, until: int, now: int) -> str:
    """One training for people."""
    return f"{'every model' if model == '*' else model} {'lapsed' if until <= now else 'until'} {iso(until)}"

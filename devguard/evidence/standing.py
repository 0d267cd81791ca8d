"""Where a log stands, by what its files say before a record is read: which head, in which segment, and what a crash
left around it. Pure: a snapshot of the folder in, a `Standing` or a refusal out.

One head, in the last segment, and nothing else: that is a log at rest. Every other state here is one that a crash can
leave, and is told from it byte by byte; what no crash leaves is `log.tampered`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from devguard.errors import DevguardError, Malformed
from devguard.evidence.frame import (
    FORMAT_1,
    LEAD,
    PAGE,
    Broken,
    Incomplete,
    NoHead,
    decode_header,
    encode_header,
    read_frame,
)
from devguard.evidence.heads import (
    Head,
    Open,
    Places,
    Snapshot,
    check_remains,
    encode_lead,
    read_places,
    torn_lead,
    torn_note,
)
from devguard.evidence.tree import Frontier

_CODE: Final = "log.tampered"
_FIRST: Final = encode_header(1, Frontier(), 0)


@dataclass(frozen=True, slots=True)
class Standing:
    """heads: the one that is proven to have been durable, and perhaps one over one record more, which is the head if
    that record is there. number: the segment that carries it, 0 in a log of format 1. sizes: of the log's segments.
    carriers: segments whose lead need not be empty of heads. started: a segment whose making was cut off.
    untidy: a crash left something to be wiped."""

    heads: tuple[Head, ...]
    number: int
    sizes: Mapping[int, int]
    carriers: frozenset[int] = field(default_factory=frozenset)
    started: int | None = None
    untidy: bool = False

    @property
    def legacy(self) -> bool:
        """Whether it is a log of format 1."""
        return self.number == 0


def resolve(found: Snapshot, opened: Open) -> Standing | None:
    """Where the log in that snapshot stands; None where none was ever finished being made.

    `opened` takes a note for a head or refuses it. Raises `Refused` or `Malformed` with `log.tampered`.
    """
    if not found.sizes:
        return None if found.checkpoint is None else _legacy(found, opened)
    last = max(found.sizes)
    version = _version(found.leads[last])
    if version == FORMAT_1:
        return _legacy(found, opened)
    places = read_places(found.leads[last], opened)
    # A segment is whole before anything is appended to it: one that is not, and has no entry, was never begun.
    begun = found.sizes[last] > LEAD or (found.sizes[last] == LEAD and version is not None)
    if places.heads and begun:
        return _carried(found, last, places, opened)
    if version is None and found.checkpoint is not None and found.sizes[last] > LEAD:
        return _legacy(found, opened)  # the walk says what is wrong with it
    if len(found.sizes) == 1:
        _check_first(found, last, opened)
        return None
    return _started(found, last, opened)


def _version(lead: bytes) -> int | None:
    """The format of a segment with that lead; None where its header cannot be read."""
    try:
        body = read_frame(io.BytesIO(lead), len(lead))
        return None if body is None else decode_header(body).version
    except (Incomplete, Malformed):
        return None


def _legacy(found: Snapshot, opened: Open) -> Standing:
    if found.checkpoint is None:
        raise NoHead("the checkpoint is missing")
    heads = [Head(found.checkpoint, opened(found.checkpoint))]
    if found.pending is not None:
        try:
            following = Head(found.pending, opened(found.pending))
        except DevguardError:
            pass  # half written: `legacy.announced` looks at it
        else:
            heads += [following] if following.size == heads[0].size + 1 else []
    return Standing(tuple(heads), 0, dict(found.sizes), untidy=found.pending is not None)


def _carried(found: Snapshot, last: int, places: Places, opened: Open) -> Standing:
    """The last segment carries the head. Besides it the one before may still do so, before its first entry alone."""
    heads, empty = places.heads, found.sizes[last] == LEAD
    if len(heads) == 2 and heads[1].size != heads[0].size + 1:
        raise Broken(_CODE, heads[0].size, "two heads were kept that no append leaves together")
    check_remains(places, heads[0])
    handed_over = _still_carried(found, last, heads[0], opened)
    if handed_over and not (empty and len(heads) == 1):
        raise Broken(_CODE, heads[0].size, "an older head was put back")
    carriers = frozenset(handed_over | {last})
    untidy = len(carriers) > 1 or len(heads) == 2 or bool(places.remains) or found.checkpoint is not None
    return Standing(heads, last, dict(found.sizes), carriers, untidy=untidy)


def _still_carried(found: Snapshot, last: int, head: Head, opened: Open) -> set[int]:
    """Segments, and 0 for the file of format 1, that carry the head which `last` took over, or what is left of it."""
    carried = set()
    for number, lead in found.leads.items():
        if number == last or _version(lead) == FORMAT_1:
            continue
        places = read_places(lead, opened)
        if places.empty:
            continue
        if any(one.size not in (head.size, head.size - 1) for one in places.heads):
            raise Broken(_CODE, head.size, f"segment {number} carries a head that is not the log's")
        check_remains(places, head, handed_over=True)
        carried.add(number)
    if found.pending is not None or (found.checkpoint is not None and opened(found.checkpoint).size != head.size):
        raise Broken(_CODE, head.size, "a checkpoint file that is not the log's lies beside its segments")
    return carried | ({0} if found.checkpoint is not None else set())


def _started(found: Snapshot, last: int, opened: Open) -> Standing:
    """The last segment carries no head: the one before does, and the making of the last was cut off."""
    if found.sizes[last] > LEAD:
        raise NoHead("the last segment carries none")
    before = Snapshot(
        {number: size for number, size in found.sizes.items() if number != last},
        {number: lead for number, lead in found.leads.items() if number != last},
        found.checkpoint,
        found.pending,
    )
    standing = resolve(before, opened)
    if standing is None or standing.started is not None:
        raise NoHead("no segment carries one")
    return Standing(standing.heads, standing.number, standing.sizes, standing.carriers, last, untidy=True)


def check_started(found: Snapshot, standing: Standing, head: Head, frontier: Frontier, latest: int) -> None:
    """Return when the segment whose making was cut off is what a crash leaves of one that takes over `head`."""
    number = standing.started
    if number is None:
        return
    lead = encode_lead(encode_header(number, frontier, latest), head)
    if not torn_lead(found.leads[number], lead) or number != max(standing.sizes, default=0) + 1:
        raise Broken(_CODE, head.size, f"segment {number} is none, and no crash left it so")


def _check_first(found: Snapshot, last: int, opened: Open) -> None:
    """Return when the only segment is what a crash leaves of a log that was being made; there is no log then."""
    lead = found.leads[last]
    note, empty = lead[PAGE : 2 * PAGE], not lead[2 * PAGE :].strip(b"\x00")
    made = last == 1 and found.sizes[last] <= LEAD and empty and torn_lead(lead[:PAGE], _FIRST.ljust(LEAD, b"\x00"))
    if made and torn_note(note, note.partition(b"\n")[0].decode("ascii", "replace"), 0):
        return
    why = "they carry none"
    try:
        if opened(note.rstrip(b"\x00")).size == 0 and made:
            return
    except DevguardError as error:
        why = error.message
    raise NoHead(why)

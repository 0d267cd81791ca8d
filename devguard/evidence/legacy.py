"""Logs of format 1, which are read and continued but no longer written. Pure.

Their head is the file `checkpoint`, and an append wrote, each step durable before the next: `checkpoint.next` with the
next head, the record's frame, then `checkpoint.next` became `checkpoint`. The first append by a devguard of format 2
begins a segment of the present format with that head, removes both files, and records that it did.
"""

from __future__ import annotations

from typing import Final

from devguard.errors import Malformed, Refused
from devguard.evidence.checkpoint import Checkpoint
from devguard.evidence.frame import MAX_FRAME
from devguard.evidence.heads import Open, note_size, torn_note

MAX_LEFTOVER: Final = 2 * MAX_FRAME  # one append: a header frame and an entry frame


def announced(pending: bytes | None, leftover: int, head: Checkpoint, opened: Open) -> str | None:
    """What is wrong with what lies behind the head, None when nothing is, or nothing but an append that was cut off.

    The next head was signed and durable before the first byte of its record. So bytes behind the last signed record
    without one, or more of them than one record has, are no crash.
    """
    damage = f"{leftover} bytes where no record is, and no interrupted append left them"
    if pending is None:
        return damage if leftover else None
    try:
        following = opened(pending)
    except (Malformed, Refused):
        # A file of its own, not a page: no crash makes it longer than the note that was to stand in it.
        longest = note_size(head.origin, head.size + 1)
        torn = len(pending) <= longest and torn_note(pending, head.origin, head.size + 1)
        return damage if leftover or not torn else None
    return damage if following.size != head.size + 1 or leftover > MAX_LEFTOVER else None

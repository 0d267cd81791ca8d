"""What a witness looks at before it cosigns, and what two heads of one log say of each other. Pure.

A log has one history, so of two of its heads the smaller is a prefix of the larger. Two heads of the same size and
different roots, both signed, are the proof that somebody was shown another log: no proof can link them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Refused
from devguard.evidence.checkpoint import Checkpoint
from devguard.evidence.cosign import Cosignature, cosignatures

_CODE: Final = "log.tampered"


class Link(enum.Enum):
    """How two heads of one log stand to each other."""

    SAME = enum.auto()
    UNPROVEN = enum.auto()  # of different sizes: only the log, or a proof of consistency, tells


def compare(one: Checkpoint, other: Checkpoint) -> Link:
    """How two heads stand to each other; `Refused("log.tampered")` for a split view.

    `Refused("log.unproven")` for heads of different logs, which say nothing of each other.
    """
    if one.origin != other.origin:
        raise Refused("log.unproven", f"these are heads of two logs, {one.origin!r} and {other.origin!r}")
    if one.size != other.size:
        return Link.UNPROVEN
    if one.root != other.root:
        raise split(one, other)
    return Link.SAME


def split(one: Checkpoint, other: Checkpoint) -> Refused:
    """The refusal of two heads that no log has both of, naming them."""
    heads = " and ".join(f"{head.size} records with root {head.root.hex()}" for head in (one, other))
    return Refused(_CODE, f"two histories of the log {one.origin} were signed: {heads}")


def check_seen(seen: Checkpoint | None, now: Checkpoint) -> bool:
    """Whether a witness that has `seen` a head needs proof that `now` continues it.

    Raises `Refused("log.truncated")` when the log became shorter, and as `compare`.
    """
    if seen is None:
        return False
    if now.size < seen.size:
        raise Refused("log.truncated", f"record {now.size}: this witness has seen {seen.size} records of that log")
    return compare(seen, now) is Link.UNPROVEN and seen.size > 0


@dataclass(frozen=True, slots=True)
class Demand:
    """Which witnesses have to have cosigned: each of `keys`, or `threshold` persons of those who hold them."""

    keys: Sequence[CoseKey]
    persons: Mapping[bytes, str]
    threshold: int

    def met_by(self, note: bytes) -> tuple[Cosignature, ...]:
        """The cosignatures on a checkpoint, when they are enough; `Refused("log.unwitnessed")` names who is missing.

        One person counts once, however many keys they hold. Raises `Refused("log.tampered")` for one that is false.
        """
        found = cosignatures(note, self.keys)
        people = {self.persons[one.key.thumbprint] for one in found}
        if len(people) < self.threshold:
            missing = sorted({self.persons[key.thumbprint] for key in self.keys} - people)
            raise Refused(
                "log.unwitnessed",
                f"{len(people)} of {self.threshold} witnesses have cosigned, {', '.join(missing) or 'nobody else'} not",
            )
        return found

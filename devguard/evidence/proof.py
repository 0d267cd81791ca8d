"""Proofs as files, which verify with the station's public key alone, years later. Pure: text in, text out.

Inclusion of one record: a C2SP tlog-proof, its `extra` the whole leaf. Consistency of two checkpoints: a text of the
same kind, of our own since C2SP has none: the proof's hashes, then the older and the newer checkpoint. A file is read
strictly and proves nothing until `verify` returns.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Malformed, Refused
from devguard.evidence.checkpoint import MAX_NOTE, Checkpoint, open_checkpoint, parse_text, plain_number, unbase64
from devguard.evidence.checkpoint import read_note as read_signed_note
from devguard.evidence.record import MAX_ENTRY, Entry, decode_entry
from devguard.evidence.tree import HASH_SIZE, leaf_hash, verify_consistency, verify_inclusion

INCLUSION: Final = "c2sp.org/tlog-proof@v1"
CONSISTENCY: Final = "devguard/tlog-consistency@v1"
MAX_PROOF: Final = 2 * MAX_NOTE + 2 * MAX_ENTRY + 16 * 1024
_MAX_HASHES: Final = 64
_CODE: Final = "log.tampered"


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """A record's leaf, its index, the audit path and the signed checkpoint it leads to."""

    leaf: bytes
    index: int
    path: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """The proof as a file."""
        extra = base64.b64encode(self.leaf).decode("ascii")
        lines = [INCLUSION, f"extra {extra}", f"index {self.index}", *map(_base64, self.path)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.note

    @property
    def origin(self) -> str:
        """Whose log it says it is from; nothing is proved by it."""
        return parse_text(read_signed_note(self.note).text).origin

    def verify(self, key: CoseKey) -> tuple[Entry, Checkpoint]:
        """The record and the checkpoint that covers it, after signature, path and place held."""
        checkpoint = open_checkpoint(self.note, key)
        verify_inclusion(leaf_hash(self.leaf), self.index, checkpoint.size, self.path, checkpoint.root)
        entry = decode_entry(self.leaf)
        if entry.index != self.index:
            raise Refused(_CODE, f"the proof is of record {self.index}, and what it holds says record {entry.index}")
        return entry, checkpoint


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """The proof that the log of the newer checkpoint begins with that of the older; both are signed notes."""

    path: tuple[bytes, ...]
    older: bytes
    newer: bytes

    def encode(self) -> bytes:
        """The proof as a file."""
        lines = [CONSISTENCY, *map(_base64, self.path)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.older + b"\n" + self.newer

    @property
    def origin(self) -> str:
        """Whose log it says it is of; nothing is proved by it."""
        return parse_text(read_signed_note(self.newer).text).origin

    def verify(self, key: CoseKey) -> tuple[Checkpoint, Checkpoint]:
        """Both checkpoints, the older first, after both signatures and the proof held."""
        older, newer = open_checkpoint(self.older, key), open_checkpoint(self.newer, key)
        verify_consistency(older.size, newer.size, older.root, newer.root, self.path)
        return older, newer


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def is_proof(data: bytes) -> bool:
    """Whether a file with these first bytes means to be a proof."""
    first = data.partition(b"\n")[0]
    return first in (INCLUSION.encode(), CONSISTENCY.encode())


def read_proof(data: bytes) -> InclusionProof | ConsistencyProof:
    """The proof in a file; `Malformed("log.tampered")` for anything else."""
    if len(data) > MAX_PROOF:
        raise Malformed(_CODE, f"a proof of {len(data)} bytes; at most {MAX_PROOF} are read")
    head, _, rest = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Malformed(_CODE, "a proof is text") from None
    if lines[0] == INCLUSION:
        return _inclusion(lines[1:], rest)
    if lines[0] == CONSISTENCY:
        return _consistency(lines[1:], rest)
    raise Malformed(_CODE, "the file is no proof of an evidence log")


def _inclusion(lines: list[str], note: bytes) -> InclusionProof:
    """`extra` may be missing in a tlog-proof, never in ours: without it nobody knows what is proved."""
    if len(lines) < 2 or not lines[0].startswith("extra ") or not lines[1].startswith("index "):
        raise Malformed(_CODE, "a proof of inclusion lacks its record or its index")
    _checkpoint(note)
    leaf = unbase64(lines[0].removeprefix("extra "))
    return InclusionProof(leaf, plain_number(lines[1].removeprefix("index ")), _hashes(lines[2:]), note)


def _consistency(lines: list[str], rest: bytes) -> ConsistencyProof:
    parts = rest.split(b"\n\n")
    if len(parts) != 4:
        raise Malformed(_CODE, "a proof of consistency is not hashes and two checkpoints")
    older, newer = parts[0] + b"\n\n" + parts[1] + b"\n", parts[2] + b"\n\n" + parts[3]
    _checkpoint(older)
    _checkpoint(newer)
    return ConsistencyProof(_hashes(lines), older, newer)


def _checkpoint(note: bytes) -> None:
    parse_text(read_signed_note(note).text)


def _hashes(lines: list[str]) -> tuple[bytes, ...]:
    hashes = tuple(map(unbase64, lines[: _MAX_HASHES + 1]))
    if len(hashes) > _MAX_HASHES or any(len(one) != HASH_SIZE for one in hashes):
        raise Malformed(_CODE, f"a proof is at most {_MAX_HASHES} hashes of {HASH_SIZE} bytes")
    return hashes

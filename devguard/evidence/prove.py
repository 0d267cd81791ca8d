"""Making proofs from the log on disk: it is verified whole, then walked once more. Writes nothing.

Memory stays flat: a proof of any record of any log holds some thirty hashes and one frontier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.errors import Refused
from devguard.evidence.checkpoint import Checkpoint, open_checkpoint
from devguard.evidence.log import read_entries
from devguard.evidence.proof import ConsistencyProof, InclusionProof
from devguard.evidence.record import encode_entry
from devguard.evidence.tree import Frontier, RangeRoots, consistency_ranges, inclusion_ranges, leaf_hash
from devguard.evidence.verify import verify_log

_CODE: Final = "log.tampered"


@dataclass(frozen=True, slots=True)
class _Base:
    """What is proved against: a signed note and the checkpoint in it."""

    note: bytes
    checkpoint: Checkpoint


def prove_records(
    folder: Path, key: CoseKey, indexes: Sequence[int], *, note: bytes | None = None
) -> tuple[InclusionProof, ...]:
    """Proofs that the records with those indexes are in the log, to be checked elsewhere with the public key alone.

    note: a checkpoint of this log to prove against, with the cosignatures of its witnesses; by default the head.
    Raises as `verify_log`, and `Refused("log.truncated")` for an index beyond the checkpoint's end.
    """
    base = _verified(folder, key, note)
    size, leaves = base.checkpoint.size, dict.fromkeys(indexes, b"")
    for index in indexes:
        if not 0 <= index < size:
            raise Refused("log.truncated", f"record {index} was asked for, the log has {size}")
    gathered = {index: RangeRoots(inclusion_ranges(index, size)) for index in leaves}
    for entry in read_entries(folder, size):
        leaf = encode_entry(entry)
        if entry.index in leaves:
            leaves[entry.index] = leaf
        for one in gathered.values():
            one.append(leaf_hash(leaf))
    proofs = tuple(InclusionProof(leaves[index], index, gathered[index].roots(), base.note) for index in indexes)
    for proof in proofs:
        proof.verify(key)
    return proofs


def prove_since(folder: Path, key: CoseKey, older: bytes, *, note: bytes | None = None) -> ConsistencyProof:
    """The proof that the log continues the older checkpoint (a signed note). `note` and errors as `prove_records`."""
    before = open_checkpoint(older, key)
    base = _verified(folder, key, note, before)
    if before.size > base.checkpoint.size:
        raise Refused(
            "log.truncated", f"record {base.checkpoint.size}: an earlier checkpoint had {before.size} records"
        )
    gathered = RangeRoots(consistency_ranges(before.size, base.checkpoint.size))
    for entry in read_entries(folder, base.checkpoint.size):
        gathered.append(leaf_hash(encode_entry(entry)))
    proof = ConsistencyProof(gathered.roots(), older, base.note)
    proof.verify(key)
    return proof


def root_at(folder: Path, size: int) -> bytes:
    """The root over the first `size` records of a log that was verified."""
    frontier = Frontier()
    for entry in read_entries(folder, size):
        frontier.append(leaf_hash(encode_entry(entry)))
    return frontier.root()


def of_request(folder: Path, request: str) -> tuple[int, ...]:
    """Indexes of the records that carry that request id; form is checked, signatures are not."""
    return tuple(entry.index for entry in read_entries(folder) if entry.record.request == request)


def _verified(folder: Path, key: CoseKey, note: bytes | None, *earlier: Checkpoint) -> _Base:
    if note is None:
        report = verify_log(folder, key, earlier=earlier)
        return _Base(report.note, report.checkpoint)
    checkpoint = open_checkpoint(note, key)
    verify_log(folder, key, earlier=(*earlier, checkpoint))
    return _Base(note, checkpoint)

"""Merkle tree of RFC 6962 section 2.1 over SHA-256: roots, compact frontier, inclusion and consistency proofs.

Pure: hashes in, hashes out. A leaf is hashed with prefix 0x00, an inner node with 0x01, so that neither can be
taken for the other. `Frontier` keeps one hash per set bit of the size, which makes an append O(log n).
Proofs are checked by the algorithms of RFC 9162 sections 2.1.3.2 and 2.1.4.2 (same tree, clearer text).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from devguard.errors import LocalProtocolError, Malformed, Refused

HASH_SIZE: Final = 32
MAX_SIZE: Final = 1 << 62
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf: SHA-256(0x00 || data), 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its perfect subtrees, largest first, and the size."""

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """`Malformed("log.tampered")` unless there is one 32-byte hash per set bit of `size`."""
        if not 0 <= size < MAX_SIZE or len(hashes) != size.bit_count() or any(len(h) != HASH_SIZE for h in hashes):
            raise Malformed("log.tampered", f"{len(hashes)} subtree hashes do not make a tree of {size} leaves")
        self._size = size
        self._hashes = list(hashes)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, largest first."""
        return tuple(self._hashes)

    def copy(self) -> Frontier:
        """An independent frontier with the same leaves."""
        return Frontier(self._size, self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add one leaf by its leaf hash."""
        full = self._size
        while full & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            full >>= 1
        self._hashes.append(leaf)
        self._size += 1

    def root(self) -> bytes:
        """Root of the whole tree; SHA-256 of nothing when it is empty."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (size > 1)."""
    return 1 << ((size - 1).bit_length() - 1)


Range = tuple[int, int]
"""Leaves `low` to `high` (exclusive) of a tree, of which a proof holds the root."""


def inclusion_ranges(index: int, size: int) -> tuple[Range, ...]:
    """What the audit path of leaf `index` of `size` is made of (RFC 6962 section 2.1.1), from leaf to root."""
    if not 0 <= index < size:
        raise LocalProtocolError("log.tampered", f"no leaf {index} in a tree of {size}")
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low = middle
    return tuple(reversed(path))


def consistency_ranges(old: int, new: int) -> tuple[Range, ...]:
    """What the proof that the first `old` of `new` leaves are a prefix is made of (RFC 6962 section 2.1.2)."""
    if not 0 <= old <= new:
        raise LocalProtocolError("log.tampered", f"a tree of {new} leaves has no prefix of {old}")
    if old in (0, new):
        return ()
    low, high, whole, path = 0, new, True, []
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low, whole = middle, False
    if not whole:
        path.append((low, high))
    return tuple(reversed(path))


class RangeRoots:
    """The roots over ranges that do not overlap, gathered in one pass over the leaf hashes of a tree.

    It holds one frontier, however large the tree is.
    """

    __slots__ = ("_at", "_found", "_frontier", "_ranges", "_waiting")

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = tuple(ranges)
        self._waiting = sorted(ranges, reverse=True)
        self._found: dict[Range, bytes] = {}
        self._frontier = Frontier()
        self._at = 0

    def append(self, leaf: bytes) -> None:
        """Take the next leaf hash."""
        if self._waiting and self._at >= self._waiting[-1][0]:
            self._frontier.append(leaf)
            if self._at + 1 == self._waiting[-1][1]:
                self._found[self._waiting.pop()] = self._frontier.root()
                self._frontier = Frontier()
        self._at += 1

    def roots(self) -> tuple[bytes, ...]:
        """One root for each range, in the order they were given; `LocalProtocolError` where the leaves ended early."""
        if self._waiting:
            raise LocalProtocolError("log.tampered", f"a proof over leaf {self._waiting[-1][1] - 1} of a smaller tree")
        return tuple(self._found[one] for one in self._ranges)


def _gathered(leaves: Sequence[bytes], ranges: Sequence[Range]) -> tuple[bytes, ...]:
    gathered = RangeRoots(ranges)
    for leaf in leaves:
        gathered.append(leaf)
    return gathered.roots()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Audit path of leaf `index` in the tree over `leaves`, from leaf to root."""
    return _gathered(leaves, inclusion_ranges(index, len(leaves)))


def consistency_proof(leaves: Sequence[bytes], old: int) -> tuple[bytes, ...]:
    """Proof that the first `old` leaves are a prefix of the tree over `leaves`."""
    return _gathered(leaves, consistency_ranges(old, len(leaves)))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` (a leaf hash) is number `index` of the tree of `size` leaves with `root`.

    Raises `Refused("log.tampered")` for anything else, a proof of wrong length included.
    """
    if not 0 <= index < size < MAX_SIZE or len(proof) > size.bit_length():
        raise Refused("log.tampered", f"no inclusion proof fits leaf {index} of {size}")
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Refused("log.tampered", "the inclusion proof is too long")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    if last or found != root:
        raise Refused("log.tampered", f"leaf {index} is not in the tree of {size} leaves that was signed")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree (`new`, `new_root`) only appended to the tree (`old`, `old_root`).

    Raises `Refused("log.truncated")` when the new tree is the smaller one, else `Refused("log.tampered")`.
    """
    if new < old:
        raise Refused("log.truncated", f"a log of {old} records cannot have become one of {new}")
    if not 0 <= old <= new < MAX_SIZE or len(proof) > 2 * new.bit_length():
        raise Refused("log.tampered", f"no consistency proof fits sizes {old} and {new}")
    if old in (0, new):
        expected = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != expected:
            raise Refused("log.tampered", f"two different logs of {old} records were signed")
        return
    if _walk_consistency(old, new, old_root, proof) != (old_root, new_root):
        raise Refused("log.tampered", f"the log of {new} records does not continue the one of {old}")


def _walk_consistency(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return None
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return (first, second) if last == 0 else None

"""RFC 6962 tree: roots against the recursive definition, published values, proofs that hold only when they should."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import DevguardError, LocalProtocolError, Malformed, Refused
from devguard.evidence import tree

# The seven inputs of Certificate Transparency's reference tests; roots computed by `naive` below, and the first and
# last are published in RFC 6962 implementations' documentation.
LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
ROOT_OF_ONE = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
ROOT_OF_SEVEN = "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"


def naive(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive(leaves[:k]) + naive(leaves[k:])).digest()


def hashes(leaves: list[bytes]) -> list[bytes]:
    return [tree.leaf_hash(leaf) for leaf in leaves]


def numbered(size: int) -> list[bytes]:
    return [b"leaf %d" % index for index in range(size)]


def test_known_roots() -> None:
    assert tree.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert tree.root_of(hashes(LEAVES[:1])).hex() == ROOT_OF_ONE
    assert tree.root_of(hashes(LEAVES[:7])).hex() == ROOT_OF_SEVEN


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_root_is_that_of_the_recursive_definition(leaves: list[bytes]) -> None:
    frontier = tree.Frontier()
    for index, leaf in enumerate(leaves):
        frontier.append(tree.leaf_hash(leaf))
        assert frontier.size == index + 1
        assert len(frontier.hashes) == frontier.size.bit_count()
    assert frontier.root() == naive(leaves) == tree.root_of(hashes(leaves))
    assert tree.Frontier(frontier.size, frontier.hashes).root() == frontier.root()


@pytest.mark.parametrize("size", range(1, 34))
def test_every_inclusion_proof_holds_for_its_leaf_alone(size: int) -> None:
    leaves = hashes(numbered(size))
    root = tree.root_of(leaves)
    for index in range(size):
        proof = tree.inclusion_proof(leaves, index)
        tree.verify_inclusion(leaves[index], index, size, proof, root)
        wrong = [
            (leaves[index], (index + 1) % size if size > 1 else 1, size, proof, root),
            (leaves[index - 1] if size > 1 else b"\0" * 32, index, size, proof, root),
            (leaves[index], index, size, (*proof, root), root),
            (leaves[index], index, size, proof, tree.EMPTY_ROOT),
        ]
        if proof:
            wrong.append((leaves[index], index, size, proof[:-1], root))
        for arguments in wrong:
            with pytest.raises(Refused, match=r"log\.tampered"):
                tree.verify_inclusion(*arguments)


@pytest.mark.parametrize("new", range(34))
def test_every_consistency_proof_holds_for_its_sizes_alone(new: int) -> None:
    leaves = hashes(numbered(new))
    root = tree.root_of(leaves)
    for old in range(new + 1):
        old_root = tree.root_of(leaves[:old])
        proof = tree.consistency_proof(leaves, old)
        tree.verify_consistency(old, new, old_root, root, proof)
        forged = tree.leaf_hash(b"forged")
        for arguments in ((old, new, forged, root, proof), (old, new, old_root, root, (*proof, forged))):
            with pytest.raises(Refused, match=r"log\.tampered"):
                tree.verify_consistency(*arguments)
        if 0 < old < new:
            for arguments in ((old, new, old_root, forged, proof), (old, new, old_root, root, proof[:-1])):
                with pytest.raises(Refused, match=r"log\.tampered"):
                    tree.verify_consistency(*arguments)
        if old < new:
            with pytest.raises(Refused, match=r"log\.truncated"):
                tree.verify_consistency(new, old, root, old_root, proof)


@given(st.integers(-2, 80), st.integers(-2, 80), st.lists(st.binary(min_size=32, max_size=32), max_size=10))
def test_made_up_proofs_raise_our_own_error(index: int, size: int, proof: list[bytes]) -> None:
    root = tree.leaf_hash(b"root")
    with pytest.raises(DevguardError):
        tree.verify_inclusion(tree.leaf_hash(b"x"), index, size, proof, root)
    if index != size:
        with pytest.raises(DevguardError):
            tree.verify_consistency(index, size, root, tree.leaf_hash(b"new"), proof)


def test_impossible_frontiers_and_requests_refuse() -> None:
    for size, parts in ((1, []), (3, [b"x" * 32]), (1, [b"x" * 31]), (-1, []), (1 << 62, [b"x" * 32])):
        with pytest.raises(Malformed, match=r"log\.tampered"):
            tree.Frontier(size, parts)
    with pytest.raises(LocalProtocolError):
        tree.inclusion_proof([], 0)
    with pytest.raises(LocalProtocolError):
        tree.consistency_proof([], 1)

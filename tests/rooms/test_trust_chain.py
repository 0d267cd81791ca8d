"""Chains of trust documents: both roots vouch for each step; gaps, forks, lower versions and thieves refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from builders import DAY, NOW, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, Malformed
from devguard.trust.chain import Walk, check_successor, follow
from devguard.trust.document import build_trust, read_trust, trust_payload
from devguard.trust.model import KeyEntry, Role, TrustDocument
from devguard.trust.rotate import Change, add_signature, progress, sign_successor, successor, unreachable

A, B, C = (make_signer(Algorithm.ESP256, f"root/{name}") for name in "abc")
PQ = make_signer(Algorithm.ML_DSA_44, "root/pq")
YEAR = 365 * DAY


def root(*signers: MemorySigner, threshold: int = 1, **fields: Any) -> Role:
    names = {A.key.thumbprint: "Ada", B.key.thumbprint: "Bob", C.key.thumbprint: "Cyd", PQ.key.thumbprint: "Pat"}
    return Role(threshold, tuple(KeyEntry(one.key, names[one.key.thumbprint], **fields) for one in signers))


def first(role: Role, signers: Sequence[MemorySigner], **fields: Any) -> tuple[TrustDocument, bytes]:
    given = {"version": 1, "issued": NOW, "expires": NOW + YEAR, **fields}
    data = build_trust(trust_payload(roles={RoleName.ROOT: role}, **given), signers)
    return read_trust(data), data


def following(
    held: TrustDocument, signers: Sequence[MemorySigner], role: Role | None = None, **fields: Any
) -> tuple[TrustDocument, bytes]:
    times = {name: fields.pop(name) for name in ("issued", "expires", "clock_is_right") if name in fields}
    change = Change(roles={} if role is None else {RoleName.ROOT: role}, **fields)
    doc = successor(held, change, **{"issued": held.issued + DAY, **times})
    return doc, sign_successor(held, doc, signers)


def code_of(call: Any, *args: Any, **fields: Any) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **fields)
    return caught.value.code


def test_a_long_chain_is_walked_one_by_one() -> None:
    held, data = first(root(A, B, threshold=2), [A, B])
    chain, doc = [data], held
    for _ in range(12):
        doc, data = following(doc, [A, B])
        chain.append(data)
    assert follow(held, chain[1:], NOW + 20 * DAY).newest.version == 13
    assert follow(held, chain, NOW + 20 * DAY).newest == doc
    assert follow(read_trust(chain[6]), chain, NOW + 20 * DAY).newest == doc
    assert follow(doc, chain, NOW + 20 * DAY).data is None
    assert code_of(follow, held, [*chain[1:4], *chain[5:]], NOW) == "trust.gap"
    assert code_of(follow, held, chain[2:], NOW) == "trust.gap"
    assert code_of(follow, doc, chain[:5], NOW) == "trust.rollback"
    assert code_of(follow, held, [chain[1], chain[1]], NOW) == "trust.rollback"
    assert code_of(follow, held, [], NOW) == "trust.rollback"


def test_both_roots_vouch_for_a_new_root() -> None:
    held, _ = first(root(A, B, threshold=2), [A, B])
    new = root(B, C, threshold=2)
    assert check_successor(held, following(held, [A, B, C], new)[1]).version == 2
    for short in ([A, B], [B, C], [A, C], [A], [C]):
        assert code_of(check_successor, held, following(held, short, new)[1]) == "trust.signature", short


def test_a_root_that_only_signs_itself_is_nobody() -> None:
    held, _ = first(root(A), [A])
    assert code_of(check_successor, held, first(root(B), [B], version=2)[1]) == "trust.signature"
    assert code_of(check_successor, held, first(root(B), [B], version=1)[1]) == "trust.rollback"
    assert code_of(check_successor, held, first(root(A), [A], version=1, grant_epoch=1)[1]) == "trust.rollback"


def test_an_algorithm_is_retired_in_two_steps() -> None:
    held, _ = first(root(A), [A])
    both, step = following(held, [A, PQ], root(A, PQ, threshold=2))
    last, end = following(both, [A, PQ], root(PQ))
    assert follow(held, [step, end], NOW + 3 * DAY).newest == last
    assert code_of(check_successor, last, following(last, [PQ], root(A))[1]) == "trust.signature"


@pytest.mark.parametrize(
    ("now", "code"), [(0, "trust.not-yet"), (2_085_978_496, "trust.expired"), (4_294_967_296, "trust.expired")]
)
def test_clocks_of_1970_2036_and_2106(now: int, code: str) -> None:
    held, _ = first(root(A), [A])
    assert code_of(follow, held, [following(held, [A])[1]], now) == code


def test_documents_may_live_beyond_2106() -> None:
    held, _ = first(root(A), [A], issued=4_294_967_296 - DAY, expires=2**33)
    assert follow(held, [following(held, [A], expires=2**33)[1]], 2**32 + DAY).newest.version == 2


def test_only_the_last_document_may_not_be_expired() -> None:
    held, _ = first(root(A), [A])
    short, step = following(held, [A], expires=NOW + 2 * DAY)
    end = following(short, [A], expires=NOW + 9 * YEAR)[1]
    assert follow(held, [step, end], NOW + 3 * YEAR).newest.version == 3
    assert code_of(follow, held, [step], NOW + 3 * YEAR) == "trust.expired"


def test_no_document_is_from_the_future_where_there_is_no_clock() -> None:
    held, _ = first(root(A), [A])
    data = following(held, [A], issued=NOW + YEAR)[1]
    assert code_of(follow, held, [data], NOW) == "trust.not-yet"
    assert follow(held, [data], NOW, clock=False).newest.version == 2


# The deadlocks by name: each would lock out whoever holds version 1.


def test_deadlock_all_keys_of_the_old_root_have_expired() -> None:
    held, _ = first(root(A, not_after=NOW + YEAR), [A])
    doc, data = following(held, [A, B], root(B), issued=NOW + 5 * YEAR, expires=NOW + 6 * YEAR, clock_is_right=True)
    assert follow(held, [data], NOW + 5 * YEAR).newest == doc


def test_deadlock_a_root_without_a_key_to_spare_revokes_one() -> None:
    held, _ = first(root(A, B, threshold=2), [A, B])
    stolen = frozenset({A.key.thumbprint})
    doc, data = following(held, [A, B, C], root(B, C, threshold=2), revoke=stolen)
    assert check_successor(held, data) == doc
    # From then on the stolen key is worth nothing, for this step and for every later one.
    assert code_of(check_successor, doc, following(doc, [A, B], root(A, B, threshold=1))[1]) == "trust.signature"


def test_deadlock_a_root_that_could_never_sign_again_is_not_made() -> None:
    held, _ = first(root(A, B, threshold=2), [A, B])
    revoked = frozenset({A.key.thumbprint})
    assert code_of(following, held, [A, B], revoke=revoked) == "trust.signature"
    assert code_of(following, held, [A], root(A, not_after=NOW + 9 * DAY)) == "trust.signature"


def test_deadlock_a_revoked_predecessor_key_does_not_count() -> None:
    held, _ = first(root(A, B, C, threshold=2), [B, C], revoked=[A.key.thumbprint])
    assert code_of(check_successor, held, following(held, [A, B])[1]) == "trust.signature"
    assert check_successor(held, following(held, [B, C])[1]).version == 2


def test_a_production_chain_never_turns_into_one_for_benches() -> None:
    held, _ = first(root(A), [A])
    assert code_of(check_successor, held, first(root(A), [A], version=2, development=True)[1]) == "key.development"


def test_what_a_change_may_not_take_back() -> None:
    held, _ = first(root(A), [A], grant_epoch=5, floors={"pump": 7}, revoked=[bytes(32)], kept_releases=[bytes(32)])
    assert code_of(following, held, [A], grant_epoch=4) == "trust.rollback"
    assert code_of(following, held, [A], floors={"pump": 6}) == "trust.rollback"
    assert code_of(following, held, [A], issued=NOW - 9 * DAY) == "trust.not-yet"
    doc, _ = following(held, [A], floors={"other": 1}, grant_epoch=9)
    assert (doc.floors, doc.grant_epoch, doc.revoked) == ({"pump": 7, "other": 1}, 9, {bytes(32)})


def test_unreachable_roles_are_named() -> None:
    roles = {RoleName.ROOT: root(A), RoleName.RELEASE: root(B)}
    doc = trust_payload(version=1, issued=NOW, expires=NOW + YEAR, roles=roles, revoked=[B.key.thumbprint])
    assert [name for name, _ in unreachable(doc)] == [RoleName.RELEASE]


def test_signatures_come_one_by_one() -> None:
    held, _ = first(root(A, B, threshold=2), [A, B])
    doc, data = following(held, [A], root(B, C, threshold=2))
    for signer, done in ((B, False), (C, True)):
        assert not progress(held, data)
        data = add_signature(held, data, signer)
        assert bool(progress(held, data)) is done
    assert check_successor(held, data) == doc
    assert code_of(add_signature, held, data, C) == "release.duplicate"
    assert code_of(add_signature, held, data, PQ) == "key.purpose"


def test_a_step_that_refuses_leaves_the_walk() -> None:
    held, _ = first(root(A), [A])
    good = following(held, [A])[1]
    walk = Walk.start(held)
    for end in range(0, len(good), 97):
        with pytest.raises(Malformed):
            walk.step(good[:end])
    for at in range(0, len(good), 61):
        bad = bytearray(good)
        bad[at] ^= 1
        with pytest.raises(DevguardError):
            follow(held, [bytes(bad)], NOW + DAY)
    assert walk.step(good).newest.version == 2

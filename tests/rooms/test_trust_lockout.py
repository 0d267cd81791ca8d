"""Deadlocks by name, beside those of `test_trust_chain`: what could lock a device out of its vendor's chain for good.

Each test is one way to do it, and either the way back or the refusal that keeps it from being made.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import DAY, NOW, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_TRUST, sign_many
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError
from devguard.trust import codec
from devguard.trust.chain import follow
from devguard.trust.document import build_trust, read_trust, trust_payload
from devguard.trust.model import KeyEntry, Role, TrustDocument
from devguard.trust.rotate import Change, sign_successor, spare_root_persons, successor

A, B, C = (make_signer(Algorithm.ESP256, f"lockout/{name}") for name in "abc")
PEOPLE = {A.key.thumbprint: "Ada", B.key.thumbprint: "Bob", C.key.thumbprint: "Cyd"}
YEAR = 365 * DAY


def root(*signers: MemorySigner, threshold: int) -> Role:
    return Role(threshold, tuple(KeyEntry(one.key, PEOPLE[one.key.thumbprint]) for one in signers))


def first(*signers: MemorySigner, threshold: int, **fields: int) -> TrustDocument:
    given = {"issued": NOW, "expires": NOW + YEAR, **fields}
    payload = trust_payload(version=1, roles={RoleName.ROOT: root(*signers, threshold=threshold)}, **given)
    return read_trust(build_trust(payload, signers))


def by_hand(doc: TrustDocument, *signers: MemorySigner) -> bytes:
    """A document signed past every check that devguard makes before it signs one."""
    return sign_many(signers, codec.encode_payload(doc), typ=TYP_TRUST).encode()


def code_of(held: TrustDocument, *chain: bytes, now: int, clock: bool = True) -> str:
    with pytest.raises(DevguardError) as caught:
        follow(held, chain, now, clock=clock)
    return caught.value.code


def test_a_root_that_revoked_itself_is_taken_by_nobody_and_its_version_can_be_made_again() -> None:
    held = first(A, B, threshold=2)
    everybody = frozenset({A.key.thumbprint, B.key.thumbprint})
    dead = by_hand(replace(held, version=2, issued=NOW + DAY, revoked=everybody), A, B)
    assert code_of(held, dead, now=NOW + DAY) == "trust.signature"
    good = successor(held, Change(), issued=NOW + DAY)
    assert follow(held, [sign_successor(held, good, [A, B])], NOW + DAY).newest.version == 2


def test_a_lost_key_costs_nothing_while_one_is_spare_and_everything_when_none_is() -> None:
    held = first(A, B, C, threshold=2)
    assert spare_root_persons(held) == 1
    without = successor(held, Change(roles={RoleName.ROOT: root(A, B, threshold=2)}), issued=NOW + DAY)
    data = sign_successor(held, without, [A, B])  # Cyd's key is at the bottom of a lake
    assert follow(held, [data], NOW + DAY).newest == without
    assert spare_root_persons(without) == 0
    # Bob loses his too: nobody may make this right, or every thief could. Only the factory helps.
    alone = successor(without, Change(roles={RoleName.ROOT: root(A, threshold=1)}), issued=NOW + 2 * DAY)
    assert code_of(without, sign_successor(without, alone, [A]), now=NOW + 2 * DAY) == "trust.signature"


@pytest.mark.parametrize("clock", [True, False])
def test_a_clock_or_floor_beyond_the_expiry_of_the_newest_document_waits_for_the_next(clock: bool) -> None:
    held = first(A, threshold=1)
    late = NOW + 40 * YEAR
    short = successor(held, Change(), issued=NOW + DAY)
    chain = [sign_successor(held, short, [A])]
    assert code_of(held, *chain, now=late, clock=clock) == "trust.expired"
    # What refused has changed nothing: the same device takes the same chain with one document more.
    longer = successor(short, Change(), issued=NOW + 2 * DAY, expires=late + YEAR)
    chain.append(sign_successor(short, longer, [A]))
    assert follow(held, chain, late, clock=clock).newest == longer


def test_a_document_that_expires_before_anybody_took_it_is_walked_over() -> None:
    held = first(A, threshold=1)
    brief = successor(held, Change(), issued=NOW + DAY, expires=NOW + DAY + 1)
    change = Change(roles={RoleName.ROOT: root(B, threshold=1)})
    after = successor(brief, change, issued=NOW + 2 * DAY, expires=NOW + YEAR)
    chain = [sign_successor(held, brief, [A]), sign_successor(brief, after, [A, B])]
    assert follow(held, chain, NOW + 3 * DAY).newest == after


def test_a_document_from_the_future_is_overtaken_by_an_honest_one() -> None:
    """A vendor signed with a clock 80 years ahead. Whoever took that document takes the next one all the same."""
    held = first(A, threshold=1)
    ahead = replace(held, version=2, issued=NOW + 80 * YEAR, expires=NOW + 81 * YEAR)
    data = by_hand(ahead, A)
    assert code_of(held, data, now=NOW + DAY) == "trust.not-yet"
    taken = follow(held, [data], NOW + DAY, clock=False).newest  # no clock, so nothing is ahead of it
    honest = by_hand(replace(held, version=3, issued=NOW + 2 * DAY, expires=NOW + 90 * YEAR), A)
    for clock in (True, False):
        assert follow(taken, [honest], NOW + 3 * DAY, clock=clock).newest.version == 3
        assert follow(held, [data, honest], NOW + 3 * DAY, clock=clock).newest.version == 3


def test_versions_are_never_skipped_to_the_last_number() -> None:
    """Nobody, and no thief with every key, can use up the numbers: each version takes a document of its own."""
    held = first(A, threshold=1)
    last = by_hand(replace(held, version=codec.MAX_UINT, issued=NOW + DAY), A)
    assert code_of(held, last, now=NOW + DAY) == "trust.gap"
    with pytest.raises(DevguardError) as caught:
        codec.decode_payload(codec.encode_payload(replace(held, version=codec.MAX_UINT + 1)))
    assert caught.value.code == "trust.malformed"


def test_what_one_document_took_away_too_much_the_root_can_give_back() -> None:
    """Floors, epochs and revocations only grow where devguard makes the document. That is a rule for makers: a chain is
    judged by root rules alone, so a slip beyond all numbers can be undone by the root, and by nobody else."""
    held = first(A, threshold=1)
    slip = replace(held, version=2, issued=NOW + DAY, floors={"pump": 2**64 - 1}, revoked=frozenset({bytes(32)}))
    back = replace(held, version=3, issued=NOW + 2 * DAY, floors={"pump": 5})
    chain = [by_hand(slip, A), by_hand(back, A)]
    assert dict(follow(held, chain, NOW + 3 * DAY).newest.floors) == {"pump": 5}
    with pytest.raises(DevguardError):
        successor(read_trust(chain[0]), Change(floors={"pump": 5}), issued=NOW + 2 * DAY)

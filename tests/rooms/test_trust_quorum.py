"""Counting persons: once each, never for revoked or untimely keys, never one person on two chairs of a release."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import CAST, NOW, Seat, Vendor, changed, make_vendor
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.trust.model import same_person
from devguard.trust.quorum import Counted, Quorum, count, count_release, seat

TWO_PERSONS = {RoleName.ROOT: 2, RoleName.RELEASE: 2}
ROOTS = CAST[:2]


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return make_vendor("quorum", thresholds=TWO_PERSONS)


@pytest.fixture(scope="module")
def usual() -> Vendor:
    return make_vendor("release")


def signed(vendor: Vendor, *persons: str) -> list[tuple[bytes, int]]:
    """One verified signature for every key of every named person, in the order of the names."""
    return [
        (signer.key.thumbprint, int(signer.algorithm))
        for person in persons
        for seat_, signer in vendor.seats
        if seat_.person == person
    ]


def test_different_persons_make_the_quorum(vendor: Vendor) -> None:
    quorum = count(vendor.trust, RoleName.RELEASE, signed(vendor, "Remy Release", "Rita Release"), NOW)
    assert quorum
    assert quorum.persons == ("Remy Release", "Rita Release")
    assert quorum.missing == 0


def test_one_person_is_missing_one(vendor: Vendor) -> None:
    quorum = count(vendor.trust, RoleName.RELEASE, signed(vendor, "Remy Release"), NOW)
    assert not quorum
    assert quorum.missing == 1
    assert quorum.explanation == "release: 1 of 2 (Remy Release), 1 more needed"


def test_the_same_key_twice_counts_once(vendor: Vendor) -> None:
    once = signed(vendor, "Remy Release")
    assert count(vendor.trust, RoleName.RELEASE, once * 5, NOW).missing == 1


def test_the_same_person_with_two_keys_counts_once() -> None:
    cast = (
        *ROOTS,
        Seat(RoleName.RELEASE, "Remy Release"),
        Seat(RoleName.RELEASE, "remy  RELEASE", Algorithm.ML_DSA_44),
        Seat(RoleName.RELEASE, "Rita Release"),
    )
    vendor = make_vendor("two keys", cast=cast, thresholds=TWO_PERSONS)
    quorum = count(vendor.trust, RoleName.RELEASE, signed(vendor, "Remy Release", "remy  RELEASE"), NOW)
    assert len(quorum.signatures) == 2
    assert quorum.persons == ("Remy Release",)
    assert not quorum


@pytest.mark.parametrize("role", list(CAST), ids=lambda one: f"{one.role}-{one.person}")
def test_a_key_counts_for_its_own_role_only(vendor: Vendor, role: Seat) -> None:
    for name in RoleName:
        counted = count(vendor.trust, name, signed(vendor, role.person), NOW).persons
        assert counted == ((role.person,) if name is role.role else ())


def test_a_role_the_document_lacks_is_never_met(vendor: Vendor) -> None:
    quorum = count(vendor.trust, RoleName.TECHNICIAN, signed(vendor, "Remy Release"), NOW)
    assert not quorum
    assert quorum.missing == 1
    assert "no role technician" in quorum.explanation


def test_a_revoked_key_counts_for_nothing_unless_the_release_is_kept(vendor: Vendor) -> None:
    [(thumbprint, _)] = signed(vendor, "Remy Release")
    revoking = changed(vendor, revoked=[thumbprint])
    both = signed(vendor, "Remy Release", "Rita Release")
    quorum = count(revoking.trust, RoleName.RELEASE, both, NOW)
    assert quorum.persons == ("Rita Release",)
    assert quorum.ignored == ("Remy Release's key is revoked",)
    assert count(revoking.trust, RoleName.RELEASE, both, NOW, kept=True)


@pytest.mark.parametrize(("now", "counts"), [(NOW - 1, False), (NOW, True), (NOW + 9, True), (NOW + 10, False)])
def test_a_key_counts_inside_its_validity(now: int, counts: bool) -> None:
    cast = (*ROOTS, Seat(RoleName.RELEASE, "Remy Release", not_before=NOW, not_after=NOW + 9))
    vendor = make_vendor("window", cast=cast)
    assert bool(count(vendor.trust, RoleName.RELEASE, signed(vendor, "Remy Release"), now)) is counts


def test_an_algorithm_the_key_does_not_allow_does_not_count(vendor: Vendor) -> None:
    [(thumbprint, _)] = signed(vendor, "Remy Release")
    for algorithm in (0, -16, Algorithm.ESP384, Algorithm.ED25519, Algorithm.ML_DSA_65, 5):
        assert not count(vendor.trust, RoleName.RELEASE, [(thumbprint, algorithm)], NOW).persons
    assert count(vendor.trust, RoleName.RELEASE, [(thumbprint, Algorithm.ES256)], NOW).persons


class TestRelease:
    def test_classical_and_post_quantum_by_two_persons(self, usual: Vendor) -> None:
        quorum = count_release(usual.trust, signed(usual, "Remy Release", "Quinn Quality"), NOW)
        assert quorum
        assert quorum.assigned == ((RoleName.RELEASE, "Remy Release"), (RoleName.QUALITY, "Quinn Quality"))

    @pytest.mark.parametrize(
        ("persons", "hybrid", "seated"),
        [
            ((), False, False),
            (("Remy Release",), False, False),
            (("Remy Release", "Rita Release"), False, False),
            (("Quinn Quality", "Quentin Quality"), False, False),
            (("Rhea Root", "Ruth Root"), False, False),
            (("Remy Release", "Ruth Root"), False, False),
            (("Rita Release", "Quentin Quality"), True, True),
        ],
    )
    def test_what_is_missing(self, usual: Vendor, persons: tuple[str, ...], hybrid: bool, seated: bool) -> None:
        quorum = count_release(usual.trust, signed(usual, *persons), NOW)
        assert (quorum.hybrid, quorum.seated, bool(quorum)) == (hybrid, seated, hybrid and seated)

    def test_one_person_does_not_sit_on_both_chairs(self) -> None:
        cast = (
            *ROOTS,
            Seat(RoleName.RELEASE, "Remy Both"),
            Seat(RoleName.QUALITY, "Remy Both", Algorithm.ML_DSA_65),
            Seat(RoleName.QUALITY, "Quinn Quality", Algorithm.ML_DSA_65),
        )
        vendor = make_vendor("both", cast=cast)
        alone = count_release(vendor.trust, signed(vendor, "Remy Both"), NOW)
        assert alone.hybrid
        assert alone.release
        assert alone.quality
        assert not alone.seated
        assert "same person cannot count for both" in alone.explanation
        assert count_release(vendor.trust, signed(vendor, "Remy Both", "Quinn Quality"), NOW)

    def test_who_sits_for_both_goes_where_they_are_needed(self) -> None:
        # Seated greedily for release, Anna would leave quality with nobody.
        cast = (
            *ROOTS,
            Seat(RoleName.RELEASE, "Anna"),
            Seat(RoleName.RELEASE, "Bert", Algorithm.ED25519),
            Seat(RoleName.QUALITY, "Anna", Algorithm.ML_DSA_44),
        )
        vendor = make_vendor("needed", cast=cast)
        quorum = count_release(vendor.trust, signed(vendor, "Anna", "Bert"), NOW)
        assert quorum.assigned == ((RoleName.RELEASE, "Bert"), (RoleName.QUALITY, "Anna"))

    def test_a_document_without_quality_accepts_no_release(self) -> None:
        cast = (*ROOTS, Seat(RoleName.RELEASE, "Remy"), Seat(RoleName.RELEASE, "Rita", Algorithm.ML_DSA_65))
        vendor = make_vendor("no quality", cast=cast)
        assert not count_release(vendor.trust, signed(vendor, "Remy", "Rita"), NOW)


PEOPLE = "abcde"


@settings(max_examples=300)
@given(st.sets(st.sampled_from(PEOPLE)), st.sets(st.sampled_from(PEOPLE)), st.integers(1, 4), st.integers(1, 4))
def test_seating_is_exact(first: set[str], second: set[str], need_first: int, need_second: int) -> None:
    def quorum(role: RoleName, persons: set[str], threshold: int) -> Quorum:
        return Quorum(role, threshold, tuple(Counted(one, one.encode(), -9) for one in sorted(persons)), ())

    assigned = seat(quorum(RoleName.RELEASE, first, need_first), quorum(RoleName.QUALITY, second, need_second))
    possible = any(
        not set(one) & set(two)
        for one in combinations(sorted(first), need_first)
        for two in combinations(sorted(second), need_second)
    )
    assert bool(assigned) is possible
    if assigned:
        released = [person for role, person in assigned if role is RoleName.RELEASE]
        checked = [person for role, person in assigned if role is RoleName.QUALITY]
        assert len(set(released) | set(checked)) == need_first + need_second
        assert set(released) <= first
        assert set(checked) <= second


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("Remy Release", "remy  release", True),
        ("Remy", "Rémy", False),
        ("Straße", "STRASSE", True),
        ("\uff32emy", "Remy", True),
        ("Remy R", "Remy Q", False),
    ],
)
def test_when_two_names_are_one_person(one: str, two: str, same: bool) -> None:
    assert (same_person(one) == same_person(two)) is same

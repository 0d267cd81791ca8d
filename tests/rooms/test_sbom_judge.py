"""Invariant: a part that is known to be exploited refuses until a quality key says why it does not matter here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, Vendor, make_signer, make_vendor
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_GRANT, read_sign1, sign1
from devguard.errors import DevguardError, Refused
from devguard.sbom.bom import Part, read_bill
from devguard.sbom.judge import Inside, look_inside, signed_bill
from devguard.sbom.match import semver, touches
from devguard.sbom.snapshot import Affected, read_advisories, read_catalogue
from devguard.sbom.vex import Justification, Statement, Status, read_statements, sign_statements
from sbom_support import RELEASED_AT, affected, bill, catalogue, component, osv, record

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed (extra sbom)")

PURL = "pkg:generic/mbedtls"
TLS = component("mbedtls", "2.28.0", purl=f"{PURL}@2.28.0")
HOLE = record("GHSA-1", affected(PURL, {"introduced": "2.0.0"}, {"fixed": "2.28.1"}), aliases=("CVE-2024-0001",))
LISTED = catalogue(("CVE-2024-0001", "Somebody", "Else"))
NOT_AFFECTED = Statement(
    "CVE-2024-0001", "mbedtls-ref", Status.NOT_AFFECTED, Justification.VULNERABLE_CODE_NOT_PRESENT, "built without it"
)


def look(data: bytes, listed: bytes = LISTED, known: bytes = osv(HOLE), **more: Any) -> Inside:
    given = {"now": RELEASED_AT + 3600, "advisories": [read_advisories(known)], **more}
    return look_inside(read_bill(data), read_catalogue(listed), **given)


def ids(found: Inside) -> list[tuple[str, str, bool]]:
    return [(one.hole.id, one.hole.part.ref, one.refuses) for one in found.findings]


def test_known_exploited_refuses() -> None:
    found = look(bill(TLS))
    assert ids(found) == [("GHSA-1", "mbedtls-ref", True)]
    assert found.findings[0].hole.exploited == "CVE-2024-0001"
    with pytest.raises(Refused, match=r"CVE-2024-0001 touches mbedtls 2\.28\.0: no statement") as caught:
        found.require()
    assert caught.value.code == "release.vulnerable"


def test_known_and_not_exploited_is_listed() -> None:
    found = look(bill(TLS), catalogue(("CVE-1999-0001", "a", "b")))
    assert ids(found) == [("GHSA-1", "mbedtls-ref", False)]
    found.require()


@pytest.mark.parametrize("version", ["2.28.1", "1.9.9", "3.0.0"])
def test_a_version_outside_the_range(version: str) -> None:
    assert ids(look(bill(component("mbedtls", version, purl=f"{PURL}@{version}")))) == []


@pytest.mark.parametrize("version", ["2.28", "", "2.28.0-rc.1", "branch-7", "2.28.0.1"])
def test_a_version_that_may_be_meant(version: str) -> None:
    assert ids(look(bill(component("mbedtls", version, purl=PURL)))) == [("GHSA-1", "mbedtls-ref", True)]


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ({"name": "Mbed TLS", "supplier": {"name": "Arm"}}, True),
        ({"name": "mbedtls"}, True),  # nobody says whose
        ({"name": "Mbed TLS", "supplier": {"name": "Somebody Else"}}, False),
        ({"name": "x", "cpe": "cpe:2.3:a:arm:mbed_tls:2.28.0:*:*:*:*:*:*:*"}, True),
        ({"name": "x", "cpe": "cpe:/a:arm:mbed_tls:2.28.0"}, True),
        ({"name": "x", "cpe": "cpe:2.3:a:other:thing:1:*:*:*:*:*:*:*"}, False),
        ({"name": "arm mbed tls", "publisher": "P"}, True),
    ],
    ids=str,
)
def test_the_catalogue_by_name(named: dict[str, Any], found: bool) -> None:
    given = bill(component(version="2.28.0", **{**named, "bom-ref": "r"}))
    assert ids(look(given, catalogue(("CVE-2", "Arm", "Mbed TLS")))) == ([("CVE-2", "r", True)] if found else [])


def test_what_the_bill_itself_names() -> None:
    stated = bill(component("a", "1"), vulnerabilities=[{"id": "CVE-2024-0001", "affects": [{"ref": "a-ref"}]}])
    assert ids(look(stated)) == [("CVE-2024-0001", "a-ref", True)]


def test_two_records_of_one_hole_are_one_and_keep_what_either_knows() -> None:
    plain = record("X-1", affected(PURL, {"introduced": "0"}))
    other = record("X-2", affected(PURL, {"introduced": "0"}), aliases=("X-1", "CVE-2024-0001"))
    assert ids(look(bill(TLS), known=osv(plain, other))) == [("X-1", "mbedtls-ref", True)]
    assert ids(look(bill(TLS), known=osv(other, plain))) == [("X-2", "mbedtls-ref", True)]


@pytest.mark.parametrize(
    ("status", "why", "refuses"),
    [
        (Status.NOT_AFFECTED, Justification.COMPONENT_NOT_PRESENT, False),
        (Status.FIXED, None, False),
        (Status.AFFECTED, None, True),
        (Status.UNDER_INVESTIGATION, None, True),
    ],
)
@pytest.mark.parametrize("name", ["CVE-2024-0001", "GHSA-1"])
def test_statements(status: Status, why: Justification | None, refuses: bool, name: str) -> None:
    said = Statement(name, "mbedtls-ref", status, why, "", "Quinn", 5)
    assert ids(look(bill(TLS), statements=[said])) == [("GHSA-1", "mbedtls-ref", refuses)]


def test_a_statement_counts_for_its_part_and_its_hole_alone() -> None:
    for other in (("CVE-2024-0002", "mbedtls-ref"), ("CVE-2024-0001", "other-ref")):
        said = Statement(*other, Status.FIXED, None, "", "Quinn", 5)
        assert ids(look(bill(TLS), statements=[said])) == [("GHSA-1", "mbedtls-ref", True)]


def test_the_last_word_counts_and_of_two_at_once_the_worse() -> None:
    fixed = Statement("CVE-2024-0001", "mbedtls-ref", Status.FIXED, None, "", "Quinn", 5)
    worse = Statement("CVE-2024-0001", "mbedtls-ref", Status.AFFECTED, None, "", "Quinn", 5)
    later = Statement("GHSA-1", "mbedtls-ref", Status.FIXED, None, "", "Quinn", 6)
    assert look(bill(TLS), statements=[fixed, worse]).refusing
    assert look(bill(TLS), statements=[worse, fixed]).refusing
    assert not look(bill(TLS), statements=[later, worse]).refusing


@pytest.mark.parametrize(("days", "code"), [(-2, "sbom.stale"), (31, "sbom.stale"), (0, None), (30, None)])
def test_stale_knowledge_refuses(days: int, code: str | None) -> None:
    now = RELEASED_AT + days * 86_400
    if code is None:
        look(bill(), now=now)
        return
    with pytest.raises(Refused) as caught:
        look(bill(), now=now)
    assert caught.value.code == code


def test_support_that_ended_or_is_not_said() -> None:
    ended = component("old", "1", properties=[{"name": "devguard:end-of-support", "value": "2026-01-01"}])
    found = look(bill(ended, component("other", "1")))
    assert (found.unsupported, found.undated) == (("old-ref",), ("other-ref",))


def test_the_bill_has_to_be_the_signed_one() -> None:
    given = read_bill(bill(TLS))
    assert signed_bill(given, given.digest) is given
    for held, signed, code in (
        (given, bytes(32), "sbom.digest"),
        (None, bytes(32), "sbom.missing"),
        (given, None, "sbom.missing"),
    ):
        with pytest.raises(Refused) as caught:
            signed_bill(held, signed)
        assert caught.value.code == code


class TestSigned:
    @pytest.fixture(scope="class")
    def vendor(self) -> Vendor:
        return make_vendor("sbom")

    def quality(self, vendor: Vendor) -> Any:
        return next(signer for seat, signer in vendor.seats if seat.role is RoleName.QUALITY)

    def read(self, vendor: Vendor, data: bytes, bill_digest: bytes = bytes(32)) -> tuple[Statement, ...]:
        return read_statements(data, trust=vendor.trust, bill_digest=bill_digest, now=NOW)

    def code_of(self, vendor: Vendor, data: bytes, **more: Any) -> str:
        with pytest.raises(DevguardError) as caught:
            self.read(vendor, data, **more)
        return caught.value.code

    def test_there_and_back(self, vendor: Vendor) -> None:
        (said,) = self.read(vendor, sign_statements(self.quality(vendor), bytes(32), [NOT_AFFECTED], 7))
        assert (said.hole, said.part, said.status, said.issued) == (
            "CVE-2024-0001",
            "mbedtls-ref",
            Status.NOT_AFFECTED,
            7,
        )
        assert said.by == next(seat.person for seat, _ in vendor.seats if seat.role is RoleName.QUALITY)

    def test_about_another_bill(self, vendor: Vendor) -> None:
        data = sign_statements(self.quality(vendor), bytes(32), [NOT_AFFECTED], 7)
        assert self.code_of(vendor, data, bill_digest=b"\1" * 32) == "sbom.digest"

    def test_by_others(self, vendor: Vendor) -> None:
        stranger = sign_statements(make_signer(Algorithm.ESP256, "stranger"), bytes(32), [NOT_AFFECTED], 7)
        assert self.code_of(vendor, stranger) == "key.unknown"
        release = next(signer for seat, signer in vendor.seats if seat.role is RoleName.RELEASE)
        assert self.code_of(vendor, sign_statements(release, bytes(32), [NOT_AFFECTED], 7)) == "key.purpose"

    def test_a_signature_made_for_something_else(self, vendor: Vendor) -> None:
        good = read_sign1(sign_statements(self.quality(vendor), bytes(32), [NOT_AFFECTED], 7))
        other = sign1(self.quality(vendor), good.payload or b"", typ=TYP_GRANT).encode()
        assert self.code_of(vendor, other) == "key.purpose"

    def test_every_flipped_bit(self, vendor: Vendor) -> None:
        data = sign_statements(self.quality(vendor), bytes(32), [NOT_AFFECTED], 7)
        for at in range(0, len(data), 29):
            changed = bytearray(data)
            changed[at] ^= 1
            with pytest.raises(DevguardError):
                self.read(vendor, bytes(changed))

    def test_truncated(self, vendor: Vendor) -> None:
        data = sign_statements(self.quality(vendor), bytes(32), [NOT_AFFECTED], 7)
        for length in range(0, len(data), 31):
            assert self.code_of(vendor, data[:length]) == "sbom.statement"

    def test_not_affected_needs_a_reason_and_nothing_else_has_one(self) -> None:
        for status, why in ((Status.NOT_AFFECTED, None), (Status.FIXED, Justification.COMPONENT_NOT_PRESENT)):
            with pytest.raises(Refused, match="justification"):
                Statement("CVE-1", "a", status, why, "")


@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 3, st.sampled_from(["", "-a", "-1", "-a.1", "-1.a", "-b"])), min_size=2)
)
def test_semver_orders_as_its_page_says(versions: list[tuple[int, int, int, str]]) -> None:
    def expected(one: tuple[int, int, int, str]) -> tuple[Any, ...]:
        return (*one[:3], ["-1", "-1.a", "-a", "-a.1", "-b", ""].index(one[3]))

    by_key = sorted(versions, key=lambda one: semver(f"{one[0]}.{one[1]}.{one[2]}{one[3]}") or ())
    assert [expected(one) for one in by_key] == sorted(map(expected, versions))


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ([("introduced", "0"), ("fixed", "1.2.0")], ["0.0.1", "1.1.9", "1.2.0-rc.1"], ["1.2.0", "2.0.0"]),
        ([("introduced", "1.0.0"), ("last_affected", "1.2.0")], ["1.0.0", "1.2.0"], ["0.9.9", "1.2.1"]),
        ([("fixed", "1.1.0"), ("introduced", "2.0.0"), ("introduced", "1.0.0"), ("fixed", "2.1.0")],
         ["1.0.5", "2.0.5"], ["1.5.0", "2.1.0", "0.5.0"]),
    ],
)  # fmt: skip
def test_ranges(events: list[tuple[str, str]], inside: list[str], outside: list[str]) -> None:
    meant = Affected(None, "", "x", frozenset(), (("SEMVER", tuple(events)),))
    assert all(touches(meant, version) for version in inside)
    assert not any(touches(meant, version) for version in outside)


def test_ranges_of_another_order_may_touch_unless_versions_are_named() -> None:
    ranges = (("GIT", (("introduced", "0"),)),)
    assert touches(Affected(None, "", "x", frozenset(), ranges), "1.0")
    assert touches(Affected(None, "", "x", frozenset({"1.0"}), ranges), "1.0")
    assert not touches(Affected(None, "", "x", frozenset({"1.0"}), ranges), "1.1")


def test_package_urls_of_one_package() -> None:
    for written in ("pkg:PyPI/Foo_Bar@1.0?x=y#z", "pkg:pypi/foo-bar@1.0", "pkg:pypi/foo.bar@1.0"):
        given = bill(component("foo", "1.0", purl=written))
        known = osv(record("P-1", {"package": {"ecosystem": "PyPI", "name": "Foo-Bar"}, "versions": ["1.0"]}))
        assert ids(look(given, known=known)) == [("P-1", "foo-ref", False)], written
    scoped = bill(component("s", "1.0.0", purl="pkg:npm/%40scope/name@1.0.0"))
    known = osv(record("N-1", affected("pkg:npm/%40scope/name", {"introduced": "0"})))
    assert ids(look(scoped, known=known)) == [("N-1", "s-ref", False)]


def test_a_part_knows_its_label() -> None:
    assert Part("r", "a", "", "", None, None, None).label == "a"

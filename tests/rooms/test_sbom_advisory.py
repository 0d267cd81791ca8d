"""Invariant: what is begun is a CSAF 2.0 document that its schema and mandatory tests accept, whatever was found."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from devguard.sbom.advisory import TO_WRITE, Product, advisory
from devguard.sbom.bom import Part
from devguard.sbom.judge import Finding
from devguard.sbom.match import Hole
from devguard.sbom.vex import Justification, Statement, Status

csaf = pytest.importorskip("csaf.csaf.v20", reason="the csaf package is not installed")

PRODUCT = Product("pumps.example", "insulin-pump", "1.2.0", bytes(range(32)), {"application": "00" * 32})
PARTS = [Part(f"p{number}", f"part {number}", "1.0", "", None, None, None) for number in range(2)]


def finding(status: Status | None, hole: str = "CVE-2024-0001", part: int = 0, exploited: bool = True) -> Finding:
    why = Justification.COMPONENT_NOT_PRESENT if status is Status.NOT_AFFECTED else None
    said = None if status is None else Statement(hole, f"p{part}", status, why, "a note", "Quinn", 5)
    return Finding(Hole(hole, frozenset({hole}), PARTS[part], hole if exploited else None, "listed"), said)


def begun(*findings: Finding, **more: Any) -> dict[str, Any]:
    given = {
        "identifier": "DG-2026-1",
        "namespace": "https://pumps.example",
        "title": None,
        "now": 1_795_176_000,
        "version": "1",
    }
    return advisory(PRODUCT, findings, **{**given, **more})


def faults(document: dict[str, Any]) -> list[str]:
    report = csaf.validate(document)
    found = [f"{one.id}: {one.errors}" for one in report.results if not one.passed and not one.skipped]
    assert report.overall_valid == (not found)
    return found


@pytest.mark.parametrize("status", [None, *Status], ids=str)
@pytest.mark.parametrize("hole", ["CVE-2024-0001", "GHSA-xxxx-1"])
@pytest.mark.parametrize("exploited", [True, False])
def test_every_status(status: Status | None, hole: str, exploited: bool) -> None:
    document = begun(finding(status, hole, exploited=exploited))
    assert faults(document) == []
    (one,) = document["vulnerabilities"]
    wanted = {None: "under_investigation", Status.NOT_AFFECTED: "known_not_affected", Status.AFFECTED: "known_affected",
              Status.FIXED: "fixed", Status.UNDER_INVESTIGATION: "under_investigation"}[status]  # fmt: skip
    assert one["product_status"] == {wanted: [PRODUCT.id]}
    assert ("cve" in one) == hole.startswith("CVE")


def test_nothing_found() -> None:
    document = begun()
    assert faults(document) == []
    assert (document["document"]["category"], "vulnerabilities" in document) == ("csaf_base", False)


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations([None, *Status], 2)), ids=str)
def test_of_two_parts_the_worse_is_the_products(one: Status | None, two: Status | None) -> None:
    document = begun(finding(one), finding(two, part=1))
    assert faults(document) == []
    (status,) = document["vulnerabilities"][0]["product_status"]
    order = ["known_affected", "under_investigation", "fixed", "known_not_affected"]
    alone = [next(iter(begun(finding(each))["vulnerabilities"][0]["product_status"])) for each in (one, two)]
    assert status == min(alone, key=order.index)


def test_what_people_write_is_marked() -> None:
    assert TO_WRITE in str(begun(finding(Status.AFFECTED))["vulnerabilities"])
    assert begun()["document"]["tracking"]["status"] == "draft"


def test_the_validator_would_notice() -> None:
    document = begun(finding(Status.AFFECTED))
    document["vulnerabilities"][0]["product_status"] = {"known_affected": ["no such product"]}
    assert faults(document) != []

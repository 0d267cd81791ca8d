"""Invariant: a bill or a snapshot is read whole and unambiguous, or refused with its own code in bounded time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from devguard.errors import DevguardError
from devguard.sbom.bom import MAX_BILL, read_bill
from devguard.sbom.documents import MAX_DEPTH
from devguard.sbom.snapshot import read_advisories, read_catalogue
from sbom_support import RELEASED_AT, affected, bill, catalogue, component, osv, record

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed (extra sbom)")

GOOD = bill(
    component("mbedtls", "2.28.0", purl="pkg:generic/mbedtls@2.28.0", supplier={"name": "Arm"}),
    component("zlib", "1.2.11", components=[component("inflate", "1", publisher="Mark")]),
    vulnerabilities=[{"id": "CVE-2024-0001", "affects": [{"ref": "zlib-ref"}]}],
)
READERS: list[tuple[Callable[[bytes], object], bytes, str]] = [
    (read_bill, GOOD, "sbom.malformed"),
    (read_catalogue, catalogue(("CVE-2024-0001", "Arm", "Mbed TLS")), "sbom.snapshot"),
    (read_advisories, osv(record("GHSA-1", affected("pkg:generic/mbedtls", {"introduced": "0"}))), "sbom.snapshot"),
]
IDS = ["bill", "catalogue", "advisories"]


def code_of(read: Callable[[bytes], object], data: bytes) -> str:
    with pytest.raises(DevguardError) as caught:
        read(data)
    return caught.value.code


def refusal(read: Callable[[bytes], object], data: bytes) -> str | None:
    try:
        read(data)
    except DevguardError as error:
        return error.code
    return None


def test_a_bill() -> None:
    found = read_bill(GOOD)
    assert [(part.ref, part.name, part.version, part.supplier) for part in found.parts] == [
        ("mbedtls-ref", "mbedtls", "2.28.0", "Arm"),
        ("zlib-ref", "zlib", "1.2.11", ""),
        ("inflate-ref", "inflate", "1", "Mark"),
    ]
    assert found.subject == "pump-firmware 1.1.0"
    assert found.stated == (("CVE-2024-0001", ("zlib-ref",)),)


@pytest.mark.parametrize("version", ["1.4", "1.5", "1.6", "1.7"])
def test_every_version_that_is_named(version: str) -> None:
    assert read_bill(bill(component("a", "1"), specVersion=version)).version == version


@pytest.mark.parametrize(
    "more",
    [
        {"specVersion": "1.3"},
        {"specVersion": "9.9"},
        {"bomFormat": "SPDX"},
        {"components": {}},
        {"components": [{"type": "library"}]},
        {"components": [{"type": "no such type", "name": "a"}]},
        {"components": [component("a", "1"), component("a", "2")]},  # one ref for two parts
        {"components": [component("a", "1", **{"bom-ref": ""})]},
        {"unknown": 1},
        {"serialNumber": "not a urn"},
        {"vulnerabilities": [{"affects": [{"ref": "a-ref"}]}]},
        {"components": [component("a", "1", properties=[{"name": "devguard:end-of-support", "value": "soon"}])]},
        {
            "components": [
                component(
                    "a",
                    "1",
                    properties=[
                        {"name": "devguard:end-of-support", "value": day} for day in ("2027-01-01", "2028-01-01")
                    ],
                )
            ]
        },
    ],
    ids=str,
)
def test_bills_that_refuse(more: dict[str, object]) -> None:
    assert code_of(read_bill, bill(**more)) == "sbom.malformed"  # type: ignore[arg-type]


def test_end_of_support_is_a_day_of_the_part() -> None:
    given = component("a", "1", properties=[{"name": "devguard:end-of-support", "value": "2026-11-20T12:00:00Z"}])
    assert read_bill(bill(given)).parts[0].end_of_support == RELEASED_AT


@pytest.mark.parametrize(("read", "good", "code"), READERS, ids=IDS)
class TestAnyFile:
    def test_truncated(self, read: Callable[[bytes], object], good: bytes, code: str) -> None:
        for length in range(0, len(good), max(1, len(good) // 40)):
            assert code_of(read, good[:length]) == code

    def test_mutated(self, read: Callable[[bytes], object], good: bytes, code: str) -> None:
        dice = random.Random(7)
        for _ in range(60):
            data = bytearray(good)
            for _ in range(dice.randint(1, 3)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            assert refusal(read, bytes(data)) in (None, code)

    def test_a_name_twice(self, read: Callable[[bytes], object], good: bytes, code: str) -> None:
        assert code_of(read, b'{"x": 1, "x": 2, ' + good.lstrip(b"{")) == code

    def test_trailing_bytes(self, read: Callable[[bytes], object], good: bytes, code: str) -> None:
        assert code_of(read, good + b"{}") == code

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "1" * 100, '"' + "x" * 10 + "\n" + '"'])
    def test_what_is_no_json(self, read: Callable[[bytes], object], good: bytes, code: str, value: str) -> None:
        assert code_of(read, good.replace(b"{", f'{{"x": {value}, '.encode(), 1)) == code

    def test_deep(self, read: Callable[[bytes], object], good: bytes, code: str) -> None:
        for bracket in (b"[", b'{"a":'):
            assert code_of(read, bracket * 10_000) == code
            assert code_of(read, bracket * (MAX_DEPTH + 1)) == code

    def test_not_utf8(self, read: Callable[[bytes], object], good: bytes, code: str) -> None:
        assert code_of(read, good.replace(b'"', b'"\xff', 1)) == code

    def test_other_values(self, read: Callable[[bytes], object], good: bytes, code: str) -> None:
        for value in (b"", b"null", b"1", b'"x"', b"[1]", b"[]", b"{}"):
            assert code_of(read, value) == code


def test_brackets_in_texts_are_no_nesting() -> None:
    assert read_bill(bill(component("[" * 200, "1"))).parts[0].name == "[" * 200


def test_a_bill_over_its_limit() -> None:
    assert code_of(read_bill, b" " * (MAX_BILL + 1)) == "sbom.malformed"


def test_a_catalogue_cut_short_between_entries() -> None:
    whole = json.loads(catalogue(("CVE-1", "a", "b"), ("CVE-2", "c", "d")))
    whole["vulnerabilities"].pop()
    assert code_of(read_catalogue, json.dumps(whole).encode()) == "sbom.snapshot"


def test_withdrawn_records_say_nothing_and_still_date_the_file() -> None:
    found = read_advisories(
        osv(record("A", affected("pkg:npm/x", {"introduced": "0"}), withdrawn="2026-01-01T00:00:00Z"))
    )
    assert (found.entries, found.released) == ((), RELEASED_AT)

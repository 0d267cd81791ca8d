"""Approvals and reports: bound to one session, device, release and grant pair; anything else refuses."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError
from devguard.session.approval import (
    ApprovalRequest,
    Asking,
    approval_code,
    approval_of,
    check_approval,
    pack_answer,
    read_answer,
    read_request,
    sign_approval,
)
from devguard.session.report import Report, read_report, sign_report

NOW = 1_790_000_000
REQUEST = ApprovalRequest(bytes(32), "PG-1", b"\x01" * 32, "update", b"\x02" * 32, NOW + 600)
SECOND = hashlib.sha256(b"second grant").digest()


@pytest.fixture(scope="module")
def signer() -> MemorySigner:
    return MemorySigner.generate(Algorithm.ESP256)


def check(approval: bytes, signer: MemorySigner, *, expected: ApprovalRequest = REQUEST, now: int = NOW) -> None:
    check_approval(approval, expected=expected, holder=signer.key, second_grant_digest=SECOND, now=now)


def test_a_good_approval_passes(signer: MemorySigner) -> None:
    check(sign_approval(REQUEST, signer, SECOND), signer)


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": b"\x09" * 32},
        {"serial": "PG-2"},
        {"manifest_digest": b"\x03" * 32},
        {"action": "recover"},
        {"first_grant": b"\x04" * 32},
    ],
)
def test_an_approval_for_anything_else_refuses(signer: MemorySigner, change: dict[str, object]) -> None:
    approval = sign_approval(dataclasses.replace(REQUEST, **change), signer, SECOND)
    with pytest.raises(DevguardError) as caught:
        check(approval, signer)
    assert caught.value.code == "grant.quorum"


def test_another_second_grant_refuses(signer: MemorySigner) -> None:
    with pytest.raises(DevguardError) as caught:
        check(sign_approval(REQUEST, signer, bytes(32)), signer)
    assert caught.value.code == "grant.quorum"


def test_expiry(signer: MemorySigner) -> None:
    approval = sign_approval(REQUEST, signer, SECOND)
    check(approval, signer, now=NOW + 599)
    with pytest.raises(DevguardError) as caught:
        check(approval, signer, now=NOW + 600)
    assert caught.value.code == "grant.quorum"
    with pytest.raises(DevguardError):  # an approval may not live longer than ten minutes
        check(sign_approval(dataclasses.replace(REQUEST, expires=NOW + 10_000), signer, SECOND), signer)


def test_another_key_refuses(signer: MemorySigner) -> None:
    other = MemorySigner.generate(Algorithm.ESP256)
    with pytest.raises(DevguardError):
        check(sign_approval(REQUEST, other, SECOND), signer)


def test_a_report_is_no_approval(signer: MemorySigner) -> None:
    with pytest.raises(DevguardError) as caught:
        check(sign_report(report(), signer), signer)
    assert caught.value.code == "key.purpose"


def test_files_round_trip() -> None:
    assert read_request(REQUEST.encode()) == REQUEST
    assert read_answer(pack_answer(b"a", b"b")) == (b"a", b"b")


def test_a_request_says_who_asks_and_is_the_same_request() -> None:
    asking = Asking("Tess Technician", b"k" * 32, b"g" * 32)
    told = dataclasses.replace(REQUEST, asking=asking)
    again = read_request(told.encode())
    assert (again, again.asking) == (REQUEST, asking)
    assert read_request(dataclasses.replace(REQUEST, asking=Asking("Tess", b"k" * 32)).encode()).asking == Asking(
        "Tess", b"k" * 32
    )
    assert read_request(REQUEST.encode()).asking is None


FIELDS = [bytes(32), "PG-1", b"\x01" * 32, "update", b"\x02" * 32, NOW + 600]


@pytest.mark.parametrize(
    "items",
    [
        ["devguard-approval-request", 3, *FIELDS],
        ["devguard-approval-request", 2, *FIELDS],
        ["devguard-approval-request", 2, *FIELDS, "Tess", b"k" * 32],
        ["devguard-approval-request", 2, *FIELDS, "Tess", b"short", None],
        ["devguard-approval-request", 2, *FIELDS, "Tess", None, None],
        ["devguard-approval-request", 2, *FIELDS, "a\x1b[0m", b"k" * 32, None],
        ["devguard-approval-request", 2, *FIELDS, "", b"k" * 32, None],
        ["devguard-approval-request", 2, *FIELDS, "Tess", b"k" * 32, b"g" * 31],
        ["devguard-approval-request", 1, *FIELDS, "Tess", b"k" * 32, None],
        ["devguard-approval-request", 1, bytes(32), "PG\x1b[2J", *FIELDS[2:]],
        ["devguard-approval-request", 1, *FIELDS[:3], "format-disk", *FIELDS[4:]],
    ],
)
def test_requests_that_do_not_say_who_asks_as_they_must(items: list[object]) -> None:
    with pytest.raises(DevguardError) as caught:
        read_request(wire.encode(items))
    assert caught.value.code == "grant.malformed"


@pytest.mark.parametrize("algorithm", [Algorithm.ESP256, Algorithm.ED25519])
def test_the_signature_alone_is_the_whole_approval(algorithm: Algorithm) -> None:
    one = MemorySigner.generate(algorithm)
    approval = sign_approval(REQUEST, one, SECOND)
    code = approval_code(approval)
    assert len(code) == 64
    assert approval_of(code, REQUEST, one.key, SECOND) == approval
    for request, digest in ((dataclasses.replace(REQUEST, serial="PG-2"), SECOND), (REQUEST, bytes(32))):
        with pytest.raises(DevguardError) as caught:
            approval_of(code, request, one.key, digest)
        assert caught.value.code == "signature.invalid"
    for bad in (b"", code[:-1], bytes(64), code + b"x"):
        with pytest.raises(DevguardError):
            approval_of(bad, REQUEST, one.key, SECOND)


@given(st.binary(max_size=200))
def test_garbage_files_refuse(data: bytes) -> None:
    for reader in (read_request, read_answer):
        with pytest.raises(DevguardError):
            reader(data)


def report(**change: object) -> Report:
    base = Report(
        "insulin-pump", "P-1", "1.1.0", bytes(32), bytes(32), 2, 1, "confirmed", True, (), 1, 0, NOW, 0, bytes(32),
        None, bytes(32), 90, bytes(32), b"c" * 16,
    )  # fmt: skip
    return dataclasses.replace(base, **change)


def test_a_report_round_trips(signer: MemorySigner) -> None:
    made = report(flags=("release.expired",))
    assert read_report(sign_report(made, signer), key=signer.key, challenge=b"c" * 16, serial="P-1") == made


@pytest.mark.parametrize(
    ("change", "code"), [({"challenge": b"d" * 16}, "session.replay"), ({"serial": "P-2"}, "device.identity")]
)
def test_a_report_of_another_time_or_device_refuses(signer: MemorySigner, change: dict[str, object], code: str) -> None:
    with pytest.raises(DevguardError) as caught:
        read_report(sign_report(report(**change), signer), key=signer.key, challenge=b"c" * 16, serial="P-1")
    assert caught.value.code == code


def test_a_report_by_another_key_or_flipped_refuses(signer: MemorySigner) -> None:
    data = sign_report(report(), MemorySigner.generate(Algorithm.ESP256))
    with pytest.raises(DevguardError):
        read_report(data, key=signer.key, challenge=b"c" * 16, serial="P-1")
    good = bytearray(sign_report(report(), signer))
    for at in range(0, len(good), 7):
        good[at] ^= 1
        with pytest.raises(DevguardError):
            read_report(bytes(good), key=signer.key, challenge=b"c" * 16, serial="P-1")
        good[at] ^= 1

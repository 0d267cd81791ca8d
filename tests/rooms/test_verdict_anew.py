"""Invariant: every verdict is judged anew, and images are measured for the very facts that are judged."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from builders import (
    DAY,
    NOW,
    PUMP,
    Vendor,
    changed,
    make_envelope,
    make_image,
    make_vendor,
    measure_payload,
    sign_envelope,
)
from devguard.errors import Refused
from devguard.image.measure import Measured, measure
from devguard.manifest.envelope import Envelope
from devguard.manifest.release import ReleaseFacts
from devguard.verdict.judge import Payloads, Target, Verdict, judge

TARGET = Target(model=PUMP)


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return make_vendor("anew")


@pytest.fixture(scope="module")
def good(vendor: Vendor) -> Envelope:
    return sign_envelope(make_envelope(), vendor.release_signers)


class Asked:
    """A measurer that counts."""

    def __init__(self, answer: Payloads) -> None:
        self.answer = answer
        self.seen: list[ReleaseFacts] = []

    def __call__(self, facts: ReleaseFacts) -> Payloads:
        self.seen.append(facts)
        return self.answer


def on(envelope: Envelope, vendor: Vendor, payload: object, now: int = NOW) -> Verdict:
    return judge(envelope, trust=vendor.trust, now=now, target=TARGET, payload=payload)  # type: ignore[arg-type]  # by test


def test_one_envelope_under_changing_trust_and_time(vendor: Vendor, good: Envelope) -> None:
    payload = measure_payload(good)
    thumbprint = vendor.release_signers[0].key.thumbprint
    assert on(good, vendor, payload)
    assert on(good, changed(vendor, revoked=[thumbprint]), payload).code == "key.revoked"
    assert on(good, changed(vendor, revoked_releases=[good.manifest_digest]), payload).code == "release.revoked"
    assert on(good, vendor, payload, NOW + 400 * DAY).code == "trust.expired"
    assert on(good, make_vendor("strangers"), payload).code == "key.unknown"
    assert on(good, vendor, payload)


def test_one_envelope_changed_between_two_verdicts(vendor: Vendor, good: Envelope) -> None:
    payload = measure_payload(good)
    assert on(good, vendor, payload)
    blocks = list(good.auth_blocks)
    blocks[0] = blocks[0][:-1] + bytes([blocks[0][-1] ^ 1])
    assert on(replace(good, auth_blocks=tuple(blocks)), vendor, payload).code == "signature.invalid"
    damaged = good.manifest[:-1] + bytes([good.manifest[-1] ^ 1])
    assert on(replace(good, manifest=damaged), vendor, payload).code == "envelope.malformed"
    other = sign_envelope(make_envelope(make_image(seed="another")), vendor.release_signers)
    assert on(other, vendor, payload).code == "image.digest"


def test_a_measurer_is_asked_once_for_the_facts_that_are_judged(vendor: Vendor, good: Envelope) -> None:
    asked = Asked(measure_payload(good))
    verdict = on(good, vendor, asked)
    assert verdict.require().payload_checked
    assert [facts.components for facts in asked.seen] == [verdict.require().components]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (measure(io.BytesIO(b"another image")), "image.size"),
        (Measured(-16, bytes(32), 1024), "image.digest"),
        (None, None),
    ],
)
def test_what_a_measurer_gives_is_judged(vendor: Vendor, good: Envelope, answer: Payloads, code: str | None) -> None:
    verdict = on(good, vendor, Asked(answer))
    assert verdict.code == code
    assert code is not None or not verdict.require().payload_checked


def test_nothing_is_measured_for_a_manifest_that_is_refused(vendor: Vendor, good: Envelope) -> None:
    asked = Asked(measure_payload(good))
    assert on(replace(good, digest=bytes(32)), vendor, asked).code == "envelope.malformed"
    assert asked.seen == []


def test_an_image_that_cannot_be_read_is_no_verdict(vendor: Vendor, good: Envelope) -> None:
    def unreadable(_: ReleaseFacts) -> Payloads:
        raise Refused("file.unreadable", "the stick was pulled")

    with pytest.raises(Refused, match="stick"):
        on(good, vendor, unreadable)

"""The judgement step by step: what is accepted, which code every refusal has, and that nothing else gets through.

The initial state is refused: each test here takes one thing away from a good release, or adds one, and names the
code that must come out.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from builders import (
    CAST,
    DAY,
    NOW,
    PUMP,
    Seat,
    Speaking,
    Vendor,
    changed,
    describe,
    judge_bytes,
    make_envelope,
    make_image,
    make_release,
    make_signer,
    make_vendor,
    measure_images,
    measure_payload,
    sign_envelope,
)
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.headers import protected_for, signed_bytes
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_GRANT, TYP_REPORT, TYP_TRUST, Sign1, Signer, read_sign1, sign1
from devguard.errors import CODES, DevguardError, Malformed, Refused
from devguard.image.measure import SHA_256, Measured, measure
from devguard.manifest.build import build_envelope
from devguard.manifest.codec import decode_manifest, encode_manifest
from devguard.manifest.description import ComponentDescription, Requires
from devguard.manifest.envelope import (
    Envelope,
    Payload,
    add_signature,
    parse_offer,
    read_envelope,
    sever,
    signature_payload,
)
from devguard.manifest.suit import Digest, Parameter
from devguard.verdict.judge import STEPS, Target, Verdict, judge, refused_form

PUMP_TARGET = Target(model=PUMP)


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return make_vendor("verdict")


@pytest.fixture(scope="module")
def good(vendor: Vendor) -> Envelope:
    return sign_envelope(make_envelope(), vendor.release_signers)


def verdict_on(
    envelope: Envelope, vendor: Vendor, *, now: int = NOW, target: Target = PUMP_TARGET, payload: Any = "measure"
) -> Verdict:
    if payload == "measure":
        payload = measure_payload(envelope)
    return judge(envelope, trust=vendor.trust, now=now, target=target, payload=payload)


def signed(vendor: Vendor, *signers: Signer, **fields: Any) -> Envelope:
    return sign_envelope(make_envelope(**fields), signers or vendor.release_signers)


def by_hand(signer: Signer, envelope: Envelope, **changes: Any) -> bytes:
    """A block over the envelope's digest with parts of the COSE object replaced before signing."""
    payload = signature_payload(envelope)
    protected = changes.pop("protected", None) or protected_for(signer.algorithm, signer.key.thumbprint, None, None)
    signature = signer.sign(signed_bytes(protected, None, b"", payload))
    return replace(Sign1(protected, {}, None, signature), **changes).encode()


class TestAccepted:
    def test_a_good_release(self, vendor: Vendor, good: Envelope) -> None:
        verdict = verdict_on(good, vendor)
        assert verdict, verdict.failure
        release = verdict.require()
        assert (release.vendor, release.model, release.version) == ("devices.devguard.example", "insulin-pump", "1.1.0")
        assert (release.sequence, release.security_version, release.size) == (2, 1, 1024)
        assert release.digest == measure_payload(good).digest
        assert release.manifest_digest == good.manifest_digest
        assert release.payload_checked
        assert release.requirements.therapy_idle
        assert [check.name for check in verdict.checks] == list(STEPS)
        assert all(check.ok and check.detail and check.standard for check in verdict.checks)

    def test_read_from_bytes(self, vendor: Vendor) -> None:
        assert judge_bytes(make_release(vendor), vendor)

    def test_nothing_asked(self, vendor: Vendor, good: Envelope) -> None:
        verdict = verdict_on(good, vendor, target=Target())
        assert verdict
        assert {check.detail for check in verdict.checks if check.name in ("vendor", "class", "device")} >= {
            "not asked"
        }

    def test_an_offer_defers_the_image(self, vendor: Vendor, good: Envelope) -> None:
        offer = parse_offer(sever(good))
        verdict = verdict_on(offer, vendor, payload=None)
        assert verdict, verdict.failure
        release = verdict.require()
        assert not release.payload_checked
        assert release.model == "insulin-pump"
        assert verdict.checks[-1].detail.startswith("deferred")

    def test_in_the_contract_s_json(self, vendor: Vendor, good: Envelope) -> None:
        import json

        shown = json.loads(json.dumps(verdict_on(good, vendor).to_json("pump.suit")))
        assert shown["accepted"] is True
        assert shown["code"] is None
        assert shown["file"] == "pump.suit"
        assert {"vendor", "model", "version", "sequence", "digest", "size"} <= set(shown["release"])
        assert [(one["role"], one["person"], one["alg"], one["ok"]) for one in shown["signatures"]] == [
            ("release", "Remy Release", "ESP256", True),
            ("quality", "Quinn Quality", "ML-DSA-65", True),
        ]
        assert {"name", "ok", "detail", "standard"} <= set(shown["checks"][0])

    @pytest.mark.parametrize(
        ("person", "algorithm"), [("Remy Release", Algorithm.ES256), ("Rita Release", Algorithm.EDDSA)]
    )
    def test_the_older_numbers_of_the_same_algorithms(self, vendor: Vendor, person: str, algorithm: Algorithm) -> None:
        old = Speaking(vendor.signer(RoleName.RELEASE, person), algorithm)
        verdict = verdict_on(signed(vendor, old, vendor.signer(RoleName.QUALITY)), vendor)
        assert verdict, verdict.failure

    @pytest.mark.parametrize("algorithm", [Algorithm.ESP256, Algorithm.ESP384, Algorithm.ED25519])
    @pytest.mark.parametrize("quantum", [Algorithm.ML_DSA_44, Algorithm.ML_DSA_65, Algorithm.ML_DSA_87])
    def test_every_pair_of_algorithms(self, algorithm: Algorithm, quantum: Algorithm) -> None:
        cast = (*CAST[:2], Seat(RoleName.RELEASE, "Remy", quantum), Seat(RoleName.QUALITY, "Quinn", algorithm))
        vendor = make_vendor("pairs", cast=cast)
        assert verdict_on(signed(vendor), vendor)


class TestSignatures:
    def test_no_block(self, vendor: Vendor) -> None:
        verdict = verdict_on(make_envelope(), vendor)
        assert verdict.code == "signature.missing"
        assert verdict.signatures == ()

    @pytest.mark.parametrize("which", [0, 1])
    def test_one_half_stripped(self, vendor: Vendor, good: Envelope, which: int) -> None:
        stripped = replace(good, auth_blocks=(good.auth_blocks[which],))
        assert verdict_on(stripped, vendor).code == "signature.hybrid"

    def test_the_hybrid_rule_comes_before_the_threshold(self, vendor: Vendor) -> None:
        both_classical = signed(
            vendor, vendor.signer(RoleName.RELEASE), vendor.signer(RoleName.RELEASE, "Rita Release")
        )
        verdict = verdict_on(both_classical, vendor)
        assert verdict.code == "signature.hybrid"
        assert not next(check for check in verdict.checks if check.name == "threshold").ok

    def test_thresholds(self) -> None:
        demanding = make_vendor("two", thresholds={RoleName.ROOT: 2, RoleName.RELEASE: 2})
        assert verdict_on(signed(demanding), demanding).code == "signature.threshold"
        everyone = (*demanding.release_signers, demanding.signer(RoleName.RELEASE, "Rita Release"))
        assert verdict_on(signed(demanding, *everyone), demanding)

    def test_the_same_block_twice(self) -> None:
        demanding = make_vendor("two", thresholds={RoleName.ROOT: 2, RoleName.RELEASE: 2})
        remy, quinn = demanding.release_signers
        assert verdict_on(signed(demanding, remy, remy, quinn), demanding).code == "signature.threshold"

    def test_the_same_person_with_two_keys(self) -> None:
        cast = (
            *CAST[:2],
            Seat(RoleName.RELEASE, "Remy Release"),
            Seat(RoleName.RELEASE, "REMY RELEASE", Algorithm.ML_DSA_65),
            Seat(RoleName.RELEASE, "Rita Release"),
            Seat(RoleName.QUALITY, "Quinn Quality"),
        )
        vendor = make_vendor("same", cast=cast, thresholds={RoleName.ROOT: 2, RoleName.RELEASE: 2})
        signers = [signer for seat, signer in vendor.seats if seat.person not in ("Rita Release", *_roots())]
        assert len(signers) == 3
        assert verdict_on(signed(vendor, *signers), vendor).code == "signature.threshold"

    def test_one_person_as_release_and_quality(self) -> None:
        cast = (
            *CAST[:2],
            Seat(RoleName.RELEASE, "Remy Both"),
            Seat(RoleName.QUALITY, "Remy Both", Algorithm.ML_DSA_65),
        )
        vendor = make_vendor("both", cast=cast)
        assert verdict_on(signed(vendor), vendor).code == "signature.threshold"

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("bad", ["", "00" * 63, "00" * 65, "00" * 64, "ff" * 64, "00" * 3309, "flip"])
    def test_degenerate_signatures(self, vendor: Vendor, good: Envelope, which: int, bad: str) -> None:
        block = read_sign1(good.auth_blocks[which])
        flipped = block.signature[:-1] + bytes([block.signature[-1] ^ 1])
        broken = replace(block, signature=flipped if bad == "flip" else bytes.fromhex(bad)).encode()
        blocks = list(good.auth_blocks)
        blocks[which] = broken
        verdict = verdict_on(replace(good, auth_blocks=tuple(blocks)), vendor)
        assert verdict.code == "signature.invalid"
        assert [one.ok for one in verdict.signatures] == [which != 0, which != 1]

    def test_an_invalid_block_beside_enough_good_ones(self, vendor: Vendor, good: Envelope) -> None:
        rita = vendor.signer(RoleName.RELEASE, "Rita Release")
        broken = replace(read_sign1(by_hand(rita, good)), signature=bytes(64)).encode()
        assert verdict_on(add_signature(good, broken), vendor).code == "signature.invalid"

    def test_signatures_of_another_release(self, vendor: Vendor, good: Envelope) -> None:
        other = signed(vendor, version="9.9.9")
        assert verdict_on(replace(good, auth_blocks=other.auth_blocks), vendor).code == "signature.invalid"

    @pytest.mark.parametrize("number", [0, 5, -16, -35, -36, -37, -47, -52, -53, "none"])
    def test_algorithms_that_are_not_listed(self, vendor: Vendor, good: Envelope, number: int | str) -> None:
        remy, _ = vendor.release_signers
        protected = wire.encode({1: number, 4: remy.key.thumbprint})
        envelope = replace(good, auth_blocks=(by_hand(remy, good, protected=protected), good.auth_blocks[1]))
        assert verdict_on(envelope, vendor).code == "signature.algorithm"

    @pytest.mark.parametrize("number", [-8, -19, -48, -49, -50, -51])
    def test_an_algorithm_of_another_key_type(self, vendor: Vendor, good: Envelope, number: int) -> None:
        remy, _ = vendor.release_signers
        protected = wire.encode({1: number, 4: remy.key.thumbprint})
        envelope = replace(good, auth_blocks=(by_hand(remy, good, protected=protected), good.auth_blocks[1]))
        assert verdict_on(envelope, vendor).code == "signature.algorithm"

    def test_the_list_holds_whatever_the_key_would_allow(
        self, vendor: Vendor, good: Envelope, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(CoseKey, "allows", lambda self, algorithm: True)
        remy, _ = vendor.release_signers
        protected = wire.encode({1: int(Algorithm.ES512), 4: remy.key.thumbprint})
        envelope = replace(good, auth_blocks=(by_hand(remy, good, protected=protected), good.auth_blocks[1]))
        assert "which is not allowed" in next(
            check.detail for check in verdict_on(envelope, vendor).checks if check.name == "algorithms"
        )

    def test_without_any_algorithm(self, vendor: Vendor, good: Envelope) -> None:
        remy, _ = vendor.release_signers
        block = by_hand(remy, good, protected=wire.encode({4: remy.key.thumbprint}))
        assert verdict_on(replace(good, auth_blocks=(block, good.auth_blocks[1])), vendor).code == "signature.algorithm"


class TestKeys:
    def test_another_vendor(self, vendor: Vendor) -> None:
        other = make_vendor("somebody else")
        verdict = verdict_on(signed(other), vendor)
        assert verdict.code == "key.unknown"
        assert [(one.role, one.person, one.ok) for one in verdict.signatures] == [(None, None, False)] * 2

    def test_a_block_without_kid_is_tried_against_no_key(self, vendor: Vendor, good: Envelope) -> None:
        remy, _ = vendor.release_signers
        block = by_hand(remy, good, protected=wire.encode({1: int(remy.algorithm)}))
        assert verdict_on(replace(good, auth_blocks=(block, good.auth_blocks[1])), vendor).code == "key.unknown"

    def test_a_kid_beside_the_protected_header_is_a_hint(self, vendor: Vendor, good: Envelope) -> None:
        remy, _ = vendor.release_signers
        bare = wire.encode({1: int(remy.algorithm)})
        block = by_hand(remy, good, protected=bare, unprotected={4: remy.key.thumbprint})
        assert verdict_on(replace(good, auth_blocks=(block, good.auth_blocks[1])), vendor)

    def test_a_stranger_beside_enough_is_listed_and_ignored(self, vendor: Vendor, good: Envelope) -> None:
        envelope = sign_envelope(good, [make_signer(seed="stranger")])
        verdict = verdict_on(envelope, vendor)
        assert verdict
        assert [one.ok for one in verdict.signatures] == [True, True, False]
        assert verdict.signatures[2].code == "key.unknown"

    def test_a_stranger_does_not_replace_the_stripped_half(self, vendor: Vendor, good: Envelope) -> None:
        stranger = make_signer(Algorithm.ML_DSA_65, "stranger")
        envelope = sign_envelope(replace(good, auth_blocks=good.auth_blocks[:1]), [stranger])
        assert verdict_on(envelope, vendor).code == "key.unknown"

    def test_a_key_carried_in_the_envelope_is_not_trusted(self, vendor: Vendor, good: Envelope) -> None:
        mallory = make_signer(Algorithm.ML_DSA_65, "mallory")
        with_key = wire.encode({1: int(mallory.algorithm), 4: mallory.key.thumbprint, -70000: mallory.key.to_map()})
        envelope = replace(good, auth_blocks=(good.auth_blocks[0], by_hand(mallory, good, protected=with_key)))
        assert verdict_on(envelope, vendor).code == "key.unknown"

    def test_somebody_else_s_kid(self, vendor: Vendor, good: Envelope) -> None:
        mallory = make_signer(seed="mallory")
        borrowed = wire.encode({1: int(mallory.algorithm), 4: vendor.signer(RoleName.RELEASE).key.thumbprint})
        envelope = replace(good, auth_blocks=(by_hand(mallory, good, protected=borrowed), good.auth_blocks[1]))
        assert verdict_on(envelope, vendor).code == "signature.invalid"

    @pytest.mark.parametrize("revoke", [RoleName.RELEASE, RoleName.QUALITY])
    def test_revoked(self, vendor: Vendor, good: Envelope, revoke: RoleName) -> None:
        revoking = changed(vendor, revoked=[vendor.signer(revoke).key.thumbprint])
        assert verdict_on(good, revoking).code == "key.revoked"

    def test_a_revoked_key_beside_enough_others(self, vendor: Vendor, good: Envelope) -> None:
        rita = vendor.signer(RoleName.RELEASE, "Rita Release")
        envelope = sign_envelope(good, [rita])
        assert verdict_on(envelope, changed(vendor, revoked=[rita.key.thumbprint]))

    def test_a_release_to_keep_outlives_its_keys(self, vendor: Vendor, good: Envelope) -> None:
        keys = [signer.key.thumbprint for signer in vendor.release_signers]
        assert verdict_on(good, changed(vendor, revoked=keys, kept_releases=[good.manifest_digest]))
        assert verdict_on(good, changed(vendor, revoked=keys, kept_releases=[bytes(32)])).code == "key.revoked"

    def test_a_key_outside_its_validity(self) -> None:
        cast = (
            *CAST[:2],
            Seat(RoleName.RELEASE, "Remy", not_before=NOW, not_after=NOW + DAY),
            Seat(RoleName.QUALITY, "Quinn", Algorithm.ML_DSA_65),
        )
        vendor = make_vendor("window", cast=cast)
        envelope = signed(vendor)
        assert verdict_on(envelope, vendor)
        assert verdict_on(envelope, vendor, now=NOW - 1).code == "key.expired"
        assert verdict_on(envelope, vendor, now=NOW + DAY + 1).code == "key.expired"


WRONG_ROLES = [seat for seat in CAST if seat.role not in (RoleName.RELEASE, RoleName.QUALITY)]


class TestPurpose:
    @pytest.mark.parametrize("seat", WRONG_ROLES, ids=lambda seat: f"{seat.role}-{seat.algorithm.label}")
    @pytest.mark.parametrize("replaced", [0, 1])
    def test_a_key_of_another_role_does_not_release(
        self, vendor: Vendor, good: Envelope, seat: Seat, replaced: int
    ) -> None:
        wrong = vendor.signer(seat.role, seat.person)
        blocks = list(good.auth_blocks)
        blocks[replaced] = by_hand(wrong, good)
        verdict = verdict_on(replace(good, auth_blocks=tuple(blocks)), vendor)
        assert verdict.code == "key.purpose"
        assert verdict.signatures[replaced].role == seat.role

    @pytest.mark.parametrize("typ", [TYP_TRUST, TYP_GRANT, TYP_REPORT, "application/other", 7])
    def test_a_signature_made_as_another_kind_of_object(self, vendor: Vendor, good: Envelope, typ: str | int) -> None:
        remy, _ = vendor.release_signers
        protected = wire.encode({1: int(remy.algorithm), 4: remy.key.thumbprint, 16: typ})
        block = by_hand(remy, good, protected=protected)
        verdict = verdict_on(replace(good, auth_blocks=(block, good.auth_blocks[1])), vendor)
        assert verdict.code == "key.purpose"

    def test_even_beside_enough_good_ones(self, vendor: Vendor, good: Envelope) -> None:
        rita = vendor.signer(RoleName.RELEASE, "Rita Release")
        block = sign1(rita, signature_payload(good), typ=TYP_GRANT, detached=True).encode()
        assert verdict_on(add_signature(good, block), vendor).code == "key.purpose"


class TestForm:
    @pytest.mark.parametrize(
        "block",
        [b"", b"\x00", b"\xf6", b"\xd2\x80", cbor2.dumps(cbor2.CBORTag(17, [b"", {}, None, b""])), b"\x84" * 9000],
        ids=["empty", "integer", "null", "short", "mac", "deep"],
    )
    def test_a_block_that_is_no_signature(self, vendor: Vendor, good: Envelope, block: bytes) -> None:
        assert verdict_on(add_signature(good, block), vendor).code == "envelope.malformed"

    def test_a_block_with_its_own_payload(self, vendor: Vendor, good: Envelope) -> None:
        block = sign1(vendor.signer(RoleName.RELEASE), signature_payload(good), typ=None).encode()
        assert verdict_on(replace(good, auth_blocks=(block, good.auth_blocks[1])), vendor).code == "envelope.malformed"

    def test_a_block_with_unsigned_headers(self, vendor: Vendor, good: Envelope) -> None:
        block = replace(read_sign1(good.auth_blocks[0]), unprotected={99: b"rides along"}).encode()
        assert verdict_on(replace(good, auth_blocks=(block, good.auth_blocks[1])), vendor).code == "envelope.malformed"

    def test_a_critical_header_nobody_knows(self, vendor: Vendor, good: Envelope) -> None:
        remy, _ = vendor.release_signers
        protected = wire.encode({1: int(remy.algorithm), 2: [99], 4: remy.key.thumbprint, 99: 1})
        envelope = replace(good, auth_blocks=(by_hand(remy, good, protected=protected), good.auth_blocks[1]))
        assert verdict_on(envelope, vendor).code == "signature.critical"

    def test_untagged(self, vendor: Vendor, good: Envelope) -> None:
        failure = verdict_on(replace(good, tagged=False), vendor).failure
        assert failure is not None
        assert (failure.name, failure.code) == ("envelope", "envelope.malformed")

    def test_a_manifest_the_wrapper_does_not_cover(self, vendor: Vendor, good: Envelope) -> None:
        other = make_envelope(version="6.6.6")
        failure = verdict_on(replace(good, manifest=other.manifest), vendor).failure
        assert failure is not None
        assert (failure.name, failure.code) == ("envelope", "envelope.malformed")

    def test_a_manifest_outside_the_profile(self, vendor: Vendor, good: Envelope) -> None:
        verdict = verdict_on(replace(good, manifest=b"\xa0"), vendor)
        assert verdict.code == "envelope.malformed"
        assert [check.name for check in verdict.checks] == list(STEPS)
        assert verdict.to_json("x")["release"] is None
        skipped = [check for check in verdict.checks if check.detail.startswith("not judged")]
        assert skipped
        assert not any(check.ok or check.code for check in skipped)

    def test_a_payload_the_manifest_does_not_name(self, vendor: Vendor, good: Envelope) -> None:
        riding = replace(good, payloads={**good.payloads, "#other": Payload(0, 3, b"abc")})
        assert verdict_on(riding, vendor).code == "envelope.malformed"

    def test_a_member_the_manifest_does_not_name(self, vendor: Vendor, good: Envelope) -> None:
        for label in (14, 16, 18, 20, 99, -1):
            riding = replace(good, severable={**good.severable, label: wire.encode([14, 15])})
            assert verdict_on(riding, vendor).code == "envelope.malformed", label

    def test_a_text_that_is_not_the_signed_one(self, vendor: Vendor, good: Envelope) -> None:
        assert good.severable
        for label, member in good.severable.items():
            other = member[:-1] + bytes([member[-1] ^ 1])
            verdict = verdict_on(replace(good, severable={**good.severable, label: other}), vendor)
            assert verdict.code == "envelope.malformed"

    def test_a_file_that_did_not_parse(self) -> None:
        verdict = refused_form(Malformed("image.trailing", "3 bytes follow"))
        assert not verdict
        assert verdict.code == "image.trailing"
        assert len(verdict.checks) == len(STEPS)
        with pytest.raises(Malformed, match="3 bytes"):
            verdict.require()

    @pytest.mark.parametrize("seed", range(3))
    def test_one_flipped_bit_anywhere(self, vendor: Vendor, seed: int) -> None:
        data = make_release(vendor, make_image(64))
        _sweep(data, vendor, range(seed, len(data) * 8, 389))

    @pytest.mark.slow
    def test_one_flipped_bit_everywhere(self, vendor: Vendor) -> None:
        data = make_release(vendor, make_image(64))
        _sweep(data, vendor, range(len(data) * 8))


def _sweep(data: bytes, vendor: Vendor, positions: range) -> None:
    for position in positions:
        raw = bytearray(data)
        raw[position // 8] ^= 1 << position % 8
        try:
            envelope = read_envelope(io.BytesIO(bytes(raw)))
        except DevguardError as error:
            verdict = refused_form(error)
        else:
            payloads = list(envelope.payloads.values())
            found = measure(io.BytesIO(payloads[0].data or b"")) if payloads else Measured(-16, b"", 0)
            verdict = verdict_on(envelope, vendor, payload=found)
        assert not verdict, f"bit {position} flipped and accepted"
        assert verdict.code in CODES


class TestTrust:
    @pytest.mark.parametrize(("now", "code"), [(NOW + 365 * DAY, "trust.expired"), (NOW - 3 * DAY, "trust.not-yet")])
    def test_out_of_time(self, vendor: Vendor, good: Envelope, now: int, code: str) -> None:
        assert verdict_on(good, vendor, now=now).code == code

    def test_a_revoked_release(self, vendor: Vendor, good: Envelope) -> None:
        revoking = changed(vendor, revoked_releases=[good.manifest_digest], kept_releases=[good.manifest_digest])
        assert verdict_on(good, revoking).code == "release.revoked"

    @pytest.mark.parametrize(("now", "ok"), [(NOW + 9, True), (NOW + 10, False), (NOW + 11, False)])
    def test_use_before(self, vendor: Vendor, now: int, ok: bool) -> None:
        verdict = verdict_on(signed(vendor, use_before=NOW + 10), vendor, now=now)
        assert verdict.code == (None if ok else "release.expired")
        if ok:
            assert verdict.require().requirements.use_before == NOW + 10

    def test_no_quality_role_means_no_release(self) -> None:
        vendor = make_vendor(
            "no-quality", cast=(*CAST[:2], *CAST[2:4], Seat(RoleName.RELEASE, "R", Algorithm.ML_DSA_44))
        )
        signers = [signer for seat, signer in vendor.seats if seat.role is RoleName.RELEASE]
        assert verdict_on(signed(vendor, *signers), vendor).code == "signature.threshold"


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "code"),
        [
            (Target(model=replace(PUMP, vendor="other.example")), "image.vendor"),
            (Target(model=replace(PUMP, name="pacemaker-programmer")), "image.class"),
            (Target(model=PUMP, revision="revZ"), "image.class"),
            (Target(model=replace(PUMP, revisions=("revZ",))), "image.class"),
            (Target(model=PUMP, revision="revB"), None),
            (Target(model=PUMP, serial="SN-1"), None),
        ],
    )
    def test_vendor_and_class(self, vendor: Vendor, good: Envelope, target: Target, code: str | None) -> None:
        assert verdict_on(good, vendor, target=target).code == code
        offer = parse_offer(sever(good))
        assert verdict_on(offer, vendor, target=target, payload=None).code == code

    def test_one_revision_only(self, vendor: Vendor) -> None:
        envelope = signed(vendor, revisions=("revA",))
        assert verdict_on(envelope, vendor, target=Target(model=PUMP, revision="revA"))
        assert verdict_on(envelope, vendor, target=Target(model=PUMP, revision="revB")).code == "image.class"

    def test_listed_serial_numbers(self, vendor: Vendor) -> None:
        listed = (ComponentDescription("main", "main.bin", "raw", ("SN-1", "SN-2"), ()),)
        envelope = signed(vendor, components=listed)
        assert verdict_on(envelope, vendor, target=Target(model=PUMP, serial="SN-2", revision="revB"))
        assert verdict_on(envelope, vendor, target=Target(serial="SN-1"))
        assert verdict_on(envelope, vendor, target=Target(model=PUMP))
        for target in (Target(model=PUMP, serial="SN-3"), Target(serial="SN-3"), Target(model=PUMP, serial="")):
            assert verdict_on(envelope, vendor, target=target).code == "image.device"


class TestVersions:
    @pytest.mark.parametrize(
        ("installed", "code"),
        [
            (None, None),
            (99, None),
            (84, None),
            (83, "version.exhausted"),
            (0, "version.exhausted"),
            (101, "version.rollback"),
            (2**64 - 1, "version.rollback"),
            (100, "version.current"),
        ],
    )
    def test_sequence(self, vendor: Vendor, installed: int | None, code: str | None) -> None:
        envelope = signed(vendor, sequence=100)
        assert verdict_on(envelope, vendor, target=Target(model=PUMP, installed_sequence=installed)).code == code

    def test_same_sequence_by_digest(self, vendor: Vendor, good: Envelope) -> None:
        same = Target(model=PUMP, installed_sequence=2, installed_digest=good.manifest_digest)
        assert verdict_on(good, vendor, target=same).code == "version.current"
        other = Target(model=PUMP, installed_sequence=2, installed_digest=bytes(32))
        assert verdict_on(good, vendor, target=other).code == "version.rollback"

    @pytest.mark.parametrize(("floor", "code"), [(2, None), (3, "version.rollback")])
    def test_floor_of_the_model(self, vendor: Vendor, good: Envelope, floor: int, code: str | None) -> None:
        raised = changed(vendor, floors={"insulin-pump": floor, "other": 2**64 - 1})
        assert verdict_on(good, raised).code == code
        assert verdict_on(good, raised, target=Target()).code == code
        assert verdict_on(parse_offer(sever(good)), raised, payload=None).code == code

    def test_a_floor_that_cannot_be_looked_up(self, vendor: Vendor, good: Envelope) -> None:
        raised = changed(vendor, floors={"insulin-pump": 1})
        offer = parse_offer(sever(good))
        assert verdict_on(offer, raised, target=Target(), payload=None).code == "version.rollback"
        assert verdict_on(offer, vendor, target=Target(), payload=None)

    def test_the_step_is_the_document_s(self, vendor: Vendor) -> None:
        envelope = signed(vendor, sequence=100)
        target = Target(model=PUMP, installed_sequence=1)
        assert verdict_on(envelope, changed(vendor, max_step=99), target=target)
        assert verdict_on(envelope, changed(vendor, max_step=98), target=target).code == "version.exhausted"

    @pytest.mark.parametrize(
        ("counter", "code"), [(19, None), (20, None), (21, "version.rollback"), (4, None), (3, "version.exhausted")]
    )
    def test_security_version(self, vendor: Vendor, counter: int, code: str | None) -> None:
        envelope = signed(vendor, security_version=20)
        assert verdict_on(envelope, vendor, target=Target(model=PUMP, security_version=counter)).code == code

    @pytest.mark.parametrize(
        ("installed", "code"),
        [(None, None), ("1.0.5", None), ("2.0.0", None), ("1.0.4", "version.requires"), ("junk", "version.requires")],
    )
    def test_required_version(self, vendor: Vendor, installed: str | None, code: str | None) -> None:
        envelope = signed(vendor, requires=Requires("1.0.5", {}))
        target = Target(model=PUMP, installed_sequence=1, installed_version=installed)
        assert verdict_on(envelope, vendor, target=target).code == code

    @pytest.mark.parametrize(
        ("installed", "code"),
        [(None, None), ({"radio": "3.0.0"}, None), ({"radio": "2.9.9"}, "version.requires"), ({}, "version.requires")],
    )
    def test_required_component(self, vendor: Vendor, installed: dict[str, str] | None, code: str | None) -> None:
        model = replace(PUMP, fixed=("radio",))
        envelope = signed(vendor, model=model, requires=Requires(None, {"radio": "3.0.0"}))
        assert verdict_on(envelope, vendor, target=Target(model=model, installed_components=installed)).code == code


class TestImage:
    def test_one_flipped_bit(self, vendor: Vendor, good: Envelope) -> None:
        image = bytearray(make_image())
        image[500] ^= 1
        assert verdict_on(good, vendor, payload=measure(io.BytesIO(bytes(image)))).code == "image.digest"

    @pytest.mark.parametrize("size", [0, 1023, 1025])
    def test_another_size(self, vendor: Vendor, good: Envelope, size: int) -> None:
        assert verdict_on(good, vendor, payload=measure(io.BytesIO(make_image(size)))).code == "image.size"

    def test_another_hash(self, vendor: Vendor, good: Envelope) -> None:
        assert verdict_on(good, vendor, payload=measure(io.BytesIO(make_image()), algorithm=-44)).code == "image.digest"

    def test_by_component(self, vendor: Vendor, good: Envelope) -> None:
        image = make_image()
        assert verdict_on(good, vendor, payload=measure_images({"main": image}))
        for images in ({}, {"other": image}, {"main": image, "other": image}):
            assert verdict_on(good, vendor, payload=measure_images(images)).code == "image.digest"


MAIN, RADIO = make_image(1000, "main"), make_image(300, "radio")
BOTH = {"main": MAIN, "radio": RADIO}
TWO = replace(PUMP, components=("main", "radio"))


@pytest.fixture(scope="module")
def two(vendor: Vendor) -> Envelope:
    return sign_envelope(make_envelope(BOTH, model=TWO), vendor.release_signers)


class TestComponents:
    """A model of two components: both in every release, in its order, and each image the signed one."""

    def judged(self, envelope: Envelope, vendor: Vendor, images: Mapping[str, bytes] = BOTH) -> Verdict:
        return verdict_on(envelope, vendor, target=Target(model=TWO), payload=measure_images(images))

    def test_both_together_are_the_release(self, vendor: Vendor, two: Envelope) -> None:
        release = self.judged(two, vendor).require()
        assert (release.size, release.digest) == (1300, hashlib.sha256(MAIN + RADIO).digest())
        assert [(one.id, one.size) for one in release.components] == [("main", 1000), ("radio", 300)]
        shown = self.judged(two, vendor).to_json("x")["release"]
        assert isinstance(shown, dict)
        assert (shown["size"], shown["digest"]) == (1300, hashlib.sha256(MAIN + RADIO).hexdigest())
        assert shown["components"] == [
            {"id": name, "digest": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in BOTH.items()
        ]

    def test_unseen_images_have_no_digest_of_the_whole(self, vendor: Vendor, two: Envelope) -> None:
        verdict = verdict_on(two, vendor, target=Target(model=TWO), payload=None)
        release = verdict.require()
        assert (release.size, release.digest, release.payload_checked) == (1300, None, False)
        assert verdict.claims is not None
        assert verdict.claims["digest"] is None

    @pytest.mark.parametrize(
        ("images", "code"),
        [
            ({}, "image.digest"),
            ({"main": MAIN}, "image.digest"),
            ({"radio": RADIO}, "image.digest"),
            ({"radio": RADIO, "main": MAIN}, "image.digest"),
            ({"main": RADIO, "radio": MAIN}, "image.size"),
            ({"main": MAIN, "radio": RADIO, "more": b"x"}, "image.digest"),
            ({"main": MAIN, "radio": RADIO[:-1] + b"x"}, "image.digest"),
            ({"main": b"x" + MAIN[1:], "radio": RADIO}, "image.digest"),
            ({"main": MAIN + RADIO[:1], "radio": RADIO[1:]}, "image.size"),
        ],
    )
    def test_any_other_pair_is_refused(
        self, vendor: Vendor, two: Envelope, images: Mapping[str, bytes], code: str
    ) -> None:
        verdict = self.judged(two, vendor, images)
        assert verdict.code == code
        assert verdict.claims is not None
        assert verdict.claims["digest"] is None

    def test_one_image_is_not_taken_for_both(self, vendor: Vendor, two: Envelope) -> None:
        for image in (MAIN, MAIN + RADIO):
            verdict = verdict_on(two, vendor, target=Target(model=TWO), payload=measure(io.BytesIO(image)))
            assert verdict.code == "release.components"
            assert verdict.failure is not None
            assert "--component main=FILE --component radio=FILE" in verdict.failure.detail

    def test_images_of_one_size_do_not_change_places(self, vendor: Vendor) -> None:
        images = {"main": make_image(400, "a"), "radio": make_image(400, "b")}
        envelope = sign_envelope(make_envelope(images, model=TWO), vendor.release_signers)
        assert self.judged(envelope, vendor, images)
        swapped = dict(zip(images, reversed(images.values()), strict=True))
        assert self.judged(envelope, vendor, swapped).code == "image.digest"

    @pytest.mark.parametrize(
        ("components", "code"),
        [
            (("main",), "release.components"),
            (("radio",), "release.components"),
            (("radio", "main"), "release.components"),
            (("main", "radio", "display"), "release.components"),
            (("main", "telemetry"), "release.components"),
            (("main", "radio"), None),
        ],
    )
    def test_a_release_brings_every_component_in_order(
        self, vendor: Vendor, components: tuple[str, ...], code: str | None
    ) -> None:
        model = replace(PUMP, components=components)
        images = {name: make_image(200, name) for name in components}
        envelope = sign_envelope(make_envelope(images, model=model), vendor.release_signers)
        verdict = self.judged(envelope, vendor, images)
        assert verdict.code == code
        assert verdict_on(envelope, vendor, target=Target(), payload=measure_images(images))

    @pytest.mark.parametrize(
        ("sizes", "code"),
        [
            ((1000, 300), None),
            ((PUMP.image_capacity - 300, 300), None),
            ((PUMP.image_capacity, 1), "device.slot"),
            ((1, PUMP.image_capacity), "device.slot"),
            ((2**32 - 1, 2), "device.slot"),
            ((2**63, 2**63), "device.slot"),
            ((2**64 - 1, 2), "device.slot"),
            ((0, 300), "image.size"),
            ((1000, 0), "image.size"),
        ],
    )
    def test_sizes_are_added_up(self, vendor: Vendor, sizes: tuple[int, int], code: str | None) -> None:
        """Signed sizes of any kind; no sum may wrap around into a slot."""
        payload = {name: Measured(SHA_256, bytes(32), 1) for name in TWO.components}
        envelope = build_envelope(describe(TWO), TWO, payload)
        manifest = decode_manifest(envelope.manifest)
        commands = list(manifest.common.shared or ())
        for place, size in zip((1, 3), sizes, strict=True):
            command, values = commands[place]
            assert isinstance(values, dict)
            commands[place] = command, {**values, Parameter.IMAGE_SIZE.value: size}
        encoded = encode_manifest(replace(manifest, common=replace(manifest.common, shared=tuple(commands))))
        envelope = replace(envelope, manifest=encoded, digest=Digest.of_member(encoded).value)
        envelope = sign_envelope(envelope, vendor.release_signers)
        verdict = verdict_on(envelope, vendor, target=Target(model=TWO), payload=None)
        assert verdict.code == code
        if code is None:
            assert verdict.require().size == sum(sizes)


def test_the_first_failure_is_reported_and_all_are_shown(vendor: Vendor, good: Envelope) -> None:
    verdict = verdict_on(
        replace(good, auth_blocks=good.auth_blocks[:1]),
        changed(vendor, revoked_releases=[good.manifest_digest]),
        now=NOW + 400 * DAY,
        target=Target(model=replace(PUMP, name="x"), installed_sequence=9, security_version=9),
        payload=Measured(-16, bytes(32), 1024),
    )
    assert not verdict
    assert verdict.release is None
    failed = [(check.name, check.code) for check in verdict.checks if not check.ok]
    assert failed == [
        ("hybrid", "signature.hybrid"),
        ("threshold", "signature.threshold"),
        ("trust", "trust.expired"),
        ("revocation", "release.revoked"),
        ("class", "image.class"),
        ("sequence", "version.rollback"),
        ("security-version", "version.rollback"),
        ("image", "image.digest"),
    ]
    assert verdict.code == "signature.hybrid"
    with pytest.raises(Refused) as caught:
        verdict.require()
    assert caught.value.code == "signature.hybrid"


def _roots() -> tuple[str, ...]:
    return tuple(seat.person for seat in CAST if seat.role is RoleName.ROOT)


def test_every_step_s_failure_refuses(vendor: Vendor, good: Envelope, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever single step fails, the whole does: no step is decoration."""
    from devguard.verdict.steps import Steps

    honest: Callable[[Steps, str, Callable[[], str]], None] = Steps.step
    for broken in STEPS:

        def faulty(self: Steps, name: str, judge_it: Callable[[], str], broken: str = broken) -> None:
            if name == broken:
                honest(self, name, lambda: (_ for _ in ()).throw(Refused("signature.invalid", "made to fail")))
            else:
                honest(self, name, judge_it)

        monkeypatch.setattr(Steps, "step", faulty)
        verdict = verdict_on(good, vendor)
        assert not verdict
        assert verdict.code == "signature.invalid"
        assert verdict.failure is not None
        assert verdict.failure.name == broken


def test_an_image_that_contradicts_its_manifest_is_refused() -> None:
    from devguard.image.inside import Inside

    vendor = make_vendor()
    envelope = read_envelope(io.BytesIO(make_release(vendor)))
    other = replace(measure_payload(envelope), inside=Inside((9, 9, 9), None, None, None, None))
    verdict = judge(envelope, trust=vendor.trust, now=NOW, target=Target(), payload=other)
    assert verdict.code == "image.format"
    assert "9.9.9" in next(check.detail for check in verdict.checks if not check.ok)

"""Reading, judging and making trust documents: root signatures, forms, roles, persons, development marks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import CAST, DAY, NOW, Seat, Vendor, make_signer, make_vendor, reissue, trust_roles
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_GRANT, TYP_TRUST, read_sign, sign1, sign_many
from devguard.errors import DevguardError, LocalProtocolError
from devguard.trust import codec
from devguard.trust.document import add_root_signature, build_trust, check_time, peek_trust, read_trust, trust_payload
from devguard.trust.model import MAX_DOCUMENT, TrustDocument
from devguard.trust.published import PUBLISHED_TEST_KEYS
from devguard.trust.show import as_dict


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return make_vendor("trust", floors={"insulin-pump": 2**63}, revoked=[bytes(32)], kept_releases=[bytes(48)])


def code_of(data: bytes) -> str:
    with pytest.raises(DevguardError) as caught:
        read_trust(data)
    return caught.value.code


def root_signers(vendor: Vendor) -> list[Any]:
    return [signer for seat, signer in vendor.seats if seat.role is RoleName.ROOT]


def altered(vendor: Vendor, **labels: Any) -> bytes:
    """The vendor's payload with labels replaced (None: removed), signed by its roots all the same."""
    payload = wire.decode(read_sign(vendor.trust_bytes).payload or b"")
    for name, value in labels.items():
        label = int(name[1:]) if name.startswith("_") else int(codec.Label[name.upper()])
        payload.pop(label, None)
        if value is not None:
            payload[label] = value
    return sign_many(root_signers(vendor), wire.encode(payload), typ=TYP_TRUST).encode()


def test_what_is_built_is_read(vendor: Vendor) -> None:
    doc = read_trust(vendor.trust_bytes)
    assert doc == vendor.trust
    assert doc.floors == {"insulin-pump": 2**63}
    assert doc.is_revoked(bytes(32))
    assert doc.kept_releases == {bytes(48)}
    root = doc.role(RoleName.ROOT)
    assert root is not None
    assert root.threshold == 2
    assert codec.encode_payload(doc) == read_sign(vendor.trust_bytes).payload


def test_find_names_role_and_person(vendor: Vendor) -> None:
    signer = vendor.signer(RoleName.QUALITY)
    [(role, entry)] = vendor.trust.find(signer.key.thumbprint)
    assert (role, entry.person) == (RoleName.QUALITY, "Quinn Quality")
    assert vendor.trust.find(bytes(32)) == []


def test_show_is_json_of_public_facts(vendor: Vendor) -> None:
    import json

    doc, quorum = peek_trust(vendor.trust_bytes)
    shown = json.loads(json.dumps(as_dict(doc, quorum)))
    assert shown["roles"]["root"]["threshold"] == 2
    assert shown["roles"]["quality"]["keys"][0]["person"] == "Quinn Quality"
    assert shown["signed"] == {"enough": True, "persons": ["Rhea Root", "Ruth Root"], "missing": 0}
    assert shown["issued"] == "2027-01-14T08:00:00Z"


class TestRootSignatures:
    def test_too_few_persons(self, vendor: Vendor) -> None:
        data = build_trust(vendor.trust, root_signers(vendor)[:1])
        assert code_of(data) == "trust.signature"
        doc, quorum = peek_trust(data)
        assert (doc, quorum.missing) == (vendor.trust, 1)
        assert "1 more needed" in quorum.explanation

    def test_the_second_signature_completes_it(self, vendor: Vendor) -> None:
        one, two = root_signers(vendor)
        data = add_root_signature(build_trust(vendor.trust, [one]), two)
        assert read_trust(data) == vendor.trust
        with pytest.raises(DevguardError) as caught:
            add_root_signature(data, two)
        assert caught.value.code == "release.duplicate"

    def test_one_root_key_signing_twice_counts_once(self, vendor: Vendor) -> None:
        one = root_signers(vendor)[0]
        payload = codec.encode_payload(vendor.trust)
        assert code_of(sign_many([one, one], payload, typ=TYP_TRUST).encode()) == "trust.signature"

    def test_one_person_with_two_root_keys_counts_once(self) -> None:
        cast = (
            Seat(RoleName.ROOT, "Rhea Root", Algorithm.ESP256),
            Seat(RoleName.ROOT, "RHEA  root", Algorithm.ED25519),
            Seat(RoleName.ROOT, "Ruth Root", Algorithm.ESP384),
        )
        vendor = make_vendor("twice", cast=cast)
        data = build_trust(vendor.trust, root_signers(vendor)[:2])
        assert code_of(data) == "trust.signature"

    def test_a_key_of_another_role_does_not_sign_as_root(self, vendor: Vendor) -> None:
        payload = codec.encode_payload(vendor.trust)
        others = [vendor.signer(role) for role in (RoleName.RELEASE, RoleName.QUALITY, RoleName.TECHNICIAN_AUTHORITY)]
        assert code_of(sign_many(others, payload, typ=TYP_TRUST).encode()) == "trust.signature"
        with pytest.raises(DevguardError) as caught:
            build_trust(vendor.trust, others)
        assert caught.value.code == "key.purpose"

    def test_a_stranger_beside_enough_roots_is_left_alone(self, vendor: Vendor) -> None:
        signers = [make_signer(seed="stranger"), *root_signers(vendor)]
        data = sign_many(signers, codec.encode_payload(vendor.trust), typ=TYP_TRUST).encode()
        assert read_trust(data) == vendor.trust

    def test_an_invalid_root_signature_refuses_even_beside_enough(self) -> None:
        vendor = make_vendor("three", thresholds={RoleName.ROOT: 1})
        sign = read_sign(vendor.trust_bytes)
        first = sign.signatures[0]
        for bad in (b"", bytes(63), bytes(96), first.signature[:-1] + bytes([first.signature[-1] ^ 1])):
            data = replace(sign, signatures=(replace(first, signature=bad), *sign.signatures[1:])).encode()
            assert code_of(data) == "trust.signature"

    def test_a_revoked_root_key_counts_for_nothing(self, vendor: Vendor) -> None:
        one = root_signers(vendor)[0]
        doc = replace(vendor.trust, revoked=frozenset({one.key.thumbprint}), digest=b"")
        assert code_of(build_trust(doc, root_signers(vendor))) == "trust.signature"

    @pytest.mark.parametrize(("not_before", "not_after"), [(NOW, None), (None, NOW + DAY)])
    def test_a_root_key_must_cover_the_life_of_the_document(
        self, not_before: int | None, not_after: int | None
    ) -> None:
        cast = (Seat(RoleName.ROOT, "Rhea Root", not_before=not_before, not_after=not_after),)
        with pytest.raises(DevguardError) as caught:
            make_vendor("short", cast=cast, thresholds={})
        assert caught.value.code == "trust.signature"
        reach = {"issued": NOW + 1, "expires": NOW + DAY - 1}
        assert make_vendor("short", cast=cast, thresholds={}, **reach).trust.version == 1

    @pytest.mark.parametrize("typ", [TYP_GRANT, None, "application/other"])
    def test_another_kind_of_object_is_no_trust_document(self, vendor: Vendor, typ: str | None) -> None:
        payload = codec.encode_payload(vendor.trust)
        assert code_of(sign_many(root_signers(vendor), payload, typ=typ).encode()) == "key.purpose"

    def test_a_single_signature_object_is_no_trust_document(self, vendor: Vendor) -> None:
        one = root_signers(vendor)[0]
        data = sign1(one, codec.encode_payload(vendor.trust), typ=TYP_TRUST).encode()
        assert code_of(data) == "trust.malformed"

    def test_an_unsigned_document(self, vendor: Vendor) -> None:
        sign = read_sign(vendor.trust_bytes)
        assert code_of(replace(sign, signatures=()).encode()) == "trust.malformed"
        assert code_of(replace(sign, payload=None).encode()) == "trust.malformed"
        assert code_of(sign.encode(tagged=False)) == "trust.malformed"
        with pytest.raises(LocalProtocolError):
            build_trust(vendor.trust, [])

    def test_headers_that_nobody_signed(self, vendor: Vendor) -> None:
        sign = read_sign(vendor.trust_bytes)
        assert code_of(replace(sign, unprotected={99: 1}).encode()) == "trust.malformed"
        riding = replace(sign.signatures[0], unprotected={99: 1})
        assert code_of(replace(sign, signatures=(riding, *sign.signatures[1:])).encode()) == "trust.malformed"


class TestForm:
    @pytest.mark.parametrize("label", [one for one in codec.Label if one is not codec.Label.REQUIRE_SBOM])
    def test_every_field_must_be_there(self, vendor: Vendor, label: codec.Label) -> None:
        assert code_of(altered(vendor, **{f"_{int(label)}": None})) == "trust.malformed"

    @pytest.mark.parametrize(
        "labels",
        [
            {"version": 0},
            {"version": -1},
            {"version": True},
            {"version": 2**64 - 1},
            {"issued": NOW + 999 * DAY},
            {"expires": 2**62},
            {"development": 1},
            {"roles": []},
            {"roles": {}},
            {"revoked_keys": [b"short"]},
            {"revoked_keys": [b"\x02" * 32, b"\x01" * 32]},
            {"revoked_keys": [bytes(32), bytes(32)]},
            {"floors": {"": 1}},
            {"floors": {"pump": -1}},
            {"floors": {7: 1}},
            {"floors": {"pump\n": 1}},
            {"max_step": 0},
            {"max_step": 2**32},
            {"revoked_releases": [bytes(31)]},
            {"kept_releases": "no"},
            {"grant_epoch": -1},
            {"grant_epoch": 2**32},
            {"require_device_nonce": None, "_13": 1},
            {"require_sbom": False},
            {"require_sbom": 1},
            {"_99": 1},
            {"_0": 1},
        ],
        ids=str,
    )
    def test_fields_out_of_range(self, vendor: Vendor, labels: dict[str, Any]) -> None:
        assert code_of(altered(vendor, **labels)) == "trust.malformed"

    def test_a_newer_format_asks_for_an_update(self, vendor: Vendor) -> None:
        with pytest.raises(DevguardError) as caught:
            read_trust(altered(vendor, format=2, _99="anything"))
        assert (caught.value.code, caught.value.hint) == ("trust.malformed", "update devguard")

    def test_truncation_at_every_byte(self, vendor: Vendor) -> None:
        for length in range(0, len(vendor.trust_bytes), 7):
            assert code_of(vendor.trust_bytes[:length]) == "trust.malformed"

    def test_trailing_bytes(self, vendor: Vendor) -> None:
        assert code_of(vendor.trust_bytes + b"\x00") == "trust.malformed"

    def test_a_document_too_large_is_not_parsed(self) -> None:
        assert code_of(bytes(MAX_DOCUMENT + 1)) == "trust.malformed"

    @pytest.mark.parametrize(
        "data",
        [b"", b"\x00", b"\xd8\x62" + b"\x81" * 10_000, b"\xd8\x62\x9b" + b"\xff" * 8, b"\xd8\x62\x5a\xff\xff\xff\xff"],
    )
    def test_garbage(self, data: bytes) -> None:
        assert code_of(data) == "trust.malformed"

    @settings(max_examples=60)
    @given(st.data())
    def test_one_flipped_bit_is_never_accepted(self, vendor: Vendor, data: st.DataObject) -> None:
        raw = bytearray(vendor.trust_bytes)
        at = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[at // 8] ^= 1 << at % 8
        assert code_of(bytes(raw))

    @settings(max_examples=60)
    @given(st.binary(max_size=200))
    def test_any_other_payload_refuses(self, payload: bytes) -> None:
        with pytest.raises(DevguardError):
            codec.decode_payload(payload)


class TestRoles:
    @pytest.mark.parametrize("threshold", [0, 3, 2**32])
    def test_a_threshold_that_is_none_or_cannot_be_met(self, threshold: int) -> None:
        with pytest.raises(DevguardError) as caught:
            make_vendor("threshold", thresholds={RoleName.ROOT: threshold})
        assert caught.value.code == "trust.malformed"

    def test_a_threshold_counts_persons_not_keys(self) -> None:
        cast = (Seat(RoleName.ROOT, "Rhea Root"), Seat(RoleName.ROOT, "rhea root", Algorithm.ED25519))
        with pytest.raises(DevguardError) as caught:
            make_vendor("persons", cast=cast)
        assert caught.value.code == "trust.malformed"
        assert "asks for 2 persons and lists 1" in caught.value.message

    def test_without_root(self) -> None:
        seats = [(seat, make_signer(seat.algorithm, seat.person)) for seat in CAST if seat.role is not RoleName.ROOT]
        with pytest.raises(DevguardError) as caught:
            trust_payload(version=1, issued=NOW, expires=NOW + DAY, roles=trust_roles(seats))
        assert caught.value.code == "trust.malformed"

    def test_one_key_twice_in_a_role(self) -> None:
        cast = (*CAST, Seat(RoleName.RELEASE, "Remy Release", seed="x"), Seat(RoleName.RELEASE, "Remy", seed="x"))
        with pytest.raises(DevguardError) as caught:
            make_vendor("dup", cast=cast)
        assert caught.value.code == "trust.malformed"

    def test_one_key_in_two_roles_is_for_development_only(self) -> None:
        cast = (
            Seat(RoleName.ROOT, "Rhea Root"),
            Seat(RoleName.RELEASE, "Remy Release", seed="x"),
            Seat(RoleName.QUALITY, "Remy Release", seed="x"),
        )
        with pytest.raises(DevguardError) as caught:
            make_vendor("two-roles", cast=cast, thresholds={})
        assert caught.value.code == "trust.malformed"
        assert make_vendor("two-roles", cast=cast, thresholds={}, development=True).trust.development

    def test_one_key_of_two_persons_is_never_allowed(self) -> None:
        cast = (
            Seat(RoleName.ROOT, "Rhea Root"),
            Seat(RoleName.RELEASE, "Remy Release", seed="x"),
            Seat(RoleName.QUALITY, "Quinn Quality", seed="x"),
        )
        with pytest.raises(DevguardError) as caught:
            make_vendor("puppet", cast=cast, thresholds={}, development=True)
        assert caught.value.code == "trust.malformed"

    @pytest.mark.parametrize("role", [RoleName.STATION, RoleName.WITNESS])
    def test_a_role_refuses_algorithms_it_does_not_list(self, role: RoleName) -> None:
        cast = (*CAST[:2], Seat(role, "Bench 2", Algorithm.ESP256))
        with pytest.raises(DevguardError) as caught:
            make_vendor("alg", cast=cast)
        assert caught.value.code == "signature.algorithm"

    def test_too_many_keys(self, vendor: Vendor) -> None:
        root = wire.decode(read_sign(vendor.trust_bytes).payload or b"")[int(codec.Label.ROLES)]
        key = root[1][1][0]
        assert code_of(altered(vendor, roles={**root, 2: [1, [key] * 257]})) == "trust.malformed"

    @pytest.mark.parametrize(
        "person", ["", " Remy", "Remy\n", "Re\u0000my", "x" * 129, "\u202eymeR", "Re\u0301my", "\u200b"]
    )
    def test_names_that_cannot_be_shown_or_compared(self, person: str) -> None:
        with pytest.raises(DevguardError) as caught:
            make_vendor("names", cast=(*CAST[:2], Seat(RoleName.RELEASE, person, seed="x")))
        assert caught.value.code == "trust.malformed"

    @pytest.mark.parametrize("extra", [{2: b"kid"}, {4: [2]}, {-4: bytes(32)}, {99: 1}])
    def test_a_key_carries_nothing_but_itself(self, vendor: Vendor, extra: dict[int, Any]) -> None:
        roles = wire.decode(read_sign(vendor.trust_bytes).payload or b"")[int(codec.Label.ROLES)]
        roles[2][1][0][1].update(extra)
        assert code_of(altered(vendor, roles=roles)) == "trust.malformed"

    @pytest.mark.parametrize("entry", [{}, {1: {}}, {9: 1}, {3: False}, {4: 9, 5: 8}, {4: -1}, {5: "x"}])
    def test_key_entries_out_of_form(self, vendor: Vendor, entry: dict[int, Any]) -> None:
        roles = wire.decode(read_sign(vendor.trust_bytes).payload or b"")[int(codec.Label.ROLES)]
        roles[2][1][0] = {**roles[2][1][0], **entry} if entry else {}
        assert code_of(altered(vendor, roles=roles)) == "trust.malformed"

    def test_weak_keys(self, vendor: Vendor) -> None:
        roles = wire.decode(read_sign(vendor.trust_bytes).payload or b"")[int(codec.Label.ROLES)]
        roles[6][1][0][1][-2] = bytes([1]) + bytes(31)  # the neutral element of Ed25519
        assert code_of(altered(vendor, roles=roles)) == "key.weak"


class TestDevelopmentKeys:
    CAST = (*CAST, Seat(RoleName.RELEASE, "Dev", development=True))

    def test_a_marked_key_in_a_production_document(self) -> None:
        with pytest.raises(DevguardError) as caught:
            make_vendor("dev", cast=self.CAST)
        assert caught.value.code == "key.development"
        assert make_vendor("dev", cast=self.CAST, development=True).trust.development

    def test_a_published_test_key_without_mark(self, vectors: Any) -> None:
        from devguard.cose.keys import CoseKey
        from devguard.trust.model import KeyEntry, Role

        seats = [(seat, make_signer(seat.algorithm, seat.person)) for seat in CAST]
        for path in ("suit/public_key.pem", "mcuboot/keys/root-ec-p256.pub.pem", "mcuboot/keys/root-ed25519.pub.pem",
                     "mcuboot/keys/root-ec-p384.pub.pem"):  # fmt: skip
            key = CoseKey.from_pem((vectors / path).read_bytes())
            assert key.thumbprint in PUBLISHED_TEST_KEYS
            roles = {**trust_roles(seats), RoleName.RELEASE: Role(1, (KeyEntry(key, "Remy Release"),))}
            with pytest.raises(DevguardError) as caught:
                trust_payload(version=1, issued=NOW, expires=NOW + DAY, roles=roles)
            assert caught.value.code == "key.development"


class TestTime:
    @pytest.mark.parametrize(
        ("now", "code"),
        [
            (NOW, None),
            (NOW - 2 * DAY, None),
            (NOW - 2 * DAY - 1, "trust.not-yet"),
            (NOW + 365 * DAY - 1, None),
            (NOW + 365 * DAY, "trust.expired"),
        ],
    )
    def test_window(self, vendor: Vendor, now: int, code: str | None) -> None:
        if code is None:
            check_time(vendor.trust, now)
            return
        with pytest.raises(DevguardError) as caught:
            check_time(vendor.trust, now)
        assert caught.value.code == code


def test_a_stale_digest_is_not_signed_over(vendor: Vendor) -> None:
    doc: TrustDocument = replace(vendor.trust, version=2)
    with pytest.raises(LocalProtocolError):
        build_trust(doc, root_signers(vendor))


@settings(max_examples=40)
@given(
    version=st.integers(1, 2**63 - 1),
    floors=st.dictionaries(st.sampled_from(["pump", "programmer", "x"]), st.integers(0, 2**64 - 1)),
    revoked=st.sets(st.binary(min_size=32, max_size=32), max_size=4),
    releases=st.sets(st.binary(min_size=64, max_size=64), max_size=4),
    epoch=st.integers(0, 2**32 - 1),
    step=st.integers(1, 2**32 - 1),
    nonce=st.booleans(),
)
def test_build_then_read_gives_the_same(
    vendor: Vendor, version: int, floors: Any, revoked: Any, releases: Any, epoch: int, step: int, nonce: bool
) -> None:
    again = reissue(
        vendor.seats[:2], version=version, floors=floors, revoked=revoked, revoked_releases=releases,
        grant_epoch=epoch, max_step=step, require_device_nonce=nonce,
    )  # fmt: skip
    assert again.trust.floors == floors
    assert again.trust.revoked == revoked
    assert again.trust.revoked_releases == releases
    assert (again.trust.version, again.trust.grant_epoch, again.trust.max_step) == (version, epoch, step)
    assert again.trust.require_device_nonce is nonce


def test_map_keys_that_python_cannot_tell_apart(vendor: Vendor) -> None:
    # 1 and true are different CBOR keys and one Python key; the payload map must not be read through the second.
    payload = read_sign(vendor.trust_bytes).payload or b""
    assert payload[0] == 0xAD
    forged = bytes([0xAE]) + payload[1:] + b"\xf5\x01"
    data = sign_many(root_signers(vendor), forged, typ=TYP_TRUST).encode()
    assert cbor2.loads(forged) == cbor2.loads(payload)
    assert code_of(data) == "trust.malformed"

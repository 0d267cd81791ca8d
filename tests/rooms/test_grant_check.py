"""The check of a grant: who signed, when, for what device, action and holder; every refusal by its code."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from builders import CAST, DAY, NOW, Seat, changed, judge_bytes, make_release, make_signer, make_vendor
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_CREDENTIAL, sign1, sign_many
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, LocalProtocolError
from devguard.grant.chain import delegate_grant
from devguard.grant.check import CheckedGrant, check_pair
from devguard.grant.claims import ANY, Action, read_grant
from devguard.grant.uses import FLOOR_STEP, Spent
from devguard.manifest.model import Clock
from devguard.trust.published import PUBLISHED_TEST_KEYS
from devguard.verdict.release import Release
from grant_support import AUTHORITY, CTI, DEVICE, HOUR, NONCE, TESS, TOM, VENDOR, check, make_grant, scoped

TRUST_FIELDS: dict[str, Any] = {"grant_epoch": 3}


def refusal(grant: Any = None, **arguments: Any) -> str:
    with pytest.raises(DevguardError) as caught:
        check(make_grant() if grant is None else grant, **arguments)
    return caught.value.code


def release(**fields: Any) -> Release:
    return judge_bytes(make_release(VENDOR, **fields), VENDOR).require()


def test_a_good_grant_passes_and_says_what_it_is_for() -> None:
    checked = check(make_grant())
    assert (checked.action, checked.holder, checked.moves) == (Action.UPDATE, TESS.key, True)
    assert checked.trust_digest == VENDOR.trust.digest
    checked.covers(release())
    for form in (make_grant().untagged, make_grant().tagged):
        check(read_grant(form))


def test_edges_of_its_life() -> None:
    grant = make_grant(not_before=NOW + 60)
    check(grant, now=NOW + 60)
    check(grant, now=NOW + 8 * HOUR - 1)
    assert refusal(grant, now=NOW + 59) == "grant.not-yet"
    assert refusal(grant, now=NOW + 8 * HOUR) == "grant.expired"
    checked = check(grant, now=NOW + 60)
    checked.still_valid(NOW + 8 * HOUR - 1)
    with pytest.raises(DevguardError, match=r"grant\.expired"):
        checked.still_valid(NOW + 8 * HOUR)


def test_only_a_technician_authority_may_sign() -> None:
    for role in RoleName:
        if role is RoleName.TECHNICIAN_AUTHORITY or VENDOR.trust.role(role) is None:
            continue
        assert refusal(make_grant(signers=[VENDOR.signer(role)])) == "key.purpose", role
    assert refusal(make_grant(signers=[make_signer(seed="stranger")])) == "key.unknown"
    assert refusal(make_grant(signers=[TOM])) == "key.unknown"


def test_another_kind_of_object_by_the_authority_refuses() -> None:
    token = sign1(AUTHORITY, make_grant().token.payload, typ=TYP_CREDENTIAL).encode()
    assert refusal(read_grant(token)) == "key.purpose"
    untyped = sign1(AUTHORITY, make_grant().token.payload, typ=None).encode()
    assert refusal(read_grant(untyped)) == "key.purpose"


def test_every_flipped_byte_refuses() -> None:
    data = make_grant().tagged
    for position in range(len(data)):
        bad = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(DevguardError):
            check(read_grant(bad), holder=None)


def test_a_changed_signature_is_grant_signature() -> None:
    data = make_grant().tagged
    assert refusal(read_grant(data[:-1] + bytes([data[-1] ^ 1]))) == "grant.signature"


def test_authority_keys_are_revoked_and_expire() -> None:
    revoked = changed(VENDOR, revoked=[AUTHORITY.key.thumbprint], **TRUST_FIELDS).trust
    assert refusal(trust=revoked) == "key.revoked"
    holder = changed(VENDOR, revoked=[TESS.key.thumbprint], **TRUST_FIELDS).trust
    assert refusal(trust=holder) == "key.revoked"
    cast = [seat for seat in CAST if seat.role is not RoleName.TECHNICIAN_AUTHORITY]
    late = make_vendor("grants", cast=[*cast, Seat(RoleName.TECHNICIAN_AUTHORITY, "Thea Authority", not_after=NOW - 1)])
    grant = make_grant(signers=[late.signer(RoleName.TECHNICIAN_AUTHORITY)])
    assert refusal(grant, trust=late.trust) == "grant.signature"


def test_a_threshold_counts_different_persons() -> None:
    role = RoleName.TECHNICIAN_AUTHORITY
    seats = [
        Seat(role, "Thea Authority"),
        Seat(role, "Thea Authority", Algorithm.ED25519),
        Seat(role, "Theo Authority", seed="o"),
    ]
    vendor = make_vendor(
        "two", cast=[*(seat for seat in CAST if seat.role is not role), *seats],
        thresholds={RoleName.ROOT: 2, role: 2}, grant_epoch=3,
    )  # fmt: skip
    thea, thea_too = vendor.signer(role), vendor.signer(role, algorithm=Algorithm.ED25519)
    theo = vendor.signer(role, "Theo Authority")
    check(make_grant(signers=[thea, theo]), trust=vendor.trust)
    check(make_grant(signers=[thea, theo, make_signer(seed="cosigner")]), trust=vendor.trust)
    for few in ([thea], [thea, thea_too], [thea, thea]):
        assert refusal(make_grant(signers=few), trust=vendor.trust) == "grant.signature"
    assert refusal(make_grant(signers=[thea, make_signer(seed="x")]), trust=vendor.trust) == "key.unknown"
    broken = make_grant(signers=[thea, theo])
    swapped = sign_many([thea, theo], make_grant(cti=b"f" * 16).token.payload, typ="application/devguard-grant+cwt")
    mixed = replace(swapped, payload=broken.token.payload).encode()
    assert refusal(read_grant(mixed), trust=vendor.trust) == "grant.signature"


def test_nobody_grants_themselves() -> None:
    for subject in ("Thea Authority", "thea  authority", "THEA AUTHORITY"):
        assert refusal(make_grant(subject=subject)) == "grant.signature"


def test_nobody_grants_themselves_through_a_puppet() -> None:
    parent = make_grant()
    for subject, holder in (("THEA authority", TOM.key), ("Tom Technician", AUTHORITY.key)):
        back = delegate_grant(
            parent, TESS, subject=subject, holder=holder, scope=parent.scope, now=NOW, expires=NOW + HOUR, cti=b"b" * 16
        )
        assert refusal(read_grant(back), holder=None) == "grant.signature"


def test_epochs() -> None:
    assert refusal(make_grant(scoped(epoch=2))) == "grant.revoked"
    assert refusal(device=replace(DEVICE, epoch=4)) == "grant.revoked"
    check(make_grant(scoped(epoch=19)))
    assert refusal(make_grant(scoped(epoch=20))) == "grant.revoked"
    check(make_grant(scoped(epoch=20)), device=replace(DEVICE, epoch=4))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"models": frozenset({"pacemaker-programmer"})}, "grant.scope"),
        ({"models": frozenset()}, "grant.scope"),
        ({"serials": frozenset({"IP-0002", "IP-00011", "IP-000"})}, "grant.scope"),
        ({"serials": frozenset()}, "grant.scope"),
        ({"sites": frozenset({"ward-5"})}, "grant.scope"),
        ({"sites": frozenset()}, "grant.scope"),
        ({"hours": (0, 0)}, "grant.scope"),
        ({"hours": (NOW // 60 % 1440 + 1, NOW // 60 % 1440 + 2)}, "grant.scope"),
        ({"max_uses": 0}, "grant.scope"),
        ({"actions": frozenset({Action.RECOVER})}, "grant.action"),
        ({"actions": frozenset()}, "grant.action"),
        ({"trained_until": NOW}, "grant.training"),
        ({"trained_until": 0}, "grant.training"),
        ({"device_nonce": b"another-nonce"}, "grant.replay"),
    ],
)
def test_what_the_scope_does_not_say_is_denied(fields: dict[str, Any], code: str) -> None:
    assert refusal(make_grant(scoped(**fields))) == code


def test_what_the_scope_says_is_allowed() -> None:
    minute = NOW // 60 % 1440
    for fields in (
        {"models": frozenset({ANY})},
        {"serials": frozenset({ANY})},
        {"sites": frozenset({"ward-4", "ward-5"})},
        {"actions": frozenset({ANY})},
        {"hours": (minute, minute + 1)},
        {"trained_until": NOW + 1},
        {"device_nonce": NONCE},
        {"max_uses": 1},
    ):
        check(make_grant(scoped(**fields)))
    assert refusal(make_grant(scoped(sites=frozenset({"ward-4"}))), device=replace(DEVICE, site=None)) == "grant.scope"
    check(make_grant(), device=replace(DEVICE, site=None))


def test_actions_are_apart() -> None:
    log = make_grant(scoped(actions=frozenset({Action.READ_LOG})))
    assert refusal(log) == "grant.action"
    checked = check(log, action=Action.READ_LOG)
    with pytest.raises(DevguardError, match=r"grant\.action"):
        checked.covers(release())


def test_the_holder_must_be_the_one_named() -> None:
    assert refusal(holder=TOM.key) == "grant.holder"
    check(make_grant(), holder=None)


def test_nonces_and_devices_without_a_clock() -> None:
    strict = changed(VENDOR, require_device_nonce=True, **TRUST_FIELDS).trust
    no_clock = replace(DEVICE, clock=Clock.NONE)
    fresh = make_grant(scoped(device_nonce=NONCE))
    check(make_grant(), device=no_clock)
    check(make_grant(), trust=strict)
    assert refusal(trust=strict, device=no_clock) == "grant.replay"
    check(fresh, trust=strict, device=no_clock)
    assert refusal(fresh, trust=strict, device=replace(no_clock, nonces=frozenset())) == "grant.replay"
    check(fresh, trust=strict, device=replace(no_clock, nonces=None))
    assert refusal(trust=strict, device=replace(no_clock, nonces=None)) == "grant.replay"


def test_without_a_clock_the_authoritys_time_counts() -> None:
    """However old the floor is: a pump nobody visited for a year must take a fresh grant."""
    no_clock = replace(DEVICE, clock=Clock.NONE)
    trust = changed(VENDOR, issued=NOW - 400 * DAY, **TRUST_FIELDS).trust
    check(make_grant(), device=no_clock, now=NOW - 29 * DAY, trust=trust)
    check(make_grant(), device=no_clock, now=NOW - FLOOR_STEP, trust=trust)
    check(make_grant(), device=no_clock, now=NOW - 12 * FLOOR_STEP, trust=trust)
    assert refusal(device=no_clock, now=NOW + 8 * HOUR, trust=trust) == "grant.expired"
    assert refusal(device=DEVICE, now=NOW - 1, trust=trust) == "grant.not-yet"


def test_an_old_trust_document_is_named_only_when_nothing_else_is_wrong() -> None:
    expired = changed(VENDOR, issued=NOW - 9 * DAY, expires=NOW - 1, **TRUST_FIELDS).trust
    stranger = make_signer(seed="stranger")
    assert refusal(trust=expired) == "trust.expired"
    assert refusal(make_grant(signers=[stranger]), trust=expired) == "key.unknown"
    for wrong in ({"holder": TOM.key}, {"now": NOW + 9 * HOUR}, {"device": replace(DEVICE, serial="IP-9")}):
        for grant in (make_grant(), make_grant(signers=[stranger])):
            assert refusal(grant, trust=expired, **wrong) in ("grant.holder", "grant.expired", "grant.scope")
    future = changed(VENDOR, issued=NOW + 2 * DAY, **TRUST_FIELDS).trust
    assert refusal(trust=future) == "trust.not-yet"


def test_covers_the_release_it_names() -> None:
    offered = release()
    check(make_grant(scoped(any_release=False, release_digest=offered.manifest_digest))).covers(offered)
    check(make_grant(scoped(any_release=False, sequences=(2, 2)))).covers(offered)
    for fields in (
        {"any_release": False},
        {"any_release": False, "release_digest": b"d" * 32},
        {"any_release": False, "sequences": (3, 9)},
    ):
        with pytest.raises(DevguardError, match=r"grant\.scope"):
            check(make_grant(scoped(**fields))).covers(offered)
    elsewhere = replace(DEVICE, model="pacemaker-programmer")
    with pytest.raises(DevguardError, match=r"grant\.scope"):
        check(make_grant(scoped(models=frozenset({ANY}))), device=elsewhere).covers(offered)


def test_a_spent_grant_serves_its_own_release_only() -> None:
    offered, other = release(), release(version="1.2.0", sequence=3)
    grant = make_grant(scoped(max_uses=1))
    spent = check(grant).spend(offered, NOW)
    assert spent == {CTI: Spent(offered.manifest_digest, 1, grant.expires)}
    again = check(grant, device=replace(DEVICE, spent=spent))
    again.covers(offered)
    assert again.spend(offered, NOW) == spent
    for act in (again.covers, lambda one: again.spend(one, NOW)):
        with pytest.raises(DevguardError, match=r"grant\.replay"):
            act(other)
    assert check(make_grant()).spend(offered, NOW) == {}


def test_two_technicians_are_two() -> None:
    first = check(make_grant())
    second = check(make_grant(subject="Tom Technician", holder=TOM.key, cti=b"2" * 16), holder=TOM.key)
    check_pair(first, second)
    same_person = check(make_grant(subject="tess technician", holder=TOM.key), holder=TOM.key)
    same_key = check(make_grant(subject="Tom Technician"))
    elsewhere = check(
        make_grant(scoped(serials=frozenset({"IP-2"})), subject="Tom Technician", holder=TOM.key),
        holder=TOM.key, device=replace(DEVICE, serial="IP-2"),
    )  # fmt: skip
    reader = check(
        make_grant(scoped(actions=frozenset({ANY})), subject="Tom Technician", holder=TOM.key),
        holder=TOM.key, action=Action.READ_LOG,
    )  # fmt: skip
    for other in (first, same_person, same_key, elsewhere, reader):
        with pytest.raises(DevguardError, match=r"grant\.quorum"):
            check_pair(first, other)


def test_the_proof_cannot_be_made_or_copied() -> None:
    checked = check(make_grant())
    fields = (checked.grant, checked.action, checked.chain, checked.device, checked.trust_digest)
    for act in (
        lambda: CheckedGrant(*fields, proof=object()),
        lambda: replace(checked, action=Action.RECOVER, proof=None),
        lambda: copy.copy(checked),
        lambda: pickle.dumps(checked),
        lambda: type("Mine", (CheckedGrant,), {}),
    ):
        with pytest.raises((LocalProtocolError, TypeError)):
            act()


@pytest.mark.parametrize("algorithm", [Algorithm.ESP256, Algorithm.ED25519])
def test_a_technician_s_key_that_anybody_can_download_is_none(algorithm: Algorithm) -> None:
    """A published test key: of RFC 6979 A.2.5, and of RFC 8032 test 1."""
    if algorithm is Algorithm.ESP256:
        number = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
        published = MemorySigner(ec.derive_private_key(number, ec.SECP256R1()))
    else:
        seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        published = MemorySigner(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
    assert published.key.thumbprint in PUBLISHED_TEST_KEYS
    known = make_grant(holder=published.key)
    assert refusal(known, holder=published.key) == "key.development"
    bench = changed(VENDOR, development=True, grant_epoch=3)
    assert check(known, holder=published.key, trust=bench.trust).holder == published.key
    # Nor may one hand a grant on with such a key in the middle.
    wide = replace(make_grant(holder=published.key), raw=b"")
    child = read_grant(
        delegate_grant(wide, published, subject="Tom Technician", holder=TOM.key, scope=wide.scope, now=NOW,
                       expires=NOW + HOUR, cti=bytes(16))
    )  # fmt: skip
    assert refusal(child, holder=TOM.key) == "key.development"

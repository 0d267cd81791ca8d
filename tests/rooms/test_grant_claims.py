"""Reading and issuing grants: one spelling, no unknown claims, absent means denied, and stock CWT tools agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import cwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, make_signer
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import TYP_GRANT, sign1
from devguard.errors import DevguardError, LocalProtocolError, Malformed, Refused
from devguard.grant.claims import ANY, MAX_LIFE, Action, Scope, grant_claims, issue_grant, read_grant
from devguard.grant.scope import NO_HOURS, Claim, decode_scope, encode_scope
from devguard.image.kind import Kind, recognise
from grant_support import AUTHORITY, CTI, HOUR, NONCE, SCOPE, TESS, TOM, make_grant, scoped

CLAIMS = grant_claims(
    issuer="authority.example", subject="Tess Technician", holder=TESS.key, scope=SCOPE,
    issued=NOW, not_before=NOW, expires=NOW + HOUR, cti=CTI,
)  # fmt: skip


def token(claims: object, **headers: Any) -> bytes:
    payload = claims if isinstance(claims, bytes) else wire.encode(claims)
    return sign1(AUTHORITY, payload, typ=TYP_GRANT, headers=headers.get("headers")).encode(tagged=False)


def test_round_trip_in_every_form() -> None:
    grant = make_grant()
    assert grant.tagged.startswith(b"\xd8\x3d\xd2")
    assert grant.raw == grant.tagged
    for form in (grant.tagged, grant.tagged[2:], grant.untagged):
        again = read_grant(form)
        assert (again.untagged, again.tagged, again.raw) == (grant.untagged, grant.tagged, form)
        assert replace(again, raw=b"") == replace(grant, raw=b"")
    assert (grant.subject, grant.holder, grant.scope) == ("Tess Technician", TESS.key, SCOPE)
    assert grant.signer_kids == (AUTHORITY.key.thumbprint,)
    assert recognise(grant.tagged) is Kind.GRANT


def test_several_signers_make_a_cose_sign() -> None:
    grant = make_grant(signers=[AUTHORITY, TOM])
    assert grant.tagged.startswith(b"\xd8\x3d\xd8\x62")
    assert read_grant(grant.untagged).signer_kids == (AUTHORITY.key.thumbprint, TOM.key.thumbprint)


NAMES = st.frozensets(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8), max_size=5)
SETS = NAMES | st.just(frozenset({ANY}))
HOURS = st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda pair: pair[0] != pair[1])


@given(
    st.builds(
        Scope,
        models=SETS,
        serials=SETS,
        sites=SETS,
        actions=st.frozensets(st.sampled_from([str(action) for action in Action])) | st.just(frozenset({ANY})),
        epoch=st.integers(0, 2**32 - 1),
        sequences=st.none() | st.tuples(st.integers(0, 9), st.integers(10, 2**64 - 1)),
        hours=st.none() | st.just(NO_HOURS) | HOURS,
        trained_until=st.none() | st.integers(0, 2**40),
        device_nonce=st.none() | st.binary(min_size=8, max_size=64),
    )
)
def test_every_scope_comes_back(scope: Scope) -> None:
    claims = wire.decode(wire.encode(encode_scope(scope)))
    assert decode_scope(claims) == scope
    assert claims == {}


def test_what_is_absent_denies() -> None:
    bare = decode_scope({Claim.EPOCH: 0})
    assert bare == Scope(
        frozenset(), frozenset(), frozenset(), frozenset(), 0, hours=NO_HOURS, max_uses=0, trained_until=0
    )
    assert not bare.allows_release(1, b"d" * 32)
    assert not any(bare.allows_minute(minute) for minute in range(1440))
    assert bare.wide == ()
    assert SCOPE.wide == ("site", "release", "hours", "uses", "training")


def test_daily_hours_may_pass_midnight() -> None:
    day, night = scoped(hours=(480, 1080)), scoped(hours=(1320, 360))
    assert [day.allows_minute(minute) for minute in (479, 480, 1079, 1080)] == [False, True, True, False]
    assert [night.allows_minute(minute) for minute in (1319, 1320, 0, 359, 360)] == [False, True, True, True, False]


def test_releases_are_named_in_one_way() -> None:
    digest = b"d" * 32
    assert scoped(any_release=False, release_digest=digest).allows_release(9, digest)
    assert not scoped(any_release=False, release_digest=digest).allows_release(9, b"e" * 32)
    ranged = scoped(any_release=False, sequences=(3, 5))
    assert [ranged.allows_release(number, digest) for number in (2, 3, 5, 6)] == [False, True, True, False]
    with pytest.raises(Malformed, match=r"grant\.malformed"):
        make_grant(scoped(release_digest=digest))


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": ""},
        {"subject": "x" * 129},
        {"subject": "a\nb"},
        {"subject": " Tess"},
        {"issuer": "\u202eexample"},
        {"cti": b"short"},
        {"expires": NOW},
        {"expires": NOW - 1},
        {"expires": NOW + MAX_LIFE + 1},
        {"expires": 1 << 41},
        {"not_before": NOW - 1},
        {"not_before": NOW + 9 * HOUR},
        {"scope": scoped(models=frozenset({ANY, "insulin-pump"}))},
        {"scope": scoped(actions=frozenset({"format-disk"}))},
        {"scope": scoped(models=frozenset(str(number) for number in range(65)))},
        {"scope": scoped(max_uses=1, serials=frozenset({ANY}))},
        {"scope": scoped(max_uses=1, serials=frozenset({"IP-1", "IP-2"}))},
        {"scope": scoped(max_uses=-1)},
        {"scope": scoped(max_uses=70_000)},
        {"scope": scoped(hours=(5, 5))},
        {"scope": scoped(hours=(0, 1441))},
        {"scope": scoped(any_release=False, sequences=(5, 4))},
        {"scope": scoped(any_release=False, release_digest=b"short")},
        {"scope": scoped(device_nonce=b"1234567")},
        {"scope": scoped(epoch=-1)},
    ],
)
def test_what_would_be_no_grant_is_not_issued(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=r"grant\.malformed"):
        make_grant(**changes)


def test_twelve_hours_are_the_most() -> None:
    assert make_grant(expires=NOW + MAX_LIFE).expires == NOW + MAX_LIFE
    assert make_grant(not_before=NOW + HOUR, expires=NOW + HOUR + MAX_LIFE).not_before == NOW + HOUR


def test_an_authority_does_not_issue_to_its_own_key_or_without_signing() -> None:
    with pytest.raises(Refused, match=r"grant\.signature"):
        make_grant(holder=AUTHORITY.key)
    with pytest.raises(LocalProtocolError):
        make_grant(signers=[])


@pytest.mark.parametrize("algorithm", [Algorithm.ESP384, Algorithm.ML_DSA_44])
def test_a_technicians_key_fits_the_session(algorithm: Algorithm) -> None:
    with pytest.raises(Refused, match=r"signature\.algorithm"):
        make_grant(holder=make_signer(algorithm, "t").key)
    assert make_grant(holder=TOM.key).holder == TOM.key


@pytest.mark.parametrize("label", sorted(CLAIMS))
def test_mandatory_claims_are_missed_and_others_deny(label: int) -> None:
    without = {key: value for key, value in CLAIMS.items() if key != label}
    optional = {Claim.MODELS, Claim.SERIALS, Claim.SITES, Claim.ACTIONS, Claim.RELEASE}
    optional |= {Claim.HOURS, Claim.USES, Claim.TRAINED_UNTIL}
    if label in optional:
        assert read_grant(token(without)).scope != SCOPE
    else:
        with pytest.raises(Malformed, match=r"grant\.malformed"):
            read_grant(token(without))


@pytest.mark.parametrize(
    "more",
    [
        {3: "audience"},
        {9: b"scope"},
        {-65549: 1},
        {-70000: "x"},
        {"text": 1},
        {Claim.FORMAT: 2},
        {Claim.FORMAT: True},
        {4: "soon"},
        {4: True},
        {7: "0123456789abcdef"},
        {8: {1: TESS.key.to_map(), 3: b"kid"}},
        {8: {2: b"x"}},
        {8: {1: {**TESS.key.to_map(), 2: b"kid"}}},
        {8: {1: {**TESS.key.to_map(), -4: b"d" * 32}}},
        {8: TESS.key.to_map()},
        {Claim.MODELS: []},
        {Claim.MODELS: ["b", "a"]},
        {Claim.MODELS: ["a", "a"]},
        {Claim.MODELS: "insulin-pump"},
        {Claim.MODELS: [1]},
        {Claim.RELEASE: [1]},
        {Claim.RELEASE: 5},
        {Claim.RELEASE: "1.2.3"},
        {Claim.HOURS: [0, 0]},
        {Claim.USES: 0},
        {Claim.TRAINED_UNTIL: 0},
        {Claim.NONCE: "text"},
        {Claim.PARENT: "text"},
        {Claim.EPOCH: "*"},
    ],
)
def test_foreign_claims_refuse(more: dict[Any, Any]) -> None:
    with pytest.raises(Malformed, match=r"grant\.malformed"):
        read_grant(token({**CLAIMS, **more}))


def test_wrappers_that_are_not_ours_refuse() -> None:
    good = read_grant(token(CLAIMS))
    protected, unprotected, payload, signature = cbor2.loads(good.untagged)
    assert unprotected == {}
    for bad in (
        b"\xd8\x3d" + good.untagged,
        b"\xd8\x3d\xd8\x62" + good.untagged,
        b"\xd8\x3d" + good.tagged,
        b"\xd8\x62" + good.untagged,
        b"\xd1" + good.untagged,
        good.tagged + b"\0",
        good.untagged + good.untagged,
        wire.encode([protected, {5: b"x"}, payload, signature]),
        wire.encode([protected, {}, None, signature]),
        wire.encode([protected, {}, payload, []]),
        wire.encode([protected, {}, payload, "x"]),
        wire.encode([protected, {}, payload]),
        token(b""),
        token(b"\xa0"),
        token([1]),
        token(wire.encode(CLAIMS) + b"\0"),
        token(b"\xa1\xfb" + b"\0" * 8 + b"\0"),
        b"\x84" * 10_000,
        b"\x9b" + b"\xff" * 8,
        b"\x5b" + b"\x7f" * 8,
        b"",
    ):
        with pytest.raises(Malformed, match=r"grant\.malformed"):
            read_grant(bad)


def test_size_is_limited() -> None:
    many = frozenset(f"SN-{number:0100d}" for number in range(64))
    with pytest.raises(Malformed, match=r"8192"):
        make_grant(scoped(serials=many, models=many))


def test_every_truncation_and_garbage_raise_our_own_error() -> None:
    data = make_grant().tagged
    for length in range(len(data)):
        with pytest.raises(Malformed, match=r"grant\.malformed"):
            read_grant(data[:length])


@given(st.binary(max_size=120), st.integers(0, 400))
def test_garbage_and_overwritten_bytes_raise_our_own_error(data: bytes, at: int) -> None:
    with pytest.raises(DevguardError):
        read_grant(data)
    whole = make_grant().tagged
    codes = {"grant.malformed", "key.weak", "signature.algorithm", None}
    assert code_of_reading(whole[:at] + data + whole[at + len(data) :]) in codes


def code_of_reading(data: bytes) -> str | None:
    try:
        read_grant(data)
    except DevguardError as error:
        return error.code
    return None


def cwt_key(signer: Any, private: bool) -> Any:
    from cryptography.hazmat.primitives import serialization as form

    if private:
        pem = signer.private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    else:
        pem = signer.private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    alg = {Algorithm.ED25519: "EdDSA", Algorithm.ESP256: "ES256"}[signer.algorithm]
    return cwt.COSEKey.from_pem(pem, kid=signer.key.thumbprint, alg=alg)


def test_the_cwt_package_reads_our_claims() -> None:
    from builders import Speaking

    for signer in (Speaking(AUTHORITY, Algorithm.ES256), Speaking(TOM, Algorithm.EDDSA)):
        data = issue_grant(
            [signer], issuer="a", subject="Tess Technician", holder=TESS.key, scope=scoped(device_nonce=NONCE),
            now=NOW, expires=NOW + HOUR, cti=CTI,
        )  # fmt: skip
        # cwt 3.3 knows the older algorithm numbers only; time is judged by us, so its own clock check is given leeway.
        decoded = cwt.CWT.new(leeway=2**33).decode(data, cwt_key(signer.signer, private=False))
        claims = cwt.Claims.new(decoded)
        assert (claims.iss, claims.sub, claims.exp, decoded[7]) == ("a", "Tess Technician", NOW + HOUR, CTI)
        assert decoded[8][1] == TESS.key.to_map()
        assert decoded[Claim.NONCE] == NONCE


def test_we_read_what_the_cwt_package_signs() -> None:
    signed = cwt.COSE.new(alg_auto_inclusion=True, kid_auto_inclusion=False).encode_and_sign(
        wire.encode(CLAIMS),
        cwt_key(AUTHORITY, private=True),
        protected={1: -7, 4: AUTHORITY.key.thumbprint, 16: TYP_GRANT},
        unprotected={},
    )
    grant = read_grant(signed)
    assert grant.scope == SCOPE
    grant.token.verify(0, AUTHORITY.key, TYP_GRANT)

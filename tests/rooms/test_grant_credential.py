"""Device credentials: bound to a serial by a device authority, and by nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from builders import NOW, changed, make_signer
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_CREDENTIAL, TYP_GRANT, sign1
from devguard.errors import DevguardError, Malformed
from devguard.grant.claims import read_grant
from devguard.grant.credential import check_credential, issue_credential, read_credential
from grant_support import AUTHORITY, VENDOR, make_grant

FACTORY = VENDOR.signer(RoleName.DEVICE_AUTHORITY)
DEVICE = make_signer(Algorithm.ESP256, "device")


def issue(signer: Any = FACTORY, **fields: Any) -> bytes:
    given: dict[str, Any] = {
        "issuer": "factory.example",
        "vendor": "devices.devguard.example",
        "model": "insulin-pump",
        "revision": "revA",
        "serial": "IP-0001",
        "key": DEVICE.key,
        "now": NOW,
        **fields,
    }
    return issue_credential(signer, **given)


def code_of(data: bytes, now: int = NOW, trust: Any = VENDOR.trust) -> str:
    with pytest.raises(DevguardError) as caught:
        check_credential(read_credential(data), trust, now)
    return caught.value.code


def test_it_says_who_the_device_is() -> None:
    credential = read_credential(issue())
    identity = check_credential(credential, VENDOR.trust, NOW + 10**9)
    assert (identity.serial, identity.model, identity.revision) == ("IP-0001", "insulin-pump", "revA")
    assert (identity.vendor, identity.key) == ("devices.devguard.example", DEVICE.key)
    assert check_credential(read_credential(credential.untagged), VENDOR.trust, NOW) == identity
    assert read_credential(credential.untagged).tagged == credential.raw


def test_only_a_device_authority_vouches() -> None:
    assert code_of(issue(AUTHORITY)) == "key.purpose"
    assert code_of(issue(make_signer(seed="stranger"))) == "key.unknown"
    data = issue()
    assert code_of(data[:-1] + bytes([data[-1] ^ 1])) == "signature.invalid"
    payload = read_credential(data).token.payload
    assert code_of(sign1(FACTORY, payload, typ=TYP_GRANT).encode()) == "key.purpose"


def test_revoked_keys_and_expiry() -> None:
    for key in (FACTORY.key, DEVICE.key):
        assert code_of(issue(), trust=changed(VENDOR, revoked=[key.thumbprint]).trust) == "key.revoked"
    check_credential(read_credential(issue(expires=NOW + 10)), VENDOR.trust, NOW + 9)
    assert code_of(issue(expires=NOW + 10), now=NOW + 10) == "session.handshake"


def test_a_grant_is_no_credential_and_the_other_way_round() -> None:
    with pytest.raises(Malformed, match=r"session\.handshake"):
        read_credential(make_grant().raw)
    with pytest.raises(Malformed, match=r"grant\.malformed"):
        read_grant(issue())


@pytest.mark.parametrize(
    "fields", [{"serial": ""}, {"serial": "a\x1b[2J"}, {"model": "x" * 129}, {"now": -1}, {"expires": NOW}]
)
def test_impossible_credentials_are_not_issued(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=r"session\.handshake"):
        issue(**fields)


def test_a_devices_key_fits_the_session() -> None:
    with pytest.raises(DevguardError, match=r"signature\.algorithm"):
        issue(key=make_signer(Algorithm.ESP384, "d").key)


def test_missing_and_unknown_claims_and_truncations_refuse() -> None:
    credential = read_credential(issue())
    claims = wire.decode(credential.token.payload)
    for label in claims:
        fewer = wire.encode({key: value for key, value in claims.items() if key != label})
        with pytest.raises(Malformed, match=r"session\.handshake"):
            read_credential(sign1(FACTORY, fewer, typ=TYP_CREDENTIAL).encode())
    with pytest.raises(Malformed, match=r"session\.handshake"):
        read_credential(sign1(FACTORY, wire.encode({**claims, -70000: 1}), typ=TYP_CREDENTIAL).encode())
    for length in range(len(credential.raw)):
        with pytest.raises(Malformed, match=r"session\.handshake"):
            read_credential(credential.raw[:length])

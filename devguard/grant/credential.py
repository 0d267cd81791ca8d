"""A device's credential: a CWT by a device authority that binds vendor, model, revision and serial to a key.

The device proves the key in EDHOC message 2; the bench reads the serial from here and from nowhere else. It does not
expire by default: a therapy device must stay updatable; a lost key is revoked through the trust document.
Standards: RFC 8392, RFC 8747, RFC 9596; devguard formats, "Session".
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_CREDENTIAL, Signer
from devguard.errors import Malformed, Refused
from devguard.grant import cwt
from devguard.grant.claims import HOLDER_ALGORITHMS
from devguard.grant.cwt import (
    Carried,
    Token,
    decode_claims,
    holder_key,
    judge_signers,
    make_token,
    number,
    read_token,
    take,
    text,
)
from devguard.trust.model import TrustDocument

FORMAT_VERSION: Final = 1
CODE: Final = "session.handshake"


class Claim(enum.IntEnum):
    """Private claim keys of a device credential."""

    FORMAT = -65537
    VENDOR = -65553
    MODEL = -65554
    REVISION = -65555


@dataclass(frozen=True, slots=True)
class DeviceCredential(Carried):
    """A credential as read, nothing of it proven. Times are epoch seconds UTC; `expires` None: it does not."""

    issuer: str
    issued: int
    expires: int | None
    vendor: str
    model: str
    revision: str
    serial: str
    key: CoseKey
    raw: bytes
    token: Token


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Which device it is, on a device authority's word. Whether the peer holds `key` is proven by the session."""

    vendor: str
    model: str
    revision: str
    serial: str
    key: CoseKey


def issue_credential(
    signers: Signer | Sequence[Signer],
    *,
    issuer: str,
    vendor: str,
    model: str,
    revision: str,
    serial: str,
    key: CoseKey,
    now: int,
    expires: int | None = None,
) -> bytes:
    """A new credential with tags, by one device-authority key or several; raises as `read_credential`."""
    claims: dict[int, object] = {
        cwt.ISS: issuer,
        cwt.SUB: serial,
        cwt.IAT: now,
        cwt.CNF: cwt.confirmation(key),
        int(Claim.FORMAT): FORMAT_VERSION,
        int(Claim.VENDOR): vendor,
        int(Claim.MODEL): model,
        int(Claim.REVISION): revision,
    }
    if expires is not None:
        claims[cwt.EXP] = expires
    several = signers if isinstance(signers, Sequence) else [signers]
    return read_credential(make_token(several, claims, TYP_CREDENTIAL, CODE).tagged).tagged


def read_credential(data: bytes) -> DeviceCredential:
    """The credential in `data`, tagged or not, at most 8 KiB.

    Raises `Malformed("session.handshake")`, and `Refused` `key.weak` or `signature.algorithm` for its key.
    """
    token = read_token(data, CODE)
    claims = decode_claims(token.payload, CODE)
    version = number(claims.pop(Claim.FORMAT, None), "the format version", CODE)
    if version != FORMAT_VERSION:
        raise Malformed(CODE, f"credential format {version}; this devguard reads {FORMAT_VERSION}", "update devguard")
    issuer = text(take(claims, cwt.ISS, "issuer", CODE), "the issuer", CODE)
    serial = text(take(claims, cwt.SUB, "serial", CODE), "the serial", CODE)
    issued = number(take(claims, cwt.IAT, "issued at", CODE), "issued at", CODE)
    vendor, model, revision = (
        text(take(claims, label, label.name.lower(), CODE), label.name.lower(), CODE)
        for label in (Claim.VENDOR, Claim.MODEL, Claim.REVISION)
    )
    key = holder_key(take(claims, cwt.CNF, "confirmation key", CODE), CODE)
    if key.algorithm not in HOLDER_ALGORITHMS or not key.allows(key.algorithm):
        raise Refused("signature.algorithm", "a device's key is P-256 (ESP256) or Ed25519")
    expires = number(claims.pop(cwt.EXP), "expires", CODE, least=issued + 1) if cwt.EXP in claims else None
    if claims:
        raise Malformed(CODE, f"unknown claim {min(claims)} in a device credential", "update devguard")
    return DeviceCredential(issuer, issued, expires, vendor, model, revision, serial, key, bytes(data), token)


def check_credential(credential: DeviceCredential, trust: TrustDocument, now: int) -> DeviceIdentity:
    """The device's identity, when the trust document's device authority vouches for it and its key is not revoked.

    Raises `Refused`: `key.purpose`, `key.revoked`, `key.unknown`, `signature.algorithm`, `signature.invalid`,
    `signature.threshold`; `session.handshake` when the credential has expired. The document's own time is the caller's.
    """
    judge_signers(
        credential.token,
        typ=TYP_CREDENTIAL,
        role=RoleName.DEVICE_AUTHORITY,
        trust=trust,
        now=now,
        invalid="signature.invalid",
        lacking="signature.threshold",
    )
    if trust.is_revoked(credential.key.thumbprint):
        raise Refused("key.revoked", f"the key of device {credential.serial} is revoked")
    if credential.expires is not None and now >= credential.expires:
        raise Refused(CODE, f"the credential of device {credential.serial} has expired")
    return DeviceIdentity(credential.vendor, credential.model, credential.revision, credential.serial, credential.key)

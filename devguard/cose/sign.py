"""COSE_Sign1 (RFC 9052 section 4.2): read, verify, make; and the door to COSE_Sign (`devguard.cose.many`).

Reading checks form alone and trusts nothing. `verify` checks one key: its policy, the protected `typ` (RFC 9596),
critical headers and the signature. Which key that must be is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Final

import cbor2

from devguard import wire
from devguard.cose.headers import (
    LENIENT,
    Form,
    Headed,
    check_buckets,
    check_critical,
    check_type,
    covered_payload,
    protected_for,
    read_body,
    signed_bytes,
)
from devguard.cose.keys import CoseKey, verify_any
from devguard.cose.many import Signature, SignMany, read_sign, sign_many
from devguard.cose.signer import Signer
from devguard.errors import Malformed

__all__ = [
    "TYP_APPROVAL",
    "TYP_CREDENTIAL",
    "TYP_GRANT",
    "TYP_REPORT",
    "TYP_REQUEST",
    "TYP_SUSPENSIONS",
    "TYP_TRUST",
    "Sign1",
    "SignMany",
    "Signature",
    "Signer",
    "read_sign",
    "read_sign1",
    "sign1",
    "sign_many",
    "verify_any",
]

TAG_SIGN1: Final = 18

TYP_TRUST: Final = "application/devguard-trust+cbor"
TYP_GRANT: Final = "application/devguard-grant+cwt"
TYP_CREDENTIAL: Final = "application/devguard-credential+cwt"
TYP_REQUEST: Final = "application/devguard-grant-request+cwt"
TYP_SUSPENSIONS: Final = "application/devguard-suspensions+cwt"
TYP_APPROVAL: Final = "application/devguard-approval+cbor"
TYP_REPORT: Final = "application/devguard-report+cbor"


@dataclass(frozen=True, slots=True)
class Sign1(Headed):
    """A COSE_Sign1 object as received or made.

    protected: the encoded protected header, byte for byte. unprotected: the other bucket, which proves nothing.
    payload: None when detached. form: how `protected` is read; `Malformed` with its code when that is no map.
    """

    protected: bytes
    unprotected: Mapping[Any, Any]
    payload: bytes | None
    signature: bytes
    form: InitVar[Form] = LENIENT
    headers: Mapping[Any, Any] = field(init=False, repr=False, compare=False)

    def to_be_signed(self, payload: bytes | None = None, external_aad: bytes = b"") -> bytes:
        """The Sig_structure bytes of this object; `payload` is given exactly when it is detached."""
        return signed_bytes(self.protected, None, external_aad, covered_payload(self.payload, payload))

    def verify(
        self, key: CoseKey, *, payload: bytes | None = None, external_aad: bytes = b"", typ: str | None = None
    ) -> bytes:
        """The payload this object signs with `key`.

        `typ` None demands that the object has no type. Raises `Refused`: `key.purpose` (another type),
        `signature.critical`, `signature.algorithm`, `signature.invalid`.
        """
        check_type(self.headers, typ)
        check_critical(self.headers)
        covered = covered_payload(self.payload, payload)
        message = signed_bytes(self.protected, None, external_aad, covered)
        key.verify(self.algorithm, message, self.signature)
        return covered

    def encode(self, tagged: bool = True) -> bytes:
        """Deterministic CBOR, with tag 18 unless `tagged` is false."""
        body = [self.protected, self.unprotected, self.payload, self.signature]
        return wire.encode(cbor2.CBORTag(TAG_SIGN1, body) if tagged else body)


def read_sign1(
    data: bytes, *, tagged: bool | None = True, code: str = "wire.malformed", deterministic: bool = True
) -> Sign1:
    """The COSE_Sign1 object that `data` is, nothing before or after it; `Malformed(code)` otherwise.

    `tagged` None takes it with or without tag 18. `deterministic=False` is for third-party objects that devguard
    reads and never judges.
    """
    body = read_body(data, TAG_SIGN1, tagged=tagged, code=code, deterministic=deterministic)
    protected, unprotected, payload, signature = body
    made = Sign1(protected, unprotected, payload, signature, (code, deterministic))
    check_buckets(made.headers, unprotected, code)
    if not isinstance(signature, bytes):
        raise Malformed(code, "the signature is not a byte string")
    return made


def sign1(
    signer: Signer,
    payload: bytes,
    *,
    typ: str | None,
    external_aad: bytes = b"",
    detached: bool = False,
    headers: Mapping[Any, Any] | None = None,
) -> Sign1:
    """Sign `payload`; protected are alg, kid (the key's thumbprint), `typ` when given, and `headers`.

    The signature is verified before it is returned, so that a fault in the signer's computation shows here and
    never leaves: raises what `CoseKey.verify` raises. `LocalProtocolError` for headers that are not free.
    """
    protected = protected_for(signer.algorithm, signer.key.thumbprint, typ, headers)
    message = signed_bytes(protected, None, external_aad, payload)
    signature = signer.sign(message)
    signer.key.verify(signer.algorithm, message, signature)
    return Sign1(protected, {}, None if detached else payload, signature)

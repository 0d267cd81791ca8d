"""COSE_Sign: one payload, several signatures (RFC 9052 section 4.1). Used where a role asks for more than one key.

The protected `typ` sits in the body, so it holds for every signature; each signature has its own alg and kid.
Counting persons and thresholds is the work of `trust`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, Final

import cbor2

from devguard import wire
from devguard.cose.headers import (
    LENIENT,
    Form,
    Headed,
    Header,
    check_buckets,
    check_critical,
    check_type,
    covered_payload,
    protected_for,
    read_body,
    signed_bytes,
)
from devguard.cose.keys import CoseKey
from devguard.cose.signer import Signer
from devguard.errors import LocalProtocolError, Malformed, Refused

TAG_SIGN: Final = 98
MAX_SIGNATURES: Final = 64


@dataclass(frozen=True, slots=True)
class Signature(Headed):
    """One signature of a COSE_Sign object: its own protected bytes, unprotected map and signature."""

    protected: bytes
    unprotected: Mapping[Any, Any]
    signature: bytes
    form: InitVar[Form] = LENIENT
    headers: Mapping[Any, Any] = field(init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SignMany(Headed):
    """A COSE_Sign object as received or made; members as in `Sign1`, with 1 to 64 signatures."""

    protected: bytes
    unprotected: Mapping[Any, Any]
    payload: bytes | None
    signatures: tuple[Signature, ...]
    form: InitVar[Form] = LENIENT
    headers: Mapping[Any, Any] = field(init=False, repr=False, compare=False)

    def to_be_signed(self, index: int, payload: bytes | None = None, external_aad: bytes = b"") -> bytes:
        """The Sig_structure bytes of signature `index`; `payload` is given exactly when it is detached."""
        covered = covered_payload(self.payload, payload)
        return signed_bytes(self.protected, self.signatures[index].protected, external_aad, covered)

    def verify_one(
        self,
        index: int,
        key: CoseKey,
        *,
        payload: bytes | None = None,
        external_aad: bytes = b"",
        typ: str | None = None,
    ) -> bytes:
        """The payload, when signature `index` is `key`'s. Raises as `Sign1.verify`."""
        if not 0 <= index < len(self.signatures):
            raise Refused("signature.missing", f"there is no signature number {index}")
        body = self.headers
        one = self.signatures[index]
        check_type(body, typ)
        check_critical(body)
        check_critical(one.headers)
        covered = covered_payload(self.payload, payload)
        message = signed_bytes(self.protected, one.protected, external_aad, covered)
        key.verify(one.algorithm, message, one.signature)
        return covered

    def add(
        self, signer: Signer, typ: str | None, *, payload: bytes | None = None, external_aad: bytes = b""
    ) -> SignMany:
        """This object with one more signature, verified before it is returned.

        `typ` must be the body's, so that nobody signs another kind of object than they meant: `key.purpose`.
        Raises `LocalProtocolError` beyond 64 signatures.
        """
        check_type(self.headers, typ)
        check_critical(self.headers)
        if len(self.signatures) >= MAX_SIGNATURES:
            raise LocalProtocolError("wire.malformed", f"more than {MAX_SIGNATURES} signatures")
        protected = protected_for(signer.algorithm, signer.key.thumbprint, None, None)
        covered = covered_payload(self.payload, payload)
        message = signed_bytes(self.protected, protected, external_aad, covered)
        signature = signer.sign(message)
        signer.key.verify(signer.algorithm, message, signature)
        return replace(self, signatures=(*self.signatures, Signature(protected, {}, signature)))

    def encode(self, tagged: bool = True) -> bytes:
        """Deterministic CBOR, with tag 98 unless `tagged` is false."""
        signatures = [[one.protected, one.unprotected, one.signature] for one in self.signatures]
        body = [self.protected, self.unprotected, self.payload, signatures]
        return wire.encode(cbor2.CBORTag(TAG_SIGN, body) if tagged else body)


def read_sign(
    data: bytes, *, tagged: bool | None = True, code: str = "wire.malformed", deterministic: bool = True
) -> SignMany:
    """The COSE_Sign object that `data` is; arguments and errors as `read_sign1`."""
    body = read_body(data, TAG_SIGN, tagged=tagged, code=code, deterministic=deterministic)
    protected, unprotected, payload, items = body
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_SIGNATURES:
        raise Malformed(code, f"a COSE_Sign object has 1 to {MAX_SIGNATURES} signatures")
    form = code, deterministic
    made = SignMany(protected, unprotected, payload, tuple(_read_signature(item, form) for item in items), form)
    check_buckets(made.headers, unprotected, code)
    return made


def _read_signature(item: object, form: Form) -> Signature:
    code, _ = form
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[2], bytes):
        raise Malformed(code, "a COSE_Signature is an array of two headers and a byte string")
    made = Signature(item[0], item[1], item[2], form)
    check_buckets(made.headers, made.unprotected, code)
    return made


def sign_many(
    signers: Sequence[Signer],
    payload: bytes,
    *,
    typ: str | None,
    external_aad: bytes = b"",
    headers: Mapping[Any, Any] | None = None,
) -> SignMany:
    """Sign `payload` with every signer, `typ` and `headers` in the protected body. Raises as `SignMany.add`."""
    extra = dict(headers or {})
    if extra.keys() & {Header.ALG, Header.CRIT, Header.KID, Header.TYP}:
        raise LocalProtocolError("wire.malformed", "alg, crit, kid and typ are not set through extra headers")
    if not signers:
        raise LocalProtocolError("signature.missing", "COSE_Sign needs at least one signer")
    if typ is not None:
        extra[int(Header.TYP)] = typ
    made = SignMany(wire.encode(extra) if extra else b"", {}, payload, ())
    for signer in signers:
        made = made.add(signer, typ, external_aad=external_aad)
    return made

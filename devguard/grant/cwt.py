"""The CBOR Web Token around grants and device credentials (RFC 8392 in COSE_Sign1 or COSE_Sign, RFC 9596 `typ`).

Reads the wrapper and judges who signed it against a trust document; what the claims mean is not known here. EDHOC
carries the untagged form as `kcwt` (RFC 9528 section 3.5.3), files the form with tag 61 and the COSE tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import Sign1, Signer, SignMany, read_sign, read_sign1, sign1, sign_many
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.trust.model import KeyEntry, TrustDocument
from devguard.trust.quorum import Quorum, count

MAX_CWT: Final = 8 * 1024
MAX_TEXT: Final = 128
MAX_TIME: Final = 1 << 40
ISS, SUB, AUD, EXP, NBF, IAT, CTI, CNF = range(1, 9)
"""Claim keys of RFC 8392 section 3.1 and RFC 8747 section 3.1."""

_TAG_CWT: Final = b"\xd8\x3d"
_TAG_SIGN1: Final = b"\xd2"
_TAG_SIGN: Final = b"\xd8\x62"
_COSE_KEY: Final = 1


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart. `untagged` is its array without tags; nothing in it is proven yet."""

    untagged: bytes
    sign: Sign1 | SignMany
    payload: bytes

    @property
    def tagged(self) -> bytes:
        """The form files hold: CWT tag 61, the COSE tag, the array."""
        return _TAG_CWT + (_TAG_SIGN1 if isinstance(self.sign, Sign1) else _TAG_SIGN) + self.untagged

    @property
    def signatures(self) -> tuple[tuple[bytes | None, int], ...]:
        """(kid, algorithm) of every signature."""
        parts = (self.sign,) if isinstance(self.sign, Sign1) else self.sign.signatures
        return tuple((part.kid, part.algorithm) for part in parts)

    def verify(self, index: int, key: CoseKey, typ: str) -> None:
        """Return when signature `index` is `key`'s over this kind of token; raises as `Sign1.verify`."""
        if isinstance(self.sign, Sign1):
            self.sign.verify(key, typ=typ)
        else:
            self.sign.verify_one(index, key, typ=typ)


class Carried:
    """What is read from a token keeps it, and travels in its two forms; a base for classes with a `token`."""

    __slots__ = ()
    token: Token

    @property
    def untagged(self) -> bytes:
        """The bare COSE array: what EDHOC carries as `kcwt`, and what digests of a grant are over."""
        return self.token.untagged

    @property
    def tagged(self) -> bytes:
        """The form of a file: tag 61 and the COSE tag before the array."""
        return self.token.tagged


def read_token(data: bytes, code: str, limit: int = MAX_CWT) -> Token:
    """The token in `data`, with both tags, the COSE tag alone, or none, at most `limit` bytes; else `Malformed(code)`.

    Unprotected headers refuse: they would let anybody make a second spelling of a signed token.
    """
    if len(data) > limit:
        raise Malformed(code, f"a token of {len(data)} bytes; at most {limit} are read")
    inner = data.removeprefix(_TAG_CWT)
    tag = next((tag for tag in (_TAG_SIGN1, _TAG_SIGN) if inner.startswith(tag)), b"")
    if len(inner) != len(data) and not tag:
        raise Malformed(code, "a CWT tag must stand before a COSE tag (RFC 8392 section 6)")
    untagged = inner.removeprefix(tag)
    value = wire.decode(untagged, code=code)
    single = isinstance(value, list) and len(value) == 4 and isinstance(value[3], bytes)
    if (tag == _TAG_SIGN and single) or (tag == _TAG_SIGN1 and not single):
        raise Malformed(code, "the COSE tag does not fit the object")
    sign = read_sign1(untagged, tagged=False, code=code) if single else read_sign(untagged, tagged=False, code=code)
    if sign.payload is None:
        raise Malformed(code, "the claims are missing")
    parts = sign.signatures if isinstance(sign, SignMany) else ()
    if sign.unprotected or any(part.unprotected for part in parts):
        raise Malformed(code, "a token has no unprotected headers")
    return Token(untagged, sign, sign.payload)


def make_token(
    signers: Sequence[Signer],
    claims: Mapping[int, object],
    typ: str,
    code: str,
    *,
    many: bool = False,
    limit: int = MAX_CWT,
) -> Token:
    """Sign `claims`: COSE_Sign1 by one signer, COSE_Sign by several, or where `many` are to sign in the end."""
    if not signers:
        raise LocalProtocolError(code, "a token needs at least one signer")
    payload = wire.encode(claims)
    if len(signers) == 1 and not many:
        data = sign1(signers[0], payload, typ=typ).encode(tagged=False)
    else:
        data = sign_many(signers, payload, typ=typ).encode(tagged=False)
    return read_token(data, code, limit)


def add_signature(token: Token, signer: Signer, typ: str, code: str, limit: int = MAX_CWT) -> Token:
    """The token with one more signature over the same claims, for a signer elsewhere.

    Raises `Refused`: `grant.signature` for a token that was made for one signer alone or that the key has signed
    already, `key.purpose` for another kind of token.
    """
    if not isinstance(token.sign, SignMany):
        raise Refused("grant.signature", "made for one signer alone; nobody can sign it a second time")
    if any(kid == signer.key.thumbprint for kid, _ in token.signatures):
        raise Refused("grant.signature", "this key has signed it already")
    return read_token(token.sign.add(signer, typ).encode(tagged=False), code, limit)


def decode_claims(payload: bytes, code: str) -> dict[int, Any]:
    """The claims map with integer keys; `Malformed(code)` for any other bytes."""
    value = wire.decode(payload, code=code)
    if not isinstance(value, dict) or any(type(key) is not int for key in value):
        raise Malformed(code, "claims are not a map with integer keys")
    if wire.encode(value) != payload:
        raise Malformed(code, "claims that cannot be told apart")
    return value


def take(claims: dict[int, Any], key: int, what: str, code: str) -> Any:
    """Remove and return a mandatory claim."""
    if key not in claims:
        raise Malformed(code, f"the claim {what} is missing")
    return claims.pop(key)


def text(value: object, what: str, code: str) -> str:
    """`value` as a claim's text: printable, 1 to 128 characters, no space at its ends."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise Malformed(code, f"{what} is not printable text of 1 to {MAX_TEXT} characters")
    if value != value.strip():
        raise Malformed(code, f"{what} begins or ends with a space")
    return value


def number(value: object, what: str, code: str, *, least: int = 0, most: int = MAX_TIME) -> int:
    """`value` as an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Malformed(code, f"{what} is not a number from {least} to {most}")
    return value


def holder_key(value: object, code: str) -> CoseKey:
    """The key of a `cnf` claim {1: COSE_Key} (RFC 8747 section 3.2), in its one spelling."""
    if not isinstance(value, dict) or set(value) != {_COSE_KEY} or any(type(key) is not int for key in value):
        raise Malformed(code, "the confirmation claim is not one COSE_Key")
    key = CoseKey.from_map(value[_COSE_KEY], code)
    if key.to_map() != value[_COSE_KEY]:
        raise Malformed(code, "the confirmation key carries more than the key itself")
    return key


def confirmation(key: CoseKey) -> dict[int, object]:
    """The `cnf` claim of a key."""
    return {_COSE_KEY: key.to_map()}


def judge_signers(
    token: Token, *, typ: str, role: RoleName, trust: TrustDocument, now: int, invalid: str, lacking: str
) -> tuple[KeyEntry, ...]:
    """The entries of `role` that signed the token, enough of them for the role's threshold.

    Keys come from the trust document alone, by kid. Raises `Refused`: `key.purpose` (a key of another role, or another
    kind of object), `key.revoked`, `signature.algorithm`, `invalid` for a signature that does not hold, `key.unknown`
    when keys the document does not list are all that could fill the threshold, else `lacking`.
    """
    entries, quorum, unknown = signers_so_far(token, typ=typ, role=role, trust=trust, now=now, invalid=invalid)
    if not quorum:
        code = "key.unknown" if unknown else lacking
        raise Refused(code, f"{quorum.explanation}; {unknown} signatures by keys the trust document does not list")
    return entries


def signers_so_far(
    token: Token, *, typ: str, role: RoleName, trust: TrustDocument, now: int, invalid: str
) -> tuple[tuple[KeyEntry, ...], Quorum, int]:
    """Whose signatures hold, how far that goes toward the role's threshold, and how many keys nobody knows.

    Raises as `judge_signers`, but for a threshold that is not met.
    """
    verified: list[tuple[bytes, int]] = []
    entries: list[KeyEntry] = []
    unknown = 0
    for index, (kid, algorithm) in enumerate(token.signatures):
        found = dict(trust.find(kid)) if kid is not None else {}
        if kid is not None and not found and trust.is_revoked(kid):
            raise Refused("key.revoked", "signed by a key that is revoked, and that no role lists any more")
        if kid is None or not found:
            unknown += 1
            continue
        entry = found.get(role)
        if entry is None:
            raise Refused("key.purpose", f"signed by a key of the role {', '.join(found)}, not {role}")
        if trust.is_revoked(kid):
            raise Refused("key.revoked", f"the key of {entry.person} ({role}) is revoked")
        _verify(token, index, entry, typ, invalid)
        verified.append((kid, algorithm))
        entries.append(entry)
    return tuple(entries), count(trust, role, verified, now), unknown


def _verify(token: Token, index: int, entry: KeyEntry, typ: str, invalid: str) -> None:
    try:
        token.verify(index, entry.key, typ)
    except Refused as error:
        if error.code != "signature.invalid":
            raise
        raise Refused(invalid, f"the signature that names {entry.person}'s key does not hold") from None

"""A technician's grant: a CWT with a confirmation key and a scope. Reading and issuing, no judging.

What is read here is well-formed and consistent in itself; whether it may be believed is decided by `check`.
Standards: RFC 8392 (CWT), RFC 8747 (`cnf`), RFC 9596 (`typ`); devguard formats, "Grant".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.sign import TYP_GRANT, Signer
from devguard.errors import Malformed, Refused
from devguard.grant import cwt
from devguard.grant.cwt import Carried, Token, decode_claims, holder_key, make_token, number, read_token, take, text
from devguard.grant.scope import ANY, CODE, Action, Claim, Scope, decode_scope, encode_scope

__all__ = ["ANY", "DEFAULT_LIFE", "MAX_LIFE", "Action", "Grant", "Scope", "grant_claims", "issue_grant", "read_grant"]

FORMAT_VERSION: Final = 1
DEFAULT_LIFE: Final = 8 * 3600
MAX_LIFE: Final = 12 * 3600
CTI_SIZE: Final = 16
HOLDER_ALGORITHMS: Final = frozenset({Algorithm.ESP256, Algorithm.ED25519})
"""What a technician's key signs with; EDHOC has no suite for any other that we allow."""


@dataclass(frozen=True, slots=True)
class Grant(Carried):
    """A grant as read. Times are epoch seconds UTC; `expires` is the first second at which it no longer holds.

    subject: the person. holder: the key that person proves. cti: 16 bytes that name the grant. parent: the grant,
    without tags, that this one was delegated from, None when an authority signed it. raw: the bytes as given.
    """

    issuer: str
    subject: str
    issued: int
    not_before: int
    expires: int
    cti: bytes
    holder: CoseKey
    scope: Scope
    parent: bytes | None
    raw: bytes
    token: Token

    @property
    def signer_kids(self) -> tuple[bytes, ...]:
        """The key ids its signatures name; nothing is proven by them."""
        return tuple(kid for kid, _ in self.token.signatures if kid is not None)


def read_grant(data: bytes) -> Grant:
    """The grant in `data`, tagged or not, at most 8 KiB.

    Raises `Malformed("grant.malformed")` for anything that is none or contradicts itself, unknown claims included;
    `Refused`: `key.weak` or `signature.algorithm` for a holder key that no technician may have.
    """
    token = read_token(data, CODE)
    claims = decode_claims(token.payload, CODE)
    _check_format(claims)
    issuer = text(take(claims, cwt.ISS, "issuer", CODE), "the issuer", CODE)
    subject = text(take(claims, cwt.SUB, "subject", CODE), "the subject", CODE)
    issued, not_before, expires = (
        number(take(claims, key, what, CODE), what, CODE)
        for key, what in ((cwt.IAT, "issued at"), (cwt.NBF, "not before"), (cwt.EXP, "expires"))
    )
    _check_times(issued, not_before, expires)
    cti = take(claims, cwt.CTI, "token id", CODE)
    if not isinstance(cti, bytes) or len(cti) != CTI_SIZE:
        raise Malformed(CODE, f"the token id is not {CTI_SIZE} bytes")
    holder = holder_key(take(claims, cwt.CNF, "confirmation key", CODE), CODE)
    check_holder(holder)
    parent = claims.pop(Claim.PARENT, None)
    if parent is not None and not isinstance(parent, bytes):
        raise Malformed(CODE, "the parent grant is not a byte string")
    scope = decode_scope(claims)
    if claims:
        raise Malformed(CODE, f"unknown claim {min(claims)}", "update devguard, or ask the authority for a plain grant")
    return Grant(issuer, subject, issued, not_before, expires, cti, holder, scope, parent, bytes(data), token)


def _check_format(claims: dict[int, object]) -> None:
    version = number(claims.pop(Claim.FORMAT, None), "the format version", CODE)
    if version != FORMAT_VERSION:
        raise Malformed(CODE, f"grant format {version}; this devguard reads {FORMAT_VERSION}", "update devguard")


def _check_times(issued: int, not_before: int, expires: int) -> None:
    if expires <= not_before or not_before < issued:
        raise Malformed(CODE, "the grant's times are not issued <= not before < expires")
    if expires - not_before > MAX_LIFE:
        raise Malformed(CODE, f"a grant of {expires - not_before} s; at most {MAX_LIFE} s (12 h) are allowed")


def check_holder(holder: CoseKey) -> None:
    """Return when a technician may have that key; `Refused("signature.algorithm")`."""
    if holder.algorithm not in HOLDER_ALGORITHMS or not holder.allows(holder.algorithm):
        raise Refused("signature.algorithm", "a technician's key is P-256 (ESP256) or Ed25519")


def grant_claims(
    *,
    issuer: str,
    subject: str,
    holder: CoseKey,
    scope: Scope,
    issued: int,
    not_before: int,
    expires: int,
    cti: bytes,
    parent: bytes | None = None,
) -> dict[int, object]:
    """The claims map of a grant, not checked; `issue_grant` and `chain.delegate_grant` read what they signed."""
    claims = encode_scope(scope)
    claims |= {
        cwt.ISS: issuer,
        cwt.SUB: subject,
        cwt.EXP: expires,
        cwt.NBF: not_before,
        cwt.IAT: issued,
        cwt.CTI: cti,
        cwt.CNF: cwt.confirmation(holder),
        int(Claim.FORMAT): FORMAT_VERSION,
    }
    if parent is not None:
        claims[int(Claim.PARENT)] = parent
    return claims


def issue_grant(
    signers: Sequence[Signer],
    *,
    issuer: str,
    subject: str,
    holder: CoseKey,
    scope: Scope,
    now: int,
    expires: int,
    cti: bytes,
    not_before: int | None = None,
    many: bool = False,
) -> bytes:
    """The `.grant` bytes of a new grant, valid from `not_before` (`now` when None) to `expires`, at most 12 h.

    One signer makes COSE_Sign1, several COSE_Sign, and so does one where `many` are to sign in the end. `cti` is 16
    random bytes. Raises what `read_grant` raises for what was asked, and `Refused("grant.signature")` when the holder's
    key is one of the signers'.
    """
    if any(signer.key.thumbprint == holder.thumbprint for signer in signers):
        raise Refused("grant.signature", "an authority does not issue a grant to its own key")
    claims = grant_claims(
        issuer=issuer,
        subject=subject,
        holder=holder,
        scope=scope,
        issued=now,
        not_before=now if not_before is None else not_before,
        expires=expires,
        cti=cti,
    )
    return read_grant(make_token(signers, claims, TYP_GRANT, CODE, many=many).tagged).tagged

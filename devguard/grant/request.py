"""A technician's request for a grant: the public key, what is wished for, and proof that the key is theirs.

A CWT (RFC 8392) signed by the very key it asks a grant for, as a certification request is (RFC 2986). It proves that
key and nothing else: who the person is, is for the authority to know. The wish has the labels of a grant's scope; what
it leaves out it does not ask for, and the authority decides. Source: devguard formats, "Grant".
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, replace
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.cose.sign import TYP_REQUEST, Sign1, Signer
from devguard.errors import Malformed, Refused
from devguard.grant import cwt
from devguard.grant.claims import CTI_SIZE, MAX_LIFE, check_holder
from devguard.grant.cwt import Token, decode_claims, holder_key, make_token, number, read_token, take, text
from devguard.grant.scope import ANY, CODE, NO_HOURS, Scope, decode_scope, encode_scope
from devguard.grant.scope import Claim as ScopeClaim

FORMAT: Final = 1
REQUEST_LIFE: Final = 24 * 3600
LEEWAY: Final = 600  # seconds by which the technician's clock may be ahead
NO_WISH: Final = Scope(
    frozenset(), frozenset(), frozenset(), frozenset(), 0, hours=NO_HOURS, max_uses=0, trained_until=0
)


class Claim(enum.IntEnum):
    """Private claim keys (below -65536, RFC 8392 section 9.1), beside those of a scope."""

    FORMAT = -65537
    LIFE = -65571
    REASON = -65572


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """A request as read, its signature checked with its own key. `person`: what the technician says they are called.
    `wish`: a scope in which what is empty, never or 0 was not asked for, and the epoch means nothing; `life`: seconds,
    None where not asked for. `token`: the bytes as signed."""

    person: str
    holder: CoseKey
    issued: int
    wish: Scope
    life: int | None
    reason: str
    token: Token

    @property
    def cti(self) -> bytes:
        """The token id of the grant that answers it: answered twice, a request is still one grant, with one count."""
        return hashlib.sha256(self.token.untagged).digest()[:CTI_SIZE]

    def ceiling(self, epoch: int) -> Scope:
        """The widest scope that is not more than was asked for."""
        wish = self.wish
        return replace(
            wish,
            models=wish.models or frozenset({ANY}),
            serials=wish.serials or frozenset({ANY}),
            sites=wish.sites or frozenset({ANY}),
            actions=wish.actions or frozenset({ANY}),
            epoch=epoch,
            any_release=wish.any_release or (wish.release_digest is None and wish.sequences is None),
            hours=None if wish.hours == NO_HOURS else wish.hours,
            max_uses=None if wish.max_uses == 0 else wish.max_uses,
            trained_until=None,
        )

    def check_narrower(self, scope: Scope, life: int) -> None:
        """Return when a grant of that scope and life is not more than was asked for; `grant.scope`."""
        wider = scope.widens(self.ceiling(scope.epoch))
        if wider is not None:
            raise Refused("grant.scope", f"the grant would allow more than was asked for: {wider}")
        if self.life is not None and life > self.life:
            raise Refused("grant.scope", f"the grant would hold for {life} s; {self.life} s were asked for")

    def check_age(self, now: int) -> None:
        """Return when the request was signed in the last 24 hours; `grant.expired`, `grant.not-yet`."""
        if self.issued > now + LEEWAY:
            raise Refused("grant.not-yet", f"the request was signed {self.issued - now} s ahead of this clock")
        if now > self.issued + REQUEST_LIFE:
            raise Refused("grant.expired", f"the request was signed {now - self.issued} s ago", "ask for a new request")


def make_request(
    signer: Signer, *, person: str, wish: Scope, life: int | None, reason: str, now: int, nonce: bytes
) -> bytes:
    """The bytes of a request by the technician's own key. `nonce`: 16 random bytes that make it this one.

    Raises what `read_request` raises for what was asked.
    """
    claims = encode_scope(replace(wish, epoch=0))
    del claims[int(ScopeClaim.EPOCH)]
    claims |= {
        cwt.SUB: person,
        cwt.IAT: now,
        cwt.CTI: nonce,
        cwt.CNF: cwt.confirmation(signer.key),
        int(Claim.FORMAT): FORMAT,
    }
    if life is not None:
        claims[int(Claim.LIFE)] = life
    if reason:
        claims[int(Claim.REASON)] = reason
    return read_request(make_token([signer], claims, TYP_REQUEST, CODE).tagged).token.tagged


def read_request(data: bytes) -> GrantRequest:
    """The request in `data`, at most 8 KiB, its proof of possession checked.

    Raises `Malformed("grant.malformed")`; `Refused`: `grant.signature` when another key signed it or the signature does
    not hold, `key.purpose` for another kind of object, `key.weak`, `signature.algorithm` for a key no technician may
    have.
    """
    token = read_token(data, CODE)
    claims = decode_claims(token.payload, CODE)
    version = number(claims.pop(Claim.FORMAT, None), "the format version", CODE)
    if version != FORMAT:
        raise Malformed(CODE, f"a grant request of format {version}; known is {FORMAT}", "update devguard")
    person = text(take(claims, cwt.SUB, "subject", CODE), "the person", CODE)
    issued = number(take(claims, cwt.IAT, "issued at", CODE), "issued at", CODE)
    if not isinstance(nonce := take(claims, cwt.CTI, "token id", CODE), bytes) or len(nonce) != CTI_SIZE:
        raise Malformed(CODE, f"the token id is not {CTI_SIZE} bytes")
    holder = holder_key(take(claims, cwt.CNF, "confirmation key", CODE), CODE)
    check_holder(holder)
    life = claims.pop(Claim.LIFE, None)
    if life is not None:
        number(life, "the time asked for", CODE, least=1, most=MAX_LIFE)
    reason = text(claims.pop(Claim.REASON), "the reason", CODE) if Claim.REASON in claims else ""
    if ScopeClaim.EPOCH in claims:
        raise Malformed(CODE, "a request asks for no epoch")
    claims[int(ScopeClaim.EPOCH)] = 0
    wish = decode_scope(claims)
    if claims or wish.trained_until != 0:
        raise Malformed(CODE, "a request has claims that are no wish", "update devguard, or ask for a plain request")
    _check_possession(token, holder)
    return GrantRequest(person, holder, issued, wish, life, reason, token)


def _check_possession(token: Token, holder: CoseKey) -> None:
    sign = token.sign
    if not isinstance(sign, Sign1) or sign.kid != holder.thumbprint:
        raise Refused("grant.signature", "a request is signed by the key it asks for, and by no other")
    try:
        sign.verify(holder, typ=TYP_REQUEST)
    except Refused as error:
        if error.code != "signature.invalid":
            raise
        raise Refused("grant.signature", "the request is not signed by the key it names") from None

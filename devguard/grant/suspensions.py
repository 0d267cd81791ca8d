"""Signed lists of suspensions: what a technician authority tells stations elsewhere.

A CWT (RFC 8392) by keys of the role technician-authority that says who is suspended, who is so no longer, which single
grants were taken back, and which grant epoch is in force where it was made. It carries statements with their times and
no list of who may. Reading and signing; what a station does with one is `take`'s. Source: devguard formats, "Grant".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from devguard.cose.sign import TYP_SUSPENSIONS, Signer
from devguard.errors import Malformed
from devguard.grant import cwt
from devguard.grant.cwt import Token, add_signature, decode_claims, make_token, number, read_token, take
from devguard.grant.roster import in_order, revoked, rows, statement
from devguard.grant.scope import CODE
from devguard.grant.technicians import Roster, Statement
from devguard.trust.model import MAX_EPOCH

FORMAT: Final = 1
MAX_LIST: Final = 64 * 1024


class Claim(enum.IntEnum):
    """Private claim keys (below -65536, RFC 8392 section 9.1)."""

    FORMAT = -65537
    EPOCH = -65546
    STATEMENTS = -65561
    REVOKED = -65562


@dataclass(frozen=True, slots=True)
class Suspensions:
    """A list as read; nothing in it is proven yet. `issued`: epoch seconds; no statement is later."""

    issuer: str
    issued: int
    epoch: int
    statements: tuple[Statement, ...]
    revoked: Mapping[bytes, int]
    token: Token

    @property
    def tagged(self) -> bytes:
        """The bytes of a file."""
        return self.token.tagged


def make_list(roster: Roster, signers: Sequence[Signer], *, issuer: str, now: int, many: bool) -> Suspensions:
    """The list of what was said at this station. `many`: more signers are to add theirs elsewhere.

    Raises what `read_list` raises for what was asked.
    """
    said = [one for one in roster.statements.values() if not one.by]
    claims: dict[int, object] = {
        cwt.ISS: issuer,
        cwt.IAT: max([now, *(one.at for one in said)]),
        int(Claim.FORMAT): FORMAT,
        int(Claim.EPOCH): roster.epoch,
        int(Claim.STATEMENTS): [[one.subject, one.person, one.at, one.suspended] for one in in_order(said)],
        int(Claim.REVOKED): {cti: expires for cti, expires in roster.revoked.items() if expires > now},
    }
    return read_list(make_token(signers, claims, TYP_SUSPENSIONS, CODE, many=many, limit=MAX_LIST).tagged)


def sign_list(one: Suspensions, signer: Signer) -> Suspensions:
    """The list with one more signature."""
    return read_list(add_signature(one.token, signer, TYP_SUSPENSIONS, CODE, MAX_LIST).tagged)


def read_list(data: bytes) -> Suspensions:
    """The list in `data`, at most 64 KiB; `Malformed("grant.malformed")`."""
    token = read_token(data, CODE, MAX_LIST)
    claims = decode_claims(token.payload, CODE)
    version = number(claims.pop(Claim.FORMAT, None), "the format version", CODE)
    if version != FORMAT:
        raise Malformed(CODE, f"a list of suspensions of format {version}; known is {FORMAT}", "update devguard")
    issuer = cwt.text(take(claims, cwt.ISS, "issuer", CODE), "the issuer", CODE)
    issued = number(take(claims, cwt.IAT, "issued at", CODE), "issued at", CODE)
    epoch = number(take(claims, Claim.EPOCH, "epoch", CODE), "the epoch", CODE, most=MAX_EPOCH)
    found = [statement(row, by=issuer) for row in rows(take(claims, Claim.STATEMENTS, "statements", CODE), 4, "rows")]
    taken = revoked(take(claims, Claim.REVOKED, "revoked grants", CODE))
    if claims:
        raise Malformed(CODE, f"unknown claim {min(claims)}", "update devguard, or ask the authority for a plain list")
    if found != in_order({one.subject: one for one in found}.values()):
        raise Malformed(CODE, "a list of suspensions out of order, or with somebody twice")
    if any(one.at > issued for one in found):
        raise Malformed(CODE, "a suspension later than the list that says it")
    return Suspensions(issuer, issued, epoch, tuple(found), taken, token)

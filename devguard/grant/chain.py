"""Delegation: the holder of a grant signs a narrower one for somebody else.

The delegated grant carries its parent; the parent's confirmation key signs it. Every link is checked and none may
widen what it came from; two delegations at most. Source: devguard formats, "Grant".
"""

from __future__ import annotations

from typing import Final

from devguard.cose.keys import CoseKey
from devguard.cose.sign import TYP_GRANT, Sign1, Signer
from devguard.errors import Malformed, Refused
from devguard.grant.claims import Grant, grant_claims, read_grant
from devguard.grant.cwt import make_token
from devguard.grant.scope import CODE, Scope
from devguard.trust.model import same_person

MAX_DELEGATIONS: Final = 2


def read_chain(grant: Grant) -> tuple[Grant, ...]:
    """The grant and those it was delegated from, the authority's last. Signatures of links are not checked here.

    Raises `Malformed("grant.malformed")`, also for more than two delegations.
    """
    chain = [grant]
    while (parent := chain[-1].parent) is not None:
        if len(chain) > MAX_DELEGATIONS:
            raise Malformed(CODE, f"more than {MAX_DELEGATIONS} delegations")
        link = read_grant(parent)
        if link.untagged != parent:
            raise Malformed(CODE, "a parent grant is carried without tags")
        chain.append(link)
    return tuple(chain)


def check_link(child: Grant, parent: Grant) -> None:
    """Return when `child` was delegated by the holder of `parent` and allows no more.

    Raises `Refused`: `grant.signature` when the parent's key did not sign it, `key.purpose` for another kind of object,
    `grant.scope` when it is wider, lasts longer, or names the same person, key or token id again.
    """
    sign = child.token.sign
    if not isinstance(sign, Sign1) or sign.kid != parent.holder.thumbprint:
        raise Refused("grant.signature", f"a delegated grant is signed by the key of {parent.subject} alone")
    try:
        sign.verify(parent.holder, typ=TYP_GRANT)
    except Refused as error:
        if error.code != "signature.invalid":
            raise
        raise Refused("grant.signature", f"the delegation by {parent.subject} does not hold") from None
    if child.issuer != parent.subject:
        raise Refused("grant.scope", f"delegated by {parent.subject}, but it names {child.issuer} as its issuer")
    if same_person(child.subject) == same_person(parent.subject) or _same(child.holder, parent.holder):
        raise Refused("grant.scope", "a grant is delegated to another person with another key")
    inside = parent.not_before <= child.not_before and child.expires <= parent.expires and child.cti != parent.cti
    if not inside or parent.issued > child.issued:
        raise Refused("grant.scope", "a delegated grant lies inside the time of its parent and has its own token id")
    wider = child.scope.widens(parent.scope)
    if wider is not None:
        raise Refused("grant.scope", f"the delegated grant allows more than its parent: {wider}")


def _same(one: CoseKey, other: CoseKey) -> bool:
    return one.thumbprint == other.thumbprint


def delegate_grant(
    parent: Grant, signer: Signer, *, subject: str, holder: CoseKey, scope: Scope, now: int, expires: int, cti: bytes
) -> bytes:
    """The `.grant` bytes of a grant delegated from `parent` by its holder's key.

    Raises as `check_link` and `read_chain` for what was asked; the scope is to name the parent's epoch.
    """
    claims = grant_claims(
        issuer=parent.subject,
        subject=subject,
        holder=holder,
        scope=scope,
        issued=now,
        not_before=max(now, parent.not_before),
        expires=expires,
        cti=cti,
        parent=parent.untagged,
    )
    child = read_grant(make_token([signer], claims, TYP_GRANT, CODE).tagged)
    read_chain(child)
    check_link(child, parent)
    return child.tagged

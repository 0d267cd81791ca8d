"""The signature blocks of a release: whose they are, and whether each is valid.

Keys come from the trust document alone, found by the block's key id; nothing in an envelope adds one. What a
block proves is decided here for each block by itself; whether all of them together suffice is `trust.quorum`'s
answer. Source: draft-ietf-suit-manifest-37 section 8.3, RFC 9052 sections 4.2 and 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devguard.cose.algorithms import EMITTED, Algorithm, algorithm_label
from devguard.cose.headers import Header
from devguard.cose.roles import RoleName
from devguard.cose.sign import Sign1, read_sign1
from devguard.errors import Malformed, Refused
from devguard.trust.model import KeyEntry, TrustDocument
from devguard.verdict.result import SignatureSeen

# ES256 and EdDSA are polymorphic: the key decides, and only P-256 and Ed25519 allow them.
ACCEPTED: Final = frozenset(EMITTED) | {Algorithm.ES256, Algorithm.EDDSA}
SIGNING_ROLES: Final = (RoleName.RELEASE, RoleName.QUALITY)


@dataclass(frozen=True, slots=True)
class Block:
    """One judged block.

    `form`: it is no detached COSE_Sign1. `standing`: its key counts for nothing (unknown, of another role,
    revoked, out of its time): that alone never refuses a release which enough others have signed. `fault`: a
    listed key is named and the block is not its honest signature over this manifest: that always refuses.
    """

    seen: SignatureSeen
    thumbprint: bytes
    algorithm: int
    form: Malformed | None = None
    standing: Refused | None = None
    fault: Refused | None = None

    @property
    def counts(self) -> bool:
        """Whether the block is a valid signature of a key that counts."""
        return self.form is None and self.standing is None and self.fault is None


def judge_block(data: bytes, payload: bytes, trust: TrustDocument, now: int, *, kept: bool) -> Block:
    """The block in `data` over the encoded SUIT_Digest `payload`. Never raises for anything a block may hold.

    `kept`: the trust document keeps this release, so revoked and expired keys stand.
    """
    try:
        block = read_sign1(data, tagged=True, code="envelope.malformed")
        _check_bare(block)
    except Malformed as error:
        return Block(SignatureSeen(None, None, "", "", False, error.code), b"", 0, form=error)
    kid = block.kid
    held = trust.find(kid) if kid is not None else []
    if kid is None or not held:
        named = f"key {kid.hex()[:16]}" if kid else "a key without id"
        unknown = Refused("key.unknown", f"signed by {named}, which the trust document does not list")
        return _block(block, None, standing=unknown)
    role, entry = next(((name, one) for name, one in held if name in SIGNING_ROLES), held[0])
    standing = _standing(role, entry, trust, now, kept)
    return _block(block, (role, entry), standing=standing, fault=_fault(block, entry, payload))


def _check_bare(block: Sign1) -> None:
    """A block holds its signature and nothing beside it: what no signature covers must not ride along."""
    if block.payload is not None:
        raise Malformed("envelope.malformed", "an authentication block covers the digest, so its payload is detached")
    beside = [label for label in block.unprotected if label != Header.KID]
    if beside:
        raise Malformed("envelope.malformed", f"an authentication block with unsigned header {str(beside[0])[:40]}")


def _block(
    block: Sign1, held: tuple[RoleName, KeyEntry] | None, *, standing: Refused | None, fault: Refused | None = None
) -> Block:
    kid = block.kid or b""
    trouble = fault or standing
    seen = SignatureSeen(
        role=str(held[0]) if held else None,
        person=held[1].person if held else None,
        key=kid.hex(),
        alg=algorithm_label(block.algorithm),
        ok=trouble is None,
        code=trouble.code if trouble else None,
    )
    return Block(seen, kid, block.algorithm, standing=standing, fault=fault)


def _standing(role: RoleName, entry: KeyEntry, trust: TrustDocument, now: int, kept: bool) -> Refused | None:
    if role not in SIGNING_ROLES:
        return Refused("key.purpose", f"{entry.person}'s key is for {role}, not for signing releases")
    if kept:
        return None
    if trust.is_revoked(entry.thumbprint):
        return Refused("key.revoked", f"{entry.person}'s key is revoked")
    if not entry.valid_at(now):
        return Refused("key.expired", f"{entry.person}'s key is outside its validity")
    return None


def _fault(block: Sign1, entry: KeyEntry, payload: bytes) -> Refused | None:
    if block.algorithm not in ACCEPTED:
        label = algorithm_label(block.algorithm)
        return Refused("signature.algorithm", f"{entry.person}'s block names algorithm {label}, which is not allowed")
    try:
        block.verify(entry.key, payload=payload, typ=None)
    except Refused as error:
        return Refused(error.code, f"{entry.person}'s signature: {error.message}")
    return None

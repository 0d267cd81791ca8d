"""Reading, judging and making trust documents: a COSE_Sign over the payload that `codec` reads.

`read_trust` believes a document only on the word of its own root role; that this root is the right one is
known by pinning the document's digest or by a chain of documents, which is `chain`'s work. Nothing is
read from disk and no clock is asked. Source: devguard formats, "Trust document"; RFC 9052 section 4.1;
RFC 9596 for `typ`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_TRUST, Signer, SignMany, read_sign, sign_many
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.trust import codec
from devguard.trust.model import (
    CLOCK_LEEWAY,
    DEFAULT_MAX_STEP,
    MAX_DOCUMENT,
    KeyEntry,
    Role,
    TrustDocument,
)
from devguard.trust.quorum import Quorum, count_where

__all__ = [
    "KeyEntry",
    "Role",
    "RoleName",
    "TrustDocument",
    "add_root_signature",
    "build_trust",
    "check_time",
    "peek_trust",
    "read_trust",
    "trust_payload",
]

MAX_SIGNATURES = 64


def read_trust(data: bytes) -> TrustDocument:
    """The document in `data`, after its own root role has vouched for it.

    Raises `Malformed("trust.malformed")`, `Refused("trust.signature")` when too few different root persons have
    signed or a root signature does not verify, `Refused` with `key.development`, `key.purpose` (another kind of
    object), `key.weak` or `signature.algorithm`. Time is judged apart, by `check_time`.
    """
    doc, sign = parse_trust(data)
    quorum = _root_quorum(doc, sign)
    if not quorum:
        raise Refused("trust.signature", f"not signed by enough root persons: {quorum.explanation}")
    return doc


def peek_trust(data: bytes) -> tuple[TrustDocument, Quorum]:
    """The document and how far its root signatures have come: for signing ceremonies and for showing it.

    The document is *not* vouched for unless the quorum is true. Errors as `read_trust`, without the threshold's.
    """
    doc, sign = parse_trust(data)
    return doc, _root_quorum(doc, sign)


def check_time(doc: TrustDocument, now: int) -> None:
    """Return when the document may be used at `now` (epoch seconds UTC).

    Raises `Refused("trust.expired")`, or `Refused("trust.not-yet")` when it was issued more than 24 h after `now`.
    """
    if now >= doc.expires:
        raise Refused("trust.expired", f"version {doc.version} expired {now - doc.expires} s ago")
    if doc.issued > now + CLOCK_LEEWAY:
        raise Refused("trust.not-yet", f"version {doc.version} was issued {doc.issued - now} s in the future")


def parse_trust(data: bytes) -> tuple[TrustDocument, SignMany]:
    """The document and its signatures, form judged and no signature: for this room, which judges them.

    Raises `Malformed("trust.malformed")` and the errors of the payload (see `codec.decode_payload`).
    """
    if len(data) > MAX_DOCUMENT:
        raise Malformed("trust.malformed", f"a trust document of {len(data)} bytes; at most {MAX_DOCUMENT} are read")
    sign = read_sign(data, tagged=True, code="trust.malformed")
    if sign.payload is None:
        raise Malformed("trust.malformed", "the signed payload is missing")
    if len(sign.signatures) > MAX_SIGNATURES:
        raise Malformed("trust.malformed", f"more than {MAX_SIGNATURES} signatures")
    if sign.unprotected or any(one.unprotected for one in sign.signatures):
        raise Malformed("trust.malformed", "headers that no signature covers")
    return codec.decode_payload(sign.payload), sign


def _root_quorum(doc: TrustDocument, sign: SignMany) -> Quorum:
    # Nothing attests when a signature was made, so a root key counts only where its own validity covers the
    # whole life of the document: whoever steals it later cannot make a document that is still alive.
    return root_quorum(doc, sign, lambda entry: entry.valid_at(doc.issued) and entry.valid_at(doc.expires))


def root_quorum(judge: TrustDocument, sign: SignMany, valid: Callable[[KeyEntry], bool]) -> Quorum:
    """Verifies every signature by a root key of `judge` and counts its persons, of keys that are `valid`.

    A signature by a key that is not in that root is left alone: a rotated document carries those of the root before
    it. Raises `Refused("trust.signature")` for one that does not verify.
    """
    root = judge.roles[RoleName.ROOT]
    verified: list[tuple[bytes, int]] = []
    for index, signature in enumerate(sign.signatures):
        entry = root.entry(signature.kid) if signature.kid is not None else None
        if entry is None:
            continue
        try:
            sign.verify_one(index, entry.key, typ=TYP_TRUST)
        except Refused as error:
            if error.code != "signature.invalid":
                raise
            raise Refused("trust.signature", f"the root signature of {entry.person} does not verify") from error
        verified.append((entry.thumbprint, signature.algorithm))
    return count_where(judge, RoleName.ROOT, verified, valid)


def trust_payload(
    *,
    version: int,
    issued: int,
    expires: int,
    roles: Mapping[RoleName, Role],
    development: bool = False,
    revoked: Iterable[bytes] = (),
    floors: Mapping[str, int] | None = None,
    max_step: int = DEFAULT_MAX_STEP,
    revoked_releases: Iterable[bytes] = (),
    kept_releases: Iterable[bytes] = (),
    grant_epoch: int = 0,
    require_device_nonce: bool = False,
    require_sbom: bool = False,
) -> TrustDocument:
    """The document these fields make, judged by the same rules as one that is read; errors of the payload as there."""
    unjudged = TrustDocument(
        version=version,
        issued=issued,
        expires=expires,
        development=development,
        roles=roles,
        revoked=frozenset(revoked),
        floors=floors or {},
        max_step=max_step,
        revoked_releases=frozenset(revoked_releases),
        kept_releases=frozenset(kept_releases),
        grant_epoch=grant_epoch,
        require_device_nonce=require_device_nonce,
        require_sbom=require_sbom,
        digest=b"",
    )
    return codec.decode_payload(codec.encode_payload(unjudged))


def build_trust(doc: TrustDocument, signers: Sequence[Signer]) -> bytes:
    """The `.trust` bytes of `doc`, signed by `signers`, each a key of its root role.

    Fewer signers than the threshold are allowed: `add_root_signature` brings the others later, from other places.
    Raises `Refused("key.purpose")` for a signer outside the root role and the errors of `trust_payload`.
    """
    payload = codec.encode_payload(doc)
    judged = codec.decode_payload(payload)
    if doc.digest not in (b"", judged.digest):
        raise LocalProtocolError("trust.malformed", "the document's digest is that of another payload")
    if not signers:
        raise LocalProtocolError("trust.signature", "a trust document is signed by at least one root key")
    for signer in signers:
        _require_root(judged, signer)
    return bounded(sign_many(signers, payload, typ=TYP_TRUST))


def add_root_signature(data: bytes, signer: Signer) -> bytes:
    """`data` with one more root signature.

    Raises `Refused("release.duplicate")` when the key has signed already, `Refused("key.purpose")` when it is not
    in the root role, and the errors of `peek_trust`.
    """
    doc, sign = parse_trust(data)
    if any(one.kid == signer.key.thumbprint for one in sign.signatures):
        raise Refused("release.duplicate", "this key has signed the document already")
    _require_root(doc, signer)
    return bounded(sign.add(signer, TYP_TRUST))


def _require_root(doc: TrustDocument, signer: Signer) -> None:
    if doc.roles[RoleName.ROOT].entry(signer.key.thumbprint) is None:
        raise Refused("key.purpose", f"key {signer.key.fingerprint[:16]} is not in the document's root role")


def bounded(sign: SignMany) -> bytes:
    """The bytes of a signed document; `Malformed("trust.malformed")` when nobody would read that many."""
    data = sign.encode()
    if len(data) > MAX_DOCUMENT or len(sign.signatures) > MAX_SIGNATURES:
        raise Malformed("trust.malformed", f"the signed document has {len(data)} bytes, more than {MAX_DOCUMENT}")
    return data

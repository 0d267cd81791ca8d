"""Making the next version of a trust document: what changes, who must sign, and whether they ever can.

A successor repeats everything of the document before it except what a `Change` says. Revocations, revoked and kept
releases are added to, never dropped. A change after which no root could act any more is refused before anybody signs.
Source: devguard formats, "Trust document".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_TRUST, Signer, sign_many
from devguard.errors import LocalProtocolError, Refused
from devguard.trust import codec
from devguard.trust.chain import check_successor, predecessor_quorum
from devguard.trust.document import bounded, parse_trust, peek_trust
from devguard.trust.model import CLOCK_LEEWAY, KeyEntry, Role, TrustDocument, same_person
from devguard.trust.quorum import Quorum


@dataclass(frozen=True, slots=True)
class Change:
    """What the next version says differently. roles: replaced whole, None removes one; remove: key thumbprints that
    leave every role; None elsewhere: as before. floors: merged into those before."""

    roles: Mapping[RoleName, Role | None] = field(default_factory=dict)
    remove: frozenset[bytes] = frozenset()
    revoke: frozenset[bytes] = frozenset()
    floors: Mapping[str, int] = field(default_factory=dict)
    revoked_releases: frozenset[bytes] = frozenset()
    kept_releases: frozenset[bytes] = frozenset()
    grant_epoch: int | None = None
    max_step: int | None = None
    require_device_nonce: bool | None = None


def successor(previous: TrustDocument, change: Change, *, issued: int, expires: int | None = None) -> TrustDocument:
    """The next version, unsigned, judged by every rule that needs no signature. Times in epoch seconds UTC.

    expires: by default it lives as long as the one before. Raises `Refused("trust.not-yet")` when the clock stands
    before the document it follows, `Refused("trust.rollback")` for a grant epoch or floor that would go back,
    `Refused("trust.signature")` when its own root could never sign it, and the errors of the payload.
    """
    if issued + CLOCK_LEEWAY < previous.issued:
        raise Refused("trust.not-yet", f"version {previous.version} was issued {previous.issued - issued} s from now")
    _check_forward(previous, change)
    drafted = replace(
        previous,
        version=previous.version + 1,
        issued=issued,
        expires=issued + previous.expires - previous.issued if expires is None else expires,
        roles=_roles(previous, change),
        revoked=previous.revoked | change.revoke,
        floors={**previous.floors, **change.floors},
        max_step=previous.max_step if change.max_step is None else change.max_step,
        revoked_releases=previous.revoked_releases | change.revoked_releases,
        kept_releases=previous.kept_releases | change.kept_releases,
        grant_epoch=previous.grant_epoch if change.grant_epoch is None else change.grant_epoch,
        require_device_nonce=(
            previous.require_device_nonce if change.require_device_nonce is None else change.require_device_nonce
        ),
    )
    doc = codec.decode_payload(codec.encode_payload(drafted))
    _check_reachable(doc)
    return doc


def _check_forward(previous: TrustDocument, change: Change) -> None:
    if change.grant_epoch is not None and change.grant_epoch < previous.grant_epoch:
        raise Refused("trust.rollback", f"grant epoch {change.grant_epoch} is below {previous.grant_epoch}")
    for model, floor in change.floors.items():
        if floor < previous.floors.get(model, 0):
            raise Refused("trust.rollback", f"floor {floor} of {model} is below {previous.floors[model]}")


def _roles(previous: TrustDocument, change: Change) -> dict[RoleName, Role]:
    wanted = {**previous.roles, **change.roles}
    roles: dict[RoleName, Role] = {}
    for name, role in wanted.items():
        if role is not None:
            roles[name] = replace(role, keys=tuple(key for key in role.keys if key.thumbprint not in change.remove))
    return roles


def unreachable(doc: TrustDocument) -> list[tuple[RoleName, str]]:
    """The roles whose threshold nobody can meet under `doc`, with the reason: too many keys revoked or outlived."""
    found = []
    for name, role in doc.roles.items():
        able = {same_person(entry.person) for entry in role.keys if _counts(doc, name, entry)}
        if len(able) < role.threshold:
            found.append((name, f"{len(able)} persons with a good key, {role.threshold} needed"))
    return found


def spare_root_persons(doc: TrustDocument) -> int:
    """How many root persons may lose their keys before nobody can make the next version; 0 is one accident away."""
    role = doc.roles[RoleName.ROOT]
    able = {same_person(entry.person) for entry in role.keys if not doc.is_revoked(entry.thumbprint)}
    return len(able) - role.threshold


def _counts(doc: TrustDocument, name: RoleName, entry: KeyEntry) -> bool:
    # A root key counts where it is valid for the document's whole life (`document`), any other on some day of it.
    early = entry.not_before is not None and entry.not_before > (doc.issued if name is RoleName.ROOT else doc.expires)
    late = entry.not_after is not None and entry.not_after < (doc.expires if name is RoleName.ROOT else doc.issued)
    return not doc.is_revoked(entry.thumbprint) and not early and not late


def _check_reachable(doc: TrustDocument) -> None:
    for name, why in unreachable(doc):
        if name is RoleName.ROOT:
            raise Refused(
                "trust.signature",
                f"version {doc.version} could never be signed: {why}",
                "add a root key, lower the root threshold, or let the document expire before its root keys do",
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a document's signatures have come: its own root, and the root before it (None for version 1).
    True when both suffice."""

    document: TrustDocument
    own: Quorum
    before: Quorum | None

    def __bool__(self) -> bool:
        return bool(self.own) and (self.before is None or bool(self.before))

    @property
    def explanation(self) -> str:
        """One line for people: what is there, what is missing."""
        if self.before is None:
            return self.own.explanation
        return (
            f"version {self.document.version} {self.own.explanation}; the version before it {self.before.explanation}"
        )


def progress(previous: TrustDocument | None, data: bytes) -> Progress:
    """Who has signed `data` so far. Form, version and every signature are judged as in `check_successor`."""
    doc, own = peek_trust(data)
    if previous is None:
        return Progress(doc, own, None)
    before = predecessor_quorum(previous, parse_trust(data)[1])
    if own and before:
        check_successor(previous, data)
    return Progress(doc, own, before)


def sign_successor(previous: TrustDocument, doc: TrustDocument, signers: Sequence[Signer]) -> bytes:
    """The `.trust` bytes of `doc`, signed by `signers`, each a root key of `doc` or of `previous`.

    Fewer than both thresholds are allowed: `add_signature` brings the others. Raises `Refused("key.purpose")` for any
    other key.
    """
    if not signers:
        raise LocalProtocolError("trust.signature", "a trust document is signed by at least one root key")
    for signer in signers:
        _require_root(previous, doc, signer)
    return bounded(sign_many(signers, codec.encode_payload(doc), typ=TYP_TRUST))


def add_signature(previous: TrustDocument, data: bytes, signer: Signer) -> bytes:
    """`data` with one more signature, by a root key of the document or of `previous`.

    Raises `Refused("release.duplicate")` when the key has signed already, `Refused("key.purpose")` for any other key.
    """
    doc, sign = parse_trust(data)
    if any(one.kid == signer.key.thumbprint for one in sign.signatures):
        raise Refused("release.duplicate", "this key has signed the document already")
    _require_root(previous, doc, signer)
    return bounded(sign.add(signer, TYP_TRUST))


def root_keys(*documents: TrustDocument) -> dict[bytes, KeyEntry]:
    """The root keys of the documents by thumbprint: whose signatures a change may carry."""
    return {entry.thumbprint: entry for doc in documents for entry in doc.roles[RoleName.ROOT].keys}


def _require_root(previous: TrustDocument, doc: TrustDocument, signer: Signer) -> None:
    if signer.key.thumbprint not in root_keys(previous, doc):
        raise Refused("key.purpose", f"key {signer.key.fingerprint[:16]} is a root key of neither version")

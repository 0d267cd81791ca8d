"""Making the next version of a trust document: what changes, who must sign, and whether they ever can.

A successor repeats everything of the document before it except what a `Change` says. Revocations, revoked and kept
releases are added to, never dropped; floors and the grant epoch go back only where that is what was asked for. A change
after which no root could act any more, or no device could follow, is refused before anybody signs. These are rules for
makers: whoever reads a chain judges it by root rules alone, so that no slip can lock out those who have taken it.
Source: devguard formats, "Trust document".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_TRUST, Signer, sign_many
from devguard.errors import LocalProtocolError, Refused
from devguard.trust import codec
from devguard.trust.chain import check_successor, predecessor_quorum
from devguard.trust.document import bounded, parse_trust, peek_trust
from devguard.trust.model import CLOCK_LEEWAY, EPOCH_STEP, KeyEntry, Role, TrustDocument, same_person
from devguard.trust.quorum import Quorum

_DAY: Final = 86_400
LEAST_LIFE: Final = 90 * _DAY
"""Seconds a document lives at least where nobody says how long: time for its successor."""
LONGEST_LAPSE: Final = 365 * _DAY
LONGEST_PAUSE: Final = 2 * 365 * _DAY
_LOWER: Final = "`devguard trust rotate --lower-floor` and --lower-grant-epoch go back on purpose"
_MEANT: Final = "look at the number again; if it is meant, --allow-jump takes it (`devguard trust revoke --help`)"


@dataclass(frozen=True, slots=True)
class Change:
    """What the next version says differently. roles: replaced whole, None removes one; remove: key thumbprints that
    leave every role; None elsewhere: as before. floors: merged into those before. lowered_floors, lowered_epoch: what
    goes back on purpose, a floor of 0 altogether. jump: floors and epoch may go further than devices follow."""

    roles: Mapping[RoleName, Role | None] = field(default_factory=dict)
    remove: frozenset[bytes] = frozenset()
    revoke: frozenset[bytes] = frozenset()
    floors: Mapping[str, int] = field(default_factory=dict)
    revoked_releases: frozenset[bytes] = frozenset()
    kept_releases: frozenset[bytes] = frozenset()
    grant_epoch: int | None = None
    max_step: int | None = None
    require_device_nonce: bool | None = None
    require_sbom: bool | None = None
    lowered_floors: Mapping[str, int] = field(default_factory=dict)
    lowered_epoch: int | None = None
    jump: bool = False


def successor(
    previous: TrustDocument,
    change: Change,
    *,
    issued: int,
    expires: int | None = None,
    known: Mapping[str, int] | None = None,
    latest: int | None = None,
    clock_is_right: bool = False,
) -> TrustDocument:
    """The next version, unsigned, judged by every rule that needs no signature. Times in epoch seconds UTC.

    expires: by default it lives as long as the one before, and at least `LEAST_LIFE`. known: the highest sequence
    number known of each model; latest: the latest time seen here; clock_is_right: a person says so of `issued`.

    Raises `Refused`: `trust.not-yet` when the clock stands before the document it follows, `clock.ahead` when it stands
    so long after it that it cannot be right, `trust.rollback` for a grant epoch or floor that would go back,
    `trust.step` for one that devices could not follow, `trust.signature` when its own root could never sign it; and
    the errors of the payload.
    """
    if not clock_is_right:
        check_clock(previous, issued, latest)
    _check_back(previous, change)
    life = max(previous.expires - previous.issued, LEAST_LIFE)
    lowered = {**previous.floors, **change.floors, **change.lowered_floors}
    epochs = (change.lowered_epoch, change.grant_epoch, previous.grant_epoch)
    drafted = replace(
        previous,
        version=previous.version + 1,
        issued=issued,
        expires=issued + life if expires is None else expires,
        roles=_roles(previous, change),
        revoked=previous.revoked | change.revoke,
        floors={model: floor for model, floor in lowered.items() if floor},
        max_step=previous.max_step if change.max_step is None else change.max_step,
        revoked_releases=previous.revoked_releases | change.revoked_releases,
        kept_releases=previous.kept_releases | change.kept_releases,
        grant_epoch=next(epoch for epoch in epochs if epoch is not None),
        require_device_nonce=(
            previous.require_device_nonce if change.require_device_nonce is None else change.require_device_nonce
        ),
        require_sbom=previous.require_sbom if change.require_sbom is None else change.require_sbom,
    )
    doc = codec.decode_payload(codec.encode_payload(drafted))
    if not change.jump:
        _check_step(previous, doc, known or {})
    _check_reachable(doc)
    return doc


def check_clock(previous: TrustDocument, now: int, latest: int | None) -> None:
    """Return when `now` can be the time at which `previous` is followed; latest: the latest time seen here, if any.

    Raises `Refused("trust.not-yet")`, `Refused("clock.ahead")`. A document by a clock that is years ahead is in force
    at once on devices without one, and nobody could follow it before its time has come.
    """
    if now + CLOCK_LEEWAY < previous.issued:
        raise Refused(
            "trust.not-yet",
            f"version {previous.version} was issued {previous.issued - now} s from now",
            "check this machine's clock; where it is right and that document's was not, say --clock-is-right",
        )
    if now > previous.expires + LONGEST_LAPSE:
        raise Refused("clock.ahead", f"version {previous.version} expired {(now - previous.expires) // _DAY} days ago")
    if latest and now > max(latest, previous.issued) + LONGEST_PAUSE:
        days = (now - max(latest, previous.issued)) // _DAY
        raise Refused("clock.ahead", f"it is {days} days after all that was seen here and after the last document")


def _check_back(previous: TrustDocument, change: Change) -> None:
    if change.grant_epoch is not None and change.grant_epoch < previous.grant_epoch:
        raise Refused("trust.rollback", f"grant epoch {change.grant_epoch} is below {previous.grant_epoch}", _LOWER)
    for model, floor in change.floors.items():
        if floor < previous.floors.get(model, 0):
            raise Refused("trust.rollback", f"floor {floor} of {model} is below {previous.floors[model]}", _LOWER)
    if change.lowered_epoch is not None and change.lowered_epoch >= previous.grant_epoch:
        raise Refused("trust.step", f"grant epoch {change.lowered_epoch} is not below {previous.grant_epoch}")
    for model, floor in change.lowered_floors.items():
        if floor >= previous.floors.get(model, 0):
            raise Refused("trust.step", f"floor {floor} of {model} is not below {previous.floors.get(model, 0)}")


def _check_step(previous: TrustDocument, doc: TrustDocument, known: Mapping[str, int]) -> None:
    """A device takes no grant `EPOCH_STEP` ahead of its own epoch, and no release `max_step` above the one it runs:
    what lies further off is a slip more often than a wish, and shuts out a fleet."""
    for what in _far(previous, doc, known):
        raise Refused("trust.step", what, _MEANT)


def _far(previous: TrustDocument, doc: TrustDocument, known: Mapping[str, int]) -> Iterator[str]:
    if doc.grant_epoch > previous.grant_epoch + EPOCH_STEP:
        yield f"grant epoch {doc.grant_epoch} is more than {EPOCH_STEP} above {previous.grant_epoch}"
    for model, floor in doc.floors.items():
        highest = max(previous.floors.get(model, 0), known.get(model, 0))
        if floor > highest + doc.max_step:
            yield f"floor {floor} of {model} is more than {doc.max_step} above {highest}, the highest number known"


def unusual(previous: TrustDocument, doc: TrustDocument, known: Mapping[str, int]) -> list[str]:
    """What a second root person should look at before signing `doc`: steps that `successor` takes only when they are
    meant, each as one line."""
    found = list(_far(previous, doc, known))
    if doc.grant_epoch < previous.grant_epoch:
        found.append(f"grant epoch goes back from {previous.grant_epoch} to {doc.grant_epoch}")
    for model, floor in previous.floors.items():
        if doc.floors.get(model, 0) < floor:
            found.append(f"floor of {model} goes back from {floor} to {doc.floors.get(model, 0)}")
    return found


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

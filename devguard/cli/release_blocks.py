"""Who has signed a release so far: what its authentication blocks claim, and which of the claims hold.

A block names its key, and anybody can write a name. Only a signature that verifies counts, for its signer and against
a second one. This is for people who are still collecting signatures; whether a release is accepted is the verdict's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.manifest.envelope import Envelope
    from devguard.trust.document import TrustDocument
    from devguard.trust.quorum import ReleaseQuorum


@dataclass(frozen=True, slots=True)
class Claim:
    """What one block says. holds: whether the key it names made it, None where nobody here knows the key; person: who
    that is by the trust document."""

    data: bytes
    kid: bytes | None
    algorithm: int
    holds: bool | None
    person: str | None


def claims(envelope: Envelope, trust: TrustDocument | None, own: CoseKey | None = None) -> list[Claim]:
    """The blocks in order, judged with the keys of the trust document and with `own`.

    `Malformed("envelope.malformed")` for a block that does not parse.
    """
    from devguard.cose.sign import read_sign1
    from devguard.manifest.envelope import signature_payload

    found, payload = [], signature_payload(envelope)
    for data in envelope.auth_blocks:
        try:
            message = read_sign1(data)
        except DevguardError as error:
            raise Malformed("envelope.malformed", f"an authentication block does not parse: {error.message}") from error
        entries = trust.find(message.kid) if trust is not None and message.kid is not None else []
        entry = entries[0][1] if entries else None
        key = entry.key if entry is not None else own if own is not None and own.thumbprint == message.kid else None
        holds: bool | None = None
        if key is not None:
            try:
                message.verify(key, payload=payload)
                holds = True
            except Refused:
                holds = False
        found.append(Claim(data, message.kid, message.algorithm, holds, None if entry is None else entry.person))
    return found


def refuse_second(
    envelope: Envelope, person: str, key: CoseKey, trust: TrustDocument | None
) -> tuple[Envelope, list[str]]:
    """The envelope as `key` may sign it, and whose other blocks do not hold.

    The same key twice never helps; of one person a classical and a post-quantum signature do, for both halves are
    asked for, and a second of one kind does not: `Refused("release.duplicate")`. A block that names this key and does
    not hold is left out: its owner signs now, and with it nobody would take the release.
    """
    from devguard.trust.model import same_person

    made = claims(envelope, trust, key)
    for one in made:
        if not one.holds:
            continue
        if one.kid == key.thumbprint:
            raise Refused("release.duplicate", "this key has signed the release already")
        same = one.person is not None and same_person(one.person) == same_person(person)
        if same and _post_quantum(one.algorithm) == key.algorithm.is_post_quantum:
            kind = "post-quantum" if key.algorithm.is_post_quantum else "classical"
            raise Refused("release.duplicate", f"{person} has signed the release already with another {kind} key")
    false = [one for one in made if one.holds is False]
    kept = tuple(one.data for one in made if one not in false or one.kid != key.thumbprint)
    others = sorted({str(one.person) for one in false if one.kid != key.thumbprint})
    return replace(envelope, auth_blocks=kept), others


def _post_quantum(algorithm: int) -> bool:
    from devguard.cose.algorithms import POST_QUANTUM

    return algorithm in POST_QUANTUM


def missing(envelope: Envelope, trust: TrustDocument, now: int) -> ReleaseQuorum:
    """How far the signatures have come; those that do not verify are not counted."""
    from devguard.trust.quorum import count_release

    made = claims(envelope, trust)
    return count_release(trust, [(one.kid, one.algorithm) for one in made if one.kid and one.holds], now)

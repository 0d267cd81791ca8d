"""What a trust document says, as values.

These are plain facts without behaviour beyond look-ups. Reading, signing and every rule about which
combinations are allowed live in `codec` (the payload) and `document` (the signatures); who counts toward a
threshold is decided by `quorum`. Source: devguard formats, "Trust document".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from devguard.cose.algorithms import EMITTED, Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.names import same_person as same_person
from devguard.cose.roles import RoleName

FORMAT_VERSION: Final = 1
MAX_DOCUMENT: Final = 64 * 1024
MAX_KEYS: Final = 256
DEFAULT_MAX_STEP: Final = 16
CLOCK_LEEWAY: Final = 24 * 3600
MAX_EPOCH: Final = 2**32 - 1  # what a grant can carry: a document that asked for more would refuse every grant
EPOCH_STEP: Final = 16  # how far a device's grant epoch follows in one step

# The number of a role on the wire is fixed for ever; names are for people.
ROLE_LABELS: Final[Mapping[RoleName, int]] = {
    RoleName.ROOT: 1,
    RoleName.RELEASE: 2,
    RoleName.QUALITY: 3,
    RoleName.TECHNICIAN_AUTHORITY: 4,
    RoleName.DEVICE_AUTHORITY: 5,
    RoleName.STATION: 6,
    RoleName.WITNESS: 7,
}

_SIGNING: Final = frozenset(EMITTED)
_LOG: Final = frozenset({Algorithm.ED25519})  # C2SP signed notes know no other key type that we write
_WITNESS: Final = frozenset({Algorithm.ED25519, Algorithm.ML_DSA_44})  # and C2SP cosignatures this one too

ROLE_ALGORITHMS: Final[Mapping[RoleName, frozenset[Algorithm]]] = {
    RoleName.ROOT: _SIGNING,
    RoleName.RELEASE: _SIGNING,
    RoleName.QUALITY: _SIGNING,
    RoleName.TECHNICIAN_AUTHORITY: _SIGNING,
    RoleName.DEVICE_AUTHORITY: _SIGNING,
    RoleName.STATION: _LOG,
    RoleName.WITNESS: _WITNESS,
}
_ROLES: Final = tuple(RoleName)  # walking an enum is slow, and every signature is looked up


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key of one role: who holds it, whether it is a development key, when it is valid (epoch seconds)."""

    key: CoseKey
    person: str
    development: bool = False
    not_before: int | None = None
    not_after: int | None = None

    @property
    def thumbprint(self) -> bytes:
        """RFC 9679 thumbprint of the key, 32 bytes."""
        return self.key.thumbprint

    def valid_at(self, now: int) -> bool:
        """Whether `now` lies inside the key's validity window."""
        early = self.not_before is not None and now < self.not_before
        late = self.not_after is not None and now > self.not_after
        return not early and not late


@dataclass(frozen=True, slots=True)
class Role:
    """How many different persons must sign, and the keys that may."""

    threshold: int
    keys: tuple[KeyEntry, ...]

    def persons(self) -> frozenset[str]:
        """The different persons who hold keys of the role, folded by `same_person`."""
        return frozenset(same_person(entry.person) for entry in self.keys)

    def entry(self, thumbprint: bytes) -> KeyEntry | None:
        """The entry of the key with that thumbprint."""
        for entry in self.keys:
            if entry.key.thumbprint == thumbprint:
                return entry
        return None


@dataclass(frozen=True, slots=True)
class TrustDocument:
    """A parsed trust document. Times are epoch seconds UTC, releases are named by manifest digest.

    `floors` maps a model to the lowest sequence number that may still be installed; `max_step` is how far a
    sequence number may jump above the installed one; `digest` is SHA-256 of the COSE payload.
    """

    version: int
    issued: int
    expires: int
    development: bool
    roles: Mapping[RoleName, Role]
    revoked: frozenset[bytes]
    floors: Mapping[str, int]
    max_step: int
    revoked_releases: frozenset[bytes]
    kept_releases: frozenset[bytes]
    grant_epoch: int
    require_device_nonce: bool
    digest: bytes
    require_sbom: bool = False

    def role(self, name: RoleName) -> Role | None:
        """The role, or None when the document does not have it."""
        return self.roles.get(name)

    def find(self, thumbprint: bytes) -> list[tuple[RoleName, KeyEntry]]:
        """Every role that lists the key with that thumbprint, in the order of `RoleName`."""
        found: list[tuple[RoleName, KeyEntry]] = []
        for name in _ROLES:
            role = self.roles.get(name)
            entry = role.entry(thumbprint) if role is not None else None
            if entry is not None:
                found.append((name, entry))
        return found

    def is_revoked(self, thumbprint: bytes) -> bool:
        """Whether the document lists the key as revoked; a revoked key counts for nothing, whenever it signed."""
        return thumbprint in self.revoked

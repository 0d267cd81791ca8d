"""The payload of a trust document: deterministic CBOR in, `TrustDocument` out, and back.

Only well-formedness and the rules one can see without a signature or a clock are here: labels, ranges,
thresholds that can be met, one person per key, development marks, algorithms per role. Signatures are
`document`'s matter. Source: devguard formats, "Trust document"; keys are COSE_Key maps (RFC 9052 section 7).
"""

from __future__ import annotations

import enum
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.names import unseen
from devguard.cose.roles import RoleName
from devguard.errors import Malformed, Refused
from devguard.trust.model import (
    FORMAT_VERSION,
    MAX_DOCUMENT,
    MAX_EPOCH,
    MAX_KEYS,
    ROLE_ALGORITHMS,
    ROLE_LABELS,
    KeyEntry,
    Role,
    TrustDocument,
    same_person,
)
from devguard.trust.published import PUBLISHED_TEST_KEYS

CODE: Final = "trust.malformed"
MAX_UINT: Final = 2**63 - 1
MAX_TIME: Final = 253_402_300_799  # the last second of the year 9999, the last one a calendar can show
MAX_NAME: Final = 128
RELEASE_DIGEST_SIZES: Final = (32, 48, 64)
_ROLE_OF: Final = {label: name for name, label in ROLE_LABELS.items()}


class Label(enum.IntEnum):
    """Keys of the payload map. Numbers are never reused; an unknown one refuses the document."""

    FORMAT = 1
    VERSION = 2
    ISSUED = 3
    EXPIRES = 4
    DEVELOPMENT = 5
    ROLES = 6
    REVOKED_KEYS = 7
    FLOORS = 8
    MAX_STEP = 9
    REVOKED_RELEASES = 10
    KEPT_RELEASES = 11
    GRANT_EPOCH = 12
    REQUIRE_DEVICE_NONCE = 13
    REQUIRE_SBOM = 14


class EntryLabel(enum.IntEnum):
    """Keys of one key entry; the last three may be absent."""

    KEY = 1
    PERSON = 2
    DEVELOPMENT = 3
    NOT_BEFORE = 4
    NOT_AFTER = 5


_MAY: Final = frozenset({Label.REQUIRE_SBOM})
"""Rules that came after format 1 was first written: there and true, or absent."""
_ENTRY_MUST: Final = frozenset({EntryLabel.KEY, EntryLabel.PERSON})


def encode_payload(doc: TrustDocument) -> bytes:
    """The payload of `doc` (its `digest` is not part of it). Shape only; `decode_payload` applies the rules."""
    later: dict[int, object] = {int(Label.REQUIRE_SBOM): True} if doc.require_sbom else {}
    return wire.encode(
        {
            int(Label.FORMAT): FORMAT_VERSION,
            int(Label.VERSION): doc.version,
            int(Label.ISSUED): doc.issued,
            int(Label.EXPIRES): doc.expires,
            int(Label.DEVELOPMENT): doc.development,
            int(Label.ROLES): {ROLE_LABELS[name]: _role_value(role) for name, role in doc.roles.items()},
            int(Label.REVOKED_KEYS): sorted(doc.revoked),
            int(Label.FLOORS): dict(doc.floors),
            int(Label.MAX_STEP): doc.max_step,
            int(Label.REVOKED_RELEASES): sorted(doc.revoked_releases),
            int(Label.KEPT_RELEASES): sorted(doc.kept_releases),
            int(Label.GRANT_EPOCH): doc.grant_epoch,
            int(Label.REQUIRE_DEVICE_NONCE): doc.require_device_nonce,
            **later,
        }
    )


def _role_value(role: Role) -> list[object]:
    return [role.threshold, [_entry_value(entry) for entry in role.keys]]


def _entry_value(entry: KeyEntry) -> dict[int, object]:
    value: dict[int, object] = {int(EntryLabel.KEY): entry.key.to_map(), int(EntryLabel.PERSON): entry.person}
    if entry.development:
        value[int(EntryLabel.DEVELOPMENT)] = True
    if entry.not_before is not None:
        value[int(EntryLabel.NOT_BEFORE)] = entry.not_before
    if entry.not_after is not None:
        value[int(EntryLabel.NOT_AFTER)] = entry.not_after
    return value


def decode_payload(payload: bytes) -> TrustDocument:
    """The document a payload says, after every rule that needs neither signature nor clock.

    Raises `Malformed("trust.malformed")`, `Refused("key.development")`, `Refused("signature.algorithm")`, and the
    `key.weak` of a key that is not on its curve or of small order.
    """
    if len(payload) > MAX_DOCUMENT:
        raise Malformed(CODE, f"a trust document of {len(payload)} bytes; at most {MAX_DOCUMENT} are read")
    fields = _labelled(wire.decode(payload, code=CODE))
    issued = _uint(fields[Label.ISSUED], "issued", MAX_TIME)
    expires = _uint(fields[Label.EXPIRES], "expires", MAX_TIME)
    if expires <= issued:
        raise Malformed(CODE, "the document expires before it is issued")
    doc = TrustDocument(
        version=_uint(fields[Label.VERSION], "version", MAX_UINT, least=1),
        issued=issued,
        expires=expires,
        development=_flag(fields[Label.DEVELOPMENT], "development"),
        roles=_roles(fields[Label.ROLES]),
        revoked=_digests(fields[Label.REVOKED_KEYS], "revoked keys", (32,)),
        floors=_floors(fields[Label.FLOORS]),
        max_step=_uint(fields[Label.MAX_STEP], "highest step", 2**32 - 1, least=1),
        revoked_releases=_digests(fields[Label.REVOKED_RELEASES], "revoked releases", RELEASE_DIGEST_SIZES),
        kept_releases=_digests(fields[Label.KEPT_RELEASES], "kept releases", RELEASE_DIGEST_SIZES),
        grant_epoch=_uint(fields[Label.GRANT_EPOCH], "grant epoch", MAX_EPOCH),
        require_device_nonce=_flag(fields[Label.REQUIRE_DEVICE_NONCE], "device nonce"),
        require_sbom=_flag(fields.get(Label.REQUIRE_SBOM, False), "bill of materials"),
        digest=hashlib.sha256(payload).digest(),
    )
    # What was read must be all that was signed: integer and true are one map key to Python and two to CBOR, and a
    # COSE_Key may carry labels (kid, key_ops) that are read and dropped.
    if encode_payload(doc) != payload:
        raise Malformed(CODE, "the payload says more than the document it decodes to")
    check_keys(doc)
    return doc


def _labelled(value: object) -> dict[Label, object]:
    if not isinstance(value, dict):
        raise Malformed(CODE, "the payload is not a map")
    number = value.get(int(Label.FORMAT))
    if not _is_int(number):
        raise Malformed(CODE, "the payload carries no format version")
    if number != FORMAT_VERSION:
        raise Malformed(
            CODE, f"format version {str(number)[:24]}; this devguard reads {FORMAT_VERSION}", "update devguard"
        )
    wanted = {int(label) for label in Label}
    unknown = [key for key in value if not _is_int(key) or key not in wanted]
    if unknown:
        raise Malformed(CODE, f"unknown label {str(unknown[0])[:24]!r} in the payload")
    missing = wanted - _MAY - set(value)
    if missing:
        raise Malformed(CODE, f"the payload lacks {Label(min(missing)).name.lower().replace('_', ' ')}")
    return {Label(key): item for key, item in value.items()}


def _roles(value: object) -> Mapping[RoleName, Role]:
    if not isinstance(value, dict):
        raise Malformed(CODE, "roles are not a map")
    roles: dict[RoleName, Role] = {}
    for label, item in value.items():
        name = _ROLE_OF.get(label) if _is_int(label) else None
        if name is None:
            raise Malformed(CODE, f"unknown role {str(label)[:24]!r}")
        roles[name] = _role(name, item)
    if RoleName.ROOT not in roles:
        raise Malformed(CODE, "the document has no root role")
    if sum(len(role.keys) for role in roles.values()) > MAX_KEYS:
        raise Malformed(CODE, f"more than {MAX_KEYS} keys")
    return MappingProxyType({name: roles[name] for name in RoleName if name in roles})


def _role(name: RoleName, value: object) -> Role:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
        raise Malformed(CODE, f"role {name} is not a threshold and a list of keys")
    if len(value[1]) > MAX_KEYS:
        raise Malformed(CODE, f"more than {MAX_KEYS} keys")
    role = Role(
        threshold=_uint(value[0], f"threshold of {name}", MAX_KEYS, least=1),
        keys=tuple(_entry(name, item) for item in value[1]),
    )
    if len({entry.thumbprint for entry in role.keys}) != len(role.keys):
        raise Malformed(CODE, f"role {name} lists one key twice")
    persons = len(role.persons())
    if role.threshold > persons:
        raise Malformed(CODE, f"role {name} asks for {role.threshold} persons and lists {persons}")
    return role


def _entry(name: RoleName, value: object) -> KeyEntry:
    if not isinstance(value, dict) or not set(value) >= _ENTRY_MUST or not set(value) <= set(EntryLabel):
        raise Malformed(CODE, f"a key of role {name} has missing or unknown fields")
    if any(not _is_int(label) for label in value):
        raise Malformed(CODE, f"a key of role {name} has labels that are no integers")
    if EntryLabel.DEVELOPMENT in value and value[EntryLabel.DEVELOPMENT] is not True:
        raise Malformed(CODE, "the development mark of a key is either true or absent")
    entry = KeyEntry(
        key=CoseKey.from_map(value[EntryLabel.KEY], CODE),
        person=_name(value[EntryLabel.PERSON], "person"),
        development=EntryLabel.DEVELOPMENT in value,
        not_before=_optional_time(value, EntryLabel.NOT_BEFORE),
        not_after=_optional_time(value, EntryLabel.NOT_AFTER),
    )
    if entry.not_before is not None and entry.not_after is not None and entry.not_after < entry.not_before:
        raise Malformed(CODE, f"a key of {entry.person} is never valid")
    return entry


def check_keys(doc: TrustDocument) -> None:
    """The rules over all keys of a document: algorithms per role, one person and one role per key, development marks.

    Raises `Refused` with `signature.algorithm` or `key.development`, `Malformed("trust.malformed")`.
    """
    holders: dict[bytes, tuple[RoleName, str]] = {}
    for name, role in doc.roles.items():
        for entry in role.keys:
            if entry.key.algorithm not in ROLE_ALGORITHMS[name]:
                raise Refused("signature.algorithm", f"role {name} may not hold a key for {entry.key.algorithm.label}")
            # A key whose private half anybody can download is a development key, whatever the document says.
            published = PUBLISHED_TEST_KEYS.get(entry.thumbprint)
            if not doc.development and (entry.development or published is not None):
                what = "a development key" if published is None else f"a published test key ({published})"
                raise Refused("key.development", f"{what} of {entry.person} in role {name} of a production document")
            first = holders.setdefault(entry.thumbprint, (name, same_person(entry.person)))
            if first[1] != same_person(entry.person):
                raise Malformed(CODE, f"one key is listed for two persons, one of them {entry.person}")
            if first[0] is not name and not doc.development:
                raise Malformed(CODE, f"one key of {entry.person} is in the roles {first[0]} and {name}")


def _floors(value: object) -> Mapping[str, int]:
    if not isinstance(value, dict):
        raise Malformed(CODE, "floors are not a map")
    return MappingProxyType(
        {_name(model, "model"): _uint(floor, "floor", 2**64 - 1) for model, floor in sorted(_text_items(value))}
    )


def _text_items(value: dict[object, object]) -> Iterable[tuple[str, object]]:
    for key, item in value.items():
        if not isinstance(key, str):
            raise Malformed(CODE, "a floor is not for a named model")
        yield key, item


def _digests(value: object, what: str, sizes: tuple[int, ...]) -> frozenset[bytes]:
    if not isinstance(value, list) or any(not isinstance(item, bytes) or len(item) not in sizes for item in value):
        raise Malformed(CODE, f"{what} are not a list of digests")
    if value != sorted(set(value)):
        raise Malformed(CODE, f"{what} are not in order or repeat")
    return frozenset(value)


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise Malformed(CODE, f"{what} is not a text of 1 to {MAX_NAME} characters")
    tidy = unicodedata.normalize("NFC", value).strip() == value
    if not tidy or not value.isprintable() or unseen(value) or not same_person(value):
        raise Malformed(CODE, f"{what} holds unprintable, unseen, surrounding or undecided characters")
    return value


def _optional_time(value: Mapping[object, object], label: EntryLabel) -> int | None:
    return _uint(value[label], label.name.lower(), MAX_TIME) if label in value else None


def _uint(value: object, what: str, most: int, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Malformed(CODE, f"{what} is not a number from {least} to {most}")
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed(CODE, f"{what} is neither true nor false")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

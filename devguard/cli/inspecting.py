"""What `devguard inspect` finds in a file: the report, its keys and the signature check that all kinds share.

No printing and no verdict. A rule that is broken becomes a problem with the code `devguard explain` knows; what was
read before it stays in the fields. Signatures are checked only with a key that the caller gives, never with one from
the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from devguard.errors import CODES, DevguardError, Exit, Malformed, Refused
from devguard.image.kind import HEAD_SIZE, Kind

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.image.mcuboot_encryption import DeviceKey
    from devguard.image.mcuboot_keys import ImageKey

SMALL_LIMIT: Final = 64 * 1024
THUMBPRINT_SIZE: Final = 32


@dataclass(slots=True)
class Keys:
    """The public keys to check with, as far as they were given. encryption: the name of a published key pair, or ""."""

    mcuboot: ImageKey | None = None
    encryption: str | None = None
    device: DeviceKey | None = None
    cose: CoseKey | None = None


@dataclass(slots=True)
class Report:
    """What was found so far. Problems are (code, detail, offset in the file or None)."""

    kind: Kind = Kind.UNKNOWN
    fields: dict[str, Any] = field(default_factory=dict)
    problems: list[tuple[str, str, int | None]] = field(default_factory=list)

    def problem(self, code: str, detail: str, offset: int | None = None) -> None:
        """Add a finding."""
        self.problems.append((code, detail, offset))

    def error(self, error: DevguardError) -> None:
        """Add what a reader raised."""
        self.problem(error.code, error.message)

    @property
    def ordered(self) -> list[tuple[str, str, int | None]]:
        """The problems, those of form before those of integrity: `code` and exit status come from the first."""
        return sorted(self.problems, key=lambda one: -_exit_of(one[0]))

    @property
    def exit_status(self) -> Exit:
        """0 without a problem, else the status of the first code."""
        found = self.ordered
        return _exit_of(found[0][0]) if found else Exit.DONE

    def to_json(self, file: str) -> dict[str, Any]:
        """The contract's object."""
        rows = [{"code": code, "detail": detail, "offset": offset} for code, detail, offset in self.ordered]
        code = rows[0]["code"] if rows else None
        return {"file": file, "kind": str(self.kind), "code": code, "problems": rows, "fields": self.fields}


def _exit_of(code: str) -> Exit:
    known = CODES.get(code)
    return known.exit if known is not None else Exit.REFUSED


def ends(reader: BinaryIO) -> tuple[bytes, bytes]:
    """The first 4 KiB and the last 16 bytes; the reader stands at its start again."""
    try:
        size = reader.seek(0, os.SEEK_END)
        reader.seek(max(0, size - 16))
        tail = reader.read(16)
        reader.seek(0)
        head = reader.read(HEAD_SIZE)
        reader.seek(0)
    except OSError as error:
        raise Refused("file.unreadable", f"the file cannot be read: {error.strerror or error}") from error
    return head, tail


def read_small(reader: BinaryIO, limit: int = SMALL_LIMIT) -> bytes:
    """The whole file where its kind is small by nature; `Malformed` when it has more than `limit` bytes."""
    try:
        data = reader.read(limit + 1)
    except OSError as error:
        raise Refused("file.unreadable", f"the file cannot be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise Malformed("wire.malformed", f"more than {limit} bytes, too many for a file of this kind")
    return data


# keys


def cose_key(data: bytes) -> CoseKey:
    """The public key of a PEM file (of a private one only the public half) or of a devguard key file."""
    from devguard.cose.keys import CoseKey
    from devguard.custody.keyfile import parse_info

    if data.startswith(b"devguard-"):
        return parse_info(data).key
    if b"PRIVATE KEY-----" not in data:
        return CoseKey.from_pem(data)
    return CoseKey.from_public(_private(data).public_key())


def encryption_key(data: bytes) -> str:
    """The name under which the private key in a PEM file is published, "" when it is not known to be."""
    from devguard.cose.keys import CoseKey
    from devguard.trust.published import PUBLISHED_TEST_KEYS

    if b"-----BEGIN" not in data:
        return ""  # a key-wrapping key has no public half to know it by
    public = _private(data).public_key()
    try:
        return PUBLISHED_TEST_KEYS.get(CoseKey.from_public(public).thumbprint, "")
    except DevguardError:  # RSA and X25519 encrypt and have no COSE signature key
        return ""


def _private(data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed("key.malformed", f"not a PEM private key that opens without a passphrase: {error}") from None


def key_fields(key: CoseKey) -> dict[str, Any]:
    """A public key's name and algorithm, and whether anybody can download its private half."""
    return {"fingerprint": key.fingerprint, "alg": key.algorithm.label, **published(key.thumbprint)}


def published(thumbprint: bytes | None) -> dict[str, Any]:
    """{"published_test_key": origin} for a key of the field's published pairs, else {}."""
    from devguard.trust.published import PUBLISHED_TEST_KEYS

    origin = PUBLISHED_TEST_KEYS.get(thumbprint or b"")
    return {} if origin is None else {"published_test_key": origin}


# signatures


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature: the key id and algorithm it names, and the check of it with a given key (raises `Refused`)."""

    kid: bytes | None
    algorithm: int
    verify: Callable[[CoseKey], object]


def check_signatures(signatures: Sequence[Signed], key: CoseKey | None, report: Report) -> None:
    """List the signatures; with a key, at least one must be its own, and none that names it may fail.

    `valid` is None where nothing was checked: no key was given, or the signature names another.
    """
    from devguard.cose.algorithms import algorithm_label

    rows: list[dict[str, Any]] = []
    failures: list[tuple[bool, DevguardError]] = []
    for one in signatures:
        row = {"kid": None if one.kid is None else one.kid.hex(), "alg": algorithm_label(one.algorithm)}
        error = _fails(one, key) if key is not None else None
        other = error is not None and key is not None and _names_another(one.kid, key)
        valid = None if key is None or other else error is None
        rows.append({**row, "valid": valid, **published(one.kid)})
        if error is not None and not other and key is not None:
            failures.append((one.kid == key.thumbprint, error))
    report.fields["signatures"] = rows
    if key is None:
        return
    held = any(row["valid"] for row in rows)
    for named, error in failures:
        if named or not held:
            report.error(error)
    if not held and not failures:
        _lacking(len(rows), key, report)


def _fails(one: Signed, key: CoseKey) -> DevguardError | None:
    try:
        one.verify(key)
    except DevguardError as error:
        return error
    return None


def _names_another(kid: bytes | None, key: CoseKey) -> bool:
    # Other tools name keys in other ways; only an id of a thumbprint's size is one.
    return kid is not None and len(kid) == THUMBPRINT_SIZE and kid != key.thumbprint


def _lacking(count: int, key: CoseKey, report: Report) -> None:
    if count:
        report.problem("key.unknown", f"{count} signature(s), none by the key {key.fingerprint[:16]}")
    else:
        report.problem("signature.missing", "there is no COSE signature to check with the key")

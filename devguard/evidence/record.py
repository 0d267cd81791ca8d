"""One evidence record as deterministic CBOR, and the sealed entry that becomes a leaf of the tree.

A record says who did what to which device with what result; it holds no patient data and no secrets.
An entry binds a record to its place: format version, index, the *seal* (a signature over the tree of all records
before it and over the record) and the record. Seals let `verify` name the first record that was changed, even by
someone who mends every checksum; their text differs from a checkpoint's, so no old checkpoint can be rebuilt from
them. In entries of format 1 the seal covered only what was before. Source: devguard formats, "Evidence".
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from devguard import wire
from devguard.errors import LocalProtocolError, Malformed

FORMAT_1: Final = 1
FORMAT_2: Final = 2
MAX_ENTRY: Final = 256 * 1024  # more than the largest record that `Record` allows: no refusal goes unrecorded
MAX_TEXT: Final = 512
MAX_DETAILS: Final = 32
MAX_TIME: Final = 1 << 40
MAX_STATEMENT: Final = 16 * 1024
SEAL_SIZE: Final = 64
TIME_TOLERANCE: Final = 600  # seconds by which a record may be dated before the newest one before it
SET_BACK: Final = "clock-set-back"
"""The detail of a record that says by itself why it is dated before those before it: the time that was too late."""
_CODE: Final = "log.tampered"


class DigestOf(enum.IntEnum):
    """What a digest in a record is the digest of; the number is its label in the record."""

    GRANT = 1
    SECOND_GRANT = 2
    SESSION = 3
    DEVICE_HEAD = 4
    MANIFEST = 5
    PAYLOAD = 6
    TRUST = 7
    REPORT = 8
    MEMORY = 9


class Statement(enum.IntEnum):
    """What a record carries whole, signed by others than the station; the number is its label in the record."""

    REPORT = 1
    CREDENTIAL = 2
    PUSH = 3
    GRANT = 4
    APPROVAL = 5
    SECOND_GRANT = 6
    CHALLENGE = 7
    ACKNOWLEDGEMENT = 8
    DEVICE_LOG = 9


class _Label(enum.IntEnum):
    TIME = 1
    ACTOR = 2
    ACTION = 3
    DEVICE = 4
    RELEASE = 5
    CODE = 6
    REQUEST = 7
    DIGESTS = 8
    DETAILS = 9
    STATEMENTS = 10


_KINDS: Final = frozenset(DigestOf)
_STATEMENTS: Final = frozenset(Statement)
_STATEMENTS_AT: Final = re.compile(rb"\x0a[\xa1-\xb7]")  # their label, and the head of a short map
_LABELS: Final = frozenset(_Label)
_MUST: Final = frozenset({_Label.TIME, _Label.ACTOR, _Label.ACTION, _Label.REQUEST})
_TEXTS: Final = (_Label.ACTOR, _Label.ACTION, _Label.REQUEST, _Label.DEVICE, _Label.RELEASE, _Label.CODE)
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """`text` with every character that could deceive a reader of a log written as an escape, cut to `limit`.

    For text that came from outside (a file name, a device's answer): a refusal must be recordable whatever caused it.
    """
    cut = text[:limit]
    safe = cut if cut.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in cut)
    return safe if len(safe) <= limit and cut == text else safe[: limit - 1] + "…"


def _tidy(text: str, limit: int = MAX_TEXT) -> str:
    return printable(text, limit) or "?"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened.

    time: seconds since the epoch, UTC. actor: who caused it. action: what, in dotted words ("release.verify").
    device: serial. release: "model version". code: the refusal code, None when it succeeded. request: id that ties the
    records of one command or session together. digests: 32 to 64 bytes each. details: further short texts.
    statements: signed objects of others, whole, at most 16 KiB each.
    Raises `LocalProtocolError("log.tampered")` for a value that cannot be recorded; `make` takes any text.
    """

    time: int
    actor: str
    action: str
    request: str
    device: str | None = None
    release: str | None = None
    code: str | None = None
    digests: Mapping[DigestOf, bytes] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    statements: Mapping[Statement, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            _check_map(_to_map(self))
        except Malformed as error:
            raise LocalProtocolError(error.code, error.message) from None
        object.__setattr__(self, "digests", MappingProxyType(dict(self.digests)))
        object.__setattr__(self, "details", MappingProxyType(dict(self.details)))
        object.__setattr__(self, "statements", MappingProxyType(dict(self.statements)))

    @classmethod
    def make(
        cls,
        *,
        time: int,
        actor: str,
        action: str,
        request: str,
        device: str | None = None,
        release: str | None = None,
        code: str | None = None,
        digests: Mapping[DigestOf, bytes] = _NOTHING,
        details: Mapping[str, str] = _NOTHING,
        statements: Mapping[Statement, bytes] = _NOTHING,
    ) -> Record:
        """A record of texts from outside: each is made printable and cut, surplus details are dropped and counted, and
        so are statements that are too long."""
        kept = {_tidy(name, 64): printable(text) for name, text in list(details.items())[: MAX_DETAILS - 1]}
        whole = {kind: data for kind, data in statements.items() if 0 < len(data) <= MAX_STATEMENT}
        if len(details) >= MAX_DETAILS or len(whole) < len(statements):
            kept["dropped"] = str(max(len(details) - MAX_DETAILS + 1, 0) + len(statements) - len(whole))
        return cls(
            time=min(max(time, 0), MAX_TIME - 1),
            actor=_tidy(actor),
            action=_tidy(action),
            request=_tidy(request),
            device=None if device is None else _tidy(device),
            release=None if release is None else _tidy(release),
            code=None if code is None else _tidy(code),
            digests=digests,
            details=kept,
            statements=whole,
        )

    @property
    def ok(self) -> bool:
        """Whether the thing that was recorded succeeded."""
        return self.code is None

    def to_json(self) -> dict[str, object]:
        """The record as plain values for output; digests in hexadecimal."""
        return {
            "time": self.time,
            "actor": self.actor,
            "action": self.action,
            "request": self.request,
            "device": self.device,
            "release": self.release,
            "code": self.code,
            "digests": {_named(kind): digest.hex() for kind, digest in self.digests.items()},
            "details": dict(self.details),
            "statements": {
                _named(kind): {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for kind, data in self.statements.items()
            },
        }


def _named(kind: DigestOf | Statement) -> str:
    return kind.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf of the tree: index, seal over the tree of the `index` records before it and the record, and the encoded
    record."""

    index: int
    seal: bytes
    body: bytes
    version: int = FORMAT_2

    @property
    def record(self) -> Record:
        """The record, decoded; `Malformed("log.tampered")` when the bytes are none."""
        return decode_record(self.body)


def _to_map(record: Record) -> dict[int, object]:
    value: dict[int, object] = {
        int(_Label.TIME): record.time,
        int(_Label.ACTOR): record.actor,
        int(_Label.ACTION): record.action,
        int(_Label.REQUEST): record.request,
    }
    for label, text in ((_Label.DEVICE, record.device), (_Label.RELEASE, record.release), (_Label.CODE, record.code)):
        if text is not None:
            value[int(label)] = text
    if record.digests:
        value[int(_Label.DIGESTS)] = {int(kind): digest for kind, digest in record.digests.items()}
    if record.details:
        value[int(_Label.DETAILS)] = dict(record.details)
    if record.statements:
        value[int(_Label.STATEMENTS)] = {int(kind): data for kind, data in record.statements.items()}
    return value


def _check_map(value: object) -> dict[int, Any]:
    if not isinstance(value, dict) or not _MUST <= set(value) <= _LABELS:
        raise Malformed(_CODE, "a record lacks a field or has an unknown one")
    if not _is_uint(value[_Label.TIME]) or value[_Label.TIME] >= MAX_TIME:
        raise Malformed(_CODE, "a record's time is not a number of seconds")
    for label in _TEXTS:
        if label in value:
            _check_text(value[label], label.name.lower(), MAX_TEXT)
    _check_digests(value.get(_Label.DIGESTS, _NOTHING), _Label.DIGESTS in value)
    details = value.get(_Label.DETAILS, _NOTHING)
    if not isinstance(details, Mapping) or len(details) > MAX_DETAILS or (_Label.DETAILS in value and not details):
        raise Malformed(_CODE, f"a record's details are not a map of 1 to {MAX_DETAILS} texts")
    for name, text in details.items():
        _check_text(name, "detail name", 64)
        _check_text(text, "detail", MAX_TEXT, empty=True)
    _check_statements(value.get(_Label.STATEMENTS, _NOTHING), _Label.STATEMENTS in value)
    return value


def _check_digests(digests: object, present: bool) -> None:
    if not isinstance(digests, Mapping) or (present and not digests) or not digests.keys() <= _KINDS:
        raise Malformed(_CODE, "a record's digests are not a map of known kinds")
    if any(not isinstance(digest, bytes) or not 32 <= len(digest) <= 64 for digest in digests.values()):
        raise Malformed(_CODE, "a digest in a record is not 32 to 64 bytes")


def _check_statements(statements: object, present: bool) -> None:
    if not isinstance(statements, Mapping) or (present and not statements) or not statements.keys() <= _STATEMENTS:
        raise Malformed(_CODE, "a record's statements are not a map of known kinds")
    if any(not isinstance(data, bytes) or not 0 < len(data) <= MAX_STATEMENT for data in statements.values()):
        raise Malformed(_CODE, f"a statement in a record is not 1 to {MAX_STATEMENT} bytes")


def _check_text(value: object, what: str, limit: int, *, empty: bool = False) -> None:
    if not isinstance(value, str) or len(value) > limit or not (value or empty) or not value.isprintable():
        raise Malformed(_CODE, f"a record's {what} is not printable text of at most {limit} characters")


def _is_uint(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def encode_record(record: Record) -> bytes:
    """Deterministic CBOR of the record map."""
    return wire.encode(_to_map(record))


def decode_record(data: bytes) -> Record:
    """The record of an encoded map; `Malformed("log.tampered")` for any other bytes."""
    record = _from_map(_check_map(wire.decode(data, code=_CODE)))
    if encode_record(record) != data:
        raise Malformed(_CODE, "a record is not in its one encoding")
    return record


def encode_entry(entry: Entry) -> bytes:
    """Deterministic CBOR of [version, index, seal, encoded record]; `LocalProtocolError` when it is over 256 KiB."""
    data = wire.encode([entry.version, entry.index, entry.seal, entry.body])
    if len(data) > MAX_ENTRY:
        raise LocalProtocolError(_CODE, f"a record of {len(data)} bytes; at most {MAX_ENTRY} are kept")
    return data


def decode_entry(data: bytes) -> Entry:
    """The entry of one leaf, its record still encoded; `Malformed("log.tampered")` for any other bytes."""
    if len(data) > MAX_ENTRY:
        raise Malformed(_CODE, f"an entry of {len(data)} bytes; at most {MAX_ENTRY} are read")
    value = wire.decode(data, code=_CODE)
    if not isinstance(value, list) or not value or not _is_uint(value[0]):
        raise Malformed(_CODE, "an entry is not an array that starts with its version")
    if value[0] not in (FORMAT_1, FORMAT_2):
        raise Malformed(_CODE, f"an entry of format version {value[0]}; known are 1 and 2", "update devguard")
    if len(value) != 4 or not _is_uint(value[1]) or not all(isinstance(part, bytes) for part in value[2:]):
        raise Malformed(_CODE, "an entry is not version, index, seal and record")
    if len(value[2]) != SEAL_SIZE:
        raise Malformed(_CODE, f"a seal of {len(value[2])} bytes")
    return Entry(value[1], value[2], value[3], value[0])


def entry_prefix(index: int) -> bytes:
    """The first bytes of every entry of the present format with that index: all before its seal."""
    return wire.head(4, 4) + wire.encode(FORMAT_2) + wire.encode(index) + wire.head(2, SEAL_SIZE)


def time_of(body: bytes) -> int:
    """The time of an encoded record, without the rest of it; `Malformed("log.tampered")` when it has none.

    Label 1 comes first in every record, and a time is at most eight bytes: what `decode_record` reads is the same.
    """
    if len(body) > 3 and body[0] >> 5 == 5 and body[1] == _Label.TIME:
        short = body[2]
        if short < 24:
            return short
        if short < 28:
            width = 1 << short - 24
            return int.from_bytes(body[3 : 3 + width], "big")
    raise Malformed(_CODE, "a record has no time")


def may_have_statements(body: bytes) -> bool:
    """Whether an encoded record can have statements, without decoding it; of few that have none it says yes."""
    return _STATEMENTS_AT.search(body) is not None


def _from_map(value: dict[int, Any]) -> Record:
    return Record(
        time=value[_Label.TIME],
        actor=value[_Label.ACTOR],
        action=value[_Label.ACTION],
        request=value[_Label.REQUEST],
        device=value.get(_Label.DEVICE),
        release=value.get(_Label.RELEASE),
        code=value.get(_Label.CODE),
        digests={DigestOf(kind): digest for kind, digest in value.get(_Label.DIGESTS, _NOTHING).items()},
        details=value.get(_Label.DETAILS, _NOTHING),
        statements={Statement(kind): data for kind, data in value.get(_Label.STATEMENTS, _NOTHING).items()},
    )


def seal_text(origin: str, size: int, root: bytes, body: bytes | None = None) -> bytes:
    """What a seal signs: the tree before a record and the encoded record, under a first line that no checkpoint of the
    log has. Without `body` it is that of format 1, which did not cover the record."""
    covered = b"" if body is None else base64.b64encode(hashlib.sha256(body).digest()) + b"\n"
    return f"{origin} seal\n{size}\n{base64.b64encode(root).decode('ascii')}\n".encode() + covered


def sealed_text(origin: str, entry: Entry, root: bytes) -> bytes:
    """What the seal of `entry` has to be over, `root` being that of all records before it."""
    return seal_text(origin, entry.index, root, entry.body if entry.version == FORMAT_2 else None)

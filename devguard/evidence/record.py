"""One evidence record as deterministic CBOR, and the sealed entry that becomes a leaf of the tree.

A record says who did what to which device with what result; it holds no patient data and no secrets.
An entry binds a record to its place: format version, index, the *seal* (a signature over the tree of all records
before it) and the record. Seals let `verify` name the first record that was changed, even by someone who mends
every checksum; their text differs from a checkpoint's, so no old checkpoint can be rebuilt from them.
Source: devguard formats, "Evidence".
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from devguard import wire
from devguard.errors import LocalProtocolError, Malformed

FORMAT_VERSION: Final = 1
MAX_ENTRY: Final = 128 * 1024  # more than the largest record that `Record` allows: no refusal goes unrecorded
MAX_TEXT: Final = 512
MAX_DETAILS: Final = 32
MAX_TIME: Final = 1 << 40
SEAL_SIZE: Final = 64
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


_KINDS: Final = frozenset(DigestOf)
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

    def __post_init__(self) -> None:
        try:
            _check_map(_to_map(self))
        except Malformed as error:
            raise LocalProtocolError(error.code, error.message) from None
        object.__setattr__(self, "digests", MappingProxyType(dict(self.digests)))
        object.__setattr__(self, "details", MappingProxyType(dict(self.details)))

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
    ) -> Record:
        """A record of texts from outside: each is made printable and cut, surplus details are dropped and counted."""
        kept = {_tidy(name, 64): printable(text) for name, text in list(details.items())[: MAX_DETAILS - 1]}
        if len(details) >= MAX_DETAILS:
            kept["dropped"] = str(len(details) - MAX_DETAILS + 1)
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
            "digests": {kind.name.lower().replace("_", "-"): digest.hex() for kind, digest in self.digests.items()},
            "details": dict(self.details),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf of the tree: index, seal over the tree of the `index` records before it, and the encoded record."""

    index: int
    seal: bytes
    body: bytes

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
    return value


def _check_digests(digests: object, present: bool) -> None:
    if not isinstance(digests, Mapping) or (present and not digests) or not digests.keys() <= _KINDS:
        raise Malformed(_CODE, "a record's digests are not a map of known kinds")
    if any(not isinstance(digest, bytes) or not 32 <= len(digest) <= 64 for digest in digests.values()):
        raise Malformed(_CODE, "a digest in a record is not 32 to 64 bytes")


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
    """Deterministic CBOR of [version, index, seal, encoded record]; `LocalProtocolError` when it is over 128 KiB."""
    data = wire.encode([FORMAT_VERSION, entry.index, entry.seal, entry.body])
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
    if value[0] != FORMAT_VERSION:
        raise Malformed(_CODE, f"an entry of format version {value[0]}; known is {FORMAT_VERSION}", "update devguard")
    if len(value) != 4 or not _is_uint(value[1]) or not all(isinstance(part, bytes) for part in value[2:]):
        raise Malformed(_CODE, "an entry is not version, index, seal and record")
    if len(value[2]) != SEAL_SIZE:
        raise Malformed(_CODE, f"a seal of {len(value[2])} bytes")
    return Entry(value[1], value[2], value[3])


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
    )


def seal_text(origin: str, size: int, root: bytes) -> bytes:
    """What a seal signs: the tree before a record, under a first line that no checkpoint of the log has."""
    return f"{origin} seal\n{size}\n{base64.b64encode(root).decode('ascii')}\n".encode()

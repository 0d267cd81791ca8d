"""The messages of the update conversation: one frozen class a verb, one CBOR array a message.

Plain messages (`Hello`, `Edhoc`, `EdhocFailure`) travel before keys exist, all others only as sealed records.
A message is the array [verb number, field, ...] in deterministic CBOR (RFC 8949 section 4.2.1). The number
and the order of the fields are locked by tests/wire; a new field is a new verb, or one at the end that is said only to
who speaks the version it came with. There is no verb that reads memory, sets a therapy value or runs a command: what is
not listed here cannot be said.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final, TypeAlias

from devguard import wire
from devguard.errors import RemoteProtocolError
from devguard.evidence.device_log import MAX_SIZE
from devguard.manifest.envelope import MAX_OFFER
from devguard.session import factory_verbs as factory

PROTOCOL_VERSION: Final = 1
TRANSFER_VERSION: Final = 2  # version 1, and accept may list encodings
ACTIONS_VERSION: Final = 3  # version 2, and actions other than an update
PROTOCOL_VERSIONS: Final = (ACTIONS_VERSION, TRANSFER_VERSION, PROTOCOL_VERSION)
NONCE_SIZE: Final = 16
DIGEST_SIZE: Final = 32
MAX_DATA: Final = 16 * 1024
MAX_PIECE: Final = 2048
"""Bytes of a device's log in one message."""
MAX_GRANT: Final = 8 * 1024
MAX_TEXT: Final = 1024
MAX_NAME: Final = 128
MAX_KEYS: Final = 4
MAX_CREDENTIAL: Final = 8 * 1024
MAX_CERTIFICATE: Final = 16 * 1024
MAX_PLAIN: Final = 4096
"""Bytes of a trust document in one message to a device that is not enrolled."""


class Verb(enum.IntEnum):
    """Numbers on the wire. Below 10: plain. 10 to 19, 30 to 39: bench to device. 20 to 29: device to bench. 40 to 49:
    plain, with a device that is not enrolled."""

    HELLO = 0
    EDHOC = 1
    EDHOC_FAILURE = 2
    HELLO_REPLY = 3
    APPROVE = 10
    OFFER = 11
    DATA = 12
    COMMIT = 13
    REBOOT = 14
    REPORT = 15
    KEEP_ALIVE = 16
    CLOSE = 17
    TRUST_CHAIN = 18
    TRANSFER = 19
    DONE = 20
    ACCEPT = 21
    REFUSED = 22
    DURABLE = 23
    REPORT_REPLY = 24
    LOG_PIECE = 25
    CERTIFICATE = 26
    RECOVER = 30
    LOG = 31
    DECOMMISSION = 32
    ENROL = 40
    ENROL_KEYS = 41
    ENROL_TRUST = 42
    ENROL_CREDENTIALS = 43
    ENROL_TAKEN = 44
    ERASURE = 45
    ERASURE_REPLY = 46


@dataclass(frozen=True, slots=True)
class Hello:
    """Bench: the protocol versions it speaks, newest first."""

    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HelloReply:
    """Device: protocol version, boot state, suites (informative), and the nonce a grant may have to carry.

    No serial number and no firmware version in clear.
    """

    version: int
    boot_state: str
    suites: tuple[int, ...]
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Edhoc:
    """One EDHOC message, 1 to 4 (RFC 9528 section 5)."""

    message: bytes


@dataclass(frozen=True, slots=True)
class EdhocFailure:
    """An EDHOC error message (RFC 9528 section 6) and our own refusal code beside it."""

    message: bytes
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Approve:
    """The second technician's approval object and the grant its key belongs to."""

    approval: bytes
    grant: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """The envelope with payload and text severed."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """Payload bytes at an offset; offsets have no gaps and never go back."""

    offset: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """All bytes are sent: hash the slot, compare, mark for trial."""

    manifest_digest: bytes


@dataclass(frozen=True, slots=True)
class Reboot:
    """Boot the judged image on trial."""


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Ask for a signed report; the challenge makes it fresh."""

    challenge: bytes


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The bench is still there (while a second technician decides)."""


@dataclass(frozen=True, slots=True)
class Close:
    """The bench is done."""


class Encoding(enum.IntEnum):
    """How an image may travel other than as it is: as a patch against the running image, or compressed."""

    DELTA = 1
    COMPRESSED = 2


@dataclass(frozen=True, slots=True)
class Transfer:
    """The image comes encoded: the data that follow are `size` bytes whose SHA-256 is `digest`; the answer is `Durable`
    with the offset to go on from. What is accepted, and by which digest it is judged, stays as it was."""

    encoding: int
    size: int
    digest: bytes


class Ending(enum.IntEnum):
    """What a piece of a chain of trust documents ends: nothing, its document, or with that the chain."""

    PIECE = 0
    DOCUMENT = 1
    CHAIN = 2


@dataclass(frozen=True, slots=True)
class TrustChain:
    """A piece of a trust document; a chain of documents, oldest first, is judged when its last piece is there."""

    piece: bytes
    ending: int


@dataclass(frozen=True, slots=True)
class Done:
    """Device: the named verb took effect."""

    verb: int


@dataclass(frozen=True, slots=True)
class Accept:
    """Device: send the payload from `resume_offset` on. `source_digest` names the running image (for deltas).

    `encodings`: those the device takes, each an `Encoding` or one of a later devguard; left out where there are none.
    """

    slot: int
    window: int
    segment: int
    resume_offset: int
    source_digest: bytes
    encodings: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RefusedReply:
    """Device: no, with its code, what it expected and found, and the hint."""

    code: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class Durable:
    """Device: the payload is in flash up to this offset."""

    offset: int


@dataclass(frozen=True, slots=True)
class ReportReply:
    """Device: the signed report."""

    report: bytes


@dataclass(frozen=True, slots=True)
class Recover:
    """As `Offer`, of the release that was confirmed here last and is damaged now."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Ask for the device's own log from a byte on; with offset 0 it is signed anew over the challenge."""

    challenge: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Device: bytes of its signed log (`evidence.device_log`), which has `total`."""

    total: int
    piece: bytes


@dataclass(frozen=True, slots=True)
class Decommission:
    """Erase what makes this device ours: keys, credential, trust, therapy. The answer is the certificate of it."""

    challenge: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """Device: its signed certificate of erasure (`session.erasure`)."""

    certificate: bytes


Message: TypeAlias = (
    Hello | HelloReply | Edhoc | EdhocFailure | Approve | Offer | Data | Commit | Reboot | ReportRequest
    | KeepAlive | Close | TrustChain | Transfer | Done | Accept | RefusedReply | Durable | ReportReply
    | Recover | LogRequest | LogPiece | Decommission | Certificate
    | factory.Enrol | factory.EnrolKeys | factory.EnrolTrust | factory.EnrolCredentials | factory.EnrolTaken
    | factory.Erasure | factory.ErasureReply
)  # fmt: skip

Check: TypeAlias = Callable[[Any], bool]


def _uint(limit: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= limit


def _bytes(low: int, high: int) -> Check:
    return lambda value: type(value) is bytes and low <= len(value) <= high


def _text(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_TEXT


def _uints(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 16 and all(_uint(2**16)(item) for item in value)


def _name(low: int) -> Check:
    return lambda value: type(value) is str and low <= len(value) <= MAX_NAME and (not value or value.isprintable())


def _blobs(value: Any) -> bool:
    fits = _bytes(1, MAX_CREDENTIAL)
    return isinstance(value, list) and 0 < len(value) <= MAX_KEYS and all(map(fits, value))


_OFFSET = _uint(2**40)
_LAYOUT: Final[dict[Verb, tuple[type[Any], tuple[Check, ...]]]] = {
    Verb.HELLO: (Hello, (_uints,)),
    Verb.HELLO_REPLY: (HelloReply, (_uint(255), _text, _uints, _bytes(NONCE_SIZE, NONCE_SIZE))),
    Verb.EDHOC: (Edhoc, (_bytes(1, MAX_GRANT + 1024),)),
    Verb.EDHOC_FAILURE: (EdhocFailure, (_bytes(0, 1024), _text, _text)),
    Verb.APPROVE: (Approve, (_bytes(1, 2048), _bytes(1, MAX_GRANT))),
    Verb.OFFER: (Offer, (_bytes(1, MAX_OFFER),)),
    Verb.DATA: (Data, (_OFFSET, _bytes(1, MAX_DATA))),
    Verb.COMMIT: (Commit, (_bytes(DIGEST_SIZE, 64),)),
    Verb.REBOOT: (Reboot, ()),
    Verb.REPORT: (ReportRequest, (_bytes(NONCE_SIZE, NONCE_SIZE),)),
    Verb.KEEP_ALIVE: (KeepAlive, ()),
    Verb.CLOSE: (Close, ()),
    Verb.TRUST_CHAIN: (TrustChain, (_bytes(1, MAX_DATA), _uint(max(Ending)))),
    Verb.TRANSFER: (Transfer, (_uint(255), _uint(2**32 - 1), _bytes(DIGEST_SIZE, DIGEST_SIZE))),
    Verb.DONE: (Done, (_uint(255),)),
    Verb.ACCEPT: (Accept, (_uint(255), _uint(2**24), _uint(2**16), _OFFSET, _bytes(DIGEST_SIZE, 64), _uints)),
    Verb.REFUSED: (RefusedReply, (_text, _text, _text)),
    Verb.DURABLE: (Durable, (_OFFSET,)),
    Verb.REPORT_REPLY: (ReportReply, (_bytes(1, 8192),)),
    Verb.LOG_PIECE: (LogPiece, (_uint(MAX_SIZE), _bytes(1, MAX_PIECE))),
    Verb.RECOVER: (Recover, (_bytes(1, MAX_OFFER),)),
    Verb.LOG: (LogRequest, (_bytes(NONCE_SIZE, NONCE_SIZE), _uint(MAX_SIZE))),
    Verb.DECOMMISSION: (Decommission, (_bytes(NONCE_SIZE, NONCE_SIZE),)),
    Verb.CERTIFICATE: (Certificate, (_bytes(1, MAX_CERTIFICATE),)),
    Verb.ENROL: (factory.Enrol, (_name(1), _name(1), _name(1), _name(0), _bytes(NONCE_SIZE, NONCE_SIZE))),
    Verb.ENROL_KEYS: (factory.EnrolKeys, (_blobs,)),
    Verb.ENROL_TRUST: (factory.EnrolTrust, (_bytes(1, MAX_PLAIN), _uint(Ending.DOCUMENT))),
    Verb.ENROL_CREDENTIALS: (factory.EnrolCredentials, (_blobs,)),
    Verb.ENROL_TAKEN: (factory.EnrolTaken, (_uint(255),)),
    Verb.ERASURE: (factory.Erasure, ()),
    Verb.ERASURE_REPLY: (factory.ErasureReply, (_bytes(1, MAX_CERTIFICATE),)),
}
_VERB_OF: Final = {kind: verb for verb, (kind, _) in _LAYOUT.items()}
FACTORY: Final = frozenset(verb for verb in Verb if verb >= Verb.ENROL)
PLAIN: Final = frozenset({Verb.HELLO, Verb.HELLO_REPLY, Verb.EDHOC, Verb.EDHOC_FAILURE}) | FACTORY


def verb_of(message: Message) -> Verb:
    """The verb of a message."""
    return _VERB_OF[type(message)]


def encode_message(message: Message) -> bytes:
    """A message as it travels. A field at its default is left out: only the last of `Accept` has one."""
    given = [(getattr(message, field.name), field.default) for field in fields(message)]
    return wire.encode([int(verb_of(message)), *(value for value, default in given if value != default)])


def _required(kind: type[Any]) -> int:
    return sum(field.default is MISSING for field in fields(kind))


def decode_message(data: bytes, *, sealed: bool) -> Message:
    """The message in `data`. A sealed verb in clear, or the other way round, is refused.

    Raises `RemoteProtocolError("session.order")` for an unknown verb or the wrong channel, and
    `Malformed("wire.malformed")` or `RemoteProtocolError("wire.malformed")` for anything that is no message.
    """
    items = wire.decode(data, max_depth=3)
    if not isinstance(items, list) or not items or type(items[0]) is not int:
        raise RemoteProtocolError("wire.malformed", "not a message of the update conversation")
    try:
        verb = Verb(items[0])
    except ValueError:
        raise RemoteProtocolError("session.order", f"unknown verb {items[0]}") from None
    if (verb in PLAIN) == sealed:
        channel = "sealed" if sealed else "plain"
        raise RemoteProtocolError("session.order", f"{verb.name} does not belong on the {channel} channel")
    kind, checks = _LAYOUT[verb]
    given = items[1:]
    whole = _required(kind) <= len(given) <= len(checks)
    if not whole or not all(check(field) for check, field in zip(checks, given, strict=False)):
        raise RemoteProtocolError("wire.malformed", f"{verb.name} has wrong fields")
    message: Message = kind(*(tuple(field) if isinstance(field, list) else field for field in given))
    return message

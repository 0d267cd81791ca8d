"""A device's own log as it leaves the device: the last events of its hash chain, signed by its key. Pure.

A COSE_Sign1 (RFC 9052 section 4.2) over [1, model, serial, time, count, base, events, challenge]: `count` events ever,
the chain's head `base` before the first one here, each event [time, name, code or null, subject]. The chain is
head = SHA-256(head before, CBOR of the event), from 32 zero bytes; a head that a report was signed with is found in it
again. A session event's subject is the session id (32 bytes) and the SHA-256 of the grant it was held under, which is
what a bench's log is compared by. Not here: who compares it (`evidence.contradict`), and how a device keeps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import read_sign1, sign1
from devguard.cose.signer import Signer
from devguard.errors import Malformed

TYP: Final = "application/devguard-device-log+cbor"
FORMAT: Final = 1
MAX_SIZE: Final = 32 * 1024
MAX_EVENTS: Final = 256
MAX_TEXT: Final = 64
CHALLENGE_SIZE: Final = 16
SUBJECT_SIZES: Final = (0, 32, 48, 64)
SESSION: Final = "session"
START: Final = bytes(32)
_CODE: Final = "wire.malformed"
_MAX_NUMBER: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """One event: the device's time in seconds, its name, a refusal code or None, and what it concerns."""

    time: int
    name: str
    code: str | None
    subject: bytes

    @property
    def session(self) -> bytes | None:
        """The session id of a session event, None of any other."""
        return self.subject[:32] if self.name == SESSION and len(self.subject) == 64 else None

    @property
    def grant(self) -> bytes | None:
        """SHA-256 of the grant of a session event, None of any other."""
        return self.subject[32:] if self.session is not None else None


@dataclass(frozen=True, slots=True)
class DeviceLog:
    """What a device says happened to it. `time`: its own, at signing; `challenge`: the 16 bytes it was asked with."""

    model: str
    serial: str
    time: int
    count: int
    base: bytes
    events: tuple[DeviceEvent, ...]
    challenge: bytes

    @property
    def heads(self) -> tuple[bytes, ...]:
        """The chain's head before the first event, and after each."""
        return chain(self.base, self.events)

    @property
    def head(self) -> bytes:
        """The chain's head, as the device's reports name it."""
        return self.heads[-1]

    @property
    def whole(self) -> bool:
        """Whether it goes back to the device's first event."""
        return self.count == len(self.events)


def chain(base: bytes, events: Sequence[DeviceEvent]) -> tuple[bytes, ...]:
    """`base`, and the head after each event."""
    heads = [base]
    for one in events:
        heads.append(hashlib.sha256(heads[-1] + wire.encode(_plain(one))).digest())
    return tuple(heads)


def _plain(event: DeviceEvent) -> list[object]:
    return [event.time, event.name, event.code, event.subject]


def sign_device_log(log: DeviceLog, signer: Signer) -> bytes:
    """The log as tagged COSE_Sign1 bytes, by the device's key."""
    events = [_plain(one) for one in log.events]
    fields = [FORMAT, log.model, log.serial, log.time, log.count, log.base, events, log.challenge]
    return sign1(signer, wire.encode(fields), typ=TYP).encode()


def read_device_log(data: bytes, key: CoseKey) -> DeviceLog:
    """The log in `data`, if the device's `key` signed it. Whether challenge and serial are the ones that were asked
    with is the caller's question.

    Raises `Malformed("wire.malformed")` and the COSE room's codes.
    """
    if len(data) > MAX_SIZE:
        raise _no_log()
    items: Any = wire.decode(read_sign1(data).verify(key, typ=TYP), max_depth=4)
    kinds = (int, str, str, int, int, bytes, list, bytes)
    if not isinstance(items, list) or [type(item) for item in items] != list(kinds) or items[0] != FORMAT:
        raise _no_log()
    _, model, serial, time, count, base, rows, challenge = items
    events = tuple(map(_event, rows[: MAX_EVENTS + 1]))
    log = DeviceLog(model, serial, time, count, base, events, challenge)
    texts = all(0 < len(text) <= 128 and text.isprintable() for text in (model, serial))
    numbers = 0 <= time <= _MAX_NUMBER and len(events) <= min(count, MAX_EVENTS) and count <= _MAX_NUMBER
    if not texts or not numbers or len(base) != 32 or len(challenge) != CHALLENGE_SIZE:
        raise _no_log()
    if log.whole != (base == START):
        raise Malformed(_CODE, "a device's log starts neither at its beginning nor behind it")
    return log


def _event(row: object) -> DeviceEvent:
    if not isinstance(row, list) or len(row) != 4:
        raise _no_log()
    time, name, code, subject = row
    said = (name,) if code is None else (name, code)
    texts = all(isinstance(text, str) and 0 < len(text) <= MAX_TEXT and text.isprintable() for text in said)
    if type(time) is not int or not 0 <= time <= _MAX_NUMBER or not texts or type(subject) is not bytes:
        raise _no_log()
    if len(subject) not in SUBJECT_SIZES:
        raise _no_log()
    return DeviceEvent(time, name, code, subject)


def _no_log() -> Malformed:
    return Malformed(_CODE, "not a device's log of format 1")

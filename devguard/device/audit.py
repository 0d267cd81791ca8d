"""The device's own record of what happened to it: the last 64 events under one hash chain.

head = SHA-256(head before || deterministic CBOR of the event), from 32 zero bytes. The ring forgets old
events but never their place in the chain, so a head that was signed into an earlier report can be checked
against a later one. No patient data, no keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from devguard import wire
from devguard.device import fields
from devguard.errors import LocalProtocolError

RING_SIZE: Final = 64
MAX_TEXT: Final = 64
SUBJECT_SIZES: Final = (0, 32, 48, 64)
_START: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event: device time in seconds, its name, a refusal code or None, the manifest digest concerned or empty."""

    time: int
    name: str
    code: str | None = None
    subject: bytes = b""

    def to_list(self) -> list[object]:
        """The CBOR array of the four fields."""
        return [self.time, self.name, self.code, self.subject]

    @classmethod
    def from_list(cls, value: object) -> AuditEvent:
        """The event in a decoded array; `Refused("device.state")` when it is none."""
        time, name, code, subject = fields.items(value, "audit event", count=4)
        return cls(
            fields.uint(time, "audit event"),
            fields.text(name, "audit event", MAX_TEXT),
            None if code is None else fields.text(code, "audit event", MAX_TEXT),
            fields.blob(subject, "audit event", *SUBJECT_SIZES),
        )


def _link(head: bytes, event: AuditEvent) -> bytes:
    return hashlib.sha256(head + wire.encode(event.to_list())).digest()


@dataclass(frozen=True, slots=True)
class AuditRing:
    """`count` events were ever recorded; `base` is the chain's head before the first of `events`."""

    count: int = 0
    base: bytes = _START
    events: tuple[AuditEvent, ...] = ()
    head: bytes = field(default=_START)

    def append(self, event: AuditEvent) -> AuditRing:
        """The ring with one event more; the oldest is forgotten when it is full."""
        if len(event.name) > MAX_TEXT or len(event.code or "") > MAX_TEXT or len(event.subject) not in SUBJECT_SIZES:
            raise LocalProtocolError("device.state", "an audit event of this size cannot be stored")
        base, kept = self.base, self.events
        if len(kept) >= RING_SIZE:
            base, kept = _link(base, kept[0]), kept[1:]
        return AuditRing(self.count + 1, base, (*kept, event), _link(self.head, event))

    def to_list(self) -> list[object]:
        """The CBOR array: count, base, events, head."""
        return [self.count, self.base, [event.to_list() for event in self.events], self.head]

    @classmethod
    def from_list(cls, value: object) -> AuditRing:
        """The ring in a decoded array, its chain checked; `Refused("device.state")` when it does not hold."""
        count, base, events, head = fields.items(value, "audit ring", count=4)
        ring = cls(
            fields.uint(count, "audit ring"),
            fields.blob(base, "audit ring", 32),
            tuple(AuditEvent.from_list(item) for item in fields.items(events, "audit ring", limit=RING_SIZE)),
            fields.blob(head, "audit ring", 32),
        )
        chained = ring.base
        for event in ring.events:
            chained = _link(chained, event)
        if (
            chained != ring.head
            or ring.count < len(ring.events)
            or (ring.count == len(ring.events)) != (ring.base == _START)
        ):
            raise fields.damaged("audit ring")
        return ring

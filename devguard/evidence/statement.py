"""A device's signed word as a file of its own, to be kept away from the station and held against its log. Pure.

`["devguard-device-statement", 1, credential, signed object, opening or null]`: whose word it is, on a device
authority's word; a signed report or device log; and for a report what its challenge was made of. A bench derives every
challenge from the head of its own log, so a device that answers has countersigned that head without knowing it: the
opening shows which.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.errors import Malformed, Refused
from devguard.evidence.checkpoint import Checkpoint, parse_text

NAME: Final = "devguard-device-statement"
FORMAT: Final = 1
MAX_SIZE: Final = 64 * 1024
NONCE_SIZE: Final = 16
CHALLENGE_SIZE: Final = 16
_MAX_TEXT: Final = 512
_DOMAIN: Final = b"devguard report challenge\n"
_CODE: Final = "wire.malformed"


@dataclass(frozen=True, slots=True)
class Opening:
    """What a challenge was made of: 16 random bytes and the text of the station's head at that moment."""

    nonce: bytes
    text: bytes

    @classmethod
    def of(cls, nonce: bytes, head: Checkpoint) -> Opening:
        """The opening of a new challenge."""
        return cls(nonce, head.text())

    @property
    def challenge(self) -> bytes:
        """The 16 bytes that the device is asked with."""
        return hashlib.sha256(_DOMAIN + self.nonce + self.text).digest()[:CHALLENGE_SIZE]

    @property
    def head(self) -> Checkpoint:
        """The head of the station's log that was countersigned; `Malformed("log.tampered")` when the text is none."""
        return parse_text(self.text)

    def check(self, challenge: bytes) -> Checkpoint:
        """The head that a device countersigned by answering `challenge`; `Refused("log.tampered")` for another."""
        if challenge != self.challenge:
            raise Refused("log.tampered", "the device answered another challenge than the one that is shown")
        return self.head

    def encode(self) -> bytes:
        """Deterministic CBOR, as a record carries it."""
        return wire.encode([self.nonce, self.text])


def read_opening(data: bytes) -> Opening:
    """The opening in a record; `Malformed("wire.malformed")` for anything else."""
    return _opening(wire.decode(data[: MAX_SIZE + 1], max_depth=2))


def _opening(value: Any) -> Opening:
    if not isinstance(value, list) or [type(one) for one in value] != [bytes, bytes]:
        raise Malformed(_CODE, "not the opening of a challenge")
    nonce, text = value
    if len(nonce) != NONCE_SIZE or not text or len(text) > _MAX_TEXT:
        raise Malformed(_CODE, "not the opening of a challenge")
    return Opening(nonce, text)


@dataclass(frozen=True, slots=True)
class DeviceStatement:
    """A device's word: its credential, the report or device log that it signed, and the opening of its challenge."""

    credential: bytes
    signed: bytes
    opening: Opening | None = None

    def encode(self) -> bytes:
        """The statement as a file."""
        opening = None if self.opening is None else [self.opening.nonce, self.opening.text]
        return wire.encode([NAME, FORMAT, self.credential, self.signed, opening])

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was signed, as the log's records name it."""
        return hashlib.sha256(self.signed).digest()


def is_statement(data: bytes) -> bool:
    """Whether a file with these first bytes means to be one."""
    return data.startswith(wire.head(4, 5) + wire.encode(NAME))


def read_statement(data: bytes) -> DeviceStatement:
    """The statement in a file; `Malformed("wire.malformed")` for anything else. It proves nothing yet."""
    if len(data) > MAX_SIZE:
        raise Malformed(_CODE, f"a device's statement of {len(data)} bytes; at most {MAX_SIZE} are read")
    value: Any = wire.decode(data, max_depth=3)
    if not isinstance(value, list) or len(value) != 5 or value[0] != NAME or type(value[1]) is not int:
        raise Malformed(_CODE, "not a device's statement")
    if value[1] != FORMAT:
        raise Malformed(_CODE, f"a device's statement of format {value[1]}; known is {FORMAT}", "update devguard")
    if not all(type(part) is bytes and part for part in value[2:4]):
        raise Malformed(_CODE, "not a device's statement")
    return DeviceStatement(value[2], value[3], None if value[4] is None else _opening(value[4]))

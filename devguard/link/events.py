"""What the engine tells its owner, and what it counts."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from devguard.errors import DevguardError, LinkError, Refused


class Role(enum.Enum):
    """Which end of the line this is: only the host opens."""

    HOST = "host"
    DEVICE = "device"


class Channel(enum.Enum):
    """The two channels: plain carries hello and the key exchange, sealed everything after it."""

    PLAIN = "plain"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Opened:
    """The plain channel is open under this connection nonce; whatever it held before is gone."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message of the peer, in order, exactly once."""

    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine is dead: messages not yet acknowledged may or may not have arrived."""

    code: str
    message: str

    def error(self) -> DevguardError:
        """The failure as the error to raise."""
        kind = LinkError if self.code.startswith("link.") else Refused
        return kind(self.code, self.message)


@dataclass(frozen=True, slots=True)
class PlainLost:
    """The plain channel gave up while the sealed one lives on. Nobody authenticated it, so it may not kill more."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Both ends agree that the channel is finished; everything sent before has arrived."""


Event = Opened | Message | Failed | PlainLost | Closed


@dataclass(slots=True)
class LinkStatistics:
    """Counters since the engine was made. Bytes are wire bytes, delimiters included."""

    frames_sent: int = 0
    frames_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retransmits: int = 0
    timeouts: int = 0
    duplicates: int = 0
    crc_errors: int = 0
    malformed: int = 0
    replayed: int = 0
    stray: int = 0
    noise_bytes: int = 0

"""Steps a conversation asks its driver for: the bench side is a generator, sans-I/O.

A script yields steps and is sent their results; the driver (link room) owns port, engine and clock. A failed road
is thrown into the script as `LinkError`, a tampered frame as `Refused`. So the whole bench side can be
run in a test against the whole device side with no port at all.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar


class Protector(Protocol):
    """What the link seals frames with; `session.records.RecordLayer` is one."""

    @property
    def tag_size(self) -> int: ...
    def next(self) -> tuple[int, int]: ...
    def seal(self, epoch: int, counter: int, header: bytes, plaintext: bytes) -> bytes: ...
    def open(self, epoch_low2: int, counter_low16: int, header: bytes, ciphertext: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class OpenPlain:
    """Open the plain channel anew. Result: None, once the device has answered."""


@dataclass(frozen=True, slots=True)
class Send:
    """Queue a message, waiting while the link holds `backlog` unacknowledged bytes or more. Result: None."""

    message: bytes
    sealed: bool
    backlog: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Receive:
    """The next message of a channel. Result: bytes; after `timeout` seconds `LinkError("link.timeout")` is thrown,
    or the result is None where `optional`."""

    sealed: bool
    timeout: float
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Attach:
    """Put keys on the sealed channel. Result: None."""

    protector: Protector


@dataclass(frozen=True, slots=True)
class Flush:
    """Wait until everything queued is acknowledged, at most `timeout` seconds: a courtesy to a peer that may be gone
    with its last acknowledgement, never a proof. Result: None."""

    timeout: float = 2.0


Step: TypeAlias = OpenPlain | Send | Receive | Attach | Flush
T = TypeVar("T")
Script: TypeAlias = Generator[Step, Any, T]

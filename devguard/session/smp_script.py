"""Steps that a conversation with an MCUmgr device asks its driver for; sans-I/O, as `session.script`.

The driver (link room) owns port, timers and sequence numbers, and repeats questions until they are answered. What fails
is thrown into the script: `LinkError` for the road, `RemoteProtocolError("smp.malformed")` for answers that make no
sense however often they are asked for.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from devguard.session.smp_frame import Request
from devguard.session.smp_upload import Upload


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. Result: the answering `Message`. Repeated for `patience` seconds, or sent `once`, without a second
    try, for what must not happen twice."""

    request: Request
    patience: float = 20.0
    once: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """Send a whole upload. Result: None, when the device has every byte."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait, and let go what comes meanwhile. Result: None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """Result: seconds on a clock that only runs forward."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Close the port and open it again: a device on USB takes its port with it when it resets. Result: None."""


Step: TypeAlias = Ask | Stream | Pause | Now | Reopen
T = TypeVar("T")
Script: TypeAlias = Generator[Step, Any, T]

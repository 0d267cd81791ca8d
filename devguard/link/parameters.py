"""Every number of the link in one place. Times are seconds, sizes are bytes unless the name says otherwise.

The timers follow RFC 6298 (Jacobson/Karels, Karn); the segment size follows the measured loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devguard.errors import LocalProtocolError

LINK_VERSION: Final = 1
CREDIT_UNIT: Final = 64  # windows and segment limits travel in this unit
SACK_LIMIT: Final = 32  # bytes of bitmap, hence 256 segments in flight
BITS_PER_BYTE_ON_LINE: Final = 10  # start, eight data bits, stop
_SHORT_FRAMES: Final = 128


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """What one end of the link does and announces.

    `baud` 0 means that the line's speed is unknown: then no serialisation time enters the timers.
    `max_pending` bounds the message bytes of one channel that wait for their acknowledgement.
    `window_bytes` is what this end buffers out of order per channel, and announces to its peer.
    `segment_seconds` is the longest that one segment may hold the line, `send_ahead` how long before the line is free
    the next one is handed over. `losses_remembered`: with each loss older ones count that much less.
    """

    baud: int = 115_200
    window_bytes: int = 16 * 1024
    segment_min: int = 128
    segment_start: int = 1024
    segment_max: int = 4096
    segments_in_flight: int = SACK_LIMIT * 8
    max_message: int = 64 * 1024
    max_pending: int = 64 * 1024 * 1024
    segment_seconds: float = 2.5
    send_ahead: float = 0.02
    later_acked: int = 1
    rto_initial: float = 1.0
    rto_min: float = 0.05
    rto_max: float = 4.0
    ack_every: int = 2
    ack_fraction: float = 0.25
    ack_delay_min: float = 0.002
    ack_delay_max: float = 0.025
    give_up: float = 60.0
    overhead: int = 27
    loss_prior: float = 0.05
    loss_memory: int = 256 * 1024
    losses_remembered: int = 8

    def __post_init__(self) -> None:
        sizes_rise = 0 < self.segment_min <= self.segment_start <= self.segment_max <= self.window_bytes
        fits = self.segment_min >= CREDIT_UNIT and self.window_bytes <= 0xFFFF * CREDIT_UNIT
        counts = 1 <= self.segments_in_flight <= SACK_LIMIT * 8 and self.later_acked >= 1 and self.ack_every >= 1
        times_rise = 0 < self.rto_min <= self.rto_initial <= self.rto_max and self.give_up > 0
        delays_rise = 0 <= self.ack_delay_min <= self.ack_delay_max and self.ack_fraction > 0
        limits = self.baud >= 0 and self.loss_prior > 0 and self.loss_memory > 0
        limits = limits and self.max_message > 0 and self.max_pending > 0 and self.losses_remembered > 1
        limits = limits and self.segment_seconds > 0 and self.send_ahead >= 0
        if not (sizes_rise and fits and counts and times_rise and delays_rise and limits and self.overhead > 0):
            raise LocalProtocolError("link.protocol", "link parameters contradict each other")

    def line_time(self, size: int) -> float:
        """Seconds that `size` bytes occupy the line."""
        return size * BITS_PER_BYTE_ON_LINE / self.baud if self.baud else 0.0

    @property
    def rto_floor(self) -> float:
        """Shortest retransmission time-out: on a slow line an answer may wait behind one or two short frames."""
        return min(self.rto_min + self.line_time(_SHORT_FRAMES), self.rto_max)


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What the other end announced when the connection was opened."""

    window: int
    segment: int

    @classmethod
    def unknown(cls, parameters: LinkParameters) -> PeerLimits:
        """The least that any peer takes, until it says more."""
        return cls(8 * parameters.segment_min, parameters.segment_min)

"""Measurements that drive the timers and the segment size. Pure arithmetic over `now`; no clock is read.

Round trip: Jacobson/Karels as in RFC 6298. Segment size: with h bytes of overhead and q losses per byte the
best segment is sqrt(h / q).
"""

from __future__ import annotations

import math

from devguard.link.parameters import LinkParameters


class RoundTrip:
    """Smoothed round trip and the retransmission time-out derived from it."""

    __slots__ = ("_deviation", "_parameters", "backoff", "smoothed")

    def __init__(self, parameters: LinkParameters) -> None:
        self._parameters = parameters
        self.smoothed: float | None = None
        self._deviation = 0.0
        self.backoff = 0

    def sample(self, seconds: float) -> None:
        """One measured round trip of a segment that was sent once (Karn's rule); ends the back-off."""
        seconds = max(0.0, seconds)
        if self.smoothed is None:
            self.smoothed, self._deviation = seconds, seconds / 2
        else:
            self._deviation += (abs(self.smoothed - seconds) - self._deviation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        self.backoff = 0

    @property
    def timeout(self) -> float:
        """Retransmission time-out, back-off included."""
        limits = self._parameters
        base = limits.rto_initial if self.smoothed is None else self.smoothed + 4 * self._deviation
        return min(max(base, limits.rto_min) * (1 << min(self.backoff, 16)), limits.rto_ceiling)

    @property
    def ack_delay(self) -> float:
        """How long an acknowledgement may wait for company."""
        limits = self._parameters
        if self.smoothed is None:
            return limits.ack_delay_max
        return min(max(self.smoothed * limits.ack_fraction, limits.ack_delay_min), limits.ack_delay_max)


class SegmentSizer:
    """Chooses the size of new segments from the losses seen so far; old experience fades."""

    __slots__ = ("_bytes", "_losses", "_parameters")

    def __init__(self, parameters: LinkParameters) -> None:
        self._parameters = parameters
        self._losses = parameters.loss_prior
        self._bytes = parameters.loss_prior * parameters.segment_start**2 / parameters.overhead

    def sent(self, size: int) -> None:
        """`size` payload bytes went out in one frame."""
        self._bytes += size + self._parameters.overhead
        if self._bytes > self._parameters.loss_memory:
            self._bytes /= 2
            self._losses = max(self._losses / 2, self._parameters.loss_prior / 2)

    def lost(self) -> None:
        """One frame, or one burst of frames, is known to be lost."""
        self._losses += 1

    def size(self, peer_limit: int) -> int:
        """Bytes of payload for the next segment."""
        limits = self._parameters
        best = int(math.sqrt(limits.overhead * self._bytes / self._losses))
        return min(max(best, limits.segment_min), limits.segment_max, peer_limit)


class LineClock:
    """When the line will have carried everything handed to it: timers start when a frame has left, not when it
    was queued behind a full window."""

    __slots__ = ("_parameters", "free_at")

    def __init__(self, parameters: LinkParameters) -> None:
        self._parameters = parameters
        self.free_at = -math.inf

    def depart(self, size: int, now: float) -> float:
        """Time at which `size` more bytes will have left. Never more than two windows ahead: the window
        is all that can be queued, so a larger debt means the line is faster than its stated speed."""
        limits = self._parameters
        horizon = now + limits.line_time(2 * limits.window_bytes)
        self.free_at = min(max(self.free_at, now) + limits.line_time(size), horizon)
        return self.free_at

"""Measurements that drive the timers and the segment size. Pure arithmetic over `now`; no clock is read.

Round trip: Jacobson/Karels as in RFC 6298. Segment size: with h bytes of overhead and q losses per byte the
best segment is sqrt(h / q).
"""

from __future__ import annotations

import math

from devguard.link.parameters import LinkParameters


class RoundTrip:
    """Smoothed round trip, the shortest seen, and the retransmission time-out derived from them."""

    __slots__ = ("_deviation", "_parameters", "backoff", "least", "smoothed")

    def __init__(self, parameters: LinkParameters) -> None:
        self._parameters = parameters
        self.smoothed: float | None = None
        self.least: float | None = None
        self._deviation = 0.0
        self.backoff = 0

    def sample(self, seconds: float) -> None:
        """One measured round trip of a segment that was sent once (Karn's rule); ends the back-off."""
        seconds = max(0.0, seconds)
        self.least = seconds if self.least is None else min(self.least, seconds)
        self._fold(seconds)

    def slow(self, seconds: float) -> None:
        """A round trip of at most `seconds`, to a segment that a time-out sent again though it may have been slow, not
        lost: a time-out that is too short would never be found out otherwise."""
        self._fold(min(seconds, self._parameters.rto_max))

    def _fold(self, seconds: float) -> None:
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
        return min(max(base, limits.rto_floor) * (1 << min(self.backoff, 16)), limits.rto_max)

    @property
    def ack_delay(self) -> float:
        """How long an acknowledgement may wait for company."""
        limits = self._parameters
        if self.smoothed is None:
            return limits.ack_delay_max
        return min(max(self.smoothed * limits.ack_fraction, limits.ack_delay_min), limits.ack_delay_max)


class SegmentSizer:
    """Chooses the size of new segments from the losses seen so far; old experience fades, with every loss more."""

    __slots__ = ("_bytes", "_losses", "_parameters")

    def __init__(self, parameters: LinkParameters) -> None:
        self._parameters = parameters
        self._losses = parameters.loss_prior
        self._bytes = parameters.loss_prior * parameters.segment_start**2 / parameters.overhead

    def arrived(self, size: int) -> None:
        """`size` payload bytes arrived in one frame."""
        self._bytes += size + self._parameters.overhead
        if self._bytes > self._parameters.loss_memory:
            self._bytes /= 2
            self._losses = max(self._losses / 2, self._parameters.loss_prior / 2)

    def lost(self, size: int) -> None:
        """One frame of `size` payload bytes is known to be lost: on average half of it was still good."""
        kept = 1 - 1 / self._parameters.losses_remembered
        self._losses = self._losses * kept + 1
        self._bytes = self._bytes * kept + (size + self._parameters.overhead) / 2

    def limit(self, peer_limit: int) -> int:
        """The longest segment: what both ends take, and what does not hold up a slow line for too long."""
        limits = self._parameters
        longest = min(limits.segment_max, peer_limit)
        if limits.baud:
            longest = min(longest, max(limits.segment_min, int(limits.segment_seconds / limits.line_time(1))))
        return longest

    def size(self, peer_limit: int) -> int:
        """Bytes of payload for the next segment."""
        limits = self._parameters
        best = int(math.sqrt(limits.overhead * self._bytes / self._losses))
        return min(max(best, limits.segment_min), self.limit(peer_limit))


class LineClock:
    """When the line will have carried everything handed to it. Frames are handed over only a little ahead of that, so
    that what is urgent never queues behind a window, and timers start when a frame has left.

    The stated speed is the least that a line has: a pseudo-terminal or USB is faster, and its answers show it.
    """

    __slots__ = ("_ahead", "_byte_time", "free_at")

    def __init__(self, parameters: LinkParameters) -> None:
        self._byte_time = parameters.line_time(1)
        self._ahead = parameters.send_ahead
        self.free_at = -math.inf

    def depart(self, size: int, now: float) -> float:
        """Time at which `size` more bytes will have left."""
        self.free_at = max(self.free_at, now) + self.taking(size)
        return self.free_at

    def taking(self, size: int) -> float:
        """Seconds that `size` bytes are on the line."""
        return size * self._byte_time

    @property
    def opens_at(self) -> float:
        """When the next segment may be handed over."""
        return self.free_at - self._ahead

    def outrun(self, now: float) -> None:
        """An answer came before its question can have left: the line is at least twice as fast as assumed."""
        self._byte_time /= 2
        self.free_at = now

"""Selective repeat for one channel: a `Sender` and a `Receiver`, neither of which knows frames, keys or ports.

Sequence numbers count segments; 16 bits travel, whole integers are kept. A segment keeps its number and its
bytes through every retransmission. CLOSE takes a number of its own, so it arrives after all data, exactly once.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from devguard.errors import RemoteProtocolError
from devguard.link.frames import Acknowledgement, Kind
from devguard.link.parameters import CREDIT_UNIT, SACK_LIMIT, LinkParameters, PeerLimits
from devguard.link.timing import RoundTrip, SegmentSizer

_PATIENT_BACKOFF: Final = 2  # doublings of the time-out while the peer still answers
_AS_SOON_AS: Final = 0.9  # of the shortest round trip seen: an earlier answer is to an earlier question
_BULK: Final = 512  # a segment so long is acknowledged by itself: the way back is idle meanwhile


def nearest(expected: int, low16: int) -> int:
    """The integer with these low 16 bits that is closest to `expected`."""
    return expected + ((low16 - expected + 0x8000) & 0xFFFF) - 0x8000


@dataclass(slots=True)
class Segment:
    """One segment in flight. `order` numbers transmissions over the whole channel; `first_order` is its first."""

    sequence: int
    kind: Kind
    fin: bool
    body: bytes
    order: int = 0
    first_order: int = 0
    transmissions: int = 0
    departed: float = 0.0
    halfway: float = 0.0
    first_departed: float = 0.0
    timed_out: bool = False
    acked: bool = False
    lost: bool = False


@dataclass(slots=True)
class _Outgoing:
    kind: Kind
    data: bytes
    offset: int = 0


@dataclass(slots=True)
class Sender:
    """Cuts messages into segments, keeps them until acknowledged, decides what is lost and when."""

    parameters: LinkParameters
    round_trip: RoundTrip
    peer: PeerLimits
    progress_at: float = 0.0
    timeouts: int = 0
    pending_bytes: int = 0
    acknowledged: int = 0
    _sizer: SegmentSizer = field(init=False)
    _queue: deque[_Outgoing] = field(default_factory=deque)
    _flight: dict[int, Segment] = field(default_factory=dict)
    _next: int = 0
    _order: int = 0
    _window: int = field(init=False)
    _window_used: int = 0
    _travelling: int = 0
    _lost: int = 0
    _probing: bool = False
    _probe: Segment | None = None
    _ping_due: bool = False
    _ping: tuple[int, float] | None = None
    _heard: bool = False
    _heard_at: float = -math.inf
    _outrun: bool = False
    _latest_acked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sizer = SegmentSizer(self.parameters)
        self._window = self.peer.window

    @property
    def ping_due(self) -> bool:
        """A PING is to be sent now: the last to go out was a probe or a segment sent again, and nothing follows it."""
        return self._ping_due and not self.ready()

    @property
    def outstanding(self) -> bool:
        """Something is queued or not yet acknowledged."""
        return bool(self._queue or self._flight)

    def limit(self, peer: PeerLimits) -> None:
        """Take over what the peer announced."""
        self.peer = peer
        self._window = peer.window

    def queue(self, kind: Kind, data: bytes, now: float) -> None:
        """Append one message (or CLOSE, with no data)."""
        if not self.outstanding:
            self.progress_at = now
        self._queue.append(_Outgoing(kind, data))
        self.pending_bytes += len(data)

    def ready(self) -> bool:
        """May a segment go out now?"""
        if self._probing:
            return self._probe is not None and self._probe.lost
        return self._lost > 0 or (bool(self._queue) and self._window_open())

    def _window_open(self) -> bool:
        if not self._flight:
            return True  # one segment may always travel, else a closed window would never be learned to open
        room = self._window - self._window_used
        return len(self._flight) < self.parameters.segments_in_flight and self._cut(self._queue[0]) <= room

    def _cut(self, head: _Outgoing) -> int:
        """Bytes of the next segment: what is left of a message in equal parts, for a short last one costs a frame."""
        left, size = len(head.data) - head.offset, self._sizer.size(self.peer.segment)
        parts = max(1, round(left / size), -(-left // self._sizer.limit(self.peer.segment)))
        return -(-left // parts)

    def take(self) -> Segment:
        """The next segment to transmit; only when `ready()`. Call `sent` once it is on its way."""
        if self._probing and self._probe is not None:
            return self._probe
        if self._lost:
            return next(segment for segment in self._flight.values() if segment.lost)
        head = self._queue[0]
        end = head.offset + self._cut(head)
        fin = end == len(head.data) and head.kind is Kind.DATA
        segment = Segment(self._next, head.kind, fin, head.data[head.offset : end])
        head.offset = end
        if end == len(head.data):
            self._queue.popleft()
        self._flight[self._next] = segment
        self._next += 1
        self._window_used += len(segment.body)
        return segment

    def sent(self, segment: Segment, departed: float, taking: float = 0.0) -> None:
        """`segment` was transmitted and leaves the line at `departed`, after `taking` seconds on it."""
        self._order += 1
        segment.order = self._order
        if segment.transmissions == 0:
            segment.first_order, segment.first_departed = self._order, departed
        segment.transmissions += 1
        segment.departed, segment.halfway = departed, departed - taking / 2
        if segment.lost:
            segment.lost = False
            self._lost -= 1
        self._travelling += 1
        if not self._probing:
            self._ping_due = segment.transmissions > 1  # else nothing may follow that tells whether it is lost again

    def pinged(self, departed: float) -> None:
        """The PING was sent. What left before it and is not in the answer is lost."""
        self._order += 1
        self._ping, self._ping_due = (self._order, departed), False

    def outrun(self) -> bool:
        """Whether an answer came to bytes that cannot have left yet; asking forgets it."""
        early, self._outrun = self._outrun, False
        return early

    def acknowledge(self, ack: Acknowledgement, now: float) -> None:
        """Digest one acknowledgement. RemoteProtocolError when it covers what was never sent."""
        base = next(iter(self._flight), self._next)
        cumulative = nearest(base, ack.cumulative)
        bits = int.from_bytes(ack.bitmap, "little")
        latest = cumulative + bits.bit_length() if bits else cumulative - 1
        if latest >= self._next:
            raise RemoteProtocolError("link.protocol", "the peer acknowledged segments that were never sent")
        news = self._cumulative(base, cumulative) + self._selective(cumulative, bits)
        self._window = ack.credit * CREDIT_UNIT
        self._heard, self._heard_at = True, now
        self._probing, self._probe, self._ping_due = False, None, False
        if news:
            self._learn(news, now)
        self._suspect(news, now)

    def _cumulative(self, base: int, cumulative: int) -> list[Segment]:
        news = []
        for sequence in range(base, cumulative):
            segment = self._flight.pop(sequence)
            self._window_used -= len(segment.body)
            self.acknowledged += len(segment.body)
            if not segment.acked:
                news.append(segment)
        return news

    def _selective(self, cumulative: int, bits: int) -> list[Segment]:
        news = []
        sequence = cumulative + 1
        while bits:
            segment = self._flight.get(sequence) if bits & 1 else None
            if segment is not None and not segment.acked:
                news.append(segment)
            bits >>= 1
            sequence += 1
        return news

    def _learn(self, news: list[Segment], now: float) -> None:
        for segment in news:
            segment.acked = True
            self.pending_bytes -= len(segment.body)
            self._sizer.arrived(len(segment.body))
            if segment.lost:
                segment.lost = False
                self._lost -= 1
            else:
                self._travelling -= 1
        self.progress_at = now
        once = [segment for segment in news if segment.transmissions == 1]
        late = [segment for segment in news if segment.timed_out]
        if once:  # Karn: the answer to a segment sent twice says nothing about the round trip
            newest = max(once, key=lambda segment: segment.order)
            self.round_trip.sample(now - newest.departed)
            self._outrun = now < newest.halfway
        elif late:
            self.round_trip.slow(now - late[-1].first_departed)

    def _suspect(self, news: list[Segment], now: float) -> None:
        """Lost is what was transmitted before `later_acked` segments that have arrived: a line keeps the order. Of a
        segment sent twice, and of a PING, the transmission is evidence only when the answer is not too early to be to
        it (as RACK, RFC 8985)."""
        needed = self.parameters.later_acked
        soonest = (self.round_trip.least or 0.0) * _AS_SOON_AS
        arrived = [s.order if now - s.departed >= soonest else s.first_order for s in news]
        if self._ping is not None and now - self._ping[1] >= soonest:
            arrived += [self._ping[0]] * needed
            self._ping = None
        orders = sorted(self._latest_acked + arrived)
        self._latest_acked = orders[-needed:]
        if len(self._latest_acked) < needed:
            return
        threshold = self._latest_acked[0]
        suspects = [s for s in self._flight.values() if not s.acked and not s.lost and s.order < threshold]
        for segment in suspects:
            self._mark_lost(segment)
            segment.timed_out = False
            self._sizer.lost(len(segment.body))

    def _mark_lost(self, segment: Segment) -> None:
        segment.lost = True
        self._lost += 1
        self._travelling -= 1

    def deadline(self) -> float | None:
        """When the answer to the PING is overdue, or to the oldest segment; each word of the peer starts that anew."""
        if self._probing:
            return self._ping[1] + self.round_trip.timeout if self._ping is not None else None
        if not self._travelling:
            return None
        first = min(s.departed for s in self._flight.values() if not s.acked and not s.lost)
        return max(first, self._heard_at) + self.round_trip.timeout

    def expire(self, now: float) -> None:
        """When an answer is overdue, send the oldest segment again with a PING behind it, then a PING alone, ever more
        slowly, until the peer answers: a dead line is not fed. The answer tells what is lost."""
        due = self.deadline()
        if due is None or due > now:
            return
        if not self._probing:
            self._probe = next(s for s in self._flight.values() if not s.acked and not s.lost)
            self._probe.timed_out = True
            self._mark_lost(self._probe)
            self._sizer.lost(len(self._probe.body))
        self.timeouts += 1
        if not self._heard or self.round_trip.backoff < _PATIENT_BACKOFF:
            self.round_trip.backoff += 1  # a peer that answers is not gone: the segments are too long for the noise
        self._heard = False
        self._probing, self._ping_due, self._ping = True, True, None


@dataclass(slots=True)
class Receiver:
    """Puts segments in order, joins messages, and says when which acknowledgement is due."""

    parameters: LinkParameters
    round_trip: RoundTrip
    duplicates: int = 0
    closed: bool = False
    _next: int = 0
    _early: dict[int, tuple[Kind, bool, bytes]] = field(default_factory=dict)
    _early_bytes: int = 0
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _unanswered: int = 0
    _ack_at: float | None = None

    @property
    def ack_at(self) -> float | None:
        """When the acknowledgement is due; None when none is owed."""
        return self._ack_at

    @property
    def early_bytes(self) -> int:
        """Bytes held out of order, at most the announced window."""
        return self._early_bytes

    def answer_now(self, now: float) -> None:
        """Owe an acknowledgement at once."""
        self._ack_at = now

    def accept(self, kind: Kind, low16: int, fin: bool, body: bytes, now: float) -> list[bytes]:
        """The messages that this segment completes. RemoteProtocolError when the peer breaks a rule."""
        if len(body) > self.parameters.segment_max or (kind is Kind.DATA and not body and not fin):
            raise RemoteProtocolError("link.protocol", f"segment of {len(body)} bytes breaks the announced limits")
        sequence = nearest(self._next, low16)
        if sequence != self._next or self._early:
            self._ack_at = now
        if sequence < self._next or sequence in self._early:
            self.duplicates += 1
            return []
        if sequence > self._next:
            self._hold(sequence, (kind, fin, body))
            return []
        done = self._deliver(kind, fin, body)
        while (held := self._early.pop(self._next, None)) is not None:
            self._early_bytes -= len(held[2])
            done += self._deliver(*held)
        self._schedule(now, len(body) >= _BULK)
        return done

    def _hold(self, sequence: int, segment: tuple[Kind, bool, bytes]) -> None:
        room = self._early_bytes + len(segment[2]) <= self.parameters.window_bytes
        if room and sequence - self._next <= SACK_LIMIT * 8:
            self._early[sequence] = segment
            self._early_bytes += len(segment[2])

    def _deliver(self, kind: Kind, fin: bool, body: bytes) -> list[bytes]:
        if self.closed:
            raise RemoteProtocolError("link.protocol", "the peer sent data after its close")
        self._next += 1
        self._unanswered += 1
        if kind is Kind.CLOSE:
            if self._parts:
                raise RemoteProtocolError("link.protocol", "the peer closed inside a message")
            self.closed = True
            return []
        self._size += len(body)
        if self._size > self.parameters.max_message:
            raise RemoteProtocolError("link.protocol", f"message longer than {self.parameters.max_message} bytes")
        self._parts.append(body)
        if not fin:
            return []
        message = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return [message]

    def _schedule(self, now: float, urgent: bool) -> None:
        if urgent or self._unanswered >= self.parameters.ack_every or self.closed:
            self._ack_at = now
        elif self._ack_at is None:
            self._ack_at = now + self.round_trip.ack_delay

    def take_ack(self, now: float) -> Acknowledgement | None:
        """The acknowledgement, when due."""
        if self._ack_at is None or self._ack_at > now:
            return None
        self._ack_at = None
        self._unanswered = 0
        bits = 0
        for sequence in self._early:
            bits |= 1 << (sequence - self._next - 1)
        bitmap = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        return Acknowledgement(self._next & 0xFFFF, self.parameters.window_bytes // CREDIT_UNIT, bitmap)

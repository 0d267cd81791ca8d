"""One channel of the link: its sender, its receiver, and the wrapping that makes frames plain or sealed.

A lane touches nothing of the other lane. What it raises ends it; what that means for the engine is decided there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Seam

from devguard.errors import LinkError, LocalProtocolError, RemoteProtocolError
from devguard.link.channel import Receiver, Segment, Sender
from devguard.link.events import Channel, Closed, Event, LinkStatistics, Message
from devguard.link.frames import Acknowledgement, Frame, Kind, encode_frame, encode_header
from devguard.link.parameters import LinkParameters, PeerLimits
from devguard.link.protector import Protector
from devguard.link.timing import LineClock, RoundTrip

Transmit = Callable[[bytes], float]  # hands wire bytes to the line, returns when they will have left it


class Wrapping(Seam):
    """Makes wire bytes of a frame's content, and content of a frame's body."""

    def wrap(self, kind: Kind, body: bytes, sequence: int, fin: bool, ack: Acknowledgement | None) -> bytes: ...

    def unwrap(self, frame: Frame) -> bytes: ...


class PlainWrapping:
    """Frames under a connection nonce, readable by anyone."""

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce

    def wrap(self, kind: Kind, body: bytes, sequence: int, fin: bool, ack: Acknowledgement | None) -> bytes:
        return encode_frame(encode_header(kind, nonce=self.nonce, sequence=sequence, fin=fin, ack=ack), body)

    def unwrap(self, frame: Frame) -> bytes:
        return frame.body


class SealedWrapping:
    """Frames under a protector. Every call of `wrap` takes a fresh record counter, retransmission or not."""

    def __init__(self, protector: Protector) -> None:
        self._protector = protector

    def wrap(self, kind: Kind, body: bytes, sequence: int, fin: bool, ack: Acknowledgement | None) -> bytes:
        record = self._protector.next()
        header = encode_header(kind, record=record, sequence=sequence, fin=fin, ack=ack)
        return encode_frame(header, self._protector.seal(record[0], record[1], header, body))

    def unwrap(self, frame: Frame) -> bytes:
        return self._protector.open(frame.epoch, frame.counter, frame.header, frame.body)


class Lane:
    """Reliable, ordered messages over one wrapping."""

    def __init__(
        self, channel: Channel, wrapping: Wrapping, parameters: LinkParameters, peer: PeerLimits, now: float
    ) -> None:
        self.channel = channel
        self.wrapping = wrapping
        self._parameters = parameters
        self.round_trip = RoundTrip(parameters)
        self.sender = Sender(parameters, self.round_trip, peer, progress_at=now)
        self.receiver = Receiver(parameters, self.round_trip)
        self._closing = False
        self._close_told = False
        self._ping_at: float | None = None
        self._ping_since = now
        self.heard_at = now

    @property
    def _waiting(self) -> bool:
        """Something is to be sent, or an answer is awaited."""
        return self.sender.outstanding or self._ping_at is not None

    @property
    def idle(self) -> bool:
        """Nothing to send, to wait for or to acknowledge."""
        return not self._waiting and self.receiver.ack_at is None

    def send(self, message: bytes, now: float) -> None:
        if self._closing or self.receiver.closed:
            raise LocalProtocolError("link.protocol", f"the {self.channel.value} channel is closed")
        self.sender.queue(Kind.DATA, bytes(message), now)

    def close(self, now: float) -> None:
        """Queue CLOSE behind everything else; a second call does nothing."""
        if not self._closing:
            self._closing = True
            self.sender.queue(Kind.CLOSE, b"", now)

    def ping(self, now: float) -> None:
        """Ask for a sign of life; repeated until any acknowledgement comes."""
        if self._ping_at is None:
            self._ping_at = self._ping_since = now

    def receive(self, frame: Frame, now: float, statistics: LinkStatistics) -> list[Event]:
        """Events of one frame of this lane. DevguardError from the protector or for a broken rule."""
        body = self.wrapping.unwrap(frame)
        self.heard_at = now
        if frame.kind is Kind.ACK and frame.ack is not None and not body:
            self._ping_at = None
            self.sender.acknowledge(frame.ack, now)
            return self._closed_event()
        if frame.kind is Kind.PING and not body:
            self.receiver.answer_now(now)
            return []
        if frame.kind is Kind.DATA or (frame.kind is Kind.CLOSE and not body):
            before = self.receiver.duplicates
            messages = self.receiver.accept(frame.kind, frame.sequence, frame.fin, body, now)
            statistics.duplicates += self.receiver.duplicates - before
            return [*(Message(self.channel, message) for message in messages), *self._closed_event()]
        raise RemoteProtocolError("link.protocol", f"{frame.kind.name} frame with a body")

    def _closed_event(self) -> list[Event]:
        ours = self._closing and not self.sender.outstanding
        if self._close_told or not (ours or self.receiver.closed):
            return []
        self._close_told = True
        return [Closed()]

    def check(self, now: float, statistics: LinkStatistics) -> None:
        """Run the timers. LinkError("link.timeout") when nothing has moved for `give_up` seconds."""
        if not self._waiting:
            return
        deadline = self._give_up_at()
        if deadline is not None and deadline <= now:
            waited = f"{self._parameters.give_up:g} s"
            raise LinkError("link.timeout", f"no answer within {waited} on the {self.channel.value} channel")
        before = self.sender.timeouts
        self.sender.expire(now)
        statistics.timeouts += self.sender.timeouts - before

    def _give_up_at(self) -> float | None:
        starts = [self.sender.progress_at] if self.sender.outstanding else []
        if self._ping_at is not None:
            starts.append(self._ping_since)
        return min(starts) + self._parameters.give_up if starts else None

    def emit(self, now: float, clock: LineClock, transmit: Transmit, statistics: LinkStatistics) -> None:
        """Hand over every frame that is due. Acknowledgements first: the peer's timers wait for them. Segments only as
        the line has room for them."""
        ack = self.receiver.take_ack(now)
        if ack is not None:
            transmit(self.wrapping.wrap(Kind.ACK, b"", 0, False, ack))
        if self._ping_at is not None and self._ping_at <= now:
            departed = transmit(self.wrapping.wrap(Kind.PING, b"", 0, False, None))
            self._ping_at = departed + self.round_trip.timeout
        while clock.opens_at <= now and self.sender.ready():
            segment: Segment = self.sender.take()
            statistics.retransmits += segment.transmissions > 0
            wire = self.wrapping.wrap(segment.kind, segment.body, segment.sequence, segment.fin, None)
            self.sender.sent(segment, transmit(wire), clock.taking(len(wire)))
        if self.sender.ping_due:  # a short frame gets through where a long one does not: is the peer there?
            self.sender.pinged(transmit(self.wrapping.wrap(Kind.PING, b"", 0, False, None)))

    def next_timeout(self, now: float, clock: LineClock) -> float | None:
        """The earliest moment at which this lane has something to do."""
        if not self._waiting:
            return self.receiver.ack_at
        opens = max(now, clock.opens_at) if self.sender.ready() else now if self.sender.ping_due else None
        times = (opens, self.receiver.ack_at, self._ping_at, self.sender.deadline(), self._give_up_at())
        known = [time for time in times if time is not None]
        return min(known) if known else None

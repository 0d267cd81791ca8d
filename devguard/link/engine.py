"""The link engine: bytes and `now` in, bytes and events out. It reads no clock, opens no port, knows no keys.

Two channels share one line. Plain frames carry the connection nonce and never reach the sealed channel's state,
nor the other way round. The engine starts closed; a `Failed` event is its last: then it is dead and its owner
makes a new one. Noise (a wrong CRC) is counted and dropped; a right CRC with a wrong tag is an attack and fatal.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable

from devguard.errors import DevguardError, LinkError, LocalProtocolError, Malformed
from devguard.link.events import Channel, Closed, Event, Failed, LinkStatistics, Opened, PlainLost, Role
from devguard.link.frames import (
    CRC_ERROR,
    DELIMITER,
    NONCE_SIZE,
    Frame,
    FrameReader,
    Kind,
    decode_announcement,
    decode_frame,
    encode_announcement,
    encode_frame,
    encode_header,
    frame_limit,
)
from devguard.link.lane import Lane, PlainWrapping, SealedWrapping
from devguard.link.parameters import LINK_VERSION, LinkParameters, PeerLimits
from devguard.link.protector import Protector
from devguard.link.timing import LineClock

_REMEMBERED_NONCES = 8


@dataclasses.dataclass(slots=True)
class _Opening:
    """The host's unanswered OPEN."""

    since: float
    due: float
    wait: float
    departed: float = 0.0
    transmissions: int = 0


class LinkEngine:
    """One end of the link. See the module docstring for its laws."""

    def __init__(self, role: Role, parameters: LinkParameters, nonce: Callable[[int], bytes]) -> None:
        self._role = role
        self._parameters = parameters
        self._random = nonce
        self._reader = FrameReader(frame_limit(parameters.segment_max))
        self._clock = LineClock(parameters)
        self._statistics = LinkStatistics()
        self._events: list[Event] = []
        self._failed: Failed | None = None
        self._peer = PeerLimits.unknown(parameters)
        self._opening: _Opening | None = None
        self._answer_open: bytes | None = None
        self._nonces: deque[bytes] = deque(maxlen=_REMEMBERED_NONCES)
        self._plain: Lane | None = None
        self._sealed: Lane | None = None
        self._out: list[bytes] = []

    # -- what the owner asks -------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Host only: start a connection under a fresh nonce. A former one, and a sealed channel, are given up:
        opening anew is the start of a new key exchange."""
        self._alive()
        if self._role is not Role.HOST:
            raise LocalProtocolError("link.protocol", "only the host opens a connection")
        nonce = self._random(NONCE_SIZE)
        self._sealed = None
        self._peer = PeerLimits.unknown(self._parameters)
        self._plain = Lane(Channel.PLAIN, PlainWrapping(nonce), self._parameters, self._peer, now)
        self._opening = _Opening(now, now, self._parameters.rto_initial)

    def send(self, channel: Channel, message: bytes, now: float) -> None:
        """Queue one message; it arrives once, in order, or the engine fails. LocalProtocolError when the channel
        does not exist or the message is longer than `max_message`; LinkError("link.timeout") when the peer has not
        acknowledged `max_pending` bytes of earlier ones: nothing is queued then."""
        self._alive()
        if len(message) > self._parameters.max_message:
            raise LocalProtocolError("link.protocol", f"message of {len(message)} bytes is too long for the link")
        lane = self._lane(channel)
        if lane.sender.pending_bytes > self._parameters.max_pending:
            raise LinkError("link.timeout", f"the peer leaves {lane.sender.pending_bytes} bytes unacknowledged")
        lane.send(message, now)

    def ping(self, now: float) -> None:
        """Ask the peer for a sign of life on the sealed channel, or on the plain one when there is no other."""
        self._alive()
        self._current().ping(now)

    def close(self, now: float) -> None:
        """Finish the sealed channel, or the plain one when there is no other: `Closed` comes once the peer has
        acknowledged everything."""
        self._alive()
        self._current().close(now)

    def attach(self, protector: Protector, now: float) -> None:
        """Start the sealed channel, in place of a former one, whose messages are dropped."""
        self._alive()
        self._sealed = Lane(Channel.SEALED, SealedWrapping(protector), self._parameters, self._peer, now)

    def detach(self) -> None:
        """Drop the sealed channel and its protector."""
        self._sealed = None

    @property
    def idle(self) -> bool:
        """Nothing is queued, unacknowledged or owed."""
        lanes = (self._plain, self._sealed)
        waiting = self._opening is not None or self._answer_open is not None or self._events
        return not waiting and all(lane is None or lane.idle for lane in lanes)

    @property
    def failed(self) -> Failed | None:
        """Why the engine is dead, once it is."""
        return self._failed

    @property
    def statistics(self) -> LinkStatistics:
        """A copy of the counters."""
        return dataclasses.replace(self._statistics, noise_bytes=self._reader.noise_bytes)

    def pending_bytes(self, channel: Channel) -> int:
        """Message bytes queued or not yet acknowledged, for back-pressure; 0 for a channel that is not there."""
        lane = self._plain if channel is Channel.PLAIN else self._sealed
        return lane.sender.pending_bytes if lane is not None else 0

    def acknowledged_bytes(self, channel: Channel) -> int:
        """Bytes of messages sent on a channel that have arrived without a gap; 0 for a channel that is not there."""
        lane = self._plain if channel is Channel.PLAIN else self._sealed
        return lane.sender.acknowledged if lane is not None else 0

    @property
    def sealed_heard(self) -> float:
        """When the last genuine frame of the sealed channel came, or the channel was attached; never without one."""
        return self._sealed.heard_at if self._sealed is not None else -math.inf

    def _alive(self) -> None:
        if self._failed is not None:
            raise self._failed.error()

    def _lane(self, channel: Channel) -> Lane:
        lane = self._plain if channel is Channel.PLAIN else self._sealed
        if lane is None:
            raise LocalProtocolError("link.protocol", f"there is no {channel.value} channel")
        return lane

    def _current(self) -> Lane:
        return self._lane(Channel.SEALED if self._sealed is not None else Channel.PLAIN)

    # -- bytes in ------------------------------------------------------------------------------------------

    def receive_bytes(self, data: bytes, now: float) -> list[Event]:
        """Digest what the line brought (b"" to run the timers only); every event since the last call."""
        if self._failed is None:
            self._statistics.bytes_received += len(data)
            for raw in self._reader.feed(data):
                self._receive_raw(raw, now)
            self._check(now)
        events, self._events = self._events, []
        return events

    def _receive_raw(self, raw: bytes, now: float) -> None:
        if self._failed is not None:
            return
        try:
            frame = decode_frame(raw)
        except Malformed as error:
            if error.code == CRC_ERROR:
                self._statistics.crc_errors += 1
            else:
                self._statistics.malformed += 1
            return
        self._statistics.frames_received += 1
        if frame.nonce is None:
            self._receive_sealed(frame, now)
        else:
            self._receive_plain(frame, frame.nonce, now)

    def _receive_sealed(self, frame: Frame, now: float) -> None:
        if self._sealed is None:
            self._statistics.stray += 1
            return
        try:
            self._events += self._sealed.receive(frame, now, self._statistics)
            if self._sealed.sender.outrun():
                self._clock.outrun(now)
        except DevguardError as error:
            if error.code == "session.replay":  # a bad line may double a frame; it was dropped unread
                self._statistics.replayed += 1
            else:
                self._fail(error)

    def _receive_plain(self, frame: Frame, nonce: bytes, now: float) -> None:
        try:
            if frame.kind is Kind.OPEN and self._role is Role.DEVICE:
                self._on_open(nonce, decode_announcement(frame.body), now)
            elif frame.kind is Kind.OPEN_ACK and self._opening is not None and self._is_current(nonce):
                self._on_open_ack(nonce, decode_announcement(frame.body), self._opening, now)
            elif frame.kind not in (Kind.OPEN, Kind.OPEN_ACK) and self._opening is None and self._is_current(nonce):
                self._on_plain(frame, now)
            else:
                self._statistics.stray += 1
        except Malformed:
            self._statistics.malformed += 1

    def _is_current(self, nonce: bytes) -> bool:
        wrapping = self._plain.wrapping if self._plain is not None else None
        return isinstance(wrapping, PlainWrapping) and wrapping.nonce == nonce

    def _on_open(self, nonce: bytes, peer: PeerLimits | int, now: float) -> None:
        if isinstance(peer, int) or self._is_current(nonce):
            self._answer_open = nonce  # a newer host learns our version from the answer and gives up by itself
        elif nonce in self._nonces:
            self._statistics.stray += 1  # an OPEN of an earlier connection that the line kept or doubled
        else:
            self._nonces.append(nonce)
            self._answer_open = nonce
            self._peer = peer
            self._plain = Lane(Channel.PLAIN, PlainWrapping(nonce), self._parameters, peer, now)
            self._events.append(Opened(nonce))

    def _on_open_ack(self, nonce: bytes, peer: PeerLimits | int, opening: _Opening, now: float) -> None:
        if isinstance(peer, int):
            text = f"the device speaks link version {peer}, this is version {LINK_VERSION}"
            self._fail(LinkError("link.protocol", text))
            return
        self._opening = None
        self._peer = peer
        lane = self._lane(Channel.PLAIN)
        lane.sender.limit(peer)
        lane.sender.progress_at = now
        if opening.transmissions == 1:  # Karn's rule holds for OPEN too
            lane.round_trip.sample(now - opening.departed)
        self._events.append(Opened(nonce))

    def _on_plain(self, frame: Frame, now: float) -> None:
        lane = self._lane(Channel.PLAIN)
        try:
            events = lane.receive(frame, now, self._statistics)
        except DevguardError as error:
            self._plain_broke(error)
            return
        for event in events:
            if not isinstance(event, Closed) or self._sealed is None:
                self._events.append(event)

    # -- failing -------------------------------------------------------------------------------------------

    def _fail(self, error: DevguardError) -> None:
        self._failed = Failed(error.code, error.message)
        self._events.append(self._failed)
        self._plain = self._sealed = self._opening = self._answer_open = None
        self._out.clear()

    def _plain_broke(self, error: DevguardError) -> None:
        """Nobody authenticated the plain channel: its end ends the engine only while there is nothing better."""
        if self._sealed is None:
            self._fail(error)
            return
        self._plain = self._opening = self._answer_open = None
        self._events.append(PlainLost(error.code, error.message))

    def _check(self, now: float) -> None:
        """Run every timer that `now` has passed."""
        if self._failed is not None:
            return
        if self._opening is not None and now >= self._opening.since + self._parameters.give_up:
            text = f"no device answered within {self._parameters.give_up:g} s"
            self._plain_broke(LinkError("link.timeout", text))
        if self._plain is not None and self._opening is None:
            try:
                self._plain.check(now, self._statistics)
            except LinkError as error:
                self._plain_broke(error)
        if self._sealed is not None:
            try:
                self._sealed.check(now, self._statistics)
            except LinkError as error:
                self._fail(error)

    # -- bytes out -----------------------------------------------------------------------------------------

    def data_to_send(self, now: float) -> bytes:
        """Wire bytes of everything due now, b"" when nothing is. Each call seals anew; what it returns must be
        written or counts as lost on the line."""
        self._check(now)
        if self._failed is not None:
            return b""
        opener = DELIMITER if self._clock.free_at <= now else b""  # an idle line may have brought noise: end it
        try:
            self._emit(now)
        except DevguardError as error:  # the protector refuses to seal: its limits are spent
            self._fail(error)
            return b""
        burst = b"".join(self._out)
        self._out.clear()
        if not burst:
            return b""
        self._statistics.bytes_sent += len(opener) + len(burst)
        return opener + burst

    def _emit(self, now: float) -> None:
        def transmit(wire: bytes) -> float:
            self._out.append(wire)
            self._statistics.frames_sent += 1
            return self._clock.depart(len(wire), now)

        if self._answer_open is not None:
            transmit(self._announce(Kind.OPEN_ACK, self._answer_open))
            self._answer_open = None
        if self._opening is not None:
            self._emit_open(self._opening, now, transmit)
        elif self._plain is not None:
            self._plain.emit(now, self._clock, transmit, self._statistics)
        if self._sealed is not None:
            self._sealed.emit(now, self._clock, transmit, self._statistics)

    def _emit_open(self, opening: _Opening, now: float, transmit: Callable[[bytes], float]) -> None:
        wrapping = self._plain.wrapping if self._plain is not None else None
        if opening.due <= now and isinstance(wrapping, PlainWrapping):
            opening.departed = transmit(self._announce(Kind.OPEN, wrapping.nonce))
            opening.transmissions += 1
            opening.due = opening.departed + opening.wait
            opening.wait = min(opening.wait * 2, self._parameters.rto_max)

    def _announce(self, kind: Kind, nonce: bytes) -> bytes:
        limits = self._parameters
        return encode_frame(
            encode_header(kind, nonce=nonce), encode_announcement(limits.window_bytes, limits.segment_max)
        )

    def next_timeout(self, now: float) -> float | None:
        """The moment, on the clock of `now` and never before it, at which to call `data_to_send` or
        `receive_bytes(b"", ...)` again with nothing received; None when only the peer can start something."""
        if self._events or self._answer_open is not None:
            return now
        times: list[float | None] = []
        if self._opening is not None:
            times += [self._opening.due, self._opening.since + self._parameters.give_up]
        elif self._plain is not None:
            times.append(self._plain.next_timeout(now, self._clock))
        if self._sealed is not None:
            times.append(self._sealed.next_timeout(now, self._clock))
        known = [time for time in times if time is not None]
        return max(now, min(known)) if known else None

"""Questions to an SMP server and their answers over a line that loses and flips bytes: sequence numbers and timers.

MCUmgr has no retransmission and neither have its clients. Here every transmission takes a sequence number of its own,
so that an answer says which one it answers and round trips are measured even when a question was repeated; timers
follow the measured round trip (RFC 6298). Whether to ask again is the runner's or the upload's business. Sans-I/O: the
engine is fed bytes and `now`, seconds on a clock that only runs forward.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from devguard.errors import Malformed
from devguard.link.parameters import LinkParameters
from devguard.link.smp_console import ConsoleReader, encode_lines
from devguard.link.timing import LineClock, RoundTrip
from devguard.session.smp_frame import HEADER, Message, Request, read_header, read_message

SEQUENCES: Final = 256
MOST_HELD: Final = 64  # transmissions whose late answer is still known, well below the number of sequences
SLOW: Final = 5.0  # seconds; asked again meanwhile it does the same work once


def smp_parameters(baud: int) -> LinkParameters:
    """The link's timers as small devices need them: each does one thing at a time, and a flash sector takes long."""
    return replace(LinkParameters(), baud=baud, rto_initial=1.0, rto_min=0.1, rto_max=2.0)


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to transmission `number`."""

    number: int
    message: Message


@dataclass(frozen=True, slots=True)
class Garbled:
    """Something that is an answer to transmission `number` by its header, and makes no sense otherwise."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Expired:
    """No answer to transmission `number` in time. A later one is still reported."""

    number: int


SmpEvent: TypeAlias = Replied | Garbled | Expired


@dataclass(slots=True)
class _Flight:
    request: Request
    sequence: int
    departs: float
    deadline: float | None


class SmpEngine:
    """One end that asks. `bytes_sent`, `bytes_received`, `strangers` (whole messages nobody asked for) count."""

    def __init__(self, parameters: LinkParameters, sequence: int) -> None:
        self._limits = parameters
        self.round_trip = RoundTrip(parameters)
        self._clock = LineClock(parameters)
        self._reader = ConsoleReader()
        self._sequence = sequence % SEQUENCES
        self._number = 0
        self._flights: OrderedDict[int, _Flight] = OrderedDict()
        self._out = bytearray()
        self.bytes_sent = self.bytes_received = self.strangers = 0

    def send(self, request: Request, now: float) -> int:
        """Transmit a question; the number of this transmission."""
        while len(self._flights) >= MOST_HELD:
            self._flights.popitem(last=False)
        self._sequence = (self._sequence + 1) % SEQUENCES
        data = encode_lines(request.frame(self._sequence))
        departs = self._clock.depart(len(data), now)
        self._number += 1
        deadline = departs + self._patience(request)
        self._flights[self._number] = _Flight(request, self._sequence, departs, deadline)
        self._out += data
        return self._number

    def _patience(self, request: Request) -> float:
        usual = self.round_trip.timeout
        return max(usual, SLOW) if request.slow else usual

    def forget(self) -> None:
        """Nothing that is still unanswered matters any more."""
        for flight in self._flights.values():
            flight.deadline = None

    def data_to_send(self, now: float) -> bytes:
        """What the port is to write; once."""
        del now
        data = bytes(self._out)
        self._out.clear()
        self.bytes_sent += len(data)
        return data

    def next_timeout(self, now: float) -> float | None:
        """When the next answer is overdue; None while none is awaited."""
        del now
        return min((one.deadline for one in self._flights.values() if one.deadline is not None), default=None)

    def receive_bytes(self, data: bytes, now: float) -> list[SmpEvent]:
        """What the bytes that have come, and the time that has passed, amount to."""
        self.bytes_received += len(data)
        events: list[SmpEvent] = []
        damaged = self._reader.damaged
        frames = self._reader.feed(data)
        if self._reader.damaged > damaged:
            self.round_trip.backoff = 0  # it does answer, and the line spoils it: waiting longer would mend nothing
        for frame in frames:
            event = self._frame(frame, now)
            if event is not None:
                events.append(event)
        for number, flight in self._flights.items():
            if flight.deadline is not None and now >= flight.deadline:
                flight.deadline = None
                self.round_trip.backoff += 1
                events.append(Expired(number))
        return events

    def _frame(self, frame: bytes, now: float) -> SmpEvent | None:
        number = self._asked(frame)
        if number is None:
            self.strangers += 1
            return None
        flight = self._flights[number]
        try:
            message = read_message(frame)
        except Malformed as error:
            flight.deadline = None
            return Garbled(number, error.message)
        del self._flights[number]
        if now < flight.departs:
            self._clock.outrun(now)
        if not flight.request.slow:
            self.round_trip.sample(now - flight.departs)
        return Replied(number, message)

    def _asked(self, frame: bytes) -> int | None:
        """The newest transmission that a frame answers by operation, group, command and sequence. Its length is not
        asked here: whatever else is wrong with it, it is an answer."""
        try:
            header = read_header(frame[:2] + max(0, len(frame) - HEADER).to_bytes(2, "big") + frame[4:])
        except Malformed:
            return None
        return next(
            (
                number
                for number, flight in reversed(self._flights.items())
                if flight.sequence == header.sequence and flight.request.asks(header)
            ),
            None,
        )

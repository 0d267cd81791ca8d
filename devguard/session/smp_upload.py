"""One image on its way into a slot, piece by piece; the device's offset is the truth. Pure state, no clock, no line.

Pieces fill the device's buffer, at most as many are unanswered as it can hold. What arrives as an answer says which
byte the device wants next, whatever was sent; a piece that is lost, doubled or late therefore does no harm. Losses make
the pieces smaller and one at a time, answers make them larger again: over a noisy line a short message has the better
chance, and small devices drop the lines that come too fast. A device that never gets on, takes its image drop by drop,
goes back again and again, or speaks of bytes nobody sent, is given up.

A device that was reset meanwhile wants byte 0, and the upload begins anew. A server also forgets an upload that is
complete: when the answer to the last piece was lost, that piece sent again is answered with offset 0, as if nothing had
come; only the slot can tell then, and `unsure` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from devguard.errors import Refused
from devguard.session.smp_answers import PASSING, Parameters, error_of, malformed, taken
from devguard.session.smp_frame import HEADER, Message, Request
from devguard.session.smp_image import JudgedImage
from devguard.session.smp_requests import begin_upload, go_on_upload

Progress = Callable[[int, int], None]

ASSUMED_BUFFER: Final = 256  # of a device that does not say
LEAST_BUFFER: Final = 80
MOST_BUFFER: Final = 4096
MOST_MESSAGES: Final = 8
LEAST_PIECE: Final = 32  # and an MCUboot header, which the first piece has to hold whole
SHORTEST: Final = 64  # what one line of a console holds beside the rest of its message
ALIGNED: Final = 16  # pieces end on this, as the write units of most flashes; MCUboot takes no part of one
LINE_OVERHEAD: Final = 4  # length and checksum share the device's buffer with the message
GROWS_AFTER: Final = 12
MAX_BACKWARD: Final = 8
MAX_IDLE: Final = 64  # answers one after the other that bring less than half of their piece
SHARES: Final = 512  # an upload is in time while each of so many parts of it is
PATIENCE: Final = 45.0
ERASE_PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """What a device's parameters come to: bytes of the longest message, and how many at a time."""

    message: int
    messages: int

    @classmethod
    def of(cls, parameters: Parameters | None) -> Window:
        """From what the device says (None: nothing). Too small to be true is `RemoteProtocolError("smp.malformed")`;
        what is larger than any device's memory is not believed."""
        if parameters is None:
            return cls(ASSUMED_BUFFER - LINE_OVERHEAD, 1)
        if parameters.buffer_size < LEAST_BUFFER or parameters.buffer_count < 1:
            raise malformed(f"{parameters.buffer_count} buffers of {parameters.buffer_size} bytes hold no upload")
        size = min(parameters.buffer_size, MOST_BUFFER) - LINE_OVERHEAD
        return cls(size, min(parameters.buffer_count, MOST_MESSAGES))


@dataclass(slots=True)
class Upload:
    """One upload under way. `next` gives what to send, `answered` and `lost` say what became of it; `done` ends it.

    `acked`: bytes the device has. `resumed`: where it went on from, 0 for a new upload. `sent`: bytes of image sent,
    repeated ones included. `repeated`: pieces sent again. `begun`: the device has taken the first. `unsure`: it ended,
    and the slot has to say whether every byte arrived.
    """

    image: JudgedImage
    limits: Window
    progress: Progress
    acked: int = 0
    resumed: int = 0
    sent: int = 0
    repeated: int = 0
    window: int = 1
    match: bool | None = None
    unsure: bool = False
    begun: bool = False
    _next: int = 0
    _highest: int = 0
    _piece: int = 0
    _streak: int = 0
    _backward: int = 0
    _idle: int = 0
    _losses: int = 0  # one after the other
    _mark: int = 0  # the byte up to which the device has to get within its time
    _ready: tuple[int, int] = (0, 0)
    _flight: dict[int, tuple[int, int]] = field(default_factory=dict)  # transmission -> first byte, byte after the last
    _late: dict[int, tuple[int, int]] = field(default_factory=dict)  # the same, of those that were given up too early
    _whole: int = 0  # the length of pieces before the losses that may have been none

    @property
    def done(self) -> bool:
        """Whether the device has every byte, as far as it says."""
        return self.unsure or (self.begun and self.acked == self.image.size)

    @property
    def patience(self) -> float:
        """Seconds within which the device has to get on."""
        return PATIENCE if self.begun else ERASE_PATIENCE

    def gets_on(self) -> bool:
        """Whether the device has come a share of the image further since this was last true, so that its time begins
        anew; a device that takes a byte with every answer does not get on."""
        if not self.begun or self.acked < self._mark:
            return False
        self._mark = min(self.acked + max(SHORTEST, self.image.size // SHARES), self.image.size)
        return True

    def next(self) -> Request | None:
        """The next piece, or None while enough are unanswered."""
        if self._next == 0 and not self._flight:
            return self._first()
        if not self.begun or any(start == 0 for start, _ in self._flight.values()):
            return None  # the device may be erasing
        if len(self._flight) >= self.window or self._next >= self.image.size:
            return None
        start, room = self._next, self._room(go_on_upload(self._next, b""))
        size = min(room, self._piece or room)
        data = self.image.read(start, size - size % ALIGNED if size > ALIGNED else size)
        self.sent += len(data)
        self._goes(start, len(data))
        return go_on_upload(start, data)

    def _goes(self, start: int, size: int) -> None:
        self._next = start + size
        self.repeated += start < self._highest
        self._highest = max(self._highest, self._next)
        self._ready = (start, self._next)

    def _first(self) -> Request:
        """With the name of the upload where that leaves room for the image's header: without it nothing is resumed. It
        is short, for the device may take its time over it, and a lost one is noticed late."""
        named = begin_upload(self.image.number, self.image.size, self.image.sha256, b"")
        bare = begin_upload(self.image.number, self.image.size, None, b"")
        sha = self.image.sha256 if self._room(named) >= LEAST_PIECE else None
        room = self._room(bare if sha is None else named)
        if room < LEAST_PIECE:
            raise malformed(f"messages of {self.limits.message} bytes hold no first piece of an image")
        data = self.image.read(0, min(room - room % ALIGNED, SHORTEST))
        self._goes(0, len(data))
        return begin_upload(self.image.number, self.image.size, sha, data)

    def _room(self, empty: Request) -> int:
        """Bytes of image that fit beside what an empty message has; a longer string has a longer head."""
        return self.limits.message - HEADER - len(empty.body) - 2

    def sending(self, number: int) -> None:
        """The request that `next` gave goes out as transmission `number`."""
        self._flight[number] = self._ready

    def waits_for(self, number: int) -> bool:
        """Whether an answer to this transmission still counts."""
        return number in self._flight or number in self._late

    def answered(self, number: int, message: Message) -> None:
        """The device's answer. Raises `DeviceRefused("smp.refused")` for its no, `Refused("image.digest")` where it
        says that the bytes are other ones, or holds some that nobody sent, `RemoteProtocolError("smp.malformed")`."""
        error = error_of(message.values)
        if error is not None and error[1] in PASSING and error[0] is None:
            self.lost(number)
            return
        answer = taken(message)
        late = number in self._late
        start, end = self._late[number] if late else self._flight[number]
        if self.begun and answer.offset == 0 and end == self.image.size and self._losses:
            self.unsure = True
            return
        self._check(answer.offset)
        self._forget_until(number)
        if late:
            self._piece, self._losses = self._whole, 0  # it was slow, not lost
        if not self.begun:
            self._begin(answer.offset, end)
        elif answer.offset < self.acked:
            self._went_back(answer.offset)
        self._idle = 0 if 2 * (answer.offset - self.acked) >= end - start else self._idle + 1
        if self._idle > MAX_IDLE:
            raise malformed(f"{self._idle} pieces one after the other, and the device still wants byte {answer.offset}")
        self._go_on(answer.offset, end)
        self.acked = answer.offset
        if self.done and answer.match is not None:
            self.match = answer.match
            if not answer.match:
                raise Refused("image.digest", "the device says that what arrived is not what was sent")
        self.progress(self.acked, self.image.size)

    def _check(self, offset: int) -> None:
        if offset > self.image.size:
            raise malformed(f"the device speaks of byte {offset} of an image of {self.image.size}")
        if self.begun and offset > self._highest:
            raise Refused("image.digest", f"the device says it has {offset} bytes, {self._highest} were sent")

    def _begin(self, offset: int, end: int) -> None:
        self.begun = True
        self.sent += min(offset, end)
        self.resumed = offset if offset > end else 0
        self._next = self._highest = max(offset, end)

    def _went_back(self, offset: int) -> None:
        self._backward += 1
        self._mark = offset
        if self._backward > MAX_BACKWARD:
            raise malformed(f"the device has gone back {self._backward} times, now to byte {offset}")

    def _go_on(self, offset: int, end: int) -> None:
        """From the byte that the device wants. Unless a piece that begins there is on its way, nothing that is will be
        taken."""
        if offset == end:
            self._grow()
        if offset != self._next and all(start != offset for start, _ in self._flight.values()):
            self._flight.clear()
            self._next = offset

    def _forget_until(self, number: int) -> None:
        """Answers come in the order of the questions: what went before this one gets none any more."""
        for kept in (self._flight, self._late):
            for one in list(kept):
                if one <= number:
                    del kept[one]

    def _grow(self) -> None:
        self._losses = 0
        self._streak += 1
        if self._streak < GROWS_AFTER * self.window:
            return
        self._streak = 0
        if self._piece:
            longer = self._piece * 3 // 2
            self._piece = longer if longer < self.limits.message else 0
        else:
            self.window = min(self.window + 1, self.limits.messages)

    def lost(self, number: int) -> None:
        """Transmission `number` got no answer in time, or none that could be read. The first time in a row that is
        chance; a second time the piece was too long for the line or for the device, unless an answer comes late."""
        if number in self._late:
            return
        if not self._losses:
            self._late.clear()
            self._whole = self._piece
        self._late |= self._flight
        self._flight.clear()
        self._next = self.acked
        self._streak = 0
        self._losses += 1
        if self._losses > 1:
            self.window = 1
            self._piece = max(SHORTEST, (self._piece or self.limits.message) // 2)

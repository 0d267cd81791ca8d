"""What somebody on the line does to frames: rules for the tap, and the forging of single frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cobs import cobs

from devguard.bench.tap import Heading, Passing, Rule, frames_of
from devguard.link.frames import DELIMITER, Kind, decode_frame, encode_frame


def sealed_data(passing: Passing, heading: Heading = Heading.TO_DEVICE) -> bool:
    """Whether it is a sealed frame with a piece of a message, on its way there."""
    frame = passing.frame
    return passing.heading is heading and frame is not None and frame.kind is Kind.DATA and frame.nonce is None


def on_number(number: int, change: Callable[[Passing], Iterable[bytes]], heading: Heading = Heading.TO_DEVICE) -> Rule:
    """A rule that changes the so-manieth sealed frame with data, counted from 0, and lets all others pass."""
    seen = [0]

    def rule(passing: Passing) -> Iterable[bytes]:
        if not sealed_data(passing, heading):
            return (passing.raw,)
        seen[0] += 1
        return change(passing) if seen[0] == number + 1 else (passing.raw,)

    return rule


def swapping(number: int) -> Rule:
    """A rule that lets the frame after the so-manieth go before it."""
    held: list[bytes] = []

    def keep(passing: Passing) -> Iterable[bytes]:
        held.append(passing.raw)
        return ()

    first = on_number(number, keep)

    def rule(passing: Passing) -> Iterable[bytes]:
        if held and sealed_data(passing):
            return (passing.raw, held.pop())
        return first(passing)

    return rule


def sealed_by_session(recorded: bytes) -> list[list[bytes]]:
    """The sealed frames with data in a recording, those of each session by themselves."""
    sessions: list[list[bytes]] = [[]]
    for raw in frames_of(recorded):
        frame = decode_frame(raw)
        if frame.kind is Kind.OPEN and sessions[-1]:
            sessions.append([])
        elif frame.kind is Kind.DATA and frame.nonce is None:
            sessions[-1].append(raw)
    return [frames for frames in sessions if frames]


def forged(raw: bytes) -> bytes:
    """The frame with one bit of its body changed and its checksum made right again."""
    frame = decode_frame(raw)
    body = bytearray(frame.body)
    body[len(body) // 2] ^= 0x10
    return encode_frame(frame.header, bytes(body)).removesuffix(DELIMITER)


def noisy(raw: bytes) -> bytes:
    """The frame with one bit changed on the wire."""
    content = bytearray(cobs.decode(raw))
    content[len(content) // 2] ^= 0x10
    stuffed: bytes = cobs.encode(bytes(content))
    return stuffed

"""Class H, second part: messages that come in pieces, in whatever pieces, with whatever between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from devguard.bench.attacks.meddle import on_number, sealed_data
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.stage import stream
from devguard.bench.tap import Heading, Passing, Rule
from devguard.link.engine import LinkEngine
from devguard.link.events import Message, Role
from devguard.link.frames import (
    DELIMITER,
    NONCE_SIZE,
    Kind,
    decode_frame,
    encode_announcement,
    encode_frame,
    encode_header,
)
from devguard.link.parameters import LinkParameters
from devguard.session.verbs import PROTOCOL_VERSIONS, Hello, encode_message

_LINK: Final = LinkParameters(baud=0, segment_min=128, segment_start=256, segment_max=256)
_CONSOLE: Final = b"\r\n[00:00:01.250,000] <inf> motor: basal 800 mU/h\r\nuart:~$ "
_NOISE: Final = (b"\xff", _CONSOLE, b"\x01\x02", b"\x55" * 40)
_GAP: Final = 10.0


class Reassembly(Row):
    """Pieces split, repeated, missing, out of order, of two messages, with frames inside and a console between: what
    arrives is what was said or nothing."""

    id = "H02"
    title = "Reassembly confusion: interleaved, duplicated, missing fragments; resync inside payload"
    precedent = "SMP over serial: start and continue markers, logs on the same line; CVE-2019-6538 (Conexus)"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("4.4", "11.2")

    def play(self, scene: Scene) -> None:
        self._pieces(scene)
        for what, message in (
            ("half of one message, half of another", _halves),
            ("one half of a message twice", _twice),
        ):
            scene.refuses(what, _said_to_device(scene, message()), "wire.malformed", by=By.DEVICE_ALONE)
        inside = b"".join(DELIMITER + raw + DELIMITER for raw in _frames(b"within")[:20])
        build = scene.release(image=inside + bytes(2000) + scene.next.image)
        rules: dict[str, Rule] = {
            "a console between all frames": lambda passing: (_CONSOLE, passing.raw),
            "a console in front of every fifth": _glued,
            "ten seconds inside a message": on_number(3, _late(scene)),
        }
        for what, rule in rules.items():
            scene.goes_through(what, scene.under(rule, scene.pushing(build)))
            scene.runs_whole(what, build)
            scene.again()
        lost = scene.under(_never(3), scene.pushing(build))
        scene.refuses("a piece that never comes", lost, "link.timeout", by=By.HOST, allowed=ACCEPTED_OFFER)
        scene.goes_through("the push begun again", scene.pushing(build, "--resume"))
        scene.runs_whole("afterwards", build)

    @staticmethod
    def _pieces(scene: Scene) -> None:
        """The link's reader itself, on a conversation of which every byte is known: frames inside of messages, too."""
        frames = _frames(b"once")
        said = DELIMITER.join((b"", *frames, b""))
        wanted = [_message(number) for number in range(3)]
        step = 1 if scene.full else 97
        found = [_heard([said[:at], said[at:]]) for at in range(0, len(said), step)]
        found.append(_heard([said[at : at + 1] for at in range(len(said))]))
        scene.holds(f"{len(found)} ways to split {len(said)} bytes, one result", all(one == wanted for one in found))
        for what, other in _disorders(frames):
            scene.holds(f"{what}: all of it arrives, once", _heard([DELIMITER.join((b"", *other, b""))]) == wanted)
        for missing in range(1, len(frames)):
            some = _heard([DELIMITER.join((b"", *frames[:missing], *frames[missing + 1 :], b""))])
            if some != wanted[: len(some)] or some == wanted:
                scene.broken.append(f"without piece {missing} messages arrived that nobody said")
        other = _frames(b"also", 7)
        mixed = [frames[0], other[0], *itertools.chain.from_iterable(zip(frames[1:], other[1:], strict=True))]
        late = _heard([DELIMITER.join((b"", *mixed, b""))])
        scene.holds(
            "of two connections in each other, only the later one speaks", late == [_message(7 + n) for n in range(3)]
        )
        endless = DELIMITER.join((b"", frames[0], *frames[2:], *frames[2:] * 20, b"\x11" * 4096))
        with scene.bounded("the link", most=256 << 10):
            _heard(itertools.chain(itertools.repeat(endless, 20), itertools.repeat(b"\x11" * 4096, 200)))


def _message(number: int) -> bytes:
    """A message of several pieces, with delimiters and a whole frame in it."""
    frame = encode_frame(encode_header(Kind.DATA, nonce=b"once", sequence=1, fin=True), b"not said")
    return stream(f"message {number}")(700) + DELIMITER + frame + DELIMITER + bytes(300)


def _frames(nonce: bytes, first: int = 0) -> list[bytes]:
    """What a host says of three messages on a new connection, as frames without delimiters."""
    nonce = nonce[:NONCE_SIZE]
    frames = [encode_frame(encode_header(Kind.OPEN, nonce=nonce), encode_announcement(4096, 256))]
    sequence = 0
    for number in range(first, first + 3):
        message = _message(number)
        for at in range(0, len(message), 256):
            final = at + 256 >= len(message)
            head = encode_header(Kind.DATA, nonce=nonce, sequence=sequence, fin=final)
            frames.append(encode_frame(head, message[at : at + 256]))
            sequence += 1
    return [one.removesuffix(DELIMITER) for one in frames]


def _heard(pieces: Iterable[bytes]) -> list[bytes]:
    """The messages that a device's end of the link makes of it, a second between two pieces."""
    engine, found = LinkEngine(Role.DEVICE, _LINK, stream("heard")), []
    for number, piece in enumerate(pieces):
        now = number * 0.001
        found += [event.data for event in engine.receive_bytes(piece, now) if isinstance(event, Message)]
        engine.data_to_send(now)
    return found


def _disorders(frames: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    opening, *data = frames
    yield "every piece twice", [one for one in frames for _ in range(2)]
    yield "the first piece again after all", [*frames, data[0]]
    yield "pieces in reverse", [opening, *reversed(data)]
    yield (
        "each two exchanged",
        [opening, *itertools.chain.from_iterable(zip(data[1::2], data[::2], strict=False)), data[-1]],
    )
    frame = decode_frame(data[1])
    other = encode_frame(frame.header, bytes(len(frame.body))).removesuffix(DELIMITER)
    yield "another piece of the same number later", [*frames[:3], other, *frames[3:]]
    for noise in _NOISE:
        yield f"{noise[:6]!r} between them", [one for raw in frames for one in (noise, raw)]
    yield "a piece cut in two by a delimiter, then whole", [*frames[:3], frames[3][:99], frames[3][99:], *frames[3:]]


def _halves() -> list[tuple[bytes, bool]]:
    hello = encode_message(Hello(PROTOCOL_VERSIONS))
    return [(hello[:2], False), (hello, True)]


def _twice() -> list[tuple[bytes, bool]]:
    hello = encode_message(Hello(PROTOCOL_VERSIONS))
    return [(hello[:2], False), (hello[:2], False), (hello[2:], True)]


def _said_to_device(scene: Scene, pieces: list[tuple[bytes, bool]]) -> Callable[[], str | None]:
    """Pieces on a connection of one's own, (bytes, whether it is the last); the code that the device noted."""

    def attempt() -> str | None:
        before = scene.device.counters.audit.count
        nonce = stream(str(scene.world.clock.ticks()))(NONCE_SIZE)
        said = encode_frame(encode_header(Kind.OPEN, nonce=nonce), encode_announcement(4096, 1024))
        for number, (body, final) in enumerate(pieces):
            said += encode_frame(encode_header(Kind.DATA, nonce=nonce, sequence=number, fin=final), body)
        scene.tap.inject(Heading.TO_DEVICE, DELIMITER + said)
        scene.device.settle()
        audit = scene.device.counters.audit
        return audit.events[-1].code if audit.count > before else None

    return attempt


def _glued(passing: Passing) -> Iterable[bytes]:
    """Text right in front of a frame: that one is lost, and sent again."""
    lost = passing.heading is Heading.TO_DEVICE and passing.number % 5 == 3
    return (_CONSOLE + passing.raw if lost else passing.raw,)


def _late(scene: Scene) -> Callable[[Passing], Iterable[bytes]]:
    def late(passing: Passing) -> Iterable[bytes]:
        scene.world.clock.advance(_GAP)
        return (passing.raw,)

    return late


def _never(number: int) -> Rule:
    """A rule that lets no sealed data through from the so-manieth on."""
    seen = [0]

    def rule(passing: Passing) -> Iterable[bytes]:
        if not sealed_data(passing):
            return (passing.raw,)
        seen[0] += 1
        return () if seen[0] > number else (passing.raw,)

    return rule


ROWS: Final[tuple[type[Row], ...]] = (Reassembly,)

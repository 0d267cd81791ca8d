"""Class H: bytes that are meant to confuse who reads them. More rows in `fragments`, `bundles`, `order`."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cobs import cobs

from devguard import wire
from devguard.bench.attacks import bundles, fragments, order
from devguard.bench.attacks.meddle import forged, noisy, on_number
from devguard.bench.attacks.oracle import PATIENCE
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import Attempt, By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER, INSTALLED
from devguard.bench.fake import FakeDevice
from devguard.bench.hostile import accepted, ask_raw, say_plain
from devguard.bench.tap import Heading, Passing, Rule, frames_of
from devguard.errors import DevguardError
from devguard.grant.claims import Action, Grant
from devguard.link.frames import DELIMITER, Kind, decode_announcement, decode_frame
from devguard.session.connect import connect
from devguard.session.script import Script
from devguard.session.verbs import NONCE_SIZE, EdhocFailure, HelloReply, Verb, decode_message, encode_message

_SHORTS: Final = (0, 1, 2, 0x7FFF, 0x8000, 0xFFFF)
_LENGTHS: Final = (0, 1, 2**15, 2**16 - 1, 2**16, 2**31, 2**32 - 1, 2**63)
_FORMAT: Final = "%s%n%x%99999999d{0}${jndi:x}"
_CHUNK: Final = 32 << 10
_QUIET: Final = 0.5
_ORDER, _MALFORMED, _TAMPERED = "session.order", "wire.malformed", "session.tampered"


class Numbers(Row):
    """Every length, offset and count at and beyond its ends, formats for text, damaged frames: to device and host."""

    id = "H01"
    title = "Length, offset, integer-wrap and format-string fields"
    precedent = (
        "CVE-2017-12718 (Medfusion), CVE-2021-33886 (B. Braun), CVE-2026-28525 (SWUpdate), CVE-2022-2347 (U-Boot)"
    )
    attacker = Attacker.OUTSIDER
    regulation = ("4.4", "4.6")

    def play(self, scene: Scene) -> None:
        start = scene.tap.moved
        scene.goes_through("a good push, recorded", scene.pushing(scene.next))
        said, heard = scene.tap.to_device[start[0] :], scene.tap.from_device[start[1] :]
        scene.again()
        chance, count = random.Random(scene.world.model.name), 10**6 if scene.full else 1000  # noqa: S311
        frames = [*_frames(), *_opened(b"port")]
        for what, some in ((f"{len(frames)} hostile frames", iter(frames)),
                           (f"{count} damaged frames", _mutated(frames_of(said), chance, count))):  # fmt: skip
            scene.comes_to_nothing(what, functools.partial(_inject, scene, some))
        with scene.bounded("a reader of the host"):
            found = _read_all(itertools.chain(frames, _mutated(frames_of(heard), chance, count)))
        scene.holds(f"{found} of them were frames, and no error was not devguard's own", found > count // 4)
        scene.comes_to_nothing("fields in clear", functools.partial(self._in_clear, scene))
        scene.world.clock.advance(PATIENCE)
        for what, attempt, codes in self._in_a_session(scene):
            scene.refuses(what, attempt, *codes, by=By.DEVICE_ALONE, allowed=ACCEPTED_OFFER)
        self._at_the_host(scene, frames)
        scene.runs_whole("afterwards", scene.next)

    @staticmethod
    def _in_clear(scene: Scene) -> None:
        """What anybody may say, with every field of it longer, shorter, or of another kind than it can be."""
        wrong = [n for n in _LENGTHS if n <= 2**15]
        fields: list[list[Any]] = [[0, []], [0, [0]], [0, [2**16 + 1]], [0, [1] * 17], [0, _FORMAT], [1, _FORMAT]]
        fields += [[1, bytes(n)] for n in wrong] + [[2, _FORMAT.encode(), _FORMAT, _FORMAT], [2**32, 1], [-1]]
        heads = [wire.head(4, n) for n in _LENGTHS] + [wire.head(4, 2) + b"\x01" + wire.head(2, n) for n in _LENGTHS]
        for data in (*map(wire.encode, fields), *heads):
            scene.world.clock.advance(4)
            scene.play(say_plain(data, _QUIET))

    @staticmethod
    def _in_a_session(scene: Scene) -> Iterator[tuple[str, Attempt, tuple[str, ...]]]:
        """The same with a genuine technician's key and grant: what nobody without them can say."""
        size = len(scene.next.image)
        offsets = (size - 1, size, size + 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**40 + 1, 2**63)
        for offset in offsets if scene.full else offsets[2::3]:
            said = [int(Verb.DATA), offset, bytes(256)]
            yield f"data at {offset}", _after_offer(scene, said), (_ORDER, _MALFORMED)
        yield "more data than there are", _after_offer(scene, [int(Verb.DATA), 0, bytes(size + 1)]), ("image.size",)
        for length in (0, 2**32 - 1, 2**32) if scene.full else (2**32 - 1,):
            said = [int(Verb.TRANSFER), 2, length, bytes(32)]
            yield f"a patch of {length} bytes", _after_offer(scene, said), ("device.slot", _MALFORMED, "image.size")
        log = scene.grant(actions=frozenset({Action.READ_LOG}))
        for offset in (1, 2**31, 2**32) if scene.full else (2**32,):
            said = [int(Verb.LOG), bytes(NONCE_SIZE), offset]
            yield f"the device's log from {offset}", _in_session(scene, said, log), (_ORDER, _MALFORMED)
        said = [int(Verb.OFFER), wire.head(5, 2**32 - 1)]
        yield "an envelope of 2^32 - 1 members", _in_session(scene, said), ("envelope.malformed",)
        yield "an envelope that is text", _in_session(scene, [int(Verb.OFFER), _FORMAT]), (_MALFORMED,)

    @staticmethod
    def _at_the_host(scene: Scene, frames: list[bytes]) -> None:
        """The other direction: a device that says such things, and somebody who says them in its name."""
        file, nonce = scene.file(scene.next), bytes(NONCE_SIZE)
        failure = encode_message(EdhocFailure(b"", _FORMAT, f"{_FORMAT}\n\x1b[1m"))
        says = {
            "formats": (encode_message(HelloReply(1, _FORMAT, (3,), nonce)), failure),
            "a version of 255": (encode_message(HelloReply(255, "confirmed", (3,), nonce)),),
            "a state of 2^32 - 1 letters": (wire.head(4, 5) + b"\x03\x01" + wire.head(3, 2**32 - 1) + b"x",),
        }
        for what, answers in says.items():
            attempt = _to_a_fake(scene, file, answers)
            codes = ("session.handshake", "link.protocol", _MALFORMED)
            scene.refuses(f"a device that says {what}", attempt, *codes, by=By.HOST)
        scene.goes_through("an honest push among such frames", scene.under(_before(frames), scene.pushing(file)))


def _frames() -> Iterator[bytes]:
    """Frames with a right checksum: every first byte with too little after it, enough, and too much; announcements
    and acknowledgements of every size."""
    tails = (b"", b"\0", b"\0\0none", b"\xff" * 40, bytes(4096))
    for first, tail in itertools.product(range(256), tails):
        yield _framed(bytes((first,)) + tail)
    for version, window, segment in itertools.product((0, 1, 2, 255), _SHORTS, _SHORTS):
        body = bytes((version,)) + window.to_bytes(2, "big") + segment.to_bytes(2, "big")
        yield _framed(bytes((Kind.OPEN << 5,)) + b"none" + body)


def _opened(nonce: bytes) -> Iterator[bytes]:
    """A connection that is opened, and what its other end could then say of sequence numbers and windows."""
    opening = _framed(bytes((Kind.OPEN << 5,)) + nonce + b"\x01\x00\x40\x00\x10")
    for number, credit, size in itertools.product(_SHORTS, _SHORTS, (0, 1, 32, 33, 255)):
        head = number.to_bytes(2, "big") + credit.to_bytes(2, "big") + bytes((size,))
        yield opening
        yield _framed(bytes((Kind.ACK << 5,)) + head + b"\x01" * min(size, 40) + nonce)
    for number, fin in itertools.product(_SHORTS, (0, 2)):
        yield _framed(bytes((Kind.DATA << 5 | fin,)) + number.to_bytes(2, "big") + nonce + b"\x81\x00")


def _framed(content: bytes) -> bytes:
    """Stuffed, its checksum right, without a delimiter."""
    stuffed: bytes = cobs.encode(content + zlib.crc32(content).to_bytes(4, "big"))
    return stuffed


def _mutated(genuine: list[bytes], chance: random.Random, count: int) -> Iterator[bytes]:
    """Genuine frames with a byte changed, left out or put in, or a piece of another one; half have their checksum made
    right again."""
    for _ in range(count):
        content = bytearray(cobs.decode(chance.choice(genuine))[:-4])
        at, other = chance.randrange(len(content)), chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        content[at : at + chance.choice((0, 1, 1, 2, 8))] = bytes((other,)) * chance.choice((0, 1, 1, 2, 4))
        if chance.random() < 0.5:
            yield _framed(bytes(content))
        else:
            stuffed: bytes = cobs.encode(bytes(content) + chance.randbytes(4))
            yield stuffed


def _inject(scene: Scene, frames: Iterable[bytes]) -> None:
    """Say them to the device, no more at once than a line would bring."""
    burst = bytearray(DELIMITER)
    with scene.bounded("the device"):
        for raw in itertools.chain(frames, (b"",)):
            burst += raw + DELIMITER
            if len(burst) >= _CHUNK or not raw:
                scene.tap.inject(Heading.TO_DEVICE, bytes(burst))
                scene.device.settle()
                burst = bytearray(DELIMITER)


def _read_all(frames: Iterable[bytes]) -> int:
    """How many of these are frames; what is in them is read as whatever it may be. Only devguard's own errors may come
    of it: any other ends the row."""
    found = 0
    for raw in frames:
        with contextlib.suppress(DevguardError):
            frame = decode_frame(raw)
            found += 1
            for read in (decode_announcement, _plain_message, _sealed_message):
                with contextlib.suppress(DevguardError):
                    read(frame.body)
    return found


_plain_message = functools.partial(decode_message, sealed=False)
_sealed_message = functools.partial(decode_message, sealed=True)


def _in_session(scene: Scene, said: list[Any], one: Grant | None = None) -> Attempt:
    def script() -> Script[Any]:
        yield from connect(scene.bench(one))
        return (yield from ask_raw(wire.encode(said)))

    return scene.hostile(script)


def _after_offer(scene: Scene, said: list[Any]) -> Attempt:
    def script() -> Script[Any]:
        first = scene.grant()
        yield from accepted(scene.bench(first), scene.offer(scene.next), scene.approval(scene.next, first))
        return (yield from ask_raw(wire.encode(said)))

    return scene.hostile(script)


def _to_a_fake(scene: Scene, file: Path, answers: tuple[bytes, ...]) -> Attempt:
    """An ordinary push to a device that says this, whatever it hears."""

    def attempt() -> str | None:
        with FakeDevice(lambda _heard: answers, scene.world.clock.ticks) as fake, scene.device.hurry():
            return scene.pushing(file, "--port", fake.port)()

    return attempt


def _before(frames: list[bytes]) -> Rule:
    """A rule that says all these before the device's first word."""
    left = [frames]

    def rule(passing: Passing) -> Iterable[bytes]:
        if passing.heading is Heading.FROM_DEVICE and left:
            return (*left.pop(), passing.raw)
        return (passing.raw,)

    return rule


class Checksums(Row):
    """A checksum that is right says nothing: on a frame, on a handshake, on an image that was made to have it."""

    id = "H03"
    title = "CRC treated as security"
    precedent = "CVE-2016-5085 (Animas: CRC32 as key), FDA premarket guidance on CRCs, USB DFU suffix"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("1.D1", "11.2")

    def play(self, scene: Scene) -> None:
        self._images(scene)
        pushing = scene.pushing(scene.next)
        mended = scene.under(on_number(2, lambda passing: (forged(passing.raw),)), pushing)
        scene.refuses("a sealed frame, checksum right", mended, "link.timeout", by=By.DEVICE, allowed=ACCEPTED_OFFER,
                      device=_TAMPERED)  # fmt: skip
        scene.again()
        spelled = scene.under(on_number(2, lambda passing: (_in_clear(passing),)), pushing)
        # Were it read before its tag, the device would name the verb: an order to boot, out of its order.
        scene.refuses("a verb under a sealed header, checksum right", spelled, "link.timeout", by=By.DEVICE,
                      allowed=ACCEPTED_OFFER, device=_TAMPERED)  # fmt: skip
        scene.again()
        answer = scene.under(on_number(1, lambda passing: (forged(passing.raw),), Heading.FROM_DEVICE), pushing)
        scene.refuses("a sealed answer, checksum right", answer, _TAMPERED, by=By.HOST, allowed=INSTALLED)
        scene.again()
        for heading, by in ((Heading.TO_DEVICE, By.DEVICE), (Heading.FROM_DEVICE, By.HOST)):
            attempt = scene.under(_longest_plain(heading), pushing)
            codes = ("session.handshake", "key.weak")  # the bit may be one of a point that is on no curve then
            scene.refuses(f"the handshake {heading.value}, checksum right", attempt, *codes, by=by)
        self._wrong(scene)

    @staticmethod
    def _images(scene: Scene) -> None:
        """The image of a signed release with a part exchanged and four bytes chosen so that its CRC-32 stays."""
        image = scene.next.image
        evil = bytearray(image)
        evil[-64:-4] = b"a dose that nobody has signed".ljust(60, b"!")
        evil[-4:] = _patch(zlib.crc32(evil[:-4]), zlib.crc32(image))
        same = zlib.crc32(evil) == zlib.crc32(image) and bytes(evil) != image
        scene.holds("another image of the same size and CRC-32", same and len(evil) == len(image))
        file = scene.file(replace(scene.next, image=bytes(evil)), "same-crc")
        scene.refuses("it, pushed", scene.pushing(file), "image.digest", by=By.OFFLINE)
        sent = scene.hostile(lambda: scene.update(scene.next, bytes(evil)).push())
        scene.refuses("it, on the line", sent, "image.digest", by=By.DEVICE_ALONE, allowed=ACCEPTED_OFFER)
        scene.again()

    @staticmethod
    def _wrong(scene: Scene) -> None:
        """The tag right, the checksum wrong: noise, which is counted and sent again."""
        scene.tap.rule = on_number(2, lambda passing: (noisy(passing.raw),))
        with scene.device.hurry():
            answer = scene.push(scene.file(scene.next))
        scene.tap.rule = None
        scene.goes_through("a sealed frame, checksum wrong", lambda: answer.code)
        link = answer.data.get("link") or {}
        scene.holds("it was counted and sent again", link.get("retransmits", 0) > 0)
        scene.runs_whole("afterwards", scene.next)


def _in_clear(passing: Passing) -> bytes:
    """The frame with the order to boot where its sealed body was."""
    frame = passing.frame
    return passing.raw if frame is None else _framed(frame.header + wire.encode([int(Verb.REBOOT)]) + bytes(16))


def _longest_plain(heading: Heading) -> Rule:
    """A rule that forges what carries the proof of a key in the second connection of a push: a long frame in clear."""
    seen: list[int] = []

    def rule(passing: Passing) -> Iterable[bytes]:
        frame = passing.frame
        plain = frame is not None and frame.kind is Kind.DATA and frame.nonce is not None and len(frame.body) > 120
        if passing.heading is not heading or not plain or seen:
            return (passing.raw,)
        seen.append(passing.number)
        return (forged(passing.raw),)

    return rule


def _patch(before: int, after: int) -> bytes:
    """The four bytes that lead from one CRC-32 to another: it is linear, and so no proof of anything."""
    table = [zlib.crc32(bytes((byte,)), 0xFFFFFFFF) ^ 0xFFFFFFFF for byte in range(256)]
    by_top = {value >> 24: byte for byte, value in enumerate(table)}
    state = after ^ 0xFFFFFFFF
    for _ in range(4):
        byte = by_top[state >> 24]
        state = ((state ^ table[byte]) << 8 | byte) & 0xFFFFFFFF
    return (state ^ before ^ 0xFFFFFFFF).to_bytes(4, "little")


ROWS: Final[tuple[type[Row], ...]] = (Numbers, Checksums, *fragments.ROWS, *bundles.ROWS, *order.ROWS)

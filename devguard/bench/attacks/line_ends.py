"""Class F, the rest: what hangs at the ends of the line: fakes, twins, the wrong device, ports that are none."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from devguard import wire
from devguard.bench.attacks.device import BenchDevice
from devguard.bench.attacks.meddle import on_number
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import Attempt, By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.fake import FakeDevice
from devguard.bench.hostile import ask, at_once, play_back
from devguard.bench.tap import Heading, Passing, plain_messages
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError
from devguard.link.adapters import check_adapter
from devguard.link.frames import DELIMITER, Kind, encode_announcement, encode_frame, encode_header
from devguard.session.connect import connect, identify
from devguard.session.credentials import OwnCredential, by_suite
from devguard.session.report import read_report
from devguard.session.script import Script
from devguard.session.suites import PRODUCTION
from devguard.session.update import fetch_report
from devguard.session.verbs import NONCE_SIZE, Done, HelloReply, KeepAlive, Verb, encode_message

_IDLE: Final = 30
_STOPPED: Final = 600


class FakeSuccess(Row):
    """Ends that say yes to everything: a script, a twin without the key, another genuine device, an old report."""

    id = "F03"
    title = "Fake device reports success (or hides the update)"
    precedent = "CVE-2020-25183 (MyCareLink Smart), CVE-2021-33885 (B. Braun), Contec CMS8000"
    attacker = Attacker.MAN_IN_THE_MIDDLE
    regulation = ("11.2", "8.6")

    def play(self, scene: Scene) -> None:
        file, serial = scene.file(scene.next), ("--serial", scene.device.serial)

        def yes(_heard: bytes) -> list[bytes]:
            return [
                encode_message(HelloReply(1, "confirmed", (3,), bytes(NONCE_SIZE))),
                wire.encode([int(Verb.EDHOC), b"\x00" * 200]),
            ]

        attempt = _at(scene, FakeDevice(yes, scene.world.clock.ticks), file, *serial)
        scene.refuses("a script that says yes", attempt, "session.handshake", by=By.HOST)
        twin = scene.another(scene.device.serial)
        twin.power_off()
        thief = MemorySigner.generate(Algorithm.ESP256)
        known = scene.device.identity.credentials[PRODUCTION[0]].cred
        credentials = by_suite(PRODUCTION, OwnCredential.kcwt(known, thief))
        twin.identity = replace(twin.identity, credentials=credentials, signer=thief)
        twin.power_on()
        attempt = scene.pushing(file, "--port", twin.port, *serial)
        scene.refuses("a twin with its credential", attempt, "session.handshake", by=By.HOST)
        other = scene.another("XX-9")
        attempt = scene.pushing(file, "--port", other.port, *serial)
        scene.refuses("relayed to another device", attempt, "device.identity", by=By.HOST)
        attempt = scene.pushing(file, "--port", other.port)
        scene.refuses("relayed, no serial said", attempt, "grant.scope", by=By.HOST)
        scene.refuses("an old report", functools.partial(_old_report, scene), "session.replay", by=By.NOBODY)
        pushed = [one for one in scene.look().log.records if one.action == "release.push" and one.code is None]
        scene.holds("the log books nothing as installed but the two honest pushes before", len(pushed) == 2)


def _at(scene: Scene, fake: FakeDevice, file: Path, *more: str) -> Attempt:
    """An ordinary push to a fake."""

    def attempt() -> str | None:
        with fake, scene.device.hurry():
            return scene.pushing(file, "--port", fake.port, *more)()

    return attempt


def _old_report(scene: Scene) -> str | None:
    """A report of a moment ago, genuinely signed, as the answer to a fresh challenge."""
    _, signed = scene.play(fetch_report(scene.bench()))
    key = scene.device.identity.signer.key
    try:
        read_report(signed, key=key, challenge=os.urandom(NONCE_SIZE), serial=scene.device.serial)
    except DevguardError as error:
        return error.code
    return None


class WeakPairing(Row):
    """What a handshake rests on: fresh keys each time, also after a reset; no clock; no guessing."""

    id = "F04"
    title = "Weak pairing: static key, CRC as key, timestamp auth, open pairing window"
    precedent = "CVE-2016-5085 (Animas), CVE-2017-12712 (Abbott), CVE-2022-32537 (MiniMed 600)"
    attacker = Attacker.OUTSIDER
    regulation = ("1.A4", "11.2")

    def play(self, scene: Scene) -> None:
        count, start = 1000 if scene.full else 30, len(scene.tap.from_device)
        for number in range(count):
            if number == count // 2:
                scene.again()  # the same state, the same time: a device that drew from a seed would repeat itself
                half, start = self._ephemeral(scene, start), len(scene.tap.from_device)
            scene.play(identify(scene.bench()))
        keys = half + self._ephemeral(scene, start)
        scene.holds(
            f"{len(keys)} handshakes, two lives of one state, no key twice", len(set(keys)) == len(keys) == count
        )
        said = scene.tap.to_device
        scene.world.clock.device_wrong = -3600
        for messages in plain_messages(said)[-1:]:
            recorded = [*messages, wire.encode([int(Verb.EDHOC), b"\x00" * 100])]
            attempt = scene.hostile(functools.partial(play_back, recorded))
            scene.refuses("replayed with the clock set back", attempt, "session.handshake", by=By.DEVICE_ALONE)
        scene.world.clock.device_wrong = 0
        self._guessing(scene)

    @staticmethod
    def _ephemeral(scene: Scene, start: int) -> list[bytes]:
        """The device's ephemeral key of each handshake in the recording since then."""
        found = []
        for messages in plain_messages(scene.tap.from_device[start:]):
            message_2 = wire.decode(messages[1])[1]
            found.append(wire.decode(message_2)[:32])
        return found

    @staticmethod
    def _guessing(scene: Scene) -> None:
        """Wrong proofs, one after the other as fast as they go."""
        thief, tries = MemorySigner.generate(Algorithm.ESP256), 2**16 if scene.full else 40
        first, codes = scene.grant(), []
        for _ in range(tries):
            scene.world.clock.advance(0.25)
            codes.append(scene.hostile(lambda: at_once(connect(scene.bench(first, signer=thief))))())
        judged = [code for code in codes if code != "device.busy"]
        scene.holds("no guess was right", set(codes) == {"session.handshake", "device.busy"})
        scene.holds(f"of {tries} guesses in {tries // 4} s {len(judged)} were looked at", len(judged) <= 5 + tries / 16)
        scene.world.clock.advance(4)
        scene.goes_through("who has the key is let in four seconds later", scene.pushing(scene.next))


class WalkedAway(Row):
    """An open session, left alone: kept idle, taken over on the same port, frozen for ten minutes."""

    id = "F06"
    title = "Technician walks away: open session taken over"
    precedent = "CIED programmers whose sessions end only by the programmer; FDA premarket guidance, appendix 1.B"
    attacker = Attacker.OUTSIDER
    regulation = ("1.A4", "1.B2", "13.3")

    def play(self, scene: Scene) -> None:
        for seconds, code in ((_IDLE - 2, None), (_IDLE + 1, "link.timeout"), (4 * _IDLE + 1, "link.timeout")):
            attempt = scene.under(
                lambda passing: (passing.raw,), scene.hostile(functools.partial(self._idle, scene, seconds))
            )
            what = f"a word after {seconds} s of silence"
            if code is None:
                scene.goes_through(what, attempt)
            else:
                scene.refuses(what, attempt, code, by=By.NOBODY)
        scene.refuses("a second opener of the port", functools.partial(self._second, scene), "link.port", by=By.HOST)
        scene.goes_through(
            "the session while somebody opens the line anew", scene.hostile(functools.partial(self._opened_anew, scene))
        )

        def frozen(passing: Passing) -> Iterable[bytes]:
            scene.world.clock.advance(_STOPPED)
            scene.device.come_round()  # in ten minutes it has looked at the time, however busy this machine is
            return (passing.raw,)

        attempt = scene.under(on_number(4, frozen), scene.pushing(scene.next))
        scene.refuses("a push frozen for ten minutes", attempt, "link.timeout", by=By.HOST, allowed=ACCEPTED_OFFER)
        scene.goes_through("begun again, with grants and keys", scene.pushing(scene.next))

    @staticmethod
    def _idle(scene: Scene, seconds: float) -> Script[None]:
        yield from connect(scene.bench())
        scene.device.settle()
        scene.world.clock.advance(seconds)
        scene.device.settle()
        yield from ask(KeepAlive())

    @staticmethod
    def _second(scene: Scene) -> str | None:
        """An ordinary push on a port on which a session is open."""
        found: list[str | None] = []

        def script() -> Script[None]:
            yield from connect(scene.bench())
            found.append(scene.pushing(scene.next)())

        scene.play(script())
        return found[0]

    @staticmethod
    def _opened_anew(scene: Scene) -> Script[None]:
        """Whoever has no grant opens the line in the middle of a session: the session goes on."""
        yield from connect(scene.bench())
        opening = encode_frame(encode_header(Kind.OPEN, nonce=os.urandom(4)), encode_announcement(4096, 1024))
        scene.tap.inject(Heading.TO_DEVICE, DELIMITER + opening)
        scene.device.settle()
        answer = yield from ask(KeepAlive())
        scene.holds("and it answers its technician", isinstance(answer, Done))


class WrongPort(Row):
    """Two devices: the other one on the port, exchanged between two steps, exchanged in the middle of the data."""

    id = "F07"
    title = "Wrong or swapped port: the pump of another patient"
    precedent = "renumbered /dev/ttyUSB, mis-association hazards (ISO 14971)"
    attacker = Attacker.INSIDER
    regulation = ("5.1",)

    def play(self, scene: Scene) -> None:
        serial = ("--serial", scene.device.serial)
        other = scene.another("XX-9")
        attempt = scene.pushing(scene.next, "--port", other.port, *serial)
        scene.refuses("another device on the port", attempt, "device.identity", by=By.HOST)
        self._exchanged(scene, other, "another one", "between report and push", ("device.identity",))
        self._exchanged(scene, other, "another one", "in the middle of the data", ("link.timeout",))
        # Of two genuine devices with one serial number the grant is good for either; a session is one's alone.
        twin = scene.another(scene.device.serial)
        self._exchanged(scene, twin, "one of the same serial number", "in the middle of the data", ("link.timeout",))

    def _exchanged(self, scene: Scene, other: BenchDevice, who: str, when: str, codes: tuple[str, ...]) -> None:
        other.tap.hold()  # its own tap leaves the line to ours
        before = other.snapshot()
        rules = {"between report and push": self._at_opening, "in the middle of the data": self._at_data}
        rule = rules[when](scene, other.own_port)
        attempt = scene.under(rule, scene.pushing(scene.next, "--serial", scene.device.serial))
        scene.refuses(f"{who} {when}", attempt, *codes, by=By.HOST, allowed=ACCEPTED_OFFER)
        scene.tap.plug_into(scene.device.own_port)
        scene.holds(f"{who} {when}: it is what it was", not before.differences(other.snapshot()))

    @staticmethod
    def _at_opening(scene: Scene, port: str) -> Callable[[Passing], Iterable[bytes]]:
        """At the second connection: the first fetched the report."""
        seen: list[int] = []

        def rule(passing: Passing) -> Iterable[bytes]:
            frame = passing.frame
            if passing.heading is Heading.TO_DEVICE and frame is not None and frame.kind is Kind.OPEN:
                seen.append(passing.number)
                if len(seen) == 2:
                    scene.tap.plug_soon(port)
                    return ()  # lost with the plug; it is sent again
            return (passing.raw,)

        return rule

    @staticmethod
    def _at_data(scene: Scene, port: str) -> Callable[[Passing], Iterable[bytes]]:
        def swap(_passing: Passing) -> Iterable[bytes]:
            scene.tap.plug_soon(port)
            return ()

        return on_number(5, swap)


class NoSerialPort(Row):
    """Ports that are none, and adapters that are more than serial adapters."""

    id = "F08"
    title = "BadUSB: the 'serial adapter' is a keyboard, hub or other class; hostile pty driver"
    precedent = "BadUSB (2014), BD Alaris malicious CF card"
    attacker = Attacker.THIEF_OF_DEVICE
    regulation = ("1.D3",)

    def play(self, scene: Scene) -> None:
        file = scene.file(scene.next)
        for what, path in self._ports(scene).items():
            attempt = scene.pushing(file, "--port", str(path))
            scene.refuses(f"{what} as the port", attempt, "link.port", by=By.OFFLINE)
        scene.refuses("the terminal one sits at", functools.partial(self._own, scene), "link.port", by=By.OFFLINE)
        text = (scene.folder / "regular").read_bytes()
        scene.holds("not one byte was written to the file", text == b"a file of the hospital's")
        for what, classes in _ADAPTERS.items():
            attempt = functools.partial(self._adapter, scene, classes)
            wanted = "link.port" if what != "a plain serial adapter" else None
            if wanted is None:
                scene.goes_through(what, attempt)
            else:
                scene.refuses(what, attempt, wanted, by=By.NOBODY)

    @staticmethod
    def _own(scene: Scene) -> str | None:
        """A push to the terminal on which this very process reads what is typed."""
        keyboard, terminal = os.openpty()
        saved = os.dup(0)
        os.dup2(terminal, 0)
        try:
            with scene.device.hurry():
                return scene.pushing(scene.next, "--port", os.ttyname(terminal))()
        finally:
            os.dup2(saved, 0)
            for one in (saved, keyboard, terminal):
                os.close(one)

    @staticmethod
    def _ports(scene: Scene) -> dict[str, Path]:
        regular, fifo, link = (scene.folder / name for name in ("regular", "fifo", "link"))
        regular.write_bytes(b"a file of the hospital's")
        os.mkfifo(fifo)
        link.symlink_to(regular)
        found = {"a regular file": regular, "a pipe": fifo, "a link to a file": link, "a folder": scene.folder}
        return {
            **found,
            "nothing at all": scene.folder / "none",
            "/dev/null": Path(os.devnull),
            "the user's terminal": Path("/dev/tty"),
        }

    @staticmethod
    def _adapter(scene: Scene, classes: tuple[str, ...]) -> str | None:
        """A USB device with interfaces of these classes, the first with the serial port, as the kernel shows it."""
        sysfs = scene.folder / "sys" / "-".join(classes)
        device = sysfs / "devices" / "usb1" / "1-2"
        for number, one in enumerate(classes):
            interface = device / f"1-2:1.{number}"
            interface.mkdir(parents=True)
            (interface / "bInterfaceClass").write_text(f"{one}\n")
        (device / "bDeviceClass").write_text("00\n")
        port = device / "1-2:1.0" / "ttyUSB0" / "tty" / "ttyUSB0"
        port.mkdir(parents=True)
        (port / "device").symlink_to(port.parent.parent)
        (sysfs / "class" / "tty").mkdir(parents=True)
        (sysfs / "class" / "tty" / "ttyUSB0").symlink_to(port)
        try:
            check_adapter("/dev/ttyUSB0", sysfs)
        except DevguardError as error:
            return error.code
        return None


_ADAPTERS: Final = {
    "a plain serial adapter": ("02", "0a"),
    "an adapter that is a keyboard too": ("ff", "03"),
    "an adapter with a disk": ("02", "0a", "08"),
    "an adapter with a hub": ("ff", "09"),
    "an adapter with a network card": ("02", "0a", "e0"),
}
ROWS: Final[tuple[type[Row], ...]] = (FakeSuccess, WeakPairing, WalkedAway, WrongPort, NoSerialPort)

"""SMP pushes that end early: cut, muted or interrupted at every message; ports that come and go; lines that never end.

Invariant: a push ends with the judged image confirmed, or with devguard's own error in bounded time; then what it says
of the device is true, the device starts a whole image, and the same push ends confirmed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("smp", reason="the extra `smp` is not installed")

from devguard.device.smp_target import LegacyDevice
from devguard.errors import DevguardError, LinkError
from devguard.link.smp_console import FIRST, MAX_LINE, MORE, encode_lines
from devguard.link.smp_engine import SmpEngine, SmpEvent, smp_parameters
from devguard.link.smp_runner import SmpRunner
from devguard.session import smp_requests as requests
from devguard.session.smp_script import Ask, Script
from devguard.session.smp_standing import Standing
from devguard.session.smp_update import SmpUpdate, survey
from rooms.smp_support import NOW, Line, grant_for, image_hash, judged, legacy, line_to, mcuboot, release_of

IMAGE = {"application": mcuboot(2500)}
RELEASE = release_of(IMAGE)
GRANT = grant_for()


def new_update() -> SmpUpdate:
    return SmpUpdate(RELEASE, GRANT, judged(RELEASE, IMAGE), lambda: NOW)


def run(line: Line, update: SmpUpdate) -> Any:
    runner = line.runner()
    return runner.run(update.push(runner.run(survey())))


def state(device: LegacyDevice) -> str:
    """What a look into the device itself finds."""
    slots = device.images[0]
    running = slots.image(0)
    assert running is not None
    if running.hash == image_hash(IMAGE["application"]):
        return "kept" if slots.confirmed else "trial"
    return "pending" if slots.pending else "old"


TRUE_OF: dict[Standing, set[str]] = {
    Standing.UNTOUCHED: {"old"},
    Standing.UPLOADING: {"old"},
    Standing.WAITING: {"old", "pending", "trial"},
    Standing.ON_TRIAL: {"trial", "kept"},
    Standing.WENT_BACK: {"old"},
    Standing.KEPT: {"kept"},
}


class Interrupted(BaseException):
    """As the person at the keyboard does it."""


def ends(how: str, at: int, line: Line) -> Callable[[bytes, Any], bytes | None]:
    """From message `at` on: the question or its answer is lost and the port is gone, or nothing is heard any more."""
    count = itertools.count()

    def tap(frame: bytes, answer: Any) -> bytes | None:
        now = next(count)
        if now < at:
            return answer(frame)  # type: ignore[no-any-return]
        if how == "answer" and now == at:
            answer(frame)
        if how in ("question", "answer"):
            raise LinkError("link.port", "the cable was pulled")
        if how == "interrupt":
            raise Interrupted
        return None

    return tap


CLEAN = line_to(legacy())
run(CLEAN, new_update())
MESSAGES = len(CLEAN.asked)


@pytest.mark.parametrize("at", range(MESSAGES))
@pytest.mark.parametrize("how", ["question", "answer", "interrupt", "mute"])
def test_a_push_that_ends_at_any_message_says_how_it_leaves_the_device_and_goes_on(how: str, at: int) -> None:
    device, update = legacy(), new_update()
    line = line_to(device)
    line.tap = ends(how, at, line)
    with pytest.raises((DevguardError, Interrupted)) as ended:
        run(line, update)
    if isinstance(ended.value, DevguardError):
        assert ended.value.code in ("link.port", "link.timeout")
    assert line.now - 100 < 400
    assert state(device) in TRUE_OF[update.standing]
    if at % 2:
        device.boot()  # somebody switches it off and on
        assert state(device) in ("old", "trial", "kept")
    again = new_update()
    if state(device) == "kept":
        with pytest.raises(DevguardError) as refused:
            run(line_to(device), again)
        assert refused.value.code == "version.current"
        return
    run(line_to(device), again)
    assert (state(device), again.standing) == ("kept", Standing.KEPT)


def test_the_standing_of_a_trial_that_failed() -> None:
    device, update = legacy(self_test=False), new_update()
    with pytest.raises(DevguardError):
        run(line_to(device), update)
    assert (update.standing, state(device)) == (Standing.WENT_BACK, "old")


# ports that come and go


class Unplugged(Line):
    """A device on USB: its port goes with the reset and is back some time after."""

    def pump(self, engine: SmpEngine, timeout: float) -> list[SmpEvent]:
        if self.now < self._deaf:
            raise LinkError("link.port", "the port vanished")
        return super().pump(engine, timeout)

    def open(self) -> Unplugged:
        if self.now < self._deaf:
            raise LinkError("link.port", "the port does not exist")
        return self


def usb(boot: float) -> tuple[Unplugged, SmpRunner]:
    device = legacy()
    plain = line_to(device)
    line = Unplugged(device, plain.server, boot=boot)
    return line, SmpRunner(line.open, smp_parameters(line.baud), bytes, line.clock, line.sleep).__enter__()


def test_a_port_that_goes_with_the_reset_is_opened_again() -> None:
    line, runner = usb(25.0)
    update = new_update()
    runner.run(update.push(runner.run(survey())))
    assert (state(line.device), line.resets, line.closed) == ("kept", 1, 1)


def test_a_port_that_does_not_come_back_is_given_up() -> None:
    line, runner = usb(10_000.0)
    update = new_update()
    with pytest.raises(LinkError) as failed:
        runner.run(update.push(runner.run(survey())))
    assert (failed.value.code, update.standing) == ("link.timeout", Standing.WAITING)
    assert 180 <= line.now - 100 < 200


# lines that never end


class Flood:
    """A port that always has something to read, never what was asked for."""

    def __init__(self, data: Iterator[bytes]) -> None:
        self.data = data
        self.now = 0.0
        self.sent = bytearray()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def close(self) -> None: ...

    def pump(self, engine: SmpEngine, timeout: float) -> list[SmpEvent]:
        end = self.now + timeout
        while True:
            self.sent += engine.data_to_send(self.now)
            self.now += 0.05
            events = engine.receive_bytes(next(self.data), self.now)
            if events or self.now >= end:
                return events


STATE = bytes((9, 0, 0, 1, 0, 1, 77, 0, 0xA0))
FLOODS = {
    "no line ever ends": b"x" * 4096,
    "log lines": b"<inf> still alive\r\n" * 200,
    "openings": FIRST * 2000,
    "lines that open": (FIRST + b"//8AAAAAAAAA\n") * 200,
    "a message that goes on": FIRST + b"//8A" + b"A" * 120 + b"\n" + (MORE + b"A" * 124 + b"\n") * 30,
    "only more of it": (MORE + b"A" * 124 + b"\n") * 30,
    "empty lines of it": FIRST + b"//8A\n" + (MORE + b"\n") * 1000,
    "answers nobody asked for": encode_lines(STATE) * 30,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_line_that_never_ends_is_given_up_in_time_and_memory(kind: str) -> None:
    def ask() -> Script[Any]:
        return (yield Ask(requests.image_state(), 30.0))

    port = Flood(itertools.repeat(FLOODS[kind]))
    runner = SmpRunner(lambda: port, smp_parameters(115_200), bytes, port.clock, port.sleep)
    with runner, pytest.raises(LinkError) as failed:
        runner.run(ask())
    assert failed.value.code == "link.timeout"
    assert port.now < 32
    reader = runner._engine._reader
    assert len(reader._line) <= MAX_LINE
    assert len(reader._text) <= 90_000  # one message
    assert len(port.sent) < 100_000


def test_every_answer_twice_does_no_harm() -> None:
    device = legacy()
    line = line_to(device)
    before: list[bytes] = []

    def twice(frame: bytes, answer: Any) -> bytes | None:
        line.noise = before[-1] if before else b""
        found: bytes | None = answer(frame)
        before.append(encode_lines(found or b""))
        return found

    line.tap = twice
    run(line, new_update())
    assert state(device) == "kept"


def test_an_image_taken_too_slowly_is_given_up() -> None:
    """Half of every piece, every half minute: never idle, and never done."""
    image = {"application": mcuboot(400_000)}
    release = release_of(image)

    def half(frame: bytes, answer: Any) -> bytes | None:
        from devguard import wire
        from devguard.session.smp_frame import read_message

        asked = read_message(frame)
        if asked.header.command == 1 and asked.values["off"]:
            body = wire.encode({**asked.values, "data": asked.values["data"][:600]})
            frame = frame[:2] + len(body).to_bytes(2, "big") + frame[4:8] + body
        return answer(frame)  # type: ignore[no-any-return]

    line = line_to(legacy(), tap=half, service=lambda frame: 30.0 if len(frame) > 300 else 0.01)
    update = SmpUpdate(release, grant_for(), judged(release, image), lambda: NOW)
    with pytest.raises(LinkError) as failed:
        run(line, update)
    assert failed.value.code == "link.timeout"
    assert line.now - 100 < 600

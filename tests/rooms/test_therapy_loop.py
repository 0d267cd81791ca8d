"""The therapy on its own thread: it ticks whatever becomes of the guard, decides nothing by it, waits for nothing."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import devguard.device.therapy_loop as module
from devguard.device.flash import PowerCut
from devguard.device.models import load_model
from devguard.device.therapy import PumpTherapy, Therapy, new_therapy
from devguard.device.therapy_loop import SAVE_EVERY, TherapyLoop
from devguard.device.watchdog import Stop, keep_guard
from devguard.errors import LinkError, LocalProtocolError, Refused

MIDNIGHT = 1_790_035_200
DEVICE = Path(module.__file__).parent
BOUND = 20.0


class Clock:
    """Seconds that pass when somebody looks."""

    def __init__(self, step: int = 60) -> None:
        self.now, self.step = MIDNIGHT, step

    def __call__(self) -> int:
        self.now += self.step
        return self.now


def loop_of(save: Callable[[Therapy], object] = len, clock: Callable[[], int] | None = None) -> TherapyLoop:
    return TherapyLoop(new_therapy(load_model("insulin-pump")), clock or Clock(), save)


def nothing(_therapy: Therapy) -> None:
    return None


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device's quarter of a second is a turn here."""
    monkeypatch.setattr(module, "TICK", 0.001)
    monkeypatch.setattr("devguard.device.watchdog._LOOK", 0.001)
    monkeypatch.setattr("devguard.device.watchdog._PAUSE", 0.002)


def ticks_on(loop: TherapyLoop, turns: int = 3) -> None:
    """Wait until the loop has come round so often from now; bounded."""
    end, patience = loop.seen.ticks + turns, threading.Event()
    for _ in range(int(BOUND / 0.002)):
        if loop.seen.ticks >= end:
            return
        patience.wait(0.002)
    raise AssertionError("the therapy does not tick")


def test_what_the_device_sees_is_what_the_therapy_is_after_every_change() -> None:
    loop = loop_of(nothing)
    assert (loop.idle, loop.alarms, loop.damage) == (True, (), ())
    before = loop.history_digest
    loop.change(lambda one: one.start_bolus(3000, MIDNIGHT) if isinstance(one, PumpTherapy) else None)
    loop.change(lambda one: one.open_alarm("occlusion", MIDNIGHT))
    assert (loop.idle, loop.alarms) == (False, ("occlusion",))
    assert loop.history_digest != before
    assert loop.settings_digest() == new_therapy(load_model("insulin-pump")).settings_digest()
    for _ in range(3):
        loop.tick()
    assert loop.idle


def test_the_course_is_saved_every_so_often_and_at_the_end_and_a_full_disk_stops_no_delivery() -> None:
    saved: list[int] = []

    def save(therapy: Therapy) -> None:
        saved.append(therapy.state.last_tick or 0)
        if len(saved) == 1:
            raise Refused("file.unreadable", "the disk is full")

    loop = loop_of(save)
    for _ in range(2 * SAVE_EVERY):
        loop.tick()
        assert (loop.unsaved is not None) == (len(saved) == 1)
    assert len(saved) == 2
    assert loop.seen.ticks == 2 * SAVE_EVERY
    loop.stop()
    assert len(saved) == 3


def test_a_course_that_cannot_be_saved_at_the_end_is_told() -> None:
    def save(_therapy: Therapy) -> None:
        raise Refused("file.unreadable", "the disk is full")

    with pytest.raises(Refused, match=r"file\.unreadable"):
        loop_of(save).stop()


def test_a_guard_that_hangs_or_dies_in_mid_sentence_holds_no_lock_of_the_therapy() -> None:
    """The guard looks at a value; nobody waits for it."""
    loop = loop_of(nothing)
    loop.start()
    entered, leave = threading.Event(), threading.Event()

    def hanging() -> None:
        assert loop.settings_digest()
        entered.set()
        leave.wait(BOUND)
        raise RuntimeError("dies")

    with ThreadPoolExecutor(1) as pool:
        guard = pool.submit(hanging)
        entered.wait(BOUND)
        ticks_on(loop)
        leave.set()
        assert isinstance(guard.exception(BOUND), RuntimeError)
    ticks_on(loop)
    loop.stop()


@pytest.mark.parametrize("error", [RuntimeError("bug"), MemoryError(), AssertionError(), RecursionError()], ids=repr)
def test_a_guard_that_dies_is_started_again_and_the_therapy_never_hears_of_it(error: BaseException) -> None:
    loop = loop_of(nothing)
    loop.start()
    lives: list[int] = []
    told: list[BaseException] = []

    def guard(stop: Stop) -> None:
        lives.append(loop.seen.ticks)
        ticks_on(loop)
        if len(lives) < 3:
            raise error

    keep_guard(guard, loop, lambda: False, told.append)
    assert told == [error, error]
    assert lives == sorted(lives)
    assert len(set(lives)) == 3
    assert loop.failed is None
    ticks_on(loop)
    loop.stop()


@pytest.mark.parametrize("error", [PowerCut("cut"), LinkError("link.port", "gone"), Refused("device.state", "damaged")])
def test_a_power_cut_and_what_the_guard_calls_an_error_end_both(error: BaseException) -> None:
    loop = loop_of(nothing)
    loop.start()

    def guard(stop: Stop) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        keep_guard(guard, loop, lambda: False, lambda _: None)
    assert caught.value is error
    ticks_on(loop)
    loop.stop()


def test_a_word_to_stop_reaches_a_guard_that_runs_and_one_that_is_dead() -> None:
    stopping: list[int] = []
    loop = loop_of(nothing)
    loop.start()

    def serving(stop: Stop) -> None:
        stopping.append(1)
        while not stop():
            threading.Event().wait(0.001)

    keep_guard(serving, loop, lambda: bool(stopping), lambda _: None)
    stopping.clear()

    def dying(stop: Stop) -> None:
        stopping.append(1)
        raise RuntimeError("as soon as it starts")

    keep_guard(dying, loop, lambda: bool(stopping), lambda _: None)
    loop.stop()


def test_a_therapy_that_fails_is_the_one_thing_that_ends_the_device() -> None:
    def broken() -> int:
        raise LocalProtocolError("internal.error", "the clock broke")

    loop = loop_of(nothing, broken)
    loop.start()

    def guard(stop: Stop) -> None:
        while not stop():
            threading.Event().wait(0.001)

    with pytest.raises(LocalProtocolError):
        keep_guard(guard, loop, lambda: False, lambda _: None)
    with pytest.raises(LocalProtocolError):
        loop.stop()


THERAPY = ("therapy", "therapy_loop", "therapy_files", "settings")
GUARD = {"node", "attendant", "bootloader", "counters", "counters_codec", "acts", "audit", "provision", "emulator"}


@pytest.mark.parametrize("name", THERAPY)
def test_the_therapy_imports_nothing_of_the_guard(name: str) -> None:
    """No decision of it can rest on what the guard knows: it cannot even name it."""
    tree = ast.parse((DEVICE / f"{name}.py").read_text(encoding="utf-8"))
    found = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {one for one in found if one.startswith("devguard.")}
    allowed = {
        "devguard.wire",
        "devguard.errors",
        "devguard.custody.files",
        "devguard.device",
        "devguard.device.models",
    }
    allowed |= {f"devguard.device.{one}" for one in (*THERAPY, "fields", "stored")}
    assert ours <= allowed
    assert not {one.rpartition(".")[2] for one in ours} & GUARD

"""A whole push over a line that loses, doubles and damages: it is done and confirmed, or it ends with a coded
error and the device boots the old image or the new one. Never a hang, never anything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devguard.bench.link_run import overheard
from devguard.errors import CODES, DevguardError, LinkError
from devguard.session.update import after_reboot, fetch_report
from devguard.session.verbs import Reboot, encode_message
from rooms.link_support import Faults
from sim.bench import Build, Device, build, grant, update
from sim.line import VirtualLine
from sim.state import snapshot

PATIENCE = 300.0  # virtual seconds; the link itself gives up after sixty without progress
SIZE = 12_345


def attempt(line: VirtualLine, device: Device, what: Build, one: Any) -> DevguardError | None:
    """One push with its report; the error it ended with."""
    session = update(device, what, one)
    runner, began = line.runner(open_timeout=30.0), line.now
    error: DevguardError | None = None
    try:
        runner.run(session.push())
        after_reboot(session.release, reported(runner, session.bench))
    except DevguardError as failure:
        error = failure
    assert line.now - began < PATIENCE
    return error


def reported(runner: Any, bench: Any) -> Any:
    """The report, asked for up to three times, as the command line does after a reboot."""
    for _ in range(2):
        with suppress(LinkError):
            return runner.run(fetch_report(bench))[0]
    return runner.run(fetch_report(bench))[0]


def faults(**most: float) -> st.SearchStrategy[Faults]:
    chances = {name: st.floats(0.0, value) for name, value in most.items()}
    return st.builds(Faults, baud=st.sampled_from([57_600, 115_200, 921_600]), **chances)


@settings(max_examples=12)
@given(st.integers(0, 2**32), faults(loss=0.15, double=0.2, flip=2e-5, noise=0.1))
def test_a_bad_line_slows_a_push_and_does_not_stop_it(seed: int, bad: Faults) -> None:
    device = Device()
    line, what = VirtualLine(device, seed=seed, faults=bad), build(device, size=SIZE)
    before = snapshot(device)
    error = attempt(line, device, what, grant(device, max_uses=1))
    assert error is None, error
    assert snapshot(device).therapy == before.therapy
    assert device.runs(what)


@settings(max_examples=10)
@given(st.integers(0, 2**32), faults(loss=0.9, double=0.5, flip=1e-3, noise=0.5), st.floats(0, 4))
def test_a_line_too_bad_to_use_ends_in_a_coded_error_and_one_whole_image(seed: int, bad: Faults, cut: float) -> None:
    device = Device()
    what, one = build(device, size=SIZE), grant(device, max_uses=1)
    line = VirtualLine(device, seed=seed, faults=bad)
    line.faults.cuts = ((line.now + cut, line.now + cut + 70),)
    error = attempt(line, device, what, one)
    if error is not None:
        assert error.code in CODES
        assert isinstance(error, LinkError) or error.code.startswith(("session.", "device."))
    copy = device.copy()
    assert copy.runs(what) or copy.runs(None)
    # Whatever happened, on a good cable the same grant carries the same release through.
    line.faults = Faults(baud=921_600)
    line.wait(40.0)
    if not copy.runs(what):
        assert attempt(line, device, what, one) is None
    assert device.runs(what)
    assert device.counters.spent[one.cti].uses == 1


@pytest.mark.parametrize("at", [0.05, 0.2, 0.4, 0.6, 0.9, 1.3])
def test_a_cable_pulled_for_ten_seconds_is_only_a_pause(at: float) -> None:
    device = Device()
    line = VirtualLine(device, faults=Faults(baud=115_200))
    line.faults.cuts = ((line.now + at, line.now + at + 10),)
    assert attempt(line, device, build(device, size=SIZE), grant(device)) is None
    assert device.runs(build(device, size=SIZE))


@pytest.mark.parametrize("out", [0.5, 5.0, 70.0])
def test_a_device_that_goes_down_with_its_last_words_unheard_has_still_been_pushed_to(out: float) -> None:
    device = Device()
    what, line = build(device, size=SIZE), VirtualLine(device, faults=Faults(baud=115_200))

    def listener(message: bytes) -> None:
        if message == encode_message(Reboot()):  # the word gets through, and no answer comes back
            line.faults.cuts = ((line.now + 0.005, line.now + out),)

    began = line.now
    line.runner().run(overheard(update(device, what).push(), listener))
    assert line.faults.cuts
    assert line.now - began < 60.0
    assert device.runs(what)

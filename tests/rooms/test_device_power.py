"""Power cuts. Invariant: whatever step of an update the power goes at, and in whatever way, the next boots run the
old or the new image, whole; counters never go back; and the update can then be done again to its end."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from devguard.device.bootloader import BootState
from devguard.device.counters import check_no_regression
from devguard.device.flash import PowerCut
from devguard.errors import Refused
from device_support import HOWS, NOW, SMALL, Build, Power, Rig, accept, make_build, with_running

OLD = make_build("1.0.0", 1, 3 * 512 - 70)
NEW = make_build("1.1.0", 2, 3 * 512 - 6)


def update(rig: Rig, *, confirm: bool) -> None:
    rig.boot()
    rig.trial(NEW, confirm=confirm)
    rig.boot()


def check_whole(rig: Rig, *builds: Build) -> Build:
    """Boots until the device rests, power on; what runs is one of `builds`, byte for byte."""
    rig.power = Power()
    for _ in range(3):
        result = rig.boot()
        running = next(build for build in builds if build.header == result.header)
        assert rig.image().startswith(running.image)
        assert result.flags == ()
    assert result.state is BootState.CONFIRMED
    return running


# Doing the whole update again after a cut is the slow part: every fifth cut does it.
def cut_and_check(rig: Rig, state: tuple, cut_at: int, how: str, *, confirm: bool, second: int | None = None) -> None:
    rig.restore(state, Power(cut_at, how))
    try:
        update(rig, confirm=confirm)
    except PowerCut:
        pass
    else:
        pytest.fail("the cut never came")
    check_no_regression(state[1], rig.counters)
    middle = rig.counters
    if second is not None:
        rig.power = Power(second, how)
        try:
            rig.boot()
        except PowerCut:
            check_no_regression(middle, rig.counters)
    running = check_whole(rig, OLD, NEW)
    check_no_regression(middle, rig.counters)
    if running is OLD and cut_at % 5 == 0:
        rig.fresh_hour()
        rig.trial(NEW)
        assert check_whole(rig, OLD, NEW) is NEW


def steps_of(rig: Rig, state: tuple, *, confirm: bool) -> int:
    rig.restore(state)
    update(rig, confirm=confirm)
    return rig.power.count


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("confirm", [True, False], ids=["confirm", "revert"])
def test_power_cut_at_every_step(how: str, confirm: bool) -> None:
    rig = with_running(OLD)
    state = rig.snapshot()
    steps = steps_of(rig, state, confirm=confirm)
    assert steps > 150
    for cut_at in range(1, steps + 1):
        cut_and_check(rig, state, cut_at, how, confirm=confirm)


def double_cuts(chosen: random.Random | None) -> None:
    rig = with_running(OLD)
    state = rig.snapshot()
    for confirm in (True, False):
        steps = steps_of(rig, state, confirm=confirm)
        pairs = [(cut, second) for cut in range(1, steps + 1) for second in range(1 + cut % 7, 100, 7)]
        for cut, second in chosen.sample(pairs, 200) if chosen else pairs:
            cut_and_check(rig, state, cut, HOWS[(cut + second) % 4], confirm=confirm, second=second)


def test_a_second_cut_during_the_recovery() -> None:
    double_cuts(random.Random(7))


@pytest.mark.slow
def test_second_cuts_after_every_first_during_the_recovery() -> None:
    double_cuts(None)


def test_power_cut_at_every_step_of_a_fallback() -> None:
    rig = with_running(OLD)
    rig.trial(NEW)
    rig.flip(SMALL.primary.image + 3)
    state = rig.snapshot()
    rig.restore(state)
    rig.boot()
    steps = rig.power.count
    assert steps > 40
    for how in HOWS:
        for cut_at in range(1, steps + 1):
            rig.restore(state, Power(cut_at, how))
            with pytest.raises(PowerCut):
                rig.boot()
            rig.power = Power()
            for _ in range(2):
                result = rig.boot()
                assert result.header == OLD.header
                assert rig.image().startswith(OLD.image)


def test_an_image_substituted_in_mid_swap_never_runs() -> None:
    """At every cut of the swap, every sector of what is to come in is altered once."""
    rig = with_running(OLD)
    rig.download(NEW)
    state = rig.snapshot()
    rig.restore(state)
    rig.boot()
    swaps = rig.power.count
    seen = set()
    for cut_at in range(1, swaps + 1):
        for address in (SMALL.secondary.image + 40, SMALL.secondary.image + 600, SMALL.secondary.image + 1300):
            rig.restore(state, Power(cut_at))
            with pytest.raises(PowerCut):
                rig.boot()
            rig.power = Power()
            rig.flip(address)
            result = rig.boot()
            names = {event.name for event in result.events}
            seen |= {result.state, *names}
            assert result.state is not BootState.REVERTED or "swap-refused" in names or cut_at >= swaps - 1
            held = None if result.header is None else (OLD if result.header == OLD.header else NEW)
            assert held is None or rig.image().startswith(held.image)
            if held is None:
                # The old image was hit after the new one had used up its only trial: two faults, nothing left to run.
                assert result.state is BootState.RECOVERY
                assert cut_at >= swaps - 1
    assert {BootState.REVERTED, "swap-refused"} <= seen


@pytest.mark.parametrize("how", HOWS)
def test_a_download_cut_anywhere_continues_for_its_own_manifest_only(how: str) -> None:
    large = replace(SMALL, slot_size=90 * 512, sector_size=512 * 2, envelope_size=1024)
    build = make_build("3.0.0", 3, 40_000)
    rig = Rig(model=replace(Rig().model, layout=large))
    rig.boot()
    state = rig.snapshot()
    rig.restore(state)
    rig.boot()
    rig.download(build)
    steps = rig.power.count
    for cut_at in range(40, steps, 61):
        rig.restore(state, Power(cut_at, how))
        rig.boot_loader.boot(accept, NOW)
        with pytest.raises(PowerCut):
            rig.download(build)
        rig.power = Power()
        rig.boot()
        durable = rig.boot_loader.durable_offset()
        assert rig.boot_loader.prepare(build.header.manifest_digest, 40_000, NOW) == durable
        assert bytes(rig.image("secondary")[:durable]) == build.image[:durable]
        other = make_build("3.0.1", 4, 40_000)
        assert rig.boot_loader.prepare(other.header.manifest_digest, 40_000, NOW) == 0
        rig.restore((bytes(rig.backend.data), rig.counters))
        rig.boot()
        rig.fresh_hour()
        rig.download(build)
        assert rig.boot().header == build.header


class Life(RuleBasedStateMachine):
    """Random updates, cuts, trials and boots: an image that runs was judged, is whole, and nothing goes back."""

    @initialize()
    def start(self) -> None:
        self.rig = with_running(OLD)
        self.builds = [OLD]
        self.before = self.rig.counters

    @rule(size=st.integers(1, SMALL.image_capacity), security=st.integers(0, 2), cut=st.integers(0, 120))
    def push(self, size: int, security: int, cut: int) -> None:
        floor = self.rig.counters.security_version
        number = len(self.builds) + 1
        build = make_build(f"1.0.{number}", number, size, floor + security)
        self.builds.append(build)
        self.rig.fresh_hour()
        self._try(cut, lambda: self.rig.download(build))

    @rule(cut=st.integers(0, 200), how=st.sampled_from(HOWS))
    def reboot(self, cut: int, how: str) -> None:
        self._try(cut, self.rig.boot, how)

    @precondition(lambda self: self.rig.boot_loader._result is not None)
    @rule(cut=st.integers(0, 3), healthy=st.booleans())
    def end_trial(self, cut: int, healthy: bool) -> None:
        if self.rig.boot_loader.result.state is BootState.TRIAL:

            def act() -> None:
                if self.rig.boot_loader.self_test(lambda: healthy):
                    self.rig.boot_loader.confirm()

            self._try(cut, act)

    def _try(self, cut: int, act, how: str = "half") -> None:
        self.rig.power.cut_at, self.rig.power.count, self.rig.power.how = cut or None, 0, how
        try:
            act()
        except PowerCut:
            self.rig.power.cut_at = None
            self.rig.boot()
        except Refused as refused:
            if refused.code not in ("device.unconfirmed", "session.order"):
                raise
        self.rig.power.cut_at = None

    @invariant()
    def runs_a_whole_judged_image(self) -> None:
        if not hasattr(self, "rig"):
            return
        check_no_regression(replace(self.before, spent={}), self.rig.counters)
        self.before = self.rig.counters
        loader = self.rig.boot_loader
        if loader._result is not None and loader.result.state is not BootState.EMPTY:
            running = next(build for build in self.builds if build.header == loader.result.header)
            assert self.rig.image().startswith(running.image)
            assert running.header.security_version >= self.rig.counters.security_version


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=12)

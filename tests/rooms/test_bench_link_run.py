"""How much of a line a push uses: the figures that docs/link.md promises, on a virtual clock, by seed.

The quick run takes the clean lines and a few seeds of the bad ones; the sweeps over many seeds are slow.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from devguard.bench.impair import UNHARMED, Damage
from devguard.bench.link_run import Figures, Trial, run_virtual
from devguard.bench.way import Shape
from devguard.cli.progress import Meter, State
from devguard.device.models import load_model
from devguard.errors import LinkError

PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"
KIB = 1024
BIT_ERRORS, MORE_BIT_ERRORS, DROPS = Damage(ber=1e-5), Damage(ber=1e-4), Damage(drop=1e-5)


def push(
    baud: int,
    latency: float = 0.002,
    timer: float = 0.0,
    damage: Damage = UNHARMED,
    *,
    seed: int = 1,
    model: str = PUMP,
    size: int = 256 * KIB,
    flash_timing: bool = False,
) -> Figures:
    return run_virtual(Trial(load_model(model), size, Shape(baud, latency, timer, damage), seed, flash_timing))


def mean(baud: int, damage: Damage, seeds: range, size: int = 256 * KIB) -> float:
    return statistics.mean(push(baud, damage=damage, seed=seed, size=size).line_efficiency for seed in seeds)


@pytest.mark.parametrize("baud", [115_200, 921_600])
@pytest.mark.parametrize(
    ("latency", "timer", "least"),
    [(0.0, 0.0, 0.975), (0.002, 0.0, 0.975), (0.016, 0.0, 0.965), (0.0, 0.016, 0.96), (0.002, 0.016, 0.96)],
)
def test_a_clean_line_is_nearly_all_image(baud: int, latency: float, timer: float, least: float) -> None:
    figures = push(baud, latency, timer)
    assert figures.line_efficiency > least
    assert figures.retransmits == 0
    assert figures.wire_forward < 1.035 * figures.trial.size


@pytest.mark.parametrize(("baud", "least"), [(2400, 0.94), (9600, 0.97), (3_000_000, 0.97)])
def test_old_slow_lines_and_new_fast_ones(baud: int, least: float) -> None:
    assert push(baud, size=64 * KIB if baud < 9600 else 256 * KIB).line_efficiency > least


@pytest.mark.parametrize(("baud", "least"), [(115_200, 0.95), (921_600, 0.92)])
def test_the_whole_conversation_for_a_megabyte(baud: int, least: float) -> None:
    figures = push(baud, 0.016, model=PROGRAMMER, size=1024 * KIB)
    assert figures.session_efficiency > least
    assert figures.line_efficiency > figures.session_efficiency


@pytest.mark.parametrize("baud", [115_200, 921_600])
@pytest.mark.parametrize(("damage", "least"), [(BIT_ERRORS, 0.87), (DROPS, 0.93)], ids=["bits", "drops"])
def test_a_bad_line_for_a_few_seeds(baud: int, damage: Damage, least: float) -> None:
    assert mean(baud, damage, range(1, 3)) > least


@pytest.mark.parametrize("baud", [9600, 115_200, 921_600])
def test_a_very_bad_line_is_finished(baud: int) -> None:
    assert mean(baud, MORE_BIT_ERRORS, range(3, 4), 48 * KIB) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("baud", [9600, 115_200, 921_600])
@pytest.mark.parametrize(
    ("damage", "least"),
    [(BIT_ERRORS, 0.88), (DROPS, 0.94), (MORE_BIT_ERRORS, 0.7)],
    ids=["bits", "drops", "more bits"],
)
def test_a_bad_line_for_many_seeds(baud: int, damage: Damage, least: float) -> None:
    assert mean(baud, damage, range(1, 21 if baud > 9600 else 7)) > least


@pytest.mark.parametrize("kind", ["double", "noise"])
def test_doubled_bytes_and_bursts_of_noise(kind: str) -> None:
    figures = push(115_200, damage=Damage(**{kind: 1e-4}), size=64 * KIB)
    assert figures.retransmits > 3
    assert figures.line_efficiency > 0.75


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["double", "noise"])
def test_doubled_bytes_and_bursts_of_noise_for_ten_seeds(kind: str) -> None:
    assert mean(115_200, Damage(**{kind: 1e-5}), range(1, 11)) > 0.94


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
def test_three_bit_errors_in_ten_thousand_are_still_finished(seed: int) -> None:
    assert push(115_200, damage=Damage(ber=3e-4), seed=seed, size=64 * KIB).line_efficiency > 0.5


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    runs = [push(921_600, damage=MORE_BIT_ERRORS, seed=seed, size=16 * KIB) for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert (runs[0].data_seconds, runs[0].wire_forward) != (runs[2].data_seconds, runs[2].wire_forward)


def test_an_onlooker_sees_what_has_arrived_and_what_was_sent_again() -> None:
    seen: list[State] = []
    trial = Trial(load_model(PUMP), 40_000, Shape(115_200, 0.002, damage=MORE_BIT_ERRORS), 1)
    figures = run_virtual(trial, Meter(trial.size, seen.append, every=0.0))
    assert max(state.arrived - state.durable for state in seen) > 4096  # not only what the device says is durable
    assert [state.arrived for state in seen] == sorted(state.arrived for state in seen)
    assert seen[-1].arrived == trial.size
    assert 3 < figures.retransmits - 2 <= seen[-1].retransmits <= figures.retransmits  # the last words come after it
    assert figures == run_virtual(trial)  # and changes nothing


def test_the_figures_add_up() -> None:
    figures = push(115_200)
    assert figures.ideal_seconds == pytest.approx(256 * KIB * 10 / 115_200)
    assert figures.ideal_seconds < figures.data_seconds < figures.session_seconds
    assert figures.wire_forward * 10 / 115_200 < figures.session_seconds
    assert 0 < figures.wire_reverse < figures.trial.size / 20


def test_a_real_run_whose_line_was_late_is_void() -> None:
    figures = push(115_200, size=16 * KIB)
    assert (figures.late_seconds, figures.paced) == (0.0, True)
    assert replace(figures, late_seconds=figures.session_seconds * 0.0099).paced
    assert not replace(figures, late_seconds=figures.session_seconds * 0.0101).paced


@pytest.mark.parametrize("model", [PUMP, PROGRAMMER])
def test_flash_takes_its_time_and_the_line_does_not_notice(model: str) -> None:
    quick, real = (push(115_200, model=model, size=64 * KIB, flash_timing=flash) for flash in (False, True))
    timing, layout = load_model(model).timing, load_model(model).layout
    pages = 64 * KIB // layout.page_size
    assert real.session_seconds > quick.session_seconds  # a new device's flash is blank: only the pages cost
    assert real.session_seconds - quick.session_seconds < timing.erase_ms / 1000 * 12 + pages * timing.program_us / 1e6
    assert real.line_efficiency > 0.96


def test_a_cable_out_for_five_seconds_costs_little_more_than_that() -> None:
    whole = push(115_200, size=64 * KIB)
    trial = whole.trial
    cut = run_virtual(replace(trial, shape=replace(trial.shape, cuts=((2.0, 7.0),))))
    assert 5.0 < cut.data_seconds - whole.data_seconds < 10.0
    assert cut.wire_forward - whole.wire_forward < 16 * KIB  # a window


def test_a_line_too_bad_to_use_is_a_time_out() -> None:
    with pytest.raises(LinkError, match=r"link\.timeout"):
        push(115_200, damage=Damage(ber=0.02))

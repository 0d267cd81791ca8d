"""The power-cut bench. Invariant: whatever step the power goes at, in whatever way, once or twice, the device comes up
with the old or the new image, whole, with its counters and therapy settings, and takes the next push. And the bench
itself: its shortcut changes no verdict, and it sees a device that was built wrong."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from devguard.bench import power
from devguard.bench.power_life import live
from devguard.bench.power_scenes import NAMES, scene_of, start_of
from devguard.bench.power_sweep import Sweep
from devguard.bench.power_tally import COUNTED, Plan, Tally
from devguard.bench.power_world import World
from devguard.cli.main import main
from devguard.device import journal, swap
from devguard.device.bootloader import Bootloader
from devguard.device.models import load_model

PUMP = "insulin-pump"


@functools.cache
def world(sectors: int = 2) -> World:
    return World(load_model(PUMP), power.image_size(PUMP, sectors))


def play(name: str, plan: Plan, sectors: int = 2) -> Tally:
    return Sweep(world(sectors), scene_of(world(sectors), name), plan).play()


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_cuts_and_second_cuts(name: str) -> None:
    few = name in ("confirm", "trust")
    found = play(name, Plan(first=1 if few else 67, second=1 if name == "trust" else 47))
    assert found.faults == []
    assert found.held
    assert found.cuts > found.second_cuts > 0
    assert found.booted_old + found.booted_new == found.cuts
    assert found.operations >= {"update": 200, "revert": 300, "confirm": 2, "fallback": 150, "trust": 5}[name]
    if name in ("update", "confirm", "trust"):
        assert found.booted_old
        assert found.booted_new


@pytest.mark.parametrize(("name", "first"), [("update", 131), ("fallback", 53)])
def test_the_shortcut_changes_no_verdict(name: str, first: int) -> None:
    """The same cuts, each really run, and those that are taken for one another."""
    quick, honest = (play(name, Plan(first=first, second=83, shortcut=short)) for short in (True, False))
    assert {one: getattr(quick, one) for one in COUNTED} == {one: getattr(honest, one) for one in COUNTED}
    assert honest.runs == honest.cuts > 2 * quick.runs


def test_a_swap_that_marks_before_it_copies_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    start = scene_of(world(), "revert")
    real = swap._copy

    def forgets_scratch(flash, layout, source, target):
        if target != layout.scratch:
            real(flash, layout, source, target)

    monkeypatch.setattr(swap, "_copy", forgets_scratch)
    monkeypatch.setattr(swap, "_copy_what_holds", forgets_scratch)
    found = Sweep(world(), start, Plan(first=7)).play()
    assert found.bricked
    assert not found.held
    assert "cut " in found.faults[0]


def test_a_journal_that_goes_on_with_half_written_marks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rewriting of an open entry is for: a mark may look set at one boot and not at the next."""

    def latest(self: journal.Journal) -> journal.SwapEntry | None:
        entry = self.latest()
        return entry if entry is not None and self.is_open(entry) else None

    class Early(Plan):
        def takes(self, depth: int, step: int) -> bool:
            return (step == 8, step < 6)[depth]

    assert play("fallback", Early(second=1)).held
    monkeypatch.setattr(journal.Journal, "resume", latest)
    assert play("fallback", Early(second=1)).bricked


def test_a_counter_burnt_before_the_confirm_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bootloader._begin_trial

    def early(self: Bootloader, trials: int) -> bool:
        pending = self._store.load().pending
        self._commit("early", security_version=pending.security_version if pending else 0)
        return real(self, trials)

    monkeypatch.setattr(Bootloader, "_begin_trial", early)
    assert play("revert", Plan(first=11)).counter_regressed


def test_a_few_lives_with_many_cuts() -> None:
    start = start_of(world())
    for number in range(5):
        found = live(world(), start, f"test {number}")
        assert found.faults == []
        assert found.held
        assert found.booted_old + found.booted_new == 1


def said(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """Exit status and standard output of a command."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(str(ended.value)), capsys.readouterr().out


def test_the_command_prints_the_table_of_the_contract(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [power.Job(PUMP, name, 2, Plan(first=97)) for name in ("update", "fallback")]
    monkeypatch.setattr(power, "jobs", lambda *_args, **_more: iter(few))
    monkeypatch.setattr(power.os, "cpu_count", lambda: 1)
    status, text = said(capsys, "bench", "power-cuts", "--model", PUMP, "--json")
    assert status == 0
    data = json.loads(text)
    assert data["held"] is True
    wanted = {"model", "operations", "cuts", "booted_old", "booted_new", "bricked", "settings_changed"}
    for row in data["rows"]:
        assert wanted | {"counter_regressed"} <= set(row)
        assert row["cuts"] == row["booted_old"] + row["booted_new"] > 0
        assert row["bricked"] == row["settings_changed"] == row["counter_regressed"] == 0
    status, text = said(capsys, "bench", "power-cuts", "--model", PUMP)
    assert "every device came up with a whole image" in " ".join(text.split())


def test_a_device_that_does_not_come_up_is_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = power.Row(
        PUMP, "update", 2, Tally(operations=1, cuts=1, bricked=1, faults=["cut after step 1; came up dead"])
    )
    monkeypatch.setattr(power, "run", lambda *_args, **_more: [bad])
    status, text = said(capsys, "bench", "power-cuts", "--json")
    assert (status, json.loads(text)["held"]) == (1, False)
    status, text = said(capsys, "bench", "power-cuts")
    assert "came up dead" in text
    assert "whole image" not in text


def test_a_model_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = said(capsys, "bench", "power-cuts", "--model", "toaster", "--json")
    assert json.loads(text)["error"]["code"] == "image.class"


def test_the_sample_is_small_and_the_full_plan_leaves_nothing_out() -> None:
    full = list(power.jobs([PUMP], full=True, seed=1, parts=2))
    for name in NAMES:
        plans = {(job.sectors, job.plan.first, job.plan.second, job.plan.part) for job in full if job.scene == name}
        assert {(8, 1, 23, 0), (8, 1, 23, 1), (2, 1, 1, 0), (2, 1, 1, 1)} <= plans
        assert any(sectors == power.FULL_SIZE for sectors, *_ in plans)
    taken = [[Plan(part=part, parts=2).takes(0, step) for step in range(999)] for part in range(2)]
    assert all(one != other for one, other in zip(*taken, strict=True))


@pytest.mark.slow
def test_every_cut_of_every_scene_on_every_model(tmp_path: Path) -> None:
    rows = power.run(full=True)
    (tmp_path / "rows.json").write_text(json.dumps([row.as_dict() for row in rows]))
    assert [row.as_dict() for row in rows if not row.tally.held] == []
    sampled = [row for row in rows if row.sectors == 8]
    for model in {row.model for row in rows}:
        assert sum(row.tally.second_cuts for row in sampled if row.model == model) >= 10_000
    assert all(row.tally.cuts >= row.tally.operations for row in sampled)

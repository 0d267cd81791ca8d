"""The power-cut bench. Invariant: whatever step the power goes at, in whatever way, once or twice, the device comes up
with the old or the new image, whole, with its counters and therapy settings, and takes the next push. And the bench
itself: its shortcut changes no verdict, and it sees a device that was built wrong."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.bench import power, power_sweep
from devguard.bench.power_flash import Flash, TrackedBackend, TrackedFlash
from devguard.bench.power_life import live
from devguard.bench.power_scenes import NAMES, scene_of, start_of
from devguard.bench.power_sweep import Cutter, Sweep
from devguard.bench.power_tally import COUNTED, Plan, Tally
from devguard.bench.power_world import TARGET, World
from devguard.cli.main import main
from devguard.device import journal, slots, swap
from devguard.device.bootloader import Bootloader
from devguard.device.cells import Cells
from devguard.device.counters import Counters
from devguard.device.download import SlotWriter
from devguard.device.flash import FlashGeometry, FlashMemory, MemoryBackend, Operation, Tear
from devguard.device.layout import Mark
from devguard.device.models import load_model
from devguard.device.node import DeviceNode
from devguard.device.slot_eraser import SlotEraser
from devguard.errors import LocalProtocolError, Refused

PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"
OPERATIONS = {"update": 200, "patch": 200, "revert": 300, "confirm": 2, "fallback": 150, "trust": 5}


@functools.cache
def world(sectors: int = 2, model: str = PUMP) -> World:
    return World(load_model(model), power.image_size(model, sectors))


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
    assert found.operations >= OPERATIONS[name]
    if name in ("update", "patch", "confirm", "trust"):
        assert found.booted_old
        assert found.booted_new


@pytest.mark.parametrize(("name", "first"), [("update", 401), ("revert", 499), ("trust", 1)])
def test_a_sample_in_sectors_of_64_kib_with_two_components_and_two_technicians(name: str, first: int) -> None:
    where = world(2, PROGRAMMER)
    assert where.stage.model.facts.components == ("application", "telemetry")
    found = Sweep(where, scene_of(where, name), Plan(first=first, second=701)).play()
    assert found.faults == []
    assert found.held
    assert found.operations >= {"update": 2000, "revert": 3000, "trust": 5}[name]


@pytest.mark.parametrize("name", ["update", "patch", "revert"])
def test_two_components_change_together_at_the_boundary_between_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cut around the byte at which the second component begins, wherever it is written on its way: what runs is
    both old ones, or both new ones."""
    where = world(2, PROGRAMMER)
    layout, (first, _) = where.model.layout, where.builds[TARGET].measured.parts.values()
    sector, boundary = layout.sector_size, (layout.sector_size + first.size) % layout.sector_size
    touched: set[int] = set()

    class Boundary(Cutter):
        def flash(self, operation: Operation, address: int, data: bytes) -> Tear | None:
            beside = operation is Operation.PROGRAM and abs(address % sector - boundary) <= 3 * layout.page_size
            if not beside or address > layout.scratch + sector:
                return None
            touched.add(address // sector)
            return super().flash(operation, address, data)

        def save(self, counters: Counters) -> None:
            return

    monkeypatch.setattr(power_sweep, "Cutter", Boundary)
    found = Sweep(where, scene_of(where, name), Plan()).play()
    assert {place // sector for place in (layout.primary.image, layout.secondary.image, layout.scratch)} <= touched
    assert found.faults == []
    assert found.cuts == found.booted_old + found.booted_new >= 80
    assert (found.booted_new > 0) == (name != "revert")
    assert found.booted_old


@pytest.mark.parametrize(("name", "first", "second"), [("update", 97, 37), ("fallback", 53, 13)])
def test_the_shortcut_changes_no_verdict(name: str, first: int, second: int) -> None:
    """The same cuts, each really run, and those that are taken for one another."""
    quick, honest = (play(name, Plan(first=first, second=second, shortcut=short)) for short in (True, False))
    assert {one: getattr(quick, one) for one in COUNTED} == {one: getattr(honest, one) for one in COUNTED}
    assert honest.runs == honest.cuts > 2 * quick.runs
    assert quick.pairs == honest.pairs > 0  # a pair counts once, however often its recovery is run


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["program", "erase", "read", "is_blank"]),
        st.integers(0, 1023).map(lambda at: at * 4),
        st.binary(max_size=72),
    ),
    max_size=40,
)


@given(STEPS, st.booleans())
def test_the_flash_of_the_bench_is_flash(steps: list[tuple[str, int, bytes]], weak: bool) -> None:
    """What the bench leaves out where nobody watches shows nowhere: same answers, same refusals, same bytes."""
    geometry = FlashGeometry(4096, 512, 64, 4)
    start = Flash(tuple(bytes([255 if sector % 2 else 165]) * 512 for sector in range(8)))
    backend = TrackedBackend(start, 512, {})
    plain = MemoryBackend(4096)
    for sector, data in enumerate(start.sectors):
        plain.write(512 * sector, data)
    quick, honest = (
        kind(geometry, back, None, Cells(8, 512, seed="same"))
        for kind, back in ((TrackedFlash, backend), (FlashMemory, plain))
    )
    for chip in (quick, honest):
        if weak:
            chip.cells.torn(512, b"\x0f")

    def done(chip: FlashMemory, step: tuple[str, int, bytes]) -> object:
        name, at, data = step
        try:
            if name == "program":
                return chip.program(at, data)
            return chip.erase(at // 512 * 512) if name == "erase" else getattr(chip, name)(at // 512 * 512, 512)
        except (Refused, LocalProtocolError) as error:
            return error.code, error.message

    for step in steps:
        assert done(quick, step) == done(honest, step)
    assert b"".join(backend.sectors()) == plain.read(0, 4096)
    # Whatever was asked, a flash that differs elsewhere only is the same to this run.
    touched = backend.needs.read | backend.needs.stands | backend.owned
    assert touched >= {at // 512 for name, at, _ in steps if name == "read"}


# -- a device that was built wrong -----------------------------------------------------------------------------------


def copies_nothing_to_scratch(patch: pytest.MonkeyPatch) -> None:
    real = swap._copy

    def copy(flash, layout, source, target):
        if target != layout.scratch:
            real(flash, layout, source, target)

    patch.setattr(swap, "_copy", copy)
    patch.setattr(swap, "_copy_what_holds", copy)


def notes_a_step_before_it_is_done(patch: pytest.MonkeyPatch) -> None:
    def exchange(flash, layout, entries, entry, place, copy):
        index, offset = place
        first, second = layout.primary.base + offset, layout.secondary.base + offset
        ways = ((first, layout.scratch), (second, first), (layout.scratch, second))
        for step, (source, target) in enumerate(ways):
            if not entries.done(entry, index, step):
                entries.mark(entry, index, step)
                copy(flash, layout, source, target)

    patch.setattr(swap, "_exchange", exchange)


def begins_a_swap_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal.Journal, "resume", lambda self: None)


def keeps_its_journal_in_one_sector(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal.Journal, "_address", lambda self, entry: self._layout.journal[0])


def goes_on_with_half_written_marks(patch: pytest.MonkeyPatch) -> None:
    """What the rewriting of an open entry is for: a mark may look set at one boot and not at the next."""

    def latest(self):
        entry = self.latest()
        return entry if entry is not None and self.is_open(entry) else None

    patch.setattr(journal.Journal, "resume", latest)


def closes_an_entry_before_the_swap(patch: pytest.MonkeyPatch) -> None:
    real = Bootloader._complete

    def complete(self, entry):
        self._journal.close(entry)
        return real(self, entry)

    patch.setattr(Bootloader, "_complete", complete)


def burns_the_counter_at_the_trial(patch: pytest.MonkeyPatch) -> None:
    real = Bootloader._begin_trial

    def begin(self, trials):
        pending = self._store.load().pending
        self._commit("early", security_version=pending.security_version if pending else 0)
        return real(self, trials)

    patch.setattr(Bootloader, "_begin_trial", begin)


def confirms_what_failed_its_test(patch: pytest.MonkeyPatch) -> None:
    def passes(self, check):
        check()
        self._tested = True
        return True

    patch.setattr(Bootloader, "self_test", passes)


def tries_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(slots.Slots, "trials", lambda self, slot: 0)
    patch.setattr(DeviceNode, "boot", lambda self: self._start())


def notes_progress_before_it_is_made(patch: pytest.MonkeyPatch) -> None:
    real = SlotWriter._program

    def program(self, page):
        self._programmed += len(page)
        self._save_progress()
        self._programmed -= len(page)
        real(self, page)

    patch.setattr(SlotWriter, "_program", program)


def trusts_flash_that_looks_blank(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SlotEraser, "in_doubt", lambda self, download: set())


def marks_before_it_notes_what_was_judged(patch: pytest.MonkeyPatch) -> None:
    real = SlotWriter.mark_pending

    def mark(self, now):
        self._slots.mark(self._slot, Mark.PENDING)
        real(self, now)

    patch.setattr(SlotWriter, "mark_pending", mark)


def notes_a_trust_version_before_it_has_the_document(patch: pytest.MonkeyPatch) -> None:
    real = DeviceNode.adopt

    def adopt(self, data, document, *more):
        self.store.save(self.store.load().with_trust_version(document.version))
        real(self, data, document, *more)

    patch.setattr(DeviceNode, "adopt", adopt)


def touches_the_therapy(patch: pytest.MonkeyPatch) -> None:
    real = DeviceNode._settle_trial

    def settle(self):
        self.therapy.start_bolus(100, 0)
        return real(self)

    patch.setattr(DeviceNode, "_settle_trial", settle)


def writes_its_log_anew(patch: pytest.MonkeyPatch) -> None:
    real = Counters.event

    def event(self, time, name, code=None, subject=b""):
        after = real(self, time, name, code, subject)
        events = (replace(after.audit.events[0], time=1), *after.audit.events[1:])
        return replace(after, audit=replace(after.audit, events=events)) if name == "swap-resumed" else after

    patch.setattr(Counters, "event", event)


def at(steps: range, second: int = 0) -> Plan:
    """The cuts at these steps, and those at so many steps of the recovery from each."""

    class Chosen(Plan):
        def takes(self, depth: int, step: int, salt: int = 0) -> bool:
            return step < second if depth else step in steps

    return Chosen(second=1 if second else 0)


WRONG = [
    (copies_nothing_to_scratch, "revert", Plan(first=7), "bricked"),
    (notes_a_step_before_it_is_done, "revert", Plan(first=29), "bricked"),
    (begins_a_swap_anew, "fallback", Plan(first=7), "bricked"),
    (keeps_its_journal_in_one_sector, "fallback", at(range(40, 42), 8), "bricked"),
    (closes_an_entry_before_the_swap, "fallback", Plan(first=7), "bricked"),
    (goes_on_with_half_written_marks, "fallback", at(range(8, 9), 6), "bricked"),
    (burns_the_counter_at_the_trial, "revert", Plan(first=11), "counter_regressed"),
    (confirms_what_failed_its_test, "revert", Plan(first=41), "bricked"),
    (tries_for_ever, "revert", Plan(first=41), "bricked"),
    (notes_progress_before_it_is_made, "update", Plan(first=23), "push_failed"),
    (trusts_flash_that_looks_blank, "patch", at(range(20, 40)), "push_failed"),
    (marks_before_it_notes_what_was_judged, "update", at(range(58, 68)), "push_failed"),
    (notes_a_trust_version_before_it_has_the_document, "trust", Plan(), "bricked"),
    (touches_the_therapy, "revert", Plan(first=41), "settings_changed"),
    (writes_its_log_anew, "fallback", Plan(first=11), "audit_broken"),
]


@pytest.mark.parametrize(("wrong", "name", "plan", "harm"), WRONG, ids=[one[0].__name__ for one in WRONG])
def test_a_device_that_was_built_wrong_is_seen(
    wrong: Callable[[pytest.MonkeyPatch], None], name: str, plan: Plan, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scene's row goes red, under the right head; with the device as it is the same cuts are all held."""
    scene = scene_of(world(), name)
    assert Sweep(world(), scene, plan).play().held
    wrong(monkeypatch)
    found = Sweep(world(), scene, plan).play()
    assert getattr(found, harm)
    assert not found.held
    assert "cut " in found.faults[0]


def test_a_push_that_fails_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a device that was built wrong, as many pushes fail with the shortcut as without it."""
    notes_progress_before_it_is_made(monkeypatch)
    scene = scene_of(world(), "update")
    quick, honest = (Sweep(world(), scene, Plan(first=11, shortcut=short)).play() for short in (True, False))
    assert quick.push_failed == honest.push_failed
    assert 0 < honest.push_failed < honest.cuts


def test_a_few_lives_with_many_cuts() -> None:
    start, new = start_of(world()), 0
    for number in range(4):
        found = live(world(), start, f"test {number}")
        assert found.faults == []
        assert found.held
        assert found.booted_old + found.booted_new == found.cuts == 5
        assert found.operations > found.cuts
        new += found.booted_new
    assert new


def test_a_life_with_a_device_that_was_built_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    start = start_of(world())
    begins_a_swap_anew(monkeypatch)
    assert any(live(world(), start, f"test {number}").bricked for number in range(9))


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
        # Beside an image that fills the slot there is no room for a patch.
        assert any(sectors == power.FULL_SIZE and second for sectors, _, second, _ in plans) != (name == "patch")
    taken = [[Plan(part=part, parts=2).takes(0, step) for step in range(999)] for part in range(2)]
    assert all(one != other for one, other in zip(*taken, strict=True))


@pytest.mark.slow
def test_every_cut_of_every_scene_on_every_model(tmp_path: Path) -> None:
    rows = power.run(full=True)
    (tmp_path / "rows.json").write_text(json.dumps([row.as_dict() for row in rows]))
    assert [row.as_dict() for row in rows if not row.tally.held] == []
    sampled = [row for row in rows if row.sectors == 8]
    for model in {row.model for row in rows}:
        # Each pair once: second cuts in recoveries that differ in what they look at.
        assert sum(row.tally.pairs for row in rows if row.model == model and row.sectors != power.PAIRS) >= 10_000
    assert all(row.tally.cuts >= row.tally.operations for row in sampled)

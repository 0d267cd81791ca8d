"""Cells that fail. Invariant: a device never confirms, and never runs, bytes that are not the judged ones; what the
flash does not take is answered with device.slot, and the image that ran goes on running."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devguard.device.bootloader import BootState
from devguard.device.cells import Cells
from devguard.device.flash import FlashMemory, MemoryBackend, Operation, PowerCut, Tear, new_cells
from devguard.device.journal import Journal
from devguard.device.layout import Mark
from devguard.device.slots import Slots
from devguard.errors import Refused
from device_support import NOW, SMALL, Rig, make_build, with_running

OLD = make_build("1.0.0", 1, 3 * 512 - 70)
NEW = make_build("1.1.0", 2, 3 * 512 - 6)
GEOMETRY = replace(SMALL.flash, erase_cycles=3)


class Chip:
    """A flash whose cells outlive resets."""

    def __init__(self, geometry=SMALL.flash) -> None:
        self.backend = MemoryBackend(geometry.size)
        self.cells = new_cells(geometry)
        self.geometry = geometry

    def flash(self, fault=None) -> FlashMemory:
        return FlashMemory(self.geometry, self.backend, fault, self.cells)


def test_a_sector_beyond_its_cycles_does_not_erase_any_more() -> None:
    chip = Chip(GEOMETRY)
    for _ in range(3):
        chip.flash().erase(512)
    with pytest.raises(Refused, match="does not erase") as refused:
        chip.flash().erase(512)
    assert refused.value.code == "device.slot"
    assert chip.cells.wear[:3] == [0, 4, 0]
    chip.flash().erase(0)
    assert chip.flash().read(512, 512).count(0xFF) == 511
    again = Cells(len(chip.cells.wear), 512, erase_cycles=3, wear=chip.cells.wear)
    assert again.stuck == chip.cells.stuck


def test_a_bit_that_does_not_program_is_seen_at_once() -> None:
    chip = Chip()
    chip.cells.stick(64, 0, 1)
    with pytest.raises(Refused) as refused:
        chip.flash().program(64, bytes(4))
    assert refused.value.code == "device.slot"
    chip.flash().program(68, bytes(4))
    assert chip.flash().read(64, 8) == b"\x01" + bytes(7)


def test_a_sector_that_is_read_too_often_shows_one_wrong_bit_until_it_is_erased() -> None:
    chip = Chip()
    chip.flash().program(512, bytes(64))
    chip.cells.disturb_after = 5
    good = chip.flash().read(512, 512)
    seen = [chip.flash().read(512, 512) for _ in range(8)]
    wrong = [int.from_bytes(one, "big") ^ int.from_bytes(good, "big") for one in seen]
    assert [one.bit_count() for one in wrong] == [0] * 4 + [1] * 4
    assert len(set(wrong[4:])) == 1
    chip.flash().erase(512)
    assert chip.flash().is_blank(512, 512)
    assert chip.flash().read(1024, 512) == b"\xff" * 512


def test_a_word_cut_off_half_way_reads_differently_until_it_is_programmed_again() -> None:
    chip = Chip()
    with pytest.raises(PowerCut):
        chip.flash(lambda *_: Tear(4, weak=True)).program(512, bytes(12))
    reads = {chip.flash().read(512, 12) for _ in range(40)}
    assert len(reads) > 2
    assert {one[:4] for one in reads} == {bytes(4)}
    assert {one[8:] for one in reads} == {b"\xff" * 4}
    assert {bytes(4), b"\xff" * 4} <= {one[4:8] for one in reads}
    chip.flash().program(512, bytes(12))
    assert {chip.flash().read(512, 12) for _ in range(40)} == {bytes(12)}
    assert chip.cells.sound


def test_an_erase_cut_off_half_way_leaves_a_sector_of_weak_bits() -> None:
    chip = Chip()
    chip.flash().program(0, bytes(64))
    with pytest.raises(PowerCut):
        chip.flash(lambda *_: Tear(0, weak=True)).erase(0)
    assert len({chip.flash().read(0, 64) for _ in range(20)}) > 2
    assert chip.flash().read(64, 448) == b"\xff" * 448
    chip.flash().erase(0)
    assert chip.flash().is_blank(0, 512)


# -- what the device makes of it ------------------------------------------------------------------------------------


def harmed(rig: Rig, harm) -> Rig:
    """The rig over cells that `harm` has touched; they stay when it is switched off and on."""
    cells = new_cells(SMALL.flash)
    harm(cells)
    plain = rig.reset

    def reset() -> None:
        plain()
        rig.boot_loader.slots.flash.cells = cells

    rig.reset = reset  # type: ignore[method-assign]
    rig.reset()
    return rig


def update(rig: Rig) -> str:
    """Tries the whole update; the code of a refusal."""
    try:
        rig.boot()
        rig.download(NEW)
    except Refused as refused:
        return refused.code
    if rig.boot().state is BootState.TRIAL and rig.boot_loader.self_test(lambda: True):
        try:
            rig.boot_loader.confirm()
        except Refused as refused:
            return refused.code
    return ""


AREAS = {
    "primary": (0, SMALL.slot_size),
    "secondary": (SMALL.slot_size, 2 * SMALL.slot_size),
    "scratch": (SMALL.scratch, SMALL.scratch + 512),
    "journal": (SMALL.journal[0], SMALL.journal[1] + 512),
}


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("value", [0, 1])
def test_one_stuck_cell_never_gives_a_wrong_image(area: str, value: int) -> None:
    stuck_cells(area, value, 97 if "ary" in area else 29)


@pytest.mark.slow
@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("value", [0, 1])
def test_one_stuck_cell_anywhere_never_gives_a_wrong_image(area: str, value: int) -> None:
    stuck_cells(area, value, 1)


def stuck_cells(area: str, value: int, every: int) -> None:
    """One bit of every so many addresses of an area."""
    start, end = AREAS[area]
    ends, first = [], with_running(make_build("0.9.0", 0, 3 * 512 - 70))
    first.trial(OLD)
    first.fresh_hour()
    running = first.snapshot()
    for address in range(start, end, every):
        rig = Rig()
        rig.restore(running)
        # The bit sticks where it is: nothing that stands already is harmed by it.
        bit = next((bit for bit in range(8) if running[0][address] >> bit & 1 == value), None)
        if bit is None:
            continue
        harmed(rig, lambda cells, address=address, bit=bit: cells.stick(address, bit, value))
        code = update(rig)
        result = rig.boot()
        ends.append((code, result.header, rig.counters.outcome and rig.counters.outcome.code))
        assert result.state in (BootState.CONFIRMED, BootState.REVERTED), (address, bit)
        build = NEW if result.header == NEW.header else OLD
        assert result.header == build.header
        assert rig.boot_loader.slots.flash.read(SMALL.primary.image, len(build.image)) == build.image
        assert rig.counters.sealed == build.header
        assert code in ("", "device.slot")
    refused = [end for end in ends if end[1] == OLD.header]
    assert all("device.slot" in (end[0], end[2]) for end in refused)
    assert ends
    assert refused or (area, value) in (("journal", 0), ("journal", 1), ("scratch", 1))


def test_a_worn_out_slot_answers_device_slot_and_the_old_image_runs() -> None:
    rig = harmed(with_running(OLD), lambda cells: cells.stick(SMALL.secondary.image + 700, 4, 0))
    assert update(rig) == "device.slot"
    assert rig.boot().header == OLD.header
    rig.fresh_hour()
    assert update(rig) == "device.slot"
    assert rig.boot().state is BootState.CONFIRMED


def test_an_install_that_meets_a_failing_cell_is_undone_whatever_the_power_does() -> None:
    """The old image cannot be kept in the secondary slot: what has moved goes back, cut at every step as well."""
    rig = with_running(OLD)
    rig.download(NEW)
    state = rig.snapshot()
    place = SMALL.secondary.image + 1024 + 8
    offset = place - SMALL.secondary.image
    bit = next(b for b in range(8) if NEW.image[offset] >> b & 1 and not OLD.image[offset] >> b & 1)
    harmed(rig, lambda cells: cells.stick(place, bit, 1))
    rig.restore(state)
    result = rig.boot()
    assert (result.state, result.header) == (BootState.REVERTED, OLD.header)
    assert rig.counters.outcome is not None
    assert rig.counters.outcome.code == "device.slot"
    steps = rig.power.count
    for number, how in enumerate(("before", "half", "after")):
        for cut_at in range(1 + number, steps + 1, 5):
            rig.restore(state, replace(rig.power, cut_at=cut_at, how=how, count=0))
            with pytest.raises(PowerCut):
                rig.boot()
            rig.power = replace(rig.power, cut_at=None)
            rig.boot()
            result = rig.boot()
            assert result.header == OLD.header
            assert rig.image().startswith(OLD.image)


def test_a_trial_or_confirm_mark_that_does_not_hold_is_no_trial_and_no_confirm() -> None:
    for unit in (2, 3):
        rig = with_running(OLD)
        rig.download(NEW)
        state = rig.snapshot()
        harmed(rig, lambda cells, unit=unit: cells.stick(SMALL.primary.trailer + 4 * unit, 0, 1))
        rig.restore(state)
        result = rig.boot()
        if unit == 2:
            assert rig.boot_loader.self_test(lambda: True)
            with pytest.raises(Refused):
                rig.boot_loader.confirm()
            assert rig.counters.security_version == 0
            result = rig.boot()
        assert result.header == OLD.header
        assert rig.image().startswith(OLD.image)


def test_a_disturbed_image_is_found_at_boot_and_falls_back() -> None:
    rig = with_running(OLD)
    rig.trial(NEW)
    cells = new_cells(SMALL.flash)
    # The bit that this chip's primary image sector shows wrong lies inside the image.
    cells.disturb_after = 0
    shown = cells.seen(SMALL.primary.image, bytes(len(NEW.image)))
    assert any(shown)
    harmed(rig, lambda fresh: None)
    rig.boot_loader.slots.flash.cells.disturb_after = 0
    assert rig.boot_loader.boot(lambda header, envelope: None).state in (BootState.FALLBACK, BootState.RECOVERY)
    rig.boot_loader.slots.flash.cells.disturb_after = None
    assert rig.boot().header in (OLD.header, NEW.header)


def test_no_operation_of_an_update_erases_a_sector_of_the_download_twice() -> None:
    rig = with_running(OLD)
    rig.trial(make_build("1.0.1", 2, 3 * 512 - 9))
    rig.fresh_hour()
    rig.boot()
    build = make_build("1.0.2", 3, 3 * 512 - 9)
    seen: list[int] = []

    def fault(operation: Operation, address: int, length: int) -> None:
        if operation is Operation.ERASE:
            seen.append(address)

    loader = rig.boot_loader
    loader.slots.flash.fault = fault
    loader.prepare(build.header.manifest_digest, len(build.image), 1)
    loader.write(0, build.image[:700])
    for at in (640, 900, 1200):  # the cable is pulled three times
        loader.pause()
        assert loader.prepare(build.header.manifest_digest, len(build.image), 1) == at // 64 * 64
        loader.write(at // 64 * 64, build.image[at // 64 * 64 : at + 300 if at < 1200 else None])
    loader.finish(build.header, build.envelope)
    loader.mark_pending()
    assert len(seen) == len(set(seen))
    assert all(one < SMALL.scratch for one in seen)


# -- what could have been cut off is made firm, or done again --------------------------------------------------------


def operations(rig: Rig) -> list[tuple[Operation, int]]:
    """A list that grows with every operation of the device as it is on now."""
    seen: list[tuple[Operation, int]] = []

    def fault(operation: Operation, address: int, length: int) -> None:
        seen.append((operation, address))

    rig.boot_loader.slots.flash.fault = fault
    return seen


def erased(seen: list[tuple[Operation, int]]) -> list[int]:
    return [address for operation, address in seen if operation is Operation.ERASE]


def test_a_commit_that_may_have_been_cut_off_erases_its_sectors_though_they_look_blank() -> None:
    rig = with_running(OLD)
    secondary = SMALL.secondary
    for again in (False, True):
        rig.fresh_hour()
        loader = rig.boot_loader
        at = loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
        loader.write(at, NEW.image[at:])
        seen = operations(rig)
        if again:
            loader.finish(NEW.header, NEW.envelope)
            assert erased(seen) == [secondary.envelope, secondary.header]
        rig.boot()
    assert rig.boot_loader.slots.whole(secondary, NEW.header)


def test_a_commit_in_one_go_erases_nothing() -> None:
    rig = with_running(OLD)
    rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    rig.boot_loader.write(0, NEW.image)
    seen = operations(rig)
    rig.boot_loader.finish(NEW.header, NEW.envelope)
    assert erased(seen) == []


def test_another_release_erases_where_the_one_before_was_cut_off_though_it_looks_blank() -> None:
    layout = replace(SMALL, slot_size=90 * 512, sector_size=1024, envelope_size=1024)
    rig = Rig(model=replace(Rig().model, layout=layout))
    rig.boot()
    big, other = make_build("2.0.0", 2, 40_000), make_build("3.0.0", 3, 40_000)
    rig.boot_loader.prepare(big.header.manifest_digest, 40_000, NOW)
    rig.boot_loader.write(0, big.image[:16_384])
    rig.boot()
    durable = rig.boot_loader.durable_offset()
    assert 0 < durable <= 16_384
    seen = operations(rig)
    rig.boot_loader.prepare(other.header.manifest_digest, 40_000, NOW)
    image = layout.secondary.image
    frontier = durable // 1024 * 1024
    assert {image + at for at in (*range(0, durable, 1024), frontier)} <= set(erased(seen))
    assert image + 39_936 not in erased(seen)
    # Nothing of the one before was finished: no cut can have hit its papers, and they are blank.
    assert not {layout.secondary.header, layout.secondary.trailer} & set(erased(seen))


def test_bytes_since_the_last_durable_offset_are_programmed_again() -> None:
    rig = with_running(OLD)
    rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    rig.boot_loader.write(0, NEW.image[:640])
    rig.boot()
    durable = rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    assert durable < 640
    seen = operations(rig)
    rig.boot_loader.write(durable, NEW.image[durable:])
    pages = [address for operation, address in seen if operation is Operation.PROGRAM]
    start = SMALL.secondary.image
    assert pages == list(range(start + durable, start + len(NEW.image), 64))


def test_a_mark_that_was_cut_off_is_firm_when_it_is_set_again() -> None:
    chip = Chip()
    with pytest.raises(PowerCut):
        Slots(chip.flash(lambda *_: Tear(0, weak=True)), SMALL).mark(SMALL.secondary, Mark.PENDING)
    slots = Slots(chip.flash(), SMALL)
    assert {slots.marked(SMALL.secondary, Mark.PENDING) for _ in range(30)} == {True, False}
    slots.mark(SMALL.secondary, Mark.PENDING)
    assert {slots.marked(SMALL.secondary, Mark.PENDING) for _ in range(30)} == {True}
    again: list[int] = []
    Slots(chip.flash(lambda _, address, __: again.append(address)), SMALL).mark(SMALL.secondary, Mark.PENDING)
    assert again == [SMALL.secondary.trailer]


def test_a_closing_mark_that_was_cut_off_is_firm_before_a_trial_and_before_an_erase() -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    state = rig.snapshot()
    rig.boot()
    entry = Journal(rig.boot_loader.slots.flash, SMALL).latest()
    assert entry is not None
    mark = SMALL.journal[entry.generation % 2] + 256 + 4 * 3 * (SMALL.slot_size // SMALL.sector_size)
    rig.restore(state)
    seen: list[tuple[Operation, int]] = []
    rig.power.fault = lambda operation, address, length: seen.append((operation, address))  # type: ignore[method-assign]
    rig.boot()
    trial = (Operation.PROGRAM, SMALL.primary.trailer + 4 * Mark.TRIAL)
    assert [one for one in seen if one in (trial, (Operation.PROGRAM, mark))] == [(Operation.PROGRAM, mark)] * 2 + [
        trial
    ]
    assert rig.boot_loader.self_test(lambda: True)
    rig.boot_loader.confirm()
    del seen[:]
    rig.fresh_hour()
    rig.boot()
    rig.boot_loader.prepare(bytes(32), 100, NOW)
    assert seen[0] == (Operation.PROGRAM, mark)

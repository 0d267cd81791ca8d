"""What a chip went through outlives the emulator: wear and words that a power cut left half way; and the faults that
`emulate --fault` puts in."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import click
import pytest

from devguard.cli.faults import Faults
from devguard.custody import files
from devguard.device.bootloader import Bootloader, BootState
from devguard.device.counters import check_no_regression
from devguard.device.flash import PowerCut, Tear
from devguard.device.storage import DeviceDirectory
from devguard.errors import DevguardError, Refused
from device_support import NOW, SMALL, accept, make_build, small_model
from test_device_storage import MODEL, provisioned

BUILD = make_build("1.0.0", 1, 1200)
WORN = replace(MODEL, layout=replace(SMALL, erase_cycles=4))


def test_wear_is_counted_across_restarts_and_a_worn_sector_stays_worn(tmp_path: Path) -> None:
    provisioned(tmp_path)
    for count in range(1, 5):
        with DeviceDirectory(tmp_path, WORN) as device:
            device.flash().erase(512)
            assert device.cells.wear[:3] == [0, count, 0]
            assert device.cells.sound
    with DeviceDirectory(tmp_path, WORN) as device, pytest.raises(Refused, match="does not erase"):
        device.flash().erase(512)
    with DeviceDirectory(tmp_path, WORN) as device:
        assert device.cells.wear[1] == 5
        assert not device.flash().is_blank(512, 512)
        assert device.flash().is_blank(1024, 512)


def test_the_models_say_what_a_sector_endures() -> None:
    assert small_model().layout.flash.erase_cycles is None
    assert replace(small_model(), layout=WORN.layout).layout.flash.erase_cycles == 4


def test_a_word_left_half_way_is_still_so_after_a_restart(tmp_path: Path) -> None:
    provisioned(tmp_path)
    with DeviceDirectory(tmp_path, MODEL) as device, pytest.raises(PowerCut):
        device.flash(lambda *_: Tear(0, weak=True)).program(512, bytes(4))
    with DeviceDirectory(tmp_path, MODEL) as device:
        assert len({device.flash().read(512, 4) for _ in range(30)}) > 1
        device.flash().program(512, bytes(4))
    with DeviceDirectory(tmp_path, MODEL) as device:
        assert device.cells.sound
        assert device.flash().read(512, 4) == bytes(4)


@pytest.mark.parametrize(
    ("name", "content"), [("wear.bin", b"short"), ("weak.cbor", b"junk"), ("weak.cbor", b"\x83\x01\x41\xa0\x40")]
)
def test_damaged_cell_files_stop_the_device(tmp_path: Path, name: str, content: bytes) -> None:
    provisioned(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused) as refused:
        DeviceDirectory(tmp_path, MODEL)
    assert refused.value.code == "device.state"


def test_a_directory_without_cell_files_counts_as_new(tmp_path: Path) -> None:
    provisioned(tmp_path)
    (tmp_path / "wear.bin").unlink()
    with DeviceDirectory(tmp_path, MODEL) as device:
        assert not any(device.cells.wear)


class Halt(Exception):
    """The process dies here."""


def test_a_save_of_the_counters_cut_anywhere_leaves_the_old_or_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after every call that writes; a write itself comes half way."""
    provisioned(tmp_path)
    seen = set()
    names = ("fsync", "replace", "open", "fchmod")
    for step in range(1, 40):
        calls = [0]

        def counting(name: str, real, calls: list[int] = calls, step: int = step):
            def call(*args, **kwargs):
                calls[0] += 1
                if calls[0] == step:
                    if name == "_pour":
                        args[0].write(args[1][: len(args[1]) // 2])
                        args[0].flush()
                    raise Halt
                return real(*args, **kwargs)

            return call

        with DeviceDirectory(tmp_path, MODEL) as device:
            before = device.counters.load()
            after = before.with_failed_handshakes(before.failed_handshakes + 1).event(NOW, "step")
            with monkeypatch.context() as patch:
                for name in names:
                    patch.setattr(files.os, name, counting(name, getattr(os, name)))
                patch.setattr(files, "_pour", counting("_pour", files._pour))
                try:
                    device.counters.save(after)
                    ended = True
                except Halt:
                    ended = False
        with DeviceDirectory(tmp_path, MODEL) as device:
            found = device.counters.load()
            assert found in (before, after)
            check_no_regression(before, found)
            seen.add("new" if found == after else "old")
            assert not list(tmp_path.glob(".devguard-*"))
        if ended:
            assert found == after
            break
    else:
        pytest.fail("a save has more steps than this test knows")
    assert seen == {"old", "new"}
    assert step > 3


def test_a_full_disk_leaves_the_old_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provisioned(tmp_path)
    with DeviceDirectory(tmp_path, MODEL) as device:
        before = device.counters.load()

        def full(*_args: object) -> int:
            raise OSError(errno.ENOSPC, "no space left")

        with monkeypatch.context() as patch:
            patch.setattr(files, "_pour", full)
            with pytest.raises(DevguardError, match="no space"):
                device.counters.save(before.event(NOW, "step"))
        assert device.counters.load() == before


# -- --fault -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    ["", "stuck", "stuck=1/8/0", "stuck=1/2/3", "stuck=0xfffffffff/1/0", "power-cut=0", "power-cut=3/softly", "worn=-1",
     "read-disturb=many", "battery=101", "self-test=yes", "power-cut", "worn=9999999999"],
)  # fmt: skip
def test_a_fault_that_is_none_is_a_usage_error(spec: str) -> None:
    with pytest.raises(click.BadParameter):
        Faults.of((spec,))


def test_faults_reach_the_flash(tmp_path: Path) -> None:
    provisioned(tmp_path)
    faults = Faults.of(("stuck=0x400/3/0", "read-disturb=50", "worn=7", "power-cut=3/weak", "battery=40", "self-test"))
    assert (faults.battery, faults.self_test, faults.therapy_active) == (40, True, False)
    with DeviceDirectory(tmp_path, MODEL) as device:
        faults.harm(device.cells)
        assert set(device.cells.wear) == {7}
        assert device.flash().read(0x400, 1) == b"\xf7"
        flash = device.flash(faults.power())
        flash.erase(0)
        flash.program(0, bytes(4))
        with pytest.raises(PowerCut):
            flash.program(64, bytes(12))
    with DeviceDirectory(tmp_path, MODEL) as device:
        assert set(device.cells.wear) == {7, 8}
        assert device.cells.weak
        assert device.cells.disturb_after is None
        with pytest.raises(click.BadParameter, match="beyond the flash"):
            Faults.of(("stuck=0xffffff/0/0",)).harm(device.cells)


@pytest.mark.parametrize("how", ["before", "torn", "weak", "after"])
def test_a_device_that_lost_its_power_by_fault_comes_up_whole(tmp_path: Path, how: str) -> None:
    provisioned(tmp_path)
    with DeviceDirectory(tmp_path, MODEL) as device, pytest.raises(PowerCut):
        loader = Bootloader(device.flash(Faults.of((f"power-cut=31/{how}",)).power()), MODEL, device.counters)
        loader.boot(accept, NOW)
        update(loader)
        Bootloader(loader.slots.flash, MODEL, device.counters).boot(accept, NOW)
    with DeviceDirectory(tmp_path, MODEL) as device:
        loader = Bootloader(device.flash(), MODEL, device.counters)
        if loader.boot(accept, NOW).state is BootState.EMPTY:
            update(loader)
            loader = Bootloader(device.flash(), MODEL, device.counters)
            loader.boot(accept, NOW)
        assert loader.self_test(lambda: True)
        assert loader.confirm().header == BUILD.header


def update(loader: Bootloader) -> None:
    at = loader.prepare(BUILD.header.manifest_digest, 1200, NOW)
    loader.write(at, BUILD.image[at:])
    loader.finish(BUILD.header, BUILD.envelope)
    loader.mark_pending()

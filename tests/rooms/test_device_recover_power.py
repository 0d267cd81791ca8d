"""The power goes at any step of a recovery: the release confirmed last, or what ran meanwhile, comes up whole.

What is particular here: the image that comes is the very one that is there or was, header for header, so the bootloader
has to tell two copies of one release apart by nothing but their marks.
"""

from __future__ import annotations

import pytest

from devguard.device.bootloader import BootState
from devguard.device.flash import PowerCut
from device_support import HOWS, NOW, Build, Power, Rig, make_build, with_running

OLD, NEW = make_build("1.0.0", 1, 700), make_build("1.1.0", 2, 900)


def running_new(**harm: bool) -> Rig:
    """A device that runs the newer release, the older one behind it; `primary`, `secondary`: one bit of it harmed."""
    rig = with_running(OLD)
    rig.trial(NEW)
    rig.fresh_hour()
    rig.boot()
    for name in harm:
        rig.flip(getattr(rig.model.layout, name).image + 99)
    return rig


def recover(rig: Rig, what: Build = NEW) -> None:
    """Download, boot on trial, confirm: as a device does after the verb."""
    rig.download(what, now=NOW)
    result = rig.boot()
    if result.state is BootState.TRIAL and rig.boot_loader.self_test(lambda: True):
        rig.boot_loader.confirm()


def settle(rig: Rig) -> None:
    """Boots until nothing is on trial any more."""
    result = rig.boot()
    if result.state is BootState.TRIAL and rig.boot_loader.self_test(lambda: True):
        rig.boot_loader.confirm()


SCENES = {"no-way-back": ("secondary",), "fell-back": ("primary",), "nothing-runs": ("primary", "secondary")}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("scene", list(SCENES))
def test_a_cut_at_any_step_of_a_recovery_is_followed_by_a_whole_release(scene: str, how: str) -> None:
    rig = running_new(**dict.fromkeys(SCENES[scene], True))
    rig.boot()
    begun = rig.snapshot()
    rig.power = Power()
    rig.reset()
    rig.boot()
    recover(rig)
    steps = rig.power.count
    assert steps > 50
    for at in range(1, steps + 1, 1 if how == "half" else 5):
        rig.restore(begun, Power(at, how))
        try:
            rig.boot()
            recover(rig)
        except PowerCut:
            pass
        rig.restore(rig.snapshot())
        settle(rig)
        rig.fresh_hour()
        result = rig.boot()
        running = rig.boot_loader.result.header
        assert running in (NEW.header, OLD.header, None), (at, result.state)
        assert running is not None or scene == "nothing-runs", at
        assert rig.counters.installed_sequence == 2
        if running != NEW.header:
            recover(rig)
        assert rig.boot().header == NEW.header, at
        assert rig.image()[: len(NEW.image)] == NEW.image

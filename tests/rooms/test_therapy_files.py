"""Therapy settings at rest: edited, another device's, rolled back or gone, none is gone by; cut off, they are whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devguard import wire
from devguard.custody import files
from devguard.device import therapy_files
from devguard.device.models import Model, load_model
from devguard.device.settings import Anchor, Unproven, What, seal, unseal
from devguard.device.therapy import UNPROVEN, Plan, PumpTherapy, Therapy, new_therapy
from devguard.device.therapy_files import NAMES, TherapyFiles
from devguard.errors import Refused
from sim.bench import entropy

PUMP, PROGRAMMER = load_model("insulin-pump"), load_model("pacemaker-programmer")
NOW = 1_790_035_200


def made(folder: Path, model: Model = PUMP, seed: str = "one") -> TherapyFiles:
    """A new device's files, with something under way."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = TherapyFiles(folder, model, entropy(seed))
    kept.create(new_therapy(model))
    therapy = kept.load()
    if isinstance(therapy, PumpTherapy):
        therapy.tick(NOW)
        therapy.start_bolus(3000, NOW)
    else:
        therapy.start_session(NOW)
    kept.save(therapy)
    return kept


def loaded(folder: Path, model: Model = PUMP) -> Therapy:
    return TherapyFiles(folder, model, entropy("later")).load()


def other_plan(therapy: Therapy) -> Plan:
    name = min(therapy.plan.settings)
    return replace(therapy.plan, settings={**therapy.plan.settings, name: 50})


def is_safe(therapy: Therapy, *flags: str, model: Model = PUMP) -> bool:
    """Whether the device gives its safe therapy, with an alarm, and says why."""
    safe = Plan(model.therapy.safe_settings, model.therapy.safe_basal)
    wanted = (UNPROVEN, *flags)
    return (therapy.plan, therapy.damage, therapy.idle) == (safe, wanted, True) and UNPROVEN in therapy.alarms


@pytest.mark.parametrize("model", [PUMP, PROGRAMMER], ids=lambda model: model.name)
def test_what_was_stored_comes_back(tmp_path: Path, model: Model) -> None:
    kept = made(tmp_path, model)
    before = kept.load()
    after = loaded(tmp_path, model)
    assert after.state == before.state
    assert (after.damage, after.alarms, after.idle) == ((), (), False)
    for name in NAMES:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("model", [PUMP, PROGRAMMER], ids=lambda model: model.name)
def test_settings_edited_at_any_byte_are_not_gone_by(tmp_path: Path, model: Model) -> None:
    made(tmp_path, model)
    path = tmp_path / "settings.cbor"
    good = path.read_bytes()
    for at in range(0, len(good), 1 if model is PUMP else 5):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        assert is_safe(loaded(tmp_path, model), "settings-mac", model=model), at
    for cut in (0, 1, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        assert is_safe(loaded(tmp_path, model), "settings-mac", model=model)
    path.write_bytes(good)
    assert loaded(tmp_path, model).damage == ()


def test_a_dose_changed_with_every_checksum_mended_is_not_gone_by(tmp_path: Path) -> None:
    """The attacker knows the format and has no key; SHA-256 and HMAC under another key are what they can compute."""
    made(tmp_path)
    path = tmp_path / "settings.cbor"
    known, version, content, _ = wire.decode(path.read_bytes())
    settings, basal = wire.decode(content)
    evil = wire.encode([{**settings, "maximum_bolus_milliunits": 90_000}, [[0, 30_000]]])
    assert basal != [[0, 30_000]]
    path.write_bytes(seal(Anchor(bytes(32), version), What.SETTINGS, evil, version))
    assert known == 1
    assert is_safe(loaded(tmp_path), "settings-mac")


def test_another_devices_settings_are_not_gone_by(tmp_path: Path) -> None:
    made(tmp_path / "mine")
    theirs = made(tmp_path / "theirs", seed="two")
    theirs.enter(theirs.load(), other_plan(theirs.load()))
    (tmp_path / "mine" / "settings.cbor").write_bytes((tmp_path / "theirs" / "settings.cbor").read_bytes())
    assert is_safe(loaded(tmp_path / "mine"), "settings-mac")
    assert loaded(tmp_path / "theirs").damage == ()


def test_last_months_settings_are_not_gone_by(tmp_path: Path) -> None:
    kept = made(tmp_path)
    old = (tmp_path / "settings.cbor").read_bytes()
    kept.enter(kept.load(), other_plan(kept.load()))
    new = (tmp_path / "settings.cbor").read_bytes()
    assert loaded(tmp_path).plan == other_plan(new_therapy(PUMP))
    (tmp_path / "settings.cbor").write_bytes(old)
    assert is_safe(loaded(tmp_path), "settings-rollback")
    (tmp_path / "settings.cbor").write_bytes(new)
    assert loaded(tmp_path).damage == ()


@pytest.mark.parametrize(
    ("gone", "flags"),
    [
        (("settings.cbor",), ("settings-missing",)),
        (("therapy.cbor",), ("course-missing",)),
        (("protected.cbor",), ("course-mac", "settings-mac")),
        (NAMES, ("course-missing", "settings-missing")),
    ],
    ids=["settings", "course", "key", "all"],
)
def test_what_is_gone_is_not_made_up(tmp_path: Path, gone: tuple[str, ...], flags: tuple[str, ...]) -> None:
    made(tmp_path)
    for name in gone:
        (tmp_path / name).unlink()
    kept = TherapyFiles(tmp_path, PUMP, entropy("later"))
    therapy = kept.load()
    assert is_safe(therapy, *flags)
    kept.save(therapy)  # a device goes on, and what it keeps from now on proves nothing of before
    again = loaded(tmp_path)
    if "settings.cbor" in gone or "protected.cbor" in gone:
        assert again.damage[0] == UNPROVEN
        assert again.plan == therapy.plan
    assert UNPROVEN in again.alarms


def test_a_bolus_that_was_put_in_is_not_given(tmp_path: Path) -> None:
    kept = made(tmp_path)
    idle = kept.load()
    assert isinstance(idle, PumpTherapy)
    idle.stop_bolus(NOW)
    kept.save(idle)
    path = tmp_path / "therapy.cbor"
    forged = new_therapy(PUMP)
    assert isinstance(forged, PumpTherapy)
    forged.start_bolus(10_000, NOW)
    path.write_bytes(seal(Anchor(bytes(32)), What.COURSE, forged.encode()))
    assert is_safe(loaded(tmp_path), "course-mac")


def test_a_bolus_of_an_old_state_put_back_is_not_given_either(tmp_path: Path) -> None:
    """A course has no version: the MAC is right. A device that was off that long ends what it had begun."""
    made(tmp_path)
    therapy = loaded(tmp_path)
    assert isinstance(therapy, PumpTherapy)
    assert not therapy.idle
    given = therapy.state.bolus_delivered
    therapy.tick(NOW + 400)
    assert therapy.idle
    assert therapy.state.bolus_delivered == given


def test_the_alarm_stays_until_somebody_sees_to_it_and_new_settings_end_the_damage(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "settings.cbor").unlink()
    kept = TherapyFiles(tmp_path, PUMP, entropy("later"))
    therapy = kept.load()
    fresh = kept.enter(therapy, other_plan(new_therapy(PUMP)))
    assert (fresh.damage, fresh.plan) == ((), other_plan(new_therapy(PUMP)))
    assert fresh.alarms == (UNPROVEN,)
    fresh.close_alarm(UNPROVEN, NOW + 1)
    kept.save(fresh)
    after = loaded(tmp_path)
    assert (after.damage, after.alarms, after.plan) == ((), (), fresh.plan)
    assert after.history_digest == fresh.history_digest


class Cut(Exception):
    """The power went."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("cut_at", range(4))
def test_settings_that_are_entered_while_the_power_goes_are_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int, after: bool
) -> None:
    kept = made(tmp_path)
    old, count = kept.load(), [0]
    new = other_plan(old)

    def cutting(*args: Any) -> None:
        count[0] += 1
        if count[0] > cut_at:
            if after:
                files.write_atomic(*args)
            raise Cut
        files.write_atomic(*args)

    monkeypatch.setattr(therapy_files, "write_atomic", cutting)
    with contextlib.suppress(Cut):
        kept.enter(old, new)
    monkeypatch.undo()
    later = TherapyFiles(tmp_path, PUMP)
    therapy = later.load()
    assert therapy.damage == ()
    assert therapy.plan in (old.plan, new)
    stored = (tmp_path / "settings.cbor").read_bytes()
    later.save(therapy)
    if therapy.plan == new:  # from here on the old ones are a rollback, wherever the power went
        (tmp_path / "settings.cbor").write_bytes(seal(_anchor(tmp_path), What.SETTINGS, old.plan.encode(), 1))
        assert is_safe(loaded(tmp_path), "settings-rollback")
        (tmp_path / "settings.cbor").write_bytes(stored)


def _anchor(folder: Path) -> Anchor:
    anchor = TherapyFiles(folder, PUMP)._read_anchor()
    assert anchor is not None
    return anchor


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: wire.encode([2, *wire.decode(data)[1:]]),
        lambda data: wire.encode([*wire.decode(data), 0]),
        lambda data: wire.encode([1, -1, *wire.decode(data)[2:]]),
        lambda data: wire.encode([1, 1, "text", bytes(32)]),
        lambda data: wire.encode({1: 2}),
        lambda data: b"\x84" * 100_000,
        lambda data: bytes(1 << 20),
    ],
    ids=["empty", "short", "format", "long", "negative", "text", "map", "deep", "zeros"],
)
def test_garbage_for_settings_is_a_flag_and_no_crash(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    made(tmp_path)
    for name in ("settings.cbor", "therapy.cbor"):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(harm(good))
        assert loaded(tmp_path).damage[0] == UNPROVEN
        (tmp_path / name).write_bytes(good)


def test_one_kind_of_stored_bytes_does_not_pass_for_the_other() -> None:
    anchor = Anchor(b"k" * 32, 3)
    with pytest.raises(Unproven, match="settings-mac"):
        unseal(anchor, What.SETTINGS, seal(anchor, What.COURSE, b"x", 3))
    assert unseal(anchor, What.SETTINGS, seal(anchor, What.SETTINGS, b"x", 4)) == (b"x", 4)
    with pytest.raises(Refused):
        Anchor.decode(wire.encode([1, b"short", 1]))

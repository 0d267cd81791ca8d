"""Boot decisions: trial, confirm, revert, fallback, sealed verdict, rollback. The device runs what was judged, or
the confirmed image before it, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devguard.device.bootloader import BootState
from devguard.device.flash import PowerCut
from devguard.device.header import MAGIC, encode_block
from devguard.device.layout import Mark
from devguard.errors import Refused
from device_support import NOW, SMALL, Build, Power, Rig, accept, make_build, small_model, with_running

OLD = make_build("1.0.0", 1, 1400)
NEW = make_build("1.1.0", 2, 1530, security_version=3)


def refuse(code: str):
    def verify(header, envelope):
        raise Refused(code, "not today")

    return verify


def test_a_blank_device_boots_empty_and_takes_a_first_image() -> None:
    rig = Rig()
    assert rig.boot().state is BootState.EMPTY
    result = rig.trial(OLD)
    assert (result.state, result.header) == (BootState.CONFIRMED, OLD.header)
    again = rig.boot()
    assert (again.state, again.header, again.flags) == (BootState.CONFIRMED, OLD.header, ())


def test_an_update_runs_on_trial_and_the_counter_burns_only_at_confirm() -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    assert rig.boot().state is BootState.TRIAL
    assert rig.image().startswith(NEW.image)
    assert rig.image("secondary").startswith(OLD.image)
    assert rig.counters.security_version == 0
    assert rig.counters.installed_sequence == 1
    assert rig.boot_loader.self_test(lambda: True)
    assert rig.boot_loader.confirm().state is BootState.CONFIRMED
    assert rig.counters.security_version == 3
    assert (rig.counters.installed_sequence, rig.counters.installed_digest) == (2, NEW.header.digest)
    assert rig.counters.previous == OLD.header
    assert rig.counters.outcome is not None
    assert rig.counters.outcome.code is None


def test_confirm_before_the_self_test_refuses_and_burns_nothing() -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    rig.boot()
    with pytest.raises(Refused) as refused:
        rig.boot_loader.confirm()
    assert refused.value.code == "device.unconfirmed"
    assert not rig.boot_loader.self_test(lambda: False)
    with pytest.raises(Refused, match="self-test"):
        rig.boot_loader.confirm()
    assert rig.counters.security_version == 0
    assert not rig.boot_loader.slots.marked(SMALL.primary, Mark.CONFIRMED)
    with pytest.raises(Refused) as busy:
        rig.boot_loader.prepare(bytes(32), 100, NOW)
    assert busy.value.code == "device.unconfirmed"


def test_confirm_outside_a_trial_is_out_of_order() -> None:
    rig = with_running(OLD)
    for call in (rig.boot_loader.confirm, lambda: rig.boot_loader.self_test(lambda: True)):
        with pytest.raises(Refused) as refused:
            call()
        assert refused.value.code == "session.order"
    rig.reset()
    with pytest.raises(Refused, match="not booted"):
        rig.boot_loader.confirm()


def test_an_unconfirmed_trial_reverts_to_the_old_image() -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    rig.boot()
    result = rig.boot()
    assert (result.state, result.header) == (BootState.REVERTED, OLD.header)
    assert rig.image().startswith(OLD.image)
    assert rig.counters.outcome is not None
    assert rig.counters.outcome.code == "device.self-test"
    assert rig.counters.security_version == 0
    assert rig.boot().state is BootState.CONFIRMED
    rig.fresh_hour()
    assert rig.trial(NEW).state is BootState.CONFIRMED


def test_the_first_image_of_all_reverts_to_empty() -> None:
    rig = Rig()
    rig.boot()
    rig.download(OLD)
    assert rig.boot().state is BootState.TRIAL
    assert rig.boot().state is BootState.EMPTY
    assert rig.boot().header is None


def test_as_many_trials_as_the_model_allows() -> None:
    rig = with_running(OLD, model=small_model(trial_boots=3))
    rig.download(NEW)
    assert [rig.boot().state for _ in range(4)] == [BootState.TRIAL] * 3 + [BootState.REVERTED]


@pytest.mark.parametrize("code", ["signature.invalid", "release.expired", "release.revoked", "key.revoked"])
def test_what_the_judge_refuses_is_not_installed(code: str) -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    result = rig.boot(lambda header, envelope: refuse(code)(header, envelope) if header == NEW.header else None)
    assert (result.state, result.header) == (BootState.CONFIRMED, OLD.header)
    assert rig.counters.outcome is not None
    assert rig.counters.outcome.code == code
    assert rig.boot().header == OLD.header


def test_expiry_and_revocation_flag_a_sealed_image_but_never_stop_it() -> None:
    rig = with_running(OLD)
    for code in ("release.expired", "release.revoked", "trust.expired", "key.revoked", "key.unknown"):
        result = rig.boot(refuse(code))
        assert (result.state, result.header, result.flags) == (BootState.CONFIRMED, OLD.header, (code,))


def test_a_substituted_secondary_is_refused_before_the_swap() -> None:
    evil = make_build("6.6.6", 99, 1530, security_version=9)
    rig = with_running(OLD)
    rig.download(NEW)
    secondary = SMALL.secondary
    block = encode_block(MAGIC, evil.header.to_list(), SMALL.write_size)
    rig.backend.data[secondary.header : secondary.header + len(block)] = block
    rig.backend.data[secondary.image : secondary.image + len(evil.image)] = evil.image
    rig.backend.data[secondary.envelope : secondary.envelope + len(evil.envelope)] = evil.envelope
    result = rig.boot()
    assert (result.state, result.header) == (BootState.CONFIRMED, OLD.header)
    assert not any(rig.boot_loader.slots.flash.wear)
    assert rig.image().startswith(OLD.image)
    assert rig.counters.outcome is not None
    assert rig.counters.outcome.code == "image.digest"


@pytest.mark.parametrize("area", ["header", "image", "envelope"])
def test_a_pending_slot_that_was_altered_is_refused_before_the_swap(area: str) -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    rig.flip(getattr(SMALL.secondary, area) + 21)
    assert rig.boot().header == OLD.header
    assert not any(rig.boot_loader.slots.flash.wear)
    assert rig.boot_loader.slots.marked(SMALL.secondary, Mark.BAD)


@pytest.mark.parametrize(("how", "running", "burnt"), [("before", OLD, 0), ("after", NEW, 3)])
def test_the_mark_comes_before_the_counter_at_confirm(how: str, running: Build, burnt: int) -> None:
    """A mark that stands is a confirm that was begun, and the next boot ends it; without it the trial has failed."""
    rig = with_running(OLD)
    rig.download(NEW)
    rig.boot()
    assert rig.boot_loader.self_test(lambda: True)
    rig.power.cut_at, rig.power.count, rig.power.how = 1, 0, how
    with pytest.raises(PowerCut):
        rig.boot_loader.confirm()
    assert rig.counters.security_version == 0
    assert rig.boot_loader.slots.marked(SMALL.primary, Mark.CONFIRMED) == (how == "after")
    rig.power = Power()
    assert rig.boot().header == running.header
    assert rig.counters.security_version == burnt


def test_an_image_that_was_marked_by_someone_else_is_refused() -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    rig.counters = replace(rig.counters, pending=None)
    assert rig.boot().header == OLD.header
    assert rig.boot_loader.slots.marked(SMALL.secondary, Mark.BAD)


@pytest.mark.parametrize("area", ["header", "image", "envelope"])
def test_a_damaged_running_slot_falls_back_to_the_confirmed_one(area: str) -> None:
    middle = make_build("1.0.5", 2, 1500)
    rig = with_running(OLD)
    rig.trial(middle)
    rig.flip(getattr(SMALL.primary, area) + 33)
    result = rig.boot()
    assert (result.state, result.header) == (BootState.FALLBACK, OLD.header)
    assert "version.older" in result.flags
    assert [event.name for event in result.events] == ["fallback"]
    assert rig.counters.installed_sequence == 2
    assert rig.boot().header == OLD.header


def test_no_fallback_below_the_security_counter() -> None:
    rig = with_running(OLD)
    rig.trial(NEW)
    rig.flip(SMALL.primary.image)
    result = rig.boot()
    assert (result.state, result.header) == (BootState.RECOVERY, None)
    rig.fresh_hour()
    assert rig.trial(NEW).state is BootState.CONFIRMED


@pytest.mark.parametrize(("area", "flag"), [("header", "slot.header"), ("envelope", "slot.envelope")])
def test_a_proven_image_runs_with_damaged_papers_when_nothing_better_is_left(area: str, flag: str) -> None:
    rig = with_running(OLD)
    rig.flip(getattr(SMALL.primary, area) + 20)
    result = rig.boot()
    assert (result.state, result.header) == (BootState.CONFIRMED, OLD.header)
    assert flag in result.flags


def test_every_single_bit_flip_in_the_running_image_is_seen() -> None:
    rig = with_running(OLD)
    state = rig.snapshot()
    for offset in range(0, len(OLD.image), 7):
        rig.restore(state)
        rig.flip(SMALL.primary.image + offset, offset % 8)
        assert rig.boot().state is BootState.RECOVERY


@pytest.mark.parametrize("change", [{"digest": bytes(32)}, {"security_version": 1}, {"manifest_digest": bytes(32)}])
def test_a_slot_that_is_not_what_was_sealed_does_not_pass_for_it(change: dict[str, object]) -> None:
    rig = with_running(OLD)
    assert rig.counters.sealed is not None
    rig.counters = replace(rig.counters, sealed=replace(rig.counters.sealed, **change))
    result = rig.boot()
    if "digest" in change:
        assert result.state is BootState.RECOVERY
    else:
        assert "slot.header" in result.flags


def test_a_sealed_image_below_the_counter_does_not_boot() -> None:
    rig = with_running(OLD)
    rig.counters = replace(rig.counters, security_version=1)
    assert rig.boot().state is BootState.RECOVERY


def test_rollback_is_checked_at_finish_and_at_install() -> None:
    rig = with_running(NEW)
    with pytest.raises(Refused) as refused:
        rig.download(make_build("0.9.0", 9, 900, security_version=2))
    assert refused.value.code == "version.rollback"
    older = make_build("1.0.9", 1, 900, security_version=3)
    rig.download(older)
    assert rig.boot().header == NEW.header
    assert rig.counters.outcome is not None
    assert rig.counters.outcome.code == "version.rollback"


def test_a_trial_image_damaged_before_its_first_run_goes_back() -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    rig.boot()
    rig.flip(SMALL.primary.image + 5)
    assert not rig.boot_loader.self_test(lambda: True)
    assert rig.boot().header == OLD.header


@pytest.mark.parametrize("algorithm", [-16, -43, -44])
def test_every_digest_algorithm_installs(algorithm: int) -> None:
    rig = with_running(OLD)
    build = make_build("2.0.0", 2, 700, algorithm=algorithm)
    assert rig.trial(build).header == build.header
    assert rig.boot().header == build.header


def test_events_are_recorded_in_the_chain() -> None:
    rig = with_running(OLD)
    before = rig.counters.audit.head
    rig.download(NEW)
    result = rig.boot()
    assert [event.name for event in result.events] == ["trial-started"]
    assert rig.counters.audit.head != before
    rig.boot(accept)
    assert rig.counters.audit.events[-1].code == "device.self-test"

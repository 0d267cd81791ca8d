"""The interlock: while therapy runs, an alarm is open, the battery is low or charging, nothing is begun or installed.

Asked at the offer, at the commit, at the reboot and by the boot that installs; and what an update may never change is
held against what it was before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from builders import NOW
from devguard.device.therapy import PumpTherapy
from devguard.session.report import read_report, sign_report
from devguard.session.update import fetch_report
from devguard.session.verbs import Accept, Commit, Done, Durable, Offer, Reboot, ReportReply, ReportRequest, Verb
from sim.bench import PROGRAMMER, PUMP, Device, Pipe, bench_for, build, grant, push, small
from sim.hostile import approve, busy, refusal, send, with_old
from sim.state import snapshot


def _low(device: Device) -> None:
    device.battery = device.model.minimum_battery_percent - 1


def _charging(device: Device) -> None:
    device.charging = True


def _alarm(device: Device) -> None:
    device.therapy.open_alarm("occlusion", NOW)


REASONS: dict[str, Callable[[Device], None]] = {
    "device.therapy-active": busy,
    "device.alarm": _alarm,
    "device.battery": _low,
    "device.charging": _charging,
}
MODELS = (PUMP, PROGRAMMER)


def begun(model: str, upto: str) -> tuple[Device, Any, Any, Pipe]:
    """A push that has come so far: to its offer, its commit or its reboot."""
    device, old = with_old(model=small(model))
    new, one, pipe = build(device), grant(device), Pipe(device)
    approve(pipe, pipe.connect(one), device, new, one)
    if upto != "offer":
        assert isinstance(send(pipe, new, commit=False), Durable)
    if upto not in ("offer", "commit"):
        assert pipe.ask(Commit(new.manifest_digest)) == Done(int(Verb.COMMIT))
    return device, old, new, pipe


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("moment", ["offer", "commit", "reboot"])
@pytest.mark.parametrize("code", list(REASONS))
def test_a_conversation_is_refused_with_the_code_of_what_stands_against_it(code: str, moment: str, model: str) -> None:
    device, old, new, pipe = begun(model, moment)
    REASONS[code](device)
    before = snapshot(device)
    asked = {"offer": Offer(new.offer), "commit": Commit(new.manifest_digest), "reboot": Reboot()}[moment]
    assert refusal(pipe.ask(asked)) == code
    assert snapshot(device).all_but_log == before.all_but_log
    assert [event.code for event in device.counters.audit.events][-1] == code
    assert device.node.state(bytes(16)).manifest_digest == old.manifest_digest


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("code", list(REASONS))
def test_a_boot_that_nobody_ordered_installs_nothing_meanwhile(code: str, model: str) -> None:
    device, old, new, pipe = begun(model, "boot")
    pipe.lose()
    REASONS[code](device)
    device.power_cycle()
    state = device.node.state(bytes(16))
    assert state.manifest_digest == old.manifest_digest
    assert "update.waiting" in state.flags
    waits = [event for event in device.counters.audit.events if event.name == "update-waits"]
    assert [event.code for event in waits] == [code]
    _undo(device)
    assert device.runs(new)


def _undo(device: Device) -> None:
    device.battery, device.charging = 90, False
    for name in device.therapy.alarms:
        device.therapy.close_alarm(name, NOW + 1)
    if isinstance(device.therapy, PumpTherapy):
        device.therapy.stop_bolus(NOW + 1)
    else:
        device.therapy.end_session(NOW + 1)


def test_settings_and_history_of_before_and_after_are_in_the_signed_report() -> None:
    device, _ = with_old()
    history, settings = device.therapy.history_digest, device.therapy.settings_digest()
    one, new = grant(device), build(device)
    push(device, new, one)
    device.therapy.start_bolus(100, NOW)  # the wearer, after the update
    device.therapy.stop_bolus(NOW + 1)
    report, signed = Pipe(device).run(fetch_report(bench_for(device, one)))
    assert (report.settings_before, report.settings_digest) == (settings, settings)
    assert report.history_before == history
    assert report.history_digest == device.therapy.history_digest != history
    assert history in signed
    assert report.to_json()["history_before"] == history.hex()


@pytest.mark.parametrize("model", MODELS)
def test_a_report_says_the_history_of_before_to_benches_that_know_the_place(model: str) -> None:
    device, _ = with_old(model=small(model))
    state = device.node.state(bytes(16))
    key = device.identity.signer.key
    assert state.history_before is not None
    for version, before in ((1, None), (2, None), (3, state.history_before)):
        signed = device.node.report(bytes(16), version)
        report = read_report(signed, key=key, challenge=bytes(16), serial=device.serial)
        assert (report.history_before, report.components) == (before, state.components)
    assert sign_report(state, device.identity.signer)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert isinstance(pipe.ask(ReportRequest(bytes(16))), ReportReply)


@pytest.mark.parametrize("model", MODELS)
def test_an_image_that_changes_settings_in_its_trial_is_reverted(model: str) -> None:
    device, old, new, pipe = begun(model, "boot")
    kept = device.therapy.plan
    name = min(kept.settings)

    def first_boot_rewrites() -> bool:
        changed = {**device.therapy.plan.settings, name: 1}
        device.therapy.state = device.therapy.with_plan(type(kept)(changed, kept.basal)).state
        return True

    device.self_test = first_boot_rewrites
    assert pipe.ask(Reboot()) == Done(int(Verb.REBOOT))
    state = device.node.state(bytes(16))
    assert (state.manifest_digest, state.boot_state) == (old.manifest_digest, "reverted")
    names = [event.name for event in device.counters.audit.events]
    assert "settings-changed" in names
    assert device.counters.installed_sequence == 1
    assert state.settings_before != state.settings_digest  # and the bench tells the clinician
    assert new


def test_damaged_settings_are_flags_of_the_report_and_an_open_alarm() -> None:
    device, _ = with_old()
    device.therapy.note_damage(("settings-damaged", "settings-mac"))
    device.therapy.open_alarm("settings-damaged", NOW)
    assert device.node.state(bytes(16)).flags == ("settings-damaged", "settings-mac")
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert refusal(pipe.ask(Offer(build(device).offer))) == "device.alarm"
    device.therapy.close_alarm("settings-damaged", NOW)
    device.therapy.note_damage(())
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)

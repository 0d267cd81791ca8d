"""Therapy: doses by the clock, idle or not, settings that stay, a stored form that is strict; and the model files."""

from __future__ import annotations

import pytest

from devguard import wire
from devguard.device.models import load_model, model_names, parse_model
from devguard.device.therapy import PacingTherapy, PumpTherapy, TherapyView, decode_therapy, new_therapy
from devguard.errors import Malformed, Refused
from devguard.manifest.model import Clock

PUMP, PROGRAMMER = load_model("insulin-pump"), load_model("pacemaker-programmer")
MIDNIGHT = 1_790_035_200


def pump() -> PumpTherapy:
    therapy = new_therapy(PUMP)
    assert isinstance(therapy, PumpTherapy)
    return therapy


def programmer() -> PacingTherapy:
    therapy = new_therapy(PROGRAMMER)
    assert isinstance(therapy, PacingTherapy)
    return therapy


def test_both_models_are_known() -> None:
    assert model_names() == ("insulin-pump", "pacemaker-programmer")
    assert (PUMP.facts.clock, PUMP.facts.technicians, PUMP.default_revision) == (Clock.NONE, 1, "revA")
    assert (PROGRAMMER.facts.clock, PROGRAMMER.facts.technicians) == (Clock.RTC, 2)
    assert PUMP.facts.image_capacity == 512 * 1024 - 4096 - 16384 - 4096
    assert PROGRAMMER.layout.slot_size == 8 << 20
    assert PUMP.link.receive_window == 16384
    assert PUMP.facts.vendor == PROGRAMMER.facts.vendor == "devices.devguard.example"


@pytest.mark.parametrize("name", ["", "insulin", "../insulin-pump", "insulin-pump.toml", "INSULIN-PUMP"])
def test_an_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        load_model(name)
    assert refused.value.code == "image.class"
    assert "insulin-pump" in refused.value.hint


@pytest.mark.parametrize("text", ["", "vendor = 1", "[flash]\nbase = 0", "not toml ["])
def test_a_broken_model_file_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_model("x", text)


def test_basal_is_delivered_by_the_profile_without_losing_a_fraction() -> None:
    therapy = pump()
    for second in range(0, 6 * 3600 + 1, 7):
        therapy.tick(MIDNIGHT + second)
    assert therapy.state.basal_delivered in (4798, 4799, 4800)
    assert therapy.idle
    assert therapy.basal_rate(MIDNIGHT + 6 * 3600) == 1000
    assert therapy.basal_rate(MIDNIGHT + 86_399) == 700


def test_nothing_is_delivered_for_time_that_was_off_or_went_back() -> None:
    therapy = pump()
    therapy.tick(MIDNIGHT)
    therapy.tick(MIDNIGHT + 100_000)
    therapy.tick(MIDNIGHT)
    assert therapy.state.basal_delivered == 0


def test_a_bolus_makes_the_pump_busy_until_it_is_given() -> None:
    therapy = pump()
    before, digest = therapy.settings_digest(), therapy.history_digest
    therapy.start_bolus(3000, MIDNIGHT)
    assert not therapy.idle
    with pytest.raises(Refused) as refused:
        therapy.start_bolus(1000, MIDNIGHT + 1)
    assert refused.value.code == "device.therapy-active"
    therapy.tick(MIDNIGHT + 60)
    assert therapy.state.bolus is not None
    assert therapy.state.bolus.delivered == 1500
    therapy.tick(MIDNIGHT + 120)
    assert therapy.idle
    assert therapy.state.bolus_delivered == 3000
    assert therapy.settings_digest() == before
    assert therapy.history_digest != digest


@pytest.mark.parametrize("amount", [0, -1, 10_001, 2**63])
def test_a_bolus_outside_the_limits_is_refused(amount: int) -> None:
    therapy = pump()
    with pytest.raises(Refused):
        therapy.start_bolus(amount, MIDNIGHT)
    assert therapy.idle


def test_a_stopped_bolus_counts_what_was_given() -> None:
    therapy = pump()
    therapy.start_bolus(3000, MIDNIGHT)
    therapy.stop_bolus(MIDNIGHT + 30)
    assert (therapy.idle, therapy.state.bolus_delivered) == (True, 750)


def test_a_pacing_session_makes_the_programmer_busy_until_closed_or_timed_out() -> None:
    therapy = programmer()
    before = therapy.settings_digest()
    therapy.start_session(MIDNIGHT)
    assert not therapy.idle
    therapy.start_session(MIDNIGHT + 3000)
    therapy.tick(MIDNIGHT + 4000)
    assert not therapy.idle
    therapy.tick(MIDNIGHT + 6600)
    assert therapy.idle
    therapy.start_session(MIDNIGHT)
    therapy.end_session(MIDNIGHT + 1)
    assert therapy.idle
    assert therapy.settings_digest() == before


def test_stored_form_round_trips_and_every_damage_is_refused() -> None:
    busy_pump, busy_programmer = pump(), programmer()
    busy_pump.start_bolus(500, MIDNIGHT)
    busy_programmer.start_session(MIDNIGHT)
    for model, therapy in (
        (PUMP, pump()),
        (PUMP, busy_pump),
        (PROGRAMMER, programmer()),
        (PROGRAMMER, busy_programmer),
    ):
        data = therapy.encode()
        assert decode_therapy(data, model).state == therapy.state
        for length in range(len(data)):
            with pytest.raises(Refused) as refused:
                decode_therapy(data[:length], model)
            assert refused.value.code == "device.state"
        value = wire.decode(data)
        for label in value:
            for wrong in ("text", -1, [[]], {1: 2}, b"\x00"):
                with pytest.raises(Refused):
                    decode_therapy(wire.encode({**value, label: wrong}), model)


def test_one_models_therapy_is_not_anothers() -> None:
    with pytest.raises(Refused):
        decode_therapy(pump().encode(), PROGRAMMER)
    with pytest.raises(Refused):
        decode_therapy(programmer().encode(), PUMP)


@pytest.mark.parametrize(
    "profile", [[], [[60, 800]], [[0, 1], [0, 2]], [[0, 1], [90, 2], [30, 3]], [[0, 1], [1440, 2]]]
)
def test_a_profile_gives_every_minute_one_rate(profile: list[list[int]]) -> None:
    value = wire.decode(pump().encode())
    with pytest.raises(Refused):
        decode_therapy(wire.encode({**value, 3: profile}), PUMP)


def test_the_protocol_has_no_way_to_change_a_therapy() -> None:
    allowed = {"idle", "alarms", "damage", "history_digest", "settings_digest"}
    assert {name for name in vars(TherapyView) if not name.startswith("_")} == allowed

"""Until when models are supported: the light reading agrees with the whole one, and hostile names read nothing."""

from __future__ import annotations

import pytest

from devguard.device.models import all_names, load_model, parse_model
from devguard.device.supported import model_support
from devguard.errors import Malformed


def test_both_readings_agree() -> None:
    found = {name: model_support(name) for name in all_names()}
    assert found == {name: load_model(name).end_of_support for name in all_names()}
    assert found["insulin-pump"] == 2_114_294_400  # 2036-12-31T00:00:00Z


@pytest.mark.parametrize("name", ["", "unknown", "../models/insulin-pump", "a/../insulin-pump", "insulin-pump\0", "."])
def test_a_name_that_is_no_model_has_no_date(name: str) -> None:
    assert model_support(name) is None


@pytest.mark.parametrize("value", ['"2036-12-31"', "2036", "2036-12-31T00:00:00Z", "true"])
def test_what_is_no_date_is_refused(value: str) -> None:
    from importlib import resources

    text = resources.files("devguard.device.models").joinpath("insulin-pump.toml").read_text()
    with pytest.raises(Malformed):
        parse_model("insulin-pump", text.replace("end_of_support = 2036-12-31", f"end_of_support = {value}"))

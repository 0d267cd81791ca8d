"""Until when a model is supported, read from its data file alone: `devguard verify` shows it and loads no model."""

from __future__ import annotations

import datetime
import tomllib
from importlib import resources
from typing import Any

from devguard.manifest.fields import NAME


def model_support(name: str) -> int | None:
    """Epoch seconds at which support of a model ends; None for one without a date, or that is not known here."""
    if not NAME.fullmatch(name):
        return None
    file = resources.files("devguard.device").joinpath("models", f"{name}.toml")
    return (
        first_second(tomllib.loads(file.read_text(encoding="utf-8")).get("end_of_support")) if file.is_file() else None
    )


def first_second(value: Any) -> int | None:
    """A date of TOML as epoch seconds of its first second, UTC; None for None, `ValueError` for anything else."""
    if value is None:
        return None
    if type(value) is not datetime.date:
        raise ValueError("end_of_support is a date such as 2035-12-31")
    return int(datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC).timestamp())

"""The model of the device, explored whole: every invariant holds, and every guard is there for one of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "explore.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("explore", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["explore"] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


explore = loaded()
ALONE = sorted(one.name for one in explore.ALONE)
TWICE = sorted(f"{one.name},{second.name}" for one, second in explore.TWICE.items())


def without(names: str) -> frozenset[object]:
    return frozenset(explore.Guard[name] for name in names.split(","))


def test_everything_that_can_be_reached_holds() -> None:
    found = explore.explore()
    assert found.broken is None, found.way
    assert found.states > 5000


@pytest.mark.parametrize("name", ALONE)
def test_each_guard_is_needed(name: str) -> None:
    found = explore.explore(without(name))
    assert found.broken is not None
    assert found.way


@pytest.mark.parametrize("names", TWICE)
def test_what_is_decided_twice_stands_one_failure_and_not_two(names: str) -> None:
    assert explore.explore(without(names.split(",")[0])).broken is None
    assert explore.explore(without(names)).broken is not None


def test_no_guard_is_left_out_of_this() -> None:
    listed = {*ALONE, *(name for names in TWICE for name in names.split(","))}
    assert listed == {one.name for one in explore.Guard}

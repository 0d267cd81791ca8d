"""The link's part of `make bench`: every row comes, whatever the hour of the machine's clock, and says what was met."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEEDS = (115_200, 921_600)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module("bench_link")
    for name, small in (("VOLUME", 128 << 10), ("ROUNDS", 1), ("SEEDS", range(1, 3)), ("IMAGE", 8 << 10)):
        monkeypatch.setattr(module, name, small)
    monkeypatch.setattr(module, "MEGABYTE", 64 << 10)
    return module


def test_every_aim_of_the_link_has_its_row(bench: ModuleType) -> None:
    engines, *lines = bench.rows()
    speed, unit = engines[1].split()
    assert (engines[0], unit, engines[4]) == ("both link engines, one process", "MB/s", "1.5 MB/s")
    assert engines[5] is (float(speed) >= 1.5)
    found = {row[0]: row for row in lines}
    for baud in SPEEDS:
        for what, aim in (
            ("0 ms", 0.975), ("2 ms", 0.975), ("16 ms", 0.965), ("FTDI 16 ms", 0.96),
            ("bit errors 1e-5", 0.88), ("bit errors 1e-4", 0.5), ("dropped bytes 1e-5", 0.94),
        ):  # fmt: skip
            _, share, _, _, said, met = found[f"line, {baud}, {what}"]
            assert said == f"at least {aim}"
            assert met is (float(share) >= aim)
    assert [found[f"1 MiB, all of it, {baud}, 16 ms"][4] for baud in SPEEDS] == ["at least 0.95", "at least 0.92"]
    assert found["line, 9600, 2 ms"][5] is None
    assert len(found) == len(lines) == 2 * 7 + 2 + 2


def test_the_mean_counts_and_the_spread_is_shown(bench: ModuleType) -> None:
    assert bench._line("x", [0.9, 0.8], 0.84) == ("x", "0.850", "0.800 to 0.900", "", "at least 0.84", True)
    assert bench._line("x", [0.9, 0.8], 0.86)[5] is False

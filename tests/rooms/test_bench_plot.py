"""The drawing of efficiency over bit error rate: the tool gives a whole file, the same each time; the docs have one."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def plot(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("plot_link")


def check(plot: ModuleType, path: Path, points: int) -> None:
    """Well-formed, every point drawn, nothing outside the frame."""
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == f"0 0 {plot.WIDTH} {plot.HEIGHT}"
    assert len(root.findall(f".//{SVG}circle/{SVG}title") + root.findall(f".//{SVG}rect/{SVG}title")) == points
    curves = [one.get("points", "").split() for one in root.iter(f"{SVG}polyline")]
    assert len(curves) == 2 * (1 + len(plot.BAUDS)), "theory and each speed, drawn and in the legend"
    for x, y in (map(float, pair.split(",")) for pair in itertools.chain(*curves)):
        assert plot.LEFT - 3 <= x <= plot.WIDTH - plot.RIGHT + 3
        assert plot.TOP <= y <= plot.HEIGHT - plot.BOTTOM
    assert not re.search(r"nan|inf", path.read_text(encoding="utf-8"))


def test_the_tool_draws_a_whole_file_and_the_same_again(
    plot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plot, "RATES", (1e-4,))
    files = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for path in files:
        options = ["--size", "4096", "--seeds", "1", "--jobs", "1", "-o", str(path)]
        monkeypatch.setattr(sys, "argv", ["plot_link.py", *options])
        assert plot.main() == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(capsys.readouterr().out.splitlines()) == 4
    check(plot, files[0], 2)


def test_the_page_shows_the_drawing(plot: ModuleType) -> None:
    check(plot, plot.OUT, len(plot.BAUDS) * len(plot.RATES))
    assert f"({plot.OUT.name})" in (plot.OUT.parent / "link.md").read_text(encoding="utf-8")


TIP = re.compile(r"<title>(\d+) baud, (\S+): (\S+) \((\S+) to (\S+)\)</title>")


def drawn(plot: ModuleType) -> dict[int, list[Any]]:
    """The points that the docs' drawing shows, by speed."""
    found: dict[int, list[Any]] = {baud: [] for baud in plot.BAUDS}
    for baud, *numbers in TIP.findall(plot.OUT.read_text(encoding="utf-8")):
        found[int(baud)].append(plot.Point(*map(float, numbers)))
    return found


def test_the_drawing_is_the_tools_own(plot: ModuleType) -> None:
    lines = list(drawn(plot).values())
    assert [[one.rate for one in points] for points in lines] == [list(plot.RATES)] * len(plot.BAUDS)
    assert plot.draw(lines, plot.SIZE, plot.SEEDS) == plot.OUT.read_text(encoding="utf-8"), "run tools/plot_link.py"
    for one in itertools.chain(*lines):
        assert plot.theory(one.rate) - 0.025 < one.mean < plot.theory(one.rate)


def test_the_drawing_shows_what_this_code_reaches(plot: ModuleType) -> None:
    points = drawn(plot)[921_600]
    for one in points[2:4]:
        assert one.least - 0.02 <= plot.share((921_600, one.rate, 2, plot.SIZE)) <= one.most + 0.02


@pytest.mark.slow
def test_the_drawing_shows_what_this_code_reaches_at_every_point(plot: ModuleType) -> None:
    """Not to the last digit: a byte more in a signature moves every bit error to another byte."""
    lines = plot.measured(plot.RATES, plot.SIZE, plot.SEEDS)
    for now, then in zip(itertools.chain(*lines), itertools.chain(*drawn(plot).values()), strict=True):
        assert now.mean == pytest.approx(then.mean, abs=0.01), "run tools/plot_link.py"


def test_theory(plot: ModuleType) -> None:
    assert plot.theory(1e-5) == pytest.approx(0.91, abs=0.005)
    assert plot.theory(1e-9) == pytest.approx(4096 / 4123, abs=0.0005)
    assert plot.theory(1e-7) > plot.theory(1e-6) > plot.theory(1e-4) > plot.theory(1e-3)

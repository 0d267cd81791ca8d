"""The comparison with lrzsz and smpclient: the peers really move the image, and a peer that fails has used nothing."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devguard.bench.stage import stream
from devguard.bench.way import Shape

ROOT = Path(__file__).resolve().parents[2]
IMAGE = stream("peers")(12_288)
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("YMODEM", "XMODEM-1K")]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("bench_peers")


def road(peers: ModuleType, folder: Path) -> Any:
    return peers.Road(IMAGE, Shape(921_600, 0.002), folder, peers.build_shim(folder))


@pytest.mark.usefixtures("lrzsz")
@pytest.mark.parametrize("name", ["ZMODEM", *SLOW])
def test_lrzsz_moves_an_image_over_the_line(peers: ModuleType, tmp_path: Path, name: str) -> None:
    run = peers.lrzsz(road(peers, tmp_path), name)
    assert (0.0 < run.share < 1.0, run.note) == (True, "")


@pytest.mark.slow
def test_smpclient_moves_an_image_over_the_line(peers: ModuleType, tmp_path: Path) -> None:
    run = peers.smp(road(peers, tmp_path))
    assert (0.0 < run.share < 1.0, run.note) == (True, "")


@pytest.mark.usefixtures("lrzsz")
def test_what_arrives_damaged_or_not_at_all_counts_for_nothing(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = road(peers, tmp_path)
    for receive, why in ((["false"], "gave up"), (["true"], "damaged"), (["sleep", "60"], "not done in time")):
        monkeypatch.setattr(peers, "PATIENCE", -100 if receive[0] == "sleep" else 14)
        monkeypatch.setitem(peers.LRZSZ, "ZMODEM", (receive, ["true"]))
        assert peers.lrzsz(here, "ZMODEM") == peers.Run(0.0, why)


def test_without_lrzsz_or_a_compiler_it_says_so(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "compiler" in peers.lrzsz_missing(None) or "not installed" in peers.lrzsz_missing(None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.build_shim(tmp_path) is None
    assert "not installed" in peers.lrzsz_missing(tmp_path)


def test_the_table(peers: ModuleType) -> None:
    run, (clean, bits, _) = peers.Run, peers.KINDS
    mine = run(0.9, data=0.95)

    def outcome(kind: Any, mine: Any, theirs: Any) -> tuple[str, bool | None]:
        return peers.row(115_200, kind, mine, "ZMODEM", theirs)[3:6:2]

    assert outcome(clean, mine, run(0.91)) == ("0.99", True)
    assert outcome(clean, mine, run(0.95)) == ("0.95", False)
    assert outcome(bits, mine, run(0.5)) == ("1.80", True)
    assert outcome(bits, mine, run(0.51)) == ("1.76", False)
    assert outcome(bits, mine, run(0.0, "gave up")) == ("they fail", True)
    assert outcome(bits, run(0.0, "link.timeout"), run(0.0, "gave up")) == ("they fail", False)
    assert outcome(clean, mine, run(-1.0, "lrzsz is not installed")) == ("", None)
    assert outcome(clean, run(-1.0, "void"), run(0.9)) == ("", None)


def test_a_round_whose_line_was_late_is_made_again_and_counts_for_nothing(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (clean, *_) = peers.Run, peers.KINDS
    lates = {"devguard": [0.5, 0.0, 0.0, 0.0], "ZMODEM": [0.5] * 9, "SMP": [0.0] * 3}
    shares = {"devguard": [0.1, 0.9, 0.7, 0.95], "ZMODEM": [0.3] * 9, "SMP": [0.0, 0.6, 0.0]}

    def measure(here: Any, name: str) -> Any:
        assert here.seed in (1, 2, 3)
        share = shares[name].pop(0)
        return run(share, "" if share else "gave up", lates[name].pop(0), 0.96 if name == "devguard" else 0.0)

    monkeypatch.setattr(peers, "measure", measure)
    here = peers.Road(IMAGE, Shape(921_600), tmp_path, None)
    zmodem, smp = peers.compare(here, clean, ("ZMODEM", "SMP"), 3)
    assert (zmodem[1], zmodem[5]) == ("0.850 (data 0.960)", None)
    assert "no time for the line" in zmodem[2]
    assert smp[2:] == ("SMP 0.200 (gave up, 2 of 3)", "4.25", ">= 0.98 of theirs", True)
    assert not any(shares.values()), "three rounds each; one was made again, three were made three times"


def test_quick_takes_fewer(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []

    def compare(road: Any, _kind: Any, names: Any, rounds: int) -> Iterator[Any]:
        assert (len(road.image), road.shape.latency) == (peers.IMAGE, peers.LATENCY)
        asked.append((road.shape.baud, len(names), rounds))
        return iter(())

    monkeypatch.setattr(peers, "compare", compare)
    monkeypatch.setattr(peers, "priority", contextlib.nullcontext)
    assert list(peers.rows(quick=True)) == []
    assert asked == [(921_600, 2, 1)] * 3
    asked.clear()
    assert list(peers.rows()) == []
    assert asked == [(115_200, 4, 3)] * 3 + [(921_600, 4, 3)] * 3

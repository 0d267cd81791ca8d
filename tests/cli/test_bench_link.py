"""`devguard bench link`: the contract's keys, the same seed the same answer, refusals with their exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import devguard, finish, ok, start
from devguard.cli.bench_link import text

KEYS = {
    "payload_bytes", "wire_bytes_forward", "wire_bytes_reverse", "seconds", "ideal_seconds", "line_efficiency",
    "retransmits", "baud", "latency_ms", "ber", "session_seconds", "session_efficiency",
}  # fmt: skip


def test_the_figures_under_the_contracts_keys(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    data = ok("bench", "link", "--baud", 921600, "--latency-ms", 16, "--size", 100_000, "--json").json
    assert set(data) >= KEYS
    assert (data["payload_bytes"], data["baud"], data["latency_ms"], data["ber"]) == (100_000, 921_600, 16, 0)
    assert data["line_efficiency"] == pytest.approx(data["ideal_seconds"] / data["seconds"], rel=1e-4)
    assert data["session_efficiency"] == pytest.approx(data["ideal_seconds"] / data["session_seconds"], rel=1e-4)
    assert data["wire_bytes_forward"] > 100_000 > data["wire_bytes_reverse"] > 0
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_seed_gives_the_same_figures_in_another_process_too(home: Path) -> None:
    line = ("bench", "link", "--size", 20_000, "--ber", "1e-4", "--drop", "1e-5", "--ftdi-ms", 16, "--json")
    line += ("--double", "1e-5", "--noise", "1e-5", "--cut", "0.5:1", "--cut", "2:0.25")
    first, other = (ok(*line, "--seed", seed).json for seed in (3, 4))
    assert finish(start(*line, "--seed", 3)).json == first
    assert first["retransmits"] > 0
    assert first["seconds"] != other["seconds"]
    assert [first[name] for name in ("drop", "double", "noise", "cuts")] == [
        1e-5,
        1e-5,
        1e-5,
        [[0.5, 1.0], [2.0, 0.25]],
    ]


def test_each_kind_of_harm_is_done_and_named(home: Path) -> None:
    clean = ok("bench", "link", "--size", 30_000, "--json").json
    for given, words in (
        (("--ber", "1e-4"), "bit errors 0.0001"),
        (("--drop", "2e-4"), "dropped bytes 0.0002"),
        (("--double", "2e-4"), "doubled bytes 0.0002"),
        (("--noise", "2e-4"), "noise bursts 0.0002"),
        (("--cut", "1:2.5"), "cable out at 1 s for 2.5 s"),
    ):
        line = ("bench", "link", "--size", 30_000, *given)
        harmed = ok(*line, "--json").json
        assert harmed["retransmits"] > 0
        assert harmed["seconds"] > clean["seconds"]
        assert harmed["wire_bytes_forward"] > clean["wire_bytes_forward"]
        assert f", {words}\n" in ok(*line, "-q").out
    assert clean["retransmits"] == 0
    assert harmed["seconds"] > clean["seconds"] + 2.5


def test_in_real_time_the_figures_have_the_same_keys_and_say_whether_they_are_void(home: Path) -> None:
    line = ("bench", "link", "--size", 20_000, "--baud", 921_600, "--json")
    virtual, real = ok(*line).json, ok(*line, "--real").json
    assert set(real) == set(virtual)
    assert (virtual["real"], virtual["paced"], real["real"]) == (False, True, True)
    assert real["paced"] is (real["late_seconds"] <= real["session_seconds"] / 100)
    assert real["wire_bytes_forward"] >= virtual["wire_bytes_forward"] - 1000
    assert "VOID: this machine was 0.60 s late" in text({**virtual, "paced": False, "late_seconds": 0.6})
    assert "VOID" not in text(virtual)


@pytest.mark.parametrize("model", ["insulin-pump", "pacemaker-programmer"])
def test_the_table_for_people(model: str, home: Path) -> None:
    result = ok("bench", "link", "--model", model, "--size", 30_000, "--ber", "1e-5", "--flash-timing", "-q")
    assert result.out.startswith(f"30000 bytes to an emulated {model}: 115200 baud, 2 ms one way, bit errors 1e-05")
    assert "% of the line" in result.out
    assert "segments sent again" in result.out
    assert result.err == ""


def test_a_line_too_bad_to_use_is_a_time_out_with_exit_4(home: Path) -> None:
    result = devguard("bench", "link", "--ber", "0.05", "--json")
    assert result.status == 4
    assert result.json["error"]["code"] == "link.timeout"


@pytest.mark.parametrize(
    "wrong",
    [("--ber", "nan"), ("--ber", "1.5"), ("--drop", "-0.1"), ("--drop", "inf"), ("--latency-ms", "nan"),
     ("--baud", "0"), ("--size", "1"), ("--size", "10000000"), ("--seed", "-1"), ("--model", "toaster"),
     ("--double", "2"), ("--noise", "nan"), ("--cut", "2"), ("--cut", "-1:2"), ("--cut", "1:0"), ("--cut", "nan:1"),
     ("--cut", "1:inf"), ("--cut", ":")],
)  # fmt: skip
def test_wrong_numbers_are_usage_errors(wrong: tuple[str, str], home: Path) -> None:
    result = devguard("bench", "link", *wrong)
    assert result.status == 2
    assert result.out == ""
    assert wrong[0] in result.err
    assert "Traceback" not in result.err


def test_the_smallest_chances_are_none(home: Path) -> None:
    assert ok("bench", "link", "--size", 5000, "--ber", "1e-320", "--drop", "5e-324", "--json").json["retransmits"] == 0

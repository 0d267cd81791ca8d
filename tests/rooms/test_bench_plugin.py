"""The attack bench as a pytest plugin: rows as tests, skips with reasons, boards only by their typed serial number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
PLUGIN = "devguard.bench.pytest_plugin"
LOADED = any(one.value == PLUGIN for one in entry_points(group="pytest11"))
OWN = """
from devguard.bench.attacks.scene import By


def test_own(devguard_scene):
    scene = devguard_scene
    evil = scene.release(signers=("release",))
    scene.refuses("one signature of three, pushed", scene.pushing(evil), "signature.hybrid", by=By.OFFLINE)
    scene.refuses("and offered", scene.offering(evil), "signature.hybrid", by=By.DEVICE_ALONE)


def test_wrong(devguard_scene):
    scene = devguard_scene
    scene.refuses("an honest release", scene.pushing(scene.next), "signature.hybrid", by=By.OFFLINE)
"""


def play(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A run of pytest with the plugin, in a process of its own."""
    loading = [] if LOADED else ["-p", PLUGIN]
    return pytester.runpytest_subprocess(*loading, "-p", "no:cacheprovider", "-rs", *args)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--devguard-device=toaster"], "neither a port nor one of insulin-pump, pacemaker-programmer"),
        (["--devguard-device=/dev/pts/0"], "needs --devguard-model and --devguard-home"),
        (
            ["--devguard-device=/dev/ttyUSB0", "--devguard-model=insulin-pump", "--devguard-home=h"],
            "type its serial number with --devguard-serial",
        ),
    ],
    ids=["no such model", "no vendor", "a board without its serial"],
)
def test_options_that_do_not_fit_are_usage_errors(args: list[str], said: str, pytester: pytest.Pytester) -> None:
    result = play(pytester, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()
    assert not (pytester.path / "h").exists()


def test_rows_and_tests_of_ones_own_on_a_model(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OWN)
    result = play(pytester, "--devguard-device=insulin-pump", "-k", "A01 or own or wrong")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["errors"]) == (3, 1)  # A01, own, and the body of wrong, whose oracles fail it
    assert outcomes["deselected"] == 57
    assert "an honest release: was accepted, expected signature.hybrid" in result.stdout.str()


def test_without_the_option_nothing_is_added(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OWN)
    assert play(pytester).parseoutcomes() == {"skipped": 2}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["insulin-pump", "pacemaker-programmer"])
def test_an_emulator_of_somebody_elses(model: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "a passphrase for a bench")
    home = pytester.path / "bench"
    common = [f"--devguard-model={model}", f"--devguard-home={home}"]
    made = play(pytester, "--devguard-device=/dev/pts/0", *common, "-k", "A01")
    assert made.ret == pytest.ExitCode.USAGE_ERROR
    assert "Enrol the device with" in made.stdout.str() + made.stderr.str()
    command = [
        sys.executable, "-m", "devguard.cli.main", "emulate", model, "--serial", "EMU-1",
        "--trust", str(home / "current.trust"), "--state", str(pytester.path / "state"),
        "--device-authority", str(home / "vendor" / "keys" / "factory.key"), "--home", str(pytester.path / "factory"),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as device:
        try:
            assert device.stdout is not None
            port = json.loads(device.stdout.readline())["port"]
            wrong = play(pytester, f"--devguard-device={port}", *common, "--devguard-serial=OTHER", "-k", "A01")
            assert "proves serial EMU-1, not OTHER" in wrong.stdout.str() + wrong.stderr.str()
            result = play(pytester, f"--devguard-device={port}", *common, "-k", "A01 or A03 or C01 or G01")
        finally:
            device.terminate()
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 2, result.stdout.str()
    assert "6 attempts held, then: it needs the device's own power in hand" in result.stdout.str()


def test_the_entry_point_is_the_plugin() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'[project.entry-points.pytest11]\ndevguard = "{PLUGIN}"' in text

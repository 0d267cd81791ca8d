"""The demo as a person runs it: everything holds, the six codes are the promised ones, what is kept verifies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODES = [
    {"image.digest"},
    {"key.unknown"},
    {"signature.hybrid"},
    {"version.rollback"},
    {"grant.scope"},
    {"session.handshake", "session.replay"},
]


def devguard(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEVGUARD_")}
    return subprocess.run(
        [sys.executable, "-m", "devguard.cli.main", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=180,
        env=kept | environment,
        check=False,
    )


def check(folder: Path, model: str, *options: str | Path) -> dict[str, object]:
    done = devguard("demo", "--json", "--keep", folder, "--model", model, *options)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["held"]
    assert all(step["held"] for step in data["steps"])
    assert [row["held"] and row["unchanged"] for row in data["attacks"]] == [True] * 6
    for row, codes in zip(data["attacks"], CODES, strict=True):
        assert set(row["answers"]) <= codes
    return data


def test_the_pump_story_holds_and_what_it_keeps_verifies(tmp_path: Path) -> None:
    image = tmp_path / "my-firmware.bin"
    image.write_bytes(bytes(range(256)) * 200)
    folder = tmp_path / "kept"
    data = check(folder, "insulin-pump", "--firmware", image)
    assert "my-firmware.bin" in data["firmware"]["1.1.0"]  # type: ignore[index]
    assert [len(row["answers"]) for row in data["attacks"]] == [1, 2, 2, 2, 2, 2]  # type: ignore[attr-defined]

    good = devguard(
        "verify",
        folder / "release" / "insulin-pump-1.1.0.suit",
        "--trust",
        folder / "current.trust",
        "--home",
        tmp_path / "h",
    )
    assert good.returncode == 0, good.stderr
    for name in ("flipped-bit", "unknown-vendor", "stripped-post-quantum"):
        bad = devguard(
            "verify", folder / "attacks" / f"{name}.suit", "--trust", folder / "current.trust", "--home", tmp_path / "h"
        )
        assert bad.returncode == 1, name
    older = devguard(
        "verify", folder / "old" / "insulin-pump-1.0.0.suit", "--trust", folder / "current.trust", "--installed", "2",
        "--json", "--home", tmp_path / "h",
    )  # fmt: skip
    assert json.loads(older.stdout)["code"] == "version.rollback"
    assert devguard("evidence", "verify", "--home", folder / "home").returncode == 0
    assert (folder / "device" / "flash.bin").is_file()


@pytest.mark.slow
def test_the_programmer_story_holds(tmp_path: Path) -> None:
    check(tmp_path / "kept", "pacemaker-programmer")


def test_a_folder_in_use_and_a_missing_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("mine")
    done = devguard("demo", "--keep", tmp_path)
    assert done.returncode != 0
    assert "not empty" in done.stderr
    assert (tmp_path / "something").read_text() == "mine"

"""What a hostile review found on the command line: closed and full outputs, a log that was begun anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devguard.cli.home import Home
from devguard.cli.memory import Memory
from devguard.custody.files import write_atomic
from devguard.custody.keyfile import read_info
from devguard.evidence.checkpoint import origin_of


def _run(home: Path, *args: str, stdout: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devguard.cli.main", *args]
    environment = {**os.environ, "DEVGUARD_HOME": str(home)}
    if stdout is None:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    shell = ["sh", "-c", f'exec "$@" {stdout}', "sh", *command]
    return subprocess.run(shell, env=environment, stderr=subprocess.PIPE, text=True, check=False)


def test_a_closed_standard_output_is_no_crash(tmp_path: Path) -> None:
    done = _run(tmp_path / "home", "explain", "key.unknown", stdout=">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_result_that_could_not_be_written_is_never_success(tmp_path: Path) -> None:
    done = _run(tmp_path / "home", "explain", "key.unknown", stdout=">/dev/full")
    assert done.returncode in (4, 70)
    assert "Traceback" not in done.stderr


def test_a_log_that_was_removed_and_begun_anew_does_not_verify(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    _run(home.path, "verify", str(tmp_path / "nothing.suit"))
    origin = origin_of(read_info(home.station_public()).key)
    write_atomic(home.memory_file, Memory(origin, records=1).encode())
    assert _run(home.path, "evidence", "verify").returncode == 0
    write_atomic(home.memory_file, Memory(origin, records=2).encode())
    found = _run(home.path, "evidence", "verify", "--json")
    assert (found.returncode, json.loads(found.stdout)["error"]["code"]) == (1, "log.truncated")

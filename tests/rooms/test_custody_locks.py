"""Invariant: of several processes one at a time holds the lock of a file; it leaves nothing behind and never hangs."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from devguard.custody import locks
from devguard.custody.locks import lock_file, locked
from devguard.errors import DevguardError


def child(work: Callable[[], object]) -> int:
    """A process that does `work` and ends with 0, or 1 when it raised."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def status_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def code_of(path: Path, wait: float = 0) -> str:
    with pytest.raises(DevguardError) as caught, locked(path, wait=wait):
        pass
    return caught.value.code


def add_one(path: Path) -> None:
    for _ in range(25):
        with locked(path):
            number = int(path.read_text())
            os.sched_yield()
            path.with_suffix(".new").write_text(str(number + 1))
            os.replace(path.with_suffix(".new"), path)


def test_no_change_of_several_processes_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("0")
    assert {status_of(one) for one in [child(lambda: add_one(path)) for _ in range(4)]} == {0}
    assert path.read_text() == "100"
    assert os.listdir(tmp_path) == ["number"]


def held_elsewhere(path: Path) -> tuple[int, int]:
    """(a process that holds the lock of `path`, the descriptor that ends it when closed)."""
    ready, go = os.pipe(), os.pipe()

    def hold() -> None:
        os.close(go[1])
        with locked(path):
            os.write(ready[1], b"x")
            os.read(go[0], 1)

    process = child(hold)
    os.close(go[0])
    assert os.read(ready[0], 1) == b"x"
    for one in ready:
        os.close(one)
    return process, go[1]


def test_who_waits_too_long_is_refused_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    process, go = held_elsewhere(path)
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    monkeypatch.setattr(locks, "WAIT", 0.05)
    told: list[int] = []
    with pytest.raises(DevguardError) as caught, locked(path, waiting=lambda: told.append(1)):
        pass
    assert (caught.value.code, int(caught.value.exit_status)) == ("file.busy", 4)
    assert told == [1]
    os.close(go)
    assert status_of(process) == 0
    with locked(path, wait=0):
        pass


def test_a_process_that_dies_gives_its_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    process, go = held_elsewhere(path)
    os.kill(process, signal.SIGKILL)
    status_of(process)
    os.close(go)
    assert lock_file(path).exists()  # what it left is taken over and tidied away
    with locked(path, wait=0):
        pass
    assert os.listdir(tmp_path) == []


def test_one_process_may_hold_it_twice_and_gives_it_back_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with locked(path):
        with locked(path, wait=0):
            pass
        assert status_of(child(lambda: code_of(path))) == 0  # still held, seen from elsewhere
        with locked(tmp_path / "other", wait=0):
            pass
    assert os.listdir(tmp_path) == []


def test_it_is_given_back_whatever_happens(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_where_there_is_nothing_to_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(tmp_path / "none" / "file") == "file.missing"
    with locked(tmp_path / ("n" * 255)):  # the longest name a file can have
        pass
    lock_file(tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert code_of(tmp_path / "link") == "file.missing"
    assert not (tmp_path / "elsewhere").exists()

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(DevguardError) as caught, locked(tmp_path / "shared"):
        pass
    assert caught.value.code == "file.unreadable"
    assert "local folder" in caught.value.hint

"""The watch over this process: what is written, started and listened on is seen; what is only read changes nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devguard.bench.watched import LISTENS, STARTS, outside, watched

WAYS: dict[str, Callable[[Path], object]] = {
    "open": lambda path: path.write_bytes(b"x"),
    "open.append": lambda path: path.open("ab").close(),
    "open.descriptor": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)),
    "os.mkdir": os.mkdir,
    "os.symlink": lambda path: path.symlink_to("/nowhere"),
    "os.rename": lambda path: (path.parent / "there").rename(path),
    "os.link": lambda path: path.hardlink_to(path.parent / "there"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_change_something_is_seen_with_its_path(way: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    with watched() as seen:
        WAYS[way](tmp_path / "made")
    found = outside(seen, tmp_path / "elsewhere")
    assert (way.partition(".d")[0].removesuffix(".append"), str(tmp_path / "made")) in [
        (one.event, one.path) for one in found
    ]
    assert outside(seen, tmp_path) == []


def test_reading_is_seen_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    with watched() as seen:
        (tmp_path / "there").read_bytes()
    assert [one.path for one in seen if one.path.startswith(str(tmp_path))] == [str(tmp_path / "there")]
    assert outside(seen, "/nowhere") == []


def test_a_path_that_leaves_its_folder_by_dots_or_a_link_is_outside(tmp_path: Path) -> None:
    inside, beside = tmp_path / "inside", tmp_path / "inside-too"
    inside.mkdir()
    beside.mkdir()
    (inside / "link").symlink_to(beside)
    with watched() as seen:
        (inside / ".." / "dots").write_bytes(b"x")
        (inside / "link" / "linked").write_bytes(b"x")
        (inside / "good").write_bytes(b"x")
    assert [Path(one.path).name for one in outside(seen, inside)] == ["dots", "linked"]


def test_programs_and_listeners_are_seen_and_nothing_afterwards() -> None:
    with watched() as seen:
        subprocess.run([sys.executable, "-c", ""], check=True)
        with socket.create_server(("127.0.0.1", 0)):
            pass
    events = {one.event for one in seen}
    assert events & STARTS
    assert events & LISTENS
    count = len(seen)
    with socket.create_server(("127.0.0.1", 0)):
        pass
    assert len(seen) == count

"""Invariant: a name holds the old bytes or the new ones, whole; reads are bounded; no foreign exception escapes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from devguard.custody import files
from devguard.custody.files import open_regular, read_limited, write_atomic, write_new, write_streamed
from devguard.errors import DevguardError, Malformed, Refused


def code_of(call: Callable[..., object], *args: object, **named: object) -> str:
    with pytest.raises((Malformed, Refused)) as caught:
        call(*args, **named)
    return caught.value.code


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_write_replaces_and_sets_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")
    assert (path.read_bytes(), mode(path)) == (b"one", 0o644)
    write_atomic(path, b"two", 0o600)
    assert (path.read_bytes(), mode(path)) == (b"two", 0o600)
    write_atomic(path, b"")
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["file"]


def test_a_private_key_is_never_replaced(tmp_path: Path) -> None:
    path, public = tmp_path / "remy.key", tmp_path / "remy.pub"
    path.write_bytes(b"devguard-key: 1\nname: remy\n")
    (tmp_path / "link").symlink_to(path)
    for target in (path, tmp_path / "link"):
        assert code_of(write_atomic, target, b"x") == "key.exists"
        assert code_of(write_streamed, target, lambda out: None) == "key.exists"
    assert path.read_bytes() == b"devguard-key: 1\nname: remy\n"
    public.write_bytes(b"devguard-public-key: 1\n")
    write_atomic(public, b"new")
    assert public.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["link", "remy.key", "remy.pub"]


@pytest.mark.parametrize("broken", ["fsync", "replace", "fchmod"])
def test_a_failing_disk_leaves_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, broken, fail)
    assert code_of(write_atomic, path, b"new") == "file.unreadable"
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_bytes_are_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(source: object, target: object) -> None:
        steps.append("rename")
        replace(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", renamed)
    write_atomic(tmp_path / "file", b"x")
    assert steps == ["file", "rename", "folder"]


def test_streamed_writes_are_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_streamed(path, lambda file: [file.write(b"ab") for _ in range(3)] and None, 0o600)
    assert (path.read_bytes(), mode(path)) == (b"ababab", 0o600)

    def refusing(file: BinaryIO) -> None:
        file.write(b"half")
        raise Refused("image.digest", "no")

    def failing(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    def buggy(file: BinaryIO) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        write_streamed(path, buggy)
    assert code_of(write_streamed, path, refusing) == "image.digest"
    assert code_of(write_streamed, path, failing) == "file.unreadable"
    assert path.read_bytes() == b"ababab"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    for write in (write_atomic, write_new):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "file", b"x")
    assert os.listdir(tmp_path) == []


def test_write_new_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_new(path, b"one", 0o600)
    assert (path.read_bytes(), mode(path)) == (b"one", 0o600)
    assert code_of(write_new, path, b"two") == "key.exists"
    assert code_of(write_new, path, b"two", exists="file.unreadable") == "file.unreadable"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert code_of(write_new, tmp_path / "dangling", b"two") == "key.exists"
    assert code_of(write_new, tmp_path, b"two") == "key.exists"
    assert path.read_bytes() == b"one"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


def test_write_new_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A USB stick's file system has none; the name is then taken exclusively."""

    def unsupported(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", unsupported)
    path = tmp_path / "file"
    write_new(path, b"one", 0o600)
    assert (path.read_bytes(), mode(path)) == (b"one", 0o600)
    assert code_of(write_new, path, b"two") == "key.exists"
    assert path.read_bytes() == b"one"
    finish = files._finish
    calls: list[object] = []

    def full_the_second_time(file: BinaryIO, fill: Callable[[BinaryIO], None], mode: int) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        finish(file, fill, mode)

    monkeypatch.setattr(files, "_finish", full_the_second_time)
    assert code_of(write_new, tmp_path / "other", b"x") == "file.unreadable"
    assert os.listdir(tmp_path) == ["file"]


def test_reads_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_limited(path, 100) == b"x" * 100
    assert read_limited(path, 2**40) == b"x" * 100
    assert code_of(read_limited, path, 99) == "wire.malformed"
    assert code_of(read_limited, path, 0) == "wire.malformed"
    path.write_bytes(b"")
    assert read_limited(path, 0) == b""


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**33)
    assert code_of(read_limited, path, 4096) == "wire.malformed"


def test_what_is_no_regular_file_refuses_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("fifo", "loop", "absent", ".", "absent/deeper", "x" * 300, "nul\0byte"):
        assert code_of(read_limited, tmp_path / name, 10) == "file.missing", name
        assert code_of(open_regular, tmp_path / name) == "file.missing", name
    assert code_of(read_limited, Path("/dev/zero"), 10) == "file.missing"


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert read_limited(tmp_path / "link", 10) == b"x"


def test_errors_of_the_system_are_coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(write_atomic, tmp_path / "absent" / "file", b"x") == "file.missing"
    assert code_of(write_atomic, tmp_path / "nul\0byte", b"x") == "file.missing"
    (tmp_path / "folder").mkdir()
    assert code_of(write_atomic, tmp_path / "folder", b"x") == "file.unreadable"
    assert os.listdir(tmp_path) == ["folder"]
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def fail(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    for name in ("open", "read"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, fail)
            with pytest.raises(DevguardError) as caught:
                read_limited(path, 10)
            assert caught.value.code == "file.unreadable"
            assert "Input/output error" in caught.value.message

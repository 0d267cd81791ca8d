"""What a bench keeps of a shelf: whole steps in one file, and a working folder that nothing is believed of.

Invariants: a file cut anywhere, or damaged anywhere, reads as one of the states it went through or as
`shelf.malformed`, never as another; a step that fails, whatever failed, leaves every byte as it was.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devguard.custody import files
from devguard.errors import DevguardError, Malformed
from devguard.shelf.carry import carry
from devguard.shelf.client import Shelf
from devguard.shelf.freshness import TOP
from devguard.shelf.limits import Limits
from devguard.shelf.source import FolderSource
from devguard.shelf.state import HEADER, State, compact, read_state, take_back, write_state
from shelf_support import PROGRAMMER, PUMP, TufRepository, bench, repo, state

__all__ = ["repo"]

TRACES = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
BYTES = st.binary(max_size=40)
STATES = st.builds(
    State,
    st.dictionaries(st.integers(1, 4), BYTES, max_size=3),
    st.dictionaries(st.sampled_from([*TOP, PUMP, f"{PUMP}~0", f"{PUMP}~f"]), BYTES, max_size=4),
    st.dictionaries(st.integers(1, 4), BYTES, max_size=2),
    st.sampled_from(["", "/media/stick", "https://shelf.example/"]),
)


def now() -> int:
    return int(time.time())


def grown(before: State | None, after: State) -> State:
    """Roots and trust documents are never forgotten."""
    old = before or State()
    return State({**old.roots, **after.roots}, after.roles, {**old.trust, **after.trust}, after.place)


def written(path: Path, steps: list[State]) -> list[tuple[State, int]]:
    """Every state the file went through, and how long it was then."""
    path.unlink(missing_ok=True)
    through: list[tuple[State, int]] = []
    for step in steps:
        old, length = read_state(path)
        new = grown(old, step)
        write_state(path, old, length, new)
        through.append((new, path.stat().st_size))
    return through


@TRACES
@given(st.lists(STATES, min_size=1, max_size=4))
def test_what_was_written_is_read(tmp_path: Path, steps: list[State]) -> None:
    path = tmp_path / "state"
    for number in range(1, len(steps) + 1):
        through = written(path, steps[:number])
        assert read_state(path) == through[-1]
    compact(path, through[-1][0])
    assert read_state(path)[0] == through[-1][0]


@TRACES
@given(st.lists(STATES, min_size=2, max_size=3), st.data())
def test_a_file_cut_anywhere_is_an_earlier_state_and_can_go_on(
    tmp_path: Path, steps: list[State], data: st.DataObject
) -> None:
    path = tmp_path / "state"
    through = written(path, steps)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 50]))
    path.write_bytes(whole[:cut] + (tail if cut < len(whole) else b""))
    expected = [one for one in through if one[1] <= cut]
    try:
        found = read_state(path)
    except Malformed:
        assert tail  # zeros where a length was cut in half
        return
    assert found == (expected[-1] if expected else (None, 0))
    new = grown(found[0], steps[-1])
    write_state(path, *found, new)
    assert read_state(path)[0] == new


@TRACES
@given(st.lists(STATES, min_size=2, max_size=3), st.data())
def test_a_damaged_file_is_never_another_state(tmp_path: Path, steps: list[State], data: st.DataObject) -> None:
    path = tmp_path / "state"
    through = written(path, steps)
    whole = bytearray(path.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        found = read_state(path)[0]
    except Malformed:
        return
    assert found in [None, *(one for one, _ in through)]


@pytest.mark.parametrize("data", [b"x", b"devguard-shelf-state 2\n", HEADER + b"\0\0\0\1\xf6" * 20, b"\0" * 100])
def test_another_file_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(Malformed) as caught:
        read_state(tmp_path / "state")
    assert caught.value.code == "shelf.malformed"


def test_a_step_is_taken_back_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "state"
    (old, length), *_ = written(path, [State({1: b"root"}, {"targets": b"t" * 90})])
    before = path.read_bytes()
    write_state(path, old, length, State({1: b"root"}, {"targets": b"other"}, {7: b"trust"}))
    take_back(path, old, length)
    assert path.read_bytes() == before
    take_back(path, None, 0)
    assert not path.exists()


def test_the_file_does_not_grow_for_ever(repo: TufRepository, tmp_path: Path) -> None:
    path, old, length = tmp_path / "state", State(), 0
    write_state(path, None, 0, old)
    for number in range(60):
        old_, length = read_state(path)
        new = State({}, {"targets": bytes([number]) * 100_000})
        write_state(path, old_, length, new)
        compact(path, new)
    assert path.stat().st_size < 1_500_000


# the store as a whole


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become longer: what a full disk does, at every place in turn."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(DevguardError) as caught:
        call()
    return caught.value.code


def more(repo: TufRepository) -> None:
    for number in range(40):
        repo.put(f"{PUMP}/2.0.{number}.suit", b"%d" % number)
    repo.put("trust/2.trust", b"not judged here")
    del repo.signed["targets"].targets["trust/2.trust"]
    repo.publish()


@pytest.mark.parametrize("size", [0, 700, 3000, 20_000])
def test_a_full_disk_changes_nothing(size: int, repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    with largest_file(size):
        assert refused(lambda: shelf.refresh(repo, now())) == "file.unreadable"
    assert sorted(state(tmp_path)) == ["shelf/root.json"]
    shelf.refresh(repo, now())
    before = state(tmp_path)
    more(repo)
    with largest_file(size):
        assert refused(lambda: shelf.refresh(repo, now())) == "file.unreadable"
    assert state(tmp_path) == before
    shelf.refresh(repo, now())
    assert len(shelf.listing(now())[1]) == 42


@pytest.mark.parametrize("call", ["fsync", "ftruncate", "write"])
def test_a_disk_that_fails_under_the_state_changes_nothing(
    call: str, repo: TufRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    before = state(tmp_path)
    more(repo)
    real, left = getattr(os, call), [1]

    def failing(*args: object) -> object:
        if left[0]:
            left[0] -= 1
            if call == "write":
                real(args[0], bytes(args[1])[:100])  # type: ignore[call-overload]
            raise OSError(28, "No space left on device")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        assert refused(lambda: shelf.refresh(repo, now())) == "file.unreadable"
    assert left == [0]
    assert state(tmp_path) == before
    shelf.refresh(repo, now())


def test_a_first_refresh_that_is_refused_pins_nothing(repo: TufRepository, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    repo.served["metadata/timestamp.json"] = b"{}"
    assert refused(lambda: shelf.refresh(repo, now(), root=repo.roots[0])) == "shelf.malformed"
    assert state(tmp_path) == {}
    del repo.served["metadata/timestamp.json"]
    shelf.refresh(repo, now(), root=repo.roots[0])
    assert shelf.store.pinned() == repo.roots[0]
    repo.served["metadata/timestamp.json"] = b"{}"
    assert refused(lambda: shelf.refresh(repo, now(), root=repo.roots[0])) == "shelf.malformed"
    assert shelf.store.pinned() == repo.roots[0]


@pytest.mark.parametrize("listed", [False, True])
def test_nothing_in_the_working_folder_is_believed(listed: bool, repo: TufRepository, tmp_path: Path) -> None:
    """What a crash left there, or somebody put there: forged metadata, roots, files of no name at all."""
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    kept = shelf.store.state()
    work = tmp_path / "shelf" / "work"
    liar = TufRepository()
    for path, data in {
        "timestamp.json": liar.sign("timestamp"),
        "snapshot.json": b"\0" * 500,
        "targets.json": b"",
        f"{PUMP}.json": liar.sign("targets"),
        "evil.json": b"{}",
        "tmpabcdef": b"half",
        "root_history/1.root.json": liar.roots[0],
        "root_history/2.root.json": liar.roots[0],
        "root_history/9.root.json": liar.roots[0],
    }.items():
        (work / path).write_bytes(data)
    if listed:
        assert len(shelf.listing(now())[1]) == 2
    shelf.refresh(repo, now())
    assert shelf.store.state() == kept
    assert not (work / "evil.json").exists()
    assert not (work / "tmpabcdef").exists()


def test_what_is_kept_is_capped(repo: TufRepository, tmp_path: Path) -> None:
    store = bench(tmp_path, repo).store
    shelf = Shelf(store.folder, Limits(metadata_size=6000))
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.endless"
    assert sorted(state(tmp_path)) == ["shelf/root.json"]


def test_a_line_that_is_gone_is_forgotten_and_carries_on(repo: TufRepository, tmp_path: Path) -> None:
    """The snapshot goes on listing its files, for nothing may vanish from it; nobody has them any more."""
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    del repo.signed["targets"].delegations.roles[PROGRAMMER]
    repo.signed["targets"].version += 1
    repo.publish()
    for path in [path for path in repo.history if PROGRAMMER in path]:
        del repo.history[path]
    shelf.refresh(repo, now())
    kept = shelf.store.state()
    assert kept is not None
    assert not [role for role in kept.roles if role.startswith(PROGRAMMER)]
    late = bench(tmp_path / "late", repo)
    carry(late, repo, tmp_path / "stick", now())
    again = bench(tmp_path / "again", repo)
    again.refresh(FolderSource(tmp_path / "stick"), now())
    assert [row.model for row in again.listing(now())[1]] == [PUMP]


# sticks


def test_a_stick_that_fills_up_leaves_nothing_and_what_was_there(repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    (tmp_path / "media").mkdir()
    stick = tmp_path / "media" / "shelf"
    carry(shelf, repo, stick, now())
    before = state(tmp_path / "media")
    write, left = files.write_streamed, [0]

    def full(path: Path, fill: object, mode: int = 0o644) -> None:
        if tmp_path / "media" in path.parents:
            left[0] -= 1
            if left[0] < 0:
                raise files.file_error(path, OSError(28, "No space left on device"))
        write(path, fill, mode)  # type: ignore[arg-type]

    for room in (0, 1, 4):
        left[0] = room
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "write_streamed", full)
            patch.setattr("devguard.shelf.carry.write_streamed", full)
            assert refused(lambda: carry(shelf, repo, stick, now())) == "file.unreadable"
        assert state(tmp_path / "media") == before
        assert os.listdir(tmp_path / "media") == ["shelf"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system here that nobody can write to")
def test_a_stick_that_cannot_be_written(repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    assert refused(lambda: carry(shelf, repo, Path("/proc/shelf"), now())) in ("file.unreadable", "file.missing")


@pytest.mark.parametrize("what", ["fifo", "device", "folder", "loop", "symlink to device"])
def test_files_of_a_stick_that_are_none(what: str, repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    carry(shelf, repo, tmp_path / "stick", now())
    file = tmp_path / "stick" / "metadata" / "timestamp.json"
    file.unlink()
    if what == "fifo":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what == "loop":
        file.symlink_to(file)
    elif what == "symlink to device":
        file.symlink_to("/dev/zero")
    else:
        try:
            os.mknod(file, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero under another name
        except OSError:
            pytest.skip("this user makes no devices")
    before = state(tmp_path / "shelf")
    assert refused(lambda: shelf.refresh(FolderSource(tmp_path / "stick"), now())) == "shelf.unreachable"
    assert state(tmp_path / "shelf") == before


def test_a_stick_of_links_is_read_for_what_it_says_and_no_more(repo: TufRepository, tmp_path: Path) -> None:
    """A link to a file that is none of the shelf's is refused like any forged file, and its content told to nobody."""
    shelf = bench(tmp_path, repo)
    carry(shelf, repo, tmp_path / "stick", now())
    (tmp_path / "secret").write_text('{"password": "hunter2"}')
    file = tmp_path / "stick" / "metadata" / "timestamp.json"
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(DevguardError) as caught:
        shelf.refresh(FolderSource(tmp_path / "stick"), now())
    assert "hunter2" not in str(caught.value)

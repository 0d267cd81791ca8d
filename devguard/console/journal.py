"""The journal of runs: one folder for each in the home, so that a run is known whoever looks, and when.

    console/runs/ID/run.json        what was asked, by whom, and how it ended once that is known
                    out, err        what the command prints; its one JSON object, its progress
                    alive           locked by the command's process as long as it lives (flock)
                    release.suit    what is pushed, kept while it can be resumed
                    approval, approval.request      the second technician's answer, and what they are asked

The process is a session of its own: it outlives browser and console. Whether it lives says the lock, which it inherited
and no other process holds; how it ended says what it printed, for a console that comes later is not its parent.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from devguard.console.commands import error_in
from devguard.custody.files import read_limited, write_atomic
from devguard.errors import DevguardError, Exit, Malformed

FORMAT: Final = 1
_ID: Final = re.compile(r"[0-9a-f]{16}")
_LIMIT: Final = 1 << 20
_TAIL: Final = 8 * 1024
_SAFE: Final = "interrupted; state is safe"  # what the command line says of itself when it was interrupted


_NOT_THE_RELEASE: Final = ("key.passphrase", "key.pin", "key.token", "grant.", "device.", "incident.")


class End(enum.StrEnum):
    """How a run ended. LOST, STOPPED and SILENT can be resumed."""

    DONE = "done"
    REFUSED = "refused"  # here, before or without the device
    DEVICE = "device"  # by the device
    LOST = "lost"  # the line, the device or the disk failed
    STOPPED = "stopped"
    SILENT = "silent"  # the process ended without a word: killed, or the power went

    @property
    def resumable(self) -> bool:
        """Whether the same push may go on where it stopped."""
        return self in (End.LOST, End.STOPPED, End.SILENT)


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a run. `code`: the refusal's; `at`: seconds since the epoch, when it said its last word."""

    how: End
    at: float
    code: str | None = None
    message: str = ""
    hint: str = ""
    status: int | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the same push may be tried again as it is: what was refused is not the release."""
        return self.how in (End.REFUSED, End.DEVICE) and (self.code or "").startswith(_NOT_THE_RELEASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One push that was begun here. `person` signed in and began it; `shown` is the command for people."""

    id: str
    folder: Path
    person: str
    port: str
    serial: str
    name: str
    key: str
    grant: str
    reason: str
    work_order: str
    began: float
    shown: str
    resumes: str | None = None
    pid: int | None = None
    stopped: float | None = None
    stopped_by: str | None = None
    approved_by: str | None = None
    ended: Ended | None = None

    @property
    def suit(self) -> Path:
        """What is pushed."""
        return self.folder / "release.suit"

    @property
    def approval(self) -> Path:
        """Where the second technician's answer is awaited."""
        return self.folder / "approval"

    @property
    def request(self) -> Path:
        """What the second technician is asked."""
        return self.folder / "approval.request"

    def save(self) -> None:
        """Whole or not at all."""
        row = {**asdict(self), "format": FORMAT}
        del row["folder"]
        write_atomic(self.folder / "run.json", json.dumps(row, ensure_ascii=False, indent=1).encode(), 0o600)


@dataclass(slots=True)
class Journal:
    """All runs of a home. `folder` may not exist yet. `status`: the exit status of a run whose process has ended, where
    anybody knows it."""

    folder: Path
    keep: int
    status: Callable[[str], int | None] = lambda _: None
    _ended: dict[str, Run] = field(default_factory=dict)  # what has ended changes no more, but by us

    def new_folder(self) -> tuple[str, Path]:
        """The id and the folder of a run to be."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_id = secrets.token_hex(8)
        path = self.folder / run_id
        path.mkdir(mode=0o700)
        return run_id, path

    def save(self, run: Run) -> Run:
        """Keep what is known of a run now."""
        run.save()
        self._ended.pop(run.id, None)
        return run

    def get(self, run_id: str) -> Run:
        """One run, its end found out where it has come; `Malformed("console.run")`."""
        if not _ID.fullmatch(run_id):
            raise Malformed("console.run", "there is no such run")
        if run_id in self._ended:
            return self._ended[run_id]
        folder = self.folder / run_id
        run = read_run(folder)
        if run.ended is None and not alive(folder):
            run = self.settle(read_run(folder))  # read again: it may have changed until the process had ended
        if run.ended is not None:
            self._ended[run_id] = run
        return run

    def all(self) -> list[Run]:
        """Every run that can be read, the newest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                with contextlib.suppress(DevguardError):
                    found.append(self.get(path.name))
        return sorted(found, key=lambda run: run.began, reverse=True)

    def settle(self, run: Run) -> Run:
        """Write down how a run ended whose process is gone."""
        if run.ended is not None:
            return run
        ended = end_of(run.folder, self.status(run.id))
        done = replace(run, ended=ended)
        done.save()
        if not (ended.how.resumable or ended.repeatable):
            done.suit.unlink(missing_ok=True)
        return done

    def prune(self, now: float, keep_release: float) -> None:
        """Take away what nobody resumes any more, and the oldest runs beyond those that are kept."""
        for place, run in enumerate(self.all()):
            if run.ended is None:
                continue
            if place >= self.keep:
                shutil.rmtree(run.folder, ignore_errors=True)
                self._ended.pop(run.id, None)
            elif now - run.ended.at > keep_release:
                run.suit.unlink(missing_ok=True)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if not (path / "run.json").exists():  # a crash came before it was begun
                shutil.rmtree(path, ignore_errors=True)


def read_run(folder: Path) -> Run:
    """A run as it was written down; `Malformed("console.run")`."""
    try:
        row = json.loads(read_limited(folder / "run.json", _LIMIT))
        if not isinstance(row, dict) or row.pop("format", None) != FORMAT:
            raise ValueError
        ended = row.pop("ended", None)
        if ended is not None:
            ended = Ended(**{**ended, "how": End(ended["how"])})
        return Run(**row, folder=folder, ended=ended)
    except (ValueError, TypeError, KeyError, RecursionError, DevguardError):
        raise Malformed("console.run", "there is no such run, or its record is damaged") from None


def hold(folder: Path) -> int:
    """A descriptor that holds the lock of a run that begins; its process inherits it, and ours is closed then."""
    descriptor = os.open(folder / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def alive(folder: Path) -> bool:
    """Whether the process of a run lives. Those who ask share the lock, so that they do not take each other for it."""
    try:
        descriptor = os.open(folder / "alive", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def result_of(folder: Path) -> dict[str, Any]:
    """The JSON object that the command printed; {} where it printed none."""
    try:
        data = json.loads(read_limited(folder / "out", _LIMIT) or b"{}")
    except (ValueError, RecursionError, DevguardError):
        return {}
    return data if isinstance(data, dict) else {}


def end_of(folder: Path, status: int | None) -> Ended:
    """How a run ended, from what it printed. Nothing but an explicit yes is DONE."""
    at = _last_word(folder)
    data = result_of(folder)
    error = error_in(data)
    if data.get("accepted") is True and error is None and status in (None, Exit.DONE):
        return Ended(End.DONE, at, status=status)
    if error is not None:
        return Ended(_how(error, status), at, error.code, error.message, error.hint, status)
    if status == Exit.INTERRUPTED or _SAFE in tail(folder):
        return Ended(End.STOPPED, at, "internal.interrupted", status=status)
    return Ended(End.SILENT, at, None, tail(folder)[-300:].strip() if status else "", status=status)


def _how(error: DevguardError, status: int | None) -> End:
    if status == Exit.DEVICE:
        return End.DEVICE
    if error.exit_status is Exit.RETRY and status in (None, Exit.RETRY):
        return End.LOST
    return End.REFUSED


def _last_word(folder: Path) -> float:
    """When a run whose end nobody saw last wrote something."""
    times = [path.stat().st_mtime for name in ("err", "out") if (path := folder / name).exists()]
    return max(times, default=folder.stat().st_mtime)


def tail(folder: Path) -> str:
    """The end of what the command said for people."""
    try:
        with (folder / "err").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""

"""Pushes: begun, looked at, stopped, approved, gone on with. Each is `devguard push`, in a session of its own."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from devguard.console.commands import Commands, environment, secret_pipe
from devguard.console.journal import Journal, Run, alive, hold, result_of, tail
from devguard.console.settings import Settings
from devguard.console.stock import needs_two
from devguard.custody.files import file_error
from devguard.errors import DevguardError, LinkError, Malformed, Refused
from devguard.trust.model import same_person

_AGAIN: Final = 30.0  # seconds after which a stop may be asked for once more


class Phase(enum.StrEnum):
    """What a run is doing."""

    CONNECTING = "connecting"
    APPROVAL = "approval"
    SENDING = "sending"
    INSTALLING = "installing"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class State:
    """A run at a moment. `progress`: the newest line of `--progress json`, None before the first."""

    phase: Phase
    progress: dict[str, Any] | None = None

    @property
    def percent(self) -> int:
        """Whole percent that have arrived; 0 before anything has."""
        if not self.progress or not self.progress["total"]:
            return 0
        return min(100, int(100 * self.progress["bytes"] / self.progress["total"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A push that somebody asks for. `key`, `grant`: names in the home; "" lets the command choose. `resumes`: the run
    that it follows; `fresh`: from the beginning all the same."""

    person: str
    port: str
    serial: str
    name: str
    key: str
    grant: str
    passphrase: str = field(repr=False)
    reason: str = ""
    work_order: str = ""
    resumes: str | None = None
    fresh: bool = False


@dataclass(slots=True)
class Runs:
    """The runs of this console's home. Whoever starts one holds the port from the first moment."""

    settings: Settings
    commands: Commands
    journal: Journal = field(init=False)
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.journal = Journal(self.settings.folder / "runs", self.settings.limits.keep_runs, self._status)

    def live(self) -> list[Run]:
        """Those whose process lives."""
        return [run for run in self.journal.all() if run.ended is None]

    def busy(self, port: str) -> Run | None:
        """The run that holds a port."""
        return next((run for run in self.live() if same_port(run.port, port)), None)

    def start(self, wish: Wish, place: Callable[[Path], None]) -> Run:
        """Begin a push; `place` puts the release where it is told. Two who ask at once come one after the other.
        `LinkError("console.busy")` while the port has a run."""
        with self._one:
            if (other := self.busy(wish.port)) is not None:
                raise LinkError(
                    "console.busy",
                    f"a push to {other.port} goes on, begun by {other.person}",
                    f"look at it: {other.id}",
                )
            run_id, folder = self.journal.new_folder()
            with contextlib.ExitStack() as undo:
                undo.callback(shutil.rmtree, folder, ignore_errors=True)
                try:
                    place(folder / "release.suit")
                    run = self._begun(run_id, folder, wish)
                except OSError as error:
                    raise file_error(folder, error) from None
                undo.pop_all()
            self.journal.prune(self.settings.clock(), self.settings.limits.keep_release)
            return run

    def _begun(self, run_id: str, folder: Path, wish: Wish) -> Run:
        args, shown = self._args(wish, folder)
        run = Run(
            id=run_id,
            folder=folder,
            person=wish.person,
            port=wish.port,
            serial=wish.serial,
            name=wish.name,
            key=wish.key,
            grant=wish.grant,
            reason=wish.reason,
            work_order=wish.work_order,
            began=self.settings.clock(),
            shown=self.commands.shown(shown),
            resumes=wish.resumes,
        )
        return self._spawn(run, args, wish.passphrase)

    def _args(self, wish: Wish, folder: Path) -> tuple[list[str], list[str]]:
        """The command, and the same with names that people know."""
        home = self.settings.home
        key = [f"--key={home.keys / (wish.key + '.key')}"] if wish.key else []
        grant = [f"--grant={home.grants / (wish.grant + '.grant')}"] if wish.grant else []
        more = [f"--serial={wish.serial}", f"--port={wish.port}"]
        more += [f"--reason={wish.reason}"] if wish.reason else []
        more += [f"--work-order={wish.work_order}"] if wish.work_order else []
        more += ["--resume"] if wish.resumes and not wish.fresh else []
        second = [f"--approval={folder / 'approval'}"] if needs_two(folder / "release.suit") else []
        args = ["push", *more, *key, *grant, *second, "--progress=json"]
        seen = [f"--key={wish.key}"] if wish.key else []
        seen += [f"--grant={wish.grant}.grant"] if wish.grant else []
        return [*args, str(folder / "release.suit")], ["push", *more, *seen, wish.name]

    def _spawn(self, run: Run, args: list[str], passphrase: str) -> Run:
        """The process, with nothing of ours but its files, its lock and the passphrase."""
        secret, lock = secret_pipe(passphrase), hold(run.folder)
        self.journal.save(run)  # before the process: a run that nobody knows of would be swept away under it
        try:
            with (run.folder / "out").open("xb") as out, (run.folder / "err").open("xb") as err:
                process = subprocess.Popen(  # noqa: S603 (our own command line, no shell)
                    self.commands.line(args, secret=secret),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=environment(),
                    cwd="/",
                    start_new_session=True,
                    pass_fds=(secret, lock),
                )
        except OSError as error:
            raise LinkError("console.command", f"the command could not be started: {error.strerror}") from None
        finally:
            os.close(secret)
            os.close(lock)
        self._children[run.id] = process
        try:
            return self.journal.save(replace(run, pid=process.pid))
        except DevguardError:  # a push that nobody could stop does not go on
            process.send_signal(signal.SIGINT)
            process.wait()
            raise

    def _status(self, run_id: str) -> int | None:
        """The exit status of a process that has ended; None where this console is not its parent."""
        process = self._children.get(run_id)
        return None if process is None else process.wait()

    def state(self, run: Run) -> State:
        """What a run is doing now."""
        progress = _progress(run.folder)
        if run.ended is not None:
            return State(Phase.ENDED, progress)
        if run.stopped is not None:
            return State(Phase.STOPPING, progress)
        if progress is None:
            asked = run.request.exists() and not run.approval.exists()
            return State(Phase.APPROVAL if asked else Phase.CONNECTING)
        return State(Phase.INSTALLING if progress["durable"] >= progress["total"] else Phase.SENDING, progress)

    def stop(self, run: Run, person: str) -> Run:
        """What Ctrl-C is. Once is enough; it is sent again only when nothing has come of it for long."""
        now = self.settings.clock()
        if run.ended is not None or run.pid is None or not alive(run.folder):
            raise Malformed("console.run", "that push has ended already")
        if run.stopped is not None and now - run.stopped < _AGAIN:
            return run
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGINT)
        return self.journal.save(replace(run, stopped=now, stopped_by=person))

    async def approve(self, run: Run, person: str, key: str, grant: str, passphrase: str) -> Run:
        """The second technician's word: `devguard approve`. Nobody approves their own push."""
        if same_person(person) == same_person(run.person):
            raise Refused("grant.quorum", f"{run.person} began this push, and nobody approves their own")
        if self.state(run).phase is not Phase.APPROVAL:
            raise Malformed("console.run", "nothing waits for an approval here")
        home = self.settings.home
        args = [
            "approve",
            f"--key={home.keys / (key + '.key')}",
            f"--grant={home.grants / (grant + '.grant')}",
            f"--release={run.suit}",
            f"--out={run.approval}",
            str(run.request),
        ]
        answer = await self.commands.ask(args, passphrase=passphrase)
        answer.require()
        return self.journal.save(replace(self.journal.get(run.id), approved_by=person))

    def follow(self, run: Run, person: str, passphrase: str) -> Run:
        """The same push again: gone on with where it was cut off, or tried once more where it was refused for what is
        not the release."""
        ended = run.ended
        if ended is None or not (ended.how.resumable or ended.repeatable) or not run.suit.exists():
            raise Malformed("console.run", "that push cannot be gone on with; begin a new one")
        wish = Wish(
            person=person,
            port=run.port,
            serial=run.serial,
            name=run.name,
            key=run.key,
            grant=run.grant,
            passphrase=passphrase,
            reason=run.reason,
            work_order=run.work_order,
            resumes=run.id,
            fresh=ended.repeatable,
        )
        return self.start(wish, lambda path: os.rename(run.suit, path))

    def result(self, run: Run) -> dict[str, Any]:
        """What the command said at its end."""
        return result_of(run.folder)


def same_port(one: str, other: str) -> bool:
    """Whether two names mean one port; links to a device are followed."""
    if "://" in one or "://" in other:
        return one == other
    return os.path.realpath(one) == os.path.realpath(other)


def _progress(folder: Path) -> dict[str, Any] | None:
    """The newest whole line of progress."""
    for line in reversed(tail(folder).splitlines()):
        if not line.startswith("{"):
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        numbers = ("bytes", "durable", "total", "rate", "retransmits", "silent")
        if isinstance(found, dict) and all(isinstance(found.get(name), (int, float)) for name in numbers):
            return found
    return None

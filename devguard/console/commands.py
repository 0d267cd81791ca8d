"""Running a `devguard` command to its end and taking its one JSON object.

For what answers soon (a verdict, the ports, an approval). What goes on while pages come and go is a run: `runs`. No
shell, nothing from standard input, no passphrase and no PIN of whoever started the console: one that lies in their
environment is not one that a person at a browser has given.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from devguard.console.settings import Settings
from devguard.errors import DevguardError, Exit, LinkError, Refused

_LONGEST: Final = 16 << 20  # bytes of an answer; a verdict has some kilobytes, a listing of everything a few megabytes
_GRACE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind. `data`: its JSON object. `shown`: the command as a person would type it."""

    status: int
    data: dict[str, Any]
    shown: str
    err: str = ""

    @property
    def error(self) -> DevguardError | None:
        """The refusal in it, in the contract's form; None where there is none."""
        return error_in(self.data)

    def require(self) -> dict[str, Any]:
        """The data of a command that was done, else its refusal."""
        if self.error is not None:
            raise self.error
        if self.status != Exit.DONE:
            raise Refused("console.command", f"the command ended with {self.status}: {self.err[-300:].strip()}")
        return self.data


def error_in(data: dict[str, Any]) -> DevguardError | None:
    """The refusal that a command's JSON carries."""
    fault = data.get("error")
    if not isinstance(fault, dict) or not isinstance(fault.get("code"), str):
        return None
    return DevguardError(fault["code"], str(fault.get("message", "")), str(fault.get("hint", "")))


def environment() -> dict[str, str]:
    """The environment of every command: ours, without secrets."""
    secret = re.compile(r"DEVGUARD_(.*_)?(PASSPHRASE|PIN)(_.*)?")
    kept = {name: value for name, value in os.environ.items() if not secret.fullmatch(name)}
    return {**kept, "NO_COLOR": "1"}


def secret_pipe(secret: str) -> int:
    """A descriptor from which `secret` can be read as one line; the caller closes it. At most what a pipe holds."""
    if "\n" in secret or "\r" in secret or len(secret.encode()) > 4000:
        raise Refused("key.passphrase", "no passphrase has a line end in it, or that many characters")
    read, write = os.pipe()
    try:
        os.write(write, f"{secret}\n".encode())
    finally:
        os.close(write)
    return read


@dataclass(slots=True)
class Commands:
    """Starts commands on this console's home, so many at once: each is a process."""

    settings: Settings
    _asked: int = 0
    _turns: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._turns = asyncio.Semaphore(self.settings.limits.commands)

    def line(self, args: Sequence[str], *, secret: int | None = None) -> list[str]:
        """The whole command: what is run, and what is recorded of it."""
        more = [] if secret is None else ["--passphrase-fd", str(secret)]
        return [*self.settings.command, *args, "--json", "--home", str(self.settings.home.path), *more]

    @staticmethod
    def shown(args: Sequence[str]) -> str:
        """The command for people: without what only a program adds."""
        return shlex.join(["devguard", *args])

    async def ask(
        self,
        args: Sequence[str],
        *,
        passphrase: str | None = None,
        given: bytes | None = None,
        shown: Sequence[str] | None = None,
        seconds: float | None = None,
    ) -> Answer:
        """Run to the end. `passphrase` goes over a descriptor, `given` over standard input; `shown`: the arguments as
        people see them. `LinkError("console.slow")` when it takes longer than `seconds`, after it was interrupted;
        `LinkError("console.busy")` where too many wait for their turn already."""
        limits = self.settings.limits
        if self._asked >= limits.commands + limits.waiting:
            raise LinkError("console.busy", "very many commands are running or waiting; try again in a moment")
        self._asked += 1
        try:
            async with self._turns:
                seconds = limits.command if seconds is None else seconds
                return await self._run(args, shown or args, passphrase, given, seconds)
        finally:
            self._asked -= 1

    async def _run(
        self, args: Sequence[str], shown: Sequence[str], passphrase: str | None, given: bytes | None, limit: float
    ) -> Answer:
        secret = None if passphrase is None else secret_pipe(passphrase)
        try:
            process = await asyncio.create_subprocess_exec(
                *self.line(args, secret=secret),
                stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(),
                start_new_session=True,
                pass_fds=() if secret is None else (secret,),
                limit=_LONGEST,
            )
        finally:
            if secret is not None:
                os.close(secret)
        try:
            out, err = await asyncio.wait_for(process.communicate(given), limit)
        except TimeoutError:
            raise LinkError("console.slow", f"the command took longer than {limit:.0f} s and was stopped") from None
        finally:
            if process.returncode is None:
                await _ended(process)
        return Answer(int(process.returncode or 0), _object(out), self.shown(shown), err.decode("utf-8", "replace"))


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Stop what takes too long or whose asker went away: as Ctrl-C would, then for good."""
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), _GRACE)
    except TimeoutError:
        process.kill()
        await process.wait()


def _object(out: bytes) -> dict[str, Any]:
    try:
        data = json.loads(out or b"{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}

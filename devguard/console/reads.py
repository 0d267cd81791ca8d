"""What commands that only look have said, kept as long as nothing they looked at has changed.

A page that shows what `devguard technician list` says costs a process once, not at every click. `watch`: the files and
folders an answer depends on; it is asked again when one of them was changed, and after `seconds` in any case, for some
of it is about the time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from devguard.console.commands import Answer, Commands
from devguard.errors import Refused

SECONDS: Final = 60.0
_MOST: Final = 64
_MOST_FILES: Final = 10_000
Print = tuple[tuple[str, int, int], ...]


def fingerprint(paths: Sequence[Path]) -> Print:
    """Names, sizes and times of change of files, and of what lies in folders (one level); what is not there is not."""
    found: list[tuple[str, int, int]] = []
    for path in paths:
        try:
            entries = list(os.scandir(path)) if path.is_dir() else [path]
            for entry in entries[:_MOST_FILES]:
                at = entry.stat()
                found.append((os.fspath(entry), at.st_size, at.st_mtime_ns))
        except OSError:
            continue
    return tuple(sorted(found))


@dataclass(slots=True)
class _Kept:
    print: Print
    until: float
    answer: Answer


@dataclass(slots=True)
class Reads:
    """Answers by the command's arguments; bounded, the oldest goes."""

    commands: Commands
    ticks: Callable[[], float]
    _kept: dict[tuple[str, ...], _Kept] = field(default_factory=dict)
    _asking: dict[tuple[str, ...], asyncio.Lock] = field(default_factory=dict)

    async def answer(self, args: Sequence[str], watch: Sequence[Path], seconds: float = SECONDS) -> Answer:
        """What the command says; raises as `Commands.ask`. Who asks for what is just being asked waits for that."""
        key = tuple(args)
        lock = self._asking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                now = await run_in_threadpool(fingerprint, watch)
                kept = self._kept.get(key)
                if kept is not None and kept.print == now and self.ticks() < kept.until:
                    return kept.answer
                answer = await self.commands.ask(args)
                self._kept.pop(key, None)
                while len(self._kept) >= _MOST:
                    del self._kept[next(iter(self._kept))]
                # What the files were before: a change while the command ran makes it asked again.
                self._kept[key] = _Kept(now, self.ticks() + seconds, answer)
                return answer
        finally:
            if not lock.locked():
                self._asking.pop(key, None)

    async def data(self, args: Sequence[str], watch: Sequence[Path], *keys: str) -> dict[str, Any]:
        """The data of a command that succeeded, with these keys; else its refusal is raised, or `console.command`."""
        data = (await self.answer(args, watch)).require()
        if not all(key in data for key in keys):
            raise Refused("console.command", f"the answer of {args[0]} lacks what it has to have")
        return data

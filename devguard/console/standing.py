"""Whether the evidence log holds, as `devguard evidence verify` says: asked in the background, again when it changed.

A long log takes longer to verify than anybody waits for a page. So what is shown is the last answer with its time, and
whether a newer one is being made; a page waits a moment for it. The command is a process of its own.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devguard.console.commands import Answer, Commands
from devguard.console.reads import Print, fingerprint
from devguard.errors import DevguardError

ARGS: Final = ("evidence", "verify")
LONGEST: Final = 3600.0  # seconds; a log of millions of records
_RECORD: Final = re.compile(r"\brecord (\d+)\b")


@dataclass(frozen=True, slots=True)
class Standing:
    """state: `good`, `bad` (it does not hold), `none` (there is no log), `unknown` (not verified: the command could
    not, or has not been asked yet). time: when it was found out, epoch seconds; current: of the log as it lies there
    now; running: it is being verified. records: how many hold, or stand before the first bad one."""

    state: str
    time: float | None = None
    current: bool = False
    running: bool = False
    records: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    error: DevguardError | None = None


@dataclass(slots=True)
class Watch:
    """The standing of one log. `patience`: seconds that a page waits for the first verification; `again`: for a later
    one, while the last answer can be shown."""

    commands: Commands
    folder: Path
    clock: Callable[[], float]
    patience: float = 1.0
    again: float = 0.15
    _last: tuple[Print, float, Answer] | None = None
    _running: Future[None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> Standing:
        """What is known now; nothing is begun."""
        last, running = self._last, self._running is not None
        if last is None:
            return Standing("unknown", running=running)
        was, time, answer = last
        return _standing(answer, time, current=was == fingerprint([self.folder]), running=running)

    async def now(self, *, older: float = 600.0) -> Standing:
        """The same; verified anew where the log changed, or the last time was more than `older` seconds ago."""
        known = self.look()
        if not known.current or known.time is None or self.clock() - known.time > older:
            running = self.begin()
            waiting = asyncio.wrap_future(running)
            await asyncio.wait([waiting], timeout=self.patience if known.time is None else self.again)
            if not waiting.done():  # nobody asks for it any more; the thread goes on
                waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self.look()

    def begin(self) -> Future[None]:
        """Verify, unless that goes on already."""
        with self._lock:
            if self._running is None:
                self._running = Future()
                threading.Thread(target=self._verify, args=(self._running,), daemon=True).start()
            return self._running

    def _verify(self, future: Future[None]) -> None:
        was = fingerprint([self.folder])
        try:
            answer = asyncio.run(self.commands.ask(ARGS, seconds=LONGEST))
            self._last = was, self.clock(), answer
        except DevguardError as error:
            fault = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
            self._last = was, self.clock(), Answer(int(error.exit_status), fault, "")
        finally:
            with self._lock:
                self._running = None
            future.set_result(None)


def _standing(answer: Answer, time: float, *, current: bool, running: bool) -> Standing:
    error = answer.error
    if error is None and answer.status == 0:
        records = answer.data.get("records")
        return Standing("good", time, current, running, records if isinstance(records, int) else None, answer.data)
    if error is None:
        error = DevguardError("console.command", f"the command ended with {answer.status}")
    if error.code == "log.missing":
        return Standing("none", time, current, running, 0, error=error)
    if error.code in ("log.tampered", "log.truncated"):
        first = _RECORD.search(error.message)
        return Standing("bad", time, current, running, int(first[1]) if first else 0, error=error)
    return Standing("unknown", time, current, running, error=error)

"""What the attack bench asks of the program on the bench's side, and the clock that it shares with the device.

The command line lies in a later room: whoever starts the bench hands it in as a `Host`. A vendor may hand in their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

_NAP: Final = 0.001
_LATELY: Final = 2.0


class Clock(Protocol):
    """Time that may pass faster than it does."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def ticks(self) -> float:
        """Seconds of a steady clock."""
        ...

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass."""
        ...


class BenchClock:
    """Runs with the machine's clock and jumps when told: a wait of ten minutes takes as long as a function call.

    The device, the line and the host program all read it. `wrong`: by how many seconds the host's calendar is off,
    `device_wrong` the device's, where it has one.
    """

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch
        self._start = time.monotonic()
        self._jumped = 0.0
        self._looks: dict[int, tuple[int, float]] = {}  # thread -> how often it has looked, and when last
        self.wrong = self.device_wrong = 0.0

    def ticks(self) -> float:
        """Seconds since the clock was made."""
        now, thread = time.monotonic(), threading.get_ident()
        self._looks[thread] = (self._looks.get(thread, (0, 0.0))[0] + 1, now)
        return now - self._start + self._jumped

    def forget(self) -> None:
        """This thread looks at the clock no more: nobody waits for it."""
        self._looks.pop(threading.get_ident(), None)

    def looks(self) -> dict[int, int]:
        """How often each thread has looked at the clock that has done so lately: the others wait for nothing."""
        now = time.monotonic()
        return {thread: count for thread, (count, last) in list(self._looks.items()) if now - last < _LATELY}

    def all_waiting(self, since: Mapping[int, int]) -> bool:
        """Whether everybody who looks at the clock has come round a wait since then, and nobody is at work."""
        return all(count >= since.get(thread, 0) + 2 for thread, count in self.looks().items())

    def true_time(self) -> float:
        """Seconds since the epoch, as the world has it."""
        return self._epoch + self.ticks()

    def time(self) -> float:
        """Seconds since the epoch, as the host program believes."""
        return self.true_time() + self.wrong

    def device_time(self) -> float:
        """Seconds since the epoch, as the device's clock chip has it."""
        return self.true_time() + self.device_wrong

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        self._jumped += seconds

    def pause(self, seconds: float) -> None:
        """A wait of the host program."""
        time.sleep(_NAP)  # the other threads get their turn
        self.advance(seconds)

    def set_to(self, ticks: float) -> None:
        """Go on from there: every row of the bench begins at the same moment."""
        self._start, self._jumped = time.monotonic(), ticks
        self.wrong = self.device_wrong = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command of the host program ended."""

    status: int
    data: Mapping[str, Any]

    @property
    def code(self) -> str | None:
        """The refusal's code, None when there was none."""
        fault = self.data.get("error")
        code = self.data.get("code") or (fault.get("code") if isinstance(fault, Mapping) else None)
        return str(code) if code is not None else None


class Host(Protocol):
    """The program under test on the bench's side: devguard's command line, in this process."""

    def run(
        self, args: Sequence[str | Path], home: Path, clock: Clock, env: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """One command on that home: (exit status, the one JSON object it prints)."""
        ...

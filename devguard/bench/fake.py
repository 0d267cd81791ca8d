"""A device that is none: it speaks the link well and says what its owner was told to say. On a pseudo-terminal."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

from devguard.device.emulator import PtyLine
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Message, Role
from devguard.link.parameters import LinkParameters

_TICK: Final = 0.01
Answers = Callable[[bytes], Sequence[bytes]]
"""What it says to a message in clear."""


class FakeDevice:
    """Answers every message in clear with what `answers` gives; of a sealed one it understands nothing.

    `port` is for the bench. Use as a context manager.
    """

    def __init__(self, answers: Answers, clock: Callable[[], float]) -> None:
        self._answers = answers
        self._line = PtyLine(clock)
        self.port = self._line.port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-device", daemon=True)

    def _run(self) -> None:
        engine = LinkEngine(Role.DEVICE, LinkParameters(baud=0), os.urandom)
        driver = self._line.driver
        while not self._stop.is_set() and engine.failed is None:
            for event in driver.pump(engine, _TICK):
                if isinstance(event, Message) and event.channel is Channel.PLAIN:
                    for answer in self._answers(event.data):
                        engine.send(Channel.PLAIN, answer, driver.clock())

    def __enter__(self) -> FakeDevice:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._line.close()


def recorded_answers(messages: Sequence[bytes]) -> Answers:
    """Says one recorded message for each that it hears, in their order, then nothing more."""
    left = list(messages)
    return lambda _heard: [left.pop(0)] if left else []

"""The therapy on a thread of its own, which no conversation can hold up, stop or crash.

The loop owns the therapy: it alone lets time pass, under its own lock, which nobody holds while waiting for anything.
After every change it publishes what the rest of the device may see, as a value; the guard reads that value and nothing
else, so a guard that hangs or dies in mid-sentence leaves no lock behind. Nothing here reads anything of the guard.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from devguard.device.therapy import Therapy
from devguard.errors import DevguardError

TICK: Final = 0.25
SAVE_EVERY: Final = 8
"""Ticks between two writes of the therapy's course."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """A `TherapyView` of one moment."""

    idle: bool
    alarms: tuple[str, ...]
    damage: tuple[str, ...]
    history_digest: bytes
    settings: bytes
    ticks: int

    def settings_digest(self) -> bytes:
        """SHA-256 over profile and settings."""
        return self.settings


class TherapyLoop:
    """One device's therapy, ticking. It is itself the `TherapyView` that the rest of the device is given."""

    def __init__(self, therapy: Therapy, clock: Callable[[], int], save: Callable[[Therapy], Therapy | None]) -> None:
        """`clock`: seconds since the epoch. `save` makes the course durable; where it fails the therapy goes on. It
        gives back the therapy to go on with instead where the device was erased meanwhile."""
        self._therapy = therapy
        self._clock = clock
        self._save = save
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="therapy")
        self._running: Future[None] | None = None
        self._ticks = 0
        self.unsaved: DevguardError | None = None
        self._seen = self._look()

    # the thread

    def start(self) -> None:
        """Begin; a `TherapyLoop` runs once."""
        self._running = self._pool.submit(self._run)

    def stop(self) -> None:
        """End, with the course saved. Raises what ended the loop before, if anything did, or could not be saved."""
        self._stopping.set()
        self._pool.shutdown()
        if self._running is not None:
            self._running.result()
        self._keep()
        if self.unsaved is not None:
            raise self.unsaved

    @property
    def failed(self) -> BaseException | None:
        """What ended the loop while it should run."""
        return self._running.exception() if self._running is not None and self._running.done() else None

    def _run(self) -> None:
        while not self._stopping.wait(TICK):
            self.tick()

    def tick(self) -> None:
        """One turn of the loop: time passes, and every so often the course is saved."""
        self._ticks += 1
        self.change(lambda therapy: therapy.tick(self._clock()))
        if self._ticks % SAVE_EVERY == 0:
            self._keep()

    def _keep(self) -> None:
        with self._lock:
            moment = copy.copy(self._therapy)  # its state is a value: the disk is waited for without the lock
        try:
            fresh = self._save(moment)
        except DevguardError as error:
            self.unsaved = error
            return
        self.unsaved = None
        if fresh is not None:
            with self._lock:
                self._therapy = fresh
                self._seen = self._look()

    # the device's own keys

    def change(self, act: Callable[[Therapy], T]) -> T:
        """Do something with the therapy: a key of the device was pressed, or time passes."""
        with self._lock:
            done = act(self._therapy)
            self._seen = self._look()
        return done

    def _look(self) -> Seen:
        one = self._therapy
        return Seen(one.idle, one.alarms, one.damage, one.history_digest, one.settings_digest(), self._ticks)

    # what the rest of the device sees

    @property
    def seen(self) -> Seen:
        """The therapy as of its last change."""
        return self._seen

    @property
    def idle(self) -> bool:
        """See `TherapyView`."""
        return self._seen.idle

    @property
    def alarms(self) -> tuple[str, ...]:
        """See `TherapyView`."""
        return self._seen.alarms

    @property
    def damage(self) -> tuple[str, ...]:
        """See `TherapyView`."""
        return self._seen.damage

    @property
    def history_digest(self) -> bytes:
        """See `TherapyView`."""
        return self._seen.history_digest

    def settings_digest(self) -> bytes:
        """See `TherapyView`."""
        return self._seen.settings

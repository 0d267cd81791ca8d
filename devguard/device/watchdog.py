"""Keeps a device's guard alive: it runs on a thread of its own, and is started again when it dies.

The guard is what boots, judges and answers the line. A crash of it is a reset of the guard and of nothing else: the
therapy's loop never hears of it. A power cut and what the guard itself calls an error end both, as they always did.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from devguard.device.flash import PowerCut
from devguard.device.therapy_loop import TherapyLoop
from devguard.errors import DevguardError

Stop = Callable[[], bool]
_LOOK: Final = 0.1
_PAUSE: Final = 1.0
"""Seconds before a guard that died is started again."""


def keep_guard(
    guard: Callable[[Stop], None], therapy: TherapyLoop, stop: Stop, told: Callable[[BaseException], None]
) -> None:
    """Run `guard` until `stop()`, again after every crash, each of which is `told`. `guard` is given its own stop.

    Raises what ended the therapy, and of the guard `PowerCut` and devguard's own errors.
    """
    over: list[bool] = []

    def ends() -> bool:
        return bool(over) or stop() or therapy.failed is not None

    with ThreadPoolExecutor(1, thread_name_prefix="guard") as pool:
        try:
            while not ends():
                error = _watched(pool.submit(guard, ends), ends)
                if error is None:
                    break
                if isinstance(error, (PowerCut, DevguardError)):
                    raise error
                told(error)
                _rest(ends)
        finally:
            over.append(True)
    if (failed := therapy.failed) is not None:
        raise failed


def _watched(running: Future[None], ends: Stop) -> BaseException | None:
    """What the guard ended with. When all is over it ends by itself, and is waited for."""
    while not running.done() and not ends():
        wait([running], _LOOK)
    return running.exception()


def _rest(ends: Stop) -> None:
    """A guard that dies as soon as it starts does not take the machine with it."""
    never = threading.Event()
    for _ in range(round(_PAUSE / _LOOK)):
        if ends():
            return
        never.wait(_LOOK)

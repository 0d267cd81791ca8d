"""A device whose state lies in a folder, as `devguard emulate` keeps it: for rows about what lies there.

The real unit over its state directory, its therapy on its own thread, its guard in another, on a pseudo-terminal; the
clock is the bench's.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final

from devguard.bench.attacks.device import Brisk
from devguard.bench.attacks.host import BenchClock
from devguard.cose.sign import Signer
from devguard.device.emulator import PtyLine, serve_line
from devguard.device.models import Model
from devguard.device.node import Surroundings
from devguard.device.provision import provision
from devguard.device.storage import DeviceDirectory
from devguard.device.therapy_loop import TherapyLoop
from devguard.device.unit import Unit

FACTORY: Final = "Emil Factory"


class DeviceOnDisk:
    """One emulated device over `folder`, enrolled by `factory` at its first start. A context manager: on while it is
    entered, and may be entered again."""

    def __init__(
        self, model: Model, folder: Path, serial: str, trust: bytes, factory: Signer, clock: BenchClock
    ) -> None:
        self.model, self.folder, self.serial = model, folder, serial
        self._trust, self._factory, self._clock = trust, factory, clock

    def enrol(self, directory: DeviceDirectory) -> None:
        """Make it that device. Raises as `devguard.device.provision.provision`."""
        provision(
            directory,
            serial=self.serial,
            revision=self.model.default_revision,
            site=None,
            trust=self._trust,
            authority=self._factory,
            issuer=FACTORY,
            now=self._now(),
            random=os.urandom,
        )

    @property
    def port(self) -> str:
        """Where a bench finds it."""
        return self._line.port

    def _now(self) -> int:
        return int(self._clock.true_time())

    def __enter__(self) -> DeviceOnDisk:
        self._directory = DeviceDirectory(self.folder, self.model)
        if self._directory.identity is None and not self._directory.erasing.begun:
            self.enrol(self._directory)
        self._therapy = TherapyLoop(self._directory.load_therapy(), self._now, self._directory.save_therapy)
        around = Surroundings(self._now, self._clock.ticks, lambda: 100, os.urandom, lambda: True)
        unit = Unit(self._directory, around, self._therapy)
        unit.boot()
        self._line = PtyLine(self._clock.ticks)
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="device-on-disk")
        self._therapy.start()
        self._serving: Future[None] = self._pool.submit(
            serve_line, self._line, unit, os.urandom, self._stopping.is_set, Brisk
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._pool.shutdown()
        self._therapy.stop()
        self._line.close()
        self._directory.close()
        if kind is None:
            self._serving.result()

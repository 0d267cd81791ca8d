"""The bench room's virtual line between a bench and a test's device, with harm done frame by frame."""

from __future__ import annotations

import random
from typing import Any

from devguard.bench import line
from devguard.device.emulator import EmulatedDevice
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner
from rooms.link_support import Faults, FrameWay
from sim.bench import Device, entropy, fresh_number


class VirtualLine(line.VirtualLine):
    """A host's end and an emulated device on one faulty line. `host` is a driver for `ScriptRunner`; `faults` may be
    changed at any time."""

    def __init__(self, device: Device, *, seed: int = 1, faults: Faults | None = None) -> None:
        self.bench_device = device
        self.faults = faults or Faults(baud=0)
        chances = random.Random(seed)
        super().__init__(line.VirtualClock(), FrameWay(self, chances), FrameWay(self, chances))
        self.serve(EmulatedDevice(device.node, self.device, entropy(f"line/{seed}")))

    def runner(self, **fields: Any) -> ScriptRunner:
        """Runs a bench's scripts over the line."""
        baud = self.faults.baud
        return ScriptRunner(
            self.host, LinkParameters(baud=baud), entropy(f"host engines {next(fresh_number)}"), **fields
        )

    def turn(self) -> None:
        """The device's own clock is the line's."""
        self.bench_device.up = self.now
        super().turn()

"""The same push as `link_run.run_virtual`, in real time: bench, line and device are three processes with ports between.

The figures have the machine's own pauses in them: on a busy one, at high speeds, they say less than those of the
virtual clock. Nothing outlives the call: line and device end with their owner, also when a Ctrl-C ends that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Final

from devguard.bench.link_run import Figures, Onlooker, Stopwatch, Trial, slow_flash
from devguard.bench.pty_line import LineProcess
from devguard.bench.stage import Stage, stream
from devguard.bench.way import Shape
from devguard.device.emulator import EmulatedDevice
from devguard.device.models import load_model
from devguard.errors import LinkError
from devguard.link.driver import SerialDriver
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner

_STOP_SECONDS: Final = 5.0


def run_real(trial: Trial, onlooker: Onlooker | None = None) -> Figures:
    """The push over pseudo-terminals. Raises what a push raises: a line may be too bad to use."""
    baud = trial.shape.baud
    with LineProcess(trial.shape, trial.seed) as line, _Device(trial, line.far):
        with SerialDriver.open(line.near, baud) as driver:
            watch = Stopwatch(driver.clock, onlooker)
            random = stream(f"link/{trial.seed}/host engine")
            runner = ScriptRunner(driver, LinkParameters(baud=baud), random, engine=watch.engine)
            stage = Stage(trial.model, f"link/{trial.seed}", driver.clock)
            runner.run(watch.push(stage.update(stage.build(trial.size))))
        counts, late = line.counts(), line.late()
    return Figures(
        trial=trial,
        wire_forward=counts["forward"],
        wire_reverse=counts["reverse"],
        retransmits=sum(one.retransmits for one in runner.statistics),
        data_seconds=watch.last_data - watch.first_data,
        session_seconds=watch.committed - watch.began,
        late_seconds=late,
    )


class _Device:
    """The device of a stage in a process of its own, on a port; it ends with its owner."""

    def __init__(self, trial: Trial, port: str) -> None:
        given = {"model": trial.model.name, "seed": trial.seed, "flash_timing": trial.flash_timing, "port": port}
        self._process = subprocess.Popen(  # noqa: S603 (this very module)
            [sys.executable, "-m", "devguard.bench.pty_run", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        out = self._process.stdout
        if out is None or not out.readline():  # its line says that it listens
            self.__exit__(None, None, None)
            raise LinkError("link.port", f"the device on {port} did not start")

    def __enter__(self) -> _Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _owner_gone() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main() -> int:
    """The device's process: it lives as long as its standard input, or as its port."""
    parser = argparse.ArgumentParser(description="the emulated device of a bench, on a port")
    parser.add_argument("given", type=json.loads)
    given = parser.parse_args().given
    trial = Trial(load_model(given["model"]), 0, Shape(), given["seed"], given["flash_timing"])
    stage = Stage(trial.model, f"link/{trial.seed}", time.monotonic, slow_flash(trial, time.sleep))
    with SerialDriver.open(given["port"], trial.shape.baud) as driver:
        device = EmulatedDevice(stage.node, driver, stream(f"link/{trial.seed}/device engine"))
        print("ready", flush=True)
        with contextlib.suppress(LinkError):  # the cable is out: the bench is over
            device.serve(_owner_gone)
    return 0


if __name__ == "__main__":
    sys.exit(main())

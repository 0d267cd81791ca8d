"""The oracles of a row: what was before, what is after, and who has to have refused and recorded it.

An attempt is a function that gives the code it ended with, None when it went through. `refuses` looks at the device and
at both logs before and after it: the device must be what it was, the old records must be there byte for byte, and the
refusal must stand in the log exactly once, in the log of whoever refused. See `By`.
"""

from __future__ import annotations

import contextlib
import enum
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devguard.bench.attacks.device import BenchDevice
from devguard.bench.attacks.row import OutOfReach
from devguard.bench.attacks.state import BenchLog, Snapshot, added_events, bench_log
from devguard.bench.attacks.world import World
from devguard.bench.stage import Build
from devguard.bench.tap import LineTap

Attempt = Callable[[], str | None]
PATIENCE: Final = 5.0  # longer than any device backs off after failed handshakes


class By(enum.Enum):
    """Who has to refuse an attempt, and so whose log has to say it once."""

    OFFLINE = "the host program, before it opened the port"
    HOST = "the host program, after it had heard the device"
    DEVICE = "the device, and the host program recorded it"
    DEVICE_ALONE = "the device, of a host that checks and records nothing"
    NOBODY = "nobody in particular: it comes to nothing"


@dataclass(slots=True)
class Look:
    """State and logs at one moment."""

    state: Snapshot
    log: BenchLog


@dataclass(slots=True)
class Oracles:
    """A row's world, and what was found in it so far. `full`: counts in the thousands are wanted; `noted`: what the
    log of a device from outside has to say in the end; None where it may say anything."""

    world: World
    folder: Path
    home: Path
    full: bool = False
    broken: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    noted: list[str | None] | None = field(default_factory=list)
    refused: bool = True
    state_unchanged: bool = True
    recorded: bool = True

    @property
    def device(self) -> BenchDevice:
        """The device under attack."""
        return self.world.device

    @property
    def tap(self) -> LineTap:
        """The tap on its line."""
        return self.world.device.tap

    def look(self) -> Look:
        """State and logs as they are."""
        return Look(self.device.snapshot(), bench_log(self.home / "evidence"))

    def refuses(
        self, what: str, attempt: Attempt, *codes: str, by: By, allowed: tuple[str, ...] = (), device: str | None = None
    ) -> str | None:
        """The attempt must end with one of `codes`, leave the device as it was, and stand once in the log of whoever
        refused. `allowed`: what of the state it may change all the same; `device`: the code in the device's own log,
        where the line keeps it from the host."""
        if not self.world.outside:
            self.world.clock.advance(PATIENCE)
        before = self.look()
        silent = self.tap.moved[0]
        code = attempt()
        self.device.settle()
        said = self.tap.moved[0] - silent
        after = self.look()
        self.attempts.append(f"{what}: {code or 'went through'}")
        if code not in codes:
            self.refused = self.refused and code is not None
            self.broken.append(f"{what}: {code or 'was accepted'}, expected {' or '.join(codes)}")
        elif code is not None:
            self.codes.append(code)
        self._unchanged(what, before, after, allowed)
        self._log_of_bench(what, before.log, after.log, code, by)
        self._log_of_device(what, before.state, after.state, device or code, by)
        if by is By.OFFLINE and said:
            self.broken.append(f"{what}: {said} bytes went to the device before the refusal")
        return code

    def comes_to_nothing(self, what: str, act: Callable[[], Any], *, allowed: tuple[str, ...] = ()) -> None:
        """The act must leave the device as it was; whether anybody answers is not asked."""
        before = self.look()
        act()
        after = self.look()
        self.attempts.append(f"{what}: nothing came of it")
        self._note(None)
        self._unchanged(what, before, after, allowed)

    def finds(self, what: str, attempt: Attempt, *codes: str) -> str | None:
        """The attempt must end with one of `codes` and leave the device as it was. Of the station's log, which is what
        is attacked here, nothing more is asked."""
        before = self.device.snapshot()
        code = attempt()
        after = self.device.snapshot()
        self.attempts.append(f"{what}: {code or 'went through'}")
        self._note(None)
        if code not in codes:
            self.refused = self.refused and code is not None
            self.broken.append(f"{what}: {code or 'was accepted'}, expected {' or '.join(codes)}")
        elif code is not None:
            self.codes.append(code)
        changed = before.differences(after)
        if changed:
            self.state_unchanged = False
            self.broken.append(f"{what}: the device changed: {', '.join(changed)}")
        return code

    def holds(self, what: str, condition: bool) -> None:
        """Something that must be so."""
        self.shown.append(what)
        if not condition:
            self.broken.append(f"not so: {what}")

    @contextlib.contextmanager
    def bounded(self, who: str, most: int = 4 << 20) -> Iterator[None]:
        """Whoever reads in here may not hold more than `most` bytes for it at any moment, whatever a length says."""
        ours = not tracemalloc.is_tracing()
        if ours:
            tracemalloc.start()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            yield
        finally:
            grown = tracemalloc.get_traced_memory()[1] - before
            if ours:
                tracemalloc.stop()
        self.holds(f"{who} held {grown >> 10} KiB for it at most", grown < most)

    def goes_through(self, what: str, act: Attempt) -> None:
        """An honest act that must succeed: a bench that refuses everything proves nothing."""
        code = act()
        self.attempts.append(f"{what}: {code or 'went through'}")
        if code == "device.busy" and self.world.outside:
            raise OutOfReach("the device takes no more pushes this hour: its erase budget is spent")
        self.world.refresh()
        if code is not None:
            self.broken.append(f"{what}: an honest act was refused with {code}")

    def runs_whole(self, what: str, *builds: Build) -> None:
        """The device runs one of these releases, whole and confirmed, or will after its next boot."""
        self.device.settle()
        digests, found = {build.envelope.manifest_digest for build in builds}, self.device.running()
        good = bool(found) and digests.issuperset(found)
        self.holds(f"{what}: it runs a judged release, whole", good)

    def _unchanged(self, what: str, before: Look, after: Look, allowed: tuple[str, ...]) -> None:
        changed = before.state.differences(after.state, allowed=allowed)
        if changed:
            self.state_unchanged = False
            self.broken.append(f"{what}: the device changed: {', '.join(changed)}")

    def _log_of_bench(self, what: str, before: BenchLog, after: BenchLog, code: str | None, by: By) -> None:
        added = before.added(after)
        if added is None:
            self._unrecorded(f"{what}: old records of the bench's log are not what they were")
            return
        refusals = [record.code for record in added if record.code is not None]
        wanted = [code] if by in (By.OFFLINE, By.HOST, By.DEVICE) else []
        if by is not By.NOBODY and refusals != wanted:
            self._unrecorded(f"{what}: the bench's log has {refusals or 'no refusal'}, not {wanted or 'none'}")

    def _log_of_device(self, what: str, before: Snapshot, after: Snapshot, code: str | None, by: By) -> None:
        wanted = [code] if by in (By.DEVICE, By.DEVICE_ALONE) else []
        if self.world.outside:
            self._note(None if by is By.NOBODY else wanted)
            return
        added = [event.code for event in added_events(before.audit, after.audit) if event.name == "refused"]
        if by is not By.NOBODY and added != wanted:
            self._unrecorded(f"{what}: the device's log has {added or 'no refusal'}, not {wanted or 'none'}")

    def _note(self, codes: list[str | None] | None) -> None:
        """For the end: reading the log of a device from outside is an act of its own."""
        self.noted = None if self.noted is None or codes is None else self.noted + codes

    def _unrecorded(self, why: str) -> None:
        self.recorded = False
        self.broken.append(why)

    @property
    def why(self) -> str:
        """What broke, or in short what was shown."""
        if self.broken:
            return "; ".join(self.broken)
        codes = ", ".join(dict.fromkeys(self.codes))
        said = (
            [f"{len(self.attempts)} attempts" + (f", refused with {codes}" if codes else "")] if self.attempts else []
        )
        return "; ".join([*said, *self.shown])

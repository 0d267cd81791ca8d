"""A real emulator process behind a real pseudo-terminal: pushed to, killed in mid transfer, started again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from builders import NOW
from devguard.cose.roles import RoleName
from devguard.device.models import load_model
from devguard.device.provision import provision
from devguard.device.storage import DeviceDirectory
from devguard.errors import DevguardError, LinkError
from devguard.link.driver import SerialDriver
from devguard.link.parameters import LinkParameters
from devguard.link.runner import ScriptRunner
from devguard.session.update import UpdateSession, after_reboot, fetch_report
from sim.bench import PUMP, SERIAL, SITE, Build, Device, bench_for, build, checked, grant, judged, vendor_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
START_SECONDS = 20.0


@dataclass
class Shelf:
    """A state directory and the emulators started on it."""

    path: Path
    device: Device = field(default_factory=lambda: Device(model=load_model(PUMP)))
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        with DeviceDirectory(self.path, load_model(PUMP)) as directory:
            provision(
                directory,
                serial=SERIAL,
                revision="revA",
                site=SITE,
                trust=vendor_of().trust_bytes,
                authority=vendor_of().signer(RoleName.DEVICE_AUTHORITY),
                issuer="Dana Factory",
                now=NOW,
                random=os.urandom,
            )

    def start(self) -> tuple[subprocess.Popen[str], str]:
        """An emulator on the directory and its port; the contract's first line says which."""
        home = str(self.path.parent / "home")
        command = [
            sys.executable,
            "-m",
            "devguard.cli.main",
            "emulate",
            PUMP,
            "--state",
            str(self.path),
            "--home",
            home,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, error = process.communicate(timeout=START_SECONDS)
            raise AssertionError(error)
        said = json.loads(line)
        assert (said["model"], said["serial"], said["state"]) == (PUMP, SERIAL, str(self.path))
        return process, said["port"]

    def settings(self) -> bytes:
        """Digest of the therapy settings on disk."""
        with DeviceDirectory(self.path, load_model(PUMP)) as directory:
            return directory.load_therapy().settings_digest()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    one = Shelf(tmp_path / "device")
    yield one
    for process in one.running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def session_for(shelf: Shelf, what: Build, progress: Callable[[int, int], None] | None = None) -> UpdateSession:
    device = shelf.device
    one = grant(device)
    payload = io.BytesIO(what.image)
    return UpdateSession(
        judged(device, what), checked(device, one), bench_for(device, one), what.offer, payload, queued=progress
    )


def on_port(port: str, script: Any) -> Any:
    """A script's result over the pseudo-terminal."""
    with SerialDriver.open(port, 115_200) as driver:
        return ScriptRunner(driver, replace(LinkParameters(), baud=4_000_000), os.urandom, 10.0).run(script)


def pushed(shelf: Shelf, port: str, what: Build) -> Any:
    """An honest push and the report after it."""
    session = session_for(shelf, what)
    on_port(port, session.push())
    for _ in range(5):
        try:
            report, _ = on_port(port, fetch_report(session.bench))
            break
        except LinkError:
            continue
    after_reboot(session.release, report)
    return report


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0


def test_a_push_to_a_process_and_its_orderly_end(shelf: Shelf) -> None:
    before = shelf.settings()
    process, port = shelf.start()
    report = pushed(shelf, port, build(shelf.device, "1.0.0", 1, 20_000))
    assert (report.version, report.confirmed, report.settings_digest) == ("1.0.0", True, before)
    stop(process)
    assert shelf.settings() == before
    again, port = shelf.start()
    report, _ = on_port(port, fetch_report(bench_for(shelf.device, grant(shelf.device))))
    assert (report.version, report.confirmed) == ("1.0.0", True)
    stop(again)


def test_killed_three_times_in_mid_transfer_it_boots_the_old_image_and_takes_the_next_push(shelf: Shelf) -> None:
    settings, source = shelf.settings(), random.Random(7)
    process, port = shelf.start()
    old = build(shelf.device, "1.0.0", 1, 20_000)
    pushed(shelf, port, old)
    new = build(shelf.device, "1.1.0", 2, 420_000)
    reached = 0
    for moment in sorted(source.randrange(20_000, 160_000) for _ in range(3)):

        def kill(done: int, _total: int, moment: int = moment) -> None:
            if done >= moment:
                process.kill()  # noqa: B023

        with pytest.raises(DevguardError) as error:
            on_port(port, session_for(shelf, new, kill).push())
        assert error.value.code in ("link.port", "link.timeout")
        process.communicate(timeout=START_SECONDS)
        assert process.returncode == -signal.SIGKILL
        assert shelf.settings() == settings
        with DeviceDirectory(shelf.path, load_model(PUMP)) as directory:
            download = directory.counters.load().download
            assert download is not None
            assert download.offset >= reached
            reached = download.offset
        process, port = shelf.start()
        report, _ = on_port(port, fetch_report(bench_for(shelf.device, grant(shelf.device))))
        assert (report.version, report.confirmed, report.manifest_digest) == ("1.0.0", True, old.manifest_digest)
    assert reached > 0
    report = pushed(shelf, port, new)
    assert (report.version, report.confirmed, report.settings_digest) == ("1.1.0", True, settings)
    assert report.settings_before == settings
    stop(process)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_any_moment_of_a_push_it_comes_up_with_a_whole_image(shelf: Shelf, seed: int) -> None:
    source, settings = random.Random(seed), shelf.settings()
    process, port = shelf.start()
    old, new = build(shelf.device, "1.0.0", 1, 20_000), build(shelf.device, "1.1.0", 2, 60_000)
    pushed(shelf, port, old)
    killer = threading.Timer(source.uniform(0.0, 0.4), process.kill)
    killer.start()
    with contextlib.suppress(DevguardError):
        on_port(port, session_for(shelf, new).push())
    killer.join()
    process.communicate(timeout=START_SECONDS)
    process, port = shelf.start()
    report, _ = on_port(port, fetch_report(bench_for(shelf.device, grant(shelf.device))))
    assert report.version in ("1.0.0", "1.1.0")
    assert report.settings_digest == settings
    if report.version == "1.0.0":
        assert pushed(shelf, port, new).version == "1.1.0"
    stop(process)


def test_one_state_directory_has_one_emulator(shelf: Shelf) -> None:
    process, _ = shelf.start()
    with pytest.raises(AssertionError, match=r"device\.busy"):
        shelf.start()
    assert shelf.running[-1].returncode not in (0, 70)
    assert process.poll() is None
    stop(process)


def test_an_interrupt_says_so(shelf: Shelf) -> None:
    process, _ = shelf.start()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=START_SECONDS)
    assert process.returncode == 130

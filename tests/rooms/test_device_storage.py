"""The state directory: nothing half done at a kill, nothing shared, nothing damaged taken for good."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from devguard.device.bootloader import Bootloader, BootState
from devguard.device.counters import Counters
from devguard.device.models import load_model
from devguard.device.storage import DeviceDirectory, FileBackend, StoredIdentity, StoredKey
from devguard.device.therapy import PumpTherapy
from devguard.errors import LocalProtocolError, Refused
from device_support import NOW, SMALL, accept, make_build, small_model

MODEL = small_model()
IDENTITY = StoredIdentity(
    "insulin-pump", "revA", "P-0001", "ward 7", (StoredKey(b"pem one", b"cred one"), StoredKey(b"pem two", b"cred two"))
)


def provisioned(path: Path) -> Path:
    with DeviceDirectory(path, MODEL) as device:
        device.provision(IDENTITY, b"trust document")
    return path


def refused_open(path: Path) -> str:
    with pytest.raises(Refused) as refused, DeviceDirectory(path, MODEL) as device:
        device.load_therapy()
        device.trust()
    return refused.value.code


def test_a_new_directory_is_an_erased_unprovisioned_device(tmp_path: Path) -> None:
    with DeviceDirectory(tmp_path / "new" / "device", MODEL) as device:
        assert device.identity is None
        assert device.counters.load() == Counters()
        assert device.flash().is_blank(0, SMALL.flash.size)
        with pytest.raises(Refused) as refused:
            device.trust()
        assert refused.value.code == "device.unprovisioned"


def test_the_flash_file_is_sparse(tmp_path: Path) -> None:
    with DeviceDirectory(tmp_path, load_model("pacemaker-programmer")) as device:
        assert device.flash().is_blank(8 << 20, 1 << 20)
    status = (tmp_path / "flash.bin").stat()
    assert status.st_size > 16 << 20
    assert status.st_blocks * 512 < 1 << 20


def test_a_device_is_provisioned_once_and_remembers(tmp_path: Path) -> None:
    provisioned(tmp_path)
    with DeviceDirectory(tmp_path, MODEL) as device:
        assert device.identity == IDENTITY
        assert device.trust() == b"trust document"
        device.save_trust(b"newer")
        assert device.trust() == b"newer"
        with pytest.raises(Refused) as refused:
            device.provision(IDENTITY, b"other")
        assert refused.value.code == "device.provisioned"
    assert (tmp_path / "device-0.key").stat().st_mode & 0o777 == 0o600


def test_state_survives_reopening(tmp_path: Path) -> None:
    provisioned(tmp_path)
    with DeviceDirectory(tmp_path, MODEL) as device:
        device.counters.save(device.counters.load().with_clock_floor(77))
        with pytest.raises(LocalProtocolError):
            device.counters.save(Counters())
        therapy = device.load_therapy()
        assert isinstance(therapy, PumpTherapy)
        therapy.start_bolus(1000, NOW)
        device.save_therapy(therapy)
        device.flash().program(64, b"\x12\x34\x56\x78")
    with DeviceDirectory(tmp_path, MODEL) as device:
        assert device.counters.load().clock_floor == 77
        assert not device.load_therapy().idle
        assert device.flash().read(64, 4) == b"\x12\x34\x56\x78"


def test_two_processes_cannot_share_a_directory(tmp_path: Path) -> None:
    with DeviceDirectory(tmp_path, MODEL):
        assert refused_open(tmp_path) == "device.busy"
    with DeviceDirectory(tmp_path, MODEL) as device:
        device.close()
        with pytest.raises(LocalProtocolError):
            device.flash()


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    provisioned(tmp_path)
    with pytest.raises(Refused) as refused:
        DeviceDirectory(tmp_path, load_model("pacemaker-programmer"))
    assert refused.value.code == "device.state"
    DeviceDirectory(tmp_path, MODEL).close()  # and the lock was given back


@pytest.mark.parametrize("name", ["counters.cbor", "identity.cbor", "device-0.key", "device-1.key", "current.trust"])
def test_a_missing_file_is_no_fresh_start(tmp_path: Path, name: str) -> None:
    provisioned(tmp_path)
    (tmp_path / name).unlink()
    assert refused_open(tmp_path) == ("device.unprovisioned" if name == "identity.cbor" else "device.state")


@pytest.mark.parametrize("name", ["counters.cbor", "identity.cbor"])
def test_damage_at_every_byte_is_refused(tmp_path: Path, name: str) -> None:
    provisioned(tmp_path)
    path = tmp_path / name
    good = path.read_bytes()
    for offset in range(len(good)):
        for bad in (good[:offset], good[:offset] + bytes([good[offset] ^ 1 << offset % 8]) + good[offset + 1 :]):
            path.write_bytes(bad)
            assert refused_open(tmp_path) == "device.state"
    path.write_bytes(good + b"\x00")
    assert refused_open(tmp_path) == "device.state"
    path.write_bytes(bytes(2 << 20))
    assert refused_open(tmp_path) == "device.state"


def test_a_flash_file_of_another_size_is_refused(tmp_path: Path) -> None:
    provisioned(tmp_path)
    with (tmp_path / "flash.bin").open("ab") as file:
        file.write(b"x")
    assert refused_open(tmp_path) == "device.state"


def test_a_key_others_can_read_is_refused(tmp_path: Path) -> None:
    provisioned(tmp_path)
    (tmp_path / "device-0.key").chmod(0o644)
    assert refused_open(tmp_path) == "key.file"


def test_a_directory_that_cannot_be_made_is_a_coded_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Exception) as caught:
        DeviceDirectory(tmp_path / "file" / "device", MODEL)
    assert getattr(caught.value, "code", None) in ("file.missing", "file.unreadable")


def test_leftovers_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    provisioned(tmp_path)
    (tmp_path / ".devguard-abc.part").write_bytes(b"half")
    DeviceDirectory(tmp_path, MODEL).close()
    assert not list(tmp_path.glob(".devguard-*"))


def test_file_and_memory_flash_agree(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "flash.bin", 4096)
    assert backend.read(0, 4096) == b"\xff" * 4096
    backend.write(100, bytes(range(256)))
    backend.sync()
    assert backend.read(99, 258) == b"\xff" + bytes(range(256)) + b"\xff"
    backend.close()


WORKER = """
import sys, signal
sys.path.insert(0, {tests!r})
from pathlib import Path
from device_support import NOW, accept, make_build, small_model
from dataclasses import replace
from devguard.device.bootloader import Bootloader
from devguard.device.storage import DeviceDirectory
with DeviceDirectory(Path({path!r}), small_model()) as device:
    number = device.counters.load().installed_sequence
    while True:
        number += 1
        device.counters.save(replace(device.counters.load(), erase_times=()))
        build = make_build(f"1.0.{{number}}", number, 900 + number % 300)
        loader = Bootloader(device.flash(), device.model, device.counters)
        loader.boot(accept, NOW)
        if loader.result.state != "trial":
            at = loader.prepare(build.header.manifest_digest, len(build.image), NOW)
            loader.write(at, build.image[at:])
            loader.finish(build.header, build.envelope)
            loader.mark_pending()
        loader = Bootloader(device.flash(), device.model, device.counters)
        loader.boot(accept, NOW)
        if loader.result.state == "trial" and loader.self_test(lambda: True):
            loader.confirm()
        device.save_therapy(device.load_therapy())
        print(device.counters.load().installed_sequence, flush=True)
"""


def test_kill_at_any_moment_leaves_a_device_that_boots(tmp_path: Path) -> None:
    path = provisioned(tmp_path / "device")
    program = WORKER.format(tests=str(Path(__file__).parent), path=str(path))
    confirmed = 0
    for round_number in range(6):
        worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        said = 0
        for _ in range(2):
            said = int(worker.stdout.readline())
        # The kill falls somewhere inside the next update: a different amount of work each round.
        with contextlib.suppress(OSError):
            for _ in range(2000 * round_number):
                os.stat(path)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        with DeviceDirectory(path, MODEL) as device:
            result = Bootloader(device.flash(), MODEL, device.counters).boot(accept, NOW)
            assert result.header is not None
            slot = SMALL.primary
            build = make_build(result.header.version, result.header.sequence, result.header.size)
            assert device.flash().read(slot.image, build.header.size) == build.image
            assert device.counters.load().installed_sequence >= max(said, confirmed)
            confirmed = device.counters.load().installed_sequence
            assert device.load_therapy().idle
            assert device.identity == IDENTITY


def test_a_whole_update_on_files(tmp_path: Path) -> None:
    build = make_build("1.0.0", 1, 1200)
    with DeviceDirectory(provisioned(tmp_path), MODEL) as device:
        loader = Bootloader(device.flash(), MODEL, device.counters)
        assert loader.boot(accept, NOW).state is BootState.EMPTY
        loader.prepare(build.header.manifest_digest, 1200, NOW)
        loader.write(0, build.image)
        loader.finish(build.header, build.envelope)
        loader.mark_pending()
    with DeviceDirectory(tmp_path, MODEL) as device:
        loader = Bootloader(device.flash(), MODEL, device.counters)
        assert loader.boot(accept, NOW).state is BootState.TRIAL
        assert loader.self_test(lambda: True)
        loader.confirm()
    with DeviceDirectory(tmp_path, MODEL) as device:
        assert Bootloader(device.flash(), MODEL, device.counters).boot(accept, NOW).header == build.header
        assert replace(device.counters.load().sealed) == build.header

"""`push --protocol smp` to real firmware: Zephyr's SMP server and MCUboot's serial recovery, run by QEMU on a socket.

The binaries are nobody's here: DEVGUARD_SMP_FIRMWARE names a folder with those of the public project
`intercreate/smp-server-fixtures` (`*_qemu_cortex_m0_serial*`, `*_mps2_an385_serial_recovery*`). They take unsigned
images, so a copy of their own application under another version is what is pushed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("smp", reason="the extra `smp` is not installed")

from cli_support import Result, World, devguard, records, until
from devguard import wire
from devguard.link.driver import SerialDriver
from devguard.link.smp_engine import smp_parameters
from devguard.link.smp_runner import SmpRunner
from devguard.session import smp_requests as requests
from devguard.session import smp_update, smp_upload
from devguard.session.smp_answers import SlotState, slot_states
from devguard.session.smp_frame import Group, Message, Operation, OsCommand, Request
from devguard.session.smp_script import Ask, Pause, Script
from devguard.session.smp_standing import Standing
from rooms.smp_support import LEGACY

pytestmark = pytest.mark.slow
QEMU = "qemu-system-arm"
M0 = "qemu_cortex_m0_serial"
M3 = "mps2_an385_serial_recovery"
BUFFERS = ("", "_buf400", "_buf512", "_buf1024", "_buf2048")


def artifact(name: str) -> Path:
    folder = os.environ.get("DEVGUARD_SMP_FIRMWARE")
    if folder is None:
        pytest.skip("DEVGUARD_SMP_FIRMWARE does not name a folder with SMP server binaries")
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    found = sorted(Path(folder).glob(f"*_{name}"))
    if not found:
        pytest.skip(f"{folder} has no *_{name}")
    return found[-1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether the machine listens; its console takes one connection at a time, and this one ends at once."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def machine(tmp_path: Path, *board: object) -> Iterator[str]:
    """A machine with its console on a socket; the URL of that."""
    port = free_port()
    console = f"socket,id=con,host=127.0.0.1,port={port},server=on,wait=off"
    command = [QEMU, *board, "-nographic", "-monitor", "none", "-chardev", console]
    process = subprocess.Popen(
        [str(part) for part in command], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: accepts(port), "the machine")
        yield f"socket://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def small(tmp_path: Path) -> Any:
    """A Cortex-M0 whose MCUboot swaps on trial."""
    return machine(
        tmp_path,
        *("-cpu", "cortex-m0", "-machine", "microbit", "-serial", "chardev:con"),
        *("-device", f"loader,file={artifact(M0 + '.merged.hex')}"),
    )


def large(tmp_path: Path, *, application: bool, build: str = M3) -> Any:
    """A Cortex-M3 whose MCUboot loads the newest image to RAM; without an application it waits in serial recovery."""
    loaders = ["-device", f"loader,file={artifact(build + '.hex')}"]
    if application:
        loaders += ["-device", f"loader,file={artifact(build + '.signed.bin')},addr=0x20050000"]
    serial = ("-serial", "chardev:con", "-serial", "null")
    return machine(tmp_path, "-cpu", "cortex-m3", "-machine", "mps2-an385", *serial, *loaders)


def renamed(path: Path, version: tuple[int, int, int] = (1, 1, 0)) -> bytes:
    """The application under another version."""
    data = path.read_bytes()
    end = struct.unpack_from("<H", data, 8)[0] + struct.unpack_from("<I", data, 12)[0]
    head = bytearray(data[:end])
    struct.pack_into("<BBHI", head, 20, *version, 0)
    digest = hashlib.sha256(head).digest()
    return bytes(head) + struct.pack("<HHHH", 0x6907, 40, 0x10, 32) + digest


def push(world: World, folder: Path, port: str, image: bytes, version: str = "1.1.0", sequence: int = 2) -> Result:
    file = world.suit(folder / "x.suit", model=LEGACY, image=image, version=version, sequence=sequence)
    grant = world.grant(folder / "tech.grant", "QEMU-1", model=LEGACY)
    return devguard("push", file, "--protocol", "smp", "--port", port, "--key", "tech", "--grant", grant, "--json")


def done(result: Result) -> dict[str, Any]:
    assert result.status == 0, result.out + result.err
    return result.json


@contextmanager
def noisy(port: str, rate: float, seed: int) -> Iterator[str]:
    """A line to the machine on which this part of all bytes is spoilt, either way."""
    host, _, number = port.removeprefix("socket://").partition(":")
    chances = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection((host, int(number))) as far:

        def carry(here: socket.socket, there: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := here.recv(4096):
                    there.sendall(bytes(one ^ 0x10 if chances.random() < rate else one for one in data))

        def serve() -> None:
            with contextlib.suppress(OSError):
                near, _ = server.accept()
                with near:
                    threading.Thread(target=carry, args=(far, near), daemon=True).start()
                    carry(near, far)

        threading.Thread(target=serve, daemon=True).start()
        yield f"socket://127.0.0.1:{server.getsockname()[1]}"


def ask(port: str, request: Request, pause: float = 0.0) -> Message:
    """One question, beside any push. `pause`: seconds of silence after it; QEMU's UART does not survive a byte that
    comes in the moment of a reset."""

    def script() -> Script[Message]:
        answer = yield Ask(request, 20.0)
        yield Pause(pause)
        return answer  # type: ignore[no-any-return]

    with SmpRunner(lambda: SerialDriver.open(port, 115_200), smp_parameters(115_200), os.urandom) as runner:
        return runner.run(script())


def states(port: str) -> tuple[SlotState, ...]:
    return slot_states(ask(port, requests.image_state()))


def test_zephyrs_smp_server_and_mcuboot_on_a_cortex_m0(world: World, home: Path, tmp_path: Path) -> None:
    """Upload, trial, swap, confirm; then the same image is current and an older one is a rollback."""
    image = renamed(artifact(M0 + ".signed.bin"))
    with small(tmp_path) as port:
        data = done(push(world, tmp_path, port, image))
        assert push(world, tmp_path, port, image).code == "version.current"
        older = renamed(artifact(M0 + ".signed.bin"), (1, 0, 9))
        assert push(world, tmp_path, port, older, "1.0.9", 1).code == "version.rollback"
        [kept] = [one for one in states(port) if one.active]
    assert (kept.version, kept.confirmed, kept.slot) == ("1.1.0", True, 0)
    assert data["device"]["version_before"] == "0.0.0"
    assert data["device"]["version_after"] == "1.1.0"
    assert "trial" not in next(one for one in records(home) if one["action"] == "release.push")["details"]


@pytest.mark.parametrize(
    ("step", "left"), [("try_image", "WAITING"), ("reset", "WAITING"), ("confirm_image", "ON_TRIAL")]
)
def test_a_push_that_was_interrupted_goes_on_at_that_step(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, left: str
) -> None:
    image = renamed(artifact(M0 + ".signed.bin"))
    with small(tmp_path) as port:
        with monkeypatch.context() as patch:
            patch.setattr(smp_update.requests, step, interrupt)
            stopped = push(world, tmp_path, port, image)
        assert stopped.status == 130
        assert Standing[left].left in stopped.err
        data = done(push(world, tmp_path, port, image))
    assert (data["link"]["sent_bytes"], data["device"]["version_after"]) == (0, "1.1.0")


def interrupt(*_: object) -> Request:
    raise KeyboardInterrupt


def test_an_upload_that_was_cut_off_goes_on_where_it_stopped(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = renamed(artifact(M0 + ".signed.bin"))
    sent = smp_upload.go_on_upload

    def cut(offset: int, data: bytes) -> Request:
        return interrupt() if offset > 20_000 and data else sent(offset, data)

    with small(tmp_path) as port:
        with monkeypatch.context() as patch:
            patch.setattr(smp_upload, "go_on_upload", cut)
            assert push(world, tmp_path, port, image).status == 130
        link = done(push(world, tmp_path, port, image))["link"]
    assert link["resumed_bytes"] > 19_000
    assert link["sent_bytes"] < len(image)


@pytest.mark.parametrize("rate", [1e-4, 1e-3])
def test_a_noisy_line_to_a_real_server(world: World, home: Path, tmp_path: Path, rate: float) -> None:
    with small(tmp_path) as direct, noisy(direct, rate, 1) as port:
        data = done(push(world, tmp_path, port, renamed(artifact(M0 + ".signed.bin"))))
    assert data["device"]["version_after"] == "1.1.0"
    assert data["link"]["retransmits"] > 0


@pytest.mark.parametrize("buffer", BUFFERS)
def test_zephyrs_smp_server_on_a_cortex_m3_without_trials(
    world: World, home: Path, tmp_path: Path, buffer: str
) -> None:
    """Windows by the server's own parameters; this bootloader loads the newest image and knows no trials."""
    build = M3 + buffer
    with large(tmp_path, application=True, build=build) as port:
        data = done(push(world, tmp_path, port, renamed(artifact(build + ".signed.bin"))))
    assert data["device"]["version_after"] == "1.1.0"
    assert any("no way back" in one for one in data["warnings"])


def test_mcuboots_serial_recovery_on_a_cortex_m3(world: World, home: Path, tmp_path: Path) -> None:
    with large(tmp_path, application=False) as port:
        data = done(push(world, tmp_path, port, renamed(artifact(M3 + ".signed.bin"))))
    assert (data["device"]["version_before"], data["device"]["version_after"]) == (None, "1.1.0")
    assert records(home)[-1]["details"]["trial"] == "none"


def test_an_image_that_is_gone_after_the_reset_is_missed(world: World, home: Path, tmp_path: Path) -> None:
    """From the running application into serial recovery. This machine loads its application anew at every reset, over
    what the bootloader has just written and said it has: only the look at what runs afterwards finds that out."""
    with large(tmp_path, application=True) as port:
        assert [one.version for one in states(port) if one.active] == ["0.0.0"]
        ask(port, Request(Operation.WRITE, Group.OS, OsCommand.RESET, wire.encode({"boot_mode": 1})), 2.0)
        assert not any(one.active for one in states(port))
        result = push(world, tmp_path, port, renamed(artifact(M3 + ".signed.bin")))
    assert (result.status, result.code) == (1, "device.self-test")
    details = records(home)[-1]["details"]
    assert (details["trial"], details["device-left"]) == ("none", Standing.WENT_BACK.left)


@pytest.mark.parametrize("build", ["qemu_cortex_m0_serial_buf256", "qemu_cortex_m0_serial_buf512"])
def test_a_server_without_images_says_no(world: World, home: Path, tmp_path: Path, build: str) -> None:
    """Zephyr without its image group: the command refuses with the device's own number, and says what is left."""
    with machine(
        tmp_path,
        *("-cpu", "cortex-m0", "-machine", "microbit", "-serial", "chardev:con"),
        *("-device", f"loader,file={artifact(build + '.hex')}"),
    ) as port:
        result = push(world, tmp_path, port, renamed(artifact(M0 + ".signed.bin")))
    assert (result.status, result.code) == (5, "smp.refused")
    assert result.json["error"]["message"].endswith("enotsup (rc 8)")
    assert records(home)[-1]["details"]["device-left"] == Standing.UNTOUCHED.left

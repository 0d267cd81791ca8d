"""`push --protocol smp` to real firmware: Zephyr's SMP server and MCUboot's serial recovery, run by QEMU on a socket.

The binaries are nobody's here: DEVGUARD_SMP_FIRMWARE names a folder with those of the `smp-server-fixtures` project
(`*_qemu_cortex_m0_serial.*`, `*_mps2_an385_serial_recovery.*`). They take unsigned images, so a copy of their own
application under another version is what is pushed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("smp", reason="the extra `smp` is not installed")

from cli_support import World, devguard, records, until
from rooms.smp_support import LEGACY

pytestmark = pytest.mark.slow
QEMU = "qemu-system-arm"
M0 = "qemu_cortex_m0_serial"
M3 = "mps2_an385_serial_recovery"


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


def large(tmp_path: Path, *, application: bool) -> Any:
    """A Cortex-M3 whose MCUboot loads the newest image to RAM; without an application it waits in serial recovery."""
    loaders = ["-device", f"loader,file={artifact(M3 + '.hex')}"]
    if application:
        loaders += ["-device", f"loader,file={artifact(M3 + '.signed.bin')},addr=0x20050000"]
    serial = ("-serial", "chardev:con", "-serial", "null")
    return machine(tmp_path, "-cpu", "cortex-m3", "-machine", "mps2-an385", *serial, *loaders)


def renamed(path: Path) -> bytes:
    """The application under version 1.1.0."""
    data = path.read_bytes()
    end = struct.unpack_from("<H", data, 8)[0] + struct.unpack_from("<I", data, 12)[0]
    head = bytearray(data[:end])
    struct.pack_into("<BBHI", head, 20, 1, 1, 0, 0)
    digest = hashlib.sha256(head).digest()
    return bytes(head) + struct.pack("<HHHH", 0x6907, 40, 0x10, 32) + digest


def push(world: World, folder: Path, port: str, image: bytes) -> dict[str, Any]:
    file = world.suit(folder / "x.suit", model=LEGACY, image=image, version="1.1.0", sequence=2)
    grant = world.grant(folder / "tech.grant", "QEMU-1", model=LEGACY)
    result = devguard("push", file, "--protocol", "smp", "--port", port, "--key", "tech", "--grant", grant, "--json")
    assert result.status == 0, result.out + result.err
    return result.json


def test_zephyrs_smp_server_and_mcuboot_on_a_cortex_m0(world: World, home: Path, tmp_path: Path) -> None:
    with small(tmp_path) as port:
        data = push(world, tmp_path, port, renamed(artifact(M0 + ".signed.bin")))
    assert data["device"]["version_before"] == "0.0.0"
    assert data["device"]["version_after"] == "1.1.0"
    assert "trial" not in records(home)[-1]["details"]


def test_zephyrs_smp_server_on_a_cortex_m3_without_trials(world: World, home: Path, tmp_path: Path) -> None:
    with large(tmp_path, application=True) as port:
        data = push(world, tmp_path, port, renamed(artifact(M3 + ".signed.bin")))
    assert data["device"]["version_after"] == "1.1.0"
    assert any("no way back" in one for one in data["warnings"])


def test_mcuboots_serial_recovery_on_a_cortex_m3(world: World, home: Path, tmp_path: Path) -> None:
    with large(tmp_path, application=False) as port:
        data = push(world, tmp_path, port, renamed(artifact(M3 + ".signed.bin")))
    assert (data["device"]["version_before"], data["device"]["version_after"]) == (None, "1.1.0")
    assert records(home)[-1]["details"]["trial"] == "none"

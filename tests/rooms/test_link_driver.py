"""The driver on real pseudo-terminals, a real socket and pyserial's loop."""

from __future__ import annotations

import os
import random
import select
import socket
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from devguard.errors import LinkError
from devguard.link import driver as driver_module
from devguard.link.driver import PortInfo, SerialDriver, list_ports
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Failed, Message, Opened, Role
from devguard.link.parameters import LinkParameters
from link_support import CcmProtector, seeded

FAST = LinkParameters(baud=0)


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    """The master and the path of the slave; the device's end keeps the slave open, as an emulator does."""
    master, slave = os.openpty()
    tty.setraw(slave, when=0)
    yield master, os.ttyname(slave)
    for descriptor in (master, slave):
        try:
            os.close(descriptor)
        except OSError:
            continue


def engines(parameters: LinkParameters = FAST) -> tuple[LinkEngine, LinkEngine]:
    return LinkEngine(Role.HOST, parameters, seeded(1)), LinkEngine(Role.DEVICE, parameters, seeded(2))


def exchange(host: SerialDriver, device: SerialDriver, forth: list[bytes], back: list[bytes]) -> None:
    near, far = engines()
    near.open(host.clock())
    while not [e for e in host.pump(near, 0.0) if isinstance(e, Opened)]:
        device.pump(far, 0.01)
    ours, theirs = CcmProtector.pair()
    near.attach(ours, host.clock())
    far.attach(theirs, device.clock())
    for message in forth:
        near.send(Channel.SEALED, message, host.clock())
    for message in back:
        far.send(Channel.SEALED, message, device.clock())
    there: list[bytes] = []
    here: list[bytes] = []
    end = host.clock() + 20
    while (there, here) != (forth, back) and host.clock() < end:
        here += [e.data for e in host.pump(near, 0.0) if isinstance(e, Message)]
        there += [e.data for e in device.pump(far, 0.0) if isinstance(e, Message)]
    assert there == forth
    assert here == back


def messages(seed: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(size) for size in (0, 1, 60_000, 5000, 65_536)]


def test_two_engines_over_a_pseudo_terminal(pty: tuple[int, str]) -> None:
    with SerialDriver.open(pty[1], 115_200) as host, SerialDriver.over_descriptor(os.dup(pty[0]), "master") as device:
        exchange(host, device, messages(1), messages(2))


def test_input_that_waited_before_open_is_kept(pty: tuple[int, str]) -> None:
    os.write(pty[0], b"\x00early")
    with SerialDriver.open(pty[1], 115_200) as host:
        near, _ = engines()
        host.pump(near, 0.05)
        assert near.statistics.bytes_received == 6


def test_two_engines_over_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = SerialDriver.open(f"socket://127.0.0.1:{server.getsockname()[1]}", 115_200)
        accepted, _ = server.accept()
        device = SerialDriver.over_descriptor(accepted.detach(), "accepted")
        with host, device:
            exchange(host, device, messages(3), messages(4))


def test_loop_hears_only_itself() -> None:
    near, _ = engines(LinkParameters(baud=0, give_up=0.15))
    with SerialDriver.open("loop://", 115_200) as port:
        near.open(port.clock())
        events = port.pump(near, 5.0)
    assert [e.code for e in events if isinstance(e, Failed)] == ["link.timeout"]
    assert near.statistics.stray >= 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/dev/devguard-no-such-port", "does not exist"),
        ("/dev/null", "cannot be opened"),
        ("no\x00where", "cannot be opened"),
        ("spy:///dev/null?file=/nowhere", "unknown kind"),
        ("socket://127.0.0.1", "cannot be opened"),
        ("socket://127.0.0.1:1", "cannot be opened"),
        ("rfc2217://127.0.0.1:1", "cannot be opened"),
        ("", "does not exist"),
    ],
)
def test_ports_that_do_not_open(url: str, why: str) -> None:
    with pytest.raises(LinkError, match=why) as refused:
        SerialDriver.open(url, 115_200)
    assert refused.value.code == "link.port"


def test_a_file_given_as_port_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(LinkError, match="not a serial port"):
        SerialDriver.open(str(path), 115_200)
    assert path.read_bytes() == b"mine"


def test_impossible_speed(pty: tuple[int, str]) -> None:
    with pytest.raises(LinkError, match="cannot be opened"):
        SerialDriver.open(pty[1], -5)


def test_a_busy_port_is_refused_and_free_again_afterwards(pty: tuple[int, str]) -> None:
    with SerialDriver.open(pty[1], 115_200), pytest.raises(LinkError, match="in use") as refused:
        SerialDriver.open(pty[1], 115_200)
    assert refused.value.code == "link.port"
    SerialDriver.open(pty[1], 115_200).close()


def test_a_port_that_vanishes() -> None:
    master, slave = os.openpty()
    tty.setraw(slave, when=0)
    host = SerialDriver.open(os.ttyname(slave), 115_200)
    os.close(slave)
    near, _ = engines()
    near.open(host.clock())
    host.pump(near, 0.0)
    os.close(master)
    with pytest.raises(LinkError, match="vanished") as refused:
        host.pump(near, 5.0)
    assert refused.value.code == "link.port"
    host.close()
    host.close()
    with pytest.raises(LinkError, match="closed"):
        host.pump(near, 0.0)


def test_a_socket_peer_that_vanishes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = SerialDriver.open(f"socket://127.0.0.1:{server.getsockname()[1]}", 115_200)
        accepted, _ = server.accept()
        accepted.close()
        near, _ = engines()
        with host, pytest.raises(LinkError, match="vanished"):
            host.pump(near, 5.0)


def test_a_peer_that_reads_nothing_never_hangs_us(pty: tuple[int, str]) -> None:
    """The terminal's buffer fills; the driver holds the rest back and the engine still gives up in time."""
    limits = LinkParameters(baud=0, window_bytes=1 << 20, give_up=0.4)
    with SerialDriver.open(pty[1], 115_200) as host:
        near, far = engines(limits)
        near.open(host.clock())
        device = SerialDriver.over_descriptor(os.dup(pty[0]), "master")
        while not [e for e in host.pump(near, 0.0) if isinstance(e, Opened)]:
            device.pump(far, 0.01)
        for _ in range(8):
            near.send(Channel.PLAIN, bytes(65_536), host.clock())
        assert host.pump(near, 0.05) == []
        assert host.unsent > 0
        start = host.clock()
        events = host.pump(near, 10.0)
        assert [e.code for e in events if isinstance(e, Failed)] == ["link.timeout"]
        assert host.clock() - start < 3.0
        device.close()


def test_a_new_engine_does_not_inherit_the_old_ones_bytes(pty: tuple[int, str]) -> None:
    with SerialDriver.open(pty[1], 115_200) as host:
        near, other = engines(LinkParameters(baud=0, window_bytes=1 << 20))[0], engines()[0]
        near.open(host.clock())
        host._unsent, host._engine = b"old frame, half written", near
        host.pump(other, 0.0)
        os.write(pty[0], b"the end\n")  # so that the terminal has something to read in any case
        host.pump(other, 0.0)
        assert host.unsent == 0
    os.set_blocking(pty[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pty[0], 100)


def test_what_an_event_leaves_due_is_written_before_it_is_told(pty: tuple[int, str]) -> None:
    """The caller may think for seconds; its peer has its acknowledgement by then."""
    slave = os.open(pty[1], os.O_RDWR | os.O_NOCTTY)
    with (
        SerialDriver.over_descriptor(slave, pty[1]) as host,
        SerialDriver.over_descriptor(os.dup(pty[0]), "master") as device,
    ):
        near, far = engines()
        near.open(host.clock())
        while not [e for e in host.pump(near, 0.0) if isinstance(e, Opened)]:
            device.pump(far, 0.01)
        near.send(Channel.PLAIN, b"x" * 600, host.clock())  # long enough to be answered at once
        host.pump(near, 0.0)
        assert [e.data for e in device.pump(far, 5.0) if isinstance(e, Message)] == [b"x" * 600]
        assert select.select([slave], [], [], 5.0)[0]
        host.pump(near, 0.0)
        assert near.idle


def test_list_ports_describes_what_the_system_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def __init__(self, device: str) -> None:
            self.device, self.description, self.vid, self.pid, self.serial_number = device, None, 1027, 24577, "A1"

    monkeypatch.setattr(driver_module.serial_list_ports, "comports", lambda: [Found("/dev/b"), Found("/dev/a")])
    assert list_ports()[0] == PortInfo("/dev/a", "", 1027, 24577, "A1")
    assert [port.device for port in list_ports()] == ["/dev/a", "/dev/b"]

"""What may be a serial port: a terminal nobody types at, on an adapter that is nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from devguard.errors import LinkError
from devguard.link import adapters
from devguard.link.adapters import check_adapter, check_terminal
from devguard.link.driver import SerialDriver

CHARACTER = stat.S_IFCHR | 0o600


def device(number: tuple[int, int], mode: int = CHARACTER) -> SimpleNamespace:
    return SimpleNamespace(st_mode=mode, st_rdev=os.makedev(*number))


@pytest.mark.parametrize(
    "number",
    [(4, 64), (188, 0), (166, 3), (136, 7), (204, 64)],
    ids=["ttyS0", "ttyUSB0", "ttyACM3", "pts/7", "ttyAMA0"],
)
def test_serial_ports_and_pseudo_terminals_may_be_ports(
    number: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters.os, "stat", lambda _path: device(number))
    monkeypatch.setattr(adapters, "_typed_at", lambda: {os.makedev(136, 1)})
    check_terminal("/dev/port")


@pytest.mark.parametrize(
    ("number", "mode"),
    [((5, 0), CHARACTER), ((5, 1), CHARACTER), ((4, 1), CHARACTER), ((136, 1), CHARACTER), ((8, 0), stat.S_IFBLK),
     ((0, 0), stat.S_IFREG), ((0, 0), stat.S_IFIFO), ((0, 0), stat.S_IFSOCK)],
    ids=["tty", "console", "tty1", "own", "disk", "file", "pipe", "socket"],
)  # fmt: skip
def test_anything_else_is_none(number: tuple[int, int], mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters.os, "stat", lambda _path: device(number, mode))
    monkeypatch.setattr(adapters, "_typed_at", lambda: {os.makedev(136, 1)})
    with pytest.raises(LinkError) as error:
        check_terminal("/dev/port")
    assert error.value.code == "link.port"


def usb(folder: Path, *classes: str) -> Path:
    """A sysfs with one USB device whose first interface is the port ttyUSB0."""
    place = folder / "devices" / "usb1" / "1-2"
    for number, one in enumerate(classes):
        (place / f"1-2:1.{number}").mkdir(parents=True)
        (place / f"1-2:1.{number}" / "bInterfaceClass").write_text(f"{one}\n")
    (place / "bDeviceClass").write_text("00\n")
    port = place / "1-2:1.0" / "ttyUSB0" / "tty" / "ttyUSB0"
    port.mkdir(parents=True)
    (port / "device").symlink_to(port.parent.parent)
    (folder / "class" / "tty").mkdir(parents=True)
    (folder / "class" / "tty" / "ttyUSB0").symlink_to(port)
    return folder


@pytest.mark.parametrize("classes", [("ff",), ("02", "0a"), ("02", "0A", "ff")])
def test_a_serial_adapter_is_taken(classes: tuple[str, ...], tmp_path: Path) -> None:
    check_adapter("/dev/ttyUSB0", usb(tmp_path, *classes))


@pytest.mark.parametrize("more", ["03", "08", "09", "e0", "01", ""])
def test_an_adapter_that_is_more_is_refused(more: str, tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="more than a serial adapter") as error:
        check_adapter("/dev/ttyUSB0", usb(tmp_path, "ff", more))
    assert error.value.code == "link.port"


def test_a_link_to_the_port_is_followed_and_other_ports_are_nobodys_business(tmp_path: Path) -> None:
    sysfs = usb(tmp_path / "sys", "ff", "03")
    port = tmp_path / "ttyUSB0"
    port.touch()
    (tmp_path / "by-id").symlink_to(port)
    with pytest.raises(LinkError):
        check_adapter(str(tmp_path / "by-id"), sysfs)
    check_adapter("/dev/pts/3", sysfs)
    check_adapter("/dev/ttyUSB0", tmp_path / "no sysfs here")


def test_opening_a_port_asks_both(monkeypatch: pytest.MonkeyPatch) -> None:
    _, slave = os.openpty()
    asked: list[str] = []
    monkeypatch.setattr("devguard.link.driver.check_adapter", asked.append)
    with SerialDriver.open(os.ttyname(slave), 115_200):
        assert asked == [os.ttyname(slave)]
    monkeypatch.setattr(
        "devguard.link.driver.check_terminal", lambda path: (_ for _ in ()).throw(LinkError("link.port", path))
    )
    with pytest.raises(LinkError):
        SerialDriver.open(os.ttyname(slave), 115_200)

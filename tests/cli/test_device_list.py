"""`devguard device list --port`: these ports and no other, also those that no list shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import World, emulator, ok
from devguard.link import driver


def test_only_what_was_asked(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = driver.PortInfo("/dev/ttyUSB7", "an adapter", None, None, None)
    monkeypatch.setattr(driver, "list_ports", lambda: [there])
    with emulator(world, tmp_path, "IP-43") as device:
        rows = ok("device", "list", "--port", device.port, "--port", "/dev/ttyUSB7", "--json").json["ports"]
        assert [(row["port"], row["answers"], row["description"]) for row in rows] == [
            (device.port, True, ""),
            ("/dev/ttyUSB7", False, "an adapter"),
        ]
        assert "IP-43" not in str(rows)
        assert [row["port"] for row in ok("device", "list", "--json").json["ports"]] == ["/dev/ttyUSB7"]

"""`devguard emulate --fault`: the power goes in a push over a real line; the device takes the rest afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import World, devguard, emulator, ok


@pytest.mark.parametrize("how", ["torn", "weak"])
def test_a_device_whose_power_goes_in_a_push_takes_the_rest_afterwards(
    world: World, home: Path, tmp_path: Path, how: str
) -> None:
    grant = world.grant(tmp_path / "g", "IP-21")
    args: list[object] = ["push", world.suits["1.1.0"], "--key", "tech", "--grant", grant, "--port"]
    with emulator(world, tmp_path, "IP-21", "--fault", f"power-cut=9/{how}") as device:
        assert devguard(*args, device.port).status == 4
        assert device.process.wait(timeout=20) == 4
        assert device.process.stderr is not None
        said = device.process.stderr.read()
    assert "the power went at flash operation 9" in said
    assert "start the emulator again" in said
    with emulator(world, tmp_path, "IP-21") as device:
        data = ok(*args, device.port, "--resume", "--json").json
    assert data["device"]["version_after"] == "1.1.0"
    assert data["device"]["confirmed"] is True


def test_a_worn_out_flash_is_told_to_the_technician(world: World, home: Path, tmp_path: Path) -> None:
    grant = world.grant(tmp_path / "g", "IP-22")
    with emulator(world, tmp_path, "IP-22", "--fault", "stuck=0x81010/3/0") as device:
        args = ["push", world.suits["1.1.0"], "--key", "tech", "--grant", grant, "--port", device.port]
        assert devguard(*args).code == "device.slot"


def test_a_fault_nobody_knows_names_those_that_are_known() -> None:
    result = devguard("emulate", "insulin-pump", "--fault", "gremlins")
    assert result.status == 2
    assert "power-cut=N" in result.err

"""`devguard emulate --fault`: the power goes in a push over a real line; the device takes the rest afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli_support import World, devguard, emulator, ok, until
from devguard.cli.line import runner_on
from devguard.device.models import Model, load_model
from devguard.device.storage import read_stored
from devguard.device.therapy_files import TherapyFiles
from devguard.link.driver import SerialDriver
from devguard.session.script import OpenPlain, Receive, Send
from devguard.session.verbs import Hello, encode_message


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


def test_a_bit_that_flips_in_the_running_image_is_found_at_the_next_start_and_reported(
    world: World, home: Path, tmp_path: Path
) -> None:
    """After two good updates: the device falls back to the image before, says so, and takes the next push."""
    grant = world.grant(tmp_path / "g", "IP-26")
    line = ["--key", "tech", "--grant", grant, "--json", "--port"]
    with emulator(world, tmp_path, "IP-26") as device:
        for version in ("1.0.0", "1.1.0"):
            assert ok("push", world.suits[version], *line, device.port).json["device"]["version_after"] == version
        device.stop()
    layout = load_model("insulin-pump").layout
    with (device.state / "flash.bin").open("r+b") as flash:
        flash.seek(layout.primary.image + 1000)
        byte = flash.read(1)[0]
        flash.seek(layout.primary.image + 1000)
        flash.write(bytes([byte ^ 0x10]))
    with emulator(world, tmp_path, "IP-26") as device:
        report = ok("device", "info", *line, device.port).json["report"]
        newer = world.suit(tmp_path / "newer.suit", sequence=3, version="1.2.0")
        # It does not run what was pushed to it: somebody has to know why before the next push.
        assert devguard("push", newer, *line, device.port).code == "device.changed"
        ok("device", "acknowledge", "IP-26", "--key", "authority", "--reason", "a flipped bit, fell back")
        pushed = ok("push", newer, *line, device.port).json
    assert (report["boot_state"], report["version"], report["flags"]) == ("fallback", "1.0.0", ["version.older"])
    assert (pushed["device"]["version_before"], pushed["device"]["version_after"]) == ("1.0.0", "1.2.0")
    assert pushed["report"]["flags"] == []


def hello(port: str) -> bytes | None:
    """What answers a greeting within a second."""

    def script() -> Any:
        yield OpenPlain()
        yield Send(encode_message(Hello((3,))), sealed=False)
        return (yield Receive(sealed=False, timeout=1.0, optional=True))

    with SerialDriver.open(port, 115_200) as driver:
        return runner_on(driver).run(script())


def test_a_guard_that_crashes_leaves_the_therapy_ticking_and_is_started_again(
    world: World, home: Path, tmp_path: Path
) -> None:
    facts = load_model("insulin-pump")

    def therapy() -> Any:
        return TherapyFiles(device.state, facts).load()

    def moved(since: bytes) -> bool:
        return (device.state / "therapy.cbor").read_bytes() != since

    with emulator(world, tmp_path, "IP-23", "--fault", "guard-crash=2") as device:
        before = therapy()
        assert hello(device.port) is None
        course = (device.state / "therapy.cbor").read_bytes()
        until(lambda: moved(course), "the therapy to tick after the guard died")
        until(lambda: "guard-restarted" in told(device.state, facts), "the guard to be started again")
        data = ok("device", "info", "--port", device.port, "--json").json
        device.process.terminate()
        _, said = device.process.communicate(timeout=20)
    assert data["serial"] == "IP-23"
    assert "the guard died (GuardCrash: it was told to) and is started again; the therapy goes on" in said
    after = therapy()
    assert (after.plan, after.alarms, after.damage) == (before.plan, (), ())
    assert after.history_digest == before.history_digest


def told(state: Path, model: Model) -> list[str]:
    counters, _ = read_stored(state, model)
    return [event.name for event in counters.audit.events]


@pytest.mark.parametrize(
    ("fault", "code"),
    [pytest.param("charging", "device.charging", marks=pytest.mark.slow), ("alarm=low-reservoir", "device.alarm")],
)
def test_a_device_on_its_charger_or_with_an_open_alarm_takes_no_update(
    world: World, home: Path, tmp_path: Path, fault: str, code: str
) -> None:
    grant = world.grant(tmp_path / "g", "IP-24")
    with emulator(world, tmp_path, "IP-24", "--fault", fault) as device:
        args = ["push", world.suits["1.1.0"], "--key", "tech", "--grant", grant, "--port", device.port]
        refused = devguard(*args, "--json")
    assert (refused.status, refused.code) == (5, code)
    if "=" in fault:
        assert "low-reservoir" in refused.json["error"]["message"]


def test_settings_edited_on_a_device_that_is_off_are_told_by_its_report(
    world: World, home: Path, tmp_path: Path
) -> None:
    grant = world.grant(tmp_path / "g", "IP-25")
    with emulator(world, tmp_path, "IP-25") as device:
        device.stop()
    path = device.state / "settings.cbor"
    data = bytearray(path.read_bytes())
    data[-60] ^= 1
    path.write_bytes(data)
    with emulator(world, tmp_path, "IP-25") as device:
        line = ["--port", device.port, "--key", "tech", "--grant", grant]
        report = ok("device", "info", *line, "--json").json["report"]
        refused = devguard("push", world.suits["1.1.0"], *line, "--json")
    assert report["flags"] == ["settings-damaged", "settings-mac"]
    assert (refused.status, refused.code) == (5, "device.alarm")


def test_a_fault_nobody_knows_names_those_that_are_known() -> None:
    result = devguard("emulate", "insulin-pump", "--fault", "gremlins")
    assert result.status == 2
    assert "power-cut=N" in result.err

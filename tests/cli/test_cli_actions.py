"""`devguard device log|recover` over a real pseudo-terminal: each under a grant that names it, on record, for eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli_support import PUMP, World, devguard, emulator, ok, records
from devguard.cose.keys import CoseKey
from devguard.device.models import load_model
from devguard.device.snapshot import take
from devguard.device.storage import DeviceDirectory
from devguard.evidence.device_log import read_device_log
from devguard.evidence.statement import read_statement
from devguard.grant.credential import read_credential


def device_key(state: Path) -> CoseKey:
    with DeviceDirectory(state, load_model(PUMP)) as directory:
        assert directory.identity is not None
        return read_credential(directory.identity.keys[0].credential).key


def flip(state: Path, *, primary: bool = True) -> None:
    """One bit of an image in the flash of a device that is switched off; the file is inverted, which is the same."""
    layout = load_model(PUMP).layout
    at = (layout.primary if primary else layout.secondary).image + 1234
    data = bytearray((state / "flash.bin").read_bytes())
    data[at] ^= 0x40
    (state / "flash.bin").write_bytes(data)


def test_the_log_is_read_under_a_grant_that_names_it_shown_kept_and_recorded(
    world: World, home: Path, tmp_path: Path
) -> None:
    reads = world.grant(tmp_path / "r", "IP-31", actions=frozenset(["read-log"]))
    updates = world.grant(tmp_path / "u", "IP-31")
    with emulator(world, tmp_path, "IP-31") as device:
        line: list[object] = ["--port", device.port, "--key", "tech", "--grant"]
        ok("push", world.suits["1.0.0"], *line, updates)
        refused = devguard("device", "log", *line, updates, "--json")
        assert (refused.status, refused.code) == (1, "grant.action")
        wrong = devguard("push", world.suits["1.1.0"], *line, reads, "--json")
        assert (wrong.status, wrong.code) == (1, "grant.action")
        data = ok("device", "log", *line, reads, "-o", tmp_path / "log", "--json").json
        shown = ok("device", "log", *line, reads, "--reason", "what happened at night").out
        device.stop()
    names = [one["name"] for one in data["events"]]
    assert (data["serial"], data["count"], data["whole"]) == ("IP-31", len(names), True)
    assert data["report"]["log_head"] == data["head"]
    assert names[-1] == "log-read"
    assert {"accepted", "confirmed", "trial-started"} <= set(names)
    kept = read_statement((tmp_path / "log").read_bytes())
    assert read_credential(kept.credential).serial == "IP-31"
    log = read_device_log(kept.signed, device_key(device.state))
    assert data["contradictions"] == []
    assert [one.name for one in log.events] == names
    assert log.head.hex() == data["head"]
    for name in names:
        assert name in shown
    last = records(home)[-2:]
    assert [one["action"] for one in last] == ["device.log-begun", "device.log"]
    assert last[-1]["device"] == "IP-31"
    assert last[-1]["details"]["reason"] == "what happened at night"
    assert {one["action"] for one in records(home) if one["code"] == "grant.action"} == {"device.log", "release.push"}


@pytest.fixture
def damaged(world: World, tmp_path: Path) -> tuple[list[object], Path, Any]:
    """A pump that ran 1.0.0 and 1.1.0, and both images in its flash have been harmed since."""
    updates = world.grant(tmp_path / "u", "IP-32")
    with emulator(world, tmp_path, "IP-32") as device:
        for version in ("1.0.0", "1.1.0"):
            ok("push", world.suits[version], "--port", device.port, "--key", "tech", "--grant", updates)
        device.stop()
    flip(device.state)
    flip(device.state, primary=False)
    return [updates], device.state, take(device.state, load_model(PUMP))


def test_what_was_damaged_comes_back_by_recover_and_by_nothing_else(
    world: World, home: Path, tmp_path: Path, damaged: tuple[list[object], Path, Any]
) -> None:
    (updates,), state, before = damaged
    recovers = world.grant(tmp_path / "r", "IP-32", actions=frozenset(["recover"]))
    with emulator(world, tmp_path, "IP-32") as device:
        line: list[object] = ["--port", device.port, "--key", "tech", "--grant"]
        found = ok("device", "info", *line, recovers, "--json").json
        assert (found["report"]["boot_state"], found["report"]["version"]) == ("recovery", "factory")
        assert {one["name"] for one in found["changed"]} == {"version", "image_digest", "manifest_digest"}
        pushed = devguard("push", world.suits["1.1.0"], *line, updates, "--json")
        assert (pushed.status, pushed.code) == (1, "device.changed")
        update = devguard("device", "recover", world.suits["1.1.0"], *line, updates, "--json")
        assert (update.status, update.code) == (1, "grant.action")
        older = devguard("device", "recover", world.suits["1.0.0"], *line, recovers, "--json")
        assert (older.status, older.code) == (1, "version.rollback")
        data = ok("device", "recover", world.suits["1.1.0"], *line, recovers, "--json").json
        again = devguard("device", "recover", world.suits["1.1.0"], *line, recovers, "--json")
        assert (again.status, again.code) == (5, "device.intact")
        device.stop()
    assert data["device"] == {
        "model": PUMP, "serial": "IP-32", "version_before": "factory", "version_after": "1.1.0", "confirmed": True,
    }  # fmt: skip
    after = take(state, load_model(PUMP))
    assert after.settings == before.settings
    assert data["report"]["sequence"] == 2
    told = [(one["action"], one["code"]) for one in records(home) if one["action"].startswith("release.recover")]
    assert told[-4:] == [
        ("release.recover-begun", None),
        ("release.recover", None),
        ("release.recover-begun", None),
        ("release.recover", "device.intact"),
    ]

"""A device from enrolment to erasure over a real pseudo-terminal, and what a bench keeps of it on disk."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli_support import (
    PASSPHRASE,
    PROGRAMMER,
    PUMP,
    World,
    devguard,
    emulator,
    in_evidence,
    ok,
    records,
    start,
    until,
)
from devguard.device.models import load_model
from devguard.device.storage import DeviceDirectory
from devguard.session.keyschedule import SessionKeys
from devguard.session.records import ExporterLabel

ENROL = ["--device-authority", "factory"]


def enrolled(world: World, folder: Path, port: str, serial: str, model: str = PUMP, *more: object) -> Any:
    home = folder / "factory"
    return devguard(
        "device", "enrol", model, "--serial", serial, "--port", port, *ENROL, "--home", home, "--json", *more
    )


@pytest.mark.parametrize("model", [PUMP, pytest.param(PROGRAMMER, marks=pytest.mark.slow)])
def test_a_device_is_enrolled_over_the_line_once_and_proves_its_keys(
    world: World, home: Path, tmp_path: Path, model: str
) -> None:
    with emulator(world, tmp_path, "new", "--unprovisioned", model=model) as device:
        listed = devguard("device", "info", "--port", device.port, "--json")
        assert (listed.status, listed.code) == (5, "device.unprovisioned")
        data = enrolled(world, tmp_path, device.port, "IP-41", model, "--site", "ward-4").json
        assert (data["serial"], data["site"], data["enrolled"]) == ("IP-41", "ward-4", True)
        info = ok("device", "info", "--port", device.port, "--json").json
        assert info["serial"] == "IP-41"
        assert info["keys"] == data["keys"]
        again = enrolled(world, tmp_path, device.port, "IP-42", model)
        assert (again.status, again.code) == (5, "device.provisioned")
        device.stop()
    told = [(one["action"], one["code"], one["device"]) for one in records(tmp_path / "factory")]
    assert told == [
        ("device.enrol-begun", None, "IP-41"),
        ("device.enrol", None, "IP-41"),
        ("device.enrol", "device.provisioned", "IP-42"),
    ]
    assert data["keys"][0]["fingerprint"] in records(tmp_path / "factory")[0]["details"]["keys"]
    with emulator(world, tmp_path, "IP-41", "--state", device.state, model=model) as device:
        assert ok("device", "info", "--port", device.port, "--json").json["serial"] == "IP-41"


def test_an_authority_that_the_trust_document_does_not_know_enrols_nobody(
    world: World, home: Path, tmp_path: Path
) -> None:
    with emulator(world, tmp_path, "new", "--unprovisioned") as device:
        ok(
            "key",
            "new",
            "stranger",
            "--person",
            "Mallory",
            "--role",
            "device-authority",
            "--home",
            tmp_path / "factory",
        )
        args = ["device", "enrol", PUMP, "--serial", "IP-43", "--port", device.port, "--home", tmp_path / "factory"]
        refused = devguard(*args, "--device-authority", "stranger", "--json")
        assert (refused.status, refused.code) == (1, "key.unknown")
        assert enrolled(world, tmp_path, device.port, "IP-43").status == 0


def enrolled_by_two(world: World, folder: Path, port: str, serial: str) -> Any:
    """Somebody else's home and trust document with two device authorities, and a device enrolled by both."""
    home = folder / "owner"
    shutil.copytree(world.home, home, ignore=shutil.ignore_patterns("evidence", "station.key", "memory.cbor", "trust"))
    ok("key", "new", "depot", "--person", "Dora Depot", "--role", "device-authority", "--home", home)
    roles = ("release=release:1", "quality=quality:1", "technician-authority=authority:1")
    args = [f"--role={one}" for one in (*roles, "device-authority=factory,depot:1")]
    ok("trust", "init", folder / "anew", "--root", "root", "--threshold", 1, "--expires", "2099-01-01", *args,
       "--home", home)  # fmt: skip
    more = ["--device-authority", "depot", "--trust", folder / "anew" / "current.trust", "--home", home]
    result = enrolled(world, folder, port, serial, PUMP, *more)
    assert result.status == 0, result.out
    return result.json


@pytest.mark.slow
def test_a_device_stays_erased_when_it_is_switched_on_again(world: World, home: Path, tmp_path: Path) -> None:
    erase = frozenset(["decommission"])
    first, second = (
        world.grant(tmp_path / f"{name}.grant", "IP-47", name=name, actions=erase) for name in ("tech", "second")
    )
    with emulator(world, tmp_path, "IP-47") as device:
        ok("device", "decommission", "--port", device.port, "--key", "tech", "--grant", first, "--second-key", "second",
           "--second-grant", second, "--serial", "IP-47", "-o", tmp_path / "c")  # fmt: skip
        device.stop()
    left = {path.name for path in device.state.iterdir()}
    assert left == {"lock", "flash.bin", "wear.bin", "counters.cbor", "erasure.cbor"}
    with emulator(world, tmp_path, "IP-47") as device:  # nothing enrols it by itself
        assert devguard("device", "info", "--port", device.port, "--json").code == "device.decommissioned"


def test_a_device_erases_itself_on_two_words_and_its_certificate_stands(
    world: World, home: Path, tmp_path: Path
) -> None:
    erase = frozenset(["decommission"])
    first = world.grant(tmp_path / "1", "IP-44", actions=erase)
    second = world.grant(tmp_path / "2", "IP-44", name="second", actions=erase)
    updates = world.grant(tmp_path / "u", "IP-44")
    with emulator(world, tmp_path, "IP-44") as device:
        one: list[object] = ["--port", device.port, "--key", "tech", "--grant", first]
        two = [*one, "--second-key", "second", "--second-grant", second, "--serial", "IP-44", "-o", tmp_path / "c"]
        ok("push", world.suits["1.0.0"], "--port", device.port, "--key", "tech", "--grant", updates)
        assert devguard("device", "decommission", *one, "-o", tmp_path / "c").status == 2  # no --serial
        alone = devguard("device", "decommission", *one, "--serial", "IP-44", "-o", tmp_path / "c", "--json")
        assert (alone.status, alone.code) == (1, "grant.quorum")
        wrong = [*two]
        wrong[wrong.index(first)] = updates
        refused = devguard("device", "decommission", *wrong, "--json")
        assert (refused.status, refused.code) == (1, "grant.action")
        assert not (tmp_path / "c").exists()
        data = ok("device", "decommission", *two, "--json").json
        assert (data["serial"], data["decommissioned"]) == ("IP-44", True)
        for command in (
            ["push", world.suits["1.1.0"], "--port", device.port, "--key", "tech", "--grant", updates],
            ["device", "info", "--port", device.port],
        ):
            gone = devguard(*command, "--json")
            assert (gone.status, gone.code) == (5, "device.decommissioned")
        again = ok("device", "decommission", *two, "--json").json  # whoever missed the answer asks once more
        assert again == data
        single = enrolled(world, tmp_path, device.port, "IP-44")
        assert (single.status, single.code) == (5, "signature.threshold")
        anew = enrolled_by_two(world, tmp_path, device.port, "IP-44")
        trust = tmp_path / "anew" / "current.trust"
        args = ["--port", device.port, "--trust", trust, "--home", tmp_path / "owner", "--json"]
        info = ok("device", "info", *args).json
        assert (info["serial"], info["keys"]) == ("IP-44", anew["keys"])
        assert {one["fingerprint"] for one in anew["keys"]}.isdisjoint(data["keys"])
        device.stop()
    shown = ok("device", "erasure", tmp_path / "c", "--json").json
    assert shown["keys"] == data["keys"]
    text = ok("device", "erasure", tmp_path / "c").out
    assert "IP-44" in text
    assert "keys" in text
    bad = bytearray((tmp_path / "c").read_bytes())
    bad[-3] ^= 1
    (tmp_path / "bad").write_bytes(bad)
    assert devguard("device", "erasure", tmp_path / "bad", "--json").status == 1
    told = [(one["action"], one["code"]) for one in records(home) if one["action"].startswith("device.decommission")]
    assert told == [
        ("device.decommission", "grant.quorum"),
        ("device.decommission", "grant.action"),
        ("device.decommission-begun", None),
        ("device.decommission", None),
        ("device.decommission", None),
    ]


MARKER = 987_654_321


def secrets_of(world: World, home: Path) -> dict[str, bytes]:
    """What must stand nowhere in clear: private keys raw, as hexadecimal and as base64, and the passphrase."""
    found = {"passphrase": PASSPHRASE.encode()}
    for name in ("tech", "second"):
        private = world.signer(name).private
        raw = private.private_bytes_raw() if hasattr(private, "private_bytes_raw") else (
            private.private_numbers().private_value.to_bytes(32, "big"))  # fmt: skip
        found |= {f"{name} raw": raw, f"{name} hex": raw.hex().encode(), f"{name} base64": base64.b64encode(raw)[:40]}
    return found


def test_a_bench_keeps_wrapped_keys_only_whatever_became_of_its_pushes(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[bytes] = []
    real = SessionKeys.exporter

    def listening(self: SessionKeys, label: int, context: bytes, length: int) -> bytes:
        made = real(self, label, context, length)
        if label != ExporterLabel.SESSION_ID:  # that one is on record, and opens nothing
            keys.append(made)
        return made

    monkeypatch.setattr(SessionKeys, "exporter", listening)
    with emulator(world, tmp_path, "IP-45") as device:
        device.stop()
    with DeviceDirectory(device.state, load_model(PUMP)) as directory:
        therapy = directory.load_therapy()
        settings = {**therapy.plan.settings, "target_glucose_mgdl": MARKER}
        directory.enter_settings(therapy, replace(therapy.plan, settings=settings))
    good, other = world.grant(tmp_path / "g", "IP-45"), world.grant(tmp_path / "o", "IP-46")
    with emulator(world, tmp_path, "IP-45") as device:
        line: list[object] = ["--port", device.port, "--key", "tech", "--grant"]
        ok("push", world.suits["1.0.0"], *line, good)
        for refused in (other, world.grant(tmp_path / "r", "IP-45", actions=frozenset(["read-log"]))):
            assert devguard("push", world.suits["1.1.0"], *line, refused).status != 0
        ok("device", "info", *line, good)
        killed = start("push", world.suits["1.1.0"], *line, good, "--home", home, stderr=subprocess.DEVNULL)
        until(lambda: in_evidence(home, "release.push-begun"), "the push to begin")
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate(timeout=20)
        assert devguard("push", world.suits["1.0.0"], *line, good).status != 0
    assert len(keys) >= 6
    wanted = secrets_of(world, home) | {f"session key {n}": key for n, key in enumerate(keys)}
    wanted |= {"settings": MARKER.to_bytes(4, "big"), "settings text": str(MARKER).encode()}
    assert b"\x1a" + wanted["settings"] in (device.state / "settings.cbor").read_bytes()
    for path in sorted(home.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        assert [what for what, secret in wanted.items() if secret in data] == [], path
    assert any(path.suffix == ".key" for path in home.rglob("*"))
    for path in home.rglob("*.key"):
        if path.name != "station.key":  # decision 0006: a station's key has no passphrase
            assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()

"""Wrong port, wrong pump: the serial number a person names, and the one the device proves, before anything is sent.

Two pumps on two pseudo-terminals, and a grant that covers both: everything but the label says yes.
"""

from __future__ import annotations

import os
import pty
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli_support import PUMP, Emulator, Result, World, devguard, emulator, ok, records, start
from devguard.device.models import load_model
from devguard.device.snapshot import take
from devguard.link.driver import SerialDriver

BOTH = frozenset(["IP-1", "IP-2"])


@dataclass(slots=True)
class Ward:
    """Two pumps side by side, and a grant for both."""

    first: Emulator
    second: Emulator
    grant: Path

    def push(self, suit: Path, device: Emulator, *more: object) -> list[object]:
        return ["push", suit, "--port", device.port, "--key", "tech", "--grant", self.grant, *more]


@pytest.fixture(scope="module")
def ward(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    grant = world.grant(folder / "both.grant", "IP-1", serials=BOTH)
    with emulator(world, folder, "IP-1") as first, emulator(world, folder, "IP-2") as second:
        yield Ward(first, second, grant)


def untouched(device: Emulator, before: object) -> bool:
    """Slots, counters, therapy, and no event in the device's own log either: nobody offered it anything."""
    return take(device.state, load_model(PUMP)) == before


def test_swapped_ports_are_refused_before_any_offer(world: World, home: Path, ward: Ward) -> None:
    """The cables of two pumps were exchanged: each name now means the other patient's pump."""
    model = load_model(PUMP)
    before = take(ward.first.state, model), take(ward.second.state, model)
    for serial, there in (("IP-1", ward.second), ("IP-2", ward.first)):
        refused = devguard(*ward.push(world.suits["1.0.0"], there, "--serial", serial, "--json"))
        assert (refused.status, refused.code) == (1, "device.identity")
        assert f"asked for serial {serial}" in refused.json["error"]["message"]
        row = records(home)[-1]
        assert (row["action"], row["code"]) == ("release.push", "device.identity")
        assert "release.push-begun" not in [one["action"] for one in records(home)]
    assert untouched(ward.first, before[0])
    assert untouched(ward.second, before[1])


def test_where_nobody_can_be_asked_the_device_has_to_be_named(
    world: World, home: Path, ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SerialDriver, "open", lambda *_: pytest.fail("a port was opened"))
    anywhere = world.grant(home / "any.grant", "IP-1", serials=frozenset(["*"]))
    for grant in (ward.grant, anywhere):
        args = ["push", world.suits["1.0.0"], "--port", ward.first.port, "--key", "tech", "--grant", grant, "--json"]
        refused = devguard(*args)
        assert (refused.status, refused.code) == (1, "device.identity")
        assert "--serial" in refused.json["error"]["hint"]
        ok(*args, "--dry-run")
    narrow = devguard(*ward.push(world.suits["1.0.0"], ward.first, "--serial", "IP-9", "--json"))
    assert narrow.code == "grant.scope"


def at_a_terminal(args: list[object], typed: list[str]) -> tuple[Result, str]:
    """A command with a person at its standard input and error, who types a line at each question."""
    master, slave = pty.openpty()
    process = start(*args, stdin=slave, stderr=slave)
    os.close(slave)
    said, waiting = "", list(typed)
    while select.select([master], [], [], 60)[0]:
        try:
            part = os.read(master, 4096).decode()
        except OSError:
            break
        said += part
        if said.rstrip().endswith("typed or scanned:") and waiting and part.strip():
            os.write(master, f"{waiting.pop(0)}\n".encode())
    os.close(master)
    out, _ = process.communicate(timeout=60)
    assert "Traceback" not in said, said
    return Result(process.returncode, out, said), said


def test_a_person_at_a_terminal_is_asked_and_the_proven_number_is_not_shown(
    world: World, home: Path, ward: Ward
) -> None:
    before = take(ward.second.state, load_model(PUMP))
    result, said = at_a_terminal(ward.push(world.suits["1.0.0"], ward.second, "--json"), ["IP-1", " IP-1 ", "IP-3"])
    assert (result.status, result.code) == (1, "device.identity")
    assert said.count("typed or scanned:") == 3
    assert "IP-2" not in said  # or it would only be copied from the screen
    assert "another serial number; look at the label again" in said
    assert untouched(ward.second, before)


def test_a_number_that_fits_goes_on_to_this_very_device(world: World, home: Path, ward: Ward) -> None:
    one = world.grant(home / "one.grant", "IP-1")
    args: list[object] = ["push", world.suits["1.0.0"], "--port", ward.first.port, "--key", "tech", "--grant", one]
    result, said = at_a_terminal([*args, "--json"], ["IP 1", "IP-1"])
    assert result.status == 0, result.out + said
    assert result.json["device"]["serial"] == "IP-1"
    assert said.count("typed or scanned:") == 2
    assert records(home)[-1]["details"]["serial"] == "named by a person"

"""Invariant: no security check can be taken out without a row of the attack bench going red.

Each check is made to say yes, in the host program and in the device alike, after the world has been made; then the row
that is about it is played. Slow: `make check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devguard.bench.attacks.registry import rows_named
from devguard.bench.attacks.row import Status
from devguard.bench.attacks.run import play_row
from devguard.bench.attacks.world import World
from devguard.cli.in_process import CommandLine

PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"


def yes(*_: Any, **__: Any) -> str:
    """What a check that has been taken out says."""
    return "taken out"


def nothing(*_: Any, **__: Any) -> None:
    """What one that finds no fault says."""


def true(*_: Any, **__: Any) -> bool:
    return True


def no(*_: Any, **__: Any) -> bool:
    return False


def seated(first: Any, _: Any) -> Any:
    """Two roles that are always filled."""
    return ((first.role, "anybody"),)


def unspent(_: Any, spent: Any, *__: Any) -> Any:
    """A grant whose uses nobody counts."""
    return spent


Change = Callable[..., Any]
# what is taken out, what says yes in its place, the row that has to see it
CHECKS: tuple[tuple[str, Change, str], ...] = (
    ("devguard.verdict.judge.check_sequence", yes, "C01"),
    ("devguard.verdict.judge.check_security_version", yes, "C04"),
    ("devguard.verdict.judge.check_class", yes, "A09"),
    ("devguard.verdict.judge.check_components", yes, "C06"),
    ("devguard.verdict.judge.check_images", yes, "C06"),
    ("devguard.verdict.blocks._fault", nothing, "D02"),
    ("devguard.trust.model.TrustDocument.is_revoked", no, "D04"),
    ("devguard.trust.quorum.seat", seated, "D01"),
    ("devguard.trust.codec.check_keys", nothing, "D03"),
    ("devguard.grant.check._check_scope", nothing, "E02"),
    ("devguard.grant.check._check_action", nothing, "E02"),
    ("devguard.grant.check._check_life", nothing, "D05"),
    ("devguard.grant.check._check_epoch", nothing, "E03"),
    ("devguard.device.attendant.spend_use", unspent, "E05"),
    ("devguard.device.attendant.check_pair", nothing, "E04"),
    ("devguard.device.attendant.check_approval", nothing, "E04"),
    ("devguard.device.bootloader.Bootloader._allowed", true, "C02"),
    ("devguard.device.bootloader.Bootloader._refusal", nothing, "C02"),
    ("devguard.cli.memory.check_clock", nothing, "C05"),
    ("devguard.sbom.judge.Inside.require", nothing, "C08"),
    ("devguard.custody.keyfile.check_strength", nothing, "E07"),
)


@pytest.fixture(scope="module", params=[PUMP, PROGRAMMER])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World.make(request.param, CommandLine(), tmp_path_factory.mktemp("mutations"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(("check", "instead", "row"), CHECKS, ids=[check for check, _, _ in CHECKS])
def test_a_check_that_is_taken_out_is_missed(
    world: World, monkeypatch: pytest.MonkeyPatch, check: str, instead: Change, row: str
) -> None:
    monkeypatch.setattr(check, instead)
    result = play_row(rows_named([row])[0], world)
    assert result.status is Status.BROKEN, f"{row} does not see that {check} is gone"
    monkeypatch.undo()
    again = play_row(rows_named([row])[0], world)
    assert again.status is Status.HELD, again.why

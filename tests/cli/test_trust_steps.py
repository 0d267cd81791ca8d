"""Invariant: a slip of finger or clock in the next trust document is refused, can be meant, and can be undone."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cli_support import World, devguard, ok, records
from devguard.cli.context import Invocation
from devguard.cli.home import Home
from devguard.cli.memory import append, peek
from devguard.evidence.record import DigestOf, Record
from devguard.trust.document import read_trust

LATER = ("--expires", "2098-01-01")
DAY, YEAR = 86_400, 365 * 86_400


@pytest.fixture
def folder(world: World, home: Path, tmp_path: Path) -> Path:
    """A trust folder of one's own beside the home."""
    return Path(shutil.copytree(world.folder / "trust", tmp_path / "trust"))


def refuses(folder: Path, code: str, *args: object) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = devguard("trust", *args, *LATER, "--json")
    assert (result.status, result.code) == (1, code), result
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_epoch_that_no_grant_can_carry_is_no_option(folder: Path) -> None:
    for epoch in (2**32, 2**63 - 1):
        assert devguard("trust", "revoke", folder, "--grant-epoch", epoch, "--allow-jump", *LATER).status == 2
        assert devguard("trust", "rotate", folder, "--lower-grant-epoch", epoch, *LATER).status == 2


def test_a_far_epoch_is_refused_can_be_meant_and_can_be_taken_back(folder: Path, home: Path) -> None:
    refuses(folder, "trust.step", "revoke", folder, "--grant-epoch", 17)
    assert "--allow-jump" in devguard("trust", "revoke", folder, "--grant-epoch", 17, *LATER).err
    made = ok("trust", "revoke", folder, "--grant-epoch", 2**32 - 1, "--allow-jump", *LATER, "--json").json
    assert made["grant_epoch"] == 2**32 - 1
    refuses(folder, "trust.rollback", "revoke", folder, "--grant-epoch", 3)
    assert "--lower-grant-epoch" in devguard("trust", "revoke", folder, "--grant-epoch", 3, *LATER).err
    back = ok("trust", "rotate", folder, "--lower-grant-epoch", 3, *LATER, "--json").json
    assert back["grant_epoch"] == 3
    assert records(home)[-1]["details"]["lowered"] == "grant epoch 3"
    refuses(folder, "trust.step", "rotate", folder, "--lower-grant-epoch", 3)


def test_a_far_floor_is_refused_can_be_meant_and_can_be_taken_back(world: World, folder: Path, home: Path) -> None:
    highest = f"insulin-pump={2**64 - 1}"
    refuses(folder, "trust.step", "revoke", folder, "--floor", highest)
    assert devguard("trust", "revoke", folder, "--floor", f"insulin-pump={2**64}", *LATER).status == 3
    ok("trust", "revoke", folder, "--floor", highest, "--floor", "other=4", "--allow-jump", *LATER)
    assert devguard("verify", world.suits["1.1.0"], "--model", "insulin-pump", "--json").code == "version.rollback"
    refuses(folder, "trust.rollback", "revoke", folder, "--floor", "insulin-pump=2")
    refuses(folder, "trust.step", "rotate", folder, "--lower-floor", "nobody=2")
    lower = ("--lower-floor", "insulin-pump=2", "--lower-floor", "other=0")
    back = ok("trust", "rotate", folder, *lower, *LATER, "--json").json
    assert back["floors"] == {"insulin-pump": 2}
    assert records(home)[-1]["details"]["lowered"] == "floor 2 of insulin-pump, floor 0 of other"
    assert ok("verify", world.suits["1.1.0"], "--model", "insulin-pump", "--json").json["accepted"] is True


def remember(home: Path, **fields: object) -> None:
    """What this station remembers, by a record of its own log."""
    here = Home(home)
    log = here.evidence()

    def record(digest: bytes) -> Record:
        return Record.make(time=1, actor="t", action="t", request="r", digests={DigestOf.MEMORY: digest}, details={})

    append(here, log, record, int(time.time()), lambda memory: replace(memory, **fields))  # type: ignore[arg-type]


def test_a_release_that_was_pushed_here_tells_how_far_a_floor_goes(folder: Path, home: Path) -> None:
    remember(home, sequences={"insulin-pump": 2_000})
    refuses(folder, "trust.step", "revoke", folder, "--floor", "insulin-pump=2017")
    assert ok("trust", "revoke", folder, "--floor", "insulin-pump=2016", *LATER, "--json").json["floors"]


def test_who_signs_second_is_told_what_is_unusual(world: World, folder: Path, home: Path, tmp_path: Path) -> None:
    ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root", "--alg", "ESP384")
    ok("trust", "rotate", folder, "--root", "root,root2", "--threshold", 2, *LATER)
    shutil.move(home / "keys" / "root2.key", tmp_path / "root2.key")
    wish = ("--grant-epoch", 400, "--floor", "insulin-pump=70", "--allow-jump")
    assert ok("trust", "revoke", folder, *wish, *LATER, "--json").json["complete"] is False
    told = ok("trust", "sign", folder / "3.trust", "--key", tmp_path / "root2.key")
    assert "grant epoch 400 is more than 16 above 0" in told.err
    assert "floor 70 of insulin-pump is more than 16 above 0" in told.err
    assert "grant epoch 400, floors insulin-pump 70" in told.out
    ok("trust", "rotate", folder, "--lower-grant-epoch", 1, "--lower-floor", "insulin-pump=2", *LATER)
    told = ok("trust", "sign", folder / "4.trust", "--key", tmp_path / "root2.key")
    assert "grant epoch goes back from 400 to 1" in told.err
    assert "floor of insulin-pump goes back from 70 to 2" in told.err


def test_a_clock_years_ahead_makes_nothing_and_is_not_remembered(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = int(time.time())
    clock = [real]
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: clock[0]))
    ok("trust", "check", folder / "1.trust")  # the station has seen a time
    clock[0] = real + 30 * YEAR  # far before this document's end, which tells nothing
    for _ in range(2):  # and trying again does not make it likelier
        refuses(folder, "clock.ahead", "rotate", folder)
    assert "--clock-is-right" in devguard("trust", "rotate", folder, *LATER).err
    memory = peek(Home(home))
    assert memory is not None
    assert memory.latest == real
    clock[0] = real + 60
    assert ok("trust", "rotate", folder, *LATER, "--json").json["version"] == 2
    clock[0] = real + 4 * YEAR  # nobody was here for four years
    refuses(folder, "clock.ahead", "rotate", folder)
    assert ok("trust", "rotate", folder, *LATER, "--clock-is-right", "--json").json["version"] == 3


def test_a_lapsed_document_tells_by_its_own_end(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = int(time.time())
    clock = [real]
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: clock[0]))
    shutil.rmtree(home / "trust")
    short = ("--root", "root", "--threshold", 1, "--expires", time.strftime("%Y-%m-%d", time.gmtime(real + 2 * DAY)))
    ok("trust", "init", tmp_path / "new", *short)
    clock[0] = real + 400 * DAY
    refuses(tmp_path / "new", "clock.ahead", "rotate", tmp_path / "new")
    clock[0] = real + 60
    made = ok("trust", "rotate", tmp_path / "new", "--json").json
    document = read_trust((tmp_path / "new" / "2.trust").read_bytes())
    assert (made["version"], document.expires - document.issued) == (2, 90 * DAY)  # not two days again


def test_a_document_by_a_clock_that_was_ahead_is_followed_on_somebody_s_word(
    folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = int(time.time())
    clock = [real + 20 * YEAR]
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: clock[0]))
    office = tmp_path / "office"
    shutil.copytree(home, office)
    assert devguard("trust", "rotate", folder, *LATER, "--home", office).status == 0  # a home that never saw a time
    clock[0] = real
    refuses(folder, "trust.not-yet", "rotate", folder)
    made = ok("trust", "rotate", folder, "--clock-is-right", *LATER, "--json").json
    assert (made["version"], made["issued"][:4]) == (3, time.strftime("%Y", time.gmtime(real)))

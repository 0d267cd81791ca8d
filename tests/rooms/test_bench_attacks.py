"""The attack bench: the catalogue is whole, its oracles see what they must, and a sample of its rows holds.

Invariant: a row is held only when something was tried, everything tried was turned away, the device is what it was and
both logs say so. `devguard bench attacks` plays all rows; here a seeded sample.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from devguard.bench.attacks.host import BenchClock
from devguard.bench.attacks.line import Meddling
from devguard.bench.attacks.registry import CLASSES, ROWS, class_of, rows_named
from devguard.bench.attacks.row import Attacker, Row, Status
from devguard.bench.attacks.run import play_row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import BenchLog, bench_log
from devguard.bench.attacks.world import World
from devguard.cli.in_process import CommandLine
from devguard.errors import Refused

CATALOGUE = Path(__file__).resolve().parents[3] / "shared" / "design" / "attacks.json"
PUMP = "insulin-pump"
SAMPLE = random.Random(1).sample(
    sorted(row.id for row in ROWS if not issubclass(row, Meddling) and row.absent is None), 2
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World.make(PUMP, CommandLine(), tmp_path_factory.mktemp("attacks"))
    yield made
    made.close()


def test_the_catalogue_has_58_rows_in_its_ten_classes() -> None:
    assert len(ROWS) == len({row.id for row in ROWS}) == 58
    assert len(CLASSES) == 10
    letters = {row.id[0]: class_of(row) for row in ROWS}
    assert all(class_of(row) == letters[row.id[0]] for row in ROWS)


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="the design pages are not beside this checkout")
def test_ids_titles_and_attackers_are_the_catalogues() -> None:
    wanted = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    assert {row.id: (row.title, class_of(row)) for row in ROWS} == {
        one["id"]: (one["title"], one["class"]) for one in wanted
    }
    attackers = {one["id"]: one["attacker"] for one in wanted}
    assert all(str(row.attacker) == attackers[row.id] for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_each_row_says_what_it_is(row: type[Row]) -> None:
    assert row.__doc__
    assert row.precedent
    assert row.regulation
    assert row.attacker in Attacker


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(Refused, match="no attack Z99"):
        rows_named(["a01", "z99"])
    assert [row.id for row in rows_named(["f01", "A01"])] == ["A01", "F01"]


# the oracles: a bench that never says "broken" proves nothing


class Unguarded(Row):
    """An honest push that pretends to be an attack: all three oracles must see it."""

    id = "T01"
    title = "an attack that succeeds"
    precedent = "none"
    attacker = Attacker.INSIDER

    def play(self, scene: Scene) -> None:
        scene.refuses("an honest push", scene.pushing(scene.file(scene.next)), "grant.scope", by=By.OFFLINE)


class Idle(Row):
    """A row that tries nothing."""

    id = "T02"
    title = "an attack that is none"
    precedent = "none"
    attacker = Attacker.INSIDER

    def play(self, scene: Scene) -> None:
        return


class Crash(Row):
    """A row with a bug."""

    id = "T03"
    title = "a bug of the bench"
    precedent = "none"
    attacker = Attacker.INSIDER

    def play(self, scene: Scene) -> None:
        scene.holds("something", True)
        raise KeyError("oops")


class WrongLog(Row):
    """The right refusal by somebody else than the row says."""

    id = "T04"
    title = "the device was never asked"
    precedent = "none"
    attacker = Attacker.INSIDER

    def play(self, scene: Scene) -> None:
        file = scene.file(scene.release(signers=()))
        scene.refuses("unsigned", scene.pushing(file), "signature.missing", by=By.DEVICE)


def test_an_attack_that_succeeds_is_broken_on_all_counts(world: World) -> None:
    result = play_row(Unguarded, world)
    assert (result.status, result.refused, result.state_unchanged, result.recorded) == (
        Status.BROKEN, False, False, False,
    )  # fmt: skip
    assert "was accepted" in result.why
    assert "the device changed" in result.why


def test_a_row_that_tries_nothing_or_fails_itself_is_broken(world: World) -> None:
    assert play_row(Idle, world).status is Status.BROKEN
    result = play_row(Crash, world)
    assert result.status is Status.BROKEN
    assert "KeyError" in result.why


def test_a_refusal_in_the_wrong_log_is_seen(world: World) -> None:
    result = play_row(WrongLog, world)
    assert (result.refused, result.state_unchanged, result.recorded) == (True, True, False)
    assert "the device's log" in result.why


def test_every_row_begins_with_the_same_device_and_the_same_log(world: World) -> None:
    looks = []
    for name in ("one", "two"):
        scene = Scene(world, *world.begin(name))
        looks.append((scene.look().state, scene.look().log))
        scene.run("push", scene.file(scene.next), *world.push_options(scene.folder))
    assert looks[0] == looks[1]
    assert len(looks[0][1].records) > 0


def test_old_records_that_are_not_there_byte_for_byte_are_noticed(world: World) -> None:
    scene = Scene(world, *world.begin("log"))
    before = bench_log(scene.home / "evidence")
    scene.run("verify", scene.file(scene.next))
    after = bench_log(scene.home / "evidence")
    assert [record.action for record in before.added(after) or ()] == ["release.verify"]
    name, data = next(iter(after.segments.items()))
    changed = {**after.segments, name: bytes((data[0] ^ 1,)) + data[1:]}
    assert before.added(BenchLog(changed, after.records)) is None
    assert after.added(before) is None


@pytest.mark.parametrize("number", SAMPLE)
def test_a_sample_of_rows_holds(number: str, world: World) -> None:
    result = play_row(rows_named([number])[0], world)
    assert result.status is Status.HELD, result.why
    assert result.refused
    assert result.state_unchanged
    assert result.recorded


@pytest.mark.slow
@pytest.mark.parametrize("model", [PUMP, "pacemaker-programmer"])
def test_every_row_holds_or_says_why_it_cannot_apply(model: str) -> None:
    from devguard.bench.attacks.run import run

    results = run(CommandLine(), models=[model])
    assert [f"{one.id}: {one.why}" for one in results if one.status is Status.BROKEN] == []
    assert sum(one.status is Status.HELD for one in results) >= 50


def test_the_clock_jumps_and_goes_on() -> None:
    clock = BenchClock(1000.0)
    clock.advance(600)
    assert 1600 <= clock.true_time() < 1610
    clock.wrong = -60
    assert clock.time() < clock.true_time()
    clock.set_to(5)
    assert 5 <= clock.ticks() < 15
    assert clock.time() == pytest.approx(clock.true_time(), abs=1)


def test_the_honest_host_sees_only_the_environment_it_is_given(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "of somebody else")
    monkeypatch.setenv("DEVGUARD_HOME", "/nowhere")
    scene = Scene(world, *world.begin("environment"))
    assert scene.run("verify", scene.file(scene.next)).status == 0
    assert os.environ["DEVGUARD_PASSPHRASE"] == "of somebody else"

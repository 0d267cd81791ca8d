"""`devguard bench power-cuts`: which cuts are made on which model, spread over processes, and the table that comes out.

Without `full` a seeded sample that takes seconds. With it: every cut for images of 8 and 2 sectors, every second cut
during the recovery for 2 sectors and a sample of them for 8; for images that fill the slot a sample of first and second
cuts; and random lives with five cuts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from devguard.bench.power_life import live
from devguard.bench.power_scenes import NAMES, scene_of, start_of
from devguard.bench.power_sweep import Sweep
from devguard.bench.power_tally import HARM, MADE, Plan, Tally
from devguard.bench.power_world import World
from devguard.device.models import load_model, model_names

LIVES: Final = "lives"
FULL_SIZE: Final = 0
LARGE_SECTOR: Final = 16 * 1024
SHORT_OF_A_SECTOR: Final = 77  # no image ends where a sector does
CUTS: Final = 8  # sectors of the image whose every cut is made
PAIRS: Final = 2  # and of the one whose every pair of cuts is
SHORT: Final = ("confirm", "trust")  # scenes of a few steps
SCENES: Final = (*NAMES, LIVES)
FIELDS: Final = (
    "operations",
    "cuts",
    "second_cuts",
    "pairs",
    "booted_old",
    "booted_new",
    *HARM,
    "runs",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work: a scene of one model with an image of so many sectors (`FULL_SIZE`: all that fit), or
    `plan.first` random lives."""

    model: str
    scene: str
    sectors: int
    plan: Plan


@dataclass(slots=True)
class Row:
    """All of one scene."""

    model: str
    scene: str
    sectors: int
    tally: Tally

    def as_dict(self) -> dict[str, Any]:
        """The row of the command-line contract, and more."""
        counted = {name: getattr(self.tally, name) for name in FIELDS}
        named = {"model": self.model, "scene": self.scene, "image_sectors": self.sectors}
        return {**named, **counted, "faults": self.tally.faults}


def jobs(models: Sequence[str], *, full: bool, seed: int, parts: int) -> Iterator[Job]:
    """What there is to do."""
    for model in models:
        if full:
            yield from _every_cut(model, seed, parts)
        else:
            yield from _sample(model, seed)


def _sample(model: str, seed: int) -> Iterator[Job]:
    """One cut in so many: larger sectors make a scene of ten times as many steps."""
    large = load_model(model).layout.sector_size > LARGE_SECTOR
    for scene in NAMES:
        few = scene in SHORT
        yield Job(model, scene, CUTS, Plan(first=1 if few else 499 if large else 37, seed=seed))
        if not few:
            yield Job(model, scene, PAIRS, Plan(first=199 if large else 23, second=211 if large else 41, seed=seed))
    yield Job(model, LIVES, PAIRS, Plan(first=3, seed=seed))


def _every_cut(model: str, seed: int, parts: int) -> Iterator[Job]:
    large = load_model(model).layout.sector_size > LARGE_SECTOR
    for part in range(parts):
        share = functools.partial(Plan, seed=seed, part=part, parts=parts)
        for scene in NAMES:
            yield Job(model, scene, PAIRS, share(first=1, second=1))
            yield Job(model, scene, CUTS, share(first=1, second=1999 if large else 23, resumed=2 if large else 1))
            if scene in SHORT:
                yield Job(model, scene, FULL_SIZE, share(first=1, second=4999 if large else 97))
            elif scene != "patch":  # beside an image that fills the slot there is no room for one
                yield Job(model, scene, FULL_SIZE, share(first=2999 if large else 89, second=19_997 if large else 997))
        yield Job(model, LIVES, PAIRS, share(first=100 // parts))


def image_size(model: str, sectors: int) -> int:
    """Bytes of an image of so many sectors."""
    layout = load_model(model).layout
    return (sectors * layout.sector_size or layout.image_capacity) - SHORT_OF_A_SECTOR


@functools.lru_cache(maxsize=2)
def _world(model: str, sectors: int) -> World:
    return World(load_model(model), image_size(model, sectors))


def do(job: Job) -> tuple[Job, Tally]:
    """One job, in this process."""
    world = _world(job.model, job.sectors)
    if job.scene != LIVES:
        return job, Sweep(world, scene_of(world, job.scene), job.plan).play()
    tally, start = Tally(), start_of(world)
    for number in range(job.plan.first):
        tally.add(live(world, start, f"{job.plan.seed}/{job.plan.part}/{number}"), f"life {number}; ")
    return job, tally


def run(
    models: Sequence[str] | None = None, *, full: bool = False, seed: int = 1, processes: int | None = None
) -> list[Row]:
    """All rows. `processes`: how many to share the work with (1: none but this one)."""
    count = processes or min(2, os.cpu_count() or 1)
    todo = list(jobs(models or model_names(), full=full, seed=seed, parts=count if full else 1))
    # The longest first, so that no process waits for another in the end.
    todo.sort(key=lambda job: (job.scene in SHORT, -load_model(job.model).layout.sector_size))
    if count == 1:
        return _rows(map(do, todo))
    with ProcessPoolExecutor(count) as pool:
        return _rows(pool.map(do, todo))


def _rows(done: Iterable[tuple[Job, Tally]]) -> list[Row]:
    rows: dict[tuple[str, str, int], Row] = {}
    for job, tally in done:
        sectors = job.sectors or -(-image_size(job.model, FULL_SIZE) // load_model(job.model).layout.sector_size)
        row = rows.setdefault((job.model, job.scene, sectors), Row(job.model, job.scene, sectors, Tally()))
        operations = max(row.tally.operations, tally.operations)  # every part plays the whole scene
        row.tally.add(tally, "")
        row.tally.operations = operations if job.scene != LIVES else row.tally.operations
        for name in MADE:
            setattr(row.tally, name, getattr(row.tally, name) + getattr(tally, name))
    return sorted(rows.values(), key=lambda row: (row.model, SCENES.index(row.scene), row.sectors))

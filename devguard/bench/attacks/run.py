"""Plays rows: each in the world of its model, shared out between two processes, results in the catalogue's order."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final

from devguard.bench.attacks.host import Host
from devguard.bench.attacks.registry import ROWS, rows_named
from devguard.bench.attacks.row import OutOfReach, Result, Row, Status
from devguard.bench.attacks.scene import Scene
from devguard.bench.attacks.world import World
from devguard.device.models import model_names

FEW: Final = 8  # rows not worth a second world
_WHY: Final = 400
_MEMORY: Final = "/dev/shm"  # noqa: S108 (a folder of one's own is made in it)
_ROOM: Final = 48 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work."""

    model: str
    ids: tuple[str, ...]
    full: bool
    host: Host


def run(
    host: Host,
    *,
    models: Sequence[str] | None = None,
    only: Sequence[str] = (),
    full: bool = False,
    processes: int | None = None,
    heard: Callable[[Result], None] = lambda _result: None,
) -> list[Result]:
    """The rows of the catalogue, or `only` some of them, on each model. `heard` is told of each result as it comes.

    Raises `Refused("file.missing")` for an id that is none, `Refused` when an honest step of the world fails.
    """
    ids = tuple(row.id for row in rows_named(only))
    names = list(models or model_names())
    count = processes or min(2, os.cpu_count() or 1)
    todo = list(_jobs(names, ids, full, host, count))
    results = []
    for result in _done(todo, count):
        heard(result)
        results.append(result)
    order = {(model, row.id): place for place, (row, model) in enumerate((r, m) for r in ROWS for m in names)}
    return sorted(results, key=lambda one: order[one.model, one.id])


def _jobs(names: Sequence[str], ids: tuple[str, ...], full: bool, host: Host, count: int) -> Iterator[Job]:
    for name in names:
        parts = count if len(names) == 1 and len(ids) > FEW else 1
        for part in range(parts):
            yield Job(name, ids[part::parts], full, host)


def _done(todo: list[Job], count: int) -> Iterator[Result]:
    if count == 1 or len(todo) == 1:
        for job in todo:
            yield from play(job)
        return
    with contextlib.ExitStack() as stack:
        started = []
        for job in todo:
            worker = ProcessPoolExecutor(1)
            stack.callback(worker.shutdown, cancel_futures=True)
            started += [worker.submit(_row, replace(job, ids=(one,))) for one in job.ids]
        for one in as_completed(started):
            yield one.result()


_OPEN: Final[dict[str, World]] = {}


def _row(job: Job) -> Result:
    """The row of a job of one, in a process that keeps its world until it ends."""

    def world() -> World:
        if job.model not in _OPEN:
            stack = contextlib.ExitStack()
            _OPEN[job.model] = stack.enter_context(_world(job.model, job.host))
            Finalize(None, stack.close, exitpriority=1)
        return _OPEN[job.model]

    return _played(rows_named(job.ids)[0], world, job)


def play(job: Job) -> Iterator[Result]:
    """The rows of one job, in this process; a world is made only for rows that are played."""
    with contextlib.ExitStack() as stack:
        world = functools.cache(lambda: stack.enter_context(_world(job.model, job.host)))
        for row in rows_named(job.ids):
            yield _played(row, world, job)


def _played(row: type[Row], world: Callable[[], World], job: Job) -> Result:
    why = why_absent(row)
    return _absent(row, job.model, why) if why is not None else play_row(row, world(), full=job.full)


@contextlib.contextmanager
def _world(model: str, host: Host) -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="devguard-attacks-", dir=_place()))
    try:
        world = World.make(model, host, folder)
        try:
            yield world
        finally:
            world.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place() -> str | None:
    """A folder in memory where there is one with room: nothing of the bench has to survive it. None: the usual one."""
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    return _MEMORY if free >= _ROOM and os.access(_MEMORY, os.W_OK) else None


def why_absent(row: type[Row]) -> str | None:
    """Why a row cannot be played here at all; None when it can."""
    if row.needs is None or importlib.util.find_spec(row.needs[0]) is not None:
        return row.absent
    return f"not installed here: pip install 'devguard[{row.needs[1]}]'"


def _absent(row: type[Row], model: str, why: str) -> Result:
    return Result(row.id, row.title, model, Status.NOT_APPLICABLE, why, False, None, True, True, 0.0)


def play_row(row: type[Row], world: World, *, full: bool = False) -> Result:
    """One row. An error that nobody expected is a row that is broken, never the end of the bench."""
    began = time.monotonic()
    scene = Scene(world, *world.begin(row.id), full=full)
    with ThreadPoolExecutor(1, thread_name_prefix=row.id) as pool:
        for act in (functools.partial(row().play, scene), scene.end):
            error = pool.submit(act).exception()
            if isinstance(error, OutOfReach) and not scene.broken:
                return _absent(row, world.model.name, f"{len(scene.attempts)} attempts held, then: {error}")
            if error is not None:
                scene.broken.append(f"the bench itself: {type(error).__name__}: {error}")
    if not (scene.attempts or scene.shown):
        scene.broken.append("the row tried nothing")
    why = scene.why
    return Result(
        id=row.id,
        title=row.title,
        model=world.model.name,
        status=Status.BROKEN if scene.broken else Status.HELD,
        why=why if len(why) <= _WHY else why[: _WHY - 1] + "…",
        refused=scene.refused,
        code=scene.codes[0] if scene.codes else None,
        state_unchanged=scene.state_unchanged,
        recorded=scene.recorded,
        seconds=time.monotonic() - began,
        attempts=tuple(scene.attempts),
    )

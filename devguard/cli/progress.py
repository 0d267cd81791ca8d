"""Progress of a push: a bar with rate and ETA on a terminal, JSON lines on stderr otherwise."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.session.update import Progress

_EVERY = 1.0


@contextmanager
def progress_bar(invocation: Invocation, total: int) -> Iterator[Progress]:
    """A function to be told (bytes durable on the device, bytes in all)."""
    if invocation.quiet:
        yield lambda _done, _whole: None
    elif sys.stderr.isatty():
        with _bar(total) as update:
            yield update
    else:
        yield _lines()


@contextmanager
def _bar(total: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("pushing"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("push", total=total)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


def _lines() -> Progress:
    """One JSON line a second on stderr."""
    began = time.monotonic()
    last = [began]

    def update(done: int, whole: int) -> None:
        now = time.monotonic()
        if now - last[0] < _EVERY and done < whole:
            return
        last[0] = now
        rate = done / (now - began) if now > began else 0.0
        line = {
            "bytes": done,
            "total": whole,
            "rate": round(rate),
            "eta": round((whole - done) / rate, 1) if rate else None,
        }
        click.echo(json.dumps(line), err=True)

    return update

"""One command of the command line in this very process, for the demo and for benches: exit status and JSON object.

What a person would see on standard error is kept away from the terminal only where the caller says so.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devguard.cli.context import Invocation

if TYPE_CHECKING:
    from devguard.bench.attacks.host import Clock


def run_command(
    args: Sequence[str | Path], home: Path, invocation: Invocation | None = None
) -> tuple[int, dict[str, Any]]:
    """The command with `--json` on that home: (exit status, its one object; {} where it printed none)."""
    from devguard.cli.main import run

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = run([*map(str, args), "--json", "--home", str(home)], invocation or Invocation())
    return status, json.loads(out.getvalue() or "{}")


class CommandLine:
    """The command line as the honest host program of the attack bench (`devguard.bench.attacks.host.Host`)."""

    def run(
        self, args: Sequence[str | Path], home: Path, clock: Clock, env: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """One command by the bench's clock. Only what `env` says is taken from the environment."""
        saved = dict(os.environ)
        for name in saved:
            if name.startswith("DEVGUARD_"):
                del os.environ[name]
        os.environ.update(env)
        invocation = Invocation(clock=clock.time, ticks=clock.ticks, pause=clock.pause)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return run_command([*args, "-q"], home, invocation)
        finally:
            os.environ.clear()
            os.environ.update(saved)

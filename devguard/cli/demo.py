"""`devguard demo`: the whole story on an emulated device over a real pseudo-terminal, then six attacks that fail.

Every step runs the very command a person would type, in this process, with `--json`; only the device is a process of
its own. Nothing is asked, nothing outside the working folder is touched, and exit 0 means that all of it held.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.errors import DevguardError, Exit, Refused

if TYPE_CHECKING:
    from devguard.cli.demo_story import Story


@click.command(cls=Command)
@click.option(
    "--model", type=click.Choice(["insulin-pump", "pacemaker-programmer"]), default="insulin-pump", show_default=True
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Leave everything in DIR (which must not exist or be empty).",
)
@click.option(
    "--firmware", type=click.Path(path_type=Path), help="Use this image (raw or Intel HEX) as the new release."
)
@click.pass_obj
def demo(invocation: Invocation, model: str, keep: Path | None, firmware: Path | None) -> None:
    """Show the whole story, then six attacks that fail. Takes under half a minute and asks nothing."""
    from devguard.cli.demo_story import Story

    folder = _folder(keep)
    began = time.monotonic()
    saved = dict(os.environ)
    story = Story(invocation, model, folder, firmware)
    try:
        with ExitStack() as stack:
            _tell(story, stack)
    finally:
        os.environ.clear()
        os.environ.update(saved)
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    held = story.held
    data: dict[str, Any] = {
        "held": held,
        "model": model,
        "steps": story.steps,
        "attacks": story.attacks,
        "firmware": story.firmware,
        "seconds": round(time.monotonic() - began, 1),
        "kept": None if keep is None else str(keep),
    }
    invocation.result(data, lambda: click.echo(_closing(data)))
    if not held:
        raise VerdictExit(Exit.REFUSED)


def _tell(story: Story, stack: ExitStack) -> None:
    from devguard.cli.demo_attacks import six_attacks

    try:
        story.prepare()
        story.release()
        story.start_device(stack)
        story.push()
        six_attacks(story)
        story.evidence()
    except DevguardError as error:
        story.broke(error)


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="devguard-demo-"))
    try:
        keep.mkdir(parents=True, exist_ok=True)
        occupied = any(keep.iterdir())
    except OSError as error:
        raise Refused("file.unreadable", f"cannot use {keep}: {error.strerror}") from error
    if occupied:
        raise Refused("file.unreadable", f"{keep} is not empty", "name a folder that does not exist yet")
    return keep.resolve()


def _closing(data: dict[str, Any]) -> str:
    attacks = data["attacks"]
    held = sum(1 for row in attacks if row["held"])
    lines = ["", f"{held} of 6 attacks refused, device unchanged; {data['seconds']} s"]
    if data["kept"]:
        lines.append(
            f"kept in {data['kept']}: home/ (a DEVGUARD_HOME), current.trust, release/, old/, attacks/, device/"
        )
    verdict = "all of it held" if data["held"] else "NOT all of it held: see the lines marked FAIL"
    lines.append(click.style(verdict, fg="green" if data["held"] else "red", bold=True))
    return "\n".join(lines)

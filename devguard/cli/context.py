"""What every command shares: the options that go anywhere, the two ways to print, the clock and the home.

`--json` prints exactly one JSON object on stdout and nothing else; people get text on stdout and `error:` / `hint:`
lines on stderr. Rich is imported only where a table is drawn on purpose; colours only on a terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.errors import DevguardError, Exit

if TYPE_CHECKING:
    from devguard.cli.home import Home


@dataclass(slots=True)
class Invocation:
    """One run of the command line: its shared options and where it prints."""

    json: bool = False
    quiet: bool = False
    home_path: Path | None = None
    printed: bool = field(default=False)

    @property
    def home(self) -> Home:
        """The devguard home of this run (created when first written to)."""
        from devguard.cli.home import Home, default_home

        return Home(self.home_path or default_home())

    @staticmethod
    def now() -> int:
        """Seconds since the epoch."""
        return int(time.time())

    def result(self, data: dict[str, Any], text: str | Callable[[], None] = "") -> None:
        """Print a command's one result: `data` as JSON, or `text` (a string, or a function that prints)."""
        self.printed = True
        if self.json:
            click.echo(json.dumps(data, ensure_ascii=False))
        elif callable(text):
            text()
        elif text and not self.quiet:
            click.echo(text)

    def say(self, text: str) -> None:
        """A line for people on stdout; silent with --json or -q."""
        if not self.json and not self.quiet:
            click.echo(text)

    def note(self, text: str) -> None:
        """A line for people on stderr; silent with -q."""
        if not self.quiet:
            click.echo(text, err=True)

    def error(self, error: DevguardError, shape: dict[str, Any] | None = None) -> None:
        """Print a failure once, in the form asked for; `shape` is the command's own JSON on refusal."""
        if self.json and not self.printed:
            fault = {"code": error.code, "message": error.message, "hint": error.hint}
            self.result({**(shape or {}), "error": fault})
        elif not self.json:
            click.echo(f"error: {error.code}: {error.message}", err=True)
            click.echo(f"hint: {error.hint}", err=True)


class VerdictExit(click.exceptions.Exit):
    """A command printed its own refusal and ends with this status."""

    def __init__(self, status: Exit) -> None:
        super().__init__(int(status))


class Command(click.Command):
    """A command that takes `--json`, `--home DIR` and `-q` wherever the contract says: after every subcommand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object and nothing else."),
            click.Option(
                ["--home", "home_dir"], type=click.Path(path_type=Path), help="Where keys, trust and evidence live."
            ),
            click.Option(["-q", "--quiet", "quiet"], is_flag=True, help="Print only results and errors."),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Take the shared options out before the command sees its own."""
        invocation = ctx.ensure_object(Invocation)
        invocation.json = bool(ctx.params.pop("as_json", False)) or invocation.json
        invocation.quiet = bool(ctx.params.pop("quiet", False)) or invocation.quiet
        home = ctx.params.pop("home_dir", None)
        if home is not None:
            invocation.home_path = home
        return super().invoke(ctx)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; help shows the table's one-line summaries.

    `table`: name -> (module, attribute, summary).
    """

    def __init__(self, *args: Any, table: dict[str, tuple[str, str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the table's order."""
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and give the command."""
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        import importlib

        module, attribute, _ = self.table[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise click.UsageError(f"{cmd_name} is not a command")
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's summaries, without importing anything."""
        rows: Sequence[tuple[str, str]] = [(name, summary) for name, (_, _, summary) in self.table.items()]
        rows = [*rows, *((name, self.commands[name].get_short_help_str()) for name in self.commands)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def passphrase_reader(fd: int | None, what: str, *, confirm: bool = False) -> Callable[[], bytes]:
    """Where a passphrase comes from: a file descriptor, the environment, or a prompt on a terminal; never argv.

    `confirm`: a new one, typed twice.
    """
    variable = "DEVGUARD_PASSPHRASE"

    def read() -> bytes:
        if fd is not None:
            return _read_fd(fd)
        if variable in os.environ:
            return os.environ[variable].encode()
        if sys.stdin.isatty():
            answer: str = click.prompt(f"passphrase for {what}", hide_input=True, err=True, confirmation_prompt=confirm)
            return answer.encode()
        raise DevguardError("key.passphrase", f"no passphrase for {what}", f"set {variable} or give --passphrase-fd N")

    return read


def _read_fd(fd: int) -> bytes:
    try:
        with os.fdopen(fd, "rb", closefd=False) as stream:
            return stream.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise DevguardError("key.passphrase", f"cannot read file descriptor {fd}: {error.strerror}") from error


passphrase_option = click.option(
    "--passphrase-fd",
    type=int,
    help="File descriptor to read the passphrase from (else DEVGUARD_PASSPHRASE or a prompt).",
)

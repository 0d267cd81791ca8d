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
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.errors import DevguardError, Exit

if TYPE_CHECKING:
    from devguard.cli.home import Home
    from devguard.custody.keyfile import FileSigner


@dataclass(slots=True)
class Invocation:
    """One run of the command line: its shared options, where it prints, and its clocks, for which a bench brings its
    own: `clock` since the epoch, `ticks` steady, `pause` waits."""

    json: bool = False
    quiet: bool = False
    home_path: Path | None = None
    printed: bool = field(default=False)
    clock: Callable[[], float] = time.time
    ticks: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = time.sleep
    asks: bool = False  # somebody sits at a terminal, and this run is theirs: a question may be put to them

    @property
    def home(self) -> Home:
        """The devguard home of this run, created when first written to; `file.unreadable` where it is closed to us."""
        from devguard.cli.home import Home, default_home

        home = Home(self.home_path or default_home())
        home.check()
        return home

    def signer(self, reference: str, passphrase_fd: int | None) -> FileSigner:
        """The signer of a KEY argument, its passphrase (or PIN) from the descriptor, the environment or a prompt."""
        return self.home.signer(
            reference,
            lambda name: passphrase_reader(passphrase_fd, name)(),
            lambda name: passphrase_reader(passphrase_fd, name, pin=True)(),
        )

    def now(self) -> int:
        """Seconds since the epoch."""
        return int(self.clock())

    def result(self, data: dict[str, Any], text: str | Callable[[], None] = "") -> None:
        """Print a command's one result: `data` as JSON, or `text` (a string, or a function that prints)."""
        self.printed = True
        if self.json:
            line = json.dumps(data, ensure_ascii=False)
            click.echo(line if line.isprintable() else json.dumps(data))
        elif callable(text):
            text()
        elif text:
            click.echo(printed(text))

    def say(self, text: str) -> None:
        """A line for people on stdout; silent with --json or -q."""
        if not self.json and not self.quiet:
            click.echo(text)

    def note(self, text: str) -> None:
        """A line for people on stderr; silent with -q."""
        if not self.quiet:
            click.echo(printed(text), err=True)

    def error(self, error: DevguardError, shape: dict[str, Any] | None = None) -> None:
        """Print a failure once, in the form asked for; `shape` is the command's own JSON on refusal."""
        if self.json and not self.printed:
            fault = {"code": error.code, "message": error.message, "hint": error.hint}
            self.result({**(shape or {}), "error": fault})
        elif not self.json:
            click.echo(printed(f"error: {error.code}: {error.message}"), err=True)
            click.echo(printed(f"hint: {error.hint}"), err=True)


def printed(text: str) -> str:
    """`text` as any terminal and any encoding takes it: what a hostile file or file name smuggles in stays visible.

    Control characters other than line ends, and bytes of a file name that are no UTF-8, become escapes.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char.isprintable() or char == "\n":
        return char
    return char.encode("ascii", "backslashreplace").decode() if ord(char) > 0x7F else f"\\x{ord(char):02x}"


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look at the shared options first: they say how a failure is printed and whose config.toml counts."""
        invocation = ctx.ensure_object(Invocation)
        seen, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        invocation.json = bool(seen.get("as_json")) or invocation.json
        if isinstance(home := seen.get("home_dir"), str):
            invocation.home_path = Path(home)
        helping = self.get_help_option(ctx)
        if not ctx.resilient_parsing and not (helping is not None and seen.get(helping.name or "")):
            from devguard.cli.config import option_defaults

            home_of = invocation.home
            ctx.default_map = option_defaults(home_of.config_file, home_of.config(), ctx)
        rest = super().parse_args(ctx, args)
        for param in self.params:
            if isinstance(param.type, click.types.StringParamType):
                _refuse_undecodable(ctx, param)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Take the shared options out before the command sees its own."""
        invocation = ctx.ensure_object(Invocation)
        invocation.json = bool(ctx.params.pop("as_json", False)) or invocation.json
        invocation.quiet = bool(ctx.params.pop("quiet", False)) or invocation.quiet
        home = ctx.params.pop("home_dir", None)
        if home is not None:
            invocation.home_path = home
        return super().invoke(ctx)


def _refuse_undecodable(ctx: click.Context, param: click.Parameter) -> None:
    """Text that goes into signed objects is UTF-8; a file name may be anything the system takes."""
    value = ctx.params.get(param.name or "")
    for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text):
            raise click.BadParameter("is not UTF-8 text", ctx=ctx, param=param)


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


def passphrase_reader(fd: int | None, what: str, *, confirm: bool = False, pin: bool = False) -> Callable[[], bytes]:
    """Where a passphrase comes from: a file descriptor, the environment, or a prompt on a terminal; never argv.

    `confirm`: a new one, typed twice. `pin`: a token's PIN, which has a variable of its own, so that the passphrase of
    other keys need not cost an attempt.
    """
    word, variables = ("PIN", PIN_VARIABLES) if pin else ("passphrase", PIN_VARIABLES[1:])

    def read() -> bytes:
        if fd is not None:
            return _read_fd(fd)
        for variable in variables:
            if variable in os.environ:
                return os.fsencode(os.environ[variable])
        if sys.stdin.isatty():
            answer: str = click.prompt(f"{word} for {what}", hide_input=True, err=True, confirmation_prompt=confirm)
            return answer.encode()
        raise DevguardError("key.passphrase", f"no {word} for {what}", f"set {variables[0]} or give --passphrase-fd N")

    return read


def _read_fd(fd: int) -> bytes:
    try:
        # Unbuffered: each key that is opened takes the next line.
        with os.fdopen(fd, "rb", buffering=0, closefd=False) as stream:
            return stream.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise DevguardError("key.passphrase", f"cannot read file descriptor {fd}: {error.strerror}") from error


PIN_VARIABLES: Final = ("DEVGUARD_PIN", "DEVGUARD_PASSPHRASE")
"""Where a PIN is looked for, in this order; a passphrase in the second alone."""
DESCRIPTOR: Final = click.IntRange(0, 1_048_575)
passphrase_option = click.option(
    "--passphrase-fd",
    type=DESCRIPTOR,
    help="File descriptor for the passphrase or PIN (else DEVGUARD_PASSPHRASE, DEVGUARD_PIN before it for a PIN, "
    "or a prompt).",
)

"""`devguard serve`: the bench's web page. On this machine alone it is opened by a one-time link; bound elsewhere it
demands TLS and a key of each person's own.

What the page does is a command of this command line, started by it as a process of its own: it goes on when the
browser or the console ends.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, LazyGroup
from devguard.cli.group import group_url
from devguard.cli.record import operator, recorded
from devguard.errors import LinkError, Refused

if TYPE_CHECKING:
    import socket

    from devguard.cli.serve_tls import Identity
    from devguard.console.settings import Settings

_PEOPLE: Final = "devguard.cli.serve_people"
_TOKENS: Final = "devguard.cli.serve_tokens"
_TABLE: Final = {
    "link": (_PEOPLE, "link", "A one-time link into the console that runs, for somebody at this machine."),
    "enrol": (_PEOPLE, "enrol", "Invite a person to register a key of their own."),
    "people": (_PEOPLE, "people", "Who may sign in with a key of their own."),
    "remove": (_PEOPLE, "remove", "Take a person's keys off this console."),
    "token": (_TOKENS, "token", "A bearer token with which a program asks the HTTP API."),
    "tokens": (_TOKENS, "tokens", "The tokens that programs have."),
    "revoke": (_TOKENS, "revoke", "Take a program's token back."),
    "keep": (_PEOPLE, "keep", "Used by the console: keep a key that somebody has registered."),
}
COMMAND: Final = (sys.executable, "-m", "devguard.cli.main")


class Serve(Command, LazyGroup):
    """A group that does something by itself, and takes the shared options like a command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Without what only the console runs."""
        return [name for name in super().list_commands(ctx) if name != "keep"]


@click.group(cls=Serve, table=_TABLE, invoke_without_command=True)
@click.option("--bind", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="TCP port (default: any that is free).")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).")
@click.option("--name", help="The name browsers use (default: the certificate's first).")
@click.option(
    "--device-port", multiple=True, metavar="PORT", help="Offer this port too: a device path or socket:// URL."
)
@click.option("--idle", type=click.IntRange(1, 15), default=15, show_default=True, help="Minutes until a session ends.")
@click.option("--open/--no-open", "opens", default=False, help="Open the page in this machine's browser.")
@click.pass_context
def serve(ctx: click.Context, /, **wish: Any) -> None:
    """Serve the bench's web page until Ctrl-C. Pushes that were begun there go on when it ends."""
    if ctx.invoked_subcommand is not None:
        return
    invocation = ctx.ensure_object(Invocation)
    from devguard.console.package import need_web

    with ExitStack() as stack:
        with recorded(invocation, "console.serve") as note:
            note.details["bind"] = str(wish["bind"])
            need_web()
            listening, settings = _prepared(invocation, stack, wish)
            note.details["url"] = settings.origin
        _run(invocation, stack, listening, settings, wish)


def _prepared(
    invocation: Invocation, stack: ExitStack, wish: dict[str, Any]
) -> tuple[tuple[socket.socket, Identity], Settings]:
    """The socket and what the console is told; nothing is served yet."""
    from devguard.cli.loopback import on_loopback
    from devguard.cli.serve_tls import Identity, listen
    from devguard.console.people import Register
    from devguard.console.settings import MINUTE, Limits, Settings
    from devguard.custody.locks import locked

    home = invocation.home
    folder = home.make(home.path / "console")
    loopback = on_loopback(wish["bind"])
    identity = Identity.load(wish["tls_cert"], wish["tls_key"], wish["name"], loopback=loopback)
    if not loopback:
        _need_people(Register(folder), invocation.now())
    try:
        stack.enter_context(locked(folder / "running.json", wait=0))
    except LinkError as error:
        raise LinkError("console.running", f"a console serves {home.path} already") from error
    sock = stack.enter_context(listen(wish["bind"], wish["port"]))
    port = sock.getsockname()[1]
    settings = Settings(
        home=home,
        command=COMMAND,
        origin=identity.origin(port),
        hosts=identity.hosts(port),
        name=identity.name,
        operator=operator(),
        tls=identity.tls is not None,
        loopback=loopback,
        ports=tuple(wish["device_port"]),
        store=group_url(home),
        limits=Limits(idle=wish["idle"] * MINUTE),
        clock=invocation.clock,
        ticks=invocation.ticks,
    )
    return (sock, identity), settings


def _need_people(register: Any, now: int) -> None:
    """Over the network nobody comes in but with a key of their own: somebody has to have one, or an invitation."""
    if not register.people() and not register.invited(now):
        raise Refused(
            "console.login",
            "nobody is registered here, so nobody could sign in over the network",
            "invite somebody first: `devguard serve enrol PERSON --role ROLE`",
        )


def _run(
    invocation: Invocation,
    stack: ExitStack,
    listening: tuple[socket.socket, Identity],
    settings: Settings,
    wish: dict[str, Any],
) -> None:
    import json

    from devguard.cli.serve_tls import Server, configured
    from devguard.console.app import make_app, make_console
    from devguard.console.people import Kind
    from devguard.console.table import Role
    from devguard.custody.files import write_atomic

    sock, identity = listening
    console = make_console(settings)
    running = settings.folder / "running.json"
    base = identity.address(sock.getsockname()[0], sock.getsockname()[1])
    write_atomic(running, json.dumps({"url": base, "pid": os.getpid()}).encode(), 0o600)
    stack.callback(running.unlink, missing_ok=True)
    url = base + "/"
    # What systemd keeps of our output it keeps for good: there a link is asked for with `serve link`.
    if settings.loopback and "JOURNAL_STREAM" not in os.environ:
        now = invocation.now()
        expires = now + int(settings.limits.ticket)
        url = f"{base}/in?ticket={console.register.give(Kind.SIGN_IN, settings.operator, Role.ADMIN, expires, now)}"
    invocation.result(
        {"url": url, "origin": settings.origin, "port": sock.getsockname()[1], "pid": os.getpid()},
        f"{url}\n{_says(settings)}",
    )
    sys.stdout.flush()
    if wish["opens"]:
        import webbrowser

        webbrowser.open(url)
    Server(configured(make_app(console), identity)).run(sockets=[sock])
    invocation.note("the console has ended; pushes that were begun go on, and are shown when it is started again")


def _says(settings: Settings) -> str:
    if settings.loopback:
        minutes = int(settings.limits.ticket) // 60
        return f"open it on this machine within {minutes} minutes; it signs in once. Ctrl-C ends the console, no push"
    return "people sign in with keys of their own. Ctrl-C ends the console, no push"

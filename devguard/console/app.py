"""The console as one ASGI application.

How to add a page
-----------------
1. `table.py`: one `Way` for each method and path, with the least role that may, and what body it takes. An entry in
   `NAVIGATION` where it belongs there. A way of the HTTP API has `api=True` and a path under `/api/`.
2. `pages/NAME.py`: `async def show(request: Request) -> Response`. Read with library rooms (evidence, ledger, grant
   ...), in a thread where that takes longer than a few milliseconds (`starlette.concurrency.run_in_threadpool`).
   Whatever it DOES is a command: `console_of(request).commands.ask([...])` gives exit status and JSON. What somebody
   may not do, or got wrong, is a `DevguardError`, raised; the refusal page shows its code, message and hint.
   `request.state` has `session` (person, role), `form` (fields of a Body.FORM) and `t`; `return page(request,
   "NAME.html", ...)` renders.
3. `templates/NAME.html` extends `base.html` (blocks `title`, `main`). No text in it: `{{ t("NAME.key", n=3) }}`. Every
   form that posts holds `{{ m.token(csrf) }}` (from "macros.html"). No inline script or style: the CSP refuses them.
4. `locale/en.json` and `locale/de.json`: every key in both. Keys of a page begin with its name.
5. A page works without a script. `static/console.js` may make it better: elements say with `data-...` what they want.
6. Tests: `tests/rooms/test_console_*.py` with the fixtures of `tests/console_support.py` (no process, no browser), and
   `tests/cli/test_console_browser*.py` with `tests/browser.py` (Chromium; `no_violations(page)` is axe).
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from devguard.console.apidoc import described
from devguard.console.commands import Commands
from devguard.console.facts import Facts
from devguard.console.guard import Guard
from devguard.console.people import Register
from devguard.console.render import refusal
from devguard.console.runs import Runs
from devguard.console.sessions import Failures, Sessions
from devguard.console.settings import Settings
from devguard.console.table import WAYS, Way
from devguard.console.uploads import sweep
from devguard.errors import DevguardError, LinkError, Malformed
from devguard.evidence.record import printable

PAGES: Final = "devguard.console.pages"
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Console:
    """What the pages of one running console share."""

    settings: Settings
    sessions: Sessions
    failures: Failures
    register: Register
    commands: Commands
    runs: Runs
    facts: Facts
    challenges: dict[bytes, float] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)  # port -> what `device list` last said of it
    shelf: list[tuple[str, str]] = field(default_factory=list)  # (model, version) as `shelf list` last said
    streams: int = 0
    is_asking: bool = False

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The ports are being asked what is on them; `LinkError("console.busy")` while they are already."""
        if self.is_asking:
            raise LinkError("console.busy", "the ports are being asked already")
        self.is_asking = True
        try:
            yield
        finally:
            self.is_asking = False


def console_of(request: Request) -> Console:
    """The console that answers this request."""
    console: Console = request.app.state.console
    return console


def handler_of(way: Way) -> Handler:
    """The function that answers, imported now."""
    module, _, name = way.handler.partition(":")
    handler: Handler = getattr(importlib.import_module(f"{PAGES}.{module}"), name)
    return handler


def make_console(settings: Settings) -> Console:
    """The parts, with their folder made; what `Places.make` raises."""
    folder = settings.home.make(settings.folder)
    sweep(settings)
    commands = Commands(settings)
    runs = Runs(settings, commands)
    runs.journal.prune(settings.clock(), settings.limits.keep_release)
    return Console(
        settings,
        Sessions(settings.limits, settings.ticks),
        Failures(settings.limits, settings.ticks),
        Register(folder),
        commands,
        runs,
        Facts.of(settings, commands),
    )


def make_app(console: Console, ways: tuple[Way, ...] = WAYS) -> ASGIApp:
    """The application behind its guard."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(
        title="devguard console",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.console = console
    app.add_exception_handler(DevguardError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _bug)
    for way in ways:
        if way.api:
            handler = handler_of(way)
            app.add_api_route(way.path, handler, methods=[way.method], **described(way, handler))
        else:
            app.add_route(way.path, handler_of(way), methods=[way.method])
    return Guard(app, console.settings, console.sessions, ways)


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, DevguardError):
        raise error
    return refusal(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    """Parameters that are none of those the API's description has."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return refusal(request, Malformed("console.request", f"{printable(where, 100)}: {first['msg']}"))


async def _bug(request: Request, error: Exception) -> Response:
    """What is not ours; the server still logs it."""
    hint = "this is a bug in devguard; report it as SECURITY.md says"
    return refusal(request, DevguardError("internal.error", type(error).__name__, hint))
